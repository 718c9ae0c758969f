"""Asking another node: HTTP/1.1 POST over mutual TLS, on connections that are kept.

A general client spends several times as long on each request, which every signature through a follower would wait
for. This one knows what the RPC port answers: a status, a Content-Length and a body (RFC 9112); all else is refused.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, cast

from cluster.base.words import plain
from cluster.rpc.operation import OLDEST, VERSION, VERSION_HEADER
from cluster.rpc.tokens import TOKENS_HEADER
from cluster.tls.contexts import NodeTls

RPC_PATH: Final = "/rpc/"

_CONNECT_SECONDS: Final = 1.0
#: Below what the other side keeps an idle connection, so that none ends while a request is on its way to it.
_IDLE_SECONDS: Final = 50.0
MAX_CONNECTIONS: Final = 64
_MAX_HEAD_BYTES: Final = 16 << 10
_MAX_ANSWER_BYTES: Final = 64 << 20
_MAX_VERSION_DIGITS: Final = 4
_HEAD_END: Final = b"\r\n\r\n"


class Unreached(Exception):
    """There was no connection: nothing was sent."""


class Unanswered(Exception):
    """The request was sent, and there was no answer, or none of this protocol."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What the peer said."""

    status: int
    body: bytes
    version: int  # of the form that request and answer have
    #: The newest that the peer and this node know.
    speaks: int = field(default=OLDEST, compare=False)


@dataclass(frozen=True, slots=True)
class _Head:
    status: int
    length: int
    is_last: bool  # the peer closes the connection after it
    version: int  # what the peer speaks


class RpcClient:
    """For the event loop's thread."""

    def __init__(
        self, tls: NodeTls, refusal: Callable[[str, bytes], str | None], max_connections: int = MAX_CONNECTIONS
    ) -> None:
        """`refusal` says why nothing is sent to a server of this name and key, or None."""
        self._tls = tls
        self._refusal = refusal
        self._idle: dict[tuple[str, str], list[_Connection]] = {}
        self._max_connections = max_connections
        self._slots = asyncio.Semaphore(max_connections)
        self._in_use = 0

    def close(self) -> None:
        for connections in self._idle.values():
            for connection in connections:
                connection.abort()
        self._idle.clear()

    def drop_refused(self) -> None:
        """Of the connections that are not used: those to servers that would not be asked any more."""
        for (peer, _address), connections in self._idle.items():
            for connection in connections:
                if self._refusal(peer, connection.key) is not None:
                    connection.abort()

    async def post(
        self, peer: str, address: str, operation: str, body_of: Callable[[int], bytes], tokens: str = ""
    ) -> Answer:
        """`peer` is the name that the other side's certificate must carry; `body_of` writes the request in a version
        that the other side speaks; `tokens`: see tokens.py. Cancelled when it is not waited for any more.

        Raises: Unreached, Unanswered.
        """
        async with self._slots:
            self._in_use += 1
            try:
                return await self._post(peer, address, operation, body_of, tokens)
            finally:
                self._in_use -= 1

    async def _post(
        self, peer: str, address: str, operation: str, body_of: Callable[[int], bytes], tokens: str
    ) -> Answer:
        connection = self._kept(peer, address) or await self._connect(peer, address)
        if not connection.is_open:  # TLS 1.3: a refusal of our certificate comes after the handshake
            raise Unreached(f"{peer} at {address}: the connection ended at once")
        try:
            answer = await connection.ask(operation, body_of(connection.version), connection.version, tokens)
        except BaseException:
            connection.abort()  # an answer that comes later must not be taken for the next one's
            raise
        if connection.is_open:
            connection.idle_since = asyncio.get_running_loop().time()
            self._idle.setdefault((peer, address), []).append(connection)
        return answer

    def _drop_old(self) -> None:
        """Of the connections that are not used: those to a leader before, and the oldest when they are too many."""
        oldest = asyncio.get_running_loop().time() - _IDLE_SECONDS
        kept = sorted((c for connections in self._idle.values() for c in connections), key=lambda c: c.idle_since)
        excess = self._in_use + len(kept) - self._max_connections
        for position, connection in enumerate(kept):
            if position < excess or connection.idle_since <= oldest or not connection.is_open:
                connection.abort()
        for key, connections in [*self._idle.items()]:
            self._idle[key] = [connection for connection in connections if connection.is_open]

    def _kept(self, peer: str, address: str) -> "_Connection | None":
        connections = self._idle.get((peer, address), [])
        oldest = asyncio.get_running_loop().time() - _IDLE_SECONDS
        while connections:
            connection = connections.pop()  # the one used last: the others may age
            # With another key of ours, or of the peer's, it may be refused by now.
            is_good = connection.own_key == self._tls.key and self._refusal(peer, connection.key) is None
            if is_good and connection.is_open and connection.idle_since > oldest:
                return connection
            connection.abort()
        return None

    async def _connect(self, peer: str, address: str) -> "_Connection":
        self._drop_old()
        host, _, port = address.rpartition(":")
        try:
            async with asyncio.timeout(_CONNECT_SECONDS):
                transport, connection = await asyncio.get_running_loop().create_connection(
                    lambda: _Connection(address),
                    host.strip("[]"),
                    int(port),
                    ssl=self._tls.client_context,
                    server_hostname=self._tls.server_name(peer),
                )
                connection.own_key = self._tls.key
                connection.key = self._tls.peer_key(transport.get_extra_info("ssl_object"))
        except (OSError, ValueError, TimeoutError) as error:
            raise Unreached(f"{peer} at {address}: {plain(error)}") from error
        if (reason := self._refusal(peer, connection.key)) is not None:
            connection.abort()
            raise Unreached(f"{peer} at {address}: {reason}")
        return connection


class _Connection(asyncio.Protocol):
    """One request at a time."""

    def __init__(self, address: str) -> None:
        self._address = address
        self._transport: asyncio.Transport | None = None
        self._buffer = bytearray()
        self._head: _Head | None = None
        self._answer: asyncio.Future[Answer] | None = None
        self._asked_in = OLDEST
        self.own_key = b""  # of the certificates that were shown, and seen
        self.key = b""
        self.idle_since = 0.0
        self.version = OLDEST  # until the first answer says what the peer speaks

    @property
    def is_open(self) -> bool:
        return self._transport is not None and not self._transport.is_closing()

    def abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    async def ask(self, operation: str, body: bytes, version: int, tokens: str) -> Answer:
        """Raises: Unanswered."""
        assert self._transport is not None  # there is one once it is connected
        self._answer = asyncio.get_running_loop().create_future()
        self._asked_in = version
        head = (
            f"POST {RPC_PATH}{operation} HTTP/1.1\r\nHost: {self._address}\r\nContent-Length: {len(body)}\r\n"
            f"{VERSION_HEADER}: {version}"
        )
        if tokens:
            head += f"\r\n{TOKENS_HEADER}: {tokens}"
        self._transport.write(head.encode() + _HEAD_END + body)
        return await self._answer

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # Not asserted: uvloop's transports are none of asyncio's classes.
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        try:
            answer = self._parse()
        except ValueError as error:
            self._end(Unanswered(f"no answer of this protocol: {error}"))
            self.abort()
            return
        if answer is not None and self._answer is not None and not self._answer.done():
            self._answer.set_result(answer)

    def connection_lost(self, error: Exception | None) -> None:
        self._transport = None
        self._end(Unanswered(f"the connection ended: {error or 'closed'}"))

    def _end(self, reason: Unanswered) -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(reason)

    def _parse(self) -> Answer | None:
        """None until all has arrived. Raises: ValueError."""
        if self._answer is None or self._answer.done():
            raise ValueError("nothing was asked")
        if self._head is None:
            end = self._buffer.find(_HEAD_END)
            if end < 0:
                if len(self._buffer) > _MAX_HEAD_BYTES:
                    raise ValueError("its head has no end")
                return None
            self._head = _parse_head(bytes(self._buffer[:end]))
            del self._buffer[: end + len(_HEAD_END)]
        head = self._head
        if len(self._buffer) < head.length:
            return None
        if len(self._buffer) > head.length:
            raise ValueError("more than was announced")
        self.version = min(head.version, VERSION)
        answer = Answer(head.status, bytes(self._buffer), self._asked_in, self.version)
        self._buffer.clear()
        self._head = None
        if head.is_last and self._transport is not None:
            self._transport.close()
        return answer


def _parse_head(head: bytes) -> _Head:
    """Raises: ValueError."""
    status_line, *lines = head.split(b"\r\n")
    version, _, rest = status_line.partition(b" ")
    status = rest[:3]
    if version != b"HTTP/1.1" or not status.isdigit() or not 200 <= int(status) <= 599:
        raise ValueError(f"status line {status_line!r:.80}")
    headers = {name.strip().lower(): value.strip() for name, _, value in (line.partition(b":") for line in lines)}
    length = headers.get(b"content-length", b"")
    if b"transfer-encoding" in headers or not length.isdigit() or int(length) > _MAX_ANSWER_BYTES:
        raise ValueError(f"Content-Length {length!r:.40}")
    peer_version = headers.get(VERSION_HEADER.lower().encode(), b"1")
    if not peer_version.isdigit() or len(peer_version) > _MAX_VERSION_DIGITS or int(peer_version) < OLDEST:
        raise ValueError(f"{VERSION_HEADER} {peer_version!r:.40}")
    is_last = headers.get(b"connection", b"").lower() == b"close"
    return _Head(int(status), int(length), is_last, int(peer_version))
