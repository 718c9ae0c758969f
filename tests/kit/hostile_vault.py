"""What calls itself a Vault and is none: it takes any token, and answers the rest with what it likes."""

import contextlib
import json
import random
import threading
import time
from collections import Counter
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final

#: How it answers what it does not answer well.
MODES: Final = (
    "garbage",
    "flood",
    "wordy",
    "refusal",
    "drip",
    "head",
    "goes_on",
    "trailers",
    "hang",
    "redirect",
    "packed",
    "empty",
    "nonsense",
)

_HOLD_SECONDS: Final = 4.0
_FLOOD_BYTES: Final = 64 << 20
_PIECE: Final = bytes(64 << 10)
_WORDS: Final = "\x1b[31m" + 700_000 * "x"
_NONSENSE: Final[dict[str, Any]] = {
    "data": {
        "certificate": 7,
        "csr": "-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n-----END CERTIFICATE REQUEST-----\n",
        "keys": ["../../sys/seal", None, 7, "x" * 10_000],
        "key_info": [],
        "mapping": {"../x": "y"},
        "key_id": "../../x",
        "default": {"a": 1},
        "ttl": 1e300,
    }
}


class HostileVault:
    """`address` is where it listens; `mode` may be changed at any time. With `is_far`, it lets a change of the CA come
    as far as making a root. `trapped` counts what came to the place to which it redirects.
    """

    def __init__(self) -> None:
        self.mode = MODES[0]
        self.is_far = False
        self.hold_seconds = _HOLD_SECONDS  # how long it goes on with what has no end
        self.answered: Counter[str] = Counter()
        self.trapped = 0
        self.address = ""
        self.trap = ""
        self.ending = threading.Event()

    def is_well(self, path: str) -> bool:
        if path.startswith("/v1/auth/token/"):
            return True
        return self.is_far and (path.endswith("/ca/pem") or path.startswith("/v1/sys/"))


def _handler(vault: HostileVault, *, is_trap: bool) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def parse_request(self) -> bool:
            """Of any method: what is wanted is not what is looked at."""
            is_understood = super().parse_request()
            if is_understood:
                self.close_connection = True
                with contextlib.suppress(OSError):  # the client has had enough
                    self._answer()
            return False

        def _answer(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
            if is_trap:
                vault.trapped += 1
            if is_trap or vault.is_well(self.path):
                is_pem = self.path.endswith("/pem")
                self._send(200, b"" if is_pem else json.dumps({"data": {"ttl": 0, "renewable": False}}).encode())
                return
            vault.answered[vault.mode] += 1
            getattr(self, f"_{vault.mode}")()

        def _send(self, status: int, body: bytes, **headers: str) -> None:
            self.send_response(status)
            for name, value in {"Content-Type": "application/json", **headers}.items():
                self.send_header(name.replace("_", "-"), value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def _garbage(self) -> None:
            self.wfile.write(random.randbytes(4096))

        def _flood(self) -> None:
            self.send_response(200)
            self.end_headers()
            for _ in range(_FLOOD_BYTES // len(_PIECE)):
                self.wfile.write(_PIECE)

        def _wordy(self) -> None:
            self._send(500, json.dumps({"errors": [_WORDS]}).encode(), Retry_After="9" * 2000)

        def _refusal(self) -> None:
            self._send(400, json.dumps({"errors": [_WORDS]}).encode())

        def _drip(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", "1000000")
            self.end_headers()
            self._send_on(b" ")

        def _send_on(self, piece: bytes) -> None:
            deadline = time.monotonic() + vault.hold_seconds
            while time.monotonic() < deadline and not vault.ending.wait(0.05):
                self.wfile.write(piece)

        def _head(self) -> None:
            self.wfile.write(b"HTTP/1.1 200 OK\r\nX-A: ")
            self._send_on(b"x")

        def _goes_on(self) -> None:
            self._send_on(b"HTTP/1.1 100 Continue\r\n\r\n")

        def _trailers(self) -> None:
            self.wfile.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n")
            self._send_on(b"A: b\r\n")

        def _hang(self) -> None:
            vault.ending.wait(vault.hold_seconds)

        def _redirect(self) -> None:
            self._send(307, b"", Location=f"{vault.trap}{self.path}")

        def _packed(self) -> None:
            self._send(200, _PIECE, Content_Encoding="gzip")

        def _empty(self) -> None:
            self._send(200, b"{}")

        def _nonsense(self) -> None:
            self._send(200, json.dumps(_NONSENSE).encode())

        def log_message(self, *_: object) -> None: ...

    return Handler


@contextlib.contextmanager
def _served(handler: type[BaseHTTPRequestHandler]) -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()


@contextlib.contextmanager
def hostile_vault() -> Iterator[HostileVault]:
    vault = HostileVault()
    with _served(_handler(vault, is_trap=True)) as vault.trap, _served(_handler(vault, is_trap=False)) as vault.address:
        try:
            yield vault
        finally:
            vault.ending.set()
