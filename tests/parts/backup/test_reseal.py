"""What a restored CA is sealed with: the data key that the cluster has now, whatever the snapshot was sealed with."""

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest

from cluster.backup import file as backup
from cluster.base.errors import NotReady
from cluster.node.reseal import Resealer, seal_id
from cluster.rpc.messages import SealCheckAnswer
from cluster.seal.sources import NEXT_KEY, SealError, write_key_file
from fsm.ca import SealKey
from fsm.state import State
from tests.kit.backups import restore, sign, snapshots
from tests.kit.fake_cluster import FakeCluster, Node, bootstrapped, running
from tests.kit.keeper import sealer_in
from tests.kit.wait import until

Two = tuple[Node, Node]


class Agreeing:
    """The other servers have every key."""

    async def ask(self, *_: object) -> SealCheckAnswer:
        return SealCheckAnswer("")


async def rotate_seal(node: Node, *, keeps_key: bool) -> None:
    await Resealer(node.parts, Agreeing(), node.name).rotate(seal_id(node.cluster.state.seal), keeps_key=keeps_key)  # type: ignore[arg-type]


def assert_sealed_with(node: Node, seal: SealKey | None, *others: SealKey | None) -> None:
    """All that is sealed opens with this data key and with none of the others."""
    assert node.cluster.state.seal == seal
    assert node.cluster.state.providers
    for record in node.cluster.state.providers:
        context = f"provider state {record.provider_id}"
        assert sealer_in(node.cluster.directory, seal).open(record.sealed, context)
        for other in others:
            with pytest.raises(SealError, match="does not open with this cluster's data key"):
                sealer_in(node.cluster.directory, other).open(record.sealed, context)


def without_seal(state: State) -> State:
    """What a restore brings; the indexes are this cluster's."""
    roots = tuple(replace(root, create_index=0, modify_index=0) for root in state.roots)
    assert state.config is not None
    config = replace(state.config, create_index=0, modify_index=0)
    return State(roots=roots, config=config, rotation=state.rotation)


@pytest.mark.parametrize("keeps_key", [True, False], ids=["data key", "both keys"])
async def test_data_key_of_before_does_not_come_back_with_a_snapshot(two: Two, saved: Path, keeps_key: bool) -> None:
    """Perhaps it was changed because somebody has it: neither what is restored nor what is made later opens with it."""
    source, _ = two
    before = source.cluster.state
    if not keeps_key:
        write_key_file(source.cluster.directory / NEXT_KEY)
    await rotate_seal(source, keeps_key=keeps_key)
    present = source.cluster.state.seal
    assert present != before.seal
    await restore(source, saved)
    assert_sealed_with(source, present, before.seal)
    assert without_seal(source.cluster.state) == without_seal(before)
    await sign(source, "later")
    # Nor does it come back with the next change, or with the next leader.
    await rotate_seal(source, keeps_key=True)
    assert_sealed_with(source, source.cluster.state.seal, present, before.seal)
    successor = Node(source.cluster, "b")
    async with running(successor):
        await bootstrapped(successor)
        await sign(successor, "last")


async def test_change_of_the_data_key_after_a_restore_is_one(two: Two, saved: Path) -> None:
    """The other order; and what was saved between the two is restored after both."""
    source, target = two
    first = target.cluster.state.seal
    await restore(target, saved)
    assert_sealed_with(target, first, source.cluster.state.seal)
    again = saved.with_name("again")
    await snapshots(target).save(again)
    assert backup.read(again).is_authentic(sealer_in(target.cluster.directory, first).mac)
    await rotate_seal(target, keeps_key=True)
    second = target.cluster.state.seal
    assert_sealed_with(target, second, first, source.cluster.state.seal)
    await restore(target, again)
    assert_sealed_with(target, second, first, source.cluster.state.seal)
    await sign(target, "later")


async def test_data_key_that_changes_while_a_snapshot_is_restored_stays(two: Two, saved: Path) -> None:
    source, _ = two
    before = source.cluster.state.seal
    async with source.changes.turn("ROTATING", is_duty=False):
        restoring = asyncio.ensure_future(restore(source, saved))
        changing = asyncio.ensure_future(rotate_seal(source, keeps_key=True))
        await until(lambda: source.changes._waiting == 2)
    await asyncio.gather(restoring, changing, return_exceptions=True)
    assert source.cluster.state.seal != before
    assert_sealed_with(source, source.cluster.state.seal, before)


async def test_cluster_without_a_data_key_is_restored_into_once_it_has_one(tmp_path: Path, two: Two) -> None:
    source, _ = two
    path = tmp_path / "f"
    await snapshots(source).save(path)
    (tmp_path / "new").mkdir()
    (tmp_path / "new" / "seal.key").touch(0o600)
    (tmp_path / "new" / "seal.key").write_bytes((source.cluster.directory / "seal.key").read_bytes())
    cluster = FakeCluster(tmp_path / "new")
    node = Node(cluster, "a")
    cluster.elect("a")
    with pytest.raises(NotReady, match="no data key"):
        await restore(node, path)
    assert cluster.state == State()
    async with running(node):
        await bootstrapped(node)
        await restore(node, path)
        assert cluster.state.active_root is not None
    cluster.close()
