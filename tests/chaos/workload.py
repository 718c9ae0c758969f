"""Clients of a cluster that is being hurt: what they asked for, what they were told, and when.

The register is the CA configuration: its value is LeafCertTTL in seconds, different in every write.
"""

import asyncio
import itertools
import random
import re
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import aiohttp

from providers.config.durations import SECOND, parse_duration
from tests.chaos.history import Kind, Operation, Outcome
from tests.chaos.stage import Stage, plain_serial
from tests.kit.real_cluster import Answer, Node, make_csr
from tests.kit.wait import eventually

PATH: Final = "/v1/connect/ca/configuration"
_PATIENCE_SECONDS: Final = 6.0
_PAUSE_SECONDS: Final = (0.005, 0.03)
_FIRST_TTL: Final = 3700
#: Statuses that say the request had no effect, and that mean nothing worse than a cluster in trouble.
_NOT_DONE: Final = (429, 503)
_UNKNOWN: Final = 504
_STALE: Final = 409
#: Consul's texts, with status 500, for a read without a leader and for a write that met another one.
_TROUBLE: Final = re.compile(
    r"No cluster leader|the CA is being changed already|could not atomically update roots and config"
)


@dataclass(frozen=True, slots=True)
class Signed:
    """An acknowledged certificate."""

    serial: str
    node: str
    invoked: float
    returned: float


@dataclass(slots=True)
class Record:
    """What clients of one round know."""

    initial: int
    signed: list[Signed] = field(default_factory=list)
    operations: list[Operation] = field(default_factory=list)
    statuses: Counter[str] = field(default_factory=Counter)
    unexpected: list[str] = field(default_factory=list)

    def max_gap_seconds(self) -> float:
        """The longest time in which no client got a certificate."""
        times = sorted(signed.returned for signed in self.signed)
        return max((after - before for before, after in itertools.pairwise(times)), default=0.0)


def ttl_values() -> Iterator[int]:
    return itertools.count(_FIRST_TTL)


class Workload:
    """One signing and one register client for each node, until `stop`."""

    def __init__(self, stage: Stage, values: Iterator[int], rng: random.Random) -> None:
        self._stage = stage
        self._values = values
        self._rng = rng
        self._tasks: list[asyncio.Task[None]] = []
        self._is_running = True
        self._versions: dict[str, tuple[int, int]] = {}
        #: What every write of the configuration sets; 0: no limit.
        self.csr_rate = 0
        self.record = Record(0)

    async def start(self) -> None:
        first = self._stage.nodes[0]
        csr_pem, _ = make_csr(await self._stage.cluster.service_uri("chaos"))
        body = {"Provider": "consul", "Config": self._config(next(self._values))}
        answer = await self._stage.cluster.ask(first, "PUT", PATH, body)
        assert answer.status == 200, answer
        self.record.initial, _ = _register((await self._stage.cluster.ask(first, "GET", PATH)).json())
        for node in self._stage.nodes:
            self._tasks.append(asyncio.ensure_future(self._sign_on(node, csr_pem)))
            self._tasks.append(asyncio.ensure_future(self._use_register_on(node)))

    async def stop(self) -> Record:
        """When every answer is there, or overdue."""
        self._is_running = False
        await asyncio.gather(*self._tasks)
        return self.record

    async def progress(self, nodes: Sequence[Node], seconds: float = 15.0) -> None:
        """Until each of these nodes has given a certificate that was asked for after this was called."""
        since = time.monotonic()
        names = {node.name for node in nodes}

        async def all_signed() -> bool | None:
            recent = itertools.takewhile(lambda signed: signed.returned > since, reversed(self.record.signed))
            return names <= {signed.node for signed in recent if signed.invoked > since} or None

        await eventually(f"certificates from {', '.join(sorted(names))}", all_signed, seconds)

    def signed_since(self, moment: float) -> int:
        """Certificates that were asked for after `moment`."""
        return sum(signed.invoked > moment for signed in self.record.signed)

    # -- signing

    async def _sign_on(self, node: Node, csr_pem: str) -> None:
        while self._is_running:
            invoked = time.monotonic()
            answer = await self._ask(node, "PUT", "/v1/connect/ca/sign", {"CSR": csr_pem})
            if isinstance(answer, Answer) and answer.status == 200:
                serial = plain_serial(answer.json()["SerialNumber"])
                self.record.signed.append(Signed(serial, node.name, invoked, time.monotonic()))
            else:
                self._outcome(answer, "sign")
            await self._pause()

    # -- the register

    async def _use_register_on(self, node: Node) -> None:
        actions: list[Callable[[Node], Awaitable[None]]] = [self._read, self._read, self._write, self._swap]
        while self._is_running:
            await self._rng.choice(actions)(node)
            await self._pause()

    async def _read(self, node: Node) -> None:
        invoked = time.monotonic()
        answer = await self._ask(node, "GET", PATH)
        if isinstance(answer, Answer) and answer.status == 200:
            value, version = self._versions[node.name] = _register(answer.json())
            self._note(node, Kind.READ, Outcome.OK, value, invoked, version=version)
        else:
            self._outcome(answer, "read")

    async def _write(self, node: Node) -> None:
        value, invoked = next(self._values), time.monotonic()
        answer = await self._ask(node, "PUT", PATH, {"Provider": "consul", "Config": self._config(value)})
        self._note(node, Kind.WRITE, self._outcome(answer, "write"), value, invoked)

    async def _swap(self, node: Node) -> None:
        """Over what this client has read last, which may be long gone."""
        if node.name not in self._versions:
            return
        expected, version = self._versions[node.name]
        value, invoked = next(self._values), time.monotonic()
        body = {"Provider": "consul", "Config": self._config(value), "ModifyIndex": version}
        answer = await self._ask(node, "PUT", PATH, body)
        if isinstance(answer, Answer) and answer.status == _STALE:
            outcome = Outcome.MISMATCH
            self.record.statuses[f"swap {_STALE}"] += 1
        else:
            outcome = self._outcome(answer, "swap")
        self._note(node, Kind.SWAP, outcome, value, invoked, expected=expected)

    def _note(
        self,
        node: Node,
        kind: Kind,
        outcome: Outcome,
        value: int,
        invoked: float,
        *,
        expected: int = 0,
        version: int = 0,
    ) -> None:
        operation = Operation(node.name, kind, outcome, value, invoked, time.monotonic(), expected, version)
        self.record.operations.append(operation)

    def _config(self, value: int) -> dict[str, Any]:
        return {"LeafCertTTL": f"{value}s", "CSRMaxPerSecond": self.csr_rate}

    # -- asking

    async def _ask(self, node: Node, method: str, path: str, body: object = None) -> Answer | Outcome:
        """The answer; without one, whether the request can have had an effect."""
        try:
            async with asyncio.timeout(_PATIENCE_SECONDS):
                return await self._stage.cluster.ask(node, method, path, body)
        except aiohttp.ClientConnectorError:
            return Outcome.NOT_DONE
        except (aiohttp.ClientError, TimeoutError):
            return Outcome.UNKNOWN

    def _outcome(self, answer: Answer | Outcome, what: str) -> Outcome:
        if isinstance(answer, Outcome):
            self.record.statuses[f"{what} no answer"] += 1
            return answer
        self.record.statuses[f"{what} {answer.status}"] += 1
        if answer.status == 200:
            return Outcome.OK
        if answer.status == _UNKNOWN:
            return Outcome.UNKNOWN
        if answer.status not in _NOT_DONE and not _TROUBLE.search(answer.text):
            self.record.unexpected.append(f"{what} was answered with {answer.status}: {answer.text[:200]}")
        return Outcome.NOT_DONE

    async def _pause(self) -> None:
        await asyncio.sleep(self._rng.uniform(*_PAUSE_SECONDS))


def _register(answer: Any) -> tuple[int, int]:
    """Value and version in an answer to GET configuration."""
    return parse_duration(answer["Config"]["LeafCertTTL"]) // SECOND, int(answer["ModifyIndex"])
