"""The parent's side of the worker processes: a small pool, each with every provider in use configured in it.

A worker that dies is replaced and configured again, as often as it takes; what was under way in it fails as
unavailable, which is safe to repeat because nothing counts before it is recorded in the log. Those of a node that led
end with its leadership, and with them the keys; fresh ones, ready for the next election, take their places.
"""

import asyncio
import contextlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from cluster.base.background import describe
from cluster.base.errors import ClusterError, NotLeader
from cluster.base.log import Log, Reports
from cluster.base.signals import Signal
from cluster.base.wire import unpack_error
from cluster.signing.process import ENDED, NOT_LEADING, Grant, Worker
from providers.api import CAChain, IssuedLeaf, NameLimits, RootIntent
from providers.errors import ProviderError, ProviderUnavailable
from providers.pki.serials import serial_bytes

#: Before a worker is replaced that has died. One that died soon after its start has a cause that is still there,
#: perhaps: then the pause doubles.
_RESTART_PAUSE_SECONDS: Final = 0.1
_LONGEST_RESTART_PAUSE_SECONDS: Final = 30.0
_SOON_SECONDS: Final = 10.0
#: How long until a replaced worker is given again what could not be configured in it, at first and at most.
_FIRST_PAUSE_SECONDS: Final = 0.5
_LONGEST_PAUSE_SECONDS: Final = 15.0
#: How long a worker is waited for that is given what the one before had; what takes longer comes later.
_COMPLETE_SECONDS: Final = 10.0
#: Beside the keys of providers: a worker has had the key of this one, too.
_AGENT_CA: Final = "the agent CA"
#: A process starts in a fraction of this, also on a busy machine.
_START_SECONDS: Final = 5.0


@dataclass(frozen=True, slots=True)
class ProviderSetup:
    """All that makes a provider what it is. Secrets and state are covered (cluster/seal/cover.py)."""

    name: str
    cluster_id: str
    datacenter: str
    is_primary: bool
    config: Mapping[str, object] = field(repr=False)
    secrets: Mapping[str, bytes] = field(repr=False)
    state: bytes = field(repr=False)

    def arguments(self) -> list[Any]:
        config = json.dumps(self.config)
        secrets = dict(self.secrets)
        return [self.name, self.cluster_id, self.datacenter, self.is_primary, config, secrets, self.state]


@dataclass(frozen=True, slots=True)
class Configured:
    """What a configured provider has to show."""

    chain: CAChain | None
    public_state: Mapping[str, str]
    wants_renewal: bool = False  # of the certificate that signs leaves


class WorkerPool:
    """Made by `start`."""

    def __init__(self, log: Log, grant: Grant, domain: str = "consul", credentials_dir: str = "") -> None:
        """`grant` gives each worker the key of the cover; `domain` is that of the servers' names, which no leaf may
        have; `credentials_dir`: see `ProviderSettings`.
        """
        self._log = log
        self._grant = grant
        self._domain = domain
        self._credentials_dir = credentials_dir
        self._workers: list[Worker] = []
        self._setups: dict[str, ProviderSetup] = {}
        self._in_use = ""  # the key of the CA that signs leaves
        self._former: set[str] = set()  # keys of those that did before it, in this term
        self._giving: set[asyncio.Task[None]] = set()
        self._sent: set[str] = set()  # what any worker may have, whether all of them took it or not
        self._replacing: list[asyncio.Task[None]] = []
        self._configuring = asyncio.Lock()
        self._joining: set[Worker] = set()  # started, and not placed yet
        self._placed = Signal()  # a worker takes another's place
        self._terms = 0  # that have ended
        self._is_admitted = True
        self._refusals: set[str] = set()
        self.lost = 0  # workers that died, since the start
        self._reports = Reports()

    @classmethod
    async def start(
        cls, size: int, log: Log, grant: Grant, domain: str = "consul", credentials_dir: str = ""
    ) -> "WorkerPool":
        pool = cls(log, grant, domain, credentials_dir)
        pool._workers = list(await asyncio.gather(*(pool._start_worker() for _ in range(size))))
        pool._replacing = [asyncio.create_task(pool._keep_staffed(position)) for position in range(size)]
        return pool

    async def stop(self) -> None:
        for task in self._replacing:
            task.cancel()
        await asyncio.gather(*self._replacing, return_exceptions=True)
        await asyncio.gather(*(worker.stop() for worker in self._workers))

    @property
    def pids(self) -> list[int]:
        return [worker.process.pid for worker in self._workers]

    @property
    def size(self) -> int:
        return len(self._workers)

    async def _start_worker(self) -> Worker:
        return await Worker.start(self._note_refusals, self._grant, self._credentials_dir)

    def _note_refusals(self, refused: Sequence[str]) -> None:
        """What the system refuses to one worker it refuses to all: it is said once."""
        for text in refused:
            if text not in self._refusals:
                self._refusals.add(text)
                self._log("worker.unprotected", reason=text)

    async def _keep_staffed(self, position: int) -> None:
        """Replace the worker at this position whenever it has ended."""
        pause = _RESTART_PAUSE_SECONDS
        while True:
            worker = self._workers[position]
            status = await self._watch(worker)
            if not worker.is_retired:
                self.lost += 1
                self._log("worker.lost", pid=worker.process.pid, status=status)
                pause = _next_pause(pause, worker.age_seconds)
                await asyncio.sleep(pause)
            while not await self._replace(position, was_retired=worker.is_retired):
                pause = _next_pause(pause, 0.0)
                await asyncio.sleep(pause)

    async def _replace(self, position: int, *, was_retired: bool) -> bool:
        """Whether there is another worker in its place now."""
        async with self._configuring:
            try:
                fresh = await self._start_worker()
            except Exception as error:  # no process can be started just now, for want of memory or descriptors perhaps
                self._log("worker.unreplaced", reason=describe(error))
                return False
            fresh.lacking, fresh.without = set(self._setups), set(self._former)
            self._joining.add(fresh)
            try:
                await self._complete(fresh)
            finally:
                self._joining.discard(fresh)
            self._workers[position] = fresh
            self._placed.fire()
        if was_retired and not fresh.is_retired:
            # As warm as the one before, which has led.
            with contextlib.suppress(ProviderError, ClusterError):
                await fresh.call("warm_up")
        return True

    async def _watch(self, worker: Worker) -> int:
        """Until it ends; its status. What it lacks, because a backend was away perhaps, is tried again meanwhile."""
        ended = asyncio.ensure_future(worker.process.wait())
        pause = _FIRST_PAUSE_SECONDS
        try:
            while worker.lacking:
                await asyncio.wait({ended}, timeout=pause)
                if ended.done():
                    break
                pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)
                async with self._configuring:
                    await self._complete(worker)
            return await ended
        finally:
            ended.cancel()

    async def _complete(self, worker: Worker) -> None:
        """Configure in it what it lacks. Only while `_configuring` is held, and so not for long: a backend that does
        not answer keeps neither the others from this worker, nor changes waiting.
        """
        under_way = {asyncio.create_task(self._give(worker, key)) for key in self._in_turn(worker.lacking)}
        for task in under_way:
            self._giving.add(task)
            task.add_done_callback(self._giving.discard)
        if under_way:
            await asyncio.wait(under_way, timeout=_COMPLETE_SECONDS)

    def _in_turn(self, keys: set[str]) -> list[str]:
        """The CA that signs comes first."""
        return sorted(keys, key=lambda key: (key != self._in_use, key))

    async def _give(self, worker: Worker, key: str) -> None:
        """Unless it is being given already: calls for one provider stand in a row there."""
        if key in worker.awaited:
            return
        setup = self._setups.get(key)
        worker.awaited.add(key)
        try:
            if setup is None:
                worker.without.add(key)
            else:
                await self._call(worker, "configure", key, *setup.arguments())
            if self._setups.get(key) is setup:
                worker.lacking.discard(key)
            self._reports.forget(key)
        except (ProviderError, ClusterError) as error:
            self._log("worker.unconfigured", key=key, reason=self._reports.reason(key, error))
        except Exception as error:
            self._log("worker.unconfigured", key=key, reason=describe(error))
        finally:
            worker.awaited.discard(key)

    # -- providers

    async def configure(self, key: str, setup: ProviderSetup) -> Configured:
        """Have the provider in every worker, replacing the one that had this key. Raises: ProviderError, NotLeader."""
        await self._staffed()
        async with self._configuring:
            term = self._require_admission()
            # One that has just died is replaced in a moment, by one with all that is in `_setups`.
            workers = [worker for worker in self._workers if not worker.is_gone]
            if not workers:
                raise ProviderUnavailable(ENDED)
            # Before anything is sent: whoever is cancelled, or fails in one worker, may have left it in the others.
            self._sent.add(key)
            answers = await asyncio.gather(
                *(self._call(worker, "configure", key, *setup.arguments()) for worker in workers)
            )
            if self._require_admission() != term:
                raise NotLeader(NOT_LEADING)  # and led again since: what was configured has ended
            self._setups[key] = setup
            self._former.discard(key)
            for worker in workers:
                worker.lacking.discard(key)
                worker.without.discard(key)
        chain, public_state, wants_renewal = answers[0]
        return Configured(_unpack_chain(chain), public_state, wants_renewal)

    def use(self, key: str) -> None:
        """Leaves are signed with this provider from now on. The one before ends what is under way, in the workers that
        have it; who replaces one of them is not given it: it may hang, and whoever needs it again configures it.
        """
        if self._in_use != key and self._setups.pop(self._in_use, None) is not None:
            self._former.add(self._in_use)
        self._in_use = key

    async def forget(self, key: str) -> None:
        async with self._configuring:
            self._setups.pop(key, None)
            self._former.discard(key)
            self._reports.forget(key)
            forgetting = [asyncio.ensure_future(worker.call("forget", key, is_vital=False)) for worker in self._workers]
            await asyncio.sleep(0)  # sent before anything else of this key; a hanging backend keeps nobody waiting
        answers = await asyncio.gather(*forgetting, return_exceptions=True)
        async with self._configuring:
            for worker in self._workers:
                worker.without.discard(key)
            # One that has not answered may have it still, and ends with the leadership for that.
            is_everywhere = not any(isinstance(answer, BaseException) for answer in answers)
            if is_everywhere and key not in self._setups:
                self._sent.discard(key)

    async def _call(self, worker: Worker, operation: str, key: str, *arguments: Any) -> Any:
        """Only the CA that signs may cost a worker: a backend that is tried, or was left, may answer as late as it
        likes, beside everything else that the worker does.
        """
        return await worker.call(operation, key, *arguments, is_vital=self._in_use in ("", key))

    # -- leadership

    def admit(self) -> None:
        """This node leads: providers may be configured from now on."""
        self._is_admitted = True

    def renew(self) -> None:
        """This node leads no more: every process that may hold a key ends, and what is under way in it is for the next
        leader. Until `admit` nothing is configured.
        """
        self._is_admitted = False
        if not self._setups and not self._sent:
            return
        self._terms += 1
        self._in_use = ""
        self._former.clear()
        self._setups.clear()
        self._sent.clear()
        for worker in (*self._workers, *self._joining):
            worker.retire()

    def _require_admission(self) -> int:
        """What changes when leadership ends."""
        if not self._is_admitted:
            raise NotLeader(NOT_LEADING)
        return self._terms

    async def _staffed(self) -> None:
        """A moment after `renew` the fresh processes are on their way."""

        def is_renewing() -> bool:
            return all(worker.is_retired for worker in self._workers)

        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_START_SECONDS):
                while is_renewing():
                    await self._placed.wait()

    async def prepare_root(self, key: str, intent: RootIntent) -> bytes:
        serial = serial_bytes(intent.serial)
        state: bytes = await self._call(self._first(key), "prepare_root", key, serial, intent.uid, intent.not_before)
        return state

    async def root_to_adopt(self, key: str) -> str:
        """The root that `generate_root` would take over instead of making one, or "". Raises: ProviderError."""
        root_pem: str = await self._call(self._first(key), "root_to_adopt", key)
        return root_pem

    async def generate_root(self, key: str) -> tuple[CAChain, bytes]:
        chain, state = await self._call(self._first(key), "generate_root", key)
        unpacked = _unpack_chain(chain)
        assert unpacked is not None
        return unpacked, state

    async def renew_signing_cert(self, key: str) -> tuple[CAChain, bytes]:
        """A new signing certificate below the same root, in use once its state is committed and configured.

        Raises: ProviderError; NotSupported where the root itself signs.
        """
        chain, state = await self._call(self._first(key), "renew_signing_cert", key)
        unpacked = _unpack_chain(chain)
        assert unpacked is not None
        return unpacked, state

    async def warnings(self, key: str) -> tuple[str, ...]:
        """What an operator should do something about, from every worker: each has a login of its own."""
        workers = [worker for worker in self._workers if self._has(worker, key)]
        found = await asyncio.gather(*(self._call(worker, "warnings", key) for worker in workers))
        return tuple(dict.fromkeys(text for texts in found for text in texts))

    async def supports_cross_signing(self, key: str) -> bool:
        return bool(await self._call(self._first(key), "supports_cross_signing", key))

    async def cross_sign(self, key: str, cert_pem: str, serial: bytes, now: int, not_after: int) -> str:
        """Another CA's root, signed by the one under `key`, and what is between that and the trust anchor; PEM.

        Raises: ProviderError.
        """
        cross_pem: str = await self._call(self._first(key), "cross_sign", key, cert_pem, serial, now, not_after)
        return cross_pem

    async def cleanup(self, key: str, *, is_unused: bool = False) -> None:
        """Remove what the provider made in its backend; see `Provider.cleanup`. Raises: ProviderError."""
        await self._call(self._first(key), "cleanup", key, is_unused)

    # -- work that any worker can do

    def _has(self, worker: Worker, key: str) -> bool:
        return not worker.is_gone and key not in worker.lacking and key not in worker.without

    def _first(self, key: str) -> Worker:
        """Always the same one for a key, as long as it lives: some calls build on the one before."""
        return next((worker for worker in self._workers if self._has(worker, key)), self._workers[0])

    def _idlest(self, key: str = "") -> Worker:
        return min(self._workers, key=lambda worker: (not self._has(worker, key), worker.load))

    async def sign_leaves(
        self,
        key: str,
        trust_domain: str,
        datacenter: str,
        now: int,
        requests: Sequence[tuple[str, bytes, bytes]],
        limits: Sequence[NameLimits] = (),
    ) -> list[IssuedLeaf | ProviderError | ClusterError]:
        """One result for each (CSR PEM, serial, packed grant), in order. Raises: ProviderError when nothing was
        signed.
        """
        policy = self._policy(trust_domain, datacenter, limits)
        results = await self._call(self._idlest(key), "sign_leaves", key, policy, now, requests)
        return [unpack_error(error) if error else _unpack_leaf(leaf) for error, leaf in results]

    def _policy(self, trust_domain: str, datacenter: str, limits: Sequence[NameLimits]) -> list[object]:
        return [trust_domain, datacenter, self._domain, *(one.packed() for one in limits)]

    async def check_csr(
        self, trust_domain: str, datacenter: str, csr_pem: str, grant: bytes, limits: Sequence[NameLimits] = ()
    ) -> tuple[str, str, str]:
        """Kind, name and SPIFFE ID. Raises: CSRRejected, NotGranted."""
        await self._staffed()
        policy = self._policy(trust_domain, datacenter, limits)
        kind, name, spiffe_id = await self._idlest().call("check_csr", policy, csr_pem, grant)
        return kind, name, spiffe_id

    async def private_key_fits(self, config: Mapping[str, object], secrets: Mapping[str, bytes]) -> bool:
        """See `providers.builtin.state.private_key_fits`; the secrets are covered. Raises: ProviderError."""
        await self._staffed()
        return bool(await self._idlest().call("private_key_fits", json.dumps(config), dict(secrets)))

    async def check_agent_ca(
        self, secrets: Mapping[str, bytes], ca_pem: str, datacenter: str, domain: str, now: int
    ) -> str:
        """What is wrong with an agent CA, whose key is covered; empty: nothing. For the leader. Raises: NotLeader."""
        await self._open_agent_ca()
        problem: str = await self._idlest().call("check_agent_ca", dict(secrets), ca_pem, datacenter, domain, now)
        return problem

    async def _open_agent_ca(self) -> None:
        """Before its key is sent to a worker, which ends with the leadership for that. Raises: NotLeader."""
        await self._staffed()
        self._require_admission()
        self._sent.add(_AGENT_CA)

    async def sign_node(
        self,
        secrets: Mapping[str, bytes],
        ca_pem: str,
        csr_pem: str,
        identity: Sequence[str],
        addresses: Sequence[str],
        present_pem: str,
        now: int,
        ttl_seconds: int,
    ) -> tuple[str, bytes]:
        """A server's certificate by the agent CA; see `cluster.tls.node_certs.sign_node`. For the leader.

        Raises: CSRRejected, ProviderError, NotLeader.
        """
        await self._open_agent_ca()
        cert_pem, key = await self._idlest().call(
            "sign_node", dict(secrets), ca_pem, csr_pem, list(identity), list(addresses), present_pem, now, ttl_seconds
        )
        return cert_pem, key

    async def make_csr(self, spiffe_id: str, dns_names: Sequence[str], addresses: Sequence[str]) -> tuple[str, str]:
        """A CSR and its new private key, PEM."""
        await self._staffed()
        csr_pem, key_pem = await self._idlest().call("make_csr", spiffe_id, dns_names, addresses)
        return csr_pem, key_pem


def _next_pause(pause: float, age_seconds: float) -> float:
    """After a worker that got so old."""
    if age_seconds >= _SOON_SECONDS:
        return _RESTART_PAUSE_SECONDS
    return min(2 * pause, _LONGEST_RESTART_PAUSE_SECONDS)


def _unpack_chain(chain: Sequence[Any] | None) -> CAChain | None:
    return None if chain is None else CAChain(chain[0], chain[1], tuple(chain[2]))


def _unpack_leaf(fields: Sequence[Any]) -> IssuedLeaf:
    cert_pem, serial, *rest = fields
    return IssuedLeaf(cert_pem, int.from_bytes(serial, "big"), *rest)
