"""The key that a server is known by: the same in its own files and to whoever meets it, whatever certificate it has."""

import contextlib
import ssl
from pathlib import Path

import pytest

from cluster.tls.contexts import NodeTls, TlsFiles
from cluster.tls.keys import KEY_BYTES, anchor_part, public_part, shown_by
from tests.kit.tls_files import Authority


def tls_of(directory: Path, name: str, ca: str = "ca") -> NodeTls:
    files = TlsFiles(str(directory / f"{ca}.pem"), str(directory / f"{name}.pem"), str(directory / f"{name}.key"))
    return NodeTls(files, "dc1", "consul")


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    authority, other = Authority(), Authority()
    authority.write_ca(tmp_path / "ca.pem")
    other.write_ca(tmp_path / "other.pem")
    for name in ("a", "b"):
        authority.write_server(tmp_path, name)
    other.write_server(tmp_path, "foreign")
    return tmp_path


def met(server: NodeTls, client: NodeTls, name: str) -> bytes:
    """What a client takes the server's key for."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    one = client.client_context.wrap_bio(incoming, outgoing, server_hostname=client.server_name(name))
    two = server.server_context.wrap_bio(outgoing, incoming, server_side=True)
    for _ in range(4):
        for end in (one, two):
            with contextlib.suppress(ssl.SSLWantReadError):
                end.do_handshake()
    assert server.peer_key(two) == client.key
    return client.peer_key(one)


def test_key_is_what_others_see_of_it(directory: Path) -> None:
    a, b = tls_of(directory, "a"), tls_of(directory, "b")
    assert met(a, b, "a") == a.key
    assert len(a.key) == KEY_BYTES
    assert public_part(a.key) != public_part(b.key)
    assert anchor_part(a.key) == anchor_part(b.key)
    assert a.anchors == {anchor_part(a.key)}


def test_renewed_certificate_of_the_same_key_is_the_same_server(tmp_path: Path) -> None:
    authority = Authority()
    authority.write_ca(tmp_path / "ca.pem")
    authority.write_server(tmp_path, "a")
    tls = tls_of(tmp_path, "a")
    before, cert = tls.key, (tmp_path / "a.pem").read_bytes()
    authority.renew_server(tmp_path, "a")
    assert (tmp_path / "a.pem").read_bytes() != cert
    tls.reload()
    assert tls.key == before


def test_new_files_are_looked_at_without_being_used(directory: Path) -> None:
    a, b = tls_of(directory, "a"), tls_of(directory, "b")
    before = a.key
    for kind in ("pem", "key"):
        (directory / f"a.{kind}").write_bytes((directory / f"b.{kind}").read_bytes())
    assert a.read_key() == b.key
    assert a.key == before == met(a, b, "a")


def test_ca_that_was_taken_out_is_trusted_until_the_next_start(directory: Path) -> None:
    a = tls_of(directory, "a")
    old = a.anchors
    (directory / "ca.pem").write_bytes((directory / "other.pem").read_bytes())
    for kind in ("pem", "key"):
        (directory / f"a.{kind}").write_bytes((directory / f"foreign.{kind}").read_bytes())
    a.reload()
    assert old < a.anchors
    assert tls_of(directory, "foreign").anchors == a.anchors - old


def test_own_certificate_that_nobody_accepts_has_a_key_and_no_ca(directory: Path) -> None:
    tls = tls_of(directory, "foreign")
    assert public_part(tls.key) == public_part(tls_of(directory, "foreign", "other").key)
    assert anchor_part(tls.key) not in tls.anchors


def test_handshake_that_fails_says_so(directory: Path) -> None:
    with pytest.raises(ssl.SSLError):
        shown_by(tls_of(directory, "a").server_context, tls_of(directory, "foreign", "other").client_context)
