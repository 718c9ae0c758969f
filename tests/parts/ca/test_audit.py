"""The CA's own signatures that failed are in the log, as those of leaves are: profile, provider, reason."""

import asyncio
from typing import Any

from providers.errors import ProviderUnavailable
from tests.kit.fake_cluster import FakeCluster, Node, bootstrapped, put, running, update
from tests.kit.wait import until

DOWN = ProviderUnavailable("the backend is down")


def failed(node: Node) -> list[dict[str, Any]]:
    return [fields for event, fields in node.log.events if event == "ca.sign_failed"]


async def test_root_that_could_not_be_made(cluster: FakeCluster) -> None:
    node = Node(cluster, "a")
    node.worker.failures["generate_root"] = DOWN
    async with running(node):
        cluster.elect("a")
        await until(lambda: failed(node))
    assert failed(node)[0] == {
        "profile": "root",
        "provider": "consul",
        "by": "leader",
        "reason": "the backend is down",
    }


async def test_cross_signed_root_that_could_not_be_made(cluster: FakeCluster) -> None:
    node = Node(cluster, "a")
    async with running(node):
        await bootstrapped(node)
        assert failed(node) == []
        node.worker.failures["cross_sign"] = DOWN
        rotation = asyncio.ensure_future(put(node, update({"PrivateKeyBits": 384})))
        await until(lambda: failed(node))
        rotation.cancel()
    line = failed(node)[0]
    assert int(line.pop("serial"), 16) > 0
    assert line == {"profile": "cross-signed", "provider": "consul", "by": "leader", "reason": "the backend is down"}
