"""A node's HTTP API as the commands see it: canned answers, and a record of what was asked."""

import json
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, TypeVar
from urllib.parse import parse_qsl, urlsplit

Fake = TypeVar("Fake", bound="FakeApi")


@dataclass(frozen=True)
class Request:
    method: str
    path: str
    query: dict[str, str]
    token: str | None
    body: Any


@dataclass
class FakeApi:
    """`answer` says what a method and path get, the last of several again and again; anything else gets 404."""

    address: str = ""
    requests: list[Request] = field(default_factory=list)
    answers: dict[tuple[str, str], list[tuple[int, bytes]]] = field(default_factory=dict)
    #: Bytes that a Content-Length promises and that never come.
    missing_bytes: int = 0

    def answer(self, method: str, path: str, body: object = "", status: int = 200) -> None:
        self.answers[method, path] = []
        self.then(method, path, body, status)

    def then(self, method: str, path: str, body: object = "", status: int = 200) -> None:
        """What it gets behind the answers before."""
        data = body if isinstance(body, bytes) else (body if isinstance(body, str) else json.dumps(body)).encode()
        self.answers.setdefault((method, path), []).append((status, data))

    def next_answer(self, method: str, path: str) -> tuple[int, bytes]:
        answers = self.answers.get((method, path), [(404, b"no such path")])
        return answers.pop(0) if len(answers) > 1 else answers[0]

    @property
    def last(self) -> Request:
        return self.requests[-1]


@contextmanager
def serving(tls: ssl.SSLContext | None = None) -> Iterator[FakeApi]:
    with serving_one(FakeApi(), tls) as api:
        yield api


@contextmanager
def serving_one(api: Fake, tls: ssl.SSLContext | None = None) -> Iterator[Fake]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(api))
    if tls is not None:
        server.socket = tls.wrap_socket(server.socket, server_side=True)
    api.address = f"127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, args=(0.005,))
    thread.start()
    try:
        yield api
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def _handler(api: FakeApi) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def _answer(self) -> None:
            url = urlsplit(self.path)
            data = self.rfile.read(int(self.headers.get("Content-Length", "0")))
            query = dict(parse_qsl(url.query, keep_blank_values=True))
            is_json = self.headers["Content-Type"] == "application/json"
            body = (json.loads(data) if is_json else data) if data else None
            api.requests.append(Request(self.command, url.path, query, self.headers["X-Consul-Token"], body))
            status, text = api.next_answer(self.command, url.path)
            self.send_response(status)
            self.send_header("Content-Length", str(len(text) + api.missing_bytes))
            self.end_headers()
            self.wfile.write(text)

        do_GET = do_PUT = do_POST = do_DELETE = _answer  # noqa: N815 - http.server looks for these names

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - its name in http.server
            pass

    return Handler
