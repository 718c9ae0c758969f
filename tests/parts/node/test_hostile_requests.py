"""No request of another node, whatever is in it, ends the leader: it leads on, signs, and what it holds can be read."""

import asyncio
import json
import random
from typing import Any, Final, cast

import msgpack
import pytest
from aiohttp import web

from cluster.http.render import json_response
from cluster.http.routes.certs import _cert_object
from cluster.rpc.operation import OLDEST, VERSION
from cluster.rpc.server import RpcServer
from cluster.signing.serials import new_serial
from fsm.codec import dump_state, load_state
from fsm.ledger import LedgerQuery
from providers.pki.serials import serial_bytes
from tests.kit import hostile_frames
from tests.kit.callers import anybody
from tests.kit.csrs import service_csr
from tests.kit.fake_cluster import FakeCluster, Node, bootstrapped, running
from tests.kit.seats import roomy_seats
from tests.kit.wait import until
from tests.kit.wild_requests import REQUESTS, AnyTls, WildRequest, mutated

CASES: Final = 150


async def _still_leads_and_signs(node: Node, cluster: FakeCluster) -> None:
    cluster.elect("a")
    # Of this leadership: a request may have ended one a moment ago, and its end take what was ready along.
    await until(lambda: ("leader.elected", {"term": cluster.term}) in node.log.events)
    await until(lambda: node.authority.is_ready and not node.authority.is_behind(cluster.state))
    serial = serial_bytes(new_serial())
    await node.authority.sign(service_csr(cluster.state.trust_domain), serial, "test", anybody)
    assert await node.ledger.call(lambda reader: reader.find(serial)) is not None


async def _can_be_read(node: Node, cluster: FakeCluster) -> None:
    assert load_state(dump_state(cluster.state)) == cluster.state
    rows = await node.ledger.call(lambda reader: reader.search(LedgerQuery(limit=100_000)))
    answer = json_response([_cert_object(row) for row in rows], {})
    assert isinstance(answer.body, bytes)
    assert len(json.loads(answer.body)) == len(rows)


def _server(node: Node) -> RpcServer:
    tls = cast(Any, AnyTls())
    return RpcServer(node.replica.real, node.operations, tls, node.log, node.metrics, roomy_seats("rpc"))


@pytest.mark.parametrize("version", range(OLDEST, VERSION + 1))
@pytest.mark.parametrize("operation", REQUESTS)
async def test_leader_survives_what_another_node_asks(
    cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch, operation: str, version: int
) -> None:
    monkeypatch.setattr("cluster.ca.leader._FIRST_PAUSE_SECONDS", 0.001)
    rng = random.Random(f"{operation} {version}")
    node = Node(cluster, "a")
    server = _server(node)
    good = REQUESTS[operation]
    plain = good if version == 2 or len(good) > 1 else (good[0] if good else None)
    async with running(node):
        await bootstrapped(node)
        for _ in range(CASES):
            values = [mutated(plain, rng) for _ in range(rng.randint(1, 4))]
            body = msgpack.packb([40, values], unicode_errors="surrogatepass")
            response = await server._handle(cast(web.Request, WildRequest(operation, body, version)))
            assert response.status in (200, 400)
            if cluster.leader != "a":
                cluster.elect("a")
        await _still_leads_and_signs(node, cluster)
        await _can_be_read(node, cluster)


@pytest.mark.parametrize("operation", hostile_frames.GOOD_REQUESTS)
async def test_what_no_server_asks_is_refused_whole(cluster: FakeCluster, operation: str) -> None:
    """What chaos sends to real nodes."""
    node = Node(cluster, "a")
    server = _server(node)
    cluster.elect("a")
    before, rng = cluster.log_index, random.Random(operation)
    for _ in range(CASES // 10):
        for request in hostile_frames.bad_requests(operation, rng):
            asked = WildRequest(request.operation, request.body, request.version)
            response = await server._handle(cast(web.Request, asked))
            assert isinstance(response.body, bytes)
            outcomes = msgpack.unpackb(response.body) if response.status == 200 else []
            assert response.status in (200, 400), request
            assert all(error is not None for error, _ in outcomes), request
    assert cluster.log_index == before
    node.ledger.close()


async def test_operations_that_are_tried_are_all_there_are(cluster: FakeCluster) -> None:
    node = Node(cluster, "a")
    assert set(REQUESTS) == set(hostile_frames.GOOD_REQUESTS) == set(node.operations._served)
    node.ledger.close()


async def test_answer_that_has_no_form_takes_none_of_the_others_along(
    cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = Node(cluster, "a")
    real = node.watchers.count

    def count(index: int) -> tuple[int, int]:
        return (1 << 70, 0) if index == 7 else real(index)

    monkeypatch.setattr(node.watchers, "count", count)
    server = _server(node)
    body = msgpack.packb([1000, [[1], [7], [2]]])
    response = await server._handle(cast(web.Request, WildRequest("watchers", body, 2)))
    assert isinstance(response.body, bytes)
    first, bad, last = msgpack.unpackb(response.body)
    assert first == last == [None, [0, 0]]
    assert bad[0][0] == "AnswerLost"
    await asyncio.sleep(0)
    node.ledger.close()
