"""Who belongs to the Raft cluster: values only, as they stand in log entries, snapshots and in memory.

A server is known by its name and, once that is pinned, by its key: a certificate of the agent CA with this name and
another key is nobody's. Names of servers that were removed stay here too, so that whoever has the key of one of them
is refused with the reason, until an operator adds the name again.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final

MAX_NAME_LENGTH: Final = 63
#: More make every write slower and no cluster safer: with nine, four may fail.
MAX_SERVERS: Final = 9
#: Of one server: the key in use, and the next one while it is exchanged.
MAX_KEYS: Final = 2


@dataclass(frozen=True, slots=True, order=True)
class Member:
    """One server. `id` is its name, which its TLS certificate must carry; addresses are `host:port`."""

    id: str
    raft_address: str
    rpc_address: str
    is_voter: bool = True
    #: One of these must be the key of its certificate (`cluster/tls/keys.py`), the newest last. Empty: not pinned yet.
    keys: tuple[bytes, ...] = ()


class ChangeKind(StrEnum):
    LEARN = "learn"  # add as a learner: receives the log, has no vote
    PROMOTE = "promote"  # learner becomes voter
    REMOVE = "remove"
    PIN = "pin"  # the member's keys take the place of those before


@dataclass(frozen=True, slots=True)
class MembershipChange:
    """One single-server change (Raft thesis 4.1). `member` is complete in every kind, so a change can be undone."""

    kind: ChangeKind
    member: Member
    keys_before: tuple[bytes, ...] = ()  # of PIN
    was_removed: bool = False  # of LEARN: the name of a server that was removed is taken into use again


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
        case ChangeKind.PIN:
            if member.id in result:
                keys = change.keys_before if undo else member.keys
                result[member.id] = replace(result[member.id], keys=keys)
    return result


def removed_after(removed: frozenset[str], change: MembershipChange, *, undo: bool = False) -> frozenset[str]:
    """The names of removed servers after `change`, or before it.

    Only of those whose key was pinned: before that, logs and snapshots have no place for them.
    """
    name = change.member.id
    match change.kind:
        case ChangeKind.REMOVE if change.member.keys:
            return removed - {name} if undo else removed | {name}
        case ChangeKind.LEARN if undo and change.was_removed:
            return removed | {name}
        case ChangeKind.LEARN if not undo:
            return removed - {name}
    return removed


def shuts_out(change: MembershipChange) -> bool:
    """Whether somebody who was heard is not heard any more because of this change."""
    if change.kind is ChangeKind.REMOVE:
        return bool(change.member.keys)
    return change.kind is ChangeKind.PIN and not set(change.keys_before) <= set(change.member.keys)


def still_counted(
    members: Members, removed: frozenset[str], change: MembershipChange
) -> tuple[dict[str, Member], frozenset[str]]:
    """The same with whom the change would shut out, as long as it may be taken back."""
    result, member = dict(members), change.member
    if change.kind is ChangeKind.REMOVE:
        result.setdefault(member.id, member)
    elif shuts_out(change) and member.id in result:
        known = result[member.id]
        former = tuple(key for key in change.keys_before if key not in known.keys)
        result[member.id] = replace(known, keys=(*known.keys, *former))
    return result, removed - {member.id}


def voter(member: Member) -> Member:
    return replace(member, is_voter=True)


def learner(member: Member) -> Member:
    return replace(member, is_voter=False)
