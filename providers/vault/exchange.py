"""How long one exchange with Vault may take, and how much may arrive: from the connection to the last byte, whatever
the other side does.

Time-outs of sockets begin anew with each byte, and a peer that answers `100 Continue`, a header byte by byte or
trailers for ever never meets one. So the deadline is kept from outside: a thread shuts the connection down, which
wakes whoever reads, writes or shakes hands on it. Only looking up a name in the DNS cannot be cut; it has the bounds
of the system's resolver.
"""

import contextlib
import errno
import http.client
import io
import os
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

#: A name has a few addresses; each is tried until the time for connecting is over.
_MAX_ADDRESSES: Final = 8
#: How long the thread waits for the next exchange before it ends.
_IDLE_SECONDS: Final = 10.0


class TooMuch(Exception):
    """More has arrived than an answer may have."""


@dataclass(eq=False, slots=True)
class Exchange:
    """One request, with the redirects that are followed, and its answer."""

    deadline: float  # monotonic
    connect_seconds: float
    bytes_left: int
    wire: socket.socket | None = None  # another descriptor of the connection in use
    descriptor: int = -1  # and its first one

    @property
    def is_over(self) -> bool:
        return time.monotonic() >= self.deadline

    def count(self, arrived: int) -> None:
        """Raises: TooMuch."""
        self.bytes_left -= arrived
        if self.bytes_left < 0:
            raise TooMuch


class Deadlines:
    """The exchanges under way of one transport, and the thread that ends those that are overdue."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._open: set[Exchange] = set()
        self._until = 0.0  # when the thread looks next, unless it is woken
        self._thread: threading.Thread | None = None
        self._mine = threading.local()

    @contextlib.contextmanager
    def exchange(self, exchange: Exchange) -> Iterator[None]:
        """What this thread does inside belongs to this exchange. Raises: OSError when there can be no more threads."""
        with self._changed:
            if self._thread is None:
                thread = threading.Thread(target=self._run, name="vault-deadlines", daemon=True)
                try:
                    thread.start()
                except RuntimeError as error:  # there can be no more threads: without one nothing has a deadline
                    raise OSError(errno.EAGAIN, "no thread can be started") from error
                self._thread, self._until = thread, exchange.deadline
            elif exchange.deadline < self._until:
                self._changed.notify()
            self._open.add(exchange)
        self._mine.exchange = exchange
        try:
            yield
        finally:
            self._mine.exchange = None
            # Before the connection serves another exchange, which must not be cut for this one.
            with self._changed:
                self._open.discard(exchange)
                self._let_go(exchange)

    @property
    def current(self) -> Exchange:
        """This thread's."""
        exchange: Exchange = self._mine.exchange
        return exchange

    def watch(self, connection: socket.socket) -> None:
        """That this thread's exchange uses this connection now. A descriptor of our own: TLS takes over the other."""
        exchange = self.current
        with self._changed:
            for other in self._open:
                # One that has just read its last byte has given the connection back.
                if other is exchange or other.descriptor == connection.fileno():
                    self._let_go(other)
            exchange.descriptor = connection.fileno()
            exchange.wire = socket.socket(fileno=os.dup(connection.fileno()))
            if exchange.is_over:
                _cut(exchange)

    def _let_go(self, exchange: Exchange) -> None:
        if exchange.wire is not None:
            exchange.wire.close()
            exchange.wire, exchange.descriptor = None, -1

    def _run(self) -> None:
        with self._changed:
            while True:
                now = time.monotonic()
                for exchange in [one for one in self._open if one.deadline <= now]:
                    _cut(exchange)
                    self._open.discard(exchange)
                is_idle = not self._open
                self._until = min((one.deadline for one in self._open), default=now + _IDLE_SECONDS)
                was_woken = self._changed.wait(max(0.0, self._until - now))
                if is_idle and not was_woken and not self._open:
                    self._thread = None
                    return


def _cut(exchange: Exchange) -> None:
    if exchange.wire is not None:
        with contextlib.suppress(OSError):  # it has ended by itself
            exchange.wire.shutdown(socket.SHUT_RDWR)


def connected(host: str, port: int, exchange: Exchange, options: Any) -> socket.socket:
    """Raises: OSError; TimeoutError when the time for connecting is over, however many addresses there are."""
    until = min(exchange.deadline, time.monotonic() + exchange.connect_seconds)
    failure: OSError = OSError("the name has no address")
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[:_MAX_ADDRESSES]
    for number, (family, kind, protocol, _, address) in enumerate(found):
        made = socket.socket(family, kind, protocol)
        try:
            for option in options or ():
                made.setsockopt(*option)
            if (left := until - time.monotonic()) <= 0:
                raise TimeoutError("timed out")
            # One that is switched off answers nothing, and must not keep the others from being tried.
            made.settimeout(left / (len(found) - number))
            made.connect(address)
        except OSError as error:
            made.close()
            failure = error
        else:
            return made
    raise failure


class _Counted(io.RawIOBase):
    """What arrives, counted: a head may be repeated, and trailers go on, for as long as the peer likes."""

    def __init__(self, arriving: Any, exchange: Exchange) -> None:
        self._arriving = arriving
        self._exchange = exchange

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        arrived: int | None = self._arriving.readinto(buffer)
        self._exchange.count(arrived or 0)
        return arrived

    def close(self) -> None:
        self._arriving.close()
        super().close()


def connection_classes(deadlines: Deadlines) -> tuple[type[Any], type[Any]]:
    """urllib3's pools of connections, plain and with TLS, that keep to the deadlines."""
    import urllib3.connection
    import urllib3.connectionpool
    from urllib3.exceptions import ConnectTimeoutError, NameResolutionError, NewConnectionError

    class _Response(http.client.HTTPResponse):
        def __init__(self, connection: socket.socket, *arguments: Any, **named: Any) -> None:
            super().__init__(connection, *arguments, **named)
            self.fp.close()
            self.fp = io.BufferedReader(_Counted(connection.makefile("rb", buffering=0), deadlines.current))

    class _Kept:
        """Before each use of a connection, its exchange is told."""

        response_class: Any = _Response

        def _new_conn(self) -> socket.socket:
            at: Any = self
            try:
                made = connected(at._dns_host, at.port, deadlines.current, at.socket_options)
            except socket.gaierror as error:
                raise NameResolutionError(at.host, at, error) from error
            except TimeoutError as error:
                raise ConnectTimeoutError(at, "timed out") from error
            except OSError as error:
                raise NewConnectionError(at, str(error)) from error
            made.settimeout(at.timeout)
            deadlines.watch(made)
            return made

        def putrequest(self, *arguments: Any, **named: Any) -> None:
            at: Any = self
            if at.sock is not None:
                deadlines.watch(at.sock)
            above: Any = super()
            above.putrequest(*arguments, **named)

    class _Plain(_Kept, urllib3.connection.HTTPConnection): ...

    class _TLS(_Kept, urllib3.connection.HTTPSConnection): ...

    class _PlainPool(urllib3.connectionpool.HTTPConnectionPool):
        ConnectionCls = _Plain

    class _TLSPool(urllib3.connectionpool.HTTPSConnectionPool):
        ConnectionCls = _TLS

    return _PlainPool, _TLSPool
