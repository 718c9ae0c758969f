"""One request to Vault over a real socket, and answers that no Vault gives."""

import contextlib
import json
import socket
import ssl
import threading
import time
import zlib
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
SECRET = "s.0123456789abcdefghijklmn".lower()
CREDENTIAL = "the-secret-id"
_PACKED = zlib.compress(64 * _PIECE, wbits=31)  # a thousandth of what it stands for


class _Handler(BaseHTTPRequestHandler):
    sent = 0
    protocol_version = "HTTP/1.1"
    elsewhere = ""  # to where it sends on
    status = 307
    ports: ClassVar[set[int]] = set()  # of clients
    tokens: ClassVar[list[str | None]] = []  # of every request

    def do_PUT(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.do_GET()

    def do_GET(self) -> None:  # the library's name
        self.tokens.append(self.headers["X-Vault-Token"])
        self.ports.add(self.client_address[1])
        if (odd := getattr(self, f"_{self.path.removeprefix('/v1/')}", None)) is not None:
            self.close_connection = True
            with contextlib.suppress(OSError):  # the client has had enough
                odd()
            return
        if self.path == "/v1/standby":
            self.send_response(self.status)
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

    def _endless(self) -> None:
        self.send_response(200)
        self.end_headers()
        for _ in range(_PIECES):
            self.wfile.write(_PIECE)
            type(self).sent += len(_PIECE)

    def _packed(self) -> None:
        self.send_response(200)
        self.send_header("Content-Encoding", "gzip")
        self.send_header("Content-Length", str(len(_PACKED)))
        self.end_headers()
        self.wfile.write(_PACKED)

    def _garbage(self) -> None:
        self.wfile.write(b"\x1b[31m\x00\xff no HTTP" * 1000 + b"\r\n\r\n")

    def _silent(self) -> None:
        time.sleep(1)

    def _dripping(self) -> None:
        """A piece now and then, each of them in time."""
        self.send_response(200)
        self.send_header("Content-Length", "1000")
        self.end_headers()
        for _ in range(1000):
            self.wfile.write(b"x")
            self.wfile.flush()
            time.sleep(0.1)

    def _headers(self) -> None:
        self.send_response(200)
        for number in range(1000):
            self.send_header(f"X-{number}", "x" * 1000)
        self.end_headers()

    def _send_without_end(self, head: bytes, piece: bytes, pause_seconds: float = 0.02) -> None:
        self.wfile.write(head)
        until = time.monotonic() + 20
        while time.monotonic() < until:
            self.wfile.write(piece)
            if pause_seconds:
                time.sleep(pause_seconds)

    def _goes_on(self) -> None:
        self._send_without_end(b"", b"HTTP/1.1 100 Continue\r\n\r\n")

    def _head_by_bytes(self) -> None:
        self._send_without_end(b"HTTP/1.1 200 OK\r\nX-A: ", b"x")

    def _status_by_bytes(self) -> None:
        self._send_without_end(b"HTTP/1.1 200 ", b"x")

    def _chunk_line_by_bytes(self) -> None:
        self._send_without_end(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1;", b"x")

    def _trailers(self) -> None:
        self._send_without_end(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n", b"A: b\r\n")

    def _no_length(self) -> None:
        self._send_without_end(b"HTTP/1.0 200 OK\r\n\r\n", b"x")

    def _goes_on_fast(self) -> None:
        self._send_without_end(b"", 1000 * b"HTTP/1.1 100 Continue\r\n\r\n", 0)

    def _trailers_fast(self) -> None:
        head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n"
        self._send_without_end(head, 1000 * b"A: b\r\n", 0)

    def _echo(self) -> None:
        body = json.dumps(
            {"errors": [f"no {SECRET} {CREDENTIAL}", SECRET], "data": {SECRET: [{"id": f"x{SECRET}"}]}}
        ).encode()
        self.send_response(400)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _echo_pem(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(SECRET)))
        self.end_headers()
        self.wfile.write(SECRET.encode())

    def _echo_status(self) -> None:
        self.wfile.write(f"{SECRET} {CREDENTIAL}\r\n\r\n".encode())

    def _echo_host(self) -> None:
        self.send_response(307)
        self.send_header("Location", f"https://{SECRET}/")
        self.end_headers()

    def _slow(self) -> None:
        time.sleep(1.0)
        self.send_response(204)
        self.end_headers()
        self.close_connection = False

    def _cut(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", "1000")
        self.end_headers()
        self.wfile.write(b"x")

    def _wordy(self) -> None:
        body = json.dumps({"errors": ["\x1b[31m" + "very " * 20_000, *["more"] * 10_000]}).encode()
        self.send_response(500)
        self.send_header("Content-Type", "application/json")
        self.send_header("Retry-After", "9" * 4000)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

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
    _Handler.sent, _Handler.status = 0, 307
    _Handler.tokens.clear()
    _Handler.ports.clear()
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


def test_redirects_within_the_address_are_followed_and_not_in_a_circle(transport: HvacTransport, plain: str) -> None:
    for elsewhere in (f"{plain}/v1/well", "/v1/well", "well"):
        _Handler.tokens.clear()
        _Handler.elsewhere = elsewhere
        assert get(transport, "standby").data == {"a": "ä"}
        assert _Handler.tokens == ["t", "t"]
    _Handler.tokens.clear()
    _Handler.elsewhere = f"{plain}/v1/standby"
    with pytest.raises(TransportFailure, match="sends on more than 2 times"):
        get(transport, "standby")
    assert len(_Handler.tokens) == 3


@pytest.mark.parametrize(
    "elsewhere",
    [
        "{other}/v1/well",
        "//{host}/v1/well",
        "http://localhost:{port}/v1/well",
        "https://127.0.0.1:{port}/v1/well",
        "{same}/other/well",
        "{same}/v1/../other",
        "{same}@{host}/v1/well",
        "http://[/",
        "",
    ],
)
@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_redirect_to_another_origin_is_not_followed(
    transport: HvacTransport, plain: str, elsewhere: str, status: int
) -> None:
    """A token was given for the configured address alone."""
    with _served() as other:
        host, port = other.removeprefix("http://"), plain.rpartition(":")[2]
        _Handler.elsewhere = elsewhere.format(other=other, host=host, port=port, same=plain)
        _Handler.status = status
        with pytest.raises(TransportFailure, match=r"which is not followed|cannot be reached|sends on more than"):
            get(transport, "standby")
    assert len(_Handler.tokens) == (3 if not elsewhere else 1)  # an empty one is the same again


def test_redirect_away_from_tls_is_not_followed(over_tls: HvacTransport, plain: str) -> None:
    """The token would cross the network in clear."""
    assert get(over_tls, "well").status == 200
    _Handler.tokens.clear()
    _Handler.elsewhere = f"{plain}/v1/well"
    with pytest.raises(TransportFailure, match="which is not followed"):
        get(over_tls, "standby")
    assert _Handler.tokens == ["t"]


@pytest.mark.parametrize("name", ["HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"])
def test_proxy_of_the_environment_is_not_used(plain: str, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    with _served() as proxy:
        monkeypatch.setenv(name, proxy)
        monkeypatch.delenv("NO_PROXY", raising=False)
        monkeypatch.delenv("no_proxy", raising=False)
        # A name of this machine that no list of exceptions holds.
        transport = HvacTransport(plain.replace("127.0.0.1", "127.0.0.2"), TLSOptions())
        with pytest.raises(TransportFailure, match="cannot be reached"):
            get(transport, "well")
        transport.close()
    assert _Handler.tokens == []


@pytest.mark.parametrize("path", ["packed", "garbage", "silent", "dripping", "headers", "cut"])
def test_answer_that_no_vault_gives_is_a_failure_in_few_words_and_in_time(transport: HvacTransport, path: str) -> None:
    started = time.monotonic()
    with pytest.raises(TransportFailure) as caught:
        transport.send("get", path, body=None, token="t", namespace="", timeout_seconds=0.3)
    assert time.monotonic() - started < 8
    assert len(str(caught.value)) < 700
    assert str(caught.value).isprintable()


ENDLESS = ["goes_on", "head_by_bytes", "status_by_bytes", "chunk_line_by_bytes", "trailers", "no_length", "dripping"]


@pytest.mark.parametrize("path", ENDLESS)
def test_exchange_ends_in_time_whatever_part_of_an_answer_has_no_end(
    transport: HvacTransport, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each byte is in time for a socket."""
    monkeypatch.setattr("providers.vault.transport._CONNECT_SECONDS", 0.3)
    started = time.monotonic()
    with pytest.raises(TransportFailure, match="does not answer in time"):
        transport.send("get", path, body=None, token="t", namespace="", timeout_seconds=0.5)
    assert time.monotonic() - started < 3


@pytest.mark.parametrize("path", ["goes_on_fast", "trailers_fast"])
def test_no_more_is_read_than_an_exchange_may_have(transport: HvacTransport, path: str) -> None:
    started = time.monotonic()
    with pytest.raises(TransportFailure, match=r"answered with more than \d+ bytes"):
        get(transport, path)
    assert time.monotonic() - started < 5


def test_handshake_ends_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("providers.vault.transport._CONNECT_SECONDS", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as server:

        def drip() -> None:
            connection, _ = server.accept()
            with connection, contextlib.suppress(OSError):
                connection.sendall(b"\x16\x03\x03\x40\x00\x02\x00\x3f\xfc")  # a ServerHello of 16 KB
                while True:
                    connection.sendall(b"\x03")
                    time.sleep(0.02)

        threading.Thread(target=drip, daemon=True).start()
        made = HvacTransport(f"https://127.0.0.1:{server.getsockname()[1]}", TLSOptions())
        started = time.monotonic()
        with pytest.raises(TransportFailure, match="does not answer in time"):
            made.send("get", "x", body=None, token="t", namespace="", timeout_seconds=0.5)
        assert time.monotonic() - started < 3
        made.close()


def test_deadline_of_an_exchange_does_not_end_a_later_one_on_its_connection(
    transport: HvacTransport, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("providers.vault.transport._CONNECT_SECONDS", 0.1)
    assert transport.send("get", "well", body=None, token="t", namespace="", timeout_seconds=0.4).status == 200
    assert transport.send("get", "slow", body=None, token="t", namespace="", timeout_seconds=5.0).status == 204
    assert len(_Handler.ports) == 1


def test_many_addresses_share_the_time_for_connecting(monkeypatch: pytest.MonkeyPatch) -> None:
    """A name server may give any number of them, and nobody need be there."""
    with socket.create_server(("127.0.0.1", 0), backlog=0) as full, contextlib.ExitStack() as stack:
        for _ in range(2):  # nobody takes these: whoever comes after them gets no answer
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(full.getsockname())
        address = (socket.AF_INET, socket.SOCK_STREAM, 6, "", full.getsockname())
        monkeypatch.setattr("socket.getaddrinfo", lambda *_, **__: 100 * [address])
        monkeypatch.setattr("providers.vault.transport._CONNECT_SECONDS", 1.0)
        made = HvacTransport("http://vault.test:8200", TLSOptions())
        started = time.monotonic()
        with pytest.raises(TransportFailure, match="does not answer in time"):
            made.send("get", "x", body=None, token="t", namespace="", timeout_seconds=5.0)
        assert time.monotonic() - started < 2
        made.close()


def test_address_that_answers_nothing_keeps_no_other_from_being_tried(
    plain: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of three Vaults with one name, one is switched off; or a firewall drops what is of IPv6."""
    port = int(plain.rsplit(":", 1)[1])
    with socket.create_server(("127.0.0.1", 0), backlog=0) as full, contextlib.ExitStack() as stack:
        for _ in range(2):
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(full.getsockname())
        found = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", at) for at in (full.getsockname(), ("127.0.0.1", port))]
        monkeypatch.setattr("socket.getaddrinfo", lambda *_, **__: found)
        monkeypatch.setattr("providers.vault.transport._CONNECT_SECONDS", 1.0)
        made = HvacTransport(f"http://vault.test:{port}", TLSOptions())
        assert made.send("get", "well", body=None, token="t", namespace="", timeout_seconds=5.0).status == 200
        made.close()


def test_exchange_without_a_thread_for_its_deadline_fails_and_the_next_one_has_one(
    transport: HvacTransport, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", refuse)
        with pytest.raises(TransportFailure, match="no thread can be started"):
            transport.send("get", "well", body=None, token="t", namespace="", timeout_seconds=1.0)
    monkeypatch.setattr("providers.vault.transport._CONNECT_SECONDS", 0.1)
    started = time.monotonic()
    with pytest.raises(TransportFailure, match="does not answer in time"):
        transport.send("get", "goes_on", body=None, token="t", namespace="", timeout_seconds=0.4)
    assert time.monotonic() - started < 3


def test_reasons_of_a_vault_are_cut(transport: HvacTransport) -> None:
    answer = get(transport, "wordy")
    assert answer.status == 500
    assert len(answer.errors) < 500
    assert answer.errors.isprintable()
    assert answer.retry_after_seconds <= 3600


@pytest.mark.parametrize("path", ["echo", "echo_pem", "echo_status", "echo_host"])
def test_secret_that_was_sent_is_not_shown_whoever_repeats_it(transport: HvacTransport, path: str) -> None:
    body = {"role": "web", "secret_id": CREDENTIAL}
    transport.send("put", "auth/approle/login", body=body, token="", namespace="", timeout_seconds=5.0)
    try:
        answer = transport.send("get", path, body=None, token=SECRET, namespace="", timeout_seconds=5.0)
        shown = f"{answer.text if path == 'echo_pem' else ''} {answer.errors} {answer.data}"
    except TransportFailure as failure:
        shown = str(failure)
    assert SECRET not in shown
    assert CREDENTIAL not in shown
    assert "(a secret that was sent)" in shown


@pytest.mark.parametrize("token", [f"{SECRET}\n", f"{SECRET}\r\nX: y", f" {SECRET}", f"{SECRET}\u20ac"])
def test_what_a_library_says_of_a_token_that_cannot_be_sent_does_not_show_it(
    transport: HvacTransport, token: str
) -> None:
    with pytest.raises(TransportFailure, match="no such request can be made") as caught:
        transport.send("get", "well", body=None, token=token, namespace="", timeout_seconds=5.0)
    assert SECRET not in str(caught.value)
    assert _Handler.tokens == []


def test_connection_is_used_again(transport: HvacTransport) -> None:
    for _ in range(5):
        get(transport, "well")
    assert len(_Handler.ports) == 1
