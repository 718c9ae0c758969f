"""What a scanner finds on the ports of a real node: nothing but today's TLS."""

import asyncio
import socket
import ssl
import threading
import warnings
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final

import pytest
import pytest_asyncio

from tests.kit import attacker, pki
from tests.kit.real_cluster import LocalCluster, Node
from tests.kit.tls_scanner import Scanner
from tests.kit.wait import eventually

pytestmark = [pytest.mark.slow, pytest.mark.asyncio(loop_scope="module")]

_PORTS: Final = ("http", "raft", "rpc")
_TLS13_SUITES: Final = {"TLS_AES_256_GCM_SHA384", "TLS_CHACHA20_POLY1305_SHA256", "TLS_AES_128_GCM_SHA256"}
#: With forward secrecy and authenticated encryption (RFC 9325 4.2).
_TLS12_CIPHERS: Final = {
    "ECDHE-RSA-AES256-GCM-SHA384",
    "ECDHE-RSA-CHACHA20-POLY1305",
    "ECDHE-RSA-AES128-GCM-SHA256",
}
#: SSL_OP_ALLOW_CLIENT_RENEGOTIATION of OpenSSL 3, which Python has no name for.
_ALLOW_CLIENT_RENEGOTIATION: Final = 1 << 8
_GROUPS: Final = {"X25519", "X448", "SECP256R1", "SECP384R1", "SECP521R1"}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def node(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Node]:
    """Its API has a certificate with an RSA key: with it there are more ways to go wrong, ROBOT for one."""
    root = tmp_path_factory.mktemp("scan")
    private = pki.key("rsa", 2048)
    (root / "http.pem").write_text(pki.pem(pki.root_certificate(private)))
    (root / "http-key.pem").write_text(pki.key_pem(private))
    http = {"tls_cert": str(root / "http.pem"), "tls_key": str(root / "http-key.pem")}
    async with LocalCluster(root, 1, {"http": http, "limits": {"signing_workers": 1}}) as cluster:
        await cluster.start_all()
        [made] = cluster.nodes

        async def is_open() -> bool:
            try:
                await asyncio.to_thread(socket.create_connection(address_of(made, "http"), 5).close)
            except OSError:
                return False
            return True

        await eventually("the API listens", is_open, 60.0)
        yield made


def address_of(node: Node, port: str) -> tuple[str, int]:
    host, _, number = str(getattr(node.local, port)).rpartition(":")
    return host, int(number)


@pytest.mark.parametrize("port", _PORTS)
async def test_scanner_finds_todays_tls_and_nothing_else(node: Node, port: str) -> None:
    found = await asyncio.to_thread(Scanner(getattr(node.local, port)).findings)
    is_api = port == "http"
    assert found.versions == ({"TLSV1_2", "TLSV1_3"} if is_api else {"TLSV1_3"})
    assert found.tls12_ciphers == (_TLS12_CIPHERS if is_api else set())
    assert found.tls13_suites == _TLS13_SUITES
    assert found.groups <= _GROUPS
    assert {"X25519", "SECP256R1"} <= found.groups
    assert found.compression == ("" if is_api else None)  # CRIME
    assert found.renegotiates is (False if is_api else None)
    assert not found.falls_back  # POODLE, and what may come
    assert not found.answers_heartbeats  # Heartbleed


def _context(node: Node, port: str, version: ssl.TLSVersion) -> ssl.SSLContext:
    directory = node.local.directory
    own = attacker.Credentials(directory / "cert.pem", directory / "key.pem")
    context = attacker.client_context(None if port == "http" else own)
    context.minimum_version = context.maximum_version = version
    return context


def _session(
    node: Node, port: str, context: ssl.SSLContext, before: ssl.SSLSession | None = None
) -> tuple[ssl.SSLSession | None, bool | None]:
    """Of a connection, and whether it went on with the session before."""
    with (
        socket.create_connection(address_of(node, port), 5) as plain,
        context.wrap_socket(plain, session=before) as sock,
    ):
        sock.settimeout(1.0)
        sock.sendall(b"GET /v1/status/leader HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        try:
            while sock.recv(65536):
                pass
        except OSError:
            pass
        return sock.session, sock.session_reused


@pytest.mark.parametrize("port", _PORTS)
async def test_no_session_is_resumed_with_a_ticket(node: Node, port: str) -> None:
    """A ticket would outlive the withdrawal of a certificate, and open what was recorded to whoever finds its key."""
    context = _context(node, port, ssl.TLSVersion.TLSv1_3)
    session, _ = await asyncio.to_thread(_session, node, port, context)
    assert session is None or not session.has_ticket
    _, is_reused = await asyncio.to_thread(_session, node, port, context, session)
    assert not is_reused


async def test_tls_1_2_of_the_api_has_no_tickets_either(node: Node) -> None:
    context = _context(node, "http", ssl.TLSVersion.TLSv1_2)
    session, _ = await asyncio.to_thread(_session, node, "http", context)
    assert session is not None
    assert not session.has_ticket
    # By its number it may go on, which only the node itself can tell: docs/security.md says so.
    _, is_reused = await asyncio.to_thread(_session, node, "http", context, session)
    assert is_reused


@pytest.mark.parametrize("port", _PORTS)
async def test_ports_between_nodes_want_a_certificate_and_the_api_none(node: Node, port: str) -> None:
    context = attacker.client_context(None)
    with socket.create_connection(address_of(node, port), 5) as plain, context.wrap_socket(plain) as sock:
        sock.settimeout(10)
        sock.sendall(b"GET /v1/status/leader HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        try:
            answer = sock.recv(65536)
        except OSError:
            answer = b""  # the alert that says so may come, or the end
        assert answer.startswith(b"HTTP/1.1 ") if port == "http" else answer == b""


async def test_scanner_sees_what_is_wrong(tmp_path: Path) -> None:
    """So that its silence means something: a server that takes what no server should."""
    private = pki.key("rsa", 2048)
    (tmp_path / "cert.pem").write_text(pki.pem(pki.root_certificate(private)) + pki.key_pem(private))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "cert.pem")
    with warnings.catch_warnings(action="ignore", category=DeprecationWarning):
        context.minimum_version = ssl.TLSVersion.TLSv1
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers("ALL:@SECLEVEL=0")
    context.options |= _ALLOW_CLIENT_RENEGOTIATION

    def serve(server: socket.socket) -> None:
        while True:
            try:
                plain, _ = server.accept()
            except OSError:
                return
            try:
                with context.wrap_socket(plain, server_side=True) as sock:
                    sock.settimeout(1.0)
                    while sock.recv(65536):
                        pass
            except OSError:
                plain.close()

    server = socket.create_server(("127.0.0.1", 0))
    thread = threading.Thread(target=serve, args=(server,))
    thread.start()
    try:
        found = await asyncio.to_thread(Scanner(f"127.0.0.1:{server.getsockname()[1]}").findings)
    finally:
        server.shutdown(socket.SHUT_RDWR)
        server.close()
        thread.join()
    assert {"TLSV1", "TLSV1_1", "TLSV1_2"} <= found.versions
    assert {"AES128-SHA", "ECDHE-RSA-AES128-SHA"} <= found.tls12_ciphers
    assert found.groups - _GROUPS
    assert found.falls_back
    assert found.renegotiates
    assert found.tls13_suites == set()
