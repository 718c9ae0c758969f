"""A marked entry is passed over, and no other one."""

import json

import pytest

from cluster.raft.journal import Entry, JournalDamaged
from cluster.raft.skips import FILE, Skip, load_skips, save_skips
from tests.kit.solo import Solo, batch
from tests.sim.disk import SimDisk

PATH = f"data/{FILE}"


def test_marked_entry_is_passed_over_and_those_around_it_are_applied() -> None:
    solo = Solo()
    save_skips(solo.disk, "data", {Skip.of(batch(3, 1))})
    solo.restart()
    solo.append("b", 1, (1, 0), batch(2, 1), batch(3, 1), batch(4, 1), commit=4)
    assert solo.commit == 4
    assert solo.commands == [b"2@1", b"4@1"]
    assert ("entry.skipped", {"log_index": 3, "term": 1}) in solo.log.events
    solo.restart()
    solo.append("b", 1, (4, 1), commit=4)
    assert solo.commands.count(b"3@1") == 0


@pytest.mark.parametrize(
    "marked",
    [batch(3, 2), batch(3, 1, b"another"), Entry(batch(3, 1).command, 4, 1)],
    ids=["of another term", "another command", "at another index"],
)
def test_mark_of_another_entry_means_nothing_to_this_one(marked: Entry) -> None:
    """A leader may have put another one in its place, which all nodes apply."""
    solo = Solo()
    save_skips(solo.disk, "data", {Skip.of(marked)})
    solo.restart()
    solo.append("b", 1, (1, 0), batch(2, 1), batch(3, 1), commit=3)
    assert solo.commands == [b"2@1", b"3@1"]


def test_marks_come_back_as_they_were_saved() -> None:
    disk = SimDisk()
    disk.make_directory("data")
    marks = {Skip.of(batch(index, 1)) for index in (3, 9, 4)}
    assert load_skips(disk, "data") == frozenset()
    save_skips(disk, "data", marks)
    assert load_skips(disk, "data") == marks
    assert [entry["log_index"] for entry in json.loads(disk.read(PATH))["entries"]] == [3, 4, 9]


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b"\xff",
        b"[" * 5000,
        b'{"format":2,"entries":[]}',
        b'{"format":1}',
        b'{"format":1,"entries":[1]}',
        b'{"format":1,"entries":[{"log_index":"3","term":1,"sha256":""}]}',
        b'{"format":1,"entries":[{"log_index":3,"term":true,"sha256":""}]}',
        b'{"format":1,"entries":[{"log_index":3,"term":1,"sha256":"","more":1}]}',
    ],
)
def test_node_does_not_start_with_marks_that_it_cannot_read(content: bytes) -> None:
    """Without them it would go another way than the others."""
    solo = Solo()
    file = solo.disk.create(PATH)
    file.write(content)
    file.sync()
    file.close()
    solo.disk.sync_directory("data")
    with pytest.raises(JournalDamaged, match=FILE):
        solo.restart()
