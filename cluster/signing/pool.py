"""The parent's side of the worker processes: a small pool, each with every provider in use configured in it.

A worker that dies is replaced and configured again, as often as it takes; what was under way in it fails as
unavailable, which is safe to repeat because nothing counts before it is recorded in the log.
"""

import asyncio
import contextlib
import json
import socket
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import msgpack

from cluster.base.background import describe
from cluster.base.errors import ClusterError
from cluster.base.log import Log
from cluster.base.wire import unpack_error
from cluster.signing.worker import FRAME_HEADER
from providers.api import CAChain, IssuedLeaf, RootIntent
from providers.errors import ProviderError, ProviderUnavailable
from providers.pki.serials import serial_bytes

_RESTART_PAUSE_SECONDS: Final = 0.1
#: How long until a replaced worker is given again what could not be configured in it, at first and at most.
_FIRST_PAUSE_SECONDS: Final = 0.5
_LONGEST_PAUSE_SECONDS: Final = 15.0
_STOP_SECONDS: Final = 2.0
#: Leaf signing is milliseconds; a provider's backend may be slow, and has time-outs of its own below this.
_CALL_SECONDS: Final = 60.0
_ENDED: Final = "the signing process ended"


@dataclass(frozen=True, slots=True)
class ProviderSetup:
    """All that makes a provider what it is."""

    name: str
    cluster_id: str
    datacenter: str
    is_primary: bool
    config: Mapping[str, Any] = field(repr=False)
    state: bytes = field(repr=False)

    def arguments(self) -> list[Any]:
        config = json.dumps(self.config)
        return [self.name, self.cluster_id, self.datacenter, self.is_primary, config, self.state]


@dataclass(frozen=True, slots=True)
class Configured:
    """What a configured provider has to show."""

    chain: CAChain | None
    public_state: Mapping[str, str]
    wants_renewal: bool = False  # of the certificate that signs leaves


class _Worker:
    """One process and the connection to it."""

    def __init__(
        self, process: asyncio.subprocess.Process, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self.process = process
        self._reader = reader
        self._writer = writer
        self.lacking: set[str] = set()  # what should be configured in it and is not
        self._pending: dict[int, asyncio.Future[Any]] = {}
        self._last_id = 0
        self.reading = asyncio.get_running_loop().create_task(self._read())

    @classmethod
    async def start(cls) -> "_Worker":
        ours, theirs = socket.socketpair()
        with theirs:
            # -P: nothing is imported from the directory the node happens to be started in.
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-P",
                "-m",
                "cluster.signing.worker",
                stdin=theirs.fileno(),
                stdout=asyncio.subprocess.DEVNULL,
            )
        reader, writer = await asyncio.open_connection(sock=ours, limit=1 << 24)
        return cls(process, reader, writer)

    @property
    def load(self) -> int:
        return len(self._pending)

    @property
    def is_gone(self) -> bool:
        return self.reading.done()

    async def call(self, operation: str, *arguments: Any) -> Any:
        """Raises: ProviderError as the operation did; ProviderUnavailable when the process is gone or hangs."""
        if self.is_gone:
            raise ProviderUnavailable(_ENDED)
        self._last_id += 1
        identifier = self._last_id
        body = msgpack.packb([identifier, operation, arguments])
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._pending[identifier] = future
        self._writer.write(FRAME_HEADER.pack(len(body)) + body)
        try:
            async with asyncio.timeout(_CALL_SECONDS):
                return await future
        except TimeoutError:
            self.process.kill()
            raise ProviderUnavailable("the signing process does not answer") from None
        finally:
            self._pending.pop(identifier, None)

    async def _read(self) -> None:
        try:
            while True:
                (length,) = FRAME_HEADER.unpack(await self._reader.readexactly(FRAME_HEADER.size))
                identifier, error, result = msgpack.unpackb(await self._reader.readexactly(length))
                future = self._pending.get(identifier)
                if future is None or future.done():
                    continue
                if error is None:
                    future.set_result(result)
                else:
                    future.set_exception(unpack_error(error))
        except (asyncio.IncompleteReadError, ConnectionError):
            pass  # it has ended
        except Exception:
            # It writes what no worker does: nothing of it can be believed any more.
            with contextlib.suppress(ProcessLookupError):
                self.process.kill()
        finally:
            for future in self._pending.values():
                if not future.done():
                    future.set_exception(ProviderUnavailable(_ENDED))

    async def stop(self) -> None:
        self._writer.close()
        try:
            async with asyncio.timeout(_STOP_SECONDS):
                await self.process.wait()
        except TimeoutError:
            self.process.kill()
            await self.process.wait()
        await self.reading


class WorkerPool:
    """Made by `start`."""

    def __init__(self, log: Log, domain: str = "consul") -> None:
        """`domain` is that of the servers' names, which no leaf may have."""
        self._log = log
        self._domain = domain
        self._workers: list[_Worker] = []
        self._setups: dict[str, ProviderSetup] = {}
        self._sent: set[str] = set()  # what any worker may have, whether all of them took it or not
        self._keepers: list[asyncio.Task[None]] = []
        self._configuring = asyncio.Lock()

    @classmethod
    async def start(cls, size: int, log: Log, domain: str = "consul") -> "WorkerPool":
        pool = cls(log, domain)
        pool._workers = list(await asyncio.gather(*(_Worker.start() for _ in range(size))))
        pool._keepers = [asyncio.create_task(pool._keep(position)) for position in range(size)]
        return pool

    async def stop(self) -> None:
        for keeper in self._keepers:
            keeper.cancel()
        await asyncio.gather(*self._keepers, return_exceptions=True)
        await asyncio.gather(*(worker.stop() for worker in self._workers))

    @property
    def pids(self) -> list[int]:
        return [worker.process.pid for worker in self._workers]

    @property
    def size(self) -> int:
        return len(self._workers)

    async def _keep(self, position: int) -> None:
        """Replace the worker at this position whenever it dies, however often it takes to start another one."""
        pause = _RESTART_PAUSE_SECONDS
        while True:
            try:
                await self._replace(position)
                pause = _RESTART_PAUSE_SECONDS
            except Exception as error:  # no process can be started just now, perhaps
                self._log("worker.unreplaced", reason=describe(error), again_in_seconds=pause)
                await asyncio.sleep(pause)
                pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)

    async def _replace(self, position: int) -> None:
        worker = self._workers[position]
        status = await self._watch(worker)
        self._log("worker.lost", pid=worker.process.pid, status=status)
        await asyncio.sleep(_RESTART_PAUSE_SECONDS)
        async with self._configuring:
            fresh = await _Worker.start()
            fresh.lacking = set(self._setups)
            await self._complete(fresh)
            self._workers[position] = fresh

    async def _watch(self, worker: _Worker) -> int:
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

    async def _complete(self, worker: _Worker) -> None:
        """Configure in it what it lacks. Only while `_configuring` is held."""
        for key in sorted(worker.lacking):
            setup = self._setups.get(key)
            try:
                if setup is not None:
                    await worker.call("configure", key, *setup.arguments())
                worker.lacking.discard(key)
            except (ProviderError, ClusterError) as error:
                self._log("worker.unconfigured", key=key, reason=str(error))
            except Exception as error:
                self._log("worker.unconfigured", key=key, reason=describe(error))

    # -- providers

    async def configure(self, key: str, setup: ProviderSetup) -> Configured:
        """Have the provider in every worker, replacing the one that had this key. Raises: ProviderError."""
        async with self._configuring:
            # One that has just died is replaced in a moment, by one with all that is in `_setups`.
            workers = [worker for worker in self._workers if not worker.is_gone]
            if not workers:
                raise ProviderUnavailable(_ENDED)
            # Before anything is sent: whoever is cancelled, or fails in one worker, may have left it in the others.
            self._sent.add(key)
            answers = await asyncio.gather(*(worker.call("configure", key, *setup.arguments()) for worker in workers))
            self._setups[key] = setup
            for worker in workers:
                worker.lacking.discard(key)
        chain, public_state, wants_renewal = answers[0]
        return Configured(_unpack_chain(chain), public_state, wants_renewal)

    async def forget(self, key: str) -> None:
        async with self._configuring:
            self._setups.pop(key, None)
            await asyncio.gather(*(worker.call("forget", key) for worker in self._workers), return_exceptions=True)
            self._sent.discard(key)

    async def forget_all(self) -> None:
        for key in {*self._setups, *self._sent}:
            await self.forget(key)

    async def prepare_root(self, key: str, intent: RootIntent) -> bytes:
        serial = serial_bytes(intent.serial)
        state: bytes = await self._first(key).call("prepare_root", key, serial, intent.uid, intent.not_before)
        return state

    async def root_to_adopt(self, key: str) -> str:
        """The root that `generate_root` would take over instead of making one, or "". Raises: ProviderError."""
        root_pem: str = await self._first(key).call("root_to_adopt", key)
        return root_pem

    async def generate_root(self, key: str) -> tuple[CAChain, bytes]:
        chain, state = await self._first(key).call("generate_root", key)
        unpacked = _unpack_chain(chain)
        assert unpacked is not None
        return unpacked, state

    async def renew_signing_cert(self, key: str) -> tuple[CAChain, bytes]:
        """A new signing certificate below the same root, in use once its state is committed and configured.

        Raises: ProviderError; NotSupported where the root itself signs.
        """
        chain, state = await self._first(key).call("renew_signing_cert", key)
        unpacked = _unpack_chain(chain)
        assert unpacked is not None
        return unpacked, state

    async def warnings(self, key: str) -> tuple[str, ...]:
        """What an operator should do something about, from every worker: each has a login of its own."""
        workers = [worker for worker in self._workers if self._has(worker, key)]
        found = await asyncio.gather(*(worker.call("warnings", key) for worker in workers))
        return tuple(dict.fromkeys(text for texts in found for text in texts))

    async def supports_cross_signing(self, key: str) -> bool:
        return bool(await self._first(key).call("supports_cross_signing", key))

    async def cross_sign(self, key: str, cert_pem: str, serial: bytes, now: int, not_after: int) -> str:
        """Another CA's root, signed by the one under `key`, and what is between that and the trust anchor; PEM.

        Raises: ProviderError.
        """
        cross_pem: str = await self._first(key).call("cross_sign", key, cert_pem, serial, now, not_after)
        return cross_pem

    async def cleanup(self, key: str) -> None:
        """Remove what the provider made in its backend. Raises: ProviderError."""
        await self._first(key).call("cleanup", key)

    # -- work that any worker can do

    def _has(self, worker: _Worker, key: str) -> bool:
        return not worker.is_gone and key not in worker.lacking

    def _first(self, key: str) -> _Worker:
        """Always the same one for a key, as long as it lives: some calls build on the one before."""
        return next((worker for worker in self._workers if self._has(worker, key)), self._workers[0])

    def _idlest(self, key: str = "") -> _Worker:
        return min(self._workers, key=lambda worker: (not self._has(worker, key), worker.load))

    async def sign_leaves(
        self, key: str, trust_domain: str, datacenter: str, now: int, requests: Sequence[tuple[str, bytes]]
    ) -> list[IssuedLeaf | ProviderError | ClusterError]:
        """One result for each (CSR PEM, serial), in order. Raises: ProviderError when nothing was signed."""
        policy = (trust_domain, datacenter, self._domain)
        results = await self._idlest(key).call("sign_leaves", key, policy, now, requests)
        return [unpack_error(error) if error else _unpack_leaf(leaf) for error, leaf in results]

    async def check_csr(self, trust_domain: str, datacenter: str, csr_pem: str) -> tuple[str, str, str]:
        """Kind, name and SPIFFE ID. Raises: CSRRejected."""
        policy = (trust_domain, datacenter, self._domain)
        kind, name, spiffe_id = await self._idlest().call("check_csr", policy, csr_pem)
        return kind, name, spiffe_id

    async def make_csr(self, spiffe_id: str, dns_names: Sequence[str], addresses: Sequence[str]) -> tuple[str, str]:
        """A CSR and its new private key, PEM."""
        csr_pem, key_pem = await self._idlest().call("make_csr", spiffe_id, dns_names, addresses)
        return csr_pem, key_pem


def _unpack_chain(chain: Sequence[Any] | None) -> CAChain | None:
    return None if chain is None else CAChain(chain[0], chain[1], tuple(chain[2]))


def _unpack_leaf(fields: Sequence[Any]) -> IssuedLeaf:
    cert_pem, serial, *rest = fields
    return IssuedLeaf(cert_pem, int.from_bytes(serial, "big"), *rest)
