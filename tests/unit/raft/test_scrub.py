"""Damage that is found while the node runs is healed from memory, and nothing is lost by it."""

import pytest

from cluster.raft.journal import JournalDamaged, SegmentPart, check_part
from cluster.raft.membership import Members
from tests.kit.solo import Solo
from tests.sim.cluster import members_of

ALONE: Members = members_of("a")


def wal_files(solo: Solo) -> list[str]:
    return [f"data/wal/{name}" for name in solo.disk.list("data/wal") if name.endswith(".wal")]


def leader_with(*commands: bytes) -> Solo:
    solo = Solo(ALONE)
    solo.advance(2.0)
    for command in commands:
        solo.propose(command)
        solo.advance(0.1)
        solo.advance(0.1)
    assert solo.is_leader()
    return solo


def scrub(solo: Solo) -> list[str]:
    found: list[list[str]] = []
    solo.node.scrub(found.append)
    solo.run_background()
    (damage,) = found
    return damage


def damage(solo: Solo, path: str, offset: int) -> None:
    def flip(data: bytearray) -> None:
        data[offset] ^= 0x40

    solo.disk.damage(path, flip)


def test_sound_files_are_left_alone() -> None:
    solo = leader_with(b"one", b"two")
    before = {path: solo.disk.read(path) for path in wal_files(solo)}
    assert scrub(solo) == []
    assert {path: solo.disk.read(path) for path in wal_files(solo)} == before
    assert solo.node.compactions == 0


@pytest.mark.parametrize("offset", [3, 60, -3])
def test_a_damaged_segment_is_named_and_replaced_and_the_node_starts_again(offset: int) -> None:
    solo = leader_with(b"one", b"two")
    (path,) = wal_files(solo)
    damage(solo, path, offset)
    found = scrub(solo)
    assert len(found) == 1
    assert path in found[0]
    assert "offset" in found[0]
    assert path not in wal_files(solo)
    assert scrub(solo) == []
    entries, term, vote = solo.entries, solo.node.journal.term, solo.node.journal.vote
    solo.restart()
    assert solo.entries == entries
    assert (solo.node.journal.term, solo.node.journal.vote) == (term, vote)


def test_a_damaged_snapshot_is_written_again() -> None:
    solo = leader_with(b"one", b"two")
    solo.node.compact()
    solo.run_background()
    solo.propose(b"three")
    solo.advance(0.1)
    solo.advance(0.1)
    damage(solo, "data/snapshot", 20)
    (found,) = scrub(solo)
    assert "data/snapshot" in found
    assert scrub(solo) == []
    solo.restart()


def test_a_long_journal_is_rewritten_into_several_segments() -> None:
    solo = leader_with(*(b"%d" % number + bytes(1 << 18) for number in range(20)))
    paths = wal_files(solo)
    assert len(paths) > 1
    damage(solo, paths[0], 1000)
    assert len(scrub(solo)) == 1
    assert not set(paths) & set(wal_files(solo))
    entries = solo.entries
    solo.restart()
    assert solo.entries == entries


def test_what_is_not_synced_yet_is_not_judged() -> None:
    solo = leader_with(b"one")
    solo.node.journal.append(b"\x00pending", solo.last.log_index + 1, solo.node.core.term)
    assert solo.node.journal.synced_parts() == []


def test_a_removed_segment_is_no_damage() -> None:
    solo = leader_with(b"one")
    with pytest.raises(FileNotFoundError):
        check_part(solo.disk, SegmentPart("data/wal/none.wal", 9, None))


def test_a_record_from_another_place_is_damage() -> None:
    solo = leader_with(b"one")
    (path,) = wal_files(solo)
    with pytest.raises(JournalDamaged, match="offset 0"):
        check_part(solo.disk, SegmentPart(path, 2, None))
