"""Rotations that were under way when a snapshot was saved: what of them goes on, and what is given up."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Final

import pytest

from cluster.api.ca import Uptake
from cluster.backup import file as backup
from cluster.base.errors import Refused
from cluster.rpc.messages import DISTRUST_ROOT, ROTATION_UPTAKE, DistrustRequest, Nothing
from fsm.ca import CARoot, ProviderState, RotationPhase
from fsm.leaves import RecordLeaves
from fsm.state import State
from tests.kit import samples
from tests.kit.backups import mac_of, restore, sign, snapshots
from tests.kit.fake_cluster import Node, put, update
from tests.kit.log import EventLog
from tests.kit.wait import until
from tests.parts.backup.test_trust import packed, parts_of, with_new_sums

Two = tuple[Node, Node]
P384: Final = {"PrivateKeyType": "ec", "PrivateKeyBits": 384}
WAIT_SECONDS: Final = 7200
P521: Final = {"PrivateKeyType": "ec", "PrivateKeyBits": 521}


async def rotated(node: Node, config: dict[str, object]) -> CARoot:
    """The new active root; the one of before is distrusted."""
    old = node.cluster.state.active_root
    assert old is not None
    rotation_id = await put(node, update({"LeafCertTTL": "72h", **config}))
    await node.reconfigurer.wait_for_rotation(rotation_id)
    new = node.cluster.state.active_root
    assert new is not None
    assert new != old
    await node.operations.run(DISTRUST_ROOT, DistrustRequest(old.root_id))
    return new


async def saved_in_generate(node: Node, path: Path) -> CARoot:
    """A snapshot from before the root was made that this returns, which is the active one now."""
    node.worker.held.add("generate_root")
    rotation_id = await put(node, update({"LeafCertTTL": "72h", **P384}))
    await until(lambda: "generate_root" in node.worker.calls[-3:])
    rotation = node.cluster.state.rotation
    assert rotation is not None
    assert rotation.phase is RotationPhase.GENERATE
    await snapshots(node).save(path)
    node.worker.held.clear()
    node.worker.gate.set()
    await node.reconfigurer.wait_for_rotation(rotation_id)
    root = node.cluster.state.active_root
    assert root is not None
    assert root.provider_id == rotation_id
    return root


def written(node: Node, path: Path, state: State, *, has_mac: bool = True) -> None:
    """The state as this node would have saved it; or as somebody has made it up."""
    meta = replace(backup.read(path).meta, certificates=0)
    mac = mac_of(node)
    backup.write(path, meta, state, mac, lambda _: [])
    if not has_mac:
        take_mac_away(path)


def take_mac_away(path: Path) -> None:
    packed(path, with_new_sums(parts_of(path), mac=""))


def ids(node: Node) -> set[str]:
    return {root.root_id for root in node.cluster.state.roots}


# -- a rotation without a root


@pytest.mark.parametrize("has_mac", [True, False])
async def test_root_that_is_not_made_yet_does_not_come_back_unnamed(two: Two, tmp_path: Path, has_mac: bool) -> None:
    """The record of its provider has the key and the intent: it would be made again, byte for byte."""
    source, _ = two
    path = tmp_path / "saved"
    distrusted = await saved_in_generate(source, path)
    await rotated(source, P521)
    assert distrusted.root_id not in ids(source)
    if not has_mac:
        take_mac_away(path)
    [active] = [root for root in backup.read(path).state.roots if root.is_active]
    log = EventLog()
    notes = await snapshots(source, log=log).restore(path, is_forced=True)
    # It waits for a rotation that is under way.
    await put(source, update({"LeafCertTTL": "48h"}))
    assert ids(source) == {active.root_id}
    assert source.cluster.state.rotation is None
    assert f"Rotation {distrusted.provider_id}, which was under way and had no root yet, is given up" in notes[-1]
    assert [fields["given_up_rotation"] for _, fields in log.events] == [distrusted.provider_id]
    [on_leader] = [fields for event, fields in source.log.events if event == "ca.restored"]
    assert on_leader["given_up_rotation"] == distrusted.provider_id


async def test_rotation_without_a_root_is_given_up_as_if_it_had_been_aborted(two: Two, tmp_path: Path) -> None:
    source, target = two
    path = tmp_path / "saved"
    distrusted = await saved_in_generate(source, path)
    before = backup.read(path).state
    await restore(target, path)
    state = target.cluster.state
    outcome = state.last_rotation
    assert outcome is not None
    assert (outcome.rotation_id, outcome.root_id) == (distrusted.provider_id, "")
    assert "had no root yet" in outcome.reason
    assert before.config is not None
    assert [record.provider_id for record in state.providers] == [before.config.provider_id]
    later = await rotated(target, P384)
    assert later.root_id != distrusted.root_id
    await sign(target, "later")


async def test_rotation_that_names_the_provider_in_use_cannot_be_given_up(two: Two, saved: Path) -> None:
    """No cluster saves that; the CA would be left without its key."""
    source, target = two
    state = backup.read(saved).state
    assert state.config is not None
    written(source, saved, replace(state, rotation=replace(samples.rotation(), config=state.config)))
    before = target.cluster.state
    with pytest.raises(Refused, match="cannot be given up: the state of provider"):
        await restore(target, saved)
    assert target.cluster.state is before


# -- no root at all


def _prepared(state: State) -> State:
    return replace(state, roots=())


def _not_prepared(state: State) -> State:
    def afresh(record: ProviderState) -> ProviderState:
        return replace(record, is_prepared=False)

    return replace(state, roots=(), providers=tuple(map(afresh, state.providers)))


@pytest.mark.parametrize("has_mac", [True, False])
@pytest.mark.parametrize("change", [_prepared, _not_prepared])
async def test_snapshot_without_a_root_is_refused(
    two: Two, saved: Path, change: Callable[[State], State], has_mac: bool
) -> None:
    """Its provider's record would bring one, which nobody was told of."""
    source, _ = two
    written(source, saved, change(backup.read(saved).state), has_mac=has_mac)
    for node in two:
        before = node.cluster.state
        with pytest.raises(Refused, match="it was saved before there was a root"):
            await restore(node, saved, is_forced=True)
        assert node.cluster.state is before


async def test_nothing_is_saved_before_there_is_a_root(two: Two, tmp_path: Path) -> None:
    source, _ = two
    source.replica._old_state = _prepared(source.cluster.state)
    with pytest.raises(Refused, match="no CA to save yet"):
        await snapshots(source).save(tmp_path / "early")


# -- a staged rotation


async def staged(node: Node, path: Path, phase: RotationPhase) -> int:
    """A snapshot of a rotation that waits for clients, of which three hold a leaf, or of a moment later; its
    `published_index`.
    """
    for number in range(3):
        await sign(node, f"s{number}")
    await put(node, update({"LeafCertTTL": "72h", **P384}, is_staged=True, wait_seconds=WAIT_SECONDS))
    await until(lambda: node.cluster.state.rotation and node.cluster.state.rotation.phase is RotationPhase.WAIT)
    await snapshots(node).save(path)
    saved = backup.read(path).state
    assert saved.rotation is not None
    assert len(saved.roots) == 2
    if phase is not RotationPhase.WAIT:
        written(node, path, replace(saved, rotation=replace(saved.rotation, phase=phase)))
    return saved.rotation.published_index


def recorded(node: Node) -> None:
    """Certificates that move the index on."""
    records = (samples.record(number) for number in range(100, 140))
    node.cluster.commit(RecordLeaves(b"k" * 20, tuple(records)))


async def uptake(node: Node) -> Uptake:
    answer = (await node.operations.run(ROTATION_UPTAKE, Nothing())).value()
    assert answer is not None
    return answer


@pytest.mark.parametrize("phase", [RotationPhase.WAIT, RotationPhase.ACTIVATE])
@pytest.mark.parametrize("is_ahead", [False, True], ids=["lower index", "higher index"])
async def test_staged_rotation_waits_anew_for_the_clients_of_this_cluster(
    two: Two, tmp_path: Path, phase: RotationPhase, is_ahead: bool
) -> None:
    """Whose index has nothing to do with that of the cluster that was saved."""
    source, target = two
    path = tmp_path / "saved"
    if not is_ahead:
        recorded(source)
    published = await staged(source, path, phase)
    if is_ahead:
        recorded(target)
    assert (target.cluster.state.index > published) == is_ahead
    target.clock.advance(WAIT_SECONDS + 1)  # the time that it would have waited for there is over
    await restore(target, path)
    rotation = target.cluster.state.rotation
    assert rotation is not None
    assert rotation.phase is RotationPhase.WAIT
    assert rotation.phase_since == int(target.clock.now())
    assert target.cluster.state.roots_index >= rotation.published_index
    assert (await uptake(target)).identities_renewed == 0
    await sign(target, "s0")
    assert (await uptake(target)).identities_renewed == 1
    with target.watchers.waiting(target.cluster.state.roots_index):
        answer = await uptake(target)
        assert (answer.watchers, answer.watchers_seen) == (1, 1)
