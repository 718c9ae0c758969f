"""Any sequence of changes of membership can be taken back, one by one."""

from hypothesis import given, settings
from hypothesis import strategies as st

from cluster.raft.membership import ChangeKind, Member, Members, MembershipChange, changed, learner
from tests.sim.cluster import member, members_of


def possible(members: Members, kind: ChangeKind, member_id: str) -> MembershipChange | None:
    """The change as a leader would make it: complete, and never without effect."""
    known = members.get(member_id)
    match kind:
        case ChangeKind.LEARN:
            return None if known else MembershipChange(kind, learner(member(member_id)))
        case ChangeKind.PROMOTE:
            return MembershipChange(kind, known) if known and not known.is_voter else None
        case ChangeKind.REMOVE:
            return MembershipChange(kind, known) if known else None


@settings(deadline=None, max_examples=200, derandomize=True)
@given(st.lists(st.tuples(st.sampled_from(ChangeKind), st.sampled_from("abcde")), max_size=12))
def test_changes_are_undone_in_reverse(steps: list[tuple[ChangeKind, str]]) -> None:
    history: list[tuple[dict[str, Member], MembershipChange]] = []
    members: dict[str, Member] = dict(members_of("a", "b", "c"))
    for kind, member_id in steps:
        change = possible(members, kind, member_id)
        if change is not None:
            history.append((members, change))
            members = changed(members, change)
            assert members != history[-1][0]
            assert changed(members, change) == members
    for before, change in reversed(history):
        members = changed(members, change, undo=True)
        assert members == before
