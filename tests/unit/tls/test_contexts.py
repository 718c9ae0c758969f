"""Who a peer is, as its certificate says."""

import contextlib
import ssl
from pathlib import Path
from typing import Any

import pytest

from cluster.base.names import is_node_name
from cluster.tls.contexts import NodeTls, TlsFiles
from tests.kit.rpc_nodes import node_tls


def names(*pairs: tuple[str, str]) -> dict[str, Any]:
    return {"subjectAltName": pairs}


@pytest.mark.parametrize(
    ("certificate", "expected"),
    [
        (names(("DNS", "b.server.dc1.consul"), ("DNS", "localhost"), ("IP Address", "127.0.0.1")), "b"),
        (names(("DNS", "b.server.dc1.consul"), ("DNS", "b.server.dc1.consul")), "b"),
        (names(("DNS", "b.server.dc1.consul"), ("DNS", "c.server.dc1.consul")), None),
        (names(("DNS", "b.client.dc1.consul")), None),
        (names(("DNS", "b.server.dc2.consul")), None),
        (names(("DNS", "b.server.dc1.example")), None),
        (names(("DNS", "server.dc1.consul")), None),
        (names(("DNS", ".server.dc1.consul")), None),
        (names(("DNS", "*.server.dc1.consul")), None),
        (names(("DNS", "x.b.server.dc1.consul")), None),
        (names(("DNS", "B.server.dc1.consul")), None),
        (names(("URI", "b.server.dc1.consul")), None),
        ({}, None),
        (None, None),
    ],
)
def test_peer_is_the_one_server_its_certificate_names(
    tls_directory: Path, certificate: dict[str, Any] | None, expected: str | None
) -> None:
    assert node_tls(tls_directory, "a").peer_name(certificate) == expected


def test_name_to_ask_for(tls_directory: Path) -> None:
    assert node_tls(tls_directory, "a").server_name("b") == "b.server.dc1.consul"


def test_only_mutual_tls_1_3_is_spoken(tls_directory: Path) -> None:
    tls = node_tls(tls_directory, "a")
    for context in (tls.server_context, tls.client_context):
        assert context.minimum_version is ssl.TLSVersion.TLSv1_3
        assert context.verify_mode is ssl.CERT_REQUIRED
    assert tls.client_context.check_hostname


def test_no_connection_can_be_resumed(tls_directory: Path) -> None:
    """A ticket would be good for longer than the certificate that it was given for."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    server = node_tls(tls_directory, "a").server_context.wrap_bio(to_server, to_client, server_side=True)
    client = node_tls(tls_directory, "b").client_context.wrap_bio(
        to_client, to_server, server_hostname="a.server.dc1.consul"
    )
    for end in (client, server, client, server):
        with contextlib.suppress(ssl.SSLWantReadError):
            end.do_handshake()
    server.write(b"hello")  # comes after the tickets, if there are any
    assert client.read() == b"hello"
    assert client.session is not None
    assert not client.session.has_ticket


def test_files_that_cannot_be_used_are_errors(tls_directory: Path, tmp_path: Path) -> None:
    good = [str(tls_directory / name) for name in ("ca.pem", "a.pem", "a.key")]
    with pytest.raises(OSError, match="No such file"):
        NodeTls(TlsFiles(good[0], good[1], str(tmp_path / "none")), "dc1", "consul")
    (tmp_path / "bad").write_text("no certificate")
    with pytest.raises(ssl.SSLError):
        NodeTls(TlsFiles(good[0], str(tmp_path / "bad"), good[2]), "dc1", "consul")
    with pytest.raises(ssl.SSLError):
        NodeTls(TlsFiles(good[0], good[1], str(tls_directory / "b.key")), "dc1", "consul")


@pytest.mark.parametrize(
    ("text", "expected"),
    [("a", True), ("node-1", True), ("", False), ("-a", False), ("a-", False), ("A", False), ("a.b", False),
     ("a" * 63, True), ("a" * 64, False), ("a\n", False), ("ä", False)],
)  # fmt: skip
def test_node_names_are_labels(text: str, expected: bool) -> None:
    assert is_node_name(text) is expected
