"""Three real nodes that tests can hurt: their processes, their network, their machines; and how all of it heals."""

import asyncio
import json
import random
import signal
from collections.abc import Iterable, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Final

from tests.chaos.launcher import BOOK, Hurt
from tests.chaos.network import Network
from tests.kit.real_cluster import Answer, LocalCluster, Node
from tests.kit.wait import eventually, until

_PAGE: Final = 1000
#: Small bounds, so that a round of a few seconds meets snapshots, compaction and requests that wait too long.
_SETTINGS: Final = {
    "raft": {"compact_bytes": 256 << 10, "keep_bytes": 64 << 10},
    "limits": {"leader_wait_ms": 3000, "signing_workers": 1},
}


class Stage:
    """Made with `async with`; nothing is left running or mounted behind it."""

    def __init__(self, root: Path, rng: random.Random, nodes: int = 3) -> None:
        root.mkdir(parents=True)
        self.cluster = LocalCluster(root, nodes, _SETTINGS)
        self.nodes = self.cluster.nodes
        self.network = Network({node.name: (node.local.raft, node.local.rpc) for node in self.nodes}, rng)
        self._paused: set[Node] = set()
        self._exit = AsyncExitStack()

    async def __aenter__(self) -> "Stage":
        try:
            await self._open()
        except BaseException:
            await self._exit.aclose()
            raise
        return self

    async def _open(self) -> None:
        await self._exit.enter_async_context(self.cluster)
        await self._exit.enter_async_context(self.network)
        for node in self.nodes:
            self._machine(node).mkdir()
            (self._machine(node) / BOOK).write_text(json.dumps(self.network.book(node.name)))
            self.start(node)
        await self.cluster.wait_ready()

    async def __aexit__(self, *_: object) -> None:
        await self._exit.aclose()

    # -- processes

    def start(self, node: Node, open_files: int | None = None) -> None:
        """On its hurtful machine."""
        self.cluster.start_through(node, "tests.chaos.launcher", self._machine(node), open_files)

    async def kill(self, nodes: Iterable[Node]) -> None:
        """kill -9, all at once."""
        for node in (chosen := [*nodes]):
            self.cluster.send(node, signal.SIGKILL)
            self._paused.discard(node)
        for node in chosen:
            await self.ended(node)

    async def ended(self, node: Node, seconds: float = 20.0) -> int:
        """Wait until it has ended by itself; the exit code."""

        started = node.started
        assert started is not None
        await until(lambda: started.process.poll() is not None, f"{node.name} ends", seconds)
        return int(started.process.returncode)

    def pause(self, node: Node) -> None:
        self.cluster.send(node, signal.SIGSTOP)
        self._paused.add(node)

    def resume(self, node: Node) -> None:
        self.cluster.send(node, signal.SIGCONT)
        self._paused.discard(node)

    # -- machines

    def hurt(self, node: Node, hurt: Hurt) -> None:
        hurt.write(self._machine(node))

    def _machine(self, node: Node) -> Path:
        return node.local.directory / "machine"

    # -- looking

    def others(self, *nodes: Node) -> list[Node]:
        return [node for node in self.nodes if node not in nodes]

    async def leader(self) -> Node:
        return await self.cluster.leader()

    async def leader_among(self, nodes: Sequence[Node], seconds: float = 10.0) -> Node:
        """The one of `nodes` that all of them take for the leader."""

        async def agreed() -> Node | None:
            named = {(await self.local(node, "/v1/status/leader")).json() for node in nodes}
            return next((node for node in nodes if {node.local.raft} == named), None)

        return await eventually(
            f"{', '.join(node.name for node in nodes)} agree on a leader of theirs", agreed, seconds
        )

    async def local(self, node: Node, path: str, seconds: float = 2.0) -> Answer:
        async with asyncio.timeout(seconds):
            return await self.cluster.ask(node, "GET", path)

    async def term(self, node: Node) -> int:
        return int((await self.local(node, "/v1/agent/self")).json()["Stats"]["raft"]["term"])

    async def serials(self, node: Node) -> list[str]:
        """Of every certificate in this node's own ledger."""
        found: list[str] = []
        after: str | None = "0"
        while after is not None:
            query = {"stale": "", "limit": str(_PAGE), "after": after}
            page = (await self.cluster.ask(node, "GET", "/v1/connect/ca/certs", query=query)).json()
            found += [plain_serial(cert["SerialNumber"]) for cert in page["Certs"]]
            after = page["Next"]
        return found

    # -- the end of every fault

    async def heal(self) -> None:
        """Everything works again, and every node runs and serves."""
        self.network.heal()
        for node in [*self._paused]:
            self.resume(node)
        for node in self.nodes:
            self.hurt(node, Hurt())
            if not node.is_running:
                self.start(node)
        await self.cluster.wait_ready()


def plain_serial(text: str) -> str:
    """A serial in one form, however it was written."""
    return f"{int(text.replace(':', ''), 16):x}"
