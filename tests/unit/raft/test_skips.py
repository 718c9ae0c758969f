"""A marked entry is passed over, and no other one."""

import json
import random
from typing import Any, Final

import pytest

from cluster.raft.journal import Entry, JournalDamaged
from cluster.raft.macs import FileMacs
from cluster.raft.skips import FILE, Skip, load_skips, save_skips
from tests.kit.solo import Solo, batch
from tests.sim.disk import Crash, SimDisk

PATH = f"data/{FILE}"
MACS: Final = FileMacs(b"k" * 32)
ONCE: Final = FileMacs(b"k" * 32, is_required=False)
OTHER: Final = FileMacs(b"o" * 32)


def write(disk: SimDisk, content: bytes) -> None:
    if disk.exists(PATH):
        disk.unlink(PATH)
    file = disk.create(PATH)
    file.write(content)
    file.sync()
    file.close()
    disk.sync_directory("data")


def disk_with(*marked: Skip, macs: FileMacs | None = MACS) -> SimDisk:
    disk = SimDisk()
    disk.make_directory("data")
    save_skips(disk, "data", marked, macs)
    return disk


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
    write(solo.disk, content)
    with pytest.raises(JournalDamaged, match=FILE):
        solo.restart()


# -- whose marks they are


def test_marks_with_this_nodes_mac_are_taken_also_by_the_release_before() -> None:
    """Which looks at no MAC; and however the file is laid out."""
    marks = frozenset(Skip.of(batch(index, 1)) for index in (9, 3, 4))
    disk = disk_with(*marks)
    assert load_skips(disk, "data", MACS) == load_skips(disk, "data") == marks
    content = json.loads(disk.read(PATH))
    content["entries"].reverse()
    write(disk, json.dumps(content).encode())
    assert load_skips(disk, "data", MACS) == marks


def _with(content: dict[str, Any], **changes: Any) -> dict[str, Any]:
    return {**content, **changes}


@pytest.mark.parametrize(
    "change",
    [
        lambda c: _with(c, entries=[*c["entries"], {"log_index": 5, "term": 1, "sha256": "ab"}]),
        lambda c: _with(c, entries=c["entries"][:1]),
        lambda c: _with(c, entries=[{**c["entries"][0], "log_index": 7}, c["entries"][1]]),
        lambda c: _with(c, entries=[{**c["entries"][0], "term": 2}, c["entries"][1]]),
        lambda c: _with(c, entries=[{**c["entries"][0], "sha256": "ab"}, c["entries"][1]]),
        lambda c: _with(c, mac="00" * 16),
        lambda c: _with(c, mac=c["mac"][:-2]),
        lambda c: _with(c, mac=""),
        lambda c: _with(c, mac="no hex"),
        lambda c: _with(c, mac=7),
        lambda c: {"format": c["format"], "entries": c["entries"]},
    ],
    ids=["one more", "one less", "index", "term", "sha256", "mac", "short mac", "no mac", "odd mac", "number", "gone"],
)
def test_marks_of_somebody_else_are_refused_and_the_node_does_not_start(change: Any) -> None:
    """They would have it pass over what the others apply."""
    disk = disk_with(Skip.of(batch(3, 1)), Skip.of(batch(4, 1)))
    write(disk, json.dumps(change(json.loads(disk.read(PATH)))).encode())
    with pytest.raises(JournalDamaged, match=FILE):
        load_skips(disk, "data", MACS)
    solo = Solo(macs=MACS)
    write(solo.disk, disk.read(PATH))
    with pytest.raises(JournalDamaged, match=FILE):
        solo.restart()


def test_marks_of_another_node_are_refused() -> None:
    disk = disk_with(Skip.of(batch(3, 1)), macs=OTHER)
    for macs in (MACS, ONCE):
        with pytest.raises(JournalDamaged, match="its MAC is wrong"):
            load_skips(disk, "data", macs)


def test_marks_of_the_release_before_are_taken_once_and_have_a_mac_from_then_on() -> None:
    solo = Solo()
    save_skips(solo.disk, "data", {Skip.of(batch(3, 1))})
    marked: list[bool] = []
    solo.macs = FileMacs(MACS.key, is_required=False, established=lambda: marked.append(True))
    solo.restart()
    assert marked == [True]
    solo.macs = MACS
    solo.restart()
    solo.append("b", 1, (1, 0), batch(2, 1), batch(3, 1), batch(4, 1), commit=4)
    assert solo.commands == [b"2@1", b"4@1"]


@pytest.mark.parametrize("crash_in", range(1, 60))
def test_crash_while_marks_get_their_mac_leaves_a_node_that_starts_again_with_them(crash_in: int) -> None:
    solo = Solo()
    save_skips(solo.disk, "data", {Skip.of(batch(3, 1))})
    marked: list[bool] = []
    solo.macs = FileMacs(MACS.key, is_required=False, established=lambda: marked.append(True))
    try:
        solo.restart(crash_in)
    except Crash:
        assert not marked
        solo.disk.cut_power(random.Random(crash_in))
        solo.restart()
    solo.macs = MACS
    solo.restart()
    assert load_skips(solo.disk, "data", MACS) == {Skip.of(batch(3, 1))}


def test_no_marks_need_no_mac() -> None:
    """Whoever could write that could remove the file."""
    assert load_skips(disk_with(macs=None), "data", MACS) == frozenset()
