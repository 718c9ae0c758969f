"""Certificates, from any node: signed CSRs, and leaves with keys for this host's services."""

import random
import secrets
from typing import Final

from cluster.agent.leaves import LeafCache, NewLeaf, is_within
from cluster.api.access import SERVICE_WRITE, Access, Caller
from cluster.api.leaves import IssuedCert, LocalLeaf
from cluster.api.reads import ReadLevel
from cluster.base.clock import Clock
from cluster.base.errors import BadRequest, InternalError, NotReady
from cluster.base.log import Log
from cluster.base.rates import KeyedLimit
from cluster.base.requester import recorded, with_accessor
from cluster.base.seats import source_of
from cluster.base.telemetry import Metrics
from cluster.ca.health import HealthBoard
from cluster.node.reads import NodeReads
from cluster.rpc.forward import Forwarder
from cluster.rpc.messages import SIGN, SignRequest
from cluster.signing.pool import WorkerPool
from cluster.signing.serials import new_request_id, new_serial
from providers.pki.serials import serial_bytes
from providers.pki.spiffe import Kind, SpiffeError, SpiffeId, check_name

#: Of asking for a leaf anew: rules have changed meanwhile, or whoever signs gives longer ones than was asked for.
_MAX_ROUNDS: Final = 5
_NO_ROOT: Final = "CA is uninitialized and unable to sign certificates yet: no root certificate"


class NodeLeaves:
    """Implements `cluster.api.leaves.Leaves`."""

    def __init__(
        self,
        reads: NodeReads,
        forwarder: Forwarder,
        pool: WorkerPool,
        health: HealthBoard,
        datacenter: str,
        clock: Clock,
        metrics: Metrics,
        access: Access,
        log: Log,
        signing_per_source: float = 0.0,
    ) -> None:
        self._reads = reads
        self._forwarder = forwarder
        self._pool = pool
        self._health = health
        self._datacenter = datacenter
        self._access = access
        self._log = log
        self._clock = clock
        # Here and not on the leader: only the node that is asked knows an address by itself.
        self._by_source = KeyedLimit(
            signing_per_source,
            "certificates for one address",
            clock.monotonic,
            metrics.limited.labels("source").inc,
        )
        rng = random.Random(secrets.randbits(64))  # nosec B311 # noqa: S311 - spreads renewals, no secret
        self._leaves = LeafCache(self._new_leaf, reads, clock, rng, reads.wait_seconds)
        metrics.leaf_cache_entries.set_function(lambda: len(self._leaves))

    async def sign(self, caller: Caller, csr_pem: str, requested_by: str) -> IssuedCert:
        self._count(requested_by)
        return await self._sign(caller, csr_pem, requested_by)

    def _count(self, requested_by: str) -> None:
        """Before a key is made, or a CSR looked at. Raises: RateLimitReached."""
        if not self._by_source.is_off:
            self._by_source.take(source_of((requested_by,)))

    async def _sign(
        self, caller: Caller, csr_pem: str, requested_by: str, *, leader_wait_seconds: float | None = None
    ) -> IssuedCert:
        # The id names the request wherever it is sent: the ledger takes it once.
        request_id = new_request_id() if self._reads.is_pinned else serial_bytes(new_serial())
        request = SignRequest(csr_pem, request_id, recorded(requested_by))
        answer = await self._forwarder.call(SIGN, request, caller=caller, leader_wait_seconds=leader_wait_seconds)
        return answer.value()

    async def leaf(
        self, caller: Caller, service: str, requested_by: str, *, index: int = 0, timeout_seconds: float = 0.0
    ) -> LocalLeaf:
        try:
            check_name("service", service)
        except SpiffeError as error:
            raise BadRequest(str(error)) from error
        # Before the cache is looked into: a key that is there for one is not there for all.
        caller.require(SERVICE_WRITE, service)
        leaf, caller = await self._leaf_for(caller, service, requested_by, index, timeout_seconds)
        self._log(
            "leaf.handed_out",
            service=service,
            serial=serial_bytes(leaf.cert.serial).hex(),
            by=with_accessor(recorded(requested_by), caller.accessor_on_record),
            is_hit=leaf.is_hit,
        )
        return leaf

    async def _leaf_for(
        self, caller: Caller, service: str, requested_by: str, index: int, timeout_seconds: float
    ) -> tuple[LocalLeaf, Caller]:
        """One that lasts no longer than the caller may have it when it is handed out; and the caller as of then."""
        for _ in range(_MAX_ROUNDS):
            leaf = await self._leaves.get(caller, service, requested_by, index, timeout_seconds)
            before, caller = caller, self._access.judged_again(caller)
            most_seconds = caller.rules.ttl_max_seconds(service)
            is_within_bound = is_within(leaf.cert, self._clock.now() - leaf.age_seconds, most_seconds)
            if not is_within_bound:
                # The leader has judged by rules that have not come to this node yet.
                await self._reads.catch_up()
                caller = self._access.judged_again(caller)
            caller.require(SERVICE_WRITE, service)
            if is_within_bound and most_seconds == before.rules.ttl_max_seconds(service):
                return leaf, caller
        raise InternalError(f'certificates of service "{service}" last longer than this token may have them')

    def _service_id(self, trust_domain: str, service: str) -> str:
        return SpiffeId(Kind.SERVICE, trust_domain, self._datacenter, service).uri

    async def _new_leaf(self, caller: Caller, service: str, requested_by: str, leader_wait_seconds: float) -> NewLeaf:
        self._count(requested_by)
        leader_by = self._clock.monotonic() + leader_wait_seconds
        state = (await self._reads.read(ReadLevel.STALE)).state
        if state.active_root is None:
            state = (await self._reads.read(ReadLevel.LINEARIZABLE, leader_wait_seconds)).state
        if state.active_root is None:
            raise NotReady(f"{_NO_ROOT}: {trouble}" if (trouble := self._health.now.trouble) else _NO_ROOT)
        csr_pem, key_pem = await self._pool.make_csr(self._service_id(state.trust_domain, service), (), ())
        left = max(0.0, leader_by - self._clock.monotonic())
        return NewLeaf(await self._sign(caller, csr_pem, requested_by, leader_wait_seconds=left), key_pem)
