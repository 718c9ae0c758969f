"""While the CA's provider answers nobody, a node says how it is: at once, whoever waits for signatures."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Final

import aiohttp
import msgspec
import pytest

from cluster.base.config import ConnectSection
from cluster.http.app import create_app, start_http
from tests.kit.fake_cluster import FakeCluster
from tests.kit.log import EventLog
from tests.kit.ports import free_ports
from tests.kit.rpc_nodes import NAMES
from tests.kit.wait import until
from tests.kit.whole_nodes import Cluster, put_together

WAITING: Final = 64
MOST_SECONDS: Final = 0.1
HEALTH: Final = (
    "/v1/status/live",
    "/v1/status/ready",
    "/v1/status/leader",
    "/v1/status/peers",
    "/v1/operator/autopilot/health",
    "/v1/connect/ca/roots",
)


@pytest.fixture
async def whole(rpc_cluster: FakeCluster, tls_directory: Path) -> AsyncIterator[Cluster]:
    async with AsyncExitStack() as stack:
        cluster = await put_together(rpc_cluster, tls_directory, stack, ConnectSection())
        await cluster.lead("a")
        yield cluster


@pytest.mark.parametrize("name", NAMES[:2])
async def test_health_is_told_at_once_while_the_provider_hangs(whole: Cluster, name: str) -> None:
    """On the leader, and on a follower that waits for it."""
    worker, service = whole.nodes["a"].worker, whole.services[name]
    worker.held |= {"sign_leaves", "check_csr"}
    section = msgspec.structs.replace(service.config.http, address=f"127.0.0.1:{free_ports(1)[0]}")
    server = await start_http(create_app(service, EventLog()), section, stop_seconds=0.1)
    try:
        async with aiohttp.ClientSession(f"http://{section.address}") as client:

            async def sign() -> int:
                async with client.put("/v1/connect/ca/sign", json={"CSR": whole.csr()}) as response:
                    return response.status

            asked = [asyncio.ensure_future(sign()) for _ in range(WAITING)]
            await until(lambda: "check_csr" in worker.calls)
            for path in HEALTH:
                taken = []
                for _ in range(5):
                    begin = time.monotonic()
                    async with client.get(path) as response:
                        assert response.status in (200, 429), path
                    taken.append(time.monotonic() - begin)
                assert min(taken) < MOST_SECONDS, path
            assert not any(one.done() for one in asked)
            worker.held.clear()
            worker.gate.set()
            statuses = set(await asyncio.gather(*asked))
            assert statuses <= {200, 429}
    finally:
        await server.stop()
