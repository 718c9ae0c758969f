"""Whatever a server of the cluster sends: no process ends, and nothing that is committed here changes.

The messages are made from the codec's own table of types and fields, so a new one takes part by itself. Their values
are those that are next to what the node knows, and the ends of what the field can hold.
"""

import contextlib
import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgpack
import pytest

from cluster.raft import codec
from cluster.raft.codec import Message, MessageInvalid, pack_batch
from cluster.raft.core import SEND_WINDOW_BYTES
from cluster.raft.machine import ReplicatedMachine
from cluster.raft.membership import ChangeKind, MembershipChange, learner
from cluster.raft.node import Machine
from cluster.raft.replica import ledger_excess
from cluster.raft.skips import Skip, save_skips
from cluster.raft.snapshot import MAX_HEAD_BYTES, MAX_STATE_BYTES, Snapshot
from fsm.codec import dump_command, dump_state
from fsm.leaves import RecordLeaves, TidyLedger
from fsm.state import State
from tests.kit import samples
from tests.kit.solo import Solo, batch, no_op
from tests.sim.cluster import member, members_of

_MOST = (1 << 63) - 1
_INCARNATION = 7
_KEY = b"k" * 72
_STEPS = 150
_STATES = [
    b"none",
    *map(dump_state, (State(), samples.ready(), samples.full_state())),
    dump_state(replace(samples.ready(), tidied_before=(1 << 64) - 1, leaf_index=1 << 62)),
]
_COMMANDS = [dump_command(RecordLeaves(samples.ISSUER, (samples.record(number),))) for number in range(10)]
_KINDS = sorted(set(codec._SCHEMA) - {"hello"})


class RealSolo(Solo):
    """With the machine that nodes have; `d` is a learner."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        super().__init__({**members_of("a", "b", "c"), "d": learner(member("d"))})

    def _opened(self) -> Machine:
        return ReplicatedMachine(str(self._directory / "ledger.db"), lambda _state: None)


def _fresh(_solo: RealSolo) -> None: ...


def _follower(solo: RealSolo) -> None:
    entries = [batch(index, 1, command) for index, command in enumerate(_COMMANDS[:4], 2)]
    solo.append("b", 1, (1, 0), *entries, commit=4)


def _leader(solo: RealSolo) -> None:
    solo.elect()
    for command in _COMMANDS[:3]:
        solo.propose(command)
    solo.node.pump()
    solo.confirm("b", "c")
    solo.propose(_COMMANDS[9])  # under way
    solo.node.pump()


def _campaigner(solo: RealSolo) -> None:
    _follower(solo)
    solo.advance(5.0)


def _compacted(solo: RealSolo) -> None:
    _follower(solo)
    solo.node.compact()
    solo.run_background()


ROLES: dict[str, Callable[[RealSolo], None]] = {
    "fresh": _fresh,
    "follower": _follower,
    "leader": _leader,
    "campaigner": _campaigner,
    "compacted": _compacted,
}


class Sender:
    """A member that says anything."""

    def __init__(self, solo: RealSolo, rng: random.Random) -> None:
        self.solo = solo
        self.rng = rng

    def message(self) -> tuple[str, str, dict[str, Any]]:
        asked = [sent for sent in self.solo.sent if sent[1]["type"] in ("pull_snapshot", "pull_bulk")]
        self.solo.sent.clear()
        if asked and self.rng.random() < 0.9:
            return self._part(*asked[-1])
        kind = self.rng.choice([*_KINDS, "append_entries", "offer_snapshot"])
        fields = {name: self._value(name, check) for name, check in codec._SCHEMA[kind].items()}
        if kind == "append_entries" and self.rng.random() < 0.7:
            self._fit(fields)
        return self.rng.choice("bbbccd"), kind, {**fields, "ct": self._count()}

    def _part(self, peer: str, asked: Message) -> tuple[str, str, dict[str, Any]]:
        """What a node that catches up has asked for: of the right form, with anything in it."""
        head = {"log_index": asked["log_index"], "ct": self.solo.node.core.term}
        if asked["type"] == "pull_snapshot":
            data = self._snapshot(asked["log_index"])
            return peer, "snapshot_part", {**head, "offset": asked["offset"], "total": len(data), "data": data}
        is_last = self.rng.random() < 0.7
        row = [asked["after"] + 1, self.rng.randbytes(3), 1, "n", "s", b"k", b"h", 1, 1, "r", None, self._count()]
        data = self.rng.choice([msgpack.packb([row]), self._bytes()])
        return peer, "bulk_part", {**head, "after": asked["after"], "data": data, "is_last": is_last}

    def _value(self, name: str, check: Callable[[Any], bool]) -> Any:
        if check(1) and not (check(None) and self.rng.random() < 0.2):
            return self._count()
        values: list[Any] = [None, True, False, "a", "b", "d", "z", "n" * 63, "z:99999", [_KEY], [_KEY, bytes(72)]]
        values += [self._bytes()] if check(b"") else []
        values += [self._entries()] if name == "entries" else []
        return self.rng.choice([value for value in values if check(_as_received(value))])

    def _count(self) -> int:
        core, last = self.solo.node.core, self.solo.last.log_index
        near = self.rng.choice([0, 1, core.term, core.commit_index, last, last, last, core.term])
        count = self.rng.choice([near + self.rng.randint(-1, 2)] * 6 + [1 << 20, _MOST - 1, _MOST])
        return max(0, min(count, _MOST))

    def _fit(self, fields: dict[str, Any]) -> None:
        """So that it is looked at: it follows an entry that is here, and its entries follow each other."""
        entry = self.rng.choice(self.solo.entries)
        fields["prevLogIdx"], fields["prevLogTerm"] = entry.log_index, entry.term
        fields["term"] = max(fields["term"] % (1 << 20), self.solo.node.core.term)
        term = max(entry.term, fields["term"] - self.rng.randint(0, 1))
        fields["entries"] = tuple(
            (command, index, term) for index, (command, _, _) in enumerate(fields["entries"], entry.log_index + 1)
        )

    def _entries(self) -> Any:
        return tuple((self._command(), self._count(), self._count()) for _ in range(self.rng.randint(0, 3)))

    def _command(self) -> bytes:
        origin, sequence = self.rng.choice([_INCARNATION, 1, _MOST]), self.rng.randint(0, 6)
        change = MembershipChange(
            self.rng.choice([*ChangeKind]), member(self.rng.choice("abcdz")), was_removed=self.rng.random() < 0.5
        )
        commands: list[bytes] = [
            no_op(1, 1).command,
            bytes([codec.MEMBERSHIP]) + codec.pack_change(change),
            pack_batch(origin, sequence, _COMMANDS[: self.rng.randint(0, 3)]),
            pack_batch(origin, sequence, [dump_command(TidyLedger(_MOST))]),
            pack_batch(origin, sequence, [_COMMANDS[0], msgpack.packb([1, 99, []])]),
            pack_batch(origin, sequence, [b"", b"\xc1", msgpack.packb([1, 7, []])]),
            bytes([self.rng.randint(0, 3)]) + self._bytes(),
        ]
        return self.rng.choice(commands)

    def _bytes(self) -> bytes:
        index = self._count()
        parts: list[bytes] = [
            b"",
            b"\xc1",
            self.rng.randbytes(20),
            msgpack.packb([]),
            msgpack.packb([[1, b"s", 1, "n", "s", b"k", b"h", 1, 1, "r", None, index]]),
            self._snapshot(index),
        ]
        return self.rng.choice(parts)

    def _snapshot(self, log_index: int) -> bytes:
        members = tuple(self.solo.node.core.members.values())
        term = self.rng.choice([0, self.solo.node.core.term, self._count()])
        return Snapshot(log_index, term, members, self.rng.choice(_STATES)).encode()


def _as_received(value: Any) -> Any:
    return tuple(value) if type(value) is list else value


def committed(solo: Solo) -> dict[int, Any]:
    return {entry.log_index: entry for entry in solo.entries if entry.log_index <= solo.commit}


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("seed", range(6))
def test_no_message_of_a_member_ends_the_process_or_changes_what_is_committed(
    role: str, seed: int, tmp_path: Path
) -> None:
    solo, rng = RealSolo(tmp_path), random.Random(f"{role} {seed}")
    ROLES[role](solo)
    sender = Sender(solo, rng)
    for _ in range(_STEPS):
        before, commit = committed(solo), solo.commit
        known = (solo.node.core.term, solo.node.journal.vote, solo.last, solo.node.core.leader_id)
        peer, kind, fields = sender.message()
        try:
            solo.feed(peer, kind, **fields)
        except MessageInvalid:
            assert (solo.node.core.term, solo.node.journal.vote, solo.last, solo.node.core.leader_id) == known
            solo.node.pump()
        assert solo.commit >= commit
        after = {entry.log_index: entry for entry in solo.entries}
        assert {index: after[index] for index in before if index in after} == {
            index: before[index] for index in before if index in after
        }
        if rng.random() < 0.1:
            solo.run_background()
        if rng.random() < 0.05:
            solo.advance(rng.choice([0.1, 3.0]))
    solo.run_background()
    last = solo.last
    solo.restart()
    assert solo.last == last


@pytest.mark.parametrize("place", [0, 1, 2])
@pytest.mark.parametrize(
    ("command", "is_newer"),
    [
        *((msgpack.packb(value), True) for value in ([2, 7, [1]], [1, 99, []], [1, 7, [1, "added later"]])),
        *((data, False) for data in (b"", b"\xc1", msgpack.packb([1, 7, ["x"]]), msgpack.packb([0, 7, [1]]))),
    ],
)
def test_command_that_this_release_cannot_apply_never_gets_into_the_log(
    command: bytes, is_newer: bool, place: int, tmp_path: Path
) -> None:
    """It would end every node at the same entry, at each start again."""
    solo = RealSolo(tmp_path)
    _follower(solo)
    before = list(solo.entries)
    commands = [*_COMMANDS[4:6]]
    commands.insert(place, command)
    for _ in range(3):
        with pytest.raises(MessageInvalid, match="entry 7: "):
            solo.append("b", 1, (5, 1), batch(6, 1, _COMMANDS[6]), batch(7, 1, *commands), commit=7)
        assert list(solo.entries) == before
    said = [fields for event, fields in solo.log.events if event == "entry.unknown"]
    assert len(said) == is_newer
    assert all("upgraded" in fields["reason"] and fields["log_index"] == 7 for fields in said)
    solo.append("b", 1, (5, 1), batch(6, 1, _COMMANDS[6]), commit=6)
    assert solo.commit == 6


def test_entry_that_an_operator_has_passed_over_is_taken_and_no_other_one(tmp_path: Path) -> None:
    """The others may have it in their logs, and this node would never catch up."""
    solo = RealSolo(tmp_path)
    _follower(solo)
    passed_over = batch(6, 1, msgpack.packb([1, 99, []]))
    save_skips(solo.disk, "data", {Skip.of(passed_over)})
    solo.machine.close()
    solo.restart()
    solo.append("b", 1, (5, 1), passed_over, batch(7, 1, _COMMANDS[6]), commit=7)
    assert (solo.commit, solo.node.core.applied_index) == (7, 7)
    with pytest.raises(MessageInvalid, match="entry 8: "):
        solo.append("b", 1, (7, 1), batch(8, 1, msgpack.packb([1, 99, []])), commit=8)


def test_entries_that_are_here_already_are_not_looked_at_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    solo = RealSolo(tmp_path)
    _follower(solo)
    seen: list[bytes] = []
    monkeypatch.setattr(solo.machine, "check", seen.append)
    entries = [batch(index, 1, command) for index, command in enumerate(_COMMANDS[:5], 2)]
    solo.append("b", 1, (1, 0), *entries, commit=4)
    assert seen == [_COMMANDS[4]]


def test_parts_of_a_snapshot_that_are_not_read_are_not_piled_up() -> None:
    """The question has a few bytes, and its answer a quarter of a MiB."""
    solo = Solo()
    solo.elect()
    solo.node._source.use(Snapshot(9, 1, tuple(solo.members.values()), bytes(1 << 20)))
    question = {"type": "pull_snapshot", "ct": 1, "log_index": 9, "offset": 0}
    for _ in range(1000):
        solo.node.receive("b", dict(question))
    assert solo.node.pending_bytes("b") < 2 * SEND_WINDOW_BYTES
    solo.node.pump()
    parts = solo.take("b", "snapshot_part")
    assert 1 < len(parts) < 50
    solo.unread["b"] = SEND_WINDOW_BYTES + 1
    solo.feed("b", "pull_snapshot", log_index=9, offset=0)
    assert not solo.take("b", "snapshot_part")


@pytest.mark.parametrize(("index", "term"), [(3, 9), (4, 2), (5, 1 << 40)])
def test_snapshot_that_contradicts_what_is_committed_is_refused(index: int, term: int, tmp_path: Path) -> None:
    solo = RealSolo(tmp_path)
    _follower(solo)
    before = committed(solo)
    snapshot = Snapshot(index, term, tuple(solo.members.values()), dump_state(State()))
    with contextlib.suppress(MessageInvalid):
        solo.node._install(snapshot)
    assert committed(solo) == before
    assert solo.last.log_index == 5


def test_copy_of_a_member_that_only_says_it_leads_leaves_nothing(tmp_path: Path) -> None:
    """A frame in the next term makes a follower follow; what it is sent then must not outlive the next leader."""
    solo = RealSolo(tmp_path)
    _follower(solo)
    known = solo.machine.ledger_summary
    rows = [
        [[1000, b"odd", 1, "n", "s", b"k", b"h", 1, _MOST, "r", None, log_index]] for log_index in (0, 51, _MOST, 50)
    ]
    for number, row in enumerate(rows):
        index, members = 50, tuple(solo.node.core.members.values())
        state = dump_state(replace(State(), index=2000, leaf_index=2000))
        snapshot = Snapshot(index, 2, members, state).encode()
        solo.feed("c", "offer_snapshot", term=2 + number, log_index=index, epoch=0)
        solo.feed("c", "snapshot_part", log_index=index, offset=0, total=len(snapshot), data=snapshot)
        part = {"after": solo.machine.bulk_position(), "data": msgpack.packb(row), "is_last": False}
        solo.feed("c", "bulk_part", log_index=index, **part)
    assert solo.machine.bulk_position() == 1000  # one of them was like a good one
    assert solo.machine.ledger_summary.applied_log_index == known.applied_log_index
    solo.append("b", 9, (5, 1), batch(6, 9, _COMMANDS[4]), batch(7, 9, _COMMANDS[5]), commit=7)
    assert solo.machine.ledger_summary.count == known.count + 3  # one was there, and not known to be committed
    assert solo.machine.bulk_position() == solo.machine.state.leaf_index


def test_copy_is_not_built_on_what_another_server_has_sent(tmp_path: Path) -> None:
    solo = RealSolo(tmp_path)
    _follower(solo)
    members = tuple(solo.node.core.members.values())
    snapshot = Snapshot(50, 2, members, dump_state(replace(State(), index=2000, leaf_index=2000))).encode()
    known, positions = solo.machine.bulk_position(), []
    for peer, term in (("c", 2), ("c", 2), ("b", 3)):
        solo.feed(peer, "offer_snapshot", term=term, log_index=50, epoch=0)
        solo.feed(peer, "snapshot_part", log_index=50, offset=0, total=len(snapshot), data=snapshot)
        positions.append(solo.machine.bulk_position())
        row = [1000, b"odd", 1, "n", "s", b"k", b"h", 1, _MOST, "r", None, 50]
        solo.feed(peer, "bulk_part", log_index=50, after=known, data=msgpack.packb([row]), is_last=False)
    assert positions == [known, 1000, known]


def _said(solo: Solo, event: str) -> int:
    return solo.log.names().count(event)


def test_what_a_member_repeats_is_told_once_a_second(tmp_path: Path) -> None:
    solo = RealSolo(tmp_path)
    _follower(solo)
    members = tuple(solo.node.core.members.values())
    good = Snapshot(50, 2, members, dump_state(State(index=9, leaf_index=9))).encode()
    bad_row = msgpack.packb([[1 << 40, b"odd", 1, "n", "s", b"k", b"h", 1, _MOST, "r", None, 50]])
    for second in range(1, 4):
        for number in range(40):
            solo.feed("c", "offer_snapshot", term=2, log_index=50, epoch=0)
            data = [b"no snapshot", good, Snapshot(50, 2, members, b"none").encode()][number % 3]
            solo.feed("c", "snapshot_part", log_index=50, offset=0, total=len(data), data=data)
            part = {"after": solo.machine.bulk_position(), "data": bad_row, "is_last": True}
            solo.feed("c", "bulk_part", log_index=50, **part)
        assert _said(solo, "snapshot.wanted") == second
        assert _said(solo, "snapshot.refused") == second
        solo.advance(1.0)
    solo.feed("b", "offer_snapshot", term=solo.node.core.term + 1, log_index=50, epoch=0)
    assert _said(solo, "snapshot.wanted") == 4  # another one is told at once


def test_snapshots_that_cannot_be_installed_are_told_once_a_second(tmp_path: Path) -> None:
    solo = RealSolo(tmp_path)
    _follower(solo)
    members = tuple(solo.node.core.members.values())
    for number in range(20):
        index = 50 + number
        term, state = [(2, dump_state(State()) + b"more"), (9, dump_state(State()))][number % 2]
        data = Snapshot(index, term, members, state).encode()
        solo.feed("c", "offer_snapshot", term=2, log_index=index, epoch=0)
        solo.feed("c", "snapshot_part", log_index=index, offset=0, total=len(data), data=data)
        part = {"after": solo.machine.bulk_position(), "data": b"\x90", "is_last": True}
        solo.feed("c", "bulk_part", log_index=index, **part)
    assert _said(solo, "snapshot.refused") == 2  # as a transfer, and as an installation


@pytest.mark.parametrize(("applied", "is_excess"), [(0, False), (4, False), (5, False), (6, True), (_MOST, True)])
def test_ledger_that_says_more_than_the_log_has_is_found(applied: int, is_excess: bool, tmp_path: Path) -> None:
    solo = RealSolo(tmp_path)
    _follower(solo)
    summary = replace(solo.machine.ledger_summary, applied_log_index=applied)
    status = solo.node.status()
    assert bool(ledger_excess(status, summary)) == is_excess
    assert ledger_excess(replace(status, leader_id=None), summary) == ""


@pytest.mark.parametrize(("more", "is_given_up"), [(0, False), (1, True)])
def test_snapshot_larger_than_any_is_given_up_at_its_first_part(more: int, is_given_up: bool, tmp_path: Path) -> None:
    solo = RealSolo(tmp_path)
    _follower(solo)
    total = MAX_STATE_BYTES + MAX_HEAD_BYTES + more
    solo.feed("c", "offer_snapshot", term=2, log_index=50, epoch=0)
    solo.feed("c", "snapshot_part", log_index=50, offset=0, total=total, data=bytes(1000))
    assert ("snapshot.refused" in solo.log.names()) == is_given_up
    assert solo.node._catch_up.is_active != is_given_up


def _catch_up(solo: RealSolo, peer: str, term: int, snapshot: Snapshot, source: ReplicatedMachine) -> None:
    """An honest leader, which answers what it is asked."""
    data = snapshot.encode()
    while solo.node.core.applied_index < snapshot.log_index:
        solo.sent.clear()
        solo.feed(peer, "offer_snapshot", term=term, log_index=snapshot.log_index, epoch=0)
        while asked := [sent for to, sent in solo.sent if to == peer and sent["type"].startswith("pull_")]:
            solo.sent.clear()
            if asked[-1]["type"] == "pull_snapshot":
                part = {"offset": 0, "total": len(data), "data": data}
                solo.feed(peer, "snapshot_part", log_index=snapshot.log_index, **part)
            else:
                rows, is_last = source.bulk_read(asked[-1]["after"], snapshot.state)
                fields = {"after": asked[-1]["after"], "data": rows, "is_last": is_last}
                solo.feed(peer, "bulk_part", log_index=snapshot.log_index, **fields)
        term += 1
        assert term < 10, "it is never brought up to date"


@pytest.mark.parametrize("applied", [5, 6, 8, 9, 10, 50, _MOST])
@pytest.mark.parametrize("row_id", [None, 4, 5, 1000])
def test_honest_snapshot_mends_a_ledger_that_says_anything(row_id: int | None, applied: int, tmp_path: Path) -> None:
    """Written by a release that believed the rows it was sent, and started anew since."""
    solo = RealSolo(tmp_path)
    _follower(solo)
    (tmp_path / "source").mkdir()
    source = ReplicatedMachine(str(tmp_path / "source" / "ledger.db"), lambda _state: None)
    for log_index, command in enumerate(_COMMANDS[:8], 2):
        source.apply(log_index, [command])
        source.commit(log_index)
    if row_id is not None:
        odd = (row_id, b"odd", 1, "n", "s", b"k", b"h", 1, _MOST, "r", None, applied)
        solo.machine._ledger.import_rows([odd])
    solo.machine._ledger.tidy(0)
    solo.machine._ledger.commit(applied)
    snapshot = Snapshot(9, 1, tuple(solo.node.core.members.values()), source.capture()())
    _catch_up(solo, "b", 2, snapshot, source)
    found, expected = solo.machine.ledger_summary, source.ledger_summary
    source.close()
    assert found.applied_log_index == expected.applied_log_index
    if row_id not in (4, 5) or applied > 9:  # those might be of a good copy
        assert found == expected
