"""As of when a node knows all that was committed: what says for how long a token that it knows can be trusted."""

from tests.kit.solo import Solo, batch


def test_follower_is_current_once_it_has_applied_what_its_leader_has_told() -> None:
    solo = Solo()
    started = solo.clock()
    assert solo.node.current_at == started
    solo.clock.advance(5)
    solo.append("b", 1, (1, 0), batch(2, 1), batch(3, 1), commit=3)
    assert solo.node.current_at == started + 5
    solo.clock.advance(5)
    solo.append("b", 1, (3, 1), commit=3)  # nothing but a heartbeat
    assert solo.node.current_at == started + 10


def test_leader_that_is_heard_and_not_followed_up_to_its_end_keeps_nobody_current() -> None:
    solo = Solo()
    solo.append("b", 1, (1, 0), batch(2, 1), commit=2)
    known = solo.node.current_at
    told = solo.clock.monotonic() + 5
    solo.clock.advance(5)
    for _ in range(20):
        solo.append("b", 1, (8, 1), batch(9, 1), commit=8)  # does not fit: entries are missing
        solo.feed("b", "offer_snapshot", term=1, log_index=8, epoch=0)
        assert solo.node.current_at == known
        solo.clock.advance(1)
    solo.append("b", 1, (2, 1), *(batch(index, 1) for index in range(3, 9)), commit=9)
    assert solo.node.current_at == told  # and not later: since then more may have been committed
    solo.append("b", 1, (8, 1), batch(9, 1), commit=9)
    assert solo.node.current_at == solo.clock()


def test_leader_that_is_refused_tells_nothing() -> None:
    solo = Solo()
    solo.append("b", 2, (1, 0), batch(2, 2), commit=2)
    known = solo.node.current_at
    solo.clock.advance(5)
    solo.append("c", 1, (1, 0), commit=1)  # of a term that is over
    assert solo.node.current_at == known


def test_leader_is_current_for_as_long_as_it_has_a_majority() -> None:
    solo = Solo()
    solo.elect()
    solo.advance(0.1)
    assert solo.node.current_at == solo.clock()
    known = solo.clock()
    for _ in range(50):
        solo.advance(0.1)
    assert not solo.node.core.is_leader
    assert solo.node.current_at - known < 1
    assert solo.clock() - solo.node.current_at > 4
