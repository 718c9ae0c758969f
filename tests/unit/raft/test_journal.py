"""The journal keeps what it synced, drops what it may drop, and refuses what no crash can have left."""

import contextlib
import random
from collections.abc import Callable

import pytest

from cluster.raft.disk import RealDisk
from cluster.raft.journal import MAX_RECORD_BYTES, Entry, Journal, JournalDamaged, JournalFailed
from tests.sim.disk import SECTOR_BYTES, Crash, SimDisk

SEGMENT_1 = "data/wal/0000000000000001.wal"
SEGMENT_2 = "data/wal/0000000000000002.wal"
MANIFEST = "data/wal/manifest"


def opened(disk: SimDisk, segment_bytes: int = 1 << 20) -> Journal:
    return Journal(disk, "data/wal", segment_bytes=segment_bytes)


def command(log_index: int, size_bytes: int = 20) -> bytes:
    return (b"%d " % log_index).ljust(size_bytes, b".")


def entry(log_index: int, term: int = 1, size_bytes: int = 20) -> Entry:
    return Entry(command(log_index, size_bytes), log_index, term)


def append(journal: Journal, *entries: Entry) -> None:
    """One synced group."""
    for item in entries:
        journal.append(*item)
    journal.sync()


def filled(disk: SimDisk, last: int, segment_bytes: int = 1 << 20) -> Journal:
    """Entries 1 to `last`, a group each, after a term and a vote."""
    journal = opened(disk, segment_bytes)
    journal.set_term(3, "b")
    for log_index in range(1, last + 1):
        append(journal, entry(log_index))
    return journal


def contents(journal: Journal) -> tuple[list[Entry], int, str | None]:
    return list(journal.entries), journal.term, journal.vote


def segments(disk: SimDisk) -> list[str]:
    return [name for name in disk.list("data/wal") if name.endswith(".wal")]


def cut_to(disk: SimDisk, path: str, size_bytes: int) -> None:
    def cut(data: bytearray) -> None:
        del data[size_bytes:]

    disk.damage(path, cut)


def flip(disk: SimDisk, path: str, offset: int, mask: int) -> None:
    def change(data: bytearray) -> None:
        data[offset] ^= mask

    disk.damage(path, change)


# -- writing and reading back


def test_new_journal_is_empty() -> None:
    journal = opened(SimDisk())
    assert contents(journal) == ([], 0, None)
    assert not journal.is_dirty


def test_synced_entries_term_and_vote_are_there_after_a_power_cut() -> None:
    disk = SimDisk()
    journal = filled(disk, 5)
    before = contents(journal)
    disk.cut_power(random.Random(1))
    again = opened(disk)
    assert contents(again) == before == ([entry(index) for index in range(1, 6)], 3, "b")
    append(again, entry(6))
    disk.cut_power(random.Random(2))
    assert opened(disk).entries[-1] == entry(6)


def test_many_records_cost_one_sync() -> None:
    journal = opened(SimDisk())
    syncs = journal.syncs
    journal.set_term(1, None)
    append(journal, *(entry(index) for index in range(1, 101)))
    assert journal.syncs == syncs + 1
    journal.sync()  # nothing new
    assert journal.syncs == syncs + 1


def test_what_was_not_synced_is_dirty_and_may_be_lost() -> None:
    disk = SimDisk()
    journal = filled(disk, 1)
    journal.append(*entry(2))
    assert journal.is_dirty
    disk.cut_power(random.Random(1))
    assert opened(disk).entries[-1] == entry(1)


@pytest.mark.parametrize("vote", [None, "a", "node-with-a-long-name"])
def test_last_term_and_vote_count(vote: str | None) -> None:
    disk = SimDisk()
    journal = opened(disk)
    for term in range(1, 4):
        journal.set_term(term, "other")
    journal.set_term(4, vote)
    journal.sync()
    again = opened(disk)
    assert (again.term, again.vote) == (4, vote)


def test_same_term_and_vote_cost_nothing() -> None:
    journal = opened(SimDisk())
    journal.set_term(1, "a")
    journal.sync()
    journal.set_term(1, "a")
    assert not journal.is_dirty


def test_entry_that_does_not_follow_is_refused() -> None:
    journal = filled(SimDisk(), 3)
    for log_index in (3, 5):
        with pytest.raises(JournalFailed, match="does not follow"):
            journal.append(*entry(log_index))


def test_close_syncs() -> None:
    disk = SimDisk()
    journal = filled(disk, 1)
    journal.append(*entry(2))
    journal.close()
    disk.cut_power(random.Random(1))
    assert opened(disk).entries[-1] == entry(2)


def test_large_and_empty_commands_are_kept() -> None:
    disk = SimDisk()
    journal = opened(disk)
    large = Entry(b"x" * (1 << 20), 1, 1)
    append(journal, large, Entry(b"", 2, 1))
    assert list(opened(disk).entries) == [large, Entry(b"", 2, 1)]
    assert len(large.command) < MAX_RECORD_BYTES


# -- truncation and reset


def test_truncated_entries_are_gone_and_replaced() -> None:
    disk = SimDisk()
    journal = filled(disk, 5)
    journal.truncate_from(3)
    append(journal, entry(3, term=2), entry(4, term=2))
    expected = [entry(1), entry(2), entry(3, term=2), entry(4, term=2)]
    assert list(journal.entries) == expected
    assert list(opened(disk).entries) == expected


def test_truncation_behind_the_end_changes_nothing() -> None:
    journal = filled(SimDisk(), 5)
    journal.truncate_from(6)
    assert not journal.is_dirty


def test_reset_leaves_only_the_base() -> None:
    disk = SimDisk()
    journal = filled(disk, 5)
    journal.reset(entry(100, term=7))
    append(journal, entry(101, term=7))
    assert contents(opened(disk)) == ([entry(100, term=7), entry(101, term=7)], 3, "b")


def test_retained_bytes_are_those_of_the_commands_held() -> None:
    disk = SimDisk()
    journal = filled(disk, 10)

    def held(journal: Journal) -> int:
        return sum(len(item.command) for item in journal.entries)

    steps: list[Callable[[], None]] = [
        lambda: journal.truncate_from(8),
        lambda: journal.compact_to(4),
        lambda: append(journal, entry(8, size_bytes=500)),
        lambda: journal.reset(entry(50)),
    ]
    for step in steps:
        step()
        assert journal.retained_bytes == held(journal)
        journal.sync()
        assert opened(disk).retained_bytes == held(journal)


# -- segments and compaction


def test_segments_roll_and_read_back_as_one_log() -> None:
    disk = SimDisk()
    journal = filled(disk, 100, segment_bytes=1000)
    assert len(segments(disk)) > 3
    disk.cut_power(random.Random(1))
    assert contents(opened(disk, 1000)) == contents(journal)


def test_compaction_drops_entries_and_whole_segments() -> None:
    disk = SimDisk()
    journal = filled(disk, 100, segment_bytes=1000)
    before = segments(disk)
    journal.compact_to(60)
    assert journal.entries[0] == entry(60)
    left = segments(disk)
    assert left == before[-len(left) :]
    assert 1 < len(left) < len(before)
    disk.cut_power(random.Random(1))
    assert contents(opened(disk, 1000)) == ([entry(index) for index in range(60, 101)], 3, "b")


@pytest.mark.parametrize("base", range(1, 41))
def test_compaction_to_any_entry_reads_back_to_the_same(base: int) -> None:
    """Also with entries that were replaced by others across segments."""
    disk = SimDisk()
    journal = filled(disk, 30, segment_bytes=500)
    journal.truncate_from(15)
    for log_index in range(15, 41):
        append(journal, entry(log_index, term=4))
    journal.compact_to(base)
    expected = [entry(index, term=1 if index < 15 else 4) for index in range(base, 41)]
    assert list(journal.entries) == expected
    assert contents(opened(disk, 500)) == (expected, 3, "b")


@pytest.mark.parametrize("seed", range(10))
def test_power_cut_anywhere_in_a_compaction_leaves_a_journal_that_opens(seed: int) -> None:
    """Also where the file system makes the removals of files durable in another order."""
    for crash_in in range(1, 20):
        disk = SimDisk()
        journal = filled(disk, 40, segment_bytes=300)
        disk.crash_in = crash_in
        with contextlib.suppress(Crash):
            journal.compact_to(38)
        disk.cut_power(random.Random(seed))
        kept = list(opened(disk, 300).entries)
        assert kept[-3:] == [entry(38), entry(39), entry(40)]


def test_last_entry_is_never_compacted_away() -> None:
    journal = filled(SimDisk(), 5)
    journal.compact_to(100)
    assert list(journal.entries) == [entry(5)]


def test_compaction_to_what_is_the_base_already_does_nothing() -> None:
    journal = filled(SimDisk(), 5)
    syncs = journal.syncs
    journal.compact_to(1)
    assert journal.syncs == syncs


# -- torn writes


def last_group(disk: SimDisk, entries: list[Entry]) -> tuple[int, int]:
    """Write one more group to a journal of five; where it starts and ends."""
    journal = filled(disk, 5)
    start = len(disk.read(SEGMENT_1))
    append(journal, *entries)
    return start, len(disk.read(SEGMENT_1))


@pytest.mark.parametrize("sizes", [[20], [20, 30, 40], [600], [2000, 20, 700]], ids=str)
def test_torn_tail_is_cut_off_at_every_byte_of_the_last_group(sizes: list[int]) -> None:
    new = [entry(6 + number, size_bytes=size) for number, size in enumerate(sizes)]
    start, end = last_group(SimDisk(), new)
    for size in range(start, end):
        disk = SimDisk()
        last_group(disk, new)
        cut_to(disk, SEGMENT_1, size)
        journal = opened(disk)
        kept = list(journal.entries)
        # A prefix: whole records may stay, as the node that wrote them did not forget them either.
        assert kept == [*(entry(index) for index in range(1, 6)), *new][: len(kept)]
        assert len(kept) >= 5
        assert (journal.term, journal.vote) == (3, "b")
        # And from then on it is as good as any: what is added now is found again.
        append(journal, entry(len(kept) + 1, term=9))
        assert opened(disk).entries[-1] == entry(len(kept) + 1, term=9)


@pytest.mark.parametrize("sizes", [[600], [2000, 20, 700]], ids=str)
def test_sectors_of_the_last_group_that_were_never_written_are_cut_off(sizes: list[int]) -> None:
    new = [entry(6 + number, size_bytes=size) for number, size in enumerate(sizes)]
    start, end = last_group(SimDisk(), new)
    for sector in range(start - start % SECTOR_BYTES, end, SECTOR_BYTES):
        disk = SimDisk()
        last_group(disk, new)
        first, last = max(sector, start), min(sector + SECTOR_BYTES, end)
        disk.damage(SEGMENT_1, lambda data, a=first, b=last: data.__setitem__(slice(a, b), bytes(b - a)))  # type: ignore[misc]
        kept = list(opened(disk).entries)
        assert kept == [*(entry(index) for index in range(1, 6)), *new][: len(kept)]
        assert 5 <= len(kept) < 5 + len(new)


@pytest.mark.parametrize("seed", range(20))
def test_any_power_cut_keeps_every_synced_entry(seed: int) -> None:
    """What was not synced may be there in part, but never instead of what was."""
    rng = random.Random(seed)
    disk = SimDisk()
    log: list[Entry] = []
    for term in range(1, 9):
        journal = opened(disk, 1500)
        kept = list(journal.entries)
        assert kept[: len(log)] == log
        assert journal.term in (term - 1, term)
        log = kept
        journal.set_term(term, "v")
        for _ in range(rng.randint(0, 12)):
            log.append(entry(len(log) + 1, term, rng.randint(0, 900)))
            append(journal, log[-1])
        journal.sync()
        for extra in range(rng.randint(0, 3)):
            journal.append(*entry(len(log) + 1 + extra, term, 700))
        if rng.random() < 0.5:
            disk.crash_in = 2  # the write happens, the sync does not
            with pytest.raises(Crash):
                append(journal, entry(len(journal.entries) + 1, term))
        disk.cut_power(rng)


@pytest.mark.parametrize("seed", range(30))
def test_entries_read_after_a_kill_survive_the_power_cut_that_follows(seed: int) -> None:
    """They were in the page cache only; but the node has seen them again, and answers for them."""
    disk = SimDisk()
    journal = filled(disk, 5, segment_bytes=150)
    disk.crash_in = 2  # the write happens, the sync does not
    with pytest.raises(Crash):
        append(journal, entry(6))
    disk.kill()
    seen = contents(opened(disk))
    assert seen[0][-1] == entry(6)
    disk.cut_power(random.Random(seed))
    assert contents(opened(disk)) == seen


@pytest.mark.parametrize("then_power_cut", [False, True])
def test_crash_at_every_operation_of_a_disk_leaves_a_journal_that_opens(then_power_cut: bool) -> None:
    """Through the making of a journal, segments that roll, a compaction, and a second crash while recovering."""

    def work(disk: SimDisk, log: list[Entry]) -> None:
        journal = opened(disk, 300)
        log[:] = journal.entries
        journal.set_term(1, "a")
        journal.sync()
        for _ in range(12):
            log.append(entry(log[-1].log_index + 1 if log else 1, size_bytes=40))
            append(journal, log[-1])
        journal.compact_to(log[-3].log_index)

    total = SimDisk()
    work(total, [])
    for first in range(1, total.operations + 1):
        disk = SimDisk()
        log: list[Entry] = []
        for number, crash_in in enumerate((first, 3, 2, None)):
            disk.crash_in = crash_in
            try:
                work(disk, log)
            except Crash:
                disk.cut_power(random.Random(f"{first}/{number}")) if then_power_cut else disk.kill()
            kept = list(opened(disk, 300).entries)
            # All but the one that was being added, as far as the compaction had left them.
            acknowledged = [item for item in log[:-1] if kept and item.log_index >= kept[0].log_index]
            assert kept[: len(acknowledged)] == acknowledged
            assert len(acknowledged) >= min(2, len(log) - 1)
        assert opened(disk, 300).term == 1


# -- damage


@pytest.mark.parametrize("mask", [0x01, 0x80, 0xFF])
def test_flipped_byte_anywhere_is_refused_with_file_and_offset(mask: int) -> None:
    whole = SimDisk()
    filled(whole, 12)
    size = len(whole.read(SEGMENT_1))
    for offset in range(size):
        disk = SimDisk()
        filled(disk, 12)
        flip(disk, SEGMENT_1, offset, mask)
        with pytest.raises(JournalDamaged, match=rf"{SEGMENT_1}: .*offset \d+") as caught:
            opened(disk)
        told = int(str(caught.value).rsplit(" ", 1)[1])
        assert told <= offset


def test_byte_that_became_zero_is_refused() -> None:
    whole = SimDisk()
    filled(whole, 12)
    data = whole.read(SEGMENT_1)
    for offset in [offset for offset in range(len(data)) if data[offset]]:
        disk = SimDisk()
        filled(disk, 12)
        flip(disk, SEGMENT_1, offset, data[offset])
        with pytest.raises(JournalDamaged):
            opened(disk)


def test_flipped_byte_in_an_older_segment_is_refused() -> None:
    whole = SimDisk()
    filled(whole, 30, segment_bytes=500)
    for offset in range(0, len(whole.read(SEGMENT_2)), 7):
        disk = SimDisk()
        filled(disk, 30, segment_bytes=500)
        flip(disk, SEGMENT_2, offset, 0x10)
        with pytest.raises(JournalDamaged, match=SEGMENT_2):
            opened(disk)


def test_older_segment_that_ends_early_is_refused() -> None:
    whole = SimDisk()
    filled(whole, 30, segment_bytes=500)
    for size in range(0, len(whole.read(SEGMENT_2)), 7):
        disk = SimDisk()
        filled(disk, 30, segment_bytes=500)
        cut_to(disk, SEGMENT_2, size)
        with pytest.raises(JournalDamaged):
            opened(disk)


@pytest.mark.parametrize("name", ["middle", "newest"])
def test_missing_segment_is_refused(name: str) -> None:
    disk = SimDisk()
    filled(disk, 60, segment_bytes=500)
    found = segments(disk)
    missing = {"middle": found[2], "newest": found[-1]}[name]
    disk.unlink(f"data/wal/{missing}")
    with pytest.raises(JournalDamaged):
        opened(disk)


def test_lost_newest_segment_is_refused_and_not_taken_for_an_empty_journal() -> None:
    disk = SimDisk()
    filled(disk, 5)
    disk.unlink(SEGMENT_1)
    with pytest.raises(JournalDamaged, match="newest segment is missing"):
        opened(disk)


def test_segment_cut_to_nothing_is_refused() -> None:
    disk = SimDisk()
    filled(disk, 5)
    cut_to(disk, SEGMENT_1, 0)
    with pytest.raises(JournalDamaged):
        opened(disk)


def test_manifest_that_is_damaged_missing_or_old_is_refused() -> None:
    first = SimDisk()
    filled(first, 1)
    old = first.read(MANIFEST)
    for offset in range(len(old)):
        disk = SimDisk()
        filled(disk, 60, segment_bytes=500)
        flip(disk, MANIFEST, offset, 0x01)
        with pytest.raises(JournalDamaged, match="manifest"):
            opened(disk)
    disk.unlink(MANIFEST)
    with pytest.raises(JournalDamaged, match="manifest is missing"):
        opened(disk)
    disk.create(MANIFEST).write(old)
    with pytest.raises(JournalDamaged):
        opened(disk)


def test_records_moved_to_another_place_are_refused() -> None:
    """Sound records of a segment, but in the file of another."""
    disk = SimDisk()
    filled(disk, 60, segment_bytes=500)
    other = disk.read("data/wal/0000000000000003.wal")
    disk.damage(SEGMENT_2, lambda data: data.__setitem__(slice(None), other))
    with pytest.raises(JournalDamaged, match=f"{SEGMENT_2}: damaged record at offset 0"):
        opened(disk)


@pytest.mark.parametrize("content", [b"", b"\0" * 4096, b"garbage" * 100, b"\x80\x04\x95K\x05."])
def test_foreign_content_is_refused(content: bytes) -> None:
    disk = SimDisk()
    filled(disk, 5)
    disk.damage(SEGMENT_1, lambda data: data.__setitem__(slice(None), content))
    with pytest.raises(JournalDamaged):
        opened(disk)


# -- failing disks


def test_failing_sync_stops_and_says_where() -> None:
    disk = SimDisk()
    journal = filled(disk, 5)
    disk.sync_fails = True
    with pytest.raises(JournalFailed, match=SEGMENT_1):
        append(journal, entry(6))


@pytest.mark.parametrize("room_bytes", [0, 1, 13, 40])
def test_full_disk_stops_and_leaves_a_journal_that_opens(room_bytes: int) -> None:
    disk = SimDisk()
    journal = filled(disk, 5)
    disk.room_bytes = room_bytes
    with pytest.raises(JournalFailed, match="No space left"):
        append(journal, entry(6))
    disk.room_bytes = None
    disk.kill()
    assert list(opened(disk).entries)[:5] == [entry(index) for index in range(1, 6)]


def test_full_disk_while_a_segment_rolls_stops_and_leaves_a_journal_that_opens() -> None:
    for room_bytes in range(0, 600, 7):
        disk = SimDisk()
        journal = filled(disk, 3, segment_bytes=300)
        disk.room_bytes = room_bytes
        log_index = 4
        try:
            while True:
                append(journal, entry(log_index))
                log_index += 1
        except JournalFailed:
            pass
        disk.room_bytes = None
        disk.kill()
        kept = list(opened(disk, 300).entries)
        assert kept[: log_index - 1] == [entry(index) for index in range(1, log_index)]


def test_real_files_are_read_back(tmp_path: object) -> None:
    journal = Journal(RealDisk(), f"{tmp_path}/wal", segment_bytes=500)
    journal.set_term(2, "a")
    for log_index in range(1, 30):
        append(journal, entry(log_index))
    journal.compact_to(20)
    journal.close()
    again = Journal(RealDisk(), f"{tmp_path}/wal", segment_bytes=500)
    assert contents(again) == ([entry(index) for index in range(20, 30)], 2, "a")
    again.close()


# -- rewriting


@pytest.mark.parametrize("segment_bytes", [300, 1000, 1 << 20])
def test_rewritten_journal_reads_back_to_the_same_from_new_segments(segment_bytes: int) -> None:
    disk = SimDisk()
    journal = filled(disk, 30, segment_bytes)
    before, old = contents(journal), segments(disk)
    journal.rewrite()
    assert not set(old) & set(segments(disk))
    assert contents(journal) == before
    again = opened(disk, segment_bytes)
    assert contents(again) == before
    assert again.retained_bytes == journal.retained_bytes
    append(again, entry(31))
    assert list(opened(disk, segment_bytes).entries) == [*before[0], entry(31)]


@pytest.mark.parametrize("seed", range(5))
def test_power_cut_anywhere_in_a_rewrite_loses_nothing(seed: int) -> None:
    for crash_in in range(1, 60):
        disk = SimDisk()
        before = contents(journal := filled(disk, 20, segment_bytes=400))
        disk.crash_in = crash_in
        with contextlib.suppress(Crash):
            journal.rewrite()
        disk.cut_power(random.Random(seed))
        again = opened(disk, 400)
        assert contents(again) == before
        append(again, entry(21))  # behind half a copy
        assert list(opened(disk, 400).entries) == [*before[0], entry(21)]


@pytest.mark.parametrize("base", range(1, 31))
def test_compaction_behind_a_rewrite_and_a_restart_reads_back_to_the_same(base: int) -> None:
    """A copy is all or nothing: no part of it may go while another is needed."""
    disk = SimDisk()
    filled(disk, 30, segment_bytes=300).rewrite()
    journal = opened(disk, 300)
    for log_index in range(31, 41):
        append(journal, entry(log_index))
    journal.compact_to(base)
    assert list(opened(disk, 300).entries) == [entry(index) for index in range(base, 41)]
