"""What a client may rely on, whichever node it asks: news, its own writes, and the truth about a lost majority."""

import asyncio
import signal
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.kit.real_cluster import Answer, LocalCluster, Node, make_csr
from tests.kit.wait import eventually

pytestmark = [pytest.mark.slow, pytest.mark.asyncio(loop_scope="module")]

CONFIGURATION = "/v1/connect/ca/configuration"
WATCHED = ("/v1/connect/ca/roots", "/v1/agent/connect/ca/roots", CONFIGURATION)
#: Far longer than a change takes, and less than what the harness waits for an answer.
WAIT = "15s"
WOKEN_SECONDS = 5.0
LEADER_WAIT_SECONDS = 1.0


async def read_config(cluster: LocalCluster, node: Node) -> dict[str, Any]:
    return dict((await cluster.ask(node, "GET", CONFIGURATION)).json())


async def set_leaf_ttl(cluster: LocalCluster, node: Node, hours: int, modify_index: int = 0) -> Answer:
    body = {"Provider": "consul", "Config": {"LeafCertTTL": f"{hours}h"}, "ModifyIndex": modify_index}
    return await cluster.ask(node, "PUT", CONFIGURATION, body)


async def other_than(cluster: LocalCluster, *nodes: Node) -> Node:
    return next(node for node in cluster.nodes if node not in nodes)


# -- three nodes that stay


@pytest.mark.parametrize("writer", range(3))
async def test_watches_on_every_node_are_woken_by_a_change(shared_cluster: LocalCluster, writer: int) -> None:
    cluster = shared_cluster
    index = {path: (await cluster.ask(cluster.nodes[0], "GET", path)).headers["X-Consul-Index"] for path in WATCHED}

    async def watch(node: Node, path: str) -> tuple[float, Answer]:
        answer = await cluster.ask(node, "GET", path, query={"index": index[path], "wait": WAIT})
        return time.monotonic(), answer

    watches = [asyncio.create_task(watch(node, path)) for node in cluster.nodes for path in WATCHED]

    async def all_wait() -> bool | None:
        waiting = [await _gauge(cluster, node, "quorumca_blocking_queries") for node in cluster.nodes]
        return waiting == [len(WATCHED)] * len(cluster.nodes) or None

    await eventually("all watches wait", all_wait, 10.0)
    assert not [watch for watch in watches if watch.done()]
    changed = time.monotonic()
    assert (await set_leaf_ttl(cluster, cluster.nodes[writer], 80 + writer)).status == 200
    for woken, answer in await asyncio.gather(*watches):
        assert answer.status == 200, answer.text
        assert int(answer.headers["X-Consul-Index"]) > max(map(int, index.values()))
        assert woken - changed < WOKEN_SECONDS


async def _gauge(cluster: LocalCluster, node: Node, name: str) -> float:
    metrics = (await cluster.ask(node, "GET", "/v1/agent/metrics")).json()
    (value,) = [gauge["Value"] for gauge in metrics["Gauges"] if gauge["Name"] == name]
    return float(value)


async def test_watch_without_news_ends_after_its_wait(shared_cluster: LocalCluster) -> None:
    cluster = shared_cluster
    for node in cluster.nodes:
        before = await cluster.ask(node, "GET", WATCHED[0])
        begin = time.monotonic()
        after = await cluster.ask(
            node, "GET", WATCHED[0], query={"index": before.headers["X-Consul-Index"], "wait": "500ms"}
        )
        assert 0.5 <= time.monotonic() - begin < WOKEN_SECONDS
        assert (after.status, after.text) == (200, before.text)


async def test_own_write_is_read_through_every_other_node(shared_cluster: LocalCluster) -> None:
    cluster = shared_cluster
    for number in range(30):
        writer, reader = cluster.nodes[number % 3], cluster.nodes[(number + 1 + number // 3 % 2) % 3]
        assert writer is not reader
        assert (await set_leaf_ttl(cluster, writer, 100 + number)).status == 200
        assert (await read_config(cluster, reader))["Config"]["LeafCertTTL"] == f"{100 + number}h"


async def test_certificate_is_found_through_every_other_node(shared_cluster: LocalCluster) -> None:
    cluster = shared_cluster
    csr_pem, _ = make_csr(await cluster.service_uri())
    for node in cluster.nodes:
        serial = (await cluster.sign(node, csr_pem))["SerialNumber"]
        for reader in cluster.nodes:
            found = (await cluster.ask(reader, "GET", f"/v1/connect/ca/certs/{serial}")).json()
            assert found["SerialNumber"] == serial


async def test_stale_write_is_a_conflict_that_names_the_index(shared_cluster: LocalCluster) -> None:
    cluster = shared_cluster
    for number, node in enumerate(cluster.nodes):
        before = await read_config(cluster, node)
        assert (await set_leaf_ttl(cluster, node, 200 + number, before["ModifyIndex"])).status == 200
        current = await read_config(cluster, await other_than(cluster, node))
        for wrong in (before["ModifyIndex"], current["ModifyIndex"] + 1000):
            refused = await set_leaf_ttl(cluster, node, 300, wrong)
            assert refused.status == 409
            assert str(current["ModifyIndex"]) in refused.text.replace(":", " ").split()
            assert await read_config(cluster, node) == current


async def test_of_concurrent_writes_with_one_index_one_wins(shared_cluster: LocalCluster) -> None:
    cluster = shared_cluster
    for number in range(5):
        before = await read_config(cluster, cluster.nodes[0])
        hours = [400 + 10 * number + k for k in range(len(cluster.nodes))]
        answers = await asyncio.gather(
            *(
                set_leaf_ttl(cluster, node, ttl, before["ModifyIndex"])
                for node, ttl in zip(cluster.nodes, hours, strict=True)
            )
        )
        winners = [ttl for ttl, answer in zip(hours, answers, strict=True) if answer.status == 200]
        assert len(winners) == 1, answers
        # 500 is Consul's answer while another change is under way.
        assert {answer.status for answer in answers} <= {200, 409, 500}, answers
        assert (await read_config(cluster, cluster.nodes[1]))["Config"]["LeafCertTTL"] == f"{winners[0]}h"


# -- nodes that are lost


@pytest.fixture
async def fragile(tmp_path: Path) -> AsyncIterator[LocalCluster]:
    """Three nodes that do not wait long for a leader."""
    settings = {"limits": {"leader_wait_ms": int(1000 * LEADER_WAIT_SECONDS)}}
    async with LocalCluster(tmp_path, settings=settings) as made:
        await made.start_all()
        await made.wait_ready()
        yield made


@pytest.mark.asyncio(loop_scope="function")
async def test_requests_during_an_election_wait_for_the_new_leader(tmp_path: Path) -> None:
    settings = {"raft": {"election_timeout_min_ms": 1000, "election_timeout_max_ms": 1300}}
    async with LocalCluster(tmp_path, settings=settings) as cluster:
        await cluster.start_all()
        await cluster.wait_ready()
        csr_pem, _ = make_csr(await cluster.service_uri())
        leader = await cluster.leader()
        others = [node for node in cluster.nodes if node is not leader]
        # Paused, so that its connections stay open, and only time tells that it is gone.
        cluster.send(leader, signal.SIGSTOP)
        begin = time.monotonic()
        try:
            answers = await asyncio.gather(
                *(cluster.ask(node, "PUT", "/v1/connect/ca/sign", {"CSR": csr_pem}) for node in others),
                *(cluster.ask(node, "GET", CONFIGURATION) for node in others),
                set_leaf_ttl(cluster, others[0], 50),
            )
            took = time.monotonic() - begin
        finally:
            cluster.send(leader, signal.SIGCONT)
        assert [answer.status for answer in answers] == [200] * 5, answers
        # They came before there was a new leader, or they would not have had to wait.
        assert took > 0.5
        assert (await read_config(cluster, leader))["Config"]["LeafCertTTL"] == "50h"


@pytest.mark.asyncio(loop_scope="function")
async def test_without_a_majority_only_stale_reads_are_answered(fragile: LocalCluster) -> None:
    cluster = fragile
    csr_pem, _ = make_csr(await cluster.service_uri())
    serial = (await cluster.sign(cluster.nodes[0], csr_pem))["SerialNumber"]
    await cluster.wait_same_digest()
    survivor = await cluster.leader()
    for node in cluster.nodes:
        if node is not survivor:
            await cluster.kill(node)

    async def has_stepped_down() -> bool | None:
        return (await cluster.ask(survivor, "GET", "/v1/status/leader")).json() == "" or None

    await eventually("the leader without a majority steps down", has_stepped_down, 10.0)
    reads = (*WATCHED[::2], f"/v1/connect/ca/certs/{serial}", "/v1/connect/ca/certs", "/v1/operator/raft/configuration")
    for path in (*reads, "/v1/operator/digest"):
        begin = time.monotonic()
        stale = await cluster.ask(survivor, "GET", path, query={"stale": ""})
        assert (stale.status, time.monotonic() - begin < 1.0) == (200, True), f"{path}: {stale}"
        if path in WATCHED:
            assert stale.headers["X-Consul-KnownLeader"] == "false"
    asked = [(path, query) for path in reads for query in ({}, {"consistent": ""})]
    begin = time.monotonic()
    answers = await asyncio.gather(*(cluster.ask(survivor, "GET", path, query=query) for path, query in asked))
    assert time.monotonic() - begin < LEADER_WAIT_SECONDS + 2.0
    for (path, _), refused in zip(asked, answers, strict=True):
        assert (refused.status, refused.text) == (500, "No cluster leader"), f"{path}: {refused}"
    # An agent's roots are served as they are known: proxies have to go on.
    assert (await cluster.ask(survivor, "GET", WATCHED[1])).status == 200
    unsigned = await cluster.ask(survivor, "PUT", "/v1/connect/ca/sign", {"CSR": csr_pem})
    assert (unsigned.status, unsigned.headers.get("Retry-After")) == (503, "1"), unsigned
    # A leaf takes a read and a signature: both together wait for a leader as long as either.
    begin = time.monotonic()
    missing = await cluster.ask(survivor, "GET", "/v1/agent/connect/ca/leaf/new")
    took = time.monotonic() - begin
    assert (missing.status, missing.text) == (500, "No cluster leader"), missing
    assert took < 2 * LEADER_WAIT_SECONDS
    unwritten = await set_leaf_ttl(cluster, survivor, 60)
    assert unwritten.status in (500, 503), unwritten
    # One more makes a majority, and the write that was refused has left nothing behind.
    back = await other_than(cluster, survivor)
    cluster.start(back)
    await cluster.wait_ready()
    for node in (survivor, back):
        assert (await read_config(cluster, node))["Config"]["LeafCertTTL"] == "72h"
        await cluster.sign(node, csr_pem)


@pytest.mark.asyncio(loop_scope="function")
async def test_leadership_is_moved_through_any_node(tmp_path: Path) -> None:
    async with LocalCluster(tmp_path) as cluster:
        await cluster.start_all()
        await cluster.wait_ready()
        csr_pem, _ = make_csr(await cluster.service_uri())
        for target in (*cluster.nodes, *cluster.nodes):
            leader = await cluster.leader()
            asked = await other_than(cluster, leader)
            moved = await cluster.ask(asked, "POST", "/v1/operator/raft/transfer-leader", query={"id": target.name})
            if target is leader:
                assert moved.status in (200, 400, 422), moved
                continue
            assert (moved.status, moved.json()) == (200, {"Success": True})

            async def leads(name: str = target.name) -> bool | None:
                return (await cluster.leader()).name == name or None

            await eventually(f"{target.name} leads", leads, 10.0)
            for node in cluster.nodes:
                with_news = await cluster.sign(node, csr_pem)
                assert with_news["Service"] == "web"
                assert (await set_leaf_ttl(cluster, node, 70)).status == 200


@pytest.mark.asyncio(loop_scope="function")
async def test_watch_ends_when_its_node_stops(tmp_path: Path) -> None:
    """A node that is stopped in order does not let clients wait for nothing."""
    async with LocalCluster(tmp_path, nodes=1) as cluster:
        await cluster.start_all()
        await cluster.wait_ready()
        (node,) = cluster.nodes
        index = (await cluster.ask(node, "GET", WATCHED[0])).headers["X-Consul-Index"]
        watch = asyncio.create_task(cluster.ask(node, "GET", WATCHED[0], query={"index": index, "wait": WAIT}))

        async def waits() -> bool | None:
            return await _gauge(cluster, node, "quorumca_blocking_queries") == 1 or None

        await eventually("the watch waits", waits, 10.0)
        begin = time.monotonic()
        assert await cluster.stop(node) == 0
        assert time.monotonic() - begin < 10.0
        try:
            assert (await watch).status == 503
        except aiohttp.ClientError:
            pytest.fail("the watch was cut off without an answer")
