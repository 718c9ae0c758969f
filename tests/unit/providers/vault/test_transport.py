"""One request to Vault over a real socket, and answers that no Vault gives."""

import contextlib
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from providers.vault.config import TLSOptions
from providers.vault.transport import Answer, HvacTransport, TransportFailure

_PIECE = bytes(64 << 10)
_PIECES = 1024


class _Handler(BaseHTTPRequestHandler):
    sent = 0

    def do_GET(self) -> None:  # the library's name
        if self.path == "/v1/endless":
            self._much()
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


@pytest.fixture
def transport() -> Iterator[HvacTransport]:
    _Handler.sent = 0
    with ThreadingHTTPServer(("127.0.0.1", 0), _Handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        made = HvacTransport(f"http://127.0.0.1:{server.server_address[1]}", TLSOptions())
        yield made
        made.close()
        server.shutdown()
        thread.join()


def get(transport: HvacTransport, path: str) -> Answer:
    return transport.send("get", path, body=None, token="", namespace="", timeout_seconds=5.0)


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
