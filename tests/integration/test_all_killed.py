"""Every node is killed at the same moment, under load: what was acknowledged is there when they are back."""

import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.integration.load import assert_all_on_record, signing_load
from tests.kit.real_cluster import LocalCluster

pytestmark = [pytest.mark.slow, pytest.mark.alone]

ROUNDS = 3
BACK_SECONDS = 20.0


async def test_all_nodes_are_killed_at_once(tmp_path: Path, record_property: Callable[[str, object], None]) -> None:
    settings = {"connect": {"ca_config": {"csr_max_per_second": 0}}}
    async with LocalCluster(tmp_path, settings=settings) as cluster:
        await cluster.start_all()
        await cluster.wait_ready()
        before = await cluster.roots(cluster.nodes[0])
        waits = []
        async with signing_load(cluster) as load:
            for _ in range(ROUNDS):
                await load.acknowledges(100, 20.0)
                for node in cluster.nodes:
                    cluster.send(node, signal.SIGKILL)
                for node in cluster.nodes:
                    await cluster.restart(node, signal.SIGKILL)
                begin = time.monotonic()
                await load.acknowledges(1, BACK_SECONDS)
                waits.append(time.monotonic() - begin)
                await cluster.wait_ready()
        record_property("seconds to the first signature", " ".join(f"{seconds:.2f}" for seconds in waits))
        record_property("signed", len(load.acknowledged))
        print(f"seconds from start to the first signature: {waits}; {load}")
        load.assert_only_allowed_answers()
        await assert_all_on_record(cluster, load)
        for node in cluster.nodes:
            roots = await cluster.roots(node)
            assert (roots["ActiveRootID"], roots["TrustDomain"]) == (before["ActiveRootID"], before["TrustDomain"])
            assert roots["Roots"] == before["Roots"]
