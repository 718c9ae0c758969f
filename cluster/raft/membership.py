"""Who belongs to the Raft cluster: values only, as they stand in log entries, snapshots and in memory."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

MAX_NAME_LENGTH: Final = 63


@dataclass(frozen=True, slots=True, order=True)
class Member:
    """One server. `id` is its name, which its TLS certificate must carry; addresses are `host:port`."""

    id: str
    raft_address: str
    rpc_address: str
    is_voter: bool = True


class ChangeKind(StrEnum):
    LEARN = "learn"  # add as a learner: receives the log, has no vote
    PROMOTE = "promote"  # learner becomes voter
    REMOVE = "remove"


@dataclass(frozen=True, slots=True)
class MembershipChange:
    """One single-server change (Raft thesis 4.1). `member` is complete in every kind, so a change can be undone."""

    kind: ChangeKind
    member: Member


Members = Mapping[str, Member]


def changed(members: Members, change: MembershipChange, *, undo: bool = False) -> dict[str, Member]:
    """The members after `change`, or before it; a change that is already there (not there) changes nothing."""
    result = dict(members)
    member = change.member
    match change.kind:
        case ChangeKind.LEARN if undo:
            result.pop(member.id, None)
        case ChangeKind.LEARN:
            result.setdefault(member.id, learner(member))
        case ChangeKind.PROMOTE:
            if member.id in result:
                result[member.id] = learner(member) if undo else voter(member)
        case ChangeKind.REMOVE if undo:
            result.setdefault(member.id, member)
        case ChangeKind.REMOVE:
            result.pop(member.id, None)
    return result


def voter(member: Member) -> Member:
    return Member(member.id, member.raft_address, member.rpc_address, is_voter=True)


def learner(member: Member) -> Member:
    return Member(member.id, member.raft_address, member.rpc_address, is_voter=False)
