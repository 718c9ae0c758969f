"""While the CA's provider gives no answer, a node says how it is, and judges who asks: none of that waits for it."""

import asyncio
import json
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
from tests.kit.guarded import ROOT, Guard
from tests.kit.log import EventLog
from tests.kit.ports import free_ports
from tests.kit.wait import until
from tests.kit.whole_nodes import Cluster, put_together

#: Far more than it takes; far less than whoever waits for the provider waits here.
DEADLINE_SECONDS: Final = 5.0
HEALTH: Final = (
    *("/v1/status/live", "/v1/status/ready", "/v1/status/leader", "/v1/status/peers", "/v1/catalog/datacenters"),
    *("/v1/connect/ca/roots", "/v1/agent/connect/ca/roots", "/v1/operator/autopilot/health", "/v1/operator/digest"),
    *("/v1/operator/raft/configuration", "/v1/agent/self", "/v1/agent/metrics", "/v1/connect/ca/configuration"),
    *("/v1/connect/ca/rotation", "/v1/connect/ca/certs", "/v1/acl/tokens", "/v1/acl/token/self"),
)
SIGNATURES: Final = 8


class Asked:
    """The API of the leader and of a follower."""

    def __init__(self, whole: Cluster, session: aiohttp.ClientSession, urls: dict[str, str]) -> None:
        self.whole = whole
        self.urls = urls
        self._session = session

    async def ask(self, node: str, method: str, path: str, body: object = None, token: str = ROOT) -> tuple[int, str]:
        headers = {"X-Consul-Token": token} if token else {}
        data = None if body is None else json.dumps(body)
        async with self._session.request(method, self.urls[node] + path, data=data, headers=headers) as response:
            return response.status, await response.text()


@pytest.fixture
async def asked(rpc_cluster: FakeCluster, tls_directory: Path) -> AsyncIterator[Asked]:
    async with AsyncExitStack() as stack:
        whole = await put_together(rpc_cluster, tls_directory, stack, ConnectSection())
        await whole.lead("a")
        Guard(rpc_cluster, *whole.nodes.values())
        urls = {}
        for node, port in zip(("a", "b"), free_ports(2), strict=True):
            service = whole.services[node]
            section = msgspec.structs.replace(service.config.http, address=f"127.0.0.1:{port}")
            server = await start_http(create_app(service, EventLog()), section, stop_seconds=1)
            stack.push_async_callback(server.stop)
            urls[node] = f"http://127.0.0.1:{port}"
        session = await stack.enter_async_context(
            aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), trust_env=False)
        )
        yield Asked(whole, session, urls)


@pytest.mark.parametrize("node", ["a", "b"])
async def test_node_says_how_it_is_while_signatures_hang(asked: Asked, node: str) -> None:
    worker = asked.whole.nodes["a"].worker
    worker.held.add("sign_leaves")
    body = {"CSR": asked.whole.csr()}
    waiting = [asyncio.ensure_future(asked.ask(node, "PUT", "/v1/connect/ca/sign", body)) for _ in range(SIGNATURES)]
    leaf = asyncio.ensure_future(asked.ask("a", "GET", "/v1/agent/connect/ca/leaf/web"))
    rotation = asyncio.ensure_future(asked.ask(node, "PUT", "/v1/connect/ca/rotation", {"Action": "rotate"}))
    await until(lambda: "sign_leaves" in worker.calls)
    async with asyncio.timeout(DEADLINE_SECONDS):
        for path in HEALTH:
            status, text = await asked.ask(node, "GET", path)
            assert status == 200, (path, text)
        # And nobody is let in because there is no answer.
        for path in ("/v1/connect/ca/sign", "/v1/connect/ca/rotation"):
            for token, said in (("", "Permission denied: anonymous token lacks"), ("x", "ACL not found")):
                held = asyncio.ensure_future(asked.ask(node, "PUT", path, {**body, "Action": "rotate"}, token))
                if path.endswith("rotation") or token:
                    status, text = await held
                    assert (status, said in text) == (403, True), (path, text)
                else:  # in the queue, where it is judged when its turn comes
                    waiting.append(held)
    assert [task.result() for task in (*waiting[:-1], leaf) if task.done()] == []
    worker.gate.set()
    found = await asyncio.gather(*waiting)
    assert [status for status, _ in found[:-1]] == [200] * SIGNATURES
    assert found[-1][0] == 403
    assert (await leaf)[0] == 200
    rotation.cancel()
