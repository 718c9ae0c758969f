"""Whom this node listens to: what the configuration that it knows says of a name and a key.

The configuration is the one at the end of this node's own log, as everywhere in Raft, so a node that was away judges by
what it knew last. For both ports between nodes; a Raft connection of a stranger may stay, because a server that was
added meanwhile may be on it, but nothing of it is heard before a server that this node knows has vouched for it.
"""

import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Final

from cluster.base.log import Log, Seldom
from cluster.raft.codec import Message
from cluster.raft.core import RaftCore
from cluster.raft.membership import Member, Members
from cluster.tls.keys import anchor_part, expiry_part, public_part

#: How often servers are asked about one stranger, how long an answer is waited for, and about how many at a time.
_ASK_SECONDS: Final = 0.5
_ANSWER_SECONDS: Final = 5.0
_MAX_STRANGERS: Final = 16


def is_key_of(key: bytes, keys: Collection[bytes]) -> bool:
    """Whether a key is one of these, by whichever CA it is trusted now."""
    return any(public_part(known) == public_part(key) for known in keys)


class Standing(Enum):
    """Of somebody whose certificate the agent CA has made for a server of this datacenter."""

    MEMBER = auto()
    GUEST = auto()  # no member as far as this node knows, and heard as a leader while no other one is
    STRANGER = auto()  # no member; nothing of it counts
    UNPINNED = auto()  # added, and its key is not known yet: it is dialled, and not heard
    REFUSED = auto()  # removed, or under another key than its name has


@dataclass(frozen=True, slots=True)
class Word:
    """The keys of a server, as another server has said."""

    keys: tuple[bytes, ...]
    by: str
    #: By which that other one was known when it said so; it counts for as long as one of them is that one's.
    by_keys: tuple[bytes, ...]


def still_vouched(vouched: Mapping[str, Word], members: Members) -> dict[str, Word]:
    """Without the word of servers that were removed since, or whose key was exchanged, and of those that were heard
    because of such a word.
    """
    kept = dict(vouched)
    while lost := [name for name, word in kept.items() if not _counts(word, members, kept)]:
        for name in lost:
            del kept[name]
    return kept


def _counts(word: Word, members: Members, vouched: Mapping[str, Word]) -> bool:
    if word.by not in members:
        return False
    keys = members[word.by].keys + (vouched[word.by].keys if word.by in vouched else ())
    return any(is_key_of(key, keys) for key in word.by_keys)


@dataclass(frozen=True, slots=True)
class Admission:
    """Replaced as a whole when the configuration changes."""

    members: Members
    removed: frozenset[str] = frozenset()
    #: Keys that this node does not know yet, or servers even, as a server that it knows has said.
    vouched: Mapping[str, Word] = field(default_factory=dict)
    #: Of the CAs that this node trusts; empty: not looked at.
    anchors: frozenset[bytes] = frozenset()
    #: Unix seconds.
    now: Callable[[], float] = field(default=time.time, compare=False)
    is_pinned: bool = field(init=False)

    def __post_init__(self) -> None:
        # Before the first key is pinned, a certificate of the agent CA and the name are all there is.
        object.__setattr__(self, "is_pinned", any(member.keys for member in self.members.values()))

    def standing(self, name: str, key: bytes) -> Standing:
        member = self.members.get(name)
        is_vouched = name in self.vouched and is_key_of(key, self.vouched[name].keys)
        if member is not None and is_vouched:
            return Standing.MEMBER  # its key came into the log, or into use, while this node was away
        if member is not None and self.is_known_by_key(member):
            return Standing.MEMBER if is_key_of(key, member.keys) else Standing.REFUSED
        if member is not None and member.keys:
            return Standing.MEMBER
        if member is not None:
            # A founder counts by its name until its turn has come: without its vote there might be no leader to pin it.
            return Standing.MEMBER if member.is_voter or not self.is_pinned else Standing.UNPINNED
        if name in self.removed:
            return Standing.REFUSED
        if not self.is_pinned or is_vouched:
            return Standing.GUEST
        return Standing.STRANGER

    def is_known_by_key(self, member: Member) -> bool:
        """Whether its keys count. They do not when this node trusts none of the CAs any more under which they were
        learnt: an operator has replaced the agent CA, and with it every certificate. Nor once its certificate has
        expired: whoever was away then could not prove the key, and has a new one perhaps. Then the name counts, among
        those that have a good certificate, until the leader has pinned what it sees.
        """
        return bool(member.keys) and self.counts(member.keys[-1])  # the other one is given up

    def counts(self, key: bytes) -> bool:
        """Whether a server can be known by this key."""
        if not self.anchors:
            return True
        return anchor_part(key) in self.anchors and self.now() < expiry_part(key)

    def refusal(self, name: str, key: bytes) -> str | None:
        """Why nothing is done for somebody who asks; None for a member."""
        standing = self.standing(name, key)
        if standing is Standing.MEMBER:
            return None
        if standing is Standing.UNPINNED:
            return f"{name} was added, and the leader has not seen its key yet"
        return self._why_refused(name) if standing is Standing.REFUSED else "no server of this cluster"

    def dial_refusal(self, name: str, key: bytes) -> str | None:
        """Why nothing is sent to a server that was dialled; None if it may be."""
        standing = self.standing(name, key)
        if standing is Standing.REFUSED:
            return self._why_refused(name)
        return "no server of this cluster" if standing is Standing.STRANGER else None

    def _why_refused(self, name: str) -> str:
        if name in self.members:
            return (
                f"the key of its certificate is not the one that is pinned for {name}: if it was exchanged, add the"
                " server again as it is (`quorumca operator raft add-peer`)"
            )
        return f"{name} was removed from this cluster"


class Introductions:
    """How a node that was away learns of a server that was added meanwhile, and may be its leader by now.

    It asks the servers that it knows. The word of one is enough: any of them may lead, and could bring the whole
    configuration then. When every server that a node knew is gone there is nobody to ask, and it starts again with an
    empty disk.
    """

    def __init__(
        self,
        core: RaftCore,
        send: Callable[[str, Message], bool],
        clock: Callable[[], float],
        vouched: Callable[[str, tuple[bytes, ...], str], None],
        log: Log,
    ) -> None:
        """`vouched` gets a name, its keys, and who says so."""
        self._core = core
        self._send = send
        self._clock = clock
        self._vouched = vouched
        self._log = Seldom(log, clock)
        self._asked: dict[str, float] = {}

    def ask_about(self, stranger: str) -> None:
        now = self._clock()
        self._asked = {name: asked for name, asked in self._asked.items() if now - asked < _ANSWER_SECONDS}
        asked = self._asked.get(stranger)
        if len(self._asked) >= _MAX_STRANGERS or (asked is not None and now - asked < _ASK_SECONDS):
            return
        self._asked[stranger] = now
        for peer, member in sorted(self._core.members.items()):
            if member.keys and peer != stranger:
                self._send(peer, {"type": "who_is", "name": stranger})

    def incoming(self, peer: str, message: Message) -> None:
        """From a member."""
        name = message["name"]
        member = self._core.members.get(name)
        if message["type"] == "who_is":
            if member is not None and member.keys:
                self._send(peer, {"type": "is_server", "name": name, "keys": member.keys})
        elif (
            name in self._asked
            and name != peer
            and name not in self._core.removed
            and (member is None or member.keys != tuple(message["keys"]))
        ):
            self._log("raft.server_vouched", peer, peer=name, by=peer)
            self._vouched(name, tuple(message["keys"]), peer)
