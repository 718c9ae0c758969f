"""One node as its API sees it: reads from the replicated state, everything else through the leader.

Puts the parts together and owns none of their rules.
"""

import contextlib
import hashlib
import json
import random
import secrets
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from cluster.agent.leaves import LeafCache, NewLeaf
from cluster.api.backups import Meta
from cluster.api.ca import ConfigUpdate, RotateRequest, RotationPlan, Steering, Uptake
from cluster.api.facts import Digest
from cluster.api.leaves import IssuedCert, LocalLeaf
from cluster.api.reads import ReadLevel, ReadPoint, roots_index
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
from cluster.rpc.forward import Call, Forwarder
from cluster.rpc.messages import (
    pack_rotate,
    unpack_cert,
    unpack_cluster,
    unpack_plan,
)
from cluster.signing.pipeline import minimal
from cluster.signing.pool import WorkerPool
from cluster.signing.serials import new_serial
from fsm.codec import dump_state
from fsm.ledger import LedgerQuery, LedgerRow
from fsm.state import State
from providers.errors import CSRRejected
from providers.pki.spiffe import Kind, SpiffeError, SpiffeId, parse

#: Keys of RSA 4096 take seconds, and a rotation is waited for.
_CONFIGURE_SECONDS: Final = 60.0
_MAX_REQUESTER: Final = 128
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

    async def watch(
        self, level: ReadLevel, index: int, of: Callable[[State], int], timeout_seconds: float
    ) -> ReadPoint:
        point = await self.read(level)
        if of(point.state) <= index:
            with self._watchers.waiting(index) if of is roots_index else contextlib.nullcontext():
                await self._replica.wait_for_index(index, of, timeout=timeout_seconds)
        return self._point()

    def _point(self) -> ReadPoint:
        leadership = self._replica.leadership
        contact = 0.0 if leadership.leader_id == self.config.node_name else self._replica.leader_contact_seconds
        contact_ms = 0 if contact == float("inf") else int(1000 * contact)
        return ReadPoint(self._replica.state, leadership.leader_id is not None, contact_ms)

    async def state_changed(self, ca_index: int) -> State:
        while self._replica.state.ca_index == ca_index:
            await self._replica.ca_changed.wait()
        return self._replica.state

    # -- the CA

    async def sign(self, csr_pem: str, requested_by: str) -> IssuedCert:
        # The serial names the request wherever it is sent: the ledger takes it once.
        argument = [csr_pem, minimal(new_serial()), requested_by[:_MAX_REQUESTER]]
        call = Call("sign", lambda _is_repeat: argument, is_repeatable=True, is_batched=True)
        return unpack_cert(await self._forwarder.call(call))

    async def configure(self, update: ConfigUpdate) -> None:
        state = (await self.read(ReadLevel.LINEARIZABLE)).state
        request_id = secrets.token_bytes(16)

        def argument(is_repeat: bool) -> list[Any]:
            return [
                update.provider,
                json.dumps(update.config),  # as text: JSON's numbers have no bounds, msgpack's do
                None if update.state is None else dict(update.state),
                update.force_without_cross_signing,
                update.modify_index,
                update.is_staged,
                update.wait_seconds,
                request_id,
                state.ca_index,
                is_repeat,
            ]

        await self._forwarder.call(Call("configure", argument, is_repeatable=True, seconds=_CONFIGURE_SECONDS))
        await self._catch_up()

    async def _catch_up(self) -> None:
        """Read your writes, on whatever node they were made. But what is done is done, even if the leader is lost now:
        an error would say that it had no effect.
        """
        with contextlib.suppress(NoLeader):
            await self.read(ReadLevel.LINEARIZABLE)

    async def plan_rotation(self, request: RotateRequest) -> RotationPlan:
        argument = pack_rotate(request)
        return unpack_plan(await self._forwarder.call(Call("plan_rotation", lambda _: argument, is_repeatable=True)))

    async def rotate(self, request: RotateRequest) -> None:
        state = (await self.read(ReadLevel.LINEARIZABLE)).state
        request_id = secrets.token_bytes(16)
        call = Call(
            "rotate",
            lambda is_repeat: [*pack_rotate(request), request_id, state.ca_index, is_repeat],
            is_repeatable=True,
            seconds=_CONFIGURE_SECONDS,
        )
        await self._forwarder.call(call)
        await self._catch_up()

    async def steer_rotation(self, steering: Steering) -> None:
        await self._forwarder.call(Call("steer_rotation", lambda _: steering.value))
        await self._catch_up()

    async def rotation_uptake(self) -> Uptake | None:
        packed = await self._forwarder.call(Call("rotation_uptake", lambda _: None, is_repeatable=True))
        return None if packed is None else Uptake(*packed)

    async def distrust_root(self, root_id: str) -> None:
        await self._forwarder.call(Call("distrust_root", lambda _: root_id))
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
        return unpack_cluster(await self._forwarder.call(Call("cluster", lambda _: None, is_repeatable=True)))

    async def transfer_leader(self, name: str | None) -> None:
        await self._forwarder.call(Call("transfer", lambda _: name))

    async def add_peer(self, name: str, raft_address: str, rpc_address: str) -> None:
        argument = [name, raft_address, rpc_address]
        await self._forwarder.call(Call("add_peer", lambda _: argument, is_repeatable=True))

    async def remove_peer(self, name: str | None, raft_address: str | None) -> None:
        await self._forwarder.call(Call("remove_peer", lambda _: [name, raft_address]))

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
