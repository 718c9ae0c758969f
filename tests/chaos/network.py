"""The network between the nodes of a test: every node reaches every other one through a relay of its own.

A relay knows both ends of its connections, so each direction between two nodes can be blocked, slowed and made lossy by
itself. TLS goes through untouched: a relay sees what anybody on the wire sees. Faults look as they do to TCP: nothing
is lost or reordered within a connection, it arrives late (a retransmission), or the connection ends.
"""

import asyncio
import contextlib
import random
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

_CHUNK_BYTES: Final = 64 << 10
#: As a receive window: what a blocked direction holds before its sender has to wait.
_CHUNKS_HELD: Final = 64
_RETRANSMISSION_SECONDS: Final = (0.2, 0.4)


@dataclass(eq=False)
class Flow:
    """What happens to bytes on their way from one node to another."""

    rng: random.Random
    delay: tuple[float, float] = (0.0, 0.0)  # seconds, from and to
    loss: float = 0.0  # of a piece; what is behind it waits with it
    reset: float = 0.0  # of a connection, at a piece
    is_open: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self.is_open.set()

    def heal(self) -> None:
        self.delay, self.loss, self.reset = (0.0, 0.0), 0.0, 0.0
        self.is_open.set()

    def seconds(self) -> float:
        """How long the next piece takes."""
        late = self.rng.uniform(*_RETRANSMISSION_SECONDS) if self.rng.random() < self.loss else 0.0
        return self.rng.uniform(*self.delay) + late


class Network:
    """Relays between nodes. `addresses`: where each node listens for others, by its name."""

    def __init__(self, addresses: Mapping[str, Sequence[str]], rng: random.Random) -> None:
        self._addresses = addresses
        names = [*addresses]
        self._flows = {(one, other): Flow(rng) for one in names for other in names if one != other}
        self._books: dict[str, dict[str, str]] = {name: {} for name in names}
        self._servers: list[asyncio.Server] = []
        self._connections: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> "Network":
        for source, target in self._flows:
            for address in self._addresses[target]:
                self._books[source][address] = await self._relay(source, target, address)
        return self

    async def __aexit__(self, *_: object) -> None:
        for server in self._servers:
            server.close()
        for task in self._connections:
            task.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)

    def book(self, source: str) -> dict[str, str]:
        """Where `source` has to dial, for every address of another node."""
        return dict(self._books[source])

    # -- faults

    def flow(self, source: str, target: str) -> Flow:
        return self._flows[source, target]

    def block(self, source: str, target: str) -> None:
        """Nothing that `source` sends reaches `target` until the direction is healed; then it all arrives."""
        self._flows[source, target].is_open.clear()

    def partition(self, ones: Iterable[str], others: Iterable[str]) -> None:
        for one in ones:
            for other in others:
                self.block(one, other)
                self.block(other, one)

    def spoil(self, *, delay: tuple[float, float] = (0.0, 0.0), loss: float = 0.0, reset: float = 0.0) -> None:
        """All directions alike."""
        for flow in self._flows.values():
            flow.delay, flow.loss, flow.reset = delay, loss, reset

    def heal(self) -> None:
        for flow in self._flows.values():
            flow.heal()

    # -- relaying

    async def _relay(self, source: str, target: str, address: str) -> str:
        there, back = self._flows[source, target], self._flows[target, source]

        def accepted(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = asyncio.ensure_future(_connection(reader, writer, address, there, back))
            self._connections.add(task)
            task.add_done_callback(self._connections.discard)

        server = await asyncio.start_server(accepted, "127.0.0.1", 0)
        self._servers.append(server)
        host, port = server.sockets[0].getsockname()
        return f"{host}:{port}"


async def _connection(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, address: str, there: Flow, back: Flow
) -> None:
    host, _, port = address.rpartition(":")
    with contextlib.ExitStack() as stack:
        stack.callback(writer.transport.abort)
        # A connection is made by packets in both directions.
        await there.is_open.wait()
        await back.is_open.wait()
        try:
            their_reader, their_writer = await asyncio.open_connection(host, int(port))
        except OSError:
            return
        stack.callback(their_writer.transport.abort)
        pipes = [
            asyncio.ensure_future(_pipe(reader, their_writer, there)),
            asyncio.ensure_future(_pipe(their_reader, writer, back)),
        ]
        try:
            # Nodes close both directions at once.
            await asyncio.wait(pipes, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for pipe in pipes:
                pipe.cancel()
            await asyncio.gather(*pipes, return_exceptions=True)


async def _pipe(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, flow: Flow) -> None:
    """Until the sender closes, and everything it has sent has arrived."""
    held: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(_CHUNKS_HELD)
    filler = asyncio.ensure_future(_fill(reader, held, flow))
    try:
        while True:
            due, data = await held.get()
            if (left := due - time.monotonic()) > 0:
                await asyncio.sleep(left)
            await flow.is_open.wait()
            if not data or flow.rng.random() < flow.reset:
                return
            writer.write(data)
            await writer.drain()
    except OSError:
        return
    finally:
        filler.cancel()


async def _fill(reader: asyncio.StreamReader, held: "asyncio.Queue[tuple[float, bytes]]", flow: Flow) -> None:
    due = 0.0
    while True:
        try:
            data = await reader.read(_CHUNK_BYTES)
        except OSError:
            data = b""
        due = max(due, time.monotonic() + flow.seconds())
        await held.put((due, data))
        if not data:
            return
