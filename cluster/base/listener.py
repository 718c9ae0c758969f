"""Accepting connections within bounds: a connection has its seat before its TLS handshake begins, or it is closed.

The event loop's own servers accept whatever comes, and say so to nobody before the handshake is over.
"""

import asyncio
import errno
import socket
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from cluster.base.seats import Seat, Seats, source_of

_BACKLOG: Final = 1024
#: At a time: before a flood of them takes its place, what one has to say must have been read.
_BATCH: Final = 4
#: After the process had no descriptor for one.
_PAUSE_SECONDS: Final = 0.2
#: In which the other side says that it has seen the end of a TLS connection.
_GOODBYE_SECONDS: Final = 3.0
_NOTHING_LEFT: Final = frozenset((errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM))
_READ_BYTES: Final = 64 << 10


@dataclass(frozen=True, slots=True)
class Accepting:
    """What becomes of a connection."""

    #: Makes the protocol of a connection that is made. It has the seat from then on, and sets what ends it.
    protocol: Callable[[Seat], asyncio.Protocol]
    seats: Seats
    tls: ssl.SSLContext | None = None
    handshake_seconds: float = 5.0
    #: What a connection is told that gets no seat; never where there is TLS.
    refusal: bytes = b""


class Listener:
    """Made by `listen`. For one event loop's thread."""

    def __init__(self, accepting: Accepting, sockets: list[socket.socket]) -> None:
        self._accepting = accepting
        self._sockets = sockets
        self._loop = asyncio.get_running_loop()
        self._handshakes: set[asyncio.Task[None]] = set()
        for sock in sockets:
            self._loop.add_reader(sock.fileno(), self._accept, sock)

    def close(self) -> None:
        """Accept nothing more; connections that are made stay."""
        for sock in self._sockets:
            if sock.fileno() >= 0:
                self._loop.remove_reader(sock.fileno())
                sock.close()
        for task in self._handshakes:
            task.cancel()

    def _accept(self, listening: socket.socket) -> None:
        for _ in range(_BATCH):
            try:
                sock, address = listening.accept()
            except (BlockingIOError, InterruptedError):
                return
            except OSError as error:
                if error.errno in _NOTHING_LEFT:
                    self._pause(listening)
                    return
                continue  # that one is gone already
            self._seat(sock, source_of(address))

    def _pause(self, listening: socket.socket) -> None:
        """The caps should not let it come to this; if it does, the loop must not turn for nothing."""
        self._accepting.seats.turned_away.refused("")
        self._loop.remove_reader(listening.fileno())
        self._loop.call_later(_PAUSE_SECONDS, self._resume, listening)

    def _resume(self, listening: socket.socket) -> None:
        if listening.fileno() >= 0:
            self._loop.add_reader(listening.fileno(), self._accept, listening)

    def _seat(self, sock: socket.socket, source: str) -> None:
        seat = self._accepting.seats.take(source, sock.close)
        if seat is None:
            _turn_away(sock, self._accepting.refusal)
            return
        task = self._loop.create_task(self._connect(sock, seat))

        def ended(task: asyncio.Task[None]) -> None:
            # Here, and not in the task: one that is cancelled before it has begun never begins.
            self._handshakes.discard(task)
            if task.cancelled() or (error := task.exception()) is not None:
                seat.leave()
                sock.close()
                if not task.cancelled() and not isinstance(error, OSError | TimeoutError):
                    self._loop.call_exception_handler({"message": "a connection could not be made", "exception": error})

        seat.end = task.cancel
        self._handshakes.add(task)
        task.add_done_callback(ended)

    async def _connect(self, sock: socket.socket, seat: Seat) -> None:
        """Until the handshake, if there is one, is over."""
        accepting = self._accepting
        sock.setblocking(False)
        await self._loop.connect_accepted_socket(
            lambda: accepting.protocol(seat),
            sock,
            ssl=accepting.tls,
            ssl_handshake_timeout=accepting.handshake_seconds if accepting.tls else None,
            ssl_shutdown_timeout=_GOODBYE_SECONDS if accepting.tls else None,
        )


async def listen(address: str, accepting: Accepting) -> Listener:
    """On all addresses that the host of `host:port` stands for. Raises: OSError when one cannot be had."""
    host, _, port = address.rpartition(":")
    found = await asyncio.get_running_loop().getaddrinfo(
        host.strip("[]"), int(port), type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )
    sockets: list[socket.socket] = []
    try:
        for family, kind, protocol, _, where in dict.fromkeys(found):
            sock = socket.socket(family, kind, protocol)
            sockets.append(sock)
            sock.setblocking(False)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            try:
                sock.bind(where)
            except OSError as error:
                raise OSError(error.errno, f"{address} cannot be listened on: {error.strerror}") from None
            sock.listen(_BACKLOG)
    except BaseException:
        for sock in sockets:
            sock.close()
        raise
    return Listener(accepting, sockets)


def _turn_away(sock: socket.socket, text: bytes) -> None:
    with sock:
        try:
            sock.setblocking(False)
            if text:
                sock.send(text)
                sock.shutdown(socket.SHUT_WR)
                sock.recv(_READ_BYTES)  # what is unread would reset the connection, and the answer would be lost
        except OSError:
            pass  # nobody is there, or nothing has come
