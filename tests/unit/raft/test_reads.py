"""ReadIndex: an index is given only while a majority confirms, behind the question, that the leader leads."""

import pytest

from tests.kit.solo import Solo, no_op
from tests.sim.cluster import members_of


def ask(solo: Solo) -> list[int | None]:
    result: list[int | None] = []
    solo.node.read_index(result.append)
    solo.node.pump()
    return result


def follower() -> Solo:
    solo = Solo()
    solo.append("b", 1, (1, 0), no_op(2, 1), commit=2)
    solo.take()
    return solo


def test_leader_answers_once_a_majority_has_confirmed() -> None:
    solo = Solo(members_of(*"abcde"))
    term = solo.elect()
    result = ask(solo)
    rounds = [message["round"] for message in solo.take(kind="confirm_leader")]
    assert len(rounds) == 4
    for peer, expected in (("b", []), ("b", []), ("c", [solo.commit])):
        solo.feed(peer, "leader_confirmed", round=rounds[0], term=term)
        assert result == expected


def test_single_node_answers_at_once() -> None:
    solo = Solo(members_of("a"))
    solo.advance(2)
    solo.advance(0)
    assert ask(solo) == [2]


def test_reads_that_come_together_share_a_round() -> None:
    solo = Solo()
    term = solo.elect()
    results: list[list[int | None]] = [[], [], []]
    for result in results:
        solo.node.read_index(result.append)
    solo.node.pump()
    (question,) = solo.take("b", "confirm_leader")
    solo.feed("b", "leader_confirmed", round=question["round"], term=term)
    assert results == [[solo.commit]] * 3


def test_confirmation_of_an_earlier_round_says_nothing_about_a_later_read() -> None:
    solo = Solo()
    term = solo.elect()
    first = ask(solo)
    old = solo.take("b", "confirm_leader")[0]["round"]
    second = ask(solo)
    solo.feed("b", "leader_confirmed", round=old, term=term)
    assert (first, second) == ([solo.commit], [])


@pytest.mark.parametrize("peer", ["x", "d"])
def test_confirmation_of_a_stranger_or_learner_counts_for_nothing(peer: str) -> None:
    learner = members_of("d")["d"]
    solo = Solo({**members_of("a", "b", "c"), "d": type(learner)("d", "d:1", "d:2", is_voter=False)})
    term = solo.elect()
    result = ask(solo)
    solo.feed(peer, "leader_confirmed", round=solo.take("b", "confirm_leader")[0]["round"], term=term)
    assert result == []


def test_leader_of_whom_a_later_term_is_known_does_not_answer() -> None:
    solo = Solo()
    term = solo.elect()
    result = ask(solo)
    question = solo.take("b", "confirm_leader")[0]["round"]
    solo.feed("b", "term_notice", term=term + 1)
    assert result == [None]
    solo.feed("b", "leader_confirmed", round=question, term=term)
    assert result == [None]


def test_new_leader_does_not_answer_before_its_first_entry_is_committed() -> None:
    """Until then it does not know how much is committed (Raft thesis 6.4)."""
    solo = Solo()
    solo.elect(is_ready=False)
    assert ask(solo) == [None]
    solo.confirm()
    assert ask(solo) == []


def test_follower_asks_the_leader_and_passes_the_answer_on() -> None:
    solo = follower()
    result = ask(solo)
    (question,) = solo.take("b", "read_index")
    assert result == []
    solo.feed("b", "read_index_reply", request=question["request"], log_index=2)
    assert result == [2]
    solo.feed("b", "read_index_reply", request=question["request"], log_index=9)
    assert result == [2]


def test_only_the_leader_that_was_asked_answers() -> None:
    """Another server could say an index that is long past, and what is read then would be old."""
    solo = follower()
    result = ask(solo)
    (question,) = solo.take("b", "read_index")
    for log_index in (0, 1 << 62, None):
        solo.feed("c", "read_index_reply", request=question["request"], log_index=log_index)
    assert result == []
    solo.feed("b", "read_index_reply", request=question["request"], log_index=2)
    assert result == [2]


def test_leader_answers_for_a_follower_only_with_a_majority() -> None:
    solo = Solo()
    term = solo.elect()
    solo.feed("c", "read_index", request=41)
    question = solo.take("b", "confirm_leader")[0]["round"]
    assert solo.take("c", "read_index_reply") == []
    solo.feed("b", "leader_confirmed", round=question, term=term)
    (reply,) = solo.take("c", "read_index_reply")
    assert (reply["request"], reply["log_index"]) == (41, solo.commit)


def test_follower_that_is_asked_says_that_it_cannot_tell() -> None:
    solo = follower()
    solo.feed("c", "read_index", request=41)
    assert solo.take("c", "read_index_reply")[0]["log_index"] is None


def test_node_without_a_leader_refuses_at_once() -> None:
    assert ask(Solo()) == [None]


def test_question_that_got_no_answer_expires() -> None:
    solo = follower()
    result = ask(solo)
    for _ in range(50):
        solo.append("b", 1, (2, 1), commit=2)
        solo.advance(0.05)
    assert result == [None]


def test_change_of_leader_fails_what_is_under_way() -> None:
    solo = follower()
    result = ask(solo)
    solo.append("c", 2, (2, 1), no_op(3, 2), commit=3)
    assert result == [None]


@pytest.mark.parametrize(("asked", "kind"), [(1, "term_notice"), (2, "leader_confirmed"), (3, None)])
def test_leader_is_confirmed_only_in_the_present_term(asked: int, kind: str | None) -> None:
    solo = follower()
    solo.append("b", 2, (2, 1), no_op(3, 2), commit=3)
    solo.take()
    solo.feed("b", "confirm_leader", round=5, term=asked)
    assert [message["type"] for message in solo.take("b")] == ([kind] if kind else [])


def test_stranger_gets_no_answer() -> None:
    solo = follower()
    solo.feed("x", "read_index", request=1)
    solo.feed("x", "confirm_leader", round=5, term=1)
    assert solo.sent == []
