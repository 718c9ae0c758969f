"""Changes of membership as values: what they do, and that they can be undone."""

import pytest

from cluster.raft.membership import ChangeKind, Member, MembershipChange, changed, learner, voter
from tests.sim.cluster import member, members_of

ABC = members_of("a", "b", "c")
D = member("d")


def test_new_member_starts_as_a_learner() -> None:
    assert changed(ABC, MembershipChange(ChangeKind.LEARN, D)) == {**ABC, "d": learner(D)}


def test_learner_becomes_a_voter() -> None:
    with_learner = changed(ABC, MembershipChange(ChangeKind.LEARN, D))
    assert changed(with_learner, MembershipChange(ChangeKind.PROMOTE, learner(D))) == {**ABC, "d": voter(D)}


def test_removed_member_is_gone() -> None:
    assert changed(ABC, MembershipChange(ChangeKind.REMOVE, member("b"))) == members_of("a", "c")


@pytest.mark.parametrize(
    "change",
    [
        MembershipChange(ChangeKind.LEARN, member("b")),  # must not make a voter a learner
        MembershipChange(ChangeKind.PROMOTE, member("b")),
        MembershipChange(ChangeKind.PROMOTE, D),
        MembershipChange(ChangeKind.REMOVE, D),
    ],
)
def test_change_that_is_there_already_changes_nothing(change: MembershipChange) -> None:
    assert changed(ABC, change) == ABC


@pytest.mark.parametrize(
    "change",
    [
        MembershipChange(ChangeKind.LEARN, learner(D)),
        MembershipChange(ChangeKind.PROMOTE, learner(member("c"))),
        MembershipChange(ChangeKind.REMOVE, member("a")),
        MembershipChange(ChangeKind.REMOVE, learner(member("c"))),
    ],
)
def test_change_that_is_undone_leaves_no_trace(change: MembershipChange) -> None:
    before = {**members_of("a", "b"), "c": learner(member("c"))}
    after = changed(before, change)
    assert after != before
    assert changed(after, change, undo=True) == before


def test_change_does_not_touch_what_it_is_given() -> None:
    before: dict[str, Member] = dict(ABC)
    changed(before, MembershipChange(ChangeKind.REMOVE, member("b")))
    assert before == ABC
