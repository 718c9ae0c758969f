"""What nobody may change by what they send: nodes run on, trust and servers stay what they are, and what a node has in
memory and open at a time is bounded.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any, Final

import psutil

from tests.chaos.scene import Scene
from tests.chaos.stage import Stage
from tests.kit.real_cluster import Node
from tests.kit.wait import eventually

_PAUSE_SECONDS: Final = 0.1
#: More than at the beginning, of a node with its signing processes: what clients and compactions need, and a few frames
#: of the largest size. An attack sends a multiple of it.
_MORE_BYTES: Final = 256 << 20
#: Shares of the ports (cluster/base/descriptors.py), all of them full.
_MORE_FILES: Final = 1200
#: What is still being closed once an attack is over, and what clients have open.
_LEFT_FILES: Final = 40
_REST_SECONDS: Final = 20.0


@dataclass(slots=True)
class Use:
    """Of one node, with the processes that it has started."""

    bytes: int
    files: int

    @classmethod
    def of(cls, pid: int) -> "Use":
        node = psutil.Process(pid)
        total = 0
        for process in (node, *node.children(recursive=True)):
            with contextlib.suppress(psutil.NoSuchProcess):  # a signing process that was replaced
                total += process.memory_info().rss
        return cls(total, node.num_fds())


@contextlib.asynccontextmanager
async def unharmed(scene: Scene) -> AsyncIterator[None]:
    """Raises: AssertionError when what is done in the block has harmed the cluster."""
    stage = scene.stage
    pids = {node.name: node.pid for node in stage.nodes}
    logs = {node: node.local.log.stat().st_size for node in stage.nodes}
    trust, servers = await trusted(stage), await _servers(stage)
    before = {node: Use.of(node.pid) for node in stage.nodes}
    most = {node: Use.of(node.pid) for node in stage.nodes}
    watcher = asyncio.ensure_future(_watch(most))
    try:
        yield
    finally:
        watcher.cancel()
        await asyncio.gather(watcher, return_exceptions=True)
    ended = [node.name for node in stage.nodes if not node.is_running or node.pid != pids[node.name]]
    assert not ended, f"{', '.join(ended)} ended:\n{stage.cluster.nodes[0].log_tail(3)}"
    for node, size in logs.items():
        log = node.local.log.read_bytes()[size:]
        assert b"Traceback" not in log, f"{node.name}: {log[log.index(b'Traceback') :][:3000].decode(errors='replace')}"
    assert await trusted(stage) == trust
    assert await _servers(stage) == servers
    _judge_use(scene, before, most)
    await _at_rest(stage, before)


async def trusted(stage: Stage) -> list[Any]:
    """What every node answers whom the mesh trusts."""
    found = []
    for node in stage.nodes:
        answer = await eventually(f"{node.name} lists its roots", lambda node=node: _roots(stage, node))  # type: ignore[misc]
        found.append(answer)
    return found


async def _roots(stage: Stage, node: Node) -> tuple[Any, ...]:
    answer = await stage.cluster.roots(node)
    roots = sorted((root["ID"], root["RootCert"], root["Active"]) for root in answer["Roots"])
    return answer["TrustDomain"], answer["ActiveRootID"], roots


async def _servers(stage: Stage) -> dict[str, Any]:
    async def listed() -> dict[str, Any]:
        node = await stage.leader()
        answer = (await stage.cluster.ask(node, "GET", "/v1/operator/raft/configuration")).json()
        return {server["ID"]: (server["Address"], server["RPC"], server["Voter"]) for server in answer["Servers"]}

    return await eventually("the leader lists the servers", listed)


async def _watch(most: dict[Node, Use]) -> None:
    while True:
        for node, use in most.items():
            with contextlib.suppress(psutil.NoSuchProcess):  # `unharmed` says so
                now = Use.of(node.pid)
                use.bytes, use.files = max(use.bytes, now.bytes), max(use.files, now.files)
        await asyncio.sleep(_PAUSE_SECONDS)


def _judge_use(scene: Scene, before: dict[Node, Use], most: dict[Node, Use]) -> None:
    grown = {node.name: most[node].bytes - use.bytes for node, use in before.items()}
    opened = {node.name: most[node].files - use.files for node, use in before.items()}
    scene.notes["grown_mib"] = max(grown.values()) >> 20
    scene.notes["opened"] = max(opened.values())
    assert max(grown.values()) < _MORE_BYTES, f"bytes of memory that nodes took besides: {grown}"
    assert max(opened.values()) < _MORE_FILES, f"descriptors that nodes had open besides: {opened}"


async def _at_rest(stage: Stage, before: dict[Node, Use]) -> None:
    async def closed() -> bool:
        return all(Use.of(node.pid).files <= use.files + _LEFT_FILES for node, use in before.items())

    await eventually("nodes have closed what was opened", closed, _REST_SECONDS)
