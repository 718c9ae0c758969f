"""What one node offers to whoever speaks for clients (the HTTP API): values and one Protocol, no behaviour.

`cluster.service.NodeService` is the real thing. Everything here may be called on any node; what only the leader can do
is forwarded, waits for a leader while none is known, and raises an error of `cluster.errors` that says whether it was
done.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum, StrEnum, auto
from pathlib import Path
from typing import Protocol

from cluster.backup import Meta
from cluster.config import NodeConfig
from cluster.telemetry import Metrics
from fsm.ledger import LedgerQuery, LedgerRow
from fsm.state import State


class ReadLevel(Enum):
    """How current a read has to be."""

    LINEARIZABLE = auto()  # everything committed before the read began is seen; what `default` and `consistent` mean
    STALE = auto()  # whatever this node has applied


def roots_index(state: State) -> int:
    """What a watch on the roots waits on. Given to `Service.watch` as it is: clients that wait on it are counted."""
    return state.roots_watch_index


@dataclass(frozen=True, slots=True)
class ReadPoint:
    """A consistent state, and how it was come by."""

    state: State
    has_leader: bool  # X-Consul-KnownLeader
    last_contact_ms: int  # since this node last heard from its leader; 0 on the leader


@dataclass(frozen=True, slots=True)
class IssuedCert:
    """A certificate that was signed and recorded."""

    serial: int
    cert_pem: str  # leaf first, then every certificate up to but not including the root; newline-terminated
    kind: str  # "service" | "agent" | "mesh-gateway" | "server"
    name: str  # service or node; "" for a mesh gateway or server
    spiffe_id: str
    not_before: int  # Unix seconds
    not_after: int
    index: int  # state index of its record: CreateIndex and ModifyIndex


@dataclass(frozen=True, slots=True)
class LocalLeaf:
    """A leaf that this node holds for a local service, with its private key."""

    cert: IssuedCert
    private_key_pem: str = field(repr=False)
    is_hit: bool  # answered from what was there: X-Cache
    age_seconds: int  # since it was issued


@dataclass(frozen=True, slots=True)
class ConfigUpdate:
    """A PUT of the CA configuration. `None` means that the client left it out."""

    provider: str
    config: Mapping[str, object] = field(repr=False)
    state: Mapping[str, str] | None
    force_without_cross_signing: bool
    modify_index: int  # 0: no check-and-set
    #: If the root changes: let clients learn the new one before it signs, and wait at most so long for them.
    is_staged: bool = False
    wait_seconds: int = 0


@dataclass(frozen=True, slots=True)
class RotateRequest:
    """A fresh key and root from the provider in use; what is None stays as configured."""

    key_type: str | None = None
    key_bits: int | None = None
    is_forced: bool = False  # without cross-signing
    is_staged: bool = False
    wait_seconds: int = 0


@dataclass(frozen=True, slots=True)
class RotationPlan:
    """What a rotation would do, without doing it."""

    active_root_id: str
    provider: str
    key_type: str  # of the new root
    key_bits: int
    is_forced: bool
    is_staged: bool
    chain_bytes: int  # what every leaf would carry, PEM, at most
    max_chain_bytes: int
    links: int  # cross-signed certificates in that chain
    trusted_roots: int  # listed once it is done
    affected_leaves: int  # on record and not expired, signed by a key that will no longer sign
    retired_until: int  # Unix seconds: when the active root would be pruned if it were rotated out now
    risks: tuple[str, ...]


class Steering(StrEnum):
    """What an operator may do to a staged rotation that waits, or, ABORT, to any that is under way."""

    PAUSE = "pause"
    RESUME = "resume"
    ACTIVATE = "activate"
    ABORT = "abort"


@dataclass(frozen=True, slots=True)
class Uptake:
    """How far clients have taken up the published root of a staged rotation."""

    watchers: int  # blocking queries on the roots, the most that were seen waiting
    watchers_seen: int  # of these, how many wait behind the publication
    identities: int  # SPIFFE IDs with a valid leaf
    identities_renewed: int  # of these, how many got one since the publication

    @property
    def percent(self) -> int:
        """Of the watchers; of the identities where nobody watches; 100 where there are no clients."""
        seen, of = (self.watchers_seen, self.watchers) if self.watchers else (self.identities_renewed, self.identities)
        return 100 if not of else min(100, 100 * seen // of)


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


@dataclass(frozen=True, slots=True)
class Digest:
    """What two nodes compare: equal at the same index on all of them."""

    applied_index: int
    state_digest: str
    ledger_count: int
    ledger_digest: str


class Service(Protocol):
    """One node, as its HTTP API sees it."""

    config: NodeConfig
    metrics: Metrics

    # -- reading the state

    async def read(self, level: ReadLevel) -> ReadPoint:
        """Raises: NoLeader when no leader confirms in time (LINEARIZABLE only)."""
        ...

    async def watch(
        self, level: ReadLevel, index: int, of: Callable[[State], int], timeout_seconds: float
    ) -> ReadPoint:
        """A blocking query: `read`, then wait until `of(state)` is above `index`, or for the time-out."""
        ...

    # -- the CA

    async def sign(self, csr_pem: str, requested_by: str) -> IssuedCert:
        """Signed, recorded on a majority, and only then returned.

        Raises: CSRRejected (400), RateLimitReached (429), NotReady, NoLeader, Overloaded (503), CommitUnknown (504),
        InternalError, ProviderError (500).
        """
        ...

    async def configure(self, update: ConfigUpdate) -> None:
        """Raises: BadRequest (400), StaleIndex (409), Refused (422), InternalError (500, Consul's texts), NotReady,
        NoLeader (503), CommitUnknown (504). All but the last had no effect.
        """
        ...

    async def plan_rotation(self, request: RotateRequest) -> RotationPlan:
        """Raises: as `rotate`, but changes nothing."""
        ...

    async def rotate(self, request: RotateRequest) -> None:
        """Until the new root signs, or is published if it is staged.

        Raises: BadRequest, Refused (422), InternalError (500), NotReady, NoLeader (503); CommitUnknown (504).
        """
        ...

    async def steer_rotation(self, steering: Steering) -> None:
        """Raises: Refused when there is no rotation that can be steered so; NoLeader, CommitUnknown."""
        ...

    async def rotation_uptake(self) -> Uptake | None:
        """None unless a published root waits for its clients."""
        ...

    async def distrust_root(self, root_id: str) -> None:
        """Stop trusting a retired root at once. Raises: NotFound, Refused (the active one), NoLeader, CommitUnknown."""
        ...

    async def save_snapshot(self, path: Path, level: ReadLevel) -> Meta:
        """Write the CA and the record of certificates to this file; what it holds.

        Raises: Refused before there is a CA, NoLeader, OSError.
        """
        ...

    async def restore_snapshot(self, path: Path) -> None:
        """Put the CA of this file in the place of the present one.

        Raises: Refused (422: no snapshot, damaged, sealed with another key; nothing was changed), OSError, NoLeader,
        CommitUnknown, InternalError.
        """
        ...

    def ca_trouble(self) -> str:
        """Why this node, as the leader, cannot bring the CA up at present; empty when it can or does not lead."""
        ...

    async def find_cert(self, serial: bytes, level: ReadLevel) -> LedgerRow | None:
        """`serial` is minimal big-endian."""
        ...

    async def search_certs(self, query: LedgerQuery, level: ReadLevel) -> list[LedgerRow]: ...

    # -- local services

    async def leaf(self, service: str, requested_by: str, *, index: int = 0, timeout_seconds: float = 0.0) -> LocalLeaf:
        """The leaf of a local service, made or renewed when it is due.

        With `index` at or above the present leaf's: wait until it is renewed, or for the time-out.
        Raises: as `sign`; CSRRejected for a name that cannot be one.
        """
        ...

    # -- the cluster

    def leader_address(self) -> str:
        """Raft address of the leader as this node knows it, or ""."""
        ...

    def peer_addresses(self) -> list[str]:
        """Raft addresses of all servers as this node knows them, in name order."""
        ...

    async def cluster(self, level: ReadLevel) -> ClusterInfo:
        """As the leader sees it; STALE: as this node does. Raises: NoLeader."""
        ...

    async def transfer_leader(self, name: str | None) -> None:
        """Raises: BadRequest for an unknown or non-voting server, Refused, NoLeader."""
        ...

    async def add_peer(self, name: str, raft_address: str, rpc_address: str) -> None:
        """As a learner, which votes once it has caught up. Adding a server again as it is changes nothing.

        Raises: BadRequest, Refused (422), NoLeader, CommitUnknown.
        """
        ...

    async def remove_peer(self, name: str | None, raft_address: str | None) -> None:
        """By one of the two. Raises: as `add_peer`; NotFound."""
        ...

    async def digest(self) -> Digest:
        """Of what this node has applied."""
        ...

    def stats(self) -> Mapping[str, Mapping[str, str]]:
        """Groups of facts for GET /v1/agent/self, all as text, as in Consul."""
        ...
