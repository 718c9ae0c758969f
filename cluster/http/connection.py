"""One client connection: bounds on what arrives before there is a request, and plain answers to what is not HTTP.

aiohttp's handler does the rest. What it lacks: a limit on the time and size of a request's head, on the number of
connections, and errors without HTML or tracebacks.
"""

import asyncio
from collections.abc import Callable
from typing import Any, Final

from aiohttp import web
from aiohttp.http_exceptions import LineTooLong
from aiohttp.web_protocol import RequestHandler
from aiohttp.web_request import BaseRequest

from cluster.base.log import Log
from cluster.http.render import SERVER, TEXT, text_response

MAX_HEADERS: Final = 64
MAX_HEADER_BYTES: Final = 16 << 10
MAX_URL_BYTES: Final = 8190
HEAD_SECONDS: Final = 30.0
#: How long an answer that does not fit into the buffers may stay unread.
ANSWER_SECONDS: Final = 30.0
#: Longer than load balancers and clients keep theirs, so that it is they who close an idle connection.
IDLE_SECONDS: Final = 120.0
_READ_BYTES: Final = 64 << 10

_MALFORMED: Final = "malformed HTTP request"
_REASONS: Final = {408: "Request Timeout", 431: "Request Header Fields Too Large", 503: "Service Unavailable"}


class Door:
    """Counts the open connections of one listener."""

    def __init__(
        self,
        max_connections: int,
        log: Log,
        on_refused: Callable[[int], None],
        head_seconds: float = HEAD_SECONDS,
        answer_seconds: float = ANSWER_SECONDS,
    ) -> None:
        self.max_connections = max_connections
        self.log = log
        self.on_refused = on_refused  # called with the status of an answer that no endpoint gave
        self.head_seconds = head_seconds
        self.answer_seconds = answer_seconds
        self.open_connections = 0


class Connection(RequestHandler):
    """See the module. Of aiohttp's private names it relies on `_request_count`, `_current_request`, and on `_waiter`,
    which is set while it waits for a request.
    """

    __slots__ = ("_deadline", "_door", "_ends_with_this", "_head_bytes", "_stalled")

    def __init__(self, server: web.Server, door: Door, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(
            server,
            loop=loop,
            access_log=None,  # type: ignore[arg-type]  # None turns it off
            auto_decompress=False,  # a small body must not become a large one
            keepalive_timeout=IDLE_SECONDS,
            lingering_time=0,  # the endpoints take in what is left of a body themselves, within bounds
            max_field_size=MAX_HEADER_BYTES,
            max_headers=MAX_HEADERS,
            max_line_size=MAX_URL_BYTES,
            read_bufsize=_READ_BYTES,
        )
        self._door = door
        self._head_bytes = 0
        self._deadline: asyncio.TimerHandle | None = None
        self._stalled: asyncio.TimerHandle | None = None
        self._ends_with_this: asyncio.Task[Any] | None = None

    def end_on_loss(self, task: "asyncio.Task[Any] | None") -> None:
        """Cancel this task when the client leaves; None: there is no such task any more."""
        self._ends_with_this = task

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._door.open_connections += 1
        super().connection_made(transport)
        if self._door.open_connections > self._door.max_connections:
            self._refuse(503, f"too many connections: at most {self._door.max_connections}")
        else:
            self._start_deadline()

    def connection_lost(self, exc: BaseException | None) -> None:
        self._door.open_connections -= 1
        self._end_deadline()
        self._end_stall()
        super().connection_lost(exc)
        if self._ends_with_this is not None:
            self._ends_with_this.cancel()

    def pause_writing(self) -> None:
        """The client does not read its answer: it may not hold it, and its place here, for ever."""
        super().pause_writing()
        if self.transport is not None:
            self._stalled = self._loop.call_later(self._door.answer_seconds, self.transport.abort)

    def resume_writing(self) -> None:
        super().resume_writing()
        self._end_stall()

    def _end_stall(self) -> None:
        if self._stalled is not None:
            self._stalled.cancel()
            self._stalled = None

    def data_received(self, data: bytes) -> None:
        seen = self._request_count
        super().data_received(data)
        if self._request_count != seen:
            self._head_bytes = 0
            self._end_deadline()
            self._break_off_body()
        elif self._waiter is not None and not self._waiter.done():
            self._head_bytes += len(data)
            if self._head_bytes > MAX_HEADER_BYTES + MAX_URL_BYTES:
                self._refuse(431, f"request headers are too large: at most {MAX_HEADER_BYTES} bytes")
            elif self._deadline is None:
                self._start_deadline()

    def _break_off_body(self) -> None:
        """Something follows a body that has not ended: it is broken, and aiohttp would let its reader wait."""
        request = self._current_request
        if request is not None and not request.content.is_eof():
            request.content.set_exception(web.RequestPayloadError("the transfer of the body is broken"))

    def _start_deadline(self) -> None:
        self._deadline = self._loop.call_later(self._door.head_seconds, self._too_slow)

    def _end_deadline(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _too_slow(self) -> None:
        self._refuse(408, f"the request did not arrive within {self._door.head_seconds:g} seconds")

    def _refuse(self, status: int, text: str) -> None:
        """Answer without there being a request, and close."""
        self._end_deadline()
        self._door.on_refused(status)
        if self.transport is not None:
            head = f"HTTP/1.1 {status} {_REASONS[status]}\r\nServer: {SERVER}\r\nContent-Type: {TEXT}\r\n"
            self.transport.write(f"{head}Content-Length: {len(text)}\r\nConnection: close\r\n\r\n{text}".encode())
        self.force_close()

    def handle_error(
        self, request: BaseRequest, status: int = 500, exc: BaseException | None = None, message: str | None = None
    ) -> web.StreamResponse:
        """Of what aiohttp could not parse, or of an error that passed the endpoint's own handling."""
        if status != 400:
            self.log_exception("handler", exc_info=exc)
        if request.writer.output_size > 0:
            raise ConnectionError("the answer had already begun")
        status, text = _parse_error(exc) if status == 400 else (500, "internal error")
        self._door.on_refused(status)
        response = text_response(text, status)
        response.force_close()
        return response

    def log_exception(self, *args: Any, **kw: Any) -> None:
        self._door.log("http.failed", route="connection", reason=f"{args[:1]}: {kw.get('exc_info')!r:.200}")

    def log_debug(self, *args: Any, **kw: Any) -> None:
        """Clients that leave early are no news."""


def _parse_error(error: BaseException | None) -> tuple[int, str]:
    """The parser's own text shows what was sent, so it is not passed on."""
    match error:
        case LineTooLong(args=(_, limit, *_)) if limit == MAX_URL_BYTES:
            return 414, f"the URL is too long: at most {MAX_URL_BYTES} bytes"
        case LineTooLong():
            return 431, f"a request header is too large: at most {MAX_HEADER_BYTES} bytes"
        case Exception() if "Too many headers" in str(error):
            return 431, f"too many request headers: at most {MAX_HEADERS}"
        case _:
            return 400, _MALFORMED
