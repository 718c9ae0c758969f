"""One node as its API sees it: reads from the replicated state, everything else through the leader.

Puts the parts together and owns none of their rules.
"""

import contextlib
import hashlib
import json
import random
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from msgspec import structs

from cluster.agent.leaves import LeafCache, NewLeaf
from cluster.api.backups import Meta
from cluster.api.ca import ConfigUpdate, RotateRequest, RotationPlan, Steering, Uptake
from cluster.api.facts import Digest
from cluster.api.leaves import IssuedCert, LocalLeaf
from cluster.api.reads import WATCHED, ReadLevel, ReadPoint, Watch
from cluster.api.servers import ClusterInfo
from cluster.backup.restore import Snapshots
from cluster.base.clock import Clock
from cluster.base.config import NodeConfig
from cluster.base.errors import NoLeader, NotReady
from cluster.base.telemetry import Metrics
from cluster.ca.authority import Authority
from cluster.ca.health import HealthBoard
from cluster.ca.uptake import Watchers
from cluster.node.servers import Membership
from cluster.raft.replica import Replica
from cluster.record.reads import LedgerReads
from cluster.rpc.forward import Forwarder
from cluster.rpc.messages import (
    ADD_PEER,
    CLUSTER,
    CONFIGURE,
    DISTRUST_ROOT,
    PLAN_ROTATION,
    REMOVE_PEER,
    ROTATE,
    ROTATION_UPTAKE,
    SIGN,
    STEER_ROTATION,
    TRANSFER,
    AddPeerRequest,
    ConfigureRequest,
    DistrustRequest,
    Nothing,
    PlanRequest,
    RemovePeerRequest,
    RotationRequest,
    SignRequest,
    SteerRequest,
    TransferRequest,
)
from cluster.signing.pool import WorkerPool
from cluster.signing.serials import new_serial
from fsm.codec import dump_state
from fsm.ledger import LedgerQuery, LedgerRow
from fsm.state import Area, State
from providers.errors import CSRRejected
from providers.pki.serials import serial_bytes
from providers.pki.spiffe import Kind, SpiffeError, SpiffeId, parse

_MAX_REQUESTER: Final = 128
_REQUEST_ID_BYTES: Final = 16
_NO_ROOT: Final = "CA is uninitialized and unable to sign certificates yet: no root certificate"


class NodeService:
    """Implements `cluster.api.service.Service`."""

    def __init__(
        self,
        config: NodeConfig,
        replica: Replica,
        authority: Authority,
        health: HealthBoard,
        forwarder: Forwarder,
        membership: Membership,
        ledger: LedgerReads,
        pool: WorkerPool,
        watchers: Watchers,
        snapshots: Snapshots,
        clock: Clock,
        metrics: Metrics,
    ) -> None:
        self.config = config
        self._snapshots = snapshots
        self.metrics = metrics
        self._replica = replica
        self._authority = authority
        self._health = health
        self._forwarder = forwarder
        self._membership = membership
        self._ledger = ledger
        self._pool = pool
        self._watchers = watchers
        self._wait_seconds = config.limits.leader_wait_ms / 1000
        rng = random.Random(secrets.randbits(64))  # noqa: S311 - spreads renewals, no secret
        self._leaves = LeafCache(self._new_leaf, _Roots(self), clock, rng)
        metrics.leaf_cache_entries.set_function(lambda: len(self._leaves))

    # -- reading the state

    async def read(self, level: ReadLevel) -> ReadPoint:
        if level is ReadLevel.LINEARIZABLE:
            await self._replica.read_barrier(timeout=self._wait_seconds)
        return self._point()

    async def watch(self, level: ReadLevel, index: int, what: Watch, timeout_seconds: float) -> ReadPoint:
        point, watched = await self.read(level), WATCHED[what]
        if watched.index_of(point.state) <= index:
            with self._watchers.waiting(index) if watched.is_counted else contextlib.nullcontext():
                await self._replica.wait_for_index(index, watched.index_of, watched.area, timeout=timeout_seconds)
        return self._point()

    def _point(self) -> ReadPoint:
        leadership = self._replica.leadership
        contact = 0.0 if leadership.leader_id == self.config.node_name else self._replica.leader_contact_seconds
        contact_ms = 0 if contact == float("inf") else int(1000 * contact)
        return ReadPoint(self._replica.state, leadership.leader_id is not None, contact_ms)

    async def state_changed(self, ca_index: int) -> State:
        while self._replica.state.ca_index == ca_index:
            await self._replica.changed[Area.CA].wait()
        return self._replica.state

    # -- the CA

    async def sign(self, csr_pem: str, requested_by: str) -> IssuedCert:
        # The serial names the request wherever it is sent: the ledger takes it once.
        request = SignRequest(csr_pem, serial_bytes(new_serial()), requested_by[:_MAX_REQUESTER])
        return (await self._forwarder.call(SIGN, request)).value()

    async def configure(self, update: ConfigUpdate) -> None:
        state = (await self.read(ReadLevel.LINEARIZABLE)).state
        request = ConfigureRequest(
            provider=update.provider,
            config=json.dumps(update.config),
            state=None if update.state is None else dict(update.state),
            force_without_cross_signing=update.force_without_cross_signing,
            modify_index=update.modify_index,
            is_staged=update.is_staged,
            wait_seconds=update.wait_seconds,
            request_id=secrets.token_bytes(_REQUEST_ID_BYTES),
            ca_index=state.ca_index,
            is_repeat=False,
        )
        await self._forwarder.call(CONFIGURE, request, structs.replace(request, is_repeat=True))
        await self._catch_up()

    async def _catch_up(self) -> None:
        """Read your writes, on whatever node they were made. But what is done is done, even if the leader is lost now:
        an error would say that it had no effect.
        """
        with contextlib.suppress(NoLeader):
            await self.read(ReadLevel.LINEARIZABLE)

    async def plan_rotation(self, request: RotateRequest) -> RotationPlan:
        return (await self._forwarder.call(PLAN_ROTATION, PlanRequest.of(request))).value()

    async def rotate(self, request: RotateRequest) -> None:
        state = (await self.read(ReadLevel.LINEARIZABLE)).state
        wanted = RotationRequest(
            key_type=request.key_type,
            key_bits=request.key_bits,
            is_forced=request.is_forced,
            is_staged=request.is_staged,
            wait_seconds=request.wait_seconds,
            request_id=secrets.token_bytes(_REQUEST_ID_BYTES),
            ca_index=state.ca_index,
            is_repeat=False,
        )
        await self._forwarder.call(ROTATE, wanted, structs.replace(wanted, is_repeat=True))
        await self._catch_up()

    async def steer_rotation(self, steering: Steering) -> None:
        await self._forwarder.call(STEER_ROTATION, SteerRequest(steering))
        await self._catch_up()

    async def rotation_uptake(self) -> Uptake | None:
        return (await self._forwarder.call(ROTATION_UPTAKE, Nothing())).value()

    async def distrust_root(self, root_id: str) -> None:
        await self._forwarder.call(DISTRUST_ROOT, DistrustRequest(root_id))
        await self._catch_up()

    async def save_snapshot(self, path: Path, level: ReadLevel) -> Meta:
        await self.read(level)
        return await self._snapshots.save(path)

    async def restore_snapshot(self, path: Path) -> None:
        await self._snapshots.restore(path)

    def ca_trouble(self) -> str:
        return self._health.now.trouble

    async def find_cert(self, serial: bytes, level: ReadLevel) -> LedgerRow | None:
        await self.read(level)
        return await self._ledger.call(lambda reader: reader.find(serial))

    async def search_certs(self, query: LedgerQuery, level: ReadLevel) -> list[LedgerRow]:
        await self.read(level)
        return await self._ledger.call(lambda reader: reader.search(query))

    # -- local services

    async def leaf(self, service: str, requested_by: str, *, index: int = 0, timeout_seconds: float = 0.0) -> LocalLeaf:
        self._check_service_name(service)
        return await self._leaves.get(service, requested_by, index, timeout_seconds)

    def _check_service_name(self, service: str) -> None:
        try:
            parse(self._service_id("quorumca.consul", service))
        except SpiffeError as error:
            raise CSRRejected(str(error)) from error

    def _service_id(self, trust_domain: str, service: str) -> str:
        return SpiffeId(Kind.SERVICE, trust_domain, self.config.datacenter, service).uri

    async def _new_leaf(self, service: str, requested_by: str) -> NewLeaf:
        state = self._replica.state
        if state.active_root is None:
            state = (await self.read(ReadLevel.LINEARIZABLE)).state
        if state.active_root is None:
            raise NotReady(f"{_NO_ROOT}: {trouble}" if (trouble := self._health.now.trouble) else _NO_ROOT)
        csr_pem, key_pem = await self._pool.make_csr(self._service_id(state.trust_domain, service), (), ())
        return NewLeaf(await self.sign(csr_pem, requested_by), key_pem)

    # -- the cluster

    def leader_address(self) -> str:
        leader = self._replica.members.get(self._replica.leadership.leader_id or "")
        return leader.raft_address if leader else ""

    def peer_addresses(self) -> list[str]:
        return [member.raft_address for _, member in sorted(self._replica.members.items())]

    async def cluster(self, level: ReadLevel) -> ClusterInfo:
        if level is ReadLevel.STALE:
            return await self._membership.info()
        return (await self._forwarder.call(CLUSTER, Nothing())).value()

    async def transfer_leader(self, name: str | None) -> None:
        await self._forwarder.call(TRANSFER, TransferRequest(name))

    async def add_peer(self, name: str, raft_address: str, rpc_address: str) -> None:
        await self._forwarder.call(ADD_PEER, AddPeerRequest(name, raft_address, rpc_address))

    async def remove_peer(self, name: str | None, raft_address: str | None) -> None:
        await self._forwarder.call(REMOVE_PEER, RemovePeerRequest(name, raft_address))

    async def digest(self) -> Digest:
        applied_index, state, ledger = await self._replica.digest()
        return Digest(applied_index, hashlib.sha256(dump_state(state)).hexdigest(), ledger.count, ledger.digest)

    def stats(self) -> Mapping[str, Mapping[str, str]]:
        leadership = self._replica.leadership
        state = self._replica.state
        return {
            "ca": {
                "initialized": str(state.active_root is not None).lower(),
                "provider": state.config.provider if state.config else "",
                "ready": str(self._authority.is_ready).lower(),
                "trouble": self._health.now.trouble,
                "warnings": "\n".join(self._health.now.warnings),
            },
            "raft": {
                "applied_index": str(self._replica.applied_index),
                "leader": leadership.leader_id or "",
                "num_peers": str(max(0, len(self._replica.members) - 1)),
                "state": "Leader" if leadership.is_ready else "Follower",
                "term": str(leadership.term),
            },
            "quorumca": {"leader": str(leadership.is_ready).lower(), "server": "true", "state_index": str(state.index)},
        }


class _Roots:
    """`cluster.agent.leaves.RootFeed` over a node."""

    def __init__(self, service: NodeService) -> None:
        self._service = service

    async def current(self) -> State:
        try:
            return (await self._service.read(ReadLevel.LINEARIZABLE)).state
        except NoLeader:
            return (await self._service.read(ReadLevel.STALE)).state

    async def changed(self, ca_index: int) -> State:
        return await self._service.state_changed(ca_index)
