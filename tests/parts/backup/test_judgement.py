"""A restore is judged by the leader too: a server's certificate is not enough to ask for one, and what was taken away
after the node that was asked has looked does not come back.
"""

import asyncio
import itertools
import os
import random
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import pytest
from msgspec import structs

from cluster.backup import file as backup
from cluster.backup.restore import _ATTEMPTS
from cluster.base.errors import CommitUnknown, InternalError, LostRace, NotReady, Refused
from cluster.raft.node import MAX_PROPOSAL_BYTES
from cluster.rpc.messages import (
    DISTRUST_ROOT,
    RESTORE_CA,
    RESTORE_CHECKED,
    RESTORE_JUDGED,
    RESTORE_PROVEN_ROWS,
    RESTORE_ROWS,
    CheckedRestoreRequest,
    DistrustRequest,
    JudgedRestoreRequest,
    ProvenRowsRequest,
    RestoreRequest,
    RestoreRowsRequest,
    RowMessage,
)
from fsm.ca import CARoot, SetRoots
from fsm.codec import dump_command, dump_state
from fsm.commands import RestoreCA
from fsm.leaves import MAX_REQUESTER, RecordLeaves
from tests.kit import samples
from tests.kit.backups import mac_of, proven, request_of, restore, sign, snapshots
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


def rows_of(node: Node, path: Path) -> ProvenRowsRequest:
    """Those of a file, as a node asks for them to be recorded."""
    [page] = list(backup.read(path).pages())
    state = node.cluster.state
    rows = [RowMessage.of(row.record) for row in page]
    request = ProvenRowsRequest(page[0].issuer_key_id, rows, state.trust_domain, state.ca_index, b"")
    return proven(node, request)


def count(node: Node) -> int:
    """Of certificates on record."""
    return node.cluster.machine.ledger_summary.count


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


async def test_rows_in_the_form_of_the_release_before_are_refused(two: Two, saved: Path) -> None:
    """It has them recorded before the leader has judged what they belong to, and proves nothing."""
    _, target = two
    request = rows_of(target, saved)
    recording = target.operations.run(RESTORE_ROWS, RestoreRowsRequest(request.issuer_key_id, request.rows))
    await assert_refused(target, recording, "through a node of this release")
    assert count(target) == 0


ROW_CHANGES: Final[dict[str, Callable[[ProvenRowsRequest], ProvenRowsRequest]]] = {
    "no proof": lambda request: structs.replace(request, proof=b""),
    "proof of nobody": lambda request: structs.replace(request, proof=os.urandom(32)),
    "another issuer": lambda request: structs.replace(request, issuer_key_id=b"k" * 20),
    "a row more": lambda request: structs.replace(request, rows=[*request.rows, *request.rows]),
    "no rows": lambda request: structs.replace(request, rows=[]),
    "another name": lambda request: structs.replace(
        request, rows=[structs.replace(row, name="other") for row in request.rows]
    ),
}


@pytest.mark.parametrize("name", ROW_CHANGES)
async def test_rows_are_taken_only_whole_and_with_the_proof_of_a_data_key(two: Two, saved: Path, name: str) -> None:
    """Who has a server's TLS key alone could put certificates on record that nobody has issued."""
    _, target = two
    request = rows_of(target, saved)
    changed = target.operations.run(RESTORE_PROVEN_ROWS, ROW_CHANGES[name](request))
    await assert_refused(target, changed, "does not prove")
    assert count(target) == 0
    await target.operations.run(RESTORE_PROVEN_ROWS, request)
    assert count(target) == 1


@pytest.mark.parametrize(
    "change", [{"ca_index": 1}, {"trust_domain": "other.consul"}], ids=["CA's index", "trust domain"]
)
@pytest.mark.parametrize("is_proven", [False, True])
async def test_rows_are_for_one_state_of_one_ca(two: Two, saved: Path, change: dict[str, Any], is_proven: bool) -> None:
    """A member that was taken for the leader has kept them."""
    _, target = two
    request = structs.replace(rows_of(target, saved), **change)
    with pytest.raises(LostRace):
        await target.operations.run(RESTORE_PROVEN_ROWS, proven(target, request) if is_proven else request)
    assert count(target) == 0


async def test_proof_of_one_request_is_none_of_another(two: Two, saved: Path) -> None:
    """What was sent to ask whether it would be taken does not restore anything."""
    _, target = two
    request = judged(target, saved)
    asked = proven(target, CheckedRestoreRequest(**structs.asdict(request)))
    await target.operations.run(RESTORE_CHECKED, asked)
    await assert_refused(target, ask(target, structs.replace(request, proof=asked.proof)), "does not prove")
    checking = target.operations.run(RESTORE_CHECKED, structs.replace(asked, proof=request.proof))
    await assert_refused(target, checking, "does not prove")


# -- what a refused restore leaves


async def refused_by_the_leader(node: Node, path: Path, **others: Any) -> str:
    """The CA and the record stay as they are."""
    before, log_index = node.cluster.state, node.cluster.log_index
    with pytest.raises(Refused) as refused:
        await snapshots(node, **others).restore(path, is_forced=True)
    assert (node.cluster.state, node.cluster.log_index, count(node)) == (before, log_index, 0)
    return str(refused.value)


async def test_provider_without_the_active_root_is_noticed_before_a_row_is_recorded(two: Two, saved: Path) -> None:
    """Which only the leader can try."""
    source, target = two
    await rotated(source)
    await sign(source, "s")
    await snapshots(source).save(saved)
    read = backup.read(saved)

    def turned(root: CARoot) -> CARoot:
        other = int(target.clock.now())
        times = (0, 0) if not root.is_active else (other, other + 10**6)
        return replace(root, is_active=not root.is_active, rotated_out_at=times[0], prune_at=times[1])

    rows = await source.ledger.call(lambda reader: reader.export_rows(0, read.state.index, 100))
    state = replace(read.state, roots=tuple(map(turned, read.state.roots)))
    backup.write(saved, read.meta, state, mac_of(source), lambda after: [row for row in rows if row[0] > after])
    assert backup.read(saved).meta.certificates == len(rows) == 2
    assert "but its provider has" in await refused_by_the_leader(target, saved)


async def test_state_that_fits_into_no_entry_is_noticed_before_a_row_is_recorded(
    two: Two, saved: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, target = two
    monkeypatch.setattr("cluster.backup.restore.MAX_PROPOSAL_BYTES", 1000)
    assert "of the log, allowed are 1000" in await refused_by_the_leader(target, saved)


async def test_leader_of_the_release_before_is_not_asked_to_record_anything(two: Two, saved: Path) -> None:
    """It does not know the question."""
    _, target = two
    served = target.operations._served
    for name in ("restore_checked", "restore_proven_rows"):
        del served[name]
    with pytest.raises(InternalError, match=r"restore_checked.* is not known to this node"):
        await restore(target, saved)
    assert count(target) == 0


async def test_leader_that_cannot_judge_in_time_has_changed_nothing_and_that_is_said(two: Two, saved: Path) -> None:
    async def silent() -> None:
        raise CommitUnknown("no answer")

    _, target = two
    before = target.cluster.state
    with pytest.raises(NotReady, match="nothing was changed: the leader could not judge the snapshot in time"):
        await snapshots(target, always={RESTORE_CHECKED: silent}).restore(saved, is_forced=False)
    assert target.cluster.state is before


# -- rows of any size


@pytest.mark.parametrize("alphabet", ["abcdefgh", "\N{EURO SIGN}\N{CYRILLIC SMALL LETTER A}"], ids=["ascii", "other"])
async def test_every_row_that_can_be_recorded_can_be_restored(two: Two, tmp_path: Path, alphabet: str) -> None:
    """Names may take kilobytes each, and fewer fit into an entry of the log then."""
    source, target = two
    rng = random.Random(1)

    def text(length: int) -> str:
        return "".join(rng.choices(alphabet, k=length))

    longest = 4096 // max(len(character.encode()) for character in alphabet)
    records = [
        replace(samples.record(number), name=text(longest), spiffe_id=text(longest), requested_by=text(MAX_REQUESTER))
        for number in range(1, 151)
    ]
    for record in records:
        source.cluster.commit(RecordLeaves(b"k" * 256, (record,)))
    await snapshots(source).save(tmp_path / "large")
    await restore(target, tmp_path / "large")
    assert count(target) == len(records)
    sizes = [len(dump_command(command)) for command in target.cluster.committed]
    assert max(sizes) <= MAX_PROPOSAL_BYTES


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
@pytest.mark.parametrize(
    "operation", [RESTORE_CHECKED, RESTORE_PROVEN_ROWS, RESTORE_JUDGED], ids=["question", "records", "state"]
)
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
    assert [" is not trusted any more" in note for note in notes] == [True, True, False]
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
