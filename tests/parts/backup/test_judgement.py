"""A restore is judged by the leader too: a server's certificate is not enough to ask for one, and what was taken away
after the node that was asked has looked does not come back.
"""

import asyncio
import itertools
import os
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import pytest
from msgspec import structs

from cluster.backup import file as backup
from cluster.backup.restore import _ATTEMPTS
from cluster.base.errors import LostRace, Refused
from cluster.rpc.messages import (
    DISTRUST_ROOT,
    RESTORE_CA,
    RESTORE_JUDGED,
    RESTORE_ROWS,
    DistrustRequest,
    JudgedRestoreRequest,
    RestoreRequest,
)
from fsm.ca import SetRoots
from fsm.codec import dump_state
from fsm.commands import RestoreCA
from tests.kit.backups import proven, request_of, restore, sign, snapshots
from tests.kit.fake_cluster import Node, put, update
from tests.kit.wait import until

Two = tuple[Node, Node]


async def assert_refused(node: Node, restoring: Awaitable[object], match: str) -> None:
    """And the CA is what it was."""
    before = node.cluster.state
    with pytest.raises(Refused, match=match):
        await restoring
    assert node.cluster.state is before


def ask(node: Node, request: JudgedRestoreRequest) -> Awaitable[object]:
    return node.operations.run(RESTORE_JUDGED, request)


def judged(node: Node, path: Path, **changes: Any) -> JudgedRestoreRequest:
    """As a node asks that has found nothing wrong with the file; and then some of it is changed."""
    saved = backup.read(path)
    index = node.cluster.state.ca_index
    request = JudgedRestoreRequest(dump_state(saved.state), saved.sums, saved.mac, False, index, b"")
    return proven(node, structs.replace(request, **changes))


async def rotated(node: Node) -> str:
    """The root of before, which is still listed."""
    root = node.cluster.state.active_root
    assert root is not None
    await put(node, update({"LeafCertTTL": "72h", "PrivateKeyType": "ec", "PrivateKeyBits": 384}))
    await until(lambda: len(node.cluster.state.roots) == 2 and node.cluster.state.rotation is None)
    return root.root_id


def distrust(node: Node, root_id: str) -> Callable[[], Awaitable[object]]:
    return lambda: node.operations.run(DISTRUST_ROOT, DistrustRequest(root_id))


def is_listed(node: Node, root_id: str) -> bool:
    return root_id in {root.root_id for root in node.cluster.state.roots}


# -- who may ask


CHANGES: Final[dict[str, Callable[[JudgedRestoreRequest], JudgedRestoreRequest]]] = {
    "no proof": lambda request: structs.replace(request, proof=b""),
    "proof of another length": lambda request: structs.replace(request, proof=request.proof[:31]),
    "proof of nobody": lambda request: structs.replace(request, proof=os.urandom(32)),
    "another state": lambda request: structs.replace(request, state=request.state + b"\0"),
    "other sums": lambda request: structs.replace(request, sums=b"sums"),
    "a MAC": lambda request: structs.replace(request, mac="ab" * 32),
    "no force": lambda request: structs.replace(request, is_forced=False),
    "another index": lambda request: structs.replace(request, ca_index=request.ca_index + 1),
}


@pytest.mark.parametrize("name", CHANGES)
async def test_request_is_taken_only_whole_and_with_the_proof_of_a_data_key(two: Two, name: str) -> None:
    """Even by force: who has a server's TLS key, and a snapshot, can say that too."""
    source, target = two
    request = request_of(target, source.cluster.state)
    await assert_refused(target, ask(target, CHANGES[name](request)), "does not prove")
    await ask(target, request)
    assert [root.root_id for root in target.cluster.state.roots] == [
        root.root_id for root in source.cluster.state.roots
    ]


async def test_proof_of_another_clusters_data_key_is_none(two: Two) -> None:
    """Though the seal key is the same, and the snapshot shows that data key, wrapped."""
    source, target = two
    saved = source.cluster.state
    assert saved.seal is not None
    request = request_of(target, saved)
    proof = source.sealer.opened(saved.seal).proof(request.unproven())
    await assert_refused(target, ask(target, structs.replace(request, proof=proof)), "does not prove")


async def test_form_of_the_release_before_is_refused_whatever_it_holds(two: Two, saved: Path) -> None:
    """It does not say whether the snapshot has a MAC, or an operator has said `?force`."""
    _, target = two
    state = backup.read(saved).state
    restoring = target.operations.run(RESTORE_CA, RestoreRequest(dump_state(state)))
    await assert_refused(target, restoring, "through a node of this release")


async def test_node_without_the_data_key_says_so(two: Two, stranger: Node, saved: Path) -> None:
    _, target = two
    (target.cluster.directory / "seal.key").unlink()
    asking = snapshots(target, two[0].sealer)
    (two[0].cluster.directory / "seal.key").unlink()
    await assert_refused(target, asking.restore(saved, is_forced=False), "does not have the data key")


# -- what is judged again


async def test_leader_takes_no_snapshot_without_a_mac_unless_it_is_meant(two: Two, saved: Path) -> None:
    _, target = two
    await assert_refused(target, ask(target, judged(target, saved, mac="")), "is not authenticated.*It adds")
    await ask(target, judged(target, saved, mac="", is_forced=True))


@pytest.mark.parametrize("is_forced", [False, True])
@pytest.mark.parametrize("change", [{"mac": "ab" * 32}, {"sums": b"other sums"}], ids=["mac", "sums"])
async def test_leader_compares_the_mac_itself(two: Two, saved: Path, change: dict[str, Any], is_forced: bool) -> None:
    _, target = two
    request = judged(target, saved, is_forced=is_forced, **change)
    await assert_refused(target, ask(target, request), "MAC is wrong")


async def test_leader_takes_no_trust_back_unless_it_is_meant(two: Two, saved: Path) -> None:
    source, _ = two
    old = await rotated(source)
    await distrust(source, old)()
    await assert_refused(source, ask(source, judged(source, saved)), "brings back trust")
    await ask(source, judged(source, saved, is_forced=True))
    assert is_listed(source, old)


@pytest.mark.parametrize("is_forced", [False, True])
@pytest.mark.parametrize("operation", [RESTORE_ROWS, RESTORE_JUDGED], ids=["records", "state"])
async def test_root_that_is_taken_away_while_a_snapshot_is_restored_stays_away(
    two: Two, saved: Path, operation: Any, is_forced: bool
) -> None:
    """Also where force is said: nobody has been told of that root."""
    source, _ = two
    old = await rotated(source)
    restoring = snapshots(source, before={operation: distrust(source, old)}).restore(saved, is_forced=is_forced)
    with pytest.raises(Refused, match="the CA changed while" if is_forced else "brings back trust"):
        await restoring
    assert not is_listed(source, old)
    assert source.authority.is_ready
    await sign(source, "later")


@pytest.mark.parametrize("is_forced", [False, True])
async def test_leader_judges_when_its_turn_has_come(two: Two, saved: Path, is_forced: bool) -> None:
    """A restore that waits behind a distrust is judged after it."""
    source, _ = two
    old = await rotated(source)
    source.cluster.held = {SetRoots}
    distrusting = asyncio.ensure_future(distrust(source, old)())
    await until(lambda: any(isinstance(command, SetRoots) for command in source.cluster.proposed))
    restoring = asyncio.ensure_future(restore(source, saved, is_forced=is_forced))
    await until(lambda: source.changes._waiting == 1)
    source.cluster.gate.set()
    await distrusting
    with pytest.raises(Refused, match="the CA changed while" if is_forced else "brings back trust"):
        await restoring
    assert not is_listed(source, old)


async def test_another_change_of_the_ca_does_not_keep_a_good_snapshot_from_being_restored(
    two: Two, saved: Path
) -> None:
    source, _ = two
    await rotated(source)
    [new] = [root for root in source.cluster.state.roots if root.is_active]
    before = {RESTORE_JUDGED: lambda: put(source, update({"LeafCertTTL": "48h"}))}
    notes = await snapshots(source, before=before).restore(saved, is_forced=False)
    # The other change has made a root as well: what is said is what was replaced in the end.
    assert [" is not trusted any more" in note for note in notes] == [True, True]
    assert any(note.startswith(f"Root {new.root_id} ({new.name}) ") for note in notes)
    assert source.cluster.state.config is not None
    saved_config = backup.read(saved).state.config
    assert saved_config is not None
    now = replace(source.cluster.state.config, create_index=0, modify_index=0)
    assert now == replace(saved_config, create_index=0, modify_index=0)


async def test_restore_beside_changes_without_end_comes_to_an_end(two: Two, saved: Path) -> None:
    source, _ = two
    times = itertools.count(48)

    async def change() -> None:
        await put(source, update({"LeafCertTTL": f"{next(times)}h"}))

    restoring = snapshots(source, always={RESTORE_JUDGED: change}).restore(saved, is_forced=False)
    with pytest.raises(Refused, match="changed again and again"):
        await restoring
    assert next(times) == 48 + _ATTEMPTS
    assert RestoreCA not in map(type, source.cluster.committed)


# -- what is delivered again, or late


async def restored(node: Node, path: Path) -> None:
    await ask(node, judged(node, path))


async def configured(node: Node, _path: Path) -> None:
    await put(node, update({"LeafCertTTL": "48h"}))


async def rotated_and_distrusted(node: Node, _path: Path) -> None:
    await distrust(node, await rotated(node))()


async def rotated_only(node: Node, _path: Path) -> None:
    await rotated(node)


OTHER_CHANGES: Final[dict[str, Callable[[Node, Path], Awaitable[None]]]] = {
    "restored": restored,
    "configured": configured,
    "rotated": rotated_only,
    "rotated and distrusted": rotated_and_distrusted,
}


@pytest.mark.parametrize("is_forced", [False, True])
@pytest.mark.parametrize("change", OTHER_CHANGES)
async def test_request_that_somebody_has_kept_does_nothing_after_another_change_of_the_ca(
    two: Two, saved: Path, change: str, is_forced: bool
) -> None:
    """A member that was taken for the leader has it, whole and with its proof."""
    source, _ = two
    kept = judged(source, saved, is_forced=is_forced)
    await OTHER_CHANGES[change](source, saved)
    before = source.cluster.state
    for _ in range(2):
        with pytest.raises(LostRace, match="the CA changed while"):
            await ask(source, kept)
    assert source.cluster.state is before
    await sign(source, "later")


async def test_request_is_proved_by_the_data_key_in_force_when_its_turn_comes(two: Two, saved: Path) -> None:
    """Who has the data key of before could name the state of the CA that the next change makes, and wait."""
    source, _ = two
    ahead = judged(source, saved, ca_index=source.cluster.state.index + 1)
    async with source.changes.turn("RECONFIGURING", is_duty=True):
        with pytest.raises(LostRace):
            await asyncio.wait_for(ask(source, ahead), 2)
