"""A node whose API stands still: when that is so, and that it does not lead then."""

from collections.abc import Callable

import pytest

from cluster.raft.membership import learner
from cluster.raft.stall import LoopWatch, stall_limit
from tests.kit.clock import FakeClock
from tests.kit.solo import TIMING, Solo
from tests.sim.cluster import member, members_of

LIMIT = 1.0


class Watched:
    """A watch whose loop turns when the test says so."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.posted: list[Callable[[], None]] = []
        self.watch = LoopWatch(LIMIT, self.clock, self.posted.append)

    def turn(self) -> None:
        """The loop does all that was posted."""
        while self.posted:
            self.posted.pop()()

    def look(self, seconds: float | None = None) -> bool:
        """So long after the last look, on time unless told otherwise."""
        self.clock.advance(self.watch.interval if seconds is None else seconds)
        self.watch.look()
        return self.watch.is_stalled

    def looks_until_stalled(self) -> int:
        for count in range(1, 100):
            if self.look():
                return count
        raise AssertionError("it never counts as stalled")


def test_loop_that_turns_is_never_stalled() -> None:
    watched = Watched()
    for _ in range(1000):
        assert not watched.look()
        watched.turn()


def test_loop_that_turns_once_in_each_limit_is_not_stalled() -> None:
    watched = Watched()
    for number in range(1000):
        assert not watched.look()
        if number % 8 == 7:
            watched.turn()


def test_loop_is_stalled_when_it_has_not_turned_for_the_limit() -> None:
    watched = Watched()
    watched.look()
    sent_at = watched.clock()
    watched.looks_until_stalled()
    assert LIMIT <= watched.clock() - sent_at <= LIMIT + watched.watch.interval
    assert watched.watch.silent_seconds == pytest.approx(watched.clock() - sent_at)


def test_one_beat_is_out_at_a_time() -> None:
    """However long it stands still, the loop has one thing more to do when it turns again."""
    watched = Watched()
    for _ in range(100):
        watched.look()
    assert len(watched.posted) == 1


def test_loop_that_turns_again_is_no_longer_stalled_and_has_all_the_time_again() -> None:
    watched = Watched()
    first = watched.looks_until_stalled()
    watched.turn()
    assert not watched.look()
    assert watched.looks_until_stalled() == first - 1  # the look that saw it turn has sent the next beat


@pytest.mark.parametrize("pause", [1.0, 10.0, 86_400.0])
def test_pause_of_the_whole_process_is_no_stall(pause: float) -> None:
    """The thread that looks did not run either. It may run first when the process goes on, the loop's still waiting."""
    watched = Watched()
    for _ in range(20):
        watched.look()
        assert not watched.look(pause)
        watched.turn()


def test_pause_in_the_middle_of_a_stall_counts_as_one_look() -> None:
    watched, paused = Watched(), Watched()
    expected = watched.looks_until_stalled()
    for _ in range(3):
        paused.look()
    paused.look(3600.0)
    assert 4 + paused.looks_until_stalled() == expected


def test_looks_in_a_hurry_count_for_the_time_they_took() -> None:
    """A timer that was late may be followed at once by the next."""
    watched = Watched()
    watched.look()
    for _ in range(99):
        assert not watched.look(0.01)


def test_limit_is_the_longest_election_time_out_and_at_least_a_second() -> None:
    assert [stall_limit(seconds) for seconds in (0.15, 1.0, 3.5)] == [1.0, 1.0, 3.5]


# -- what the node does


def stalled_leader(solo: Solo | None = None) -> Solo:
    solo = solo or Solo()
    solo.elect()
    solo.node.is_stalled = True
    return solo


def caught_up(solo: Solo, *peers: str) -> None:
    for peer in peers:
        solo.confirm(peer)
    solo.take()


@pytest.mark.parametrize("is_stalled", [True, False])
@pytest.mark.parametrize("what", ["keys", "learner"])
def test_stalled_leader_adds_no_entry_of_its_own(what: str, is_stalled: bool) -> None:
    """Nobody would have all of them any more, and nobody could take over at once."""
    solo = Solo({**members_of("a", "b", "c"), "d": learner(member("d"))})
    solo.elect()
    caught_up(solo, "b", "c")
    last = solo.last.log_index
    solo.node.is_stalled = is_stalled
    if what == "keys":
        solo.node.may_pin = True
        solo.keys = {"b": bytes(72)}
        solo.node.pump()
    else:
        solo.confirm("d")
    solo.node.pump()  # what it proposes gets into its log with the next round
    assert solo.last.log_index == (last if is_stalled else last + 1)


def test_stalled_leader_asks_a_voter_that_has_everything_to_take_over() -> None:
    solo = Solo()
    solo.elect()
    caught_up(solo, "b")
    solo.node.is_stalled = True
    solo.node.pump()
    assert [peer for peer, message in solo.sent if message["type"] == "timeout_now"] == ["b"]
    for _ in range(3):
        solo.advance(0.01)
    assert len(solo.take("b", "timeout_now")) == 1  # once: each of them is an election
    solo.feed("b", "request_vote", term=solo.node.core.term + 1, last_log_index=2, last_log_term=solo.last.term)
    assert not solo.is_leader()
    assert solo.take("b", "response_vote")


def test_stalled_leader_waits_a_moment_for_a_voter_to_catch_up() -> None:
    solo = Solo()
    solo.elect()
    result = solo.propose(b"under way")
    solo.node.pump()
    solo.take()
    solo.node.is_stalled = True
    solo.advance(TIMING.election_min / 4)
    assert solo.take(kind="timeout_now") == []
    solo.confirm("c")
    assert [peer for peer, message in solo.sent if message["type"] == "timeout_now"] == ["c"]
    assert isinstance(result[0], int)  # and what was under way is done


def test_stalled_leader_steps_down_when_nobody_takes_over_in_time() -> None:
    solo = stalled_leader()
    term = solo.node.core.term
    for _ in range(100):
        solo.advance(TIMING.heartbeat)
        solo.answer("b", solo.last.log_index, success=False)  # it lives, and lags
        if not solo.is_leader():
            break
    assert (solo.is_leader(), solo.node.core.term, solo.node.core.leader_id) == (False, term, None)
    assert "leader.stepped_down" in solo.log.names()
    solo.take()
    solo.advance(TIMING.heartbeat)
    assert solo.take(kind="append_entries") == []


def test_stalled_node_does_not_campaign_until_it_turns_again() -> None:
    solo = Solo()
    solo.node.is_stalled = True
    for _ in range(200):
        solo.advance(0.1)
    assert solo.sent == []
    assert solo.node.wake_at() > solo.clock()  # nor does it look again and again
    solo.node.is_stalled = False
    solo.advance(2 * TIMING.election_max)
    assert len(solo.take(kind="pre_vote")) == 2


def test_stalled_node_does_not_name_a_leader_that_it_no_longer_hears() -> None:
    solo = Solo()
    follower_of(solo, "b", 1)
    solo.node.is_stalled = True
    solo.advance(2 * TIMING.election_max)
    assert solo.node.core.leader_id is None


def test_stalled_node_that_has_the_votes_already_does_not_take_them_up() -> None:
    solo = Solo()
    solo.advance(2 * TIMING.election_max)
    ballot = solo.take("b", "pre_vote")[-1]
    solo.node.is_stalled = True
    for peer in ("b", "c"):
        solo.feed(peer, "pre_vote_granted", is_fresh=False, round=ballot["round"])
    for _ in range(10):
        solo.advance(0.1)
    assert solo.take(kind="request_vote") == []


def follower_of(solo: Solo, leader: str, term: int) -> None:
    solo.append(leader, term, (1, 0))
    solo.take()


@pytest.mark.parametrize("is_known", [True, False])
def test_stalled_node_does_not_take_over_when_it_is_asked_to(is_known: bool) -> None:
    """Nor later, when it turns again and somebody else leads: that would only be one more election."""
    solo = Solo()
    follower_of(solo, "b", 1)
    solo.node.is_stalled = is_known
    solo.node.receive("b", {"type": "timeout_now", "ct": 1, "term": 1})
    solo.node.is_stalled = True  # or known only now, before the next pump
    solo.node.pump()
    assert solo.take() == []
    solo.node.is_stalled = False
    for _ in range(100):
        solo.clock.advance(TIMING.heartbeat)
        solo.append("b", 1, (1, 0))
    assert {message["type"] for message in solo.take()} == {"next_node_idx"}


def test_stalled_node_votes_and_follows() -> None:
    """The two others may be all that is left."""
    solo = Solo()
    solo.node.is_stalled = True
    solo.feed("b", "pre_vote", term=1, last_log_index=1, last_log_term=0, round=1)
    assert solo.take("b", "pre_vote_granted")
    solo.feed("b", "request_vote", term=1, last_log_index=1, last_log_term=0)
    assert solo.take("b", "response_vote")
    solo.append("b", 1, (1, 0))
    assert solo.take("b", "next_node_idx")[-1]["success"]


def test_single_voter_leads_however_long_it_is_stalled() -> None:
    solo = Solo(members_of("a"))
    solo.node.is_stalled = True
    solo.advance(2 * TIMING.election_max)
    for _ in range(50):
        solo.advance(0.1)
    assert solo.is_leader()
    assert "leader.stepped_down" not in solo.log.names()


def test_leader_that_turns_again_in_time_leads_on() -> None:
    solo = stalled_leader()
    solo.node.pump()
    solo.advance(TIMING.election_min / 4)
    solo.node.is_stalled = False
    solo.heartbeat()
    caught_up(solo, "b", "c")
    assert solo.is_leader()
    # And the next stall has its whole time again.
    solo.clock.advance(TIMING.election_min / 3)
    solo.node.is_stalled = True
    solo.answer("b", solo.last.log_index, success=False)
    assert solo.is_leader()
