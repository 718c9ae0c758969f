"""The snapshot file: whole and sound, or refused; replaced at once or not at all."""

import random
import struct
import tracemalloc
import zlib
from dataclasses import replace

import msgpack
import pytest

from cluster.raft import snapshot as snapshots
from cluster.raft.membership import Member
from cluster.raft.snapshot import MAX_HEAD_BYTES, Snapshot, SnapshotDamaged, SnapshotFile, decode
from tests.sim.disk import Crash, SimDisk

PATH = "data/snapshot"
OLD = Snapshot(10, 2, (Member("a", "a:1", "a:2"), Member("b", "b:1", "b:2", is_voter=False)), b"old state")
NEW = Snapshot(20, 3, (), b"new state" * 300)


def saved(*versions: Snapshot) -> SimDisk:
    disk = SimDisk()
    for version in versions:
        SnapshotFile(disk, PATH).save(version)
    return disk


def loaded(disk: SimDisk) -> Snapshot | None:
    return SnapshotFile(disk, PATH).load()


@pytest.mark.parametrize("version", [OLD, NEW, Snapshot(0, 0, (), b"")], ids=["members", "none", "empty"])
def test_snapshot_is_read_back(version: Snapshot) -> None:
    assert loaded(saved(version)) == version
    assert snapshots.decode(version.encode()) == version


def test_snapshot_with_keys_and_removed_names_is_read_back() -> None:
    keyed = tuple(replace(member, keys=(bytes([number]) * 72,)) for number, member in enumerate(OLD.members))
    for version in (
        replace(OLD, members=keyed),
        replace(OLD, members=keyed[:1], removed=frozenset({"b", "c"})),
        replace(OLD, members=(replace(keyed[0], keys=(b"o" * 72, b"n" * 72)), OLD.members[1])),
    ):
        assert loaded(saved(version)) == version


def test_snapshot_without_keys_is_written_as_the_release_before_reads_it() -> None:
    head = OLD.encode()[20:-13]
    assert msgpack.unpackb(head) == [1, 10, 2, [["a", "a:1", "a:2", True], ["b", "b:1", "b:2", False]]]


@pytest.mark.parametrize("keys", [[b"short"], b"k" * 72, ["k" * 72], 3 * [b"k" * 72], None])
def test_keys_of_a_wrong_form_are_refused(keys: object) -> None:
    head = msgpack.packb([2, 10, 2, [["a", "a:1", "a:2", True, keys]], []])
    body = b"QCASNAP1" + struct.pack("<IQ", len(head), 0) + head
    with pytest.raises(SnapshotDamaged, match="bad head"):
        snapshots.decode(body + struct.pack("<I", zlib.crc32(body)))


def test_no_snapshot_yet_is_none() -> None:
    assert loaded(SimDisk()) is None


def test_saved_snapshot_survives_a_power_cut() -> None:
    disk = saved(OLD, NEW)
    disk.cut_power(random.Random(1))
    assert loaded(disk) == NEW


@pytest.mark.parametrize("seed", range(5))
def test_crash_at_every_operation_leaves_the_old_or_the_new_one_whole(seed: int) -> None:
    disk = saved(OLD)
    before = disk.operations
    SnapshotFile(disk, PATH).save(NEW)
    found = set()
    for crash_in in range(1, disk.operations - before + 1):
        disk = saved(OLD)
        disk.crash_in = crash_in
        with pytest.raises(Crash):
            SnapshotFile(disk, PATH).save(NEW)
        disk.cut_power(random.Random(seed))
        snapshot = loaded(disk)
        assert snapshot in (OLD, NEW)
        found.add(snapshot == NEW)
        # What was left lying about does not disturb the next one.
        SnapshotFile(disk, PATH).save(NEW)
        assert loaded(disk) == NEW
    assert False in found


@pytest.mark.parametrize("seed", range(20))
def test_snapshot_that_was_seen_after_a_kill_survives_the_power_cut_that_follows(seed: int) -> None:
    """The log may have been cut to follow it meanwhile."""
    disk = saved(OLD)
    before = disk.operations
    SnapshotFile(disk, PATH).save(NEW)
    operations = disk.operations - before
    disk = saved(OLD)
    disk.crash_in = operations  # all done but the last, which makes the renaming durable
    with pytest.raises(Crash):
        SnapshotFile(disk, PATH).save(NEW)
    disk.kill()
    assert loaded(disk) == NEW
    disk.cut_power(random.Random(seed))
    assert loaded(disk) == NEW


def test_flipped_byte_anywhere_is_refused() -> None:
    data = OLD.encode()
    for offset in range(len(data)):
        for mask in (0x01, 0xFF):
            damaged = bytearray(data)
            damaged[offset] ^= mask
            with pytest.raises(SnapshotDamaged):
                snapshots.decode(bytes(damaged))


def test_snapshot_cut_anywhere_or_with_a_tail_is_refused() -> None:
    data = OLD.encode()
    for size in range(len(data)):
        with pytest.raises(SnapshotDamaged):
            snapshots.decode(data[:size])
    with pytest.raises(SnapshotDamaged):
        snapshots.decode(data + b"\0")


def test_damaged_file_is_refused_by_name() -> None:
    disk = saved(OLD)
    disk.damage(PATH, lambda data: data.__setitem__(20, data[20] ^ 1))
    with pytest.raises(SnapshotDamaged, match=PATH):
        loaded(disk)


def sealed(head: object, state: bytes = b"") -> bytes:
    """A file with right lengths and checksum around any head."""
    packed: bytes = msgpack.packb(head)
    body = b"QCASNAP1" + len(packed).to_bytes(4, "little") + len(state).to_bytes(8, "little") + packed + state
    return body + zlib.crc32(body).to_bytes(4, "little")


def test_head_made_by_hand_is_accepted_when_it_is_right() -> None:
    assert snapshots.decode(sealed([1, 5, 2, [["a", "a:1", "a:2", True]]], b"s")).log_index == 5


@pytest.mark.parametrize(
    "head",
    [
        [2, 5, 2, []],  # a newer version
        [1, 5, 2],
        [1, "5", 2, []],
        [1, True, 2, []],
        [1, 5, None, []],
        [1, 5, 2, [["a", "a:1", "a:2", 1]]],
        [1, 5, 2, [["a", "a:1", b"a:2", True]]],
        [1, 5, 2, [["a", "a:1", True]]],
        [1, 5, 2, 7],
        7,
        {},
    ],
)
def test_head_of_another_form_is_refused(head: object) -> None:
    with pytest.raises(SnapshotDamaged):
        snapshots.decode(sealed(head))


def test_head_that_is_no_msgpack_is_refused() -> None:
    body = b"QCASNAP1" + (3).to_bytes(4, "little") + (0).to_bytes(8, "little") + b"\xc1\xc1\xc1"
    with pytest.raises(SnapshotDamaged):
        snapshots.decode(body + zlib.crc32(body).to_bytes(4, "little"))


def test_full_disk_keeps_the_old_one() -> None:
    for room_bytes in (0, 1, 100):
        disk = saved(OLD)
        disk.room_bytes = room_bytes
        with pytest.raises(OSError, match="No space"):
            SnapshotFile(disk, PATH).save(NEW)
        assert loaded(disk) == OLD


@pytest.mark.parametrize("piece", [b"\x90", b"\x91\x90", b"\x80", b"\xa0"], ids=["lists", "deep", "maps", "texts"])
@pytest.mark.parametrize("size", [MAX_HEAD_BYTES - 100, 8 << 20])
def test_head_that_is_refused_takes_up_little_more_than_itself(piece: bytes, size: int) -> None:
    """It comes from another node, too."""
    pieces = size // len(piece)
    head = b"\x94\x01\x02\x03\xdd" + pieces.to_bytes(4, "big") + piece * pieces
    body = b"QCASNAP1" + struct.pack("<IQ", len(head), 0) + head
    data = body + zlib.crc32(body).to_bytes(4, "little")
    tracemalloc.start()
    try:
        with pytest.raises(SnapshotDamaged, match="bad head"):
            decode(data)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < len(data) + (2 << 20)


def test_head_of_many_members_and_removed_names_is_read_back() -> None:
    members = tuple(Member(f"{number:063}", "h" * 250, "r" * 250, True, (b"k" * 72,) * 2) for number in range(100))
    many = Snapshot(9, 2, members, b"state", frozenset(f"{number:063}" for number in range(5000)))
    assert decode(many.encode()) == many


@pytest.mark.parametrize(("size", "why"), [(MAX_HEAD_BYTES, "more than"), (MAX_HEAD_BYTES + 1, "there may be")])
def test_head_longer_than_any_is_refused_by_its_length(size: int, why: str) -> None:
    body = b"QCASNAP1" + struct.pack("<IQ", size, 0) + b"\xdd" + (size - 5).to_bytes(4, "big") + b"\xc0" * (size - 5)
    with pytest.raises(SnapshotDamaged, match=f"bad head: .*{why}"):
        decode(body + zlib.crc32(body).to_bytes(4, "little"))
