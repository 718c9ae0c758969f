"""State and ledger together: equal on every node, however a node came to them."""

import errno
import os
import shutil
import sqlite3
import tracemalloc
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgpack
import pytest

from cluster.raft import machine as machine_module
from cluster.raft.codec import (
    FRAME_HEADER,
    MAX_COMMAND_BYTES,
    MAX_FRAME_BYTES,
    EntryUnknown,
    MessageInvalid,
    pack_frame,
    unpack_message,
)
from cluster.raft.machine import ReplicatedMachine
from fsm import codec
from fsm.ca import InitSeal
from fsm.codec import CodecError, dump_command, dump_state, load_command
from fsm.commands import Applied, Command, Rejected, RestoreCA
from fsm.fields import FIRST_SECOND, LAST_SECOND, MIN_INT64
from fsm.leaves import RecordLeaves, TidyLedger
from fsm.ledger import LedgerDamaged, LedgerReader, LedgerSummary
from fsm.state import State
from tests.kit import samples
from tests.kit.samples import ISSUER, NOW, record


class Machines:
    """Machines with their files in one directory, and the states they reported."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._open: list[ReplicatedMachine] = []
        self.seen: list[State] = []

    def open(self, name: str, *, rows_per_commit: int = 1) -> ReplicatedMachine:
        machine = ReplicatedMachine(self.path(name), self.seen.append, rows_per_commit=rows_per_commit)
        self._open.append(machine)
        return machine

    def copied(self, name: str, as_name: str) -> ReplicatedMachine:
        """Another machine on the files as they are now: what a process that is killed leaves."""
        for suffix in ("", "-wal"):
            shutil.copy(self.path(name) + suffix, self.path(as_name) + suffix)
        return self.open(as_name)

    def path(self, name: str) -> str:
        return str(self._directory / f"{name}.db")

    def summary(self, name: str) -> LedgerSummary:
        reader = LedgerReader(self.path(name))
        summary = reader.summary()
        reader.close()
        return LedgerSummary(0, summary.count, summary.digest)

    def committed_log_index(self, name: str) -> int:
        reader = LedgerReader(self.path(name))
        summary = reader.summary()
        reader.close()
        return summary.applied_log_index

    def close(self) -> None:
        for machine in self._open:
            machine.close()


@pytest.fixture
def machines(tmp_path: Path) -> Iterator[Machines]:
    machines = Machines(tmp_path)
    yield machines
    machines.close()


NEWER = [msgpack.packb(value) for value in ([2, 7, [1]], [1, 99, []], [1, 7, [1, "added later"]])]
NOTHING = [
    b"",
    b"\xc1",
    b"\x91" * 2000,
    *map(msgpack.packb, ([0, 7, [1]], ["1", 7, [1]], [1, 0, []], [1, 7, ["x"]], [1, 7, []], "text")),
]


@pytest.mark.parametrize("command", NEWER)
def test_command_of_a_newer_release_is_told_from_one_of_none(machines: Machines, command: bytes) -> None:
    with pytest.raises(EntryUnknown):
        machines.open("a").check(command)


@pytest.mark.parametrize("command", NOTHING)
def test_command_that_no_release_has_made_is_refused_in_few_words(machines: Machines, command: bytes) -> None:
    with pytest.raises(MessageInvalid) as found:
        machines.open("a").check(command)
    assert not isinstance(found.value, EntryUnknown)
    assert len(str(found.value)) <= 200


@pytest.mark.parametrize("name", samples.COMMANDS)
def test_command_that_was_checked_is_applied_as_any_other_and_decoded_once(
    machines: Machines, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = dump_command(samples.COMMANDS[name])
    one, two = machines.open("a"), machines.open("b")
    expected = two.apply(2, [data, data])
    decoded: list[bytes] = []

    def counted(data: bytes) -> Command:
        decoded.append(data)
        return load_command(data)

    monkeypatch.setattr(codec, "load_command", counted)
    one.check(data)
    one.check(bytes(bytearray(data)))
    assert one.apply(2, [data]) == expected[:1]
    assert decoded == [data]
    assert one.apply(2, [data]) == expected[1:]


def test_what_was_checked_and_is_never_applied_is_forgotten(
    machines: Machines, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine_module, "_MAX_CHECKED_BYTES", 1000)
    machine = machines.open("a")
    for number in range(100):
        machine.check(dump_command(leaves(number)))
        assert machine._checked_bytes == sum(map(len, machine._checked)) < 2000
    for number in range(100):
        assert isinstance(machine.apply(2 + number, [dump_command(leaves(number))])[0], Applied)
    assert (machine._checked, machine._checked_bytes) == ({}, 0)


def leaves(*numbers: int) -> RecordLeaves:
    """Certificates that expire at NOW + their number."""
    return RecordLeaves(ISSUER, tuple(record(number) for number in numbers))


def feed(machine: ReplicatedMachine, log: Sequence[Command], start: int = 2) -> list[Applied | Rejected]:
    """One entry for each command, from log index `start` on."""
    results = []
    for log_index, command in enumerate(log, start):
        results += machine.apply(log_index, [dump_command(command)])
        machine.commit(log_index)
    return results


def copy(source: ReplicatedMachine, target: ReplicatedMachine, snapshot: bytes) -> None:
    log_index, is_last = source.ledger_summary.applied_log_index, False
    while not is_last:
        part, is_last = source.bulk_read(target.bulk_position(), snapshot)
        target.bulk_write(part, log_index, snapshot)
    target.install(log_index, snapshot)


def test_several_commands_of_one_entry_have_a_result_each(machines: Machines) -> None:
    machine = machines.open("a")
    commands: list[Command] = [InitSeal(samples.SEAL), InitSeal(samples.SEAL), leaves(1, 2), leaves(2, 3)]
    results = machine.apply(2, [dump_command(command) for command in commands])
    assert [type(result) for result in results] == [Applied, Rejected, Applied, Applied]
    assert results[2:] == [Applied(3), Applied(5, duplicates=(0,))]


def test_nothing_is_visible_before_the_commit(machines: Machines) -> None:
    machine = machines.open("a")
    machine.apply(2, [dump_command(leaves(1))])
    assert (machine.state, machines.seen, machines.summary("a").count) == (State(), [], 0)
    machine.commit(2)
    assert machine.state.index == 1
    assert machines.seen == [machine.state]
    assert machines.summary("a").count == 1


def test_command_of_a_newer_version_stops_rather_than_being_skipped(machines: Machines) -> None:
    with pytest.raises(CodecError):
        machines.open("a").apply(2, [msgpack.packb([2, 1, []])])


@pytest.mark.parametrize(
    "data",
    [b"", b"\xc1", b"garbage", msgpack.packb([1, 6, [b"k", [["serial"]]]]), msgpack.packb([1, 6, 7]), b"\x91" * 3000],
)
def test_command_that_no_release_has_written_is_rejected_and_the_next_one_applied(
    machines: Machines, data: bytes
) -> None:
    """Raft would have it applied again after each restart, on every node, and none would ever run again."""
    machine = machines.open("a")
    [refused, done] = machine.apply(2, [data, dump_command(leaves(1))])
    machine.commit(2)
    assert isinstance(refused, Rejected)
    assert refused.code == "malformed"
    assert done == Applied(1)
    assert machines.summary("a").count == 1


@pytest.mark.parametrize("number", [1 << 63, (1 << 64) - 1])
@pytest.mark.parametrize("field", ["kind", "not_before", "not_after"])
def test_number_that_sqlite_cannot_hold_is_rejected_alike_on_every_node(
    machines: Machines, field: str, number: int
) -> None:
    changes: dict[str, Any] = {field: number}
    bad = RecordLeaves(ISSUER, (record(1), record(2, **changes)))
    for name in "ab":
        results = feed(machines.open(name), [bad, TidyLedger(number), leaves(3)])
        assert [type(result) for result in results] == [Rejected, Rejected, Applied]
    assert machines.summary("a") == machines.summary("b")
    assert machines.summary("a").count == 1


def test_restored_time_that_sqlite_cannot_hold_does_not_end_the_next_node_that_records(machines: Machines) -> None:
    machine = machines.open("a")
    saved = replace(samples.ready(), tidied_before=(1 << 64) - 1)
    assert [type(result) for result in feed(machine, [RestoreCA(0, saved), leaves(1)])] == [Applied, Applied]


@pytest.mark.parametrize(
    "state", [b"", b"garbage", msgpack.packb([2, []]), dump_state(replace(State(), index=1 << 63))]
)
def test_snapshot_whose_state_cannot_be_read_changes_nothing(machines: Machines, state: bytes) -> None:
    machine = machines.open("a")
    feed(machine, [leaves(1)])
    before = machine.state, machines.summary("a")
    with pytest.raises(CodecError):
        machine.install(9, state)
    assert (machine.state, machines.summary("a")) == before


def test_replay_over_a_ledger_that_is_ahead_gives_the_same(machines: Machines) -> None:
    """Also past a tidying: what was dropped does not come back, and later records are not dropped."""
    log: list[Command] = [leaves(1, 2), TidyLedger(NOW + 2), leaves(3), leaves(4, 4)]
    machine = machines.open("a")
    feed(machine, log)
    before = machines.summary("a"), machine.state
    machine.close()
    again = ReplicatedMachine(machines.path("a"), lambda _: None)
    for cut in range(2, 6):
        feed(again, log[cut - 2 : cut - 1], cut)
        assert machines.summary("a") == before[0]
    assert again.state == before[1]
    again.close()


def test_record_that_is_older_than_the_last_tidying_is_dropped_at_once_everywhere(machines: Machines) -> None:
    """A copy cannot tell it from one that was there when the ledger was tidied."""
    log: list[Command] = [leaves(50), TidyLedger(NOW + 20), leaves(10, 60)]
    source, target = machines.open("source"), machines.open("target")
    feed(source, log)
    assert machines.summary("source").count == 2
    copy(source, target, source.capture()())
    assert machines.summary("target") == machines.summary("source")
    assert target.state == source.state


@pytest.mark.parametrize("had", range(4))
def test_copy_equals_the_original_whatever_was_there_before(machines: Machines, had: int) -> None:
    log: list[Command] = [leaves(*range(1, 6)), leaves(*range(6, 9)), TidyLedger(NOW + 4), leaves(9, 10)]
    source, target = machines.open("source"), machines.open("target")
    feed(source, log)
    feed(target, log[:had])
    copy(source, target, source.capture()())
    assert machines.summary("target") == machines.summary("source")
    assert target.state == source.state
    more: list[Command] = [leaves(11), leaves(11)]
    assert feed(target, more, 6) == feed(source, more, 6)
    assert machines.summary("target") == machines.summary("source")


def test_installed_state_needs_no_write_ahead_log(machines: Machines, tmp_path: Path) -> None:
    """It is durable before the snapshot that stands on it is saved."""
    source, target = machines.open("source"), machines.open("target")
    feed(source, [leaves(*range(1, 50))])
    copy(source, target, source.capture()())
    shutil.copy(machines.path("target"), tmp_path / "cut.db")
    assert machines.summary("cut") == machines.summary("source")


def test_captured_state_needs_no_write_ahead_log(machines: Machines, tmp_path: Path) -> None:
    source = machines.open("source")
    feed(source, [leaves(*range(1, 50))])
    snapshot = source.capture()()
    shutil.copy(machines.path("source"), tmp_path / "cut.db")
    again = machines.open("cut")
    again.load(snapshot)
    assert again.state == source.state


@contextmanager
def reading(path: str) -> Iterator[None]:
    """A reader that keeps everything committed meanwhile in the write-ahead log."""
    reader = sqlite3.connect(path)
    reader.execute("BEGIN")
    reader.execute("SELECT count(*) FROM cert").fetchone()
    yield
    reader.close()


def test_captured_state_is_synced_though_a_reader_keeps_it_from_being_copied(
    machines: Machines, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a power cut behind the compaction would leave a snapshot that stands on rows which are gone."""
    machine = machines.open("a")
    feed(machine, [leaves(1, 2)])
    synced: list[int] = []
    with reading(machines.path("a")):
        feed(machine, [leaves(3, 4)], start=3)
        monkeypatch.setattr(os, "fsync", lambda fd: synced.append(os.fstat(fd).st_ino))
        machine.capture()()
    assert os.stat(machines.path("a") + "-wal").st_ino in synced


def test_ledger_that_cannot_be_synced_fails_the_capture(machines: Machines, monkeypatch: pytest.MonkeyPatch) -> None:
    machine = machines.open("a")
    feed(machine, [leaves(1)])

    def fail(_path: str) -> int:
        error = sqlite3.OperationalError("disk I/O error")
        error.sqlite_errorcode = sqlite3.SQLITE_IOERR_FSYNC
        raise error

    monkeypatch.setattr(machine_module, "checkpoint", fail)
    with pytest.raises(OSError, match="disk I/O error") as failed:
        machine.capture()()
    assert failed.value.errno == errno.EIO


def test_write_ahead_log_of_a_ledger_in_use_starts_again_behind_a_capture(machines: Machines) -> None:
    machine = machines.open("a")
    sizes = []
    for number in range(2, 402):
        if number % 100 == 50:
            encode = machine.capture()
            with reading(machines.path("a")):
                feed(machine, [leaves(number)], start=number)
                encode()
        else:
            feed(machine, [leaves(number)], start=number)
        if number % 100 == 0:
            sizes.append(os.stat(machines.path("a") + "-wal").st_size)
    assert sizes[-1] < sizes[1] * 1.2


def test_snapshot_is_of_the_time_it_was_captured(machines: Machines) -> None:
    machine = machines.open("a")
    feed(machine, [leaves(1)])
    encode = machine.capture()
    feed(machine, [leaves(2)], 3)
    other = machines.open("b")
    copy(machine, other, encode())
    assert other.state.leaf_index == 1
    assert machines.summary("b").count == 1


def test_snapshot_that_the_ledger_does_not_reach_is_refused(machines: Machines) -> None:
    """As after the ledger's file was lost: the node must not serve an empty one."""
    machine = machines.open("a")
    feed(machine, [leaves(1, 2, 3)])
    snapshot = machine.capture()()
    with pytest.raises(LedgerDamaged, match="stands on certificate 3"):
        machines.open("empty").load(snapshot)


#: What parts that are written by hand are of.
STATE = dump_state(State(index=9, leaf_index=9))


def rows_of(machines: Machines) -> list[list[object]]:
    machine = machines.open("rows")
    feed(machine, [leaves(1, 2)])
    part, _ = machine.bulk_read(0, machine.capture()())
    rows: list[list[object]] = msgpack.unpackb(part)
    return rows


@pytest.mark.parametrize("position", range(12))
def test_row_with_a_field_of_a_wrong_type_is_refused(machines: Machines, position: int) -> None:
    rows = rows_of(machines)
    target = machines.open("target")
    rows[1][position] = [1.5]
    with pytest.raises(ValueError, match="row"):
        target.bulk_write(msgpack.packb(rows), 9, STATE)
    assert (target.bulk_position(), machines.summary("target").count) == (0, 0)


@pytest.mark.parametrize("value", [1 << 63, (1 << 64) - 1, True], ids=str)
@pytest.mark.parametrize("position", [0, 2, 7, 8, 11])
def test_row_with_a_number_that_sqlite_would_not_give_back_is_refused(
    machines: Machines, position: int, value: int
) -> None:
    rows = rows_of(machines)
    target = machines.open("target")
    rows[1][position] = value
    with pytest.raises(ValueError, match="row"):
        target.bulk_write(msgpack.packb(rows), 9, STATE)
    assert (target.bulk_position(), machines.summary("target").count) == (0, 0)


@pytest.mark.parametrize("part", [b"", b"\xc1", b"\x01", b"\x80", b"\x91\x01", b"\x91\x91\x01"])
def test_part_of_another_form_is_refused(machines: Machines, part: bytes) -> None:
    with pytest.raises(ValueError, match="row"):
        machines.open("target").bulk_write(part, 9, STATE)


def test_part_that_does_not_follow_leaves_nothing_behind(machines: Machines) -> None:
    rows = rows_of(machines)
    target = machines.open("target")
    with pytest.raises(ValueError, match="does not follow"):
        target.bulk_write(msgpack.packb([rows[0], rows[0]]), 9, STATE)
    assert (target.bulk_position(), machines.summary("target").count) == (0, 0)
    target.bulk_write(msgpack.packb(rows), 9, STATE)
    assert machines.summary("target").count == 2


def test_request_ids_are_refused_across_copies(machines: Machines) -> None:
    source, target = machines.open("source"), machines.open("target")
    issued = replace(record(1), request_id=b"q" * 16)
    feed(source, [RecordLeaves(ISSUER, (issued,))])
    copy(source, target, source.capture()())
    again = RecordLeaves(ISSUER, (replace(record(2), request_id=b"q" * 16),))
    assert feed(target, [again], 3) == [Applied(2, duplicates=(0,))]


# -- commits of the ledger that several entries share


def test_rows_wait_for_each_other_while_the_state_is_visible_at_once(machines: Machines) -> None:
    machine = machines.open("a", rows_per_commit=3)
    feed(machine, [leaves(1), leaves(2)])
    assert machine.state.index == 2
    assert machine.is_ledger_behind
    assert machines.summary("a").count == 0
    machine.flush_ledger()
    assert (machines.summary("a").count, machines.committed_log_index("a")) == (2, 3)
    feed(machine, [leaves(3), leaves(4), leaves(5)], start=4)
    assert machines.summary("a").count == 5


def test_rows_that_wait_are_known_already_and_not_taken_twice(machines: Machines) -> None:
    machine = machines.open("a", rows_per_commit=100)
    assert feed(machine, [leaves(1), leaves(1)]) == [Applied(1), Applied(2, duplicates=(0,))]


def test_snapshot_stands_on_rows_that_waited(machines: Machines) -> None:
    machine = machines.open("a", rows_per_commit=100)
    feed(machine, [leaves(1, 2, 3)])
    snapshot = machine.capture()()
    assert machines.summary("a").count == 3
    other = machines.open("b")
    copy(machine, other, snapshot)
    assert machines.summary("b").digest == machines.summary("a").digest


def test_killed_with_rows_that_wait_gets_them_from_the_log_again(machines: Machines) -> None:
    log: list[Command] = [leaves(1), leaves(2), TidyLedger(NOW), leaves(3)]
    machine = machines.open("a", rows_per_commit=100)
    feed(machine, log)
    again = machines.copied("a", "b")
    assert machines.summary("b").count < 3
    feed(again, log)
    machine.flush_ledger()
    assert again.state == machine.state
    assert machines.summary("b") == machines.summary("a")


def test_part_that_is_refused_takes_back_nothing_but_itself(machines: Machines) -> None:
    machine = machines.open("a", rows_per_commit=100)
    feed(machine, [leaves(1)])
    row = [1, b"x", 1, "n", "s", b"i", b"p", 0, NOW, "by", None, 2]
    with pytest.raises(ValueError, match="does not follow"):
        machine.bulk_write(msgpack.packb([row]), 9, STATE)
    assert machines.summary("a").count == 1


def test_syncing_beside_the_writer_leaves_little_for_a_compaction(machines: Machines) -> None:
    machine = machines.open("a")
    feed(machine, [leaves(1, 2, 3)])
    assert machine.unsynced_bytes() > 0
    machine.sync_ledger()
    assert machine.unsynced_bytes() == 0
    feed(machine, [leaves(4)], start=3)
    assert machine.unsynced_bytes() > 0


# -- copies that another server begins, and nobody finishes


MOST = (1 << 63) - 1


def odd_row(row_id: int, log_index: int) -> list[object]:
    return [row_id, row_id.to_bytes(8), 1, "odd", "spiffe://odd", b"odd", b"p", 0, 2 * NOW, "odd", None, log_index]


def damage(machines: Machines, name: str) -> str:
    reader = LedgerReader(machines.path(name))
    try:
        return reader.damage()
    finally:
        reader.close()


def begin_copy(machine: ReplicatedMachine, rows: list[list[object]]) -> None:
    """Of a snapshot that may stand on anything, and is never installed."""
    machine.bulk_write(msgpack.packb(rows), MOST, dump_state(State(index=1 << 62, leaf_index=1 << 62)))


UNFINISHED = {
    "rows that come next": [odd_row(3, 5), odd_row(4, 5), odd_row(5, 6)],
    "a row of far away": [odd_row(1 << 40, 5)],
    "a row of the last entry there can be": [odd_row(3, MOST)],
    "rows that are in the way of a page": [odd_row(3 + number, 5) for number in range(2500)],
}


@pytest.mark.parametrize("is_killed", [False, True])
@pytest.mark.parametrize("rows_per_commit", [1, 100])
@pytest.mark.parametrize("rows", UNFINISHED.values(), ids=UNFINISHED)
def test_log_that_goes_on_has_nothing_of_a_copy_that_was_not_finished(
    machines: Machines, rows: list[list[object]], rows_per_commit: int, is_killed: bool
) -> None:
    log: list[Command] = [leaves(1), leaves(2), TidyLedger(NOW), leaves(3, 4), leaves(5)]
    steady = machines.open("steady", rows_per_commit=rows_per_commit)
    late = machines.open("late", rows_per_commit=rows_per_commit)
    feed(steady, log)
    feed(late, log[:2])
    begin_copy(late, rows)
    assert damage(machines, "late") == ""
    if is_killed:
        late = machines.copied("late", "again")
        feed(late, log[:2])
    feed(late, log[2:], 4)
    late.flush_ledger()
    steady.flush_ledger()
    assert late.ledger_summary == steady.ledger_summary
    assert late.bulk_position() == steady.bulk_position()
    assert damage(machines, "again" if is_killed else "late") == ""


@pytest.mark.parametrize("rows", UNFINISHED.values(), ids=UNFINISHED)
def test_copy_begins_again_with_what_this_node_has_applied(machines: Machines, rows: list[list[object]]) -> None:
    log: list[Command] = [leaves(1), leaves(2), leaves(3, 4), leaves(5)]
    source, target = machines.open("source"), machines.open("target")
    feed(source, log)
    feed(target, log[:2])
    begin_copy(target, rows)
    target.bulk_restart(3)
    assert target.bulk_position() == 2
    copy(source, target, source.capture()())
    assert target.ledger_summary == source.ledger_summary
    assert feed(target, [leaves(6)], 6) == feed(source, [leaves(6)], 6) == [Applied(6)]
    assert target.ledger_summary == source.ledger_summary


@pytest.mark.parametrize("applied", [6, MOST])
def test_installed_snapshot_says_how_far_the_ledger_goes(machines: Machines, applied: int) -> None:
    """Also to one that was written by a release which believed what it was sent."""
    source, target = machines.open("source"), machines.open("target")
    feed(source, [leaves(1), leaves(2)])
    target._ledger.import_rows([tuple(odd_row(1 << 40, applied))])
    target._ledger.commit(applied)
    again = machines.copied("target", "again")
    target.close()
    again.bulk_restart(0)
    copy(source, again, source.capture()())
    assert again.ledger_summary == source.ledger_summary
    assert feed(again, [leaves(3)], 4) == feed(source, [leaves(3)], 4)
    assert again.ledger_summary == source.ledger_summary
    assert damage(machines, "again") == ""


def test_installed_snapshot_takes_back_what_the_ledger_says_it_has_applied(machines: Machines) -> None:
    source, target = machines.open("source"), machines.open("target")
    for machine in (source, target):
        feed(machine, [leaves(1), leaves(2)])
    target._ledger.cut_to(2, MOST)
    target._ledger.commit(MOST)
    target.install(3, source.capture()())
    assert target.ledger_summary == source.ledger_summary
    assert machines.committed_log_index("target") == 3


def test_ledger_that_says_it_has_an_entry_and_has_not_takes_it(machines: Machines) -> None:
    machine = machines.open("a")
    feed(machine, [leaves(1)])
    machine._ledger.cut_to(1, MOST)
    machine._ledger.commit(MOST)
    feed(machine, [leaves(2), leaves(3)], 3)
    assert machines.summary("a").count == 3


@pytest.mark.parametrize(
    ("row", "why"),
    [
        (odd_row(6, 5), "stands on row 5"),
        (odd_row(3, 6), "must be from 4 to 5"),
        (odd_row(3, MOST), "must be from 4 to 5"),
        (odd_row(3, 3), "must be from 4 to 5"),
    ],
)
def test_row_that_is_not_between_the_ledger_and_the_snapshot_is_refused(
    machines: Machines, row: list[object], why: str
) -> None:
    machine = machines.open("a")
    feed(machine, [leaves(1), leaves(2)])
    before = machine.ledger_summary
    with pytest.raises(ValueError, match=why):
        machine.bulk_write(msgpack.packb([row]), 5, dump_state(State(index=5, leaf_index=5)))
    assert (machine.ledger_summary, machine.bulk_position()) == (before, 2)


def test_rows_of_a_part_are_in_the_order_of_their_entries(machines: Machines) -> None:
    with pytest.raises(ValueError, match="ledger row 2 has log index 4: must be from 5"):
        begin_copy(machines.open("a"), [odd_row(1, 5), odd_row(2, 4)])


def test_snapshot_that_reaches_less_far_than_a_copy_is_installed_as_it_is(machines: Machines) -> None:
    """Another leader's, of an earlier entry: what comes after it is in the log."""
    log: list[Command] = [leaves(1), leaves(2), leaves(3, 4)]
    source, target = machines.open("source"), machines.open("target")
    feed(source, log[:2])
    earlier = source.capture()()
    feed(source, log[2:], 4)
    part, _ = source.bulk_read(0, source.capture()())
    target.bulk_write(part, 4, source.capture()())
    target.install(3, earlier)
    assert (target.bulk_position(), target.ledger_summary.count) == (2, 2)
    feed(target, log[2:], 4)
    assert target.ledger_summary == source.ledger_summary


# -- what an earlier release has recorded

#: Of a release without bounds: all that a command can hold and SQLite keeps.
_NUMBERS = [MIN_INT64, FIRST_SECOND, -1, 0, LAST_SECOND + 1, MOST]
_TEXTS = ["", "\0", "a\0b", "\U0010ffff" * 100_000]
_BLOBS = [b"", b"\0", b"\0\1", b"x" * 500_000]
ODD = [
    *((field, value) for field in ("kind", "not_before", "not_after") for value in _NUMBERS),
    *((field, value) for field in ("name", "spiffe_id", "requested_by") for value in _TEXTS),
    *((field, value) for field in ("serial", "public_key_sha256", "request_id") for value in _BLOBS),
]


@pytest.mark.parametrize(
    ("field", "value"), [pytest.param(field, value, id=f"{field}-{value!r:.30}") for field, value in ODD]
)
def test_certificate_that_is_on_record_is_copied_whatever_it_holds(machines: Machines, field: str, value: Any) -> None:
    source, target = machines.open("source"), machines.open("target")
    log: list[Command] = [leaves(1), RecordLeaves(ISSUER, (record(2, **{field: value}),)), leaves(3)]
    assert all(isinstance(result, Applied) for result in feed(source, log))
    copy(source, target, source.capture()())
    assert target.ledger_summary == source.ledger_summary
    # One that has ended before the time up to which the ledger is tidied, 0 at first, is dropped at once.
    assert target.ledger_summary.count == (2 if field == "not_after" and value < 0 else 3)
    assert damage(machines, "target") == ""


@pytest.mark.parametrize("issuer", [b"", b"\0", b"k" * 500_000])
def test_certificate_of_any_issuer_is_copied(machines: Machines, issuer: bytes) -> None:
    source, target = machines.open("source"), machines.open("target")
    feed(source, [RecordLeaves(issuer, (record(1), record(2)))])
    copy(source, target, source.capture()())
    assert target.ledger_summary == source.ledger_summary


@pytest.mark.parametrize(
    ("position", "name", "number"),
    [
        (0, "id", -1),
        (11, "log_index", -1),
        *((at, _, MOST + 1) for at, _ in ((0, "id"), (2, "kind"), (7, "not_before"))),
    ],
)
def test_number_that_no_ledger_holds_is_refused_by_name(
    machines: Machines, position: int, name: str, number: int
) -> None:
    row = odd_row(1, 5)
    row[position] = number
    with pytest.raises(ValueError, match=f"{name} is {number}, must be from"):
        machines.open("a").bulk_write(msgpack.packb([row]), 9, STATE)


def test_row_larger_than_any_entry_is_refused(machines: Machines) -> None:
    """Whoever took it would not get it into a part again."""
    row = odd_row(1, 5)
    row[3] = "x" * (MAX_COMMAND_BYTES + 100)
    with pytest.raises(ValueError, match=r"ledger row 1 has \d+ bytes"):
        machines.open("a").bulk_write(msgpack.packb([row]), 9, STATE)


@pytest.mark.parametrize(
    ("issuer", "name", "records"),
    [
        (ISSUER, "\U0001f600" * 4096, 30),
        (ISSUER, "x" * 300_000, 1),
        (b"k" * 400_000, "x", 100),
        (b"k" * 900_000, "x" * 100_000, 1),
    ],
    ids=["names", "one name", "issuer", "all that an entry can hold"],
)
def test_parts_fit_into_frames_whatever_the_certificates_hold(
    machines: Machines, issuer: bytes, name: str, records: int
) -> None:
    """Else the node that lags drops the leader, again and again, and is never brought up to date."""
    source, target = machines.open("source"), machines.open("target")
    numbers = iter(range(1, 10_000))
    log: list[Command] = []
    while len(log) * records < 40:
        made = tuple(record(next(numbers), name=name) for _ in range(records))
        log.append(RecordLeaves(issuer, made))
        assert len(dump_command(log[-1])) <= MAX_COMMAND_BYTES
    feed(source, log)
    snapshot, is_last = source.capture()(), False
    while not is_last:
        part, is_last = source.bulk_read(target.bulk_position(), snapshot)
        message = {"type": "bulk_part", "log_index": 9, "after": 9, "data": part, "is_last": is_last, "ct": 1}
        frame = pack_frame(message)
        assert len(frame) < MAX_FRAME_BYTES
        assert unpack_message(frame[FRAME_HEADER.size :]) == message
        target.bulk_write(part, 1 + len(log), snapshot)
    target.install(1 + len(log), snapshot)
    assert target.ledger_summary == source.ledger_summary


# -- what one part may take up


_MIB = 1 << 20


@pytest.mark.parametrize(
    ("piece", "count"),
    [
        (b"\x90", 1),
        (b"\x91\x90", 2),
        (b"\x80", 1),
        (b"\x9c" + b"\xa0" * 12, 13),
        (b"\x9c" + b"\x90" * 12, 13),
        (b"\xc0", 1),
        (msgpack.packb(odd_row(1, 1)), len(msgpack.packb(odd_row(1, 1)))),
    ],
    ids=["lists", "lists in lists", "maps", "rows of texts", "rows of lists", "nothing", "too many rows"],
)
@pytest.mark.parametrize("is_in_row", [False, True])
def test_part_that_is_refused_takes_up_little_more_than_itself(
    machines: Machines, piece: bytes, count: int, is_in_row: bool
) -> None:
    machine = machines.open("a")
    pieces = 8 * _MIB // count
    part = (b"\x91\x9c" if is_in_row else b"") + b"\xdd" + pieces.to_bytes(4, "big") + piece * pieces
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match="ledger row"):
            machine.bulk_write(part, 9, STATE)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 2 * len(part)


@pytest.mark.parametrize("tail", [b"\x00", b"\x90"])
def test_part_with_something_behind_it_is_refused(machines: Machines, tail: bytes) -> None:
    with pytest.raises(ValueError, match="1 bytes follow"):
        machines.open("a").bulk_write(msgpack.packb([odd_row(1, 1)]) + tail, 9, STATE)


@pytest.mark.parametrize("depth", [1, 20])
def test_state_that_is_refused_takes_up_little_more_than_itself(
    machines: Machines, depth: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine_module, "_MAX_STATE_VALUES", 10_000)  # counting is slow while memory is traced
    machine = machines.open("a")
    filled = b"\x91" * depth + b"\x92\x01\xdd" + (4 * _MIB).to_bytes(4, "big") + b"\x90" * (4 * _MIB)
    for take in (
        machine.install,
        lambda index, state: machine.bulk_write(msgpack.packb([odd_row(1, 1)]), index, state),
    ):
        tracemalloc.start()
        try:
            with pytest.raises(CodecError, match=r"values|nested"):
                take(9, filled)
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert peak < 2 * _MIB
    assert machine.state == State()


def test_largest_part_that_a_leader_sends_is_taken(machines: Machines) -> None:
    """A page, and what is left of a log entry of the largest size."""
    machine = machines.open("a")
    record = replace(samples.record(1), name="", spiffe_id="", public_key_sha256=b"", requested_by="", request_id=b"")
    least = len(dump_command(RecordLeaves(b"", (record,) * 101))) - len(dump_command(RecordLeaves(b"", (record,))))
    rows = machine_module._BULK_ROWS + MAX_COMMAND_BYTES * 100 // least
    assert rows <= machine_module._MAX_PART_ROWS
    part = msgpack.packb([odd_row(number, 5) for number in range(1, machine_module._MAX_PART_ROWS + 1)])
    begin_copy(machine, msgpack.unpackb(part))
    assert machine.bulk_position() == machine_module._MAX_PART_ROWS
