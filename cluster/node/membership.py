"""The servers of the Raft cluster, on the leader: their health, adding, removing, handing over.

A change may wait until another is over. Whoever asks for one is judged again when its turn has come (`judge`).
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

from cluster.api.access import Judge
from cluster.api.servers import ClusterInfo, ServerInfo
from cluster.base.clock import Clock
from cluster.base.errors import BadRequest, Conflict, NotFound, NotLeader, Refused
from cluster.base.log import Log
from cluster.base.names import is_address, is_node_name
from cluster.raft.admission import is_key_of
from cluster.raft.membership import MAX_SERVERS, ChangeKind, Member
from cluster.raft.node import NodeStatus
from cluster.raft.replica import Replica

#: A server that has been silent for longer is not healthy. A follower answers every heartbeat, 20 a second.
_HEALTHY_CONTACT_SECONDS: Final = 1.0
_CHANGE_SECONDS: Final = 10.0
#: How long another change under way is waited for: adding a server ends with its promotion.
_PATIENCE_SECONDS: Final = 5.0
_PAUSE_SECONDS: Final = 0.05
_HAND_OVER_SECONDS: Final = 5.0


class Membership:
    """As this node sees them; what changes something is for the leader."""

    def __init__(self, replica: Replica, node_name: str, clock: Clock, log: Log) -> None:
        self._replica = replica
        self._node_name = node_name
        self._clock = clock
        self._log = log
        self._stable_since: dict[str, tuple[bool, int]] = {}

    async def info(self) -> ClusterInfo:
        """As this node sees it; whole only on the leader."""
        status = await self._replica.status()
        servers = tuple(self._server(member, status) for _, member in sorted(status.members.items()))
        return ClusterInfo(servers, status.commit_index)

    def _server(self, member: Member, status: NodeStatus) -> ServerInfo:
        is_self = member.id == status.node_id
        contact = 0.0 if is_self else status.contact_age_seconds.get(member.id)
        if contact is None and member.id == status.leader_id:
            contact = self._replica.leader_contact_seconds
        is_healthy = contact is not None and contact < _HEALTHY_CONTACT_SECONDS
        return ServerInfo(
            name=member.id,
            raft_address=member.raft_address,
            rpc_address=member.rpc_address,
            is_leader=member.id == status.leader_id,
            is_voter=member.is_voter,
            is_healthy=is_healthy,
            last_contact_ms=None if contact is None or contact == float("inf") else int(1000 * contact),
            last_term=status.term,
            last_index=status.last_index if is_self else status.match_index.get(member.id, 0),
            stable_since=self._since(member.id, is_healthy),
        )

    async def is_heard(self, name: str) -> bool:
        """Whether this leader hears from that server."""
        return any(server.name == name and server.is_healthy for server in (await self.info()).servers)

    def _since(self, name: str, is_healthy: bool) -> int:
        known = self._stable_since.get(name)
        if known is None or known[0] != is_healthy:
            known = self._stable_since[name] = (is_healthy, int(self._clock.now()))
        return known[1]

    async def transfer(self, name: str | None, judge: Judge) -> None:
        """Raises: as `judge`; BadRequest, Refused, NotLeader."""
        self._require_leader()
        member = self._replica.members.get(name) if name is not None else None
        if name is not None and member is None:
            raise BadRequest(f"id {name!r:.100} is no server of this cluster: must be one of {self._names()}")
        if name == self._node_name:
            raise Refused(f"{name} leads already")
        if member is not None and not member.is_voter:
            raise Refused(f"{name} does not vote yet: it has not caught up")
        by = judge().by
        if not await self._replica.hand_over(_HAND_OVER_SECONDS, name):
            raise Refused("no other voter has caught up, so leadership stays here")
        self._log("leader.handed_over", to=name or "any", by=by)

    async def add(self, name: str, raft_address: str, rpc_address: str, judge: Judge) -> None:
        """Raises: as `judge`; BadRequest, Refused, NotLeader, CommitUnknown."""
        self._require_leader()
        if not is_node_name(name):
            raise BadRequest(
                f"ID {name!r:.100} is not allowed: must be a DNS label: lower-case letters, digits and inner hyphens"
            )
        for field, address in (("Address", raft_address), ("RPC", rpc_address)):
            if not is_address(address):
                raise BadRequest(f"{field} {address!r:.100} is not allowed: must be host:port")
        if raft_address == rpc_address:
            raise BadRequest(f"RPC {rpc_address!r:.100} is not allowed: must be another than Address")
        new = Member(name, raft_address, rpc_address, is_voter=False)

        by = ""

        async def next_change() -> Member | None:
            nonlocal by
            by = judge().by
            return new if self._is_unknown(new) else None

        if await self._change(ChangeKind.LEARN, next_change):
            self._log("member.added", member=name, raft=raft_address, rpc=rpc_address, by=by)
        else:
            await self._replica.dial_at_once(name)
            await self._pin_present_key(name, judge)

    async def admit(self, member: Member) -> None:
        """A newcomer whose key is known from the start: nobody else with its name is ever heard.

        Raises: Conflict, Refused, NotLeader, CommitUnknown.
        """
        self._require_leader()

        async def next_change() -> Member | None:
            self.check_newcomer(member)
            return member

        if await self._change(ChangeKind.LEARN, next_change):
            self._log("member.added", member=member.id, raft=member.raft_address, rpc=member.rpc_address)

    def check_newcomer(self, new: Member) -> None:
        """Raises: Conflict, Refused."""
        if new.id in self._replica.members:
            raise Conflict(f"{new.id} is a server already: it comes back with a token for that (-rejoin)")
        self._is_unknown(new)

    async def admit_again(self, member: Member) -> None:
        """A server under another certificate, which an operator's token stands for: its key takes the place of those
        before. Raises: Refused, NotLeader, CommitUnknown.
        """
        self._require_leader()

        async def next_keys() -> tuple[Member, tuple[bytes, ...]] | None:
            known = self.returning(member)
            return None if known.keys == member.keys else (known, member.keys)

        if pinned := await self._pin(next_keys):
            self._log("member.key_changed", member=member.id, key=pinned[-1].hex(), by="join token")

    def returning(self, member: Member) -> Member:
        """As it is known. Raises: Refused."""
        known = self._replica.members.get(member.id)
        if known is None:
            raise Refused(f"{member.id} is no server of this cluster: it joins with a token without -rejoin")
        if (known.raft_address, known.rpc_address) != (member.raft_address, member.rpc_address):
            raise Refused(
                f"{member.id} is a server at {known.raft_address} and {known.rpc_address}: to move it, remove it first"
            )
        return known

    async def _pin_present_key(self, name: str, judge: Judge) -> None:
        """A server that is added again as it is: perhaps with another key, which an operator answers for.

        Raises: as `judge`; Refused, NotLeader, CommitUnknown.
        """

        by = ""

        async def next_keys() -> tuple[Member, tuple[bytes, ...]] | None:
            nonlocal by
            member = self._replica.members.get(name)
            if member is None or not member.keys:
                return None  # pinned as soon as it is seen
            key = await self._replica.look_up_key(member)
            by = judge().by
            return None if key is None or member.keys == (key,) else (member, (key,))

        if pinned := await self._pin(next_keys):
            self._log("member.key_changed", member=name, key=pinned[-1].hex(), by=by)

    async def announce_key(self, name: str, key: bytes) -> None:
        """A server is about to use another key; from now on both count. Raises: Refused, NotLeader, CommitUnknown."""
        self._require_leader()

        async def next_keys() -> tuple[Member, tuple[bytes, ...]] | None:
            member = self._replica.members.get(name)
            if member is None or not member.keys:
                raise Refused(f"no key is pinned for {name}")
            if is_key_of(key, member.keys):
                return None
            if not self._replica.admission.counts(key):
                # The name alone would count, and the key that is pinned again then is not the one in use.
                raise Refused(
                    f"the new certificate of {name} has expired, or is of a CA that the leader does not trust"
                )
            if len(member.keys) > 1:
                raise Refused(f"another exchange of the key of {name} is under way")
            return member, (*member.keys, key)

        if await self._pin(next_keys):
            self._log("member.key_announced", member=name, key=key.hex())

    async def drop_old_keys(self) -> None:
        """Raises: Refused, NotLeader, CommitUnknown."""
        for name in [name for name, member in self._replica.members.items() if len(member.keys) > 1]:

            async def next_keys(name: str = name) -> tuple[Member, tuple[bytes, ...]] | None:
                member = self._replica.members.get(name)
                if member is None or len(member.keys) < 2:
                    return None
                seen = await self._replica.look_up_key(member)
                return (member, (seen,)) if seen is not None and is_key_of(seen, member.keys[-1:]) else None

            if pinned := await self._pin(next_keys):
                self._log("member.key_changed", member=name, key=pinned[-1].hex(), by="itself")

    async def _pin(
        self, next_keys: Callable[[], Awaitable[tuple[Member, tuple[bytes, ...]] | None]]
    ) -> tuple[bytes, ...]:
        """As `_change`: what was committed, or nothing."""
        deadline = self._clock.monotonic() + _PATIENCE_SECONDS
        while (wanted := await next_keys()) is not None:
            member, keys = wanted
            try:
                await self._replica.pin(member, keys, timeout=_CHANGE_SECONDS)
                return keys
            except Refused:
                if self._clock.monotonic() >= deadline:
                    raise
                await asyncio.sleep(_PAUSE_SECONDS)
        return ()

    def _is_unknown(self, new: Member) -> bool:
        """Whether it is to be added; False if it is a server already, just so. Raises: Refused."""
        known = self._replica.members.get(new.id)
        if known is not None:
            if (known.raft_address, known.rpc_address) == (new.raft_address, new.rpc_address):
                return False
            raise Refused(f"ID {new.id!r} is a server already, at {known.raft_address}: remove it first")
        for other in self._replica.members.values():
            for field, address in (("Address", new.raft_address), ("RPC", new.rpc_address)):
                if address in (other.raft_address, other.rpc_address):
                    raise Refused(f"{field} {address!r} is an address of the server {other.id}: remove it first")
        self._require_room(new.id)
        return True

    def _require_room(self, name: str) -> None:
        """Raises: Conflict."""
        members = self._replica.members.values()
        if len(members) >= MAX_SERVERS:
            raise Conflict(
                f"ID {name!r} would be the tenth server: a cluster has at most {MAX_SERVERS}; remove one first"
            )
        if learning := [member.id for member in members if not member.is_voter]:
            raise Conflict(
                f"{learning[0]} was added and has no vote yet, and servers are added one at a time: wait until it has"
                f" caught up, or remove it (`quorumca operator raft remove-peer -id {learning[0]}`)"
            )

    async def remove(self, name: str | None, raft_address: str | None, judge: Judge) -> None:
        """Raises: as `judge`; NotFound, Refused, NotLeader, CommitUnknown."""
        self._require_leader()

        by = ""

        async def next_change() -> Member:
            nonlocal by
            member = self._found(name, raft_address)
            if len(self._replica.members) == 1:
                raise Refused("the only server cannot be removed")
            if member.id != self._node_name:
                await self._require_quorum_without(member)
            by = judge().by
            if member.id == self._node_name:
                # Whoever leads next removes this node; the request goes on there.
                if not await self._replica.hand_over(_HAND_OVER_SECONDS):
                    raise Refused("the leader cannot be removed while no other voter has caught up")
                raise NotLeader("leadership was handed over first")
            return member

        if member := await self._change(ChangeKind.REMOVE, next_change):
            self._log("member.removed", member=member.id, by=by)

    def _found(self, name: str | None, raft_address: str | None) -> Member:
        for member in self._replica.members.values():
            if (name is not None and member.id == name) or (
                raft_address is not None and member.raft_address == raft_address
            ):
                return member
        raise NotFound(f"{name or raft_address!r:.100} is no server of this cluster: must be one of {self._names()}")

    async def _require_quorum_without(self, leaving: Member) -> None:
        """A removal that leaves no quorum cannot be undone: refuse it. Raises: Refused."""
        servers = [server for server in (await self.info()).servers if server.is_voter and server.name != leaving.id]
        silent = [server.name for server in servers if not server.is_healthy]
        if leaving.is_voter and len(servers) - len(silent) <= len(servers) // 2:
            raise Refused(
                f"without {leaving.id} the cluster would have no quorum: {', '.join(silent)} cannot be reached;"
                " bring it back, or remove it first"
            )

    async def _change(self, kind: ChangeKind, next_change: Callable[[], Awaitable[Member | None]]) -> Member | None:
        """`next_change` is called before every try, because another change may have been made meanwhile."""
        deadline = self._clock.monotonic() + _PATIENCE_SECONDS
        while (member := await next_change()) is not None:
            try:
                await self._replica.change_membership(kind, member, timeout=_CHANGE_SECONDS)
                return member
            except Refused:
                if self._clock.monotonic() >= deadline:
                    raise
                await asyncio.sleep(_PAUSE_SECONDS)
        return None

    def _require_leader(self) -> None:
        if not self._replica.leadership.is_ready:
            raise NotLeader("this node does not lead")

    def _names(self) -> str:
        return ", ".join(sorted(self._replica.members))
