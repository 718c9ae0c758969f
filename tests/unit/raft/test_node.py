"""One node put together: starting, proposing, compacting, catching up, and the order of disk and network."""

import errno
import random
from dataclasses import replace
from typing import Any

import msgpack
import pytest

from cluster.raft import codec
from cluster.raft.journal import JournalDamaged, JournalFailed
from cluster.raft.membership import ChangeKind, MembershipChange, learner
from cluster.raft.node import (
    ENTRIES_IN_FLIGHT,
    MAX_BATCH_COMMANDS,
    MAX_QUEUED_COMMANDS,
    CompactionPolicy,
    Outcome,
    Proposal,
)
from cluster.raft.snapshot import Snapshot, SnapshotDamaged, SnapshotFile
from tests.kit.solo import NO_COMPACTION, TIMING, Solo, batch, no_op
from tests.sim.cluster import member, members_of
from tests.sim.disk import Crash, SimDisk
from tests.sim.machine import ListState, encoded


def state_of(*commands: bytes) -> bytes:
    state = ListState()
    for command in commands:
        state = state.after(command)
    return encoded(state)


def leader_with(*commands: bytes, compaction: CompactionPolicy = NO_COMPACTION) -> Solo:
    """A leader that has committed these."""
    solo = Solo(compaction=compaction)
    solo.elect()
    for command in commands:
        result = solo.propose(command)
        solo.node.pump()
        solo.confirm()
        assert isinstance(result[0], int)
    solo.take()
    return solo


# -- starting


def test_crash_at_every_operation_of_the_first_start_leaves_a_node_that_starts() -> None:
    for then_power_cut in (False, True):
        for crash_in in range(1, 40):
            disk = SimDisk()
            disk.crash_in = crash_in
            try:
                Solo(disk=disk)
            except Crash:
                disk.cut_power(random.Random(crash_in)) if then_power_cut else disk.kill()
            disk.crash_in = None
            solo = Solo(disk=disk)
            assert solo.node.guard.is_fresh
            solo.elect()


def test_restarted_node_has_its_log_term_and_vote_and_applies_nothing_unproved() -> None:
    solo = leader_with(b"one", b"two")
    term, entries = solo.node.core.term, solo.entries
    solo.restart()
    assert (solo.entries, solo.node.core.term, solo.node.journal.vote) == (entries, term, "a")
    assert (solo.commit, solo.node.core.applied_index) == (1, 1)


def test_restarted_node_starts_from_its_snapshot() -> None:
    solo = leader_with(b"one", b"two")
    solo.node.compact()
    solo.run_background()
    solo.restart()
    assert (solo.commit, solo.node.core.applied_index) == (4, 4)
    assert solo.machine.state.position == 2


def test_log_without_the_snapshot_it_follows_is_refused() -> None:
    solo = leader_with(b"one", b"two")
    solo.node.compact()
    solo.run_background()
    assert solo.entries[0].log_index > 1
    solo.disk.unlink("data/snapshot")
    with pytest.raises(JournalDamaged, match="no snapshot"):
        solo.restart()


def test_snapshot_without_its_log_is_refused_and_still_is_at_the_next_start() -> None:
    """It would forget its vote and what it acknowledged since the snapshot, and not count as a new disk."""
    solo = leader_with(b"one", b"two")
    solo.node.compact()
    solo.run_background()
    for name in solo.disk.list("data/wal"):
        solo.disk.unlink(f"data/wal/{name}")
    for _ in range(2):
        with pytest.raises(JournalDamaged, match="data/wal: the log is missing beside the snapshot"):
            solo.restart()
        assert solo.disk.list("data/wal") == []


def test_log_that_starts_behind_the_snapshot_is_refused() -> None:
    solo = leader_with(b"one", b"two", b"three")
    solo.node.compact()
    solo.run_background()
    SnapshotFile(solo.disk, "data/snapshot").save(Snapshot(2, 1, (), state_of()))
    with pytest.raises(JournalDamaged, match="behind the snapshot"):
        solo.restart()


def test_damaged_snapshot_is_refused() -> None:
    """S9: PySyncObj would go on with an empty state and a full vote."""
    solo = leader_with(b"one")
    solo.node.compact()
    solo.run_background()
    solo.disk.damage("data/snapshot", lambda data: data.__setitem__(30, data[30] ^ 1))
    with pytest.raises(SnapshotDamaged, match="data/snapshot"):
        solo.restart()


def test_members_are_those_at_the_end_of_the_log_whatever_the_start_says() -> None:
    """R11: the command line of three days ago must not decide who votes."""
    solo = leader_with()
    solo.node.change_membership(MembershipChange(ChangeKind.LEARN, member("d")), lambda _: None)
    solo.node.pump()
    expected = {**members_of("a", "b", "c"), "d": learner(member("d"))}
    solo.restart()
    assert solo.node.core.members == expected
    solo.elect()
    solo.node.compact()
    solo.run_background()
    solo.members = members_of("a", "x")
    solo.restart()
    assert solo.node.core.members == expected


# -- following a change of members


def test_change_that_is_taken_back_leaves_the_members_as_they_were() -> None:
    solo = Solo()
    change = codec.pack_change(MembershipChange(ChangeKind.REMOVE, member("c")))
    solo.append("b", 1, (1, 0), no_op(2, 1), (bytes([codec.MEMBERSHIP]) + change, 3, 1))  # type: ignore[arg-type]
    assert set(solo.node.core.members) == {"a", "b"}
    solo.clock.advance(TIMING.election_min)  # b is silent
    solo.append("c", 2, (2, 1), no_op(3, 2))
    assert solo.node.core.members == members_of("a", "b", "c")


def test_snapshot_carries_the_members_as_of_its_entry() -> None:
    """A change behind it may still be taken back."""
    solo = leader_with(b"one")
    solo.node.change_membership(MembershipChange(ChangeKind.LEARN, member("d")), lambda _: None)
    solo.node.pump()
    solo.node.compact()
    solo.run_background()
    snapshot = SnapshotFile(solo.disk, "data/snapshot").load()
    assert snapshot is not None
    assert {member.id: member for member in snapshot.members} == members_of("a", "b", "c")


# -- learners


def is_voter(solo: Solo, member_id: str) -> bool:
    return solo.node.core.members[member_id].is_voter


def test_learner_that_has_caught_up_becomes_a_voter() -> None:
    solo = leader_with(*(b"%d" % number for number in range(100)))
    solo.node.change_membership(MembershipChange(ChangeKind.LEARN, member("d")), lambda _: None)
    solo.node.pump()
    solo.node.link_up("d")
    solo.confirm()
    assert not is_voter(solo, "d")
    solo.answer("d", 20)  # too far behind
    solo.confirm()
    assert not is_voter(solo, "d")
    solo.confirm("d")
    solo.node.pump()
    assert is_voter(solo, "d")


def test_learner_that_never_answered_stays_one_however_short_the_log() -> None:
    """It may not even run: as a voter it would only raise the majority."""
    solo = leader_with()
    solo.node.change_membership(MembershipChange(ChangeKind.LEARN, member("d")), lambda _: None)
    solo.node.pump()
    for _ in range(10):
        solo.confirm()
    assert not is_voter(solo, "d")


def test_learner_does_not_count_for_commits() -> None:
    solo = leader_with()
    solo.node.change_membership(MembershipChange(ChangeKind.LEARN, member("d")), lambda _: None)
    solo.node.pump()
    before = solo.commit
    solo.answer("d", solo.last.log_index + 1)
    solo.node.pump()
    assert solo.commit == before


def test_learner_never_campaigns() -> None:
    solo = Solo({"a": learner(member("a")), "b": member("b")})
    for _ in range(100):
        solo.advance(0.1)
    assert solo.sent == []


def test_promotion_cut_short_by_a_snapshot_can_be_tried_again() -> None:
    solo = leader_with()
    solo.node.change_membership(MembershipChange(ChangeKind.LEARN, member("d")), lambda _: None)
    solo.node.pump()
    solo.node.link_up("d")
    solo.confirm()
    solo.confirm("d")
    solo.node.pump()
    assert is_voter(solo, "d")  # in the log, not committed
    term = solo.node.core.term
    members = (*members_of("a", "b", "c").values(), learner(member("d")))
    install(solo, "b", term + 1, Snapshot(50, term + 1, members, state_of()))
    assert not is_voter(solo, "d")
    solo.elect()
    solo.node.link_up("d")
    solo.confirm("d")
    solo.confirm("b")
    solo.node.pump()
    assert is_voter(solo, "d")


# -- proposals


def test_proposals_that_wait_share_entries() -> None:
    solo = leader_with()
    results = [solo.propose(b"%d" % number) for number in range(MAX_BATCH_COMMANDS + 10)]
    before = solo.last.log_index
    solo.node.pump()
    assert solo.last.log_index == before + 2
    solo.confirm()
    assert [result[0] for result in results] == list(range(1, MAX_BATCH_COMMANDS + 11))


def test_few_entries_are_in_flight_and_the_rest_waits() -> None:
    solo = leader_with()
    before = solo.last.log_index
    for number in range(ENTRIES_IN_FLIGHT + 3):
        solo.propose(b"%d" % number)
        solo.node.pump()
    assert solo.last.log_index == before + ENTRIES_IN_FLIGHT
    solo.confirm()
    assert solo.last.log_index == before + ENTRIES_IN_FLIGHT + 1  # all that waited, in one


def test_queue_is_bounded() -> None:
    solo = leader_with()
    results = [solo.propose(b"x") for _ in range(MAX_QUEUED_COMMANDS + 1)]
    assert results[-1] == [Outcome.OVERLOADED]
    assert results[-2] == []


def test_cancelled_proposal_is_not_made() -> None:
    solo = leader_with()
    proposal = Proposal(b"x", lambda _: None)
    proposal.is_cancelled = True
    before = solo.last
    solo.node.propose(proposal)
    solo.node.pump()
    assert solo.last == before
    solo.node.pump()


def test_proposal_is_marked_before_it_is_asked_whether_it_was_cancelled() -> None:
    """The other thread cancels first and looks at the mark then: one of the two sees the other."""

    class Watched(Proposal):
        seen: bool | None = None

        @property
        def is_cancelled(self) -> bool:
            self.seen = self.is_in_log
            return False

        @is_cancelled.setter
        def is_cancelled(self, value: bool) -> None: ...

    solo = leader_with()
    proposal = Watched(b"x", lambda _: None)
    solo.node.propose(proposal)
    solo.node.pump()
    assert proposal.seen is True


def test_command_that_no_entry_can_hold_is_refused() -> None:
    """Followers would refuse the entry, for ever, and with it everything behind it."""
    solo = leader_with()
    result = solo.propose(b"x" * codec.MAX_COMMAND_BYTES)
    solo.node.pump()
    assert result == [Outcome.TOO_LARGE]


def test_largest_commands_that_are_taken_fit_into_an_entry() -> None:
    solo = leader_with()
    for _ in range(3):
        solo.propose(b"x" * (codec.MAX_COMMAND_BYTES // 2))
    solo.propose(b"y" * 1000)
    solo.node.pump()
    assert all(len(entry.command) <= codec.MAX_COMMAND_BYTES for entry in solo.entries)
    assert solo.take(kind="append_entries")  # Solo.send checks that peers accept them


def test_entry_of_an_unknown_format_stops_the_node_at_once() -> None:
    """S6: skipped on one node it would split the state; PySyncObj would try it again for ever."""
    solo = Solo()
    with pytest.raises(codec.MessageInvalid):
        solo.append("b", 1, (1, 0), (b"\0\xc1", 2, 1), commit=2)  # type: ignore[arg-type]


# -- disk before network


def test_nothing_that_depends_on_the_disk_leaves_before_it_is_synced() -> None:
    solo = Solo()
    solo.disk.sync_fails = True
    with pytest.raises(JournalFailed):
        solo.append("b", 1, (1, 0), no_op(2, 1))
    assert solo.sent == []


def test_leader_sends_entries_before_its_own_sync_and_counts_itself_behind_it() -> None:
    solo = leader_with()
    solo.disk.sync_fails = True
    result = solo.propose(b"x")
    with pytest.raises(JournalFailed):
        solo.node.pump()
    assert [len(message["entries"]) for message in solo.take("b", "append_entries")][-1] == 1
    assert result == []


def test_single_node_counts_its_first_entry_behind_the_sync_only() -> None:
    solo = Solo(members_of("a"))
    solo.disk.sync_fails = True
    with pytest.raises(JournalFailed):
        solo.advance(2)
    assert solo.commit == 1


def test_slow_peer_is_not_sent_more_than_the_window() -> None:
    solo = leader_with()
    solo.unread["c"] = 100 << 20
    for number in range(5):
        solo.propose(b"%d" % number)
        solo.node.pump()
        solo.confirm()
    solo.take()
    solo.answer("c", 2, success=False, reset=True, epoch=solo.epoch("c"))
    solo.heartbeat()
    assert len(solo.take("c", "append_entries")) == 1


# -- compaction


def test_compaction_saves_a_snapshot_and_drops_the_entries_before_it() -> None:
    solo = leader_with(*(b"%d" % number for number in range(20)))
    solo.node.compact()
    assert solo.entries[0].log_index == 1  # nothing before the snapshot is safe
    solo.run_background()
    assert [entry.log_index for entry in solo.entries] == [solo.node.core.applied_index]
    assert solo.node.compactions == 1
    solo.node.compact()  # nothing new
    assert solo.background == []


def on_disk(solo: Solo) -> bytes:
    """The log; the test's machine keeps all commands in its snapshots."""
    return b"".join(solo.disk.read(f"data/wal/{name}") for name in solo.disk.list("data/wal"))


def test_purge_leaves_nothing_of_before_on_the_disk() -> None:
    """Else whoever has a key that was changed, and a copy of the disk, goes on reading what it was changed for."""
    solo = leader_with(b"what was sealed before", b"more of it", compaction=CompactionPolicy(keep_bytes=1 << 20))
    done: list[bool] = []
    solo.node.purge(done.append)
    solo.node.purge(done.append)
    assert done == [False]  # one is under way
    solo.propose(b"what came meanwhile")
    solo.node.pump()
    solo.confirm()
    solo.run_background()
    assert done == [False, True]
    assert b"what was sealed before" not in on_disk(solo)
    assert b"what came meanwhile" in on_disk(solo)


def test_purge_drops_what_a_compaction_has_kept() -> None:
    solo = leader_with(b"what was sealed before", b"more of it", compaction=CompactionPolicy(keep_bytes=1 << 20))
    solo.node.compact()
    solo.run_background()
    assert b"what was sealed before" in on_disk(solo)
    done: list[bool] = []
    solo.node.purge(done.append)
    assert done == [True]
    assert b"what was sealed before" not in on_disk(solo)


def test_purge_on_a_full_disk_is_not_done() -> None:
    solo = leader_with(b"what was sealed before", b"more of it")
    done: list[bool] = []
    solo.node.purge(done.append)
    _, finish = solo.background.pop()
    finish(OSError(errno.ENOSPC, "no space"))
    assert done == [False]
    assert b"what was sealed before" in on_disk(solo)


def test_compaction_is_due_behind_so_many_entries_too() -> None:
    solo = leader_with(*(b"%d" % number for number in range(8)), compaction=CompactionPolicy(trigger_entries=10))
    solo.node.pump()
    assert solo.background == []
    for number in range(2):
        solo.propose(b"more %d" % number)
        solo.node.pump()
        solo.confirm()
    assert len(solo.background) == 1
    solo.run_background()
    solo.node.pump()
    assert solo.background == []


@pytest.mark.parametrize(
    "shortage",
    [OSError(number, "") for number in (errno.ENOSPC, errno.EDQUOT, errno.EMFILE, errno.ENFILE, errno.ENOMEM)]
    + [MemoryError()],
)
def test_compaction_that_lacks_something_drops_nothing_and_is_tried_again_later(shortage: Exception) -> None:
    solo = leader_with(b"one", b"two", compaction=CompactionPolicy(trigger_entries=2))
    entries = solo.entries
    solo.node.pump()
    _, done = solo.background.pop()
    done(shortage)
    assert solo.entries == entries
    solo.node.pump()
    assert solo.background == []
    solo.advance(6)
    solo.run_background()
    assert solo.node.compactions == 1


def test_compaction_whose_sync_failed_stops_the_node() -> None:
    solo = leader_with(b"one", b"two")
    solo.node.compact()
    _, done = solo.background.pop()
    with pytest.raises(JournalFailed, match="Input/output error"):
        done(OSError(errno.EIO, "Input/output error"))


# -- catching up by snapshot


def pull(solo: Solo, leader: str, snapshot: Snapshot, rows: bytes) -> None:
    """Serve what the node asks for, until it asks no more."""
    data = snapshot.encode()
    for _ in range(100):
        asked = [message for message in solo.take(leader) if message["type"] in ("pull_snapshot", "pull_bulk")]
        if not asked:
            return
        question = asked[-1]
        if question["type"] == "pull_snapshot":
            offset = question["offset"]
            part = {"offset": offset, "total": len(data), "data": data[offset : offset + 100]}
            solo.feed(leader, "snapshot_part", log_index=snapshot.log_index, **part)
        else:
            part = {"after": question["after"], "data": rows, "is_last": True}
            solo.feed(leader, "bulk_part", log_index=snapshot.log_index, **part)
    raise AssertionError("asks for ever")


def offer(solo: Solo, leader: str, term: int, log_index: int, epoch: int = 0) -> None:
    solo.feed(leader, "offer_snapshot", term=term, log_index=log_index, epoch=epoch)


def install(solo: Solo, leader: str, term: int, snapshot: Snapshot, rows: bytes = b"\x92\x00\x90") -> None:
    offer(solo, leader, term, snapshot.log_index)
    pull(solo, leader, snapshot, rows)
    assert solo.node.core.applied_index == snapshot.log_index


def packed_rows(*commands: bytes) -> bytes:
    data: bytes = msgpack.packb([0, [(9, command) for command in commands]])
    return data


ABC = tuple(members_of("a", "b", "c").values())
AT_50 = Snapshot(50, 1, ABC, state_of(b"one", b"two"))


def test_offered_snapshot_is_pulled_and_replaces_log_and_state() -> None:
    solo = Solo()
    solo.append("b", 1, (1, 0), batch(2, 1), batch(3, 1))
    install(solo, "b", 2, AT_50, packed_rows(b"one", b"two"))
    assert [(entry.log_index, entry.term) for entry in solo.entries] == [(50, 1)]
    assert (solo.machine.state.position, solo.commands) == (2, [b"one", b"two"])
    solo.restart()
    assert (solo.node.core.applied_index, solo.machine.state.position) == (50, 2)
    solo.append("b", 2, (50, 1), no_op(51, 2), commit=51)
    assert solo.commit == 51


def test_node_with_a_new_disk_is_not_up_to_date_by_a_snapshot_alone() -> None:
    """In its earlier life it may have acknowledged what is committed behind the snapshot (G7)."""
    solo = Solo()
    install(solo, "b", 2, AT_50, packed_rows(b"one", b"two"))
    assert solo.node.guard.is_fresh
    solo.append("b", 2, (50, 1), commit=50)
    assert solo.node.guard.is_fresh  # the leader has committed nothing of its own term yet
    solo.append("b", 2, (50, 1), no_op(51, 2), commit=52)
    assert solo.node.guard.is_fresh
    solo.append("b", 2, (51, 2), batch(52, 2), commit=52)
    assert not solo.node.guard.is_fresh


def test_snapshot_of_all_that_is_committed_brings_a_new_disk_up_to_date() -> None:
    solo = Solo()
    install(solo, "b", 1, AT_50, packed_rows(b"one", b"two"))
    solo.append("b", 1, (50, 1), commit=50)
    assert not solo.node.guard.is_fresh


def test_crash_at_every_operation_of_an_installation_leaves_a_node_that_starts() -> None:
    for crash_in in range(1, 25):
        solo = Solo()
        solo.append("b", 1, (1, 0), batch(2, 1), batch(3, 1), commit=2)
        solo.disk.crash_in = crash_in
        try:
            install(solo, "b", 2, AT_50, packed_rows(b"2@1", b"two"))
        except (Crash, AssertionError):
            solo.disk.cut_power(random.Random(crash_in))
        solo.restart()
        assert solo.node.core.applied_index in (1, 50)
        assert solo.node.core.term in (1, 2)


def test_answer_to_an_installed_snapshot_is_repeated_when_it_was_lost() -> None:
    """Otherwise the leader would offer it for ever, and the node would not look at it any more."""
    solo = Solo()
    install(solo, "b", 1, AT_50, packed_rows(b"one", b"two"))
    solo.take()
    offer(solo, "b", 1, 50, epoch=3)
    (answer,) = solo.take("b", "next_node_idx")
    assert (answer["next_node_idx"], answer["success"], answer["reset"], answer["epoch"]) == (51, True, True, 3)


def test_older_snapshot_is_not_wanted() -> None:
    """R8."""
    solo = leader_with(b"one", b"two")
    term = solo.node.core.term
    offer(solo, "b", term + 1, 3)
    assert solo.take(kind="pull_snapshot") == []
    assert solo.commands == [b"one", b"two"]


def test_damaged_snapshot_is_given_up_and_asked_for_again() -> None:
    """S9: it was answered as a success, and counted for commits."""
    solo = Solo()
    offer(solo, "b", 1, 50)
    solo.take()
    data = bytearray(AT_50.encode())
    data[-10] ^= 1
    solo.feed("b", "snapshot_part", log_index=50, offset=0, total=len(data), data=bytes(data))
    assert solo.node.core.applied_index == 1
    assert solo.take(kind="next_node_idx") == []
    assert "snapshot.refused" in solo.log.names()
    install(solo, "b", 1, AT_50, packed_rows(b"one", b"two"))


@pytest.mark.parametrize("rows", [b"", b"\xc1", b"\x92\x05\x90", b"\x90"])
def test_bulk_data_that_does_not_fit_is_given_up(rows: bytes) -> None:
    solo = Solo()
    offer(solo, "b", 1, 50)
    data = AT_50.encode()
    solo.feed("b", "snapshot_part", log_index=50, offset=0, total=len(data), data=data)
    solo.feed("b", "bulk_part", log_index=50, after=0, data=rows, is_last=True)
    assert solo.node.core.applied_index == 1
    assert "snapshot.refused" in solo.log.names()


def test_parts_from_anybody_but_the_leader_are_ignored() -> None:
    solo = Solo()
    offer(solo, "b", 1, 50)
    solo.take()
    data = AT_50.encode()
    for peer in "cx":
        solo.feed(peer, "snapshot_part", log_index=50, offset=0, total=len(data), data=data)
    assert solo.take(kind="pull_bulk") == []


def test_repeated_parts_are_ignored() -> None:
    solo = Solo()
    offer(solo, "b", 1, 50)
    data = AT_50.encode()
    first = {"log_index": 50, "offset": 0, "total": len(data), "data": data[:40]}
    for _ in range(2):
        solo.feed("b", "snapshot_part", **first)
    solo.feed("b", "snapshot_part", **{**first, "offset": 40, "data": data[40:]})
    rows = {"log_index": 50, "after": 0, "data": packed_rows(b"one", b"two"), "is_last": False}
    for _ in range(2):
        solo.feed("b", "bulk_part", **rows)
    solo.feed("b", "bulk_part", log_index=50, after=2, data=b"\x92\x02\x90", is_last=True)
    assert "snapshot.refused" not in solo.log.names()
    assert (solo.node.core.applied_index, solo.commands) == (50, [b"one", b"two"])


def test_copy_goes_on_where_it_was_whoever_leads_and_across_restarts() -> None:
    solo = Solo()
    data = AT_50.encode()
    whole = {"log_index": 50, "offset": 0, "total": len(data), "data": data}
    offer(solo, "b", 1, 50)
    solo.feed("b", "snapshot_part", **whole)
    solo.feed("b", "bulk_part", log_index=50, after=0, data=packed_rows(b"one"), is_last=False)
    solo.restart()
    offer(solo, "c", 2, 50)
    solo.feed("c", "snapshot_part", **whole)
    assert solo.take("c", "pull_bulk")[-1]["after"] == 1
    rows = msgpack.packb([1, [(9, b"two")]])
    solo.feed("c", "bulk_part", log_index=50, after=1, data=rows, is_last=True)
    assert solo.commands == [b"one", b"two"]
    wanted = [fields["bulk_position"] for event, fields in solo.log.events if event == "snapshot.wanted"]
    copied = [fields for event, fields in solo.log.events if event == "bulk.copied"]
    assert wanted == [0, 1]
    assert copied == [{"after": 1, "position": 2, "parts": 1, "part_bytes": len(rows)}]


def test_snapshot_longer_than_announced_is_given_up() -> None:
    solo = Solo()
    offer(solo, "b", 1, 50)
    solo.feed("b", "snapshot_part", log_index=50, offset=0, total=10, data=b"x" * 11)
    assert "snapshot.refused" in solo.log.names()


def test_commands_in_flight_have_an_unknown_outcome_when_a_snapshot_covers_them() -> None:
    """S11: PySyncObj would never answer."""
    solo = leader_with()
    result = solo.propose(b"x")
    solo.node.pump()
    install(solo, "b", solo.node.core.term + 1, AT_50, packed_rows(b"one", b"two"))
    assert result == [Outcome.UNKNOWN]


def test_snapshot_that_arrives_while_an_older_one_is_being_saved_waits_for_it() -> None:
    """The older one would replace it on disk, and the log that goes with it be gone."""
    solo = leader_with(b"one", b"two")
    term = solo.node.core.term
    solo.node.compact()
    offer(solo, "b", term + 1, 50)
    snapshot = Snapshot(50, term + 1, ABC, state_of(b"one", b"two"))
    pull(solo, "b", snapshot, b"\x92\x02\x90")
    solo.run_background()
    solo.advance(2)
    install(solo, "b", term + 1, snapshot, b"\x92\x02\x90")
    solo.restart()
    assert solo.node.core.applied_index == 50


def test_snapshot_that_the_log_has_reached_meanwhile_does_not_replace_it() -> None:
    """Raft 7: the entries behind it are acknowledged, and nothing is missing before it."""
    solo = Solo()
    offer(solo, "b", 1, 50)
    data = AT_50.encode()
    solo.feed("b", "snapshot_part", log_index=50, offset=0, total=len(data), data=data)
    solo.append("b", 1, (1, 0), *(no_op(index, 1) for index in range(2, 61)), commit=10)
    solo.feed("b", "bulk_part", log_index=50, after=0, data=packed_rows(b"one", b"two"), is_last=True)
    assert solo.last == no_op(60, 1)
    assert solo.commit == 50  # what a snapshot stands for is committed
    answer = solo.take("b", "next_node_idx")[-1]
    assert (answer["next_node_idx"], answer["success"], answer["reset"]) == (51, True, True)


def test_snapshot_replaces_a_log_that_parted_from_it() -> None:
    solo = Solo()
    solo.append("c", 1, (1, 0), *(no_op(index, 1) for index in range(2, 61)))
    install(solo, "b", 2, replace(AT_50, term=2), packed_rows(b"one", b"two"))
    assert [(entry.log_index, entry.term) for entry in solo.entries] == [(50, 2)]


def test_leader_offers_its_snapshot_to_a_node_whose_entries_are_gone_and_serves_it() -> None:
    solo = leader_with(*(b"%d" % number for number in range(5)))
    solo.node.compact()
    solo.run_background()
    solo.answer("c", 2, success=False, reset=True, epoch=solo.epoch("c"))
    solo.heartbeat()
    offered = solo.take("c", "offer_snapshot")[-1]["log_index"]
    data = b""
    while True:
        solo.feed("c", "pull_snapshot", log_index=offered, offset=len(data))
        (part,) = solo.take("c", "snapshot_part")
        data += part["data"]
        if len(data) == part["total"]:
            break
    assert data == SimDisk.read(solo.disk, "data/snapshot")
    solo.feed("c", "pull_bulk", log_index=offered, after=0)
    solo.run_background()
    solo.node.pump()
    (bulk,) = solo.take("c", "bulk_part")
    assert bulk["is_last"]
    fields: dict[str, Any] = {"log_index": offered - 1, "offset": 0}
    solo.feed("c", "pull_snapshot", **fields)  # an old one
    assert solo.take("c", "snapshot_part") == []


def test_entry_that_ends_the_node_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its operator has to know which one it was."""
    solo = leader_with(b"one")

    def fails(_log_index: int, _commands: list[bytes]) -> list[object]:
        raise ValueError("cannot be applied")

    monkeypatch.setattr(solo.machine, "apply", fails)
    solo.append("b", solo.node.core.term + 1, (solo.last.log_index, solo.last.term), commit=1)
    last, term = solo.last, solo.node.core.term
    with pytest.raises(ValueError, match="cannot be applied"):
        solo.append("b", term, (last.log_index, last.term), batch(last.log_index + 1, term), commit=99)
    name, fields = solo.log.events[-1]
    assert (name, fields["log_index"]) == ("entry.failed", last.log_index + 1)
