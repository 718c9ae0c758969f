"""The repairs of the protocol, each by the messages that break PySyncObj without it.

S1 to S13 are the failures that were reproduced with the stock library (cluster/raft/DESIGN.md has the list).
"""

import contextlib
import random
from typing import Any

import msgpack
import pytest

from cluster.raft.codec import MessageInvalid, pack_batch, unpack_batch
from cluster.raft.core import LEADER
from cluster.raft.journal import Entry, JournalFailed
from cluster.raft.membership import ChangeKind, MembershipChange
from cluster.raft.node import Outcome
from tests.kit.solo import TIMING, Solo, batch, no_op
from tests.sim.cluster import member, members_of
from tests.sim.disk import Crash


def follower(last: int = 5, commit: int = 1) -> Solo:
    """Of the leader b in term 1, with entries 2 to `last`."""
    solo = Solo()
    solo.append("b", 1, (1, 0), *(batch(index, 1) for index in range(2, last + 1)), commit=commit)
    assert solo.last.log_index == last
    solo.take()
    return solo


# -- following


def test_offer_of_a_snapshot_commits_nothing() -> None:
    """S1: a deposed leader's own entries must not count as committed because the new leader has come far."""
    solo = follower(last=5)
    solo.feed("c", "offer_snapshot", term=2, log_index=100, epoch=0)
    assert solo.commit == 1
    assert solo.commands == []


def test_nobody_else_leads_in_the_term_of_the_leader() -> None:
    """Its entries would have the numbers of the leader's own, and those would be taken for known when they come."""
    solo = follower(last=5)
    for entries in ((batch(6, 1, b"forged"),), ()):
        with pytest.raises(MessageInvalid, match=r"append_entries\.term is 1: b leads in that term"):
            solo.append("c", 1, (5, 1), *entries, commit=90)
    assert (solo.last.log_index, solo.commit, solo.node.core.leader_id) == (5, 1, "b")
    solo.append("b", 1, (5, 1), batch(6, 1, b"real"), commit=6)
    assert solo.commands[-1] == b"real"


def test_commit_index_covers_only_what_the_message_proves() -> None:
    """S1: behind what was sent, this log may be another one."""
    solo = follower(last=5)
    solo.append("c", 2, (2, 1), batch(3, 1), commit=90)
    assert solo.commit == 3
    assert solo.commands == [b"2@1", b"3@1"]


@pytest.mark.parametrize(
    "command",
    [
        b"\x00",  # a batch that is none
        b"\x00garbage",
        b"\x00" + msgpack.packb([1, 1, 1, ["text"]]),
        b"\x00" + msgpack.packb([9, 1, 1, []]),  # of a newer format
        b"\x02" + msgpack.packb([1, "learn", "", "a:1", "a:2", False]),
        b"\x02" + b"\x91" * 3000,
        b"\x03",
        b"\xff",
    ],
)
def test_entry_that_cannot_be_read_never_gets_into_the_log(command: bytes) -> None:
    """It would be read again at each start, and end the node each time."""
    solo = follower(last=5)
    before = list(solo.entries)
    with pytest.raises(MessageInvalid):
        solo.append("b", 1, (5, 1), Entry(command, 6, 1), commit=6)
    assert list(solo.entries) == before
    solo.append("b", 1, (5, 1), batch(6, 1), commit=6)
    assert solo.commit == 6


def test_repeated_append_does_not_shorten_the_log() -> None:
    """S2: the entries behind it may be acknowledged already."""
    solo = follower(last=9)
    solo.append("b", 1, (1, 0), batch(2, 1), batch(3, 1), commit=3)
    assert solo.last == batch(9, 1)
    assert solo.commit == 3
    (answer,) = solo.take("b", "next_node_idx")
    assert (answer["success"], answer["next_node_idx"]) == (True, 4)


def test_empty_heartbeat_in_the_middle_does_not_shorten_the_log() -> None:
    solo = follower(last=9)
    solo.append("b", 1, (4, 1), commit=4)
    assert solo.last == batch(9, 1)
    assert solo.commit == 4


def test_overlapping_append_adds_only_what_is_new() -> None:
    solo = follower(last=5)
    solo.append("b", 1, (3, 1), batch(4, 1), batch(5, 1), batch(6, 1), commit=6)
    assert [entry.log_index for entry in solo.entries] == [1, 2, 3, 4, 5, 6]
    assert solo.take("b", "next_node_idx")[0]["next_node_idx"] == 7
    assert solo.commit == 6


def test_conflicting_entries_are_replaced_from_the_first_conflict_on() -> None:
    solo = follower(last=6)
    solo.append("c", 2, (3, 1), batch(4, 1), no_op(5, 2), commit=1)
    assert solo.entries[3:] == [batch(4, 1), no_op(5, 2)]


@pytest.mark.parametrize(
    ("previous", "entries", "field"),
    [
        ((4, 2), (), "prevLogTerm"),
        ((4, 0), (batch(5, 1),), "prevLogTerm"),
        ((2, 1), (batch(3, 2),), "entries"),
        ((2, 1), (batch(3, 1), batch(4, 2), batch(5, 2)), "entries"),
    ],
)
def test_leader_that_contradicts_a_committed_entry_is_refused_and_counts_for_nothing(
    previous: tuple[int, int], entries: tuple[Entry, ...], field: str
) -> None:
    """One server's key must not end another server. Nor does it keep this one from looking for another leader."""
    solo = follower(last=5, commit=4)
    contact = solo.node.guard.leader_contact
    solo.clock.advance(0.1)
    with pytest.raises(MessageInvalid, match=rf"append_entries\.{field} .*entry [34].* committed here, with term 1"):
        solo.append("c", 2, previous, *entries, commit=9)
    assert solo.entries[1:] == [batch(index, 1) for index in range(2, 6)]
    assert (solo.node.core.term, solo.node.core.leader_id, solo.commit) == (1, "b", 4)
    assert solo.node.guard.leader_contact == contact
    solo.append("b", 1, (5, 1), batch(6, 1), commit=6)
    assert solo.commit == 6


@pytest.mark.parametrize("terms", [(3, 2), (5,), (2, 5), (1 << 60,)])
def test_entries_of_terms_that_cannot_be_are_refused(terms: tuple[int, ...]) -> None:
    """A log that ends in a later term than any leader's would win every election."""
    solo = follower(last=5)
    with pytest.raises(MessageInvalid, match="term"):
        solo.append("c", 4, (5, 1), *(no_op(index, term) for index, term in enumerate(terms, 6)))
    with pytest.raises(MessageInvalid, match="term"):
        solo.append("c", 4, (5, 9))
    assert (solo.last, solo.node.core.term) == (batch(5, 1), 1)


def test_conflict_goes_back_a_whole_term_at_once_but_not_below_the_commit() -> None:
    solo = follower(last=9, commit=4)
    solo.append("c", 2, (9, 2))
    (answer,) = solo.take("c", "next_node_idx")
    assert (answer["success"], answer["reset"], answer["next_node_idx"]) == (False, True, 5)
    assert solo.last == batch(9, 1)


def test_append_behind_a_gap_asks_for_what_is_missing() -> None:
    solo = follower(last=5)
    solo.append("b", 1, (8, 1), batch(9, 1), commit=9)
    (answer,) = solo.take("b", "next_node_idx")
    assert (answer["success"], answer["reset"], answer["next_node_idx"]) == (False, True, 6)
    assert (solo.last, solo.commit) == (batch(5, 1), 1)


def test_entries_that_do_not_follow_each_other_are_refused() -> None:
    solo = follower(last=5)
    with pytest.raises(MessageInvalid):
        solo.append("b", 1, (5, 1), batch(6, 1), batch(8, 1))
    assert solo.last == batch(5, 1)


def test_leader_of_an_older_term_is_told_so_and_not_obeyed() -> None:
    """S5: it would lead on until its quorum times out, half a minute with PySyncObj's defaults."""
    solo = follower(last=5)
    solo.append("c", 3, (5, 1), no_op(6, 3))
    solo.take()
    solo.append("b", 1, (5, 1), batch(6, 1), batch(7, 1))
    assert solo.last == no_op(6, 3)
    assert [message["term"] for message in solo.take("b", "term_notice")] == [3]


@pytest.mark.parametrize(
    ("kind", "fields"),
    [
        ("append_entries", {"commit_index": 1, "prevLogIdx": 1, "prevLogTerm": 0, "entries": ()}),
        ("offer_snapshot", {"log_index": 9}),
    ],
)
def test_who_says_that_it_leads_in_this_leaders_term_is_refused(kind: str, fields: dict[str, Any]) -> None:
    solo = Solo()
    term = solo.elect()
    before = list(solo.entries)
    with pytest.raises(MessageInvalid, match=rf"{kind}\.term is {term}: this node leads in that term"):
        solo.feed("b", kind, term=term, epoch=0, **fields)
    assert solo.is_leader()
    assert list(solo.entries) == before


def test_answer_repeats_the_epoch_of_the_append() -> None:
    solo = follower(last=5)
    solo.append("b", 1, (5, 1), epoch=4)
    assert solo.take("b", "next_node_idx")[0]["epoch"] == 4


# -- leading


def test_acknowledgement_of_an_earlier_term_counts_for_nothing() -> None:
    """S4: with five nodes an entry on two of them would be acknowledged."""
    solo = Solo(members_of(*"abcde"))
    solo.elect()
    result = solo.propose(b"x")
    solo.node.pump()
    last = solo.last.log_index
    solo.answer("b", last + 1)
    solo.answer("c", last + 1, ct=solo.node.core.term - 1)
    solo.node.pump()
    assert (solo.commit, result) == (last - 1, [])
    solo.answer("c", last + 1)
    solo.node.pump()
    assert (solo.commit, result) == (last, [1])


def test_acknowledgement_of_entries_that_are_still_to_come_is_refused() -> None:
    solo = Solo()
    solo.elect()
    last = solo.last.log_index
    with pytest.raises(MessageInvalid, match=rf"next_node_idx is {last + 2}: must be at most {last + 1}"):
        solo.answer("b", last + 2)
    result = solo.propose(b"x")
    solo.node.pump()
    assert (solo.commit, result) == (last, [])


def test_entry_of_another_leader_under_this_nodes_number_tells_nothing_of_its_own() -> None:
    """The number of what is under way can be read in the entry that was sent."""
    for forged in ([], [b"y"], [b"x", b"x"]):
        solo = Solo()
        term = solo.elect()
        result = solo.propose(b"x")
        solo.node.pump()
        index, sequence = solo.last.log_index, unpack_batch(solo.last.command)[1]
        entry = Entry(pack_batch(7, sequence, forged), index, term + 1)
        solo.append("b", term + 1, (index - 1, term), entry, commit=index)
        assert result in ([Outcome.UNKNOWN], [Outcome.NOT_LEADER])
        assert solo.commands == forged


def test_answer_of_a_later_term_deposes() -> None:
    solo = Solo()
    term = solo.elect()
    solo.answer("b", 9, ct=term + 2)
    assert not solo.is_leader()
    assert solo.node.core.term == term + 2


def test_stale_rejections_do_not_rewind_again() -> None:
    """S2: each of them would have the same entries sent, and the follower's log cut, once more."""
    solo = Solo()
    solo.elect()
    for number in range(3):
        solo.propose(b"%d" % number)
        solo.node.pump()
    solo.take()
    epoch = solo.epoch("c")
    sent = []
    for _ in range(3):
        solo.answer("c", 2, success=False, reset=True, epoch=epoch)
        solo.heartbeat()
        sent += [message for message in solo.take("c", "append_entries") if message["entries"]]
    assert [message["prevLogIdx"] for message in sent] == [1]
    assert sent[0]["epoch"] == epoch + 1


def test_second_membership_change_at_a_time_is_refused() -> None:
    """S3: disjoint majorities would be possible."""
    solo = Solo()
    solo.elect()
    results: list[list[Outcome | None]] = [[], []]
    for name, result in zip("de", results, strict=True):
        solo.node.change_membership(MembershipChange(ChangeKind.LEARN, member(name)), result.append)
    solo.node.pump()
    assert results == [[], [Outcome.REFUSED]]
    assert set(solo.node.core.members) == set("abcd")
    solo.confirm()
    assert results[0] == [None]


def test_membership_change_before_the_first_own_entry_is_committed_is_refused() -> None:
    """Raft's single-server bug of 2015: an earlier leader's uncommitted change may still come back."""
    solo = Solo()
    solo.elect(is_ready=False)
    result: list[Outcome | None] = []
    solo.node.change_membership(MembershipChange(ChangeKind.LEARN, member("d")), result.append)
    solo.node.pump()
    assert result == [Outcome.REFUSED]


def test_leader_cannot_remove_itself() -> None:
    solo = Solo()
    solo.elect()
    result: list[Outcome | None] = []
    solo.node.change_membership(MembershipChange(ChangeKind.REMOVE, member("a")), result.append)
    solo.node.pump()
    assert result == [Outcome.REFUSED]


def test_change_that_could_not_be_undone_exactly_is_refused() -> None:
    """A follower may have to take it back (R11): then the member must come back as it was."""
    solo = Solo()
    solo.elect()
    for wrong in (
        MembershipChange(ChangeKind.REMOVE, member("b").__class__("b", "elsewhere:1", "b:8400")),
        MembershipChange(ChangeKind.REMOVE, member("b").__class__("b", "b:8300", "b:8400", is_voter=False)),
        MembershipChange(ChangeKind.PROMOTE, member("b")),
        MembershipChange(ChangeKind.REMOVE, member("x")),
    ):
        result: list[Outcome | None] = []
        solo.node.change_membership(wrong, result.append)
        solo.node.pump()
        assert result == [Outcome.REFUSED], wrong
    assert solo.node.core.members == members_of("a", "b", "c")


def test_deposed_before_a_queued_change_was_made_it_is_refused_and_nothing_is_forwarded() -> None:
    """S12: PySyncObj would send it on to the new leader, and may never answer."""
    solo = Solo()
    term = solo.elect()
    result: list[Outcome | None] = []
    solo.node.change_membership(MembershipChange(ChangeKind.LEARN, member("d")), result.append)
    solo.append("b", term + 1, (1, 0))
    assert result == [Outcome.NOT_LEADER]
    assert solo.take(kind="apply_command") == []


def test_proposal_on_a_follower_is_definitely_not_made() -> None:
    """S12: commands are never forwarded through Raft."""
    solo = follower()
    result = solo.propose(b"x")
    solo.node.pump()
    assert result == [Outcome.NOT_LEADER]
    assert solo.take() == []


def test_proposal_without_a_leader_is_definitely_not_made() -> None:
    solo = Solo()
    result = solo.propose(b"x")
    solo.node.pump()
    assert result == [Outcome.NO_LEADER]


def test_entry_replaced_by_another_leader_is_definitely_not_made() -> None:
    solo = Solo()
    term = solo.elect()
    result = solo.propose(b"x")
    solo.node.pump()
    lost = solo.last.log_index
    solo.append("b", term + 1, (lost - 1, term), no_op(lost, term + 1), commit=lost)
    assert result == [Outcome.NOT_LEADER]
    assert solo.commands == []


def test_entry_that_another_leader_commits_gets_its_result() -> None:
    """S13: LEADER_CHANGED would have it sent again, and applied twice."""
    solo = Solo()
    term = solo.elect()
    result = solo.propose(b"x")
    solo.node.pump()
    last = solo.last.log_index
    solo.append("b", term + 1, (last, term), no_op(last + 1, term + 1), commit=last + 1)
    assert result == [1]
    assert solo.commands == [b"x"]


def test_leader_without_its_quorum_steps_down_within_an_election_time_out() -> None:
    solo = Solo()
    solo.elect()
    solo.advance(TIMING.election_min * 0.9)
    assert solo.is_leader()
    solo.advance(TIMING.election_min * 0.2)
    assert not solo.is_leader()
    result = solo.propose(b"x")
    solo.node.pump()
    assert result == [Outcome.NO_LEADER]


# -- elections


def test_term_grows_only_with_a_majority_that_would_vote() -> None:
    """S10: a node that is cut off campaigns for ever, and deposes a healthy leader when it comes back."""
    solo = follower(commit=2)
    for _ in range(50):
        solo.advance(0.2)
    assert solo.node.core.term == 1
    ballots = solo.take("b", "pre_vote")
    assert len(ballots) > 5
    solo.feed("b", "pre_vote_granted", is_fresh=False, round=ballots[0]["round"])  # of an old round
    assert solo.node.core.term == 1
    solo.feed("b", "pre_vote_granted", is_fresh=False, round=ballots[-1]["round"])
    solo.advance(0)
    assert solo.node.core.term == 2


def test_vote_is_refused_in_advance_while_there_is_a_leader() -> None:
    solo = follower(commit=2)
    ballot = {"term": 2, "last_log_index": 50, "last_log_term": 1, "round": 1}
    solo.advance(TIMING.election_min * 0.9)
    solo.feed("c", "pre_vote", **ballot, ct=1)
    assert solo.take("c", "pre_vote_granted") == []
    solo.advance(TIMING.election_min * 0.2)
    solo.feed("c", "pre_vote", **ballot, ct=1)
    assert len(solo.take("c", "pre_vote_granted")) == 1


@pytest.mark.parametrize(("index", "term", "granted"), [(5, 1, True), (4, 1, False), (9, 0, False), (2, 2, True)])
def test_only_a_log_that_is_as_current_gets_votes(index: int, term: int, granted: bool) -> None:
    solo = follower(last=5, commit=2)
    solo.append("b", 1, (5, 1), commit=5)
    solo.advance(10)
    solo.take()
    ballot = {"last_log_index": index, "last_log_term": term}
    solo.feed("c", "pre_vote", term=2, **ballot, round=1, ct=1)
    assert bool(solo.take("c", "pre_vote_granted")) is granted
    solo.feed("c", "request_vote", term=2, **ballot)
    assert bool(solo.take("c", "response_vote")) is granted
    assert solo.node.journal.vote == ("c" if granted else None)


def test_one_vote_in_a_term_also_across_a_restart() -> None:
    solo = follower(last=5, commit=5)
    ballot = {"last_log_index": 9, "last_log_term": 1}
    solo.feed("c", "request_vote", term=2, **ballot)
    assert len(solo.take("c", "response_vote")) == 1
    solo.restart()
    solo.feed("b", "request_vote", term=2, **ballot)
    assert solo.take("b", "response_vote") == []
    assert (solo.node.core.term, solo.node.journal.vote) == (2, "c")


def test_vote_is_durable_before_it_is_told() -> None:
    solo = follower(last=5, commit=5)
    solo.disk.sync_fails = True
    with pytest.raises(JournalFailed, match="wal"):
        solo.feed("c", "request_vote", term=2, last_log_index=9, last_log_term=1)
    assert solo.take("c", "response_vote") == []


def test_votes_are_counted_by_peer_and_not_by_message() -> None:
    """R9: with five nodes one eager voter would be a majority."""
    solo = Solo(members_of(*"abcde"))
    solo.append("e", 1, (1, 0), no_op(2, 1), commit=2)
    solo.advance(2)
    for peer in "bc":
        solo.feed(peer, "pre_vote_granted", is_fresh=False, round=solo.node.guard._round)
    solo.advance(0)
    assert solo.node.core.term == 2
    for _ in range(5):
        solo.feed("b", "response_vote", term=2, is_fresh=False)
    assert not solo.is_leader()
    solo.feed("c", "response_vote", term=2, is_fresh=False)
    assert solo.node.core.state == LEADER


def with_learner() -> Solo:
    return Solo({**members_of("a", "b", "c"), "d": member("d").__class__("d", "d:1", "d:2", is_voter=False)})


@pytest.mark.parametrize("kind", ["request_vote", "pre_vote", "response_vote", "pre_vote_granted", "timeout_now"])
def test_stranger_and_learner_have_no_say_in_elections(kind: str) -> None:
    solo = with_learner()
    fields: dict[str, dict[str, object]] = {
        "request_vote": {"term": 5, "last_log_index": 99, "last_log_term": 4},
        "pre_vote": {"term": 5, "last_log_index": 99, "last_log_term": 4, "round": 1},
        "response_vote": {"term": 0, "is_fresh": False},
        "pre_vote_granted": {"round": 0, "is_fresh": False},
        "timeout_now": {"term": 5},
    }
    for peer in "x" if kind in ("request_vote", "pre_vote") else "dx":
        solo.feed(peer, kind, **fields[kind])
    assert (solo.node.core.term, solo.sent) == (0, [])


def test_learner_that_was_promoted_meanwhile_gets_votes_once_the_leader_is_silent() -> None:
    """This node may lack the entry that made it a voter, and no majority without this node's vote (Raft 6)."""
    solo = with_learner()
    ballot = {"term": 5, "last_log_index": 99, "last_log_term": 4}
    solo.append("b", 1, (1, 0), no_op(2, 1), commit=2)
    solo.take()
    for kind, more in (("pre_vote", {"round": 1}), ("request_vote", {})):
        solo.feed("d", kind, **ballot, **more)
    assert (solo.node.core.term, solo.take("d")) == (1, [])
    solo.advance(0.51)
    solo.feed("d", "pre_vote", **ballot, round=2)
    assert [sent["round"] for sent in solo.take("d", "pre_vote_granted")] == [2]
    solo.feed("d", "request_vote", **ballot)
    assert len(solo.take("d", "response_vote")) == 1
    assert (solo.node.core.term, solo.node.journal.vote) == (5, "d")


@pytest.mark.parametrize("is_leader", [True, False])
def test_server_that_is_no_member_is_not_heard_while_there_is_a_leader(is_leader: bool) -> None:
    """One that was removed has a good certificate still; it must not depose anybody."""
    solo = Solo() if is_leader else follower()
    if is_leader:
        solo.elect()
    term, last = solo.node.core.term, solo.last
    solo.feed("x", "term_notice", term=9)
    solo.append("x", 9, (last.log_index, last.term), no_op(last.log_index + 1, 9), commit=99)
    solo.feed("x", "offer_snapshot", term=9, log_index=100, epoch=0)
    assert (solo.node.core.term, solo.last) == (term, last)
    assert solo.take("x") == []


def test_leader_that_was_added_meanwhile_is_followed_once_the_old_one_is_silent() -> None:
    """A node that was away does not know it as a member yet (Raft 6)."""
    solo = follower(last=5)
    solo.clock.advance(TIMING.election_min)
    solo.append("x", 2, (5, 1), no_op(6, 2))
    assert solo.last == no_op(6, 2)
    solo.feed("y", "term_notice", term=9)  # now x is heard
    assert (solo.node.core.term, solo.node.core.leader_id) == (2, "x")


def test_request_to_take_over_is_followed_at_once() -> None:
    solo = follower(last=5, commit=5)
    solo.feed("c", "timeout_now", term=1)  # not the leader
    solo.advance(0)
    assert solo.node.core.term == 1
    solo.feed("b", "timeout_now", term=1)
    solo.advance(0)
    assert solo.node.core.term == 2
    assert len(solo.take("b", "request_vote")) == 1


def test_lost_connection_to_the_leader_makes_it_campaign_soon_but_not_at_once() -> None:
    solo = follower(last=5, commit=5)
    solo.node.peer_lost("c")
    solo.advance(0.2)
    assert solo.take("c", "pre_vote") == []
    solo.node.peer_lost("b")
    solo.advance(0.2)
    assert len(solo.take("c", "pre_vote")) == 1
    assert solo.node.core.term == 1


# -- G7: an empty disk


@pytest.mark.parametrize(
    ("size", "votes", "is_elected"),
    [
        (3, {"b": False}, True),
        (3, {"b": True}, False),
        (3, {"b": True, "c": False}, True),  # everybody: those who remember vouch for b
        (3, {"b": True, "c": True}, True),
        (2, {"b": True}, True),
        (4, {"b": True, "c": False}, False),
        (4, {"b": False, "c": False}, True),
        (4, {"b": True, "c": False, "d": True}, True),
        (5, {"b": True, "c": True, "d": False}, False),
        (5, {"b": False, "c": True, "d": False}, True),
    ],
)
def test_vote_of_an_empty_disk_counts_only_when_all_agree(size: int, votes: dict[str, bool], is_elected: bool) -> None:
    """It may be the new disk of a node that had acknowledged what the candidate lacks."""
    solo = Solo(members_of(*"abcde"[:size]))
    solo.append("b", 1, (1, 0), no_op(2, 1), commit=2)
    assert not solo.node.guard.is_fresh
    for is_real in (False, True):
        solo.advance(10)
        round_number = solo.take("b", "pre_vote")[-1]["round"]
        for peer, is_fresh in votes.items():
            fresh = is_fresh and not is_real  # the other kind of vote is from a disk that remembers
            solo.feed(peer, "pre_vote_granted", round=round_number, is_fresh=fresh)
        solo.advance(0)
        assert (solo.node.core.term > 1) is (is_elected or is_real)
    term = solo.node.core.term
    for peer, is_fresh in votes.items():
        solo.feed(peer, "response_vote", term=term, is_fresh=is_fresh)
        solo.feed(peer, "response_vote", term=term, is_fresh=is_fresh)
    assert solo.is_leader() is is_elected


def test_vote_tells_whether_the_disk_may_have_forgotten_something() -> None:
    solo = Solo()
    for is_fresh in (True, False):
        term = solo.node.core.term + 1
        ballot = {"last_log_index": 9, "last_log_term": 3}
        solo.advance(10)
        solo.take()
        solo.feed("b", "pre_vote", term=term, **ballot, round=1)
        assert solo.take("b", "pre_vote_granted")[0]["is_fresh"] is is_fresh
        solo.feed("b", "request_vote", term=term, **ballot)
        assert solo.take("b", "response_vote")[0]["is_fresh"] is is_fresh
        if is_fresh:
            solo.append("b", term, (1, 0), no_op(2, term), commit=2)


@pytest.mark.parametrize(
    ("size", "votes", "is_elected"),
    [
        (3, {"b": True}, False),  # c may remember what these two have forgotten, or never knew
        (3, {"b": False}, False),
        (3, {"b": True, "c": True}, True),  # a new cluster
        (3, {"b": False, "c": False}, True),
        (5, {"b": False, "c": False}, False),
        (5, {"b": False, "c": False, "d": True}, False),
        (5, {"b": False, "c": False, "d": False}, True),
    ],
)
def test_own_vote_of_an_empty_disk_counts_only_when_all_agree(
    size: int, votes: dict[str, bool], is_elected: bool
) -> None:
    solo = Solo(members_of(*"abcde"[:size]))
    assert solo.node.guard.is_fresh
    solo.advance(10)
    round_number = solo.take("b", "pre_vote")[-1]["round"]
    for peer, is_fresh in votes.items():
        solo.feed(peer, "pre_vote_granted", round=round_number, is_fresh=is_fresh)
    solo.advance(0)
    assert (solo.node.core.term == 1) is is_elected
    solo.node.core._SyncObj__transferInProgress = True  # campaigns without asking first
    solo.advance(10)
    term = solo.node.core.term
    for peer, is_fresh in votes.items():
        solo.feed(peer, "response_vote", term=term, is_fresh=is_fresh)
    assert solo.is_leader() is is_elected


@pytest.mark.parametrize("is_fresh", [True, False])
def test_node_says_for_whom_it_waits_while_votes_do_not_count(is_fresh: bool) -> None:
    solo = follower(last=2, commit=2)
    for _ in range(3):
        solo.advance(10)
        ballots = solo.take("b", "pre_vote")
        solo.feed("b", "pre_vote_granted", round=ballots[-1]["round"], is_fresh=is_fresh)
    waits = [fields["missing"] for event, fields in solo.log.events if event == "election.waits"]
    assert waits == ([["c"]] if is_fresh else [])


@pytest.mark.parametrize(
    ("entries", "commit", "is_fresh"),
    [
        ((no_op(2, 1),), 1, False),  # by the leader that all elected with an empty log: there was nothing before
        ((no_op(2, 1),), 2, False),
        ((no_op(2, 1), no_op(3, 5)), 1, True),  # nothing is known to be committed
        ((batch(2, 1), batch(3, 1)), 9, True),  # the leader has committed more than this
        ((batch(2, 1), batch(3, 1)), 3, False),
        ((batch(2, 1), no_op(3, 5)), 2, True),  # committed by an earlier leader: there may be more of its time
        ((batch(2, 1), no_op(3, 5)), 3, False),
    ],
)
def test_node_is_new_until_it_has_all_that_was_ever_committed(
    entries: tuple[tuple[bytes, int, int], ...], commit: int, is_fresh: bool
) -> None:
    solo = Solo()
    solo.append("b", entries[-1][2], (1, 0), *entries, commit=commit)  # type: ignore[arg-type]
    assert solo.node.guard.is_fresh is is_fresh
    assert solo.disk.exists("data/wal/fresh") is is_fresh
    solo.restart()
    assert solo.node.guard.is_fresh is is_fresh


def test_mark_of_a_new_disk_goes_only_when_the_entries_are_durable() -> None:
    for crash_in in range(1, 10):
        solo = Solo()
        solo.disk.crash_in = crash_in
        with contextlib.suppress(Crash):
            solo.append("b", 1, (1, 0), no_op(2, 1), commit=2)
        solo.disk.cut_power(random.Random(crash_in))
        solo.restart()
        assert solo.node.guard.is_fresh or solo.last == no_op(2, 1)


def test_leader_is_not_new_once_its_first_entry_is_committed() -> None:
    solo = Solo()
    solo.elect(is_ready=False)
    assert solo.node.guard.is_fresh
    solo.confirm()
    assert not solo.node.guard.is_fresh
