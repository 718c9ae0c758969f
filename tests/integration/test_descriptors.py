"""A node with few descriptors, and somebody who opens connections to all of its ports and says nothing."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final

import psutil
import pytest

from tests.kit.hoard import hoarding
from tests.kit.real_cluster import LocalCluster, Node, make_csr
from tests.kit.wait import eventually, until

pytestmark = pytest.mark.slow

OPEN_FILES: Final = 256
#: Of the node's own, with connections that it may still have to end; what is left is for whatever it opens next.
_SPARE: Final = 24
_SETTINGS: Final = {"raft": {"compact_bytes": 64 << 10, "keep_bytes": 16 << 10}}


@pytest.fixture
async def cluster(tmp_path: Path) -> AsyncIterator[LocalCluster]:
    async with LocalCluster(tmp_path, settings=_SETTINGS) as made:
        for node in made.nodes:
            made.start_limited(node, OPEN_FILES)
        await made.wait_ready()
        yield made


async def metric(cluster: LocalCluster, node: Node, name: str) -> float:
    text = (await cluster.ask(node, "GET", "/v1/agent/metrics", query={"format": "prometheus"})).text
    return sum(float(line.rpartition(" ")[2]) for line in text.splitlines() if line.startswith(name))


@pytest.mark.parametrize(("source", "persistent"), [("127.0.0.1", False), ("127.0.0.2", True)])
async def test_a_cluster_goes_on_while_somebody_holds_hundreds_of_idle_connections(
    cluster: LocalCluster, source: str, persistent: bool
) -> None:
    """Once from the address of the nodes and of this client, whose connections then take the place of idle ones; once
    from another one, by somebody who opens every connection again as soon as it was closed.
    """
    await cluster.wait_settled()
    leader = await cluster.leader()
    terms = [await metric(cluster, node, "quorumca_raft_term") for node in cluster.nodes]
    async with hoarding(cluster.nodes, source=source, persistent=persistent):
        csr_pem, _ = make_csr(await cluster.service_uri())
        before = {node: await metric(cluster, node, "quorumca_compactions") for node in cluster.nodes}
        descriptors = []

        async def all_compacted() -> bool:
            for node in cluster.nodes:
                await asyncio.gather(*(cluster.sign(node, csr_pem) for _ in range(8)))
                descriptors.append(psutil.Process(node.pid).num_fds())
            return all([await metric(cluster, n, "quorumca_compactions") >= before[n] + 2 for n in cluster.nodes])

        await eventually("every node has compacted its log", all_compacted, 90.0)
        assert 60 < max(descriptors) <= OPEN_FILES - _SPARE
        for node in cluster.nodes:
            assert (await cluster.ask(node, "GET", "/v1/status/leader")).json() == leader.local.raft
    assert all(node.is_running for node in cluster.nodes)
    assert [await metric(cluster, node, "quorumca_raft_term") for node in cluster.nodes] == terms
    for node in cluster.nodes:
        log = node.local.log.read_text()
        assert "connections.turned_away" in log
        assert "Traceback" not in log


async def test_a_node_that_restarts_joins_again_while_somebody_holds_connections(cluster: LocalCluster) -> None:
    """Also one whose connections to the others must be made anew; and whoever is new at the HTTP API is answered."""
    await cluster.wait_settled()
    leader = await cluster.leader()
    node = next(node for node in cluster.nodes if node is not leader)
    others = [other for other in cluster.nodes if other is not node]
    async with hoarding(others, "127.0.0.2", persistent=True):
        await cluster.kill(node)
        cluster.start_limited(node, OPEN_FILES)
        await cluster.wait_ready()
        csr_pem, _ = make_csr(await cluster.service_uri())
        assert await cluster.sign(node, csr_pem)
        await cluster.wait_same_digest()


async def test_a_limit_that_is_too_small_is_refused_at_the_start(tmp_path: Path) -> None:
    async with LocalCluster(tmp_path, nodes=1) as cluster:
        [node] = cluster.nodes
        cluster.start_limited(node, 128)
        await until(lambda: not node.is_running, "the node ends")
        assert node.started is not None
        assert node.started.process.returncode == 1
        assert "this process may have 128 open files (ulimit -n): a node needs at least" in node.log_tail()
