"""A closed-loop load generator: a process of its own that reads its plan from stdin and prints what it measured.

`run_load` is the caller's side. Clients are connections, dealt to the targets in turn; every one has a single request
under way at any time.
"""

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from itertools import cycle, islice
from typing import Any, Final

import uvloop

from benchmarks.connection import Connection, Tally
from benchmarks.stats import percentile

PEM_PREFIX: Final = "-----BEGIN CERTIFICATE-----"
_RECONNECT_SECONDS: Final = 0.05
_MARGIN_SECONDS: Final = 30.0


@dataclass(frozen=True, slots=True)
class LoadPlan:
    """What to send where, and for how long."""

    targets: Sequence[str]  # host:port
    clients: int
    seconds: float  # the longest, when there is a count
    method: str
    path: str
    expected: str  # has to be in every answer
    warmup_seconds: float = 1.0
    bodies: Sequence[str] = field(default=("",), repr=False)  # used in turn
    count: int | None = None  # end after so many successes
    think_seconds: float = 0.0  # between an answer and the next request
    source: str = ""  # the address that the clients have
    #: Client k sends the k-th body alone, with the k-th token where there are any: each is a service of its own.
    is_own: bool = False
    tokens: Sequence[str] = field(default=(), repr=False)


@dataclass(frozen=True, slots=True)
class LoadResult:
    """One run. Only what was answered in the measured time counts."""

    requests: int
    successes: int  # with those of the warm-up
    seconds: float
    rate: float
    p50_ms: float
    p90_ms: float
    p99_ms: float
    max_ms: float
    failures: dict[str, int]
    generator_cpu_percent: float  # of one core, taken from the nodes


def sign_plan(targets: Sequence[str], clients: int, seconds: float, csrs: Sequence[str], **options: Any) -> LoadPlan:
    bodies = [json.dumps({"CSR": csr}) for csr in csrs]
    return LoadPlan(targets, clients, seconds, "PUT", "/v1/connect/ca/sign", PEM_PREFIX, bodies=bodies, **options)


def roots_plan(targets: Sequence[str], clients: int, seconds: float, **options: Any) -> LoadPlan:
    return LoadPlan(targets, clients, seconds, "GET", "/v1/connect/ca/roots", PEM_PREFIX, **options)


def run_load(plan: LoadPlan) -> LoadResult:
    """Raises: subprocess.CalledProcessError, TimeoutExpired."""
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.load"],
        input=json.dumps(asdict(plan)),
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        timeout=plan.warmup_seconds + plan.seconds + _MARGIN_SECONDS,
    )
    return LoadResult(**json.loads(done.stdout))


@contextmanager
def background_load(plan: LoadPlan) -> Iterator[None]:
    """Load that nobody measures, for as long as the block runs."""
    process = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.load"], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True
    )
    try:
        assert process.stdin is not None
        process.stdin.write(json.dumps(asdict(plan)))
        process.stdin.close()
        yield
    finally:
        process.kill()
        process.wait()


def render_request(target: str, plan: LoadPlan, body: str, token: str = "") -> bytes:
    data = body.encode()
    headers = f"{plan.method} {plan.path} HTTP/1.1\r\nHost: {target}\r\n"
    if token:
        headers += f"X-Consul-Token: {token}\r\n"
    if data:
        headers += f"Content-Type: application/json\r\nContent-Length: {len(data)}\r\n"
    return headers.encode() + b"\r\n" + data


async def generate(plan: LoadPlan) -> LoadResult:
    """Run the plan on the present event loop."""
    tally = Tally(remaining=plan.count)
    requests = {target: _requests(target, plan) for target in plan.targets}
    clients = [
        asyncio.create_task(_keep_busy(target, _of_client(requests[target], number, plan), plan, tally))
        for number, target in enumerate(islice(cycle(plan.targets), plan.clients))
    ]
    if plan.warmup_seconds:
        await _wait(tally, plan.warmup_seconds)
    tally.is_measuring = True
    started, cpu_started = time.perf_counter(), time.process_time()
    await _wait(tally, plan.seconds)
    seconds, cpu_seconds = time.perf_counter() - started, time.process_time() - cpu_started
    tally.is_measuring = False
    tally.finished.set()
    for client in clients:
        client.cancel()
    await asyncio.gather(*clients, return_exceptions=True)
    return _result(tally, seconds, cpu_seconds)


def _requests(target: str, plan: LoadPlan) -> list[bytes]:
    tokens = plan.tokens or [""] * len(plan.bodies)
    return [render_request(target, plan, body, token) for body, token in zip(plan.bodies, tokens, strict=True)]


def _of_client(requests: Sequence[bytes], number: int, plan: LoadPlan) -> Iterator[bytes]:
    return cycle([requests[number % len(requests)]]) if plan.is_own else _from(requests, number)


def _from(requests: Sequence[bytes], start: int) -> Iterator[bytes]:
    """All requests in turn, for ever, from another place for every client."""
    start %= len(requests)
    return cycle([*requests[start:], *requests[:start]])


async def _wait(tally: Tally, seconds: float) -> None:
    try:
        async with asyncio.timeout(seconds):
            await tally.finished.wait()
    except TimeoutError:
        pass


async def _keep_busy(target: str, requests: Iterator[bytes], plan: LoadPlan, tally: Tally) -> None:
    """One client, which dials again when its connection is lost."""
    host, _, port = target.rpartition(":")
    loop = asyncio.get_running_loop()
    expected = plan.expected.encode()
    while not tally.finished.is_set():
        try:
            _, connection = await loop.create_connection(
                lambda: Connection(requests, expected, plan.think_seconds, tally),
                host,
                int(port),
                local_addr=(plan.source, 0) if plan.source else None,
            )
        except OSError:
            tally.failure("connection refused")
            await asyncio.sleep(_RECONNECT_SECONDS)
            continue
        try:
            await connection.lost.wait()
            if not tally.finished.is_set():
                tally.failure("connection lost")
        finally:
            connection.close()


def _result(tally: Tally, seconds: float, cpu_seconds: float) -> LoadResult:
    ordered = sorted(latency * 1000 for latency in tally.latencies)
    return LoadResult(
        requests=len(ordered),
        successes=tally.successes,
        seconds=seconds,
        rate=len(ordered) / seconds,
        p50_ms=percentile(ordered, 0.50),
        p90_ms=percentile(ordered, 0.90),
        p99_ms=percentile(ordered, 0.99),
        max_ms=ordered[-1] if ordered else 0.0,
        failures=dict(tally.failures),
        generator_cpu_percent=100 * cpu_seconds / seconds,
    )


def main() -> int:
    plan = LoadPlan(**json.loads(sys.stdin.read()))
    print(json.dumps(asdict(uvloop.run(generate(plan)))))
    return 0


if __name__ == "__main__":
    sys.exit(main())
