"""One request to Vault over a real socket, and answers that no Vault gives."""

import contextlib
import ssl
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

import pytest
from cryptography import x509

from providers.vault.config import TLSOptions
from providers.vault.transport import Answer, HvacTransport, TransportFailure
from tests.kit import pki

_PIECE = bytes(64 << 10)
_PIECES = 1024


class _Handler(BaseHTTPRequestHandler):
    sent = 0
    elsewhere = ""  # to where it sends on
    tokens: ClassVar[list[str | None]] = []  # of every request

    def do_GET(self) -> None:  # the library's name
        self.tokens.append(self.headers["X-Vault-Token"])
        if self.path == "/v1/endless":
            self._much()
            return
        if self.path == "/v1/standby":
            self.send_response(307)
            self.send_header("Location", self.elsewhere)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        body = b'{"data": {"a": "\xc3\xa4"}}'
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Retry-After", "7")
        self.end_headers()
        self.wfile.write(body)

    def _much(self) -> None:
        self.send_response(200)
        self.end_headers()
        with contextlib.suppress(OSError):  # the client has had enough
            for _ in range(_PIECES):
                self.wfile.write(_PIECE)
                type(self).sent += len(_PIECE)

    def log_message(self, *_: object) -> None: ...


@contextlib.contextmanager
def _served(context: ssl.SSLContext | None = None) -> Iterator[str]:
    """The address of a server."""
    with ThreadingHTTPServer(("127.0.0.1", 0), _Handler) as server:
        if context is not None:
            server.socket = context.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        yield f"{'https' if context else 'http'}://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


@pytest.fixture
def plain() -> Iterator[str]:
    _Handler.sent = 0
    _Handler.tokens.clear()
    with _served() as address:
        yield address


@pytest.fixture
def transport(plain: str) -> Iterator[HvacTransport]:
    made = HvacTransport(plain, TLSOptions())
    yield made
    made.close()


@pytest.fixture
def over_tls(tmp_path: Path) -> Iterator[HvacTransport]:
    """To a server with a certificate that it has signed itself."""
    private, now = pki.key(), int(time.time())
    names = x509.SubjectAlternativeName(pki.alt_names(ips=["127.0.0.1"]))
    extensions = [*pki.ca_extensions(private.public_key(), pki.key_id(private.public_key()), uris=()), (names, False)]
    cert = pki.certificate(
        private.public_key(),
        private,
        extensions,
        subject="vault",
        issuer="vault",
        not_before=now - 60,
        not_after=now + 3600,
    )
    (tmp_path / "server.pem").write_text(pki.key_pem(private) + pki.pem(cert))
    (tmp_path / "ca.pem").write_text(pki.pem(cert))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "server.pem")
    with _served(context) as address:
        made = HvacTransport(address, TLSOptions(ca_file=str(tmp_path / "ca.pem")))
        yield made
        made.close()


def get(transport: HvacTransport, path: str) -> Answer:
    return transport.send("get", path, body=None, token="t", namespace="", timeout_seconds=5.0)


def test_answer_is_decoded(transport: HvacTransport) -> None:
    for _ in range(2):
        answer = get(transport, "well")
        assert (answer.status, answer.data, answer.retry_after_seconds) == (200, {"a": "ä"}, 7.0)
        assert answer.text == '{"data": {"a": "ä"}}'


def test_no_more_of_an_answer_is_read_than_an_answer_may_have(transport: HvacTransport) -> None:
    with pytest.raises(TransportFailure, match="answered with more than 1048576 bytes"):
        get(transport, "endless")
    # Beyond what is read there is what the sockets hold.
    assert _Handler.sent < _PIECES * len(_PIECE) / 2


def test_redirects_are_followed_to_the_active_node_and_not_in_a_circle(transport: HvacTransport, plain: str) -> None:
    _Handler.elsewhere = f"{plain}/v1/well"
    assert get(transport, "standby").data == {"a": "ä"}
    assert _Handler.tokens == ["t", "t"]
    _Handler.tokens.clear()
    _Handler.elsewhere = f"{plain}/v1/standby"
    with pytest.raises(TransportFailure, match="Exceeded 2 redirects"):
        get(transport, "standby")
    assert len(_Handler.tokens) == 3


def test_redirect_away_from_tls_is_not_followed(over_tls: HvacTransport, plain: str) -> None:
    """The token would cross the network in clear."""
    assert get(over_tls, "well").status == 200
    _Handler.tokens.clear()
    _Handler.elsewhere = f"{plain}/v1/well"
    with pytest.raises(TransportFailure, match="which is not TLS: not followed"):
        get(over_tls, "standby")
    assert _Handler.tokens == ["t"]
