"""Somebody floods all nodes with wrong tokens, and holds connections to them: honest clients go on signing.

The same on a larger scale is `python -m benchmarks.flood`.
"""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Final

import pytest

from benchmarks.csrs import make_csrs
from benchmarks.flood import Flood, Outcome, measure
from tests.kit.real_cluster import LocalCluster
from tests.kit.wait import eventually

pytestmark = [pytest.mark.slow, pytest.mark.alone]

FLOOD: Final = Flood(connections=240, flooders=8)
CLIENTS: Final = 8
SECONDS: Final = 3.0
MOST_MB: Final = 64.0
#: Both times are seconds on a machine that has other things to do, too.
TIMES: Final = 3


@pytest.fixture
async def cluster(tmp_path: Path) -> AsyncIterator[LocalCluster]:
    async with LocalCluster(tmp_path, settings={"limits": {"refused_per_source": 5}}) as made:
        await made.start_all()
        await made.wait_ready()
        yield made


async def bootstrapped(cluster: LocalCluster) -> str:
    """The first token: from now on there are wrong ones."""

    async def bootstrap() -> Any:
        answer = await cluster.ask(cluster.nodes[0], "PUT", "/v1/acl/bootstrap")
        return answer.json()["SecretID"] if answer.status == 200 else None

    return str(await eventually("access control is set up", bootstrap))


async def test_honest_clients_keep_half_of_their_rate_beside_a_flood_of_refused_requests(cluster: LocalCluster) -> None:
    await cluster.wait_settled()
    domain = (await cluster.service_uri()).split("/")[2]
    token = await bootstrapped(cluster)
    node = cluster.nodes[0]
    headers = {"X-Consul-Token": token}
    answer = await cluster.ask(
        node,
        "PUT",
        "/v1/connect/ca/configuration",
        {"Provider": "consul", "Config": {"CSRMaxPerSecond": 0}},
        headers=headers,
    )
    assert answer.status == 200, answer
    targets = {each.local.http: each.pid for each in cluster.nodes}
    outcomes: list[Outcome] = []
    while len(outcomes) < TIMES and not any(one.kept >= 0.5 for one in outcomes):
        outcomes.append(await asyncio.to_thread(measure, targets, make_csrs(8, domain), token, FLOOD, CLIENTS, SECONDS))
    failures = outcomes[-1].failures(MOST_MB)
    assert not failures, outcomes
    assert outcomes[-1].refused > 0  # by a look at their address alone
