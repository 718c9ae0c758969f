"""Nodes of this release and of the one before are one cluster, exchanged one by one, forth and back, under load.

So an old data directory and an old snapshot load in the new release, and the other way round: every exchanged node goes
on with the directory that the other release has left, gets a snapshot of the other release's leader, and files that one
release has saved are restored through the other, where that leads.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Final

import aiohttp
import pytest

from tests.integration.load import assert_all_on_record, signing_load
from tests.kit import pki
from tests.kit.real_cluster import Node
from tests.upgrade.fleet import Fleet, Release, releases
from tests.upgrade.judge import Judge
from tests.upgrade.previous import BUILD_SECONDS, Unavailable, previous_python
from tests.upgrade.visit import Visitor

_RUN_SECONDS: Final = 300.0
pytestmark = [pytest.mark.slow, pki.needs_openssl, pytest.mark.timeout(BUILD_SECONDS + _RUN_SECONDS)]

PROJECT: Final = Path(__file__).parents[2]
_CLIENTS: Final = 4
_FLOWING: Final = 30
_FLOWING_SECONDS: Final = 30.0

Record = Callable[[str, object], None]


@pytest.fixture(scope="module")
def old_and_new() -> tuple[Release, Release]:
    try:
        return releases(PROJECT, previous_python(PROJECT))
    except Unavailable as reason:
        pytest.skip(str(reason))


class Upgrade:
    """The course of it."""

    def __init__(self, fleet: Fleet, directory: Path, both: tuple[Release, Release]) -> None:
        self.fleet = fleet
        self._both = both
        self.judge = Judge(fleet.cluster)
        self.visitor = Visitor(fleet.cluster, directory)
        self.acknowledged = 0
        self.restored: set[tuple[Release, Release]] = set()
        self._across = 0
        self._started = time.monotonic()

    @asynccontextmanager
    async def stage(self, what: str, exchanged: Node | None = None) -> AsyncIterator[None]:
        """Clients sign through all nodes meanwhile, and notice nothing but connections to the node that is exchanged.
        At the end nothing is lost, nothing wrong, and all nodes agree.
        """
        cluster = self.fleet.cluster
        with _noted(what):
            async with self.judge.watching():
                async with signing_load(cluster, _CLIENTS, self.judge.take) as load:
                    yield
                    await load.acknowledges(_FLOWING, _FLOWING_SECONDS)
                print(f"{time.monotonic() - self._started:.1f} s: {what}: {self.fleet}: {load}")
                assert set(load.answers) == {200}, f"{load}: {load.refused[:5]}"
                assert set(load.broken) <= ({exchanged.name} if exchanged else set()), load.broken
            await assert_all_on_record(cluster, load)
            await _assert_found(self.fleet.nodes, load.serials)
            await asyncio.gather(*(self.fleet.assert_is_well(release) for release in self._both))
            self.acknowledged += len(load.serials)

    async def exchange(self, node: Node, release: Release) -> None:
        with _noted(f"{node.name} becomes {release}"):
            await self.fleet.exchange(node, release)

    async def look_around(self, leading: Release) -> None:
        """Through every node, while one of this release leads."""
        leader = await self.fleet.lead(leading)
        for node in self.fleet.nodes:
            with _noted(f"{node.name} is visited, {leader.name} leads, {self.fleet}"):
                await self.visitor.visit(node, leader)
        across = [node for node in self.fleet.nodes if self.fleet.release_of(node) is not leading]
        if across:
            with _noted(f"{across[0].name} is asked for more, {leader.name} leads, {self.fleet}"):
                await self._change_much(across[0], leader)

    async def _change_much(self, node: Node, leader: Node) -> None:
        """Turn about, so that each is asked of an old follower and a new leader, and the other way round."""
        visitor = self.visitor
        self._across += 1
        if self._across % 4 in (1, 2):
            await visitor.rotate(node)
            await visitor.abort_rotation(node)
            await visitor.change_peers(node)
        else:
            await visitor.rotate_by_configuration(node)
            await visitor.rotate_in_stages(node)
            await visitor.is_refused_a_restore(node)
            await visitor.restore(leader, node)
            self.restored.add((self.fleet.release_of(node), self.fleet.release_of(leader)))


async def test_nodes_are_exchanged_one_by_one_forth_and_back_under_load(
    tmp_path: Path, record_property: Record, old_and_new: tuple[Release, Release]
) -> None:
    old, new = old_and_new
    directory = tmp_path / "visits"
    directory.mkdir()
    fleet = Fleet(tmp_path, old)
    async with fleet.cluster:
        await fleet.start()
        upgrade = Upgrade(fleet, directory, old_and_new)
        async with upgrade.stage("all old"):
            await upgrade.look_around(old)
        for before, after in ((old, new), (new, old)):
            await _exchange_all(upgrade, before, after)
        record_property("certificates", upgrade.acknowledged)
        record_property("visits", upgrade.visitor.visits)
        assert not fleet.troubles(), "\n".join(fleet.troubles())
    assert upgrade.restored == {(old, new), (new, old)}
    assert upgrade.judge.judged == upgrade.acknowledged


async def _exchange_all(upgrade: Upgrade, before: Release, after: Release) -> None:
    fleet = upgrade.fleet
    for count in (1, 2):
        leader = await fleet.lead(before)
        node = next(node for node in fleet.of(before) if node is not leader)
        async with upgrade.stage(f"{count} of 3 {after}", node):
            await upgrade.exchange(node, after)
            # The release that is asked to hand leadership over is in the minority once, and once the other one is.
            await upgrade.look_around(after)
            await upgrade.look_around(before)
    (last,) = fleet.of(before)
    async with upgrade.stage(f"all {after}", last):
        assert await fleet.cluster.leader() is last  # as it stops, it hands leadership to the other release
        await upgrade.exchange(last, after)
        await upgrade.look_around(after)


async def _assert_found(nodes: Sequence[Node], serials: Sequence[str]) -> None:
    """Each by itself, on each node."""

    async def ask(node: Node) -> None:
        async with aiohttp.ClientSession(trust_env=False) as session:
            for serial in serials:
                async with session.get(f"{node.url}/v1/connect/ca/certs/{serial}?stale") as answer:
                    assert answer.status == 200, f"{node.name} has no {serial}: {answer.status} {await answer.text()}"
                    assert (await answer.json())["SerialNumber"] == serial

    await asyncio.gather(*(ask(node) for node in nodes))


@contextmanager
def _noted(what: str) -> Iterator[None]:
    """A failure says when it was."""
    try:
        yield
    except Exception as error:
        error.add_note(f"while: {what}")
        raise
