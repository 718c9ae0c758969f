"""How far clients have taken up a root that is published and does not sign yet (staged rotation).

A client that watches the roots says in its next blocking query which index it has seen: whoever waits at or after the
index of the publication has the new root. Where nobody watches, renewed leaves count: whoever fetches a leaf fetches
the roots.
"""

import asyncio
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final, Protocol

from cluster.api.ca import Uptake
from cluster.base.errors import ClusterError
from cluster.ca.parts import Parts
from cluster.raft.membership import Member
from cluster.rpc.messages import WATCHERS, WatchersRequest
from cluster.rpc.operation import A, Operation, Q
from fsm.ca import Rotation, RotationPhase
from providers.errors import ProviderError

#: A server that does not answer in time is left out of this look.
_ASK_SECONDS: Final = 1.0


class Peers(Protocol):
    """The way to the other servers."""

    async def ask(self, member: Member, operation: Operation[Q, A], request: Q, seconds: float) -> A:
        """Raises: ClusterError, NoLeader among them when there is no answer."""
        ...


class Watchers:
    """The blocking queries on the roots that wait on this node, by the index their clients have seen."""

    def __init__(self) -> None:
        self._waiting: Counter[int] = Counter()

    @contextmanager
    def waiting(self, index: int) -> Iterator[None]:
        self._waiting[index] += 1
        try:
            yield
        finally:
            self._waiting[index] -= 1
            if not self._waiting[index]:
                del self._waiting[index]

    def count(self, published_index: int) -> tuple[int, int]:
        """All, and those that have seen the publication."""
        seen = sum(count for index, count in self._waiting.items() if index >= published_index)
        return self._waiting.total(), seen


class UptakeMeter:
    """The leader's: asks all servers."""

    def __init__(self, parts: Parts, peers: Peers, watchers: Watchers, node_name: str) -> None:
        self._parts = parts
        self._replica = parts.replica
        self._peers = peers
        self._watchers = watchers
        self._node_name = node_name
        self._rotation_id = ""
        self._most = 0

    async def measure(self, rotation: Rotation) -> Uptake:
        """Of a rotation in phase WAIT."""
        assert rotation.phase is RotationPhase.WAIT
        if rotation.rotation_id != self._rotation_id:
            self._rotation_id, self._most = rotation.rotation_id, 0
        counts = await asyncio.gather(*(self._count(name, rotation) for name in self._replica.members))
        total, seen = (sum(column) for column in zip(*counts, strict=True))
        # Between being woken and asking again a client is not counted; so keep the largest total seen.
        self._most = max(self._most, total)
        now = self._parts.unix_now
        held, renewed = await self._parts.ledger.call(lambda reader: reader.identities(now, rotation.published_index))
        return Uptake(self._most, seen, held, renewed)

    async def _count(self, name: str, rotation: Rotation) -> tuple[int, int]:
        if name == self._node_name:
            return self._watchers.count(rotation.published_index)
        member = self._replica.members.get(name)
        try:
            if member is not None:
                request = WatchersRequest(rotation.published_index)
                answer = await self._peers.ask(member, WATCHERS, request, _ASK_SECONDS)
                return answer.waiting, answer.seen
        except (ClusterError, ProviderError):  # of whatever kind it says
            pass
        return 0, 0
