"""Files of a node that somebody has changed, checksums and all, are refused with file and reason; what a crash leaves
is not taken for that; and files of the release before, which have no MACs, are taken once.
"""

import functools
import random
import struct
import zlib
from collections.abc import Callable, Iterable
from typing import Final

import pytest

from cluster.raft.journal import Entry, Journal, JournalDamaged
from cluster.raft.macs import FileMacs
from cluster.raft.membership import Member
from cluster.raft.node import CompactionPolicy
from cluster.raft.snapshot import Snapshot, SnapshotDamaged, SnapshotFile
from tests.kit.solo import Solo
from tests.sim.cluster import members_of
from tests.sim.disk import Crash, SimDisk

MACS: Final = FileMacs(b"k" * 32)
ONCE: Final = FileMacs(b"k" * 32, is_required=False)
OTHER: Final = FileMacs(b"o" * 32)
SEGMENT_1: Final = "data/wal/0000000000000001.wal"
PATH: Final = "data/snapshot"
OLD: Final = Snapshot(10, 2, (Member("a", "a:1", "a:2"),), b"old state")
NEW: Final = Snapshot(20, 3, (Member("a", "a:1", "a:2"),), b"new state" * 300)

Record = tuple[int, bytes]
ENTRY: Final = 2
STATE: Final = 4
SYNC: Final = 7


def opened(disk: SimDisk, macs: FileMacs | None = MACS, segment_bytes: int = 1 << 20) -> Journal:
    return Journal(disk, "data/wal", segment_bytes=segment_bytes, macs=macs)


def entry(log_index: int) -> Entry:
    return Entry(b"%d %s" % (log_index, b"." * 40), log_index, 3)


def filled(disk: SimDisk, last: int, macs: FileMacs | None = MACS, segment_bytes: int = 1 << 20) -> Journal:
    """Entries 1 to `last`, a group each, after a term and a vote."""
    journal = opened(disk, macs, segment_bytes)
    journal.set_term(3, "b")
    for log_index in range(1, last + 1):
        journal.append(*entry(log_index))
        journal.sync()
    return journal


def contents(journal: Journal) -> tuple[list[Entry], int, str | None]:
    return list(journal.entries), journal.term, journal.vote


# -- what can be done to a file by somebody who knows its form


def records_of(data: bytes) -> list[Record]:
    found, offset = [], 0
    while offset < len(data):
        length, kind, _, _ = struct.unpack_from("<IBII", data, offset)
        start = offset + 13
        found.append((kind, data[start : start + length]))
        offset = start + length
    return found


def written(records: Iterable[Record], seq: int = 1) -> bytes:
    """With checksums that fit."""
    data = b""
    for kind, payload in records:
        head = struct.pack("<IBI", len(payload), kind, zlib.crc32(payload))
        data += head + struct.pack("<I", zlib.crc32(struct.pack("<QQ", seq, len(data)) + head)) + payload
    return data


def groups_of(records: list[Record]) -> list[list[Record]]:
    groups: list[list[Record]] = [[]]
    for record in records:
        groups[-1].append(record)
        if record[0] == SYNC:
            groups.append([])
    return groups[:-1]


def rewritten(disk: SimDisk, change: Callable[[list[list[Record]]], list[list[Record]]], path: str = SEGMENT_1) -> None:
    def anew(data: bytearray) -> None:
        groups = change(groups_of(records_of(bytes(data))))
        data[:] = written([record for group in groups for record in group], int(path[-20:-4]))

    disk.damage(path, anew)


def _other_command(groups: list[list[Record]]) -> list[list[Record]]:
    kind, payload = groups[3][0]
    assert kind == ENTRY
    groups[3][0] = (kind, payload[:16] + b"a root of mine")
    return groups


def _other_vote(groups: list[list[Record]]) -> list[list[Record]]:
    position = next(number for number, (kind, _) in enumerate(groups[1]) if kind == STATE)
    groups[1][position] = (STATE, struct.pack("<Q", 3) + b"c")
    return groups


def _added_group(groups: list[list[Record]]) -> list[list[Record]]:
    added = [(ENTRY, struct.pack("<QQ", len(groups), 3) + b"a root of mine"), (SYNC, b"\xa5" * 8)]
    return [*groups, added]


def _added_group_with_a_guessed_mac(groups: list[list[Record]]) -> list[list[Record]]:
    *_, (records, _) = _added_group(groups)
    previous = groups[-1][-1][1][17:33]
    return [*groups, [records, (SYNC, b"M" + previous + bytes(16) + b"\xa5" * 8)]]


def _without_macs(groups: list[list[Record]]) -> list[list[Record]]:
    """As the release before wrote it."""
    return [[*group[:-1], (SYNC, b"\xa5" * 8)] for group in _other_command(groups)]


CHANGES: Final[dict[str, Callable[[list[list[Record]]], list[list[Record]]]]] = {
    "another command": _other_command,
    "another vote": _other_vote,
    "a group left out": lambda groups: groups[:3] + groups[4:],
    "groups in another order": lambda groups: [*groups[:2], groups[3], groups[2], *groups[4:]],
    "a group twice": lambda groups: [*groups[:4], groups[3], *groups[4:]],
    "two groups made one": lambda groups: [*groups[:2], groups[2][:-1] + groups[3], *groups[4:]],
    "a group added": _added_group,
    "a group with a guessed MAC added": _added_group_with_a_guessed_mac,
    "all MACs taken away": _without_macs,
}


@pytest.mark.parametrize("name", CHANGES)
@pytest.mark.parametrize("macs", [MACS, OTHER], ids=["required", "other key"])
def test_changed_journal_is_refused_with_its_name(name: str, macs: FileMacs) -> None:
    disk = SimDisk()
    filled(disk, 6).close()
    rewritten(disk, CHANGES[name])
    with pytest.raises(JournalDamaged, match=rf"{SEGMENT_1}: .* MAC"):
        opened(disk, macs)


@pytest.mark.parametrize("name", CHANGES)
def test_checksums_alone_would_not_show_it(name: str) -> None:
    """What makes these tests worth something: but for their MACs, most of these files are sound."""
    disk = SimDisk()
    filled(disk, 6).close()
    rewritten(disk, CHANGES[name])
    if name in ("a group left out", "groups in another order", "a group twice"):
        with pytest.raises(JournalDamaged, match="follows entry"):
            opened(disk, None)
    else:
        opened(disk, None)


def test_whole_records_after_the_last_group_are_nobodys_and_are_cut_off() -> None:
    """Anybody can have put them there. What a crash leaves there was never relied on."""
    disk = SimDisk()
    before = contents(filled(disk, 6))
    rewritten(disk, lambda groups: [*groups, [(ENTRY, struct.pack("<QQ", 7, 3) + b"a root of mine")]])
    journal = opened(disk)
    assert contents(journal) == before
    assert journal.cut_off_bytes > 0
    assert contents(opened(disk)) == before


def test_end_of_an_older_segment_cannot_be_left_out() -> None:
    disk = SimDisk()
    filled(disk, 3, segment_bytes=300)
    journal = opened(disk, segment_bytes=300)
    journal.set_term(9, "c")  # a vote of which no entry tells
    journal.sync()
    while len([name for name in disk.list("data/wal") if name.endswith(".wal")]) < 4:
        journal.append(*entry(journal.entries[-1].log_index + 1))
        journal.sync()
    names = [name for name in disk.list("data/wal") if name.endswith(".wal")]
    rewritten(disk, lambda groups: groups[:-1], f"data/wal/{names[1]}")
    with pytest.raises(JournalDamaged):
        opened(disk)


def test_segment_of_another_node_is_refused() -> None:
    disk, other = SimDisk(), SimDisk()
    filled(disk, 6).close()
    filled(other, 9, OTHER).close()
    disk.damage(SEGMENT_1, lambda data: data.__setitem__(slice(None), other.read(SEGMENT_1)))
    with pytest.raises(JournalDamaged, match="MAC"):
        opened(disk)


@pytest.mark.parametrize("segment_bytes", [1 << 20, 400])
def test_journal_with_macs_rolls_truncates_compacts_and_heals_as_ever(segment_bytes: int) -> None:
    disk = SimDisk()
    journal = filled(disk, 20, segment_bytes=segment_bytes)
    journal.truncate_from(18)
    journal.append(*entry(18))
    journal.compact_to(9)
    journal.rewrite()
    journal.append(*entry(19))
    journal.sync()
    expected = contents(journal)
    disk.cut_power(random.Random(1))
    journal = opened(disk, segment_bytes=segment_bytes)
    assert contents(journal) == expected
    journal.reset(entry(40))
    journal.close()
    assert [one.log_index for one in opened(disk, segment_bytes=segment_bytes).entries] == [40]


@pytest.mark.parametrize("seed", range(40))
def test_no_power_cut_looks_like_a_change(seed: int) -> None:
    """Every crash leaves a journal that opens, with all that was synced."""
    rng = random.Random(seed)
    disk = SimDisk()
    journal = filled(disk, 3, segment_bytes=400)
    disk.crash_in = rng.randrange(1, 60)
    synced = 3
    try:
        for log_index in range(4, 40):
            journal.append(*entry(log_index))
            if rng.random() < 0.5:
                journal.sync()
                synced = log_index
            if rng.random() < 0.1:
                journal.compact_to(max(1, synced - 3))
    except Crash:
        pass
    disk.cut_power(rng)
    entries = opened(disk, segment_bytes=400).entries
    assert entries[-1].log_index >= synced
    assert contents(opened(disk, segment_bytes=400))[0] == list(entries)


# -- the release before


def test_journal_of_the_release_before_is_taken_once_and_then_has_macs() -> None:
    disk = SimDisk()
    before = contents(filled(disk, 9, None, segment_bytes=300))
    with pytest.raises(JournalDamaged, match=r"have no MAC: .*--accept-files-without-mac"):
        opened(disk, MACS)
    journal = opened(disk, ONCE)
    assert journal.lacks_macs
    assert contents(journal) == before
    journal.rewrite()
    journal.close()
    journal = opened(disk, MACS)
    assert not journal.lacks_macs
    assert contents(journal) == before


def test_release_before_goes_on_with_what_has_macs_and_that_is_not_taken_for_ours() -> None:
    disk = SimDisk()
    filled(disk, 5).close()
    journal = opened(disk, None)  # it takes the payload of a SYNC record for filling
    assert len(journal.entries) == 5
    journal.append(*entry(6))
    journal.close()
    with pytest.raises(JournalDamaged, match=r"have no MAC: .*--accept-files-without-mac"):
        opened(disk, MACS)
    journal = opened(disk, ONCE)
    assert (len(journal.entries), journal.lacks_macs) == (6, True)
    journal.rewrite()
    assert len(opened(disk, MACS).entries) == 6


def test_file_that_may_lack_macs_may_not_have_wrong_ones() -> None:
    disk = SimDisk()
    filled(disk, 6).close()
    rewritten(disk, _other_command)
    with pytest.raises(JournalDamaged, match="MAC"):
        opened(disk, ONCE)


# -- snapshots


def saved(*versions: Snapshot, macs: FileMacs | None = MACS) -> SimDisk:
    disk = SimDisk()
    file = SnapshotFile(disk, PATH, macs)
    for version in versions:
        file.save(version)
    return disk


def replaced(disk: SimDisk, path: str, data: bytes) -> None:
    disk.damage(path, lambda found: found.__setitem__(slice(None), data))


def test_snapshot_with_a_mac_is_read_back() -> None:
    for versions in ((OLD,), (OLD, NEW)):
        assert SnapshotFile(saved(*versions), PATH, MACS).load() == versions[-1]


def test_changed_snapshot_is_refused_with_its_name() -> None:
    """Its checksum made anew, as `encode` does."""
    disk = saved(OLD)
    replaced(disk, PATH, Snapshot(10, 2, OLD.members, b"a root of mine").encode())
    with pytest.raises(SnapshotDamaged, match=rf"{PATH}: its MAC in {PATH}.mac is wrong"):
        SnapshotFile(disk, PATH, MACS).load()
    assert SnapshotFile(disk, PATH).load() is not None  # but for its MAC it is sound


def test_snapshot_without_a_mac_or_with_that_of_another_node_is_refused() -> None:
    disk = saved(OLD)
    disk.unlink(f"{PATH}.mac")
    with pytest.raises(SnapshotDamaged, match=rf"{PATH}: it has no MAC .*--accept-files-without-mac"):
        SnapshotFile(disk, PATH, MACS).load()
    with pytest.raises(SnapshotDamaged, match="its MAC in"):
        SnapshotFile(saved(OLD, macs=OTHER), PATH, MACS).load()


def test_each_byte_of_the_file_of_macs_counts() -> None:
    sound = saved(OLD, NEW).read(f"{PATH}.mac")
    for offset in range(len(sound)):
        disk = saved(OLD, NEW)
        changed = bytearray(sound)
        changed[offset] ^= 1
        replaced(disk, f"{PATH}.mac", bytes(changed))
        with pytest.raises(SnapshotDamaged, match=rf"{PATH}\.mac"):
            SnapshotFile(disk, PATH, MACS).load()


@pytest.mark.parametrize("data", [b"", b"QCAMAC1\n", b"QCAMAC1\n" + bytes(16), bytes(100)])
def test_file_of_macs_of_another_form_is_refused(data: bytes) -> None:
    disk = saved(OLD)
    for content in (data, data + struct.pack("<I", zlib.crc32(data))):
        replaced(disk, f"{PATH}.mac", content)
        with pytest.raises(SnapshotDamaged):
            SnapshotFile(disk, PATH, MACS).load()


@pytest.mark.parametrize("seed", range(5))
def test_crash_at_every_operation_leaves_the_old_or_the_new_one_with_its_mac(seed: int) -> None:
    disk = saved(OLD)
    file = SnapshotFile(disk, PATH, MACS)
    file.load()
    before = disk.operations
    file.save(NEW)
    found = set()
    for crash_in in range(1, disk.operations - before + 1):
        disk = saved(OLD)
        file = SnapshotFile(disk, PATH, MACS)
        file.load()
        disk.crash_in = crash_in
        with pytest.raises(Crash):
            file.save(NEW)
        disk.cut_power(random.Random(seed))
        snapshot = SnapshotFile(disk, PATH, MACS).load()
        assert snapshot in (OLD, NEW)
        found.add(snapshot == NEW)
    assert False in found


def test_scrub_beside_a_save_does_not_forget_the_mac_of_the_present_one() -> None:
    """It loads in another thread, and may come to its end after the save."""
    disk = saved(OLD)
    file = SnapshotFile(disk, PATH, MACS)
    file.load()
    file.save(NEW)
    old = SnapshotFile(saved(OLD), PATH, MACS)
    replaced(disk, PATH, old._disk.read(PATH))
    assert file.load() == OLD
    replaced(disk, PATH, NEW.encode())
    file.save(OLD)
    replaced(disk, PATH, NEW.encode())  # as after a crash between the two files
    assert SnapshotFile(disk, PATH, MACS).load() == NEW


# -- a node


def test_node_of_the_release_before_is_taken_once_and_marked() -> None:
    compaction = CompactionPolicy(trigger_bytes=1, keep_bytes=0)
    solo = Solo(members_of("a", "b", "c"), compaction=compaction)
    solo.elect()
    solo.propose(b"one")
    solo.node.pump()
    solo.confirm()
    solo.run_background()
    solo.node.journal.sync()
    before = (solo.entries, solo.node.journal.term, solo.node.journal.vote)
    assert solo.disk.exists(PATH)
    marked: list[bool] = []
    solo.macs = FileMacs(MACS.key, is_required=False, established=lambda: marked.append(True))
    solo.restart()
    assert (solo.entries, solo.node.journal.term, solo.node.journal.vote) == before
    assert marked == [True]
    assert "files.authenticated" in solo.log.names()
    solo.macs = MACS
    solo.restart()
    assert (solo.entries, solo.node.journal.term, solo.node.journal.vote) == before
    solo.macs = None  # the release before, again
    solo.restart()
    assert (solo.entries, solo.node.journal.term, solo.node.journal.vote) == before


@pytest.mark.parametrize("seed", range(3))
def test_crash_while_macs_are_added_leaves_a_node_that_starts_again(seed: int) -> None:
    def node_before() -> Solo:
        solo = Solo(members_of("a", "b", "c"), compaction=CompactionPolicy(trigger_bytes=1, keep_bytes=0))
        solo.elect()
        solo.propose(b"one")
        solo.node.pump()
        solo.confirm()
        solo.run_background()
        solo.node.journal.sync()
        return solo

    solo = node_before()
    expected = (solo.entries, solo.node.journal.term, solo.node.journal.vote)
    for crash_in in range(1, 80):
        solo = node_before()
        marked: list[bool] = []
        solo.macs = FileMacs(MACS.key, is_required=False, established=functools.partial(marked.append, True))
        try:
            solo.restart(crash_in)
        except Crash:
            assert not marked
            solo.disk.cut_power(random.Random(seed))
            solo.restart()
            assert (solo.entries, solo.node.journal.term, solo.node.journal.vote) == expected
        else:
            assert marked
            break
        solo.macs = MACS
        solo.restart()
        assert (solo.entries, solo.node.journal.term, solo.node.journal.vote) == expected
    assert crash_in > 5
