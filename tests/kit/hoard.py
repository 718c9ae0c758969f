"""Somebody who opens connections to every port of a node, and says nothing on them."""

import asyncio
import contextlib
import resource
import socket
from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Final

from tests.kit.real_cluster import Node

#: To each port.
_HELD: Final = 300
_PAUSE_SECONDS: Final = 1.0
#: What this process has open besides.
_OTHER_FILES: Final = 512


class Hoard:
    """Connections on which nothing is said; those that were closed are opened again every second, while `keep` runs."""

    def __init__(self, node: Node, source: str = "127.0.0.1") -> None:
        self._ports = [
            int(address.rpartition(":")[2]) for address in (node.local.http, node.local.rpc, node.local.raft)
        ]
        self._source = source
        self.held: list[tuple[int, socket.socket]] = []

    def fill(self) -> None:
        for port in self._ports:
            for _ in range(_HELD):
                self._open(port)

    async def keep(self) -> None:
        while True:
            for port, sock in [*self.held]:
                try:
                    if sock.recv(4096):
                        continue
                except BlockingIOError:
                    continue
                except OSError:
                    pass
                self.held.remove((port, sock))
                sock.close()
                self._open(port)
            await asyncio.sleep(_PAUSE_SECONDS)

    def _open(self, port: int) -> None:
        sock = socket.socket()
        sock.bind((self._source, 0))
        sock.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            sock.connect(("127.0.0.1", port))
        self.held.append((port, sock))

    def close(self) -> None:
        for _, sock in self.held:
            sock.close()


@contextlib.asynccontextmanager
async def hoarding(nodes: Sequence[Node], source: str, *, persistent: bool) -> AsyncIterator[None]:
    """From the address `source`. With `persistent`, connections that were closed are opened again."""
    hoards = [Hoard(node, source) for node in nodes]
    tasks: list[asyncio.Task[None]] = []
    with _room(3 * _HELD * len(nodes)):
        try:
            for hoard in hoards:
                hoard.fill()
                if persistent:
                    tasks.append(asyncio.create_task(hoard.keep()))
            yield
            assert not any(task.done() for task in tasks)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            for hoard in hoards:
                hoard.close()


@contextlib.contextmanager
def _room(connections: int) -> Iterator[None]:
    """This process holds the other ends."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = connections + _OTHER_FILES
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
