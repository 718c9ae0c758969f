"""How long nobody can sign after the leader has died."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import uvloop

from benchmarks.load import background_load, generate, sign_plan
from benchmarks.nodes import BenchError, LocalCluster, Node, kill
from benchmarks.results import Failover
from benchmarks.stats import Spread

#: About 150 signatures per second in the background.
_LIGHT_CLIENTS: Final = 9
_LIGHT_THINK_SECONDS: Final = 0.05
_LIGHT_SECONDS: Final = 300.0
_WARMUP_SECONDS: Final = 1.0
_LIMIT_SECONDS: Final = 30.0


@dataclass(frozen=True, slots=True)
class _Loss:
    signing_seconds: float
    rejoin_seconds: float


def measure_failover(cluster: LocalCluster, csrs: Sequence[str], rounds: int) -> Failover:
    """Kill whoever leads, `rounds` times, and bring it back each time. Raises: BenchError."""
    losses = [_lose_leader(cluster, csrs) for _ in range(rounds)]
    return Failover(
        seconds=Spread.of([loss.signing_seconds for loss in losses]),
        rejoin_seconds=Spread.of([loss.rejoin_seconds for loss in losses]),
    )


def _lose_leader(cluster: LocalCluster, csrs: Sequence[str]) -> _Loss:
    cluster.wait_until_alike()
    targets = [node.http for node in cluster.nodes]
    light = sign_plan(targets, _LIGHT_CLIENTS, _LIGHT_SECONDS, csrs, think_seconds=_LIGHT_THINK_SECONDS)
    with background_load(light):
        time.sleep(_WARMUP_SECONDS)
        leader = cluster.leader()
        survivors = [node.http for node in cluster.nodes if node.name != leader.name]
        signing_seconds = uvloop.run(_until_signed(leader, survivors, csrs))
        rejoin_seconds = cluster.restart(leader)
    return _Loss(signing_seconds, rejoin_seconds)


async def _until_signed(leader: Node, survivors: Sequence[str], csrs: Sequence[str]) -> float:
    """Seconds from the kill to the first signature that was asked for after it, with one client at each survivor."""
    plan = sign_plan(survivors, len(survivors), _LIMIT_SECONDS, csrs, warmup_seconds=0.0, count=1)
    started = time.monotonic()
    kill(leader)
    result = await generate(plan)
    seconds = time.monotonic() - started
    if not result.requests:
        raise BenchError(f"no signature within {_LIMIT_SECONDS:.0f} s of the leader's end; answers: {result.failures}")
    return seconds
