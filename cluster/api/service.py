"""What one node offers to whoever speaks for clients (the HTTP API): values and one Protocol, no behaviour.

`cluster.node.service.NodeService` is the real thing. Everything here may be called on any node; what only the leader
can do is forwarded, waits for a leader while none is known, and raises an error of `cluster.base.errors` that says
whether it was done.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from cluster.api.backups import Meta
from cluster.api.ca import ConfigUpdate, RotateRequest, RotationPlan, Steering, Uptake
from cluster.api.facts import Digest
from cluster.api.leaves import IssuedCert, LocalLeaf
from cluster.api.reads import ReadLevel, ReadPoint, Watch
from cluster.api.servers import ClusterInfo
from cluster.base.config import NodeConfig
from cluster.base.telemetry import Metrics
from fsm.ledger import LedgerQuery, LedgerRow


class Service(Protocol):
    """One node, as its HTTP API sees it."""

    config: NodeConfig
    metrics: Metrics

    # -- reading the state

    async def read(self, level: ReadLevel) -> ReadPoint:
        """Raises: NoLeader when no leader confirms in time (LINEARIZABLE only)."""
        ...

    async def watch(self, level: ReadLevel, index: int, what: Watch, timeout_seconds: float) -> ReadPoint:
        """A blocking query: `read`, then wait until the index of `what` is above `index`, or for the time-out."""
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
