"""One client connection: bounds on what arrives before there is a request, and plain answers to what is not HTTP.

aiohttp's handler does the rest. What it lacks: a limit on the time and size of a request's head, on the number of
connections, and errors without HTML or tracebacks.
"""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final, cast

from aiohttp import web
from aiohttp.http_exceptions import LineTooLong
from aiohttp.web_protocol import RequestHandler
from aiohttp.web_request import BaseRequest

from cluster.base.log import Log
from cluster.base.seats import Seat, Seats
from cluster.http.errors import TooManyWaiting
from cluster.http.intake import Body, Intake
from cluster.http.render import COMMON_HEADERS, TEXT, text_response

MAX_HEADERS: Final = 64
MAX_HEADER_BYTES: Final = 16 << 10
MAX_URL_BYTES: Final = 8190
HEAD_SECONDS: Final = 30.0
#: How long an answer that does not fit into the buffers may stay unread.
ANSWER_SECONDS: Final = 30.0
#: Longer than load balancers and clients keep theirs, so that it is they who close an idle connection.
IDLE_SECONDS: Final = 120.0
_LAST_WORD_SECONDS: Final = 1.0
_READ_BYTES: Final = 64 << 10

_MALFORMED: Final = "malformed HTTP request"
_REASONS: Final = {408: "Request Timeout", 431: "Request Header Fields Too Large", 503: "Service Unavailable"}


@dataclass(frozen=True, slots=True)
class Door:
    """What the connections of one listener have in common."""

    seats: Seats
    log: Log
    #: Called for an answer that no endpoint gave: with its status, its text and who gets it.
    on_refused: Callable[[int, str, str], None]
    head_seconds: float = HEAD_SECONDS
    answer_seconds: float = ANSWER_SECONDS
    is_tls: bool = False
    intake: Intake = field(default_factory=Intake)

    @property
    def is_full(self) -> str:
        """What a connection is told that gets no place, or loses it."""
        caps = self.seats.caps
        share = f", {caps.per_source} of one address" if caps.per_source < caps.total else ""
        return f"too many connections: at most {caps.total}{share}"


def bare_answer(status: int, text: str) -> bytes:
    """To whoever has not made a request."""
    common = "".join(f"{name}: {value}\r\n" for name, value in COMMON_HEADERS.items())
    head = f"HTTP/1.1 {status} {_REASONS[status]}\r\n{common}Content-Type: {TEXT}\r\n"
    return f"{head}Content-Length: {len(text)}\r\nConnection: close\r\n\r\n{text}".encode()


class Connection(RequestHandler):
    """See the module. Of aiohttp's private names it relies on `_request_count`, `_current_request`, and on `_waiter`,
    which is set while it waits for a request.
    """

    __slots__ = ("_deadline", "_door", "_ends_with_this", "_head_bytes", "_seat", "_stalled")

    def __init__(self, server: web.Server, door: Door, seat: Seat, loop: asyncio.AbstractEventLoop) -> None:
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
        self._seat = seat
        self._head_bytes = 0
        self._deadline: asyncio.TimerHandle | None = None
        self._stalled: asyncio.TimerHandle | None = None
        self._ends_with_this: asyncio.Task[Any] | None = None

    def begin_body(self) -> Body:
        return self._door.intake.begin(self._seat.source)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        if not self._seat.is_taken:
            # It was taken away while the connection was made. uvloop says so to nobody afterwards, by no
            # `connection_lost` either, so nothing may begin that this would have to end.
            cast(asyncio.Transport, transport).abort()
            return
        super().connection_made(transport)
        self._seat.end = self._give_way
        self._start_deadline()

    def connection_lost(self, exc: BaseException | None) -> None:
        self._seat.leave()
        self._end_deadline()
        self._end_stall()
        super().connection_lost(exc)
        if self._ends_with_this is not None:
            self._ends_with_this.cancel()

    @property
    def _is_idle(self) -> bool:
        return self._waiter is not None and not self._waiter.done()

    @contextmanager
    def waiting(self, task: "asyncio.Task[Any]") -> Iterator[None]:
        """While the request only waits for news, which `task` brings: cancelled when the client leaves, or has to.

        Raises: TooManyWaiting.
        """
        if not self._seat.wait():
            caps = self._door.seats.waiting_caps
            raise TooManyWaiting(
                f"too many blocking queries are waiting on this node: at most {caps.total}, {caps.per_source} of one"
                " address"
            )
        self._ends_with_this = task
        try:
            yield
        finally:
            self._ends_with_this = None
            self._seat.end_wait()

    def _give_way(self) -> None:
        """To one that may have more to say."""
        transport = self.transport
        if transport is None:
            return
        is_owed_an_answer = not self._request_count or self._ends_with_this is not None
        if self._door.is_tls or not is_owed_an_answer or transport.get_write_buffer_size():
            transport.abort()
            return
        self._refuse(503, self._door.is_full)
        # It has no place any more, so it may not keep its descriptor by not reading this either.
        self._loop.call_later(_LAST_WORD_SECONDS, transport.abort)

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
            if not seen:
                self._seat.settle(lambda: self._is_idle)
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
        """Answer without there being a request, and close. Nobody is there any more: there is nothing to answer."""
        self._end_deadline()
        transport = self.transport
        if transport is not None and not transport.is_closing():
            self._door.on_refused(status, text, self._remote)
            transport.write(bare_answer(status, text))
        self.force_close()

    @property
    def _remote(self) -> str:
        name = self.peername
        return str(name[0]) if isinstance(name, tuple) and name else ""

    def handle_error(
        self, request: BaseRequest, status: int = 500, exc: BaseException | None = None, message: str | None = None
    ) -> web.StreamResponse:
        """Of what aiohttp could not parse, or of an error that passed the endpoint's own handling."""
        if status != 400:
            self.log_exception("handler", exc_info=exc)
        if request.writer.output_size > 0:
            raise ConnectionError("the answer had already begun")
        status, text = _parse_error(exc) if status == 400 else (500, "internal error")
        self._door.on_refused(status, text, self._remote)
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
