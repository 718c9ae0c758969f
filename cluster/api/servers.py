"""The servers of the Raft cluster."""

from dataclasses import dataclass
from typing import Protocol

from cluster.api.access import Caller
from cluster.api.reads import ReadLevel


@dataclass(frozen=True, slots=True)
class ServerInfo:
    """One server of the Raft cluster, as the leader sees it."""

    name: str
    raft_address: str
    rpc_address: str
    is_leader: bool
    is_voter: bool
    is_healthy: bool
    last_contact_ms: int | None  # None: never heard of, or not known on this node
    last_term: int
    last_index: int  # Raft log index
    stable_since: int  # Unix seconds: when its health last changed, as far as this leader has seen


@dataclass(frozen=True, slots=True)
class ClusterInfo:
    """The Raft cluster."""

    servers: tuple[ServerInfo, ...]  # in name order
    log_index: int

    @property
    def failure_tolerance(self) -> int:
        """How many healthy voters may fail before the quorum is lost."""
        voters = [server for server in self.servers if server.is_voter]
        healthy = sum(server.is_healthy for server in voters)
        return max(0, healthy - (len(voters) // 2 + 1))

    @property
    def is_healthy(self) -> bool:
        return all(server.is_healthy for server in self.servers) and any(server.is_leader for server in self.servers)


class Servers(Protocol):
    """The Raft cluster."""

    def leader_address(self) -> str:
        """Raft address of the leader as this node knows it, or ""."""
        ...

    def peer_addresses(self) -> list[str]:
        """Raft addresses of all servers as this node knows them, in name order."""
        ...

    async def cluster(self, level: ReadLevel) -> ClusterInfo:
        """As the leader sees it; STALE: as this node does. Raises: NoLeader."""
        ...

    async def transfer_leader(self, caller: Caller, name: str | None) -> None:
        """Raises: BadRequest for an unknown or non-voting server, Refused, NoLeader."""
        ...

    async def add_peer(self, caller: Caller, name: str, raft_address: str, rpc_address: str) -> None:
        """As a learner, which votes once it has caught up. Adding a server again as it is changes nothing.

        Raises: BadRequest, Refused (422), NoLeader, CommitUnknown.
        """
        ...

    async def remove_peer(self, caller: Caller, name: str | None, raft_address: str | None) -> None:
        """By one of the two. Raises: as `add_peer`; NotFound."""
        ...
