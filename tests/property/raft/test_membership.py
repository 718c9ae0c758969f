"""Any sequence of changes of membership can be taken back, one by one."""

from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from cluster.raft.membership import (
    ChangeKind,
    Member,
    Members,
    MembershipChange,
    changed,
    learner,
    removed_after,
)
from tests.sim.cluster import member, members_of


def possible(
    members: Members, removed: frozenset[str], kind: ChangeKind, member_id: str, number: int
) -> MembershipChange | None:
    """The change as a leader would make it: complete, and never without effect."""
    known = members.get(member_id)
    match kind:
        case ChangeKind.LEARN:
            was_removed = member_id in removed
            return None if known else MembershipChange(kind, learner(member(member_id)), was_removed=was_removed)
        case ChangeKind.PIN:
            key = bytes([number]) * 72
            return MembershipChange(kind, replace(known, keys=(key,)), keys_before=known.keys) if known else None
        case ChangeKind.PROMOTE:
            return MembershipChange(kind, known) if known and not known.is_voter else None
        case ChangeKind.REMOVE:
            return MembershipChange(kind, known) if known else None


@settings(deadline=None, max_examples=200, derandomize=True)
@given(st.lists(st.tuples(st.sampled_from(ChangeKind), st.sampled_from("abcde")), max_size=12))
def test_changes_are_undone_in_reverse(steps: list[tuple[ChangeKind, str]]) -> None:
    history: list[tuple[dict[str, Member], frozenset[str], MembershipChange]] = []
    members: dict[str, Member] = dict(members_of("a", "b", "c"))
    removed = frozenset[str]()
    for number, (kind, member_id) in enumerate(steps):
        change = possible(members, removed, kind, member_id, number)
        if change is not None:
            history.append((members, removed, change))
            had_key = member_id in members and bool(members[member_id].keys)
            members, removed = changed(members, change), removed_after(removed, change)
            assert members != history[-1][0]
            assert (changed(members, change), removed_after(removed, change)) == (members, removed)
            assert (member_id in removed) == (kind is ChangeKind.REMOVE and had_key)
            assert not removed & members.keys()
    for before, removed_before, change in reversed(history):
        members, removed = changed(members, change, undo=True), removed_after(removed, change, undo=True)
        assert (members, removed) == (before, removed_before)
