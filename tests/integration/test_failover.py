"""Leaders that are killed, paused or stopped under load: nothing acknowledged is lost, and signing goes on at once."""

import asyncio
import signal
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from statistics import median

import pytest

from tests.integration.load import Load, assert_all_on_record, signing_load
from tests.kit.real_cluster import LocalCluster, Node

pytestmark = [pytest.mark.slow, pytest.mark.alone]

ROUNDS = 3
MAX_SECONDS = 3.0
MEDIAN_SECONDS = 1.0
#: Longer than the longest election time-out, which is one second.
PAUSE_SECONDS = 2.5
_FLOWING = 50

Record = Callable[[str, object], None]
Disturb = Callable[[LocalCluster, Node, Load], Awaitable[None]]


async def _kill(cluster: LocalCluster, leader: Node, load: Load) -> None:
    await cluster.kill(leader, signal.SIGKILL)
    await load.acknowledges(_FLOWING, 20.0)
    await cluster.restart(leader)


async def _stop(cluster: LocalCluster, leader: Node, load: Load) -> None:
    assert await cluster.stop(leader) == 0
    await load.acknowledges(_FLOWING, 20.0)
    await cluster.restart(leader)


async def _pause(cluster: LocalCluster, leader: Node, load: Load) -> None:
    """The others must have gone on without it before it wakes, as a leader that does not know."""
    cluster.send(leader, signal.SIGSTOP)
    try:
        await asyncio.sleep(PAUSE_SECONDS)
        await load.acknowledges(_FLOWING, 20.0)
    finally:
        cluster.send(leader, signal.SIGCONT)


DISTURBANCES: dict[str, Disturb] = {"SIGKILL": _kill, "SIGTERM": _stop, "SIGSTOP": _pause}


async def test_leader_is_lost_under_load(tmp_path: Path, record_property: Record) -> None:
    silences: dict[str, list[float]] = {name: [] for name in DISTURBANCES}
    settings = {"connect": {"ca_config": {"csr_max_per_second": 0}}}
    async with LocalCluster(tmp_path, settings=settings) as cluster:
        await cluster.start_all()
        await cluster.wait_ready()
        async with signing_load(cluster) as load:
            await load.acknowledges(_FLOWING, 20.0)
            for name, disturb in ROUNDS * [*DISTURBANCES.items()]:
                leader = await cluster.leader()
                begin = time.monotonic()
                await disturb(cluster, leader, load)
                await cluster.wait_ready()
                await load.acknowledges(_FLOWING, 20.0)
                silences[name].append(load.longest_silence(begin))
        for name, seconds in silences.items():
            record_property(f"seconds without a signature, {name}", " ".join(f"{each:.2f}" for each in seconds))
        record_property("clients", str(load))
        print(f"seconds without a signature: {silences}; {load}; {load.refused[:10]}")
        load.assert_only_allowed_answers()
        await assert_all_on_record(cluster, load)
    together = [each for seconds in silences.values() for each in seconds]
    assert median(together) < MEDIAN_SECONDS, silences
    assert max(together) < MAX_SECONDS, silences
