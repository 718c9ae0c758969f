"""One keep-alive HTTP/1.1 connection that sends the next request as soon as the last is answered.

The generator shares the machine with the cluster it measures, so a request costs as little as Python allows: bytes
made beforehand, one `write`, one look for the end of the headers, no HTTP library.
"""

import asyncio
import re
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final, cast

_CONTENT_LENGTH: Final = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_HEADERS_END: Final = b"\r\n\r\n"
_STATUS: Final = slice(9, 12)  # of b"HTTP/1.1 200 OK"
#: A client that is refused at once would otherwise ask thousands of times a second, and slow down what it waits for.
_FAILURE_PAUSE_SECONDS: Final = 0.01


@dataclass(slots=True)
class Tally:
    """What all connections of one run found."""

    is_measuring: bool = False
    successes: int = 0  # those of the warm-up, too
    latencies: list[float] = field(default_factory=list)
    failures: Counter[str] = field(default_factory=Counter)
    #: Successes that end the run; None: it ends by time.
    remaining: int | None = None
    finished: asyncio.Event = field(default_factory=asyncio.Event)

    def success(self, seconds: float) -> None:
        if self.finished.is_set():
            return  # it was under way when the last one that was wanted came in
        self.successes += 1
        if self.is_measuring:
            self.latencies.append(seconds)
        if self.remaining is not None:
            self.remaining -= 1
            if self.remaining <= 0:
                self.finished.set()

    def failure(self, kind: str) -> None:
        """A failure counts whenever it happens: a run with one is no clean measurement."""
        self.failures[kind] += 1


class Connection(asyncio.Protocol):
    """A closed loop: one request under way, or a pause of `think_seconds` before the next."""

    def __init__(self, requests: Iterator[bytes], expected: bytes, think_seconds: float, tally: Tally) -> None:
        self._requests = requests
        self._expected = expected
        self._think_seconds = think_seconds
        self._tally = tally
        self._buffer = b""
        self._total = 0  # length of the response under way; 0: its headers are not complete
        self._sent_at = 0.0
        self._transport: asyncio.Transport
        self.lost = asyncio.Event()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are no subclass of asyncio's.
        self._transport = cast(asyncio.Transport, transport)
        self._send()

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost.set()

    def data_received(self, data: bytes) -> None:
        self._buffer = self._buffer + data if self._buffer else data
        if not self._total and not self._read_headers():
            return
        if len(self._buffer) >= self._total:
            self._answered()

    def _read_headers(self) -> bool:
        end = self._buffer.find(_HEADERS_END)
        if end < 0:
            return False
        length = _CONTENT_LENGTH.search(self._buffer, 0, end)
        if length is None:
            self._tally.failure("no content-length")
            self._transport.abort()
            return False
        self._total = end + len(_HEADERS_END) + int(length[1])
        return True

    def _answered(self) -> None:
        seconds = time.perf_counter() - self._sent_at
        response, self._buffer, self._total = self._buffer, b"", 0
        pause = self._think_seconds
        if response[_STATUS] == b"200" and self._expected in response:
            self._tally.success(seconds)
        else:
            status = response[_STATUS].decode("latin-1")
            self._tally.failure("unexpected body" if status == "200" else status)
            pause = max(pause, _FAILURE_PAUSE_SECONDS)
        if pause:
            asyncio.get_running_loop().call_later(pause, self._send)
        else:
            self._send()

    def _send(self) -> None:
        if self._transport.is_closing() or self._tally.finished.is_set():
            return
        self._sent_at = time.perf_counter()
        self._transport.write(next(self._requests))

    def close(self) -> None:
        self._transport.abort()
