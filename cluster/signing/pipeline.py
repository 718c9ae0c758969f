"""The leader's signing pipeline: sign a batch in a worker, record it as one log entry, answer when that is committed.

Signing of one batch overlaps with the commit of the one before. Nothing leaves before its record is committed. Whoever
asks is judged three times: before it is signed, for what the worker judges the CSR by; before it is recorded, because a
backend may have taken seconds; and before it is handed out, because the commit may have.
"""

import asyncio
import contextlib
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import Final, Protocol

from cluster.api.access import Caller, Judge
from cluster.base.clock import Clock
from cluster.base.errors import AnswerLost, ClusterError, InternalError, Overloaded, Refused
from cluster.base.log import Log
from cluster.base.requester import with_accessor
from cluster.base.telemetry import Metrics
from cluster.signing.pool import WorkerPool
from fsm.codec import OutOfBounds, check_leaf
from fsm.commands import Applied, Command, Rejected
from fsm.leaves import LEAF_KINDS, LeafRecord, RecordLeaves
from fsm.ledger import LedgerRow
from providers.api import IssuedLeaf, NameLimits
from providers.errors import NotGranted, ProviderError
from providers.pki.serials import serial_bytes

MAX_BATCH: Final = 32
_BATCHES_PER_WORKER: Final = 2
_COMMIT_SECONDS: Final = 10.0


@dataclass(frozen=True, slots=True)
class SigningContext:
    """What the leader signs with now; replaced as a whole when the CA changes."""

    provider_key: str  # in the worker pool
    provider: str
    trust_domain: str
    datacenter: str
    limits: tuple[NameLimits, ...] = ()  # of every CA that leaves lead to


@dataclass(frozen=True, slots=True)
class SignedLeaf:
    leaf: IssuedLeaf
    index: int  # state index that its record took


class Proposer(Protocol):
    async def propose(self, command: Command, *, timeout: float) -> Applied | Rejected: ...


@dataclass(slots=True)
class _Request:
    csr_pem: str
    serial: bytes
    requested_by: str
    context: SigningContext
    judge: Judge
    done: "asyncio.Future[SignedLeaf]"
    caller: Caller | None = None  # who asks, as judged last
    #: As it is recorded, once its turn has come.
    by: str = ""


class SigningPipeline:
    """Every node has one; what it proposes is refused while the node does not lead."""

    def __init__(
        self,
        pool: WorkerPool,
        proposer: Proposer,
        find: Callable[[bytes], Awaitable[LedgerRow | None]],
        clock: Clock,
        log: Log,
        metrics: Metrics,
        queue_length: int,
    ) -> None:
        """`find` looks for what is on record for a request, by the serial that was asked for."""
        self._pool = pool
        self._proposer = proposer
        self._find = find
        self._clock = clock
        self._log = log
        self._metrics = metrics
        self._limit = queue_length
        self._queue: deque[_Request] = deque()
        self._unanswered = 0
        self._signing = 0
        self._tasks: set[asyncio.Task[None]] = set()

    async def sign(
        self, context: SigningContext, csr_pem: str, serial: bytes, requested_by: str, judge: Judge
    ) -> SignedLeaf:
        """Sign and record one leaf. What whoever asks may have is judged when its turn has come.

        Raises: CSRRejected, ProviderError; PermissionDenied; Overloaded, NotLeader (definitely not recorded);
        CommitUnknown.
        """
        if self._unanswered >= self._limit:
            raise Overloaded("too many requests for signatures are waiting")
        done: asyncio.Future[SignedLeaf] = asyncio.get_running_loop().create_future()
        self._unanswered += 1
        started = self._clock.monotonic()
        try:
            self._queue.append(_Request(csr_pem, serial, requested_by, context, judge, done))
            self._start_batches()
            return await done
        finally:
            self._unanswered -= 1
            self._metrics.sign_seconds.observe(self._clock.monotonic() - started)

    def _start_batches(self) -> None:
        while self._queue and self._signing < _BATCHES_PER_WORKER * self._pool.size:
            context = self._queue[0].context
            batch = [self._queue.popleft()]
            while self._queue and len(batch) < MAX_BATCH and self._queue[0].context is context:
                batch.append(self._queue.popleft())
            self._signing += 1
            task = asyncio.get_running_loop().create_task(self._run(context, batch))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _run(self, context: SigningContext, batch: list[_Request]) -> None:
        now = int(self._clock.now())
        try:
            try:
                signed = await self._sign(context, batch, now)
            finally:
                # The next batch is signed while this one is committed.
                self._signing -= 1
                self._start_batches()
            await self._record(context, [found for found in signed if await self._may_have(found[0])], now)
        except Exception as error:
            for request in batch:
                if not request.done.done():
                    request.done.set_exception(error)

    async def _sign(
        self, context: SigningContext, batch: list[_Request], now: int
    ) -> list[tuple[_Request, IssuedLeaf]]:
        asked = [(request, caller) for request in batch if (caller := _asking(request)) is not None]
        if not asked:
            return []
        for request, _ in asked:
            self._log("ca.signing", serial=request.serial.hex(), provider=context.provider, by=request.by)
        results = await self._pool.sign_leaves(
            context.provider_key,
            context.trust_domain,
            context.datacenter,
            now,
            [(request.csr_pem, request.serial, caller.rules.grant) for request, caller in asked],
            context.limits,
        )
        self._metrics.sign_batch_size.observe(len(asked))
        signed = []
        for (request, caller), result in zip(asked, results, strict=True):
            if isinstance(result, IssuedLeaf):
                signed.append((request, result))
            elif not request.done.done():
                request.done.set_exception(caller.denied(str(result)) if isinstance(result, NotGranted) else result)
        return signed

    async def _record(self, context: SigningContext, signed: list[tuple[_Request, IssuedLeaf]], now: int) -> None:
        if not signed:
            return
        issuer_key_id = signed[0][1].issuer_key_id
        records = tuple(_record(request, leaf) for request, leaf in signed)
        started = self._clock.monotonic()
        try:
            result = await self._proposer.propose(RecordLeaves(issuer_key_id, records), timeout=_COMMIT_SECONDS)
        except Refused:
            fit = [(request, leaf) for request, leaf in signed if _may_be_recorded(request, leaf)]
            if len(fit) == len(signed):
                raise
            # What one certificate holds is no reason to refuse those beside it.
            await self._record(context, fit, now)
            return
        self._metrics.commit_seconds.observe(self._clock.monotonic() - started)
        if isinstance(result, Rejected):
            raise InternalError(f"certificates could not be recorded: {result.detail}")
        first_index = result.index - len(signed) + 1
        for position, (request, leaf) in enumerate(signed):
            if request.done.done():
                continue
            if position not in result.duplicates and await self._may_have(request):
                self._answer(context, request, SignedLeaf(leaf, first_index + position))
        for position in result.duplicates:
            request, leaf = signed[position]
            if not request.done.done() and await self._may_have(request):
                self._answer(context, request, await self._signed_before(context, request, leaf, now))

    async def _may_have(self, request: _Request) -> bool:
        """Whether whoever asks may still have what was signed for them; if not, they are told so."""
        before, now = request.caller, _asking(request)
        if now is None or before is None:
            return False
        if now.rules is before.rules or now.rules.grant == before.rules.grant:
            return True
        context = request.context
        try:
            await self._pool.check_csr(
                context.trust_domain, context.datacenter, request.csr_pem, now.rules.grant, context.limits
            )
        except (ClusterError, ProviderError) as error:
            if not request.done.done():
                request.done.set_exception(now.denied(str(error)) if isinstance(error, NotGranted) else error)
            return False
        return True

    def _answer(self, context: SigningContext, request: _Request, signed: SignedLeaf) -> None:
        request.done.set_result(signed)
        leaf = signed.leaf
        self._metrics.leaf_signed.labels(context.provider, leaf.kind).inc()
        self._log(
            "ca.signed",
            serial=serial_bytes(leaf.serial).hex(),
            spiffe_id=leaf.spiffe_id,
            profile=leaf.kind,
            provider=context.provider,
            by=request.by,
            index=signed.index,
        )

    async def _signed_before(
        self, context: SigningContext, request: _Request, leaf: IssuedLeaf, now: int
    ) -> SignedLeaf:
        """The certificate on record for this request, which came by way of a leader that could not answer any more.

        The same key, CSR, serial and time make the same certificate, but for the signature's random part. So the
        request is answered with what it got, and not with a second certificate. Raises: AnswerLost when the CA has
        changed since, cannot sign now, or picks its serials itself.
        """
        row = await self._find(request.serial)
        if row is not None and serial_bytes(leaf.serial) == request.serial:
            then = row.record.not_before + (now - leaf.not_before)
            again: object = None
            with contextlib.suppress(ClusterError, ProviderError):
                [again] = await self._pool.sign_leaves(
                    context.provider_key,
                    context.trust_domain,
                    context.datacenter,
                    then,
                    [(request.csr_pem, row.record.serial, request.judge().rules.grant)],
                )
            if isinstance(again, IssuedLeaf) and _is_of(row, _record(request, again), again.issuer_key_id):
                return SignedLeaf(again, row.index)
        if row is None:  # not this request's: the backend has given one certificate, or its serial, twice
            raise AnswerLost(_GIVEN_TWICE.format(serial=serial_bytes(leaf.serial).hex()))
        raise AnswerLost(_DUPLICATE.format(serial=row.record.serial.hex()))


def _asking(request: _Request) -> Caller | None:
    """Who asks, as of now; None if nobody any more, who is told so."""
    try:
        request.caller = caller = request.judge()
        request.by = request.by or with_accessor(request.requested_by, caller.accessor_on_record)
        return caller
    except ClusterError as error:
        if not request.done.done():
            request.done.set_exception(error)
        return None


def _may_be_recorded(request: _Request, leaf: IssuedLeaf) -> bool:
    """If not, whoever asked is told why."""
    try:
        check_leaf(_record(request, leaf))
    except OutOfBounds as error:
        if not request.done.done():
            request.done.set_exception(InternalError(f"the certificate cannot be recorded: {error}"))
        return False
    return True


_DUPLICATE: Final = (
    "the certificate for this request was recorded with serial {serial}, but its answer was lost: send a new request"
)

_GIVEN_TWICE: Final = (
    "the CA has answered with serial {serial}, which is on record for another request: nothing is handed out, send a"
    " new request"
)


def _record(request: _Request, leaf: IssuedLeaf) -> LeafRecord:
    serial = serial_bytes(leaf.serial)
    return LeafRecord(
        serial=serial,
        kind=LEAF_KINDS[leaf.kind],
        name=leaf.name,
        spiffe_id=leaf.spiffe_id,
        public_key_sha256=leaf.public_key_sha256,
        not_before=leaf.not_before,
        not_after=leaf.not_after,
        requested_by=request.by,
        # A provider whose backend picks serials: the request is known by the one that was asked for.
        request_id=b"" if serial == request.serial else request.serial,
    )


def _is_of(row: LedgerRow, made: LeafRecord, issuer_key_id: bytes) -> bool:
    """Whether this is the record of the same certificate. Who asked for it may have been told by another server."""
    return row.issuer_key_id == issuer_key_id and replace(made, requested_by=row.record.requested_by) == row.record
