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
from cluster.tls.keys import KEY_BYTES
from fsm.codec import dump_state, load_state
from fsm.fields import LAST_SECOND
from fsm.ledger import LedgerQuery
from providers.pki.serials import serial_bytes
from tests.kit import hostile_frames, samples
from tests.kit.csrs import service_csr
from tests.kit.fake_cluster import FakeCluster, Node, bootstrapped, running
from tests.kit.seats import roomy_seats
from tests.kit.wait import until

CASES: Final = 150
SERIAL: Final = (1 << 127).to_bytes(16, "big")
ROW: Final = [SERIAL, 1, "web", "spiffe://x", b"h" * 32, 0, 1, "me", b""]
#: What fits, in the form of version 2.
REQUESTS: Final[dict[str, list[Any]]] = {
    "sign": ["csr", SERIAL, "me"],
    "configure": ["consul", '{"LeafCertTTL": "72h"}', None, False, 0, False, 0, b"r" * 16, 0, False],
    "plan_rotation": [None, None, False, False, 0],
    "rotate": [None, None, False, False, 0, b"r" * 16, 0, False],
    "steer_rotation": ["pause"],
    "rotation_uptake": [],
    "distrust_root": ["aa:bb"],
    "watchers": [41],
    "restore_rows": [b"k" * 20, [ROW]],
    "restore_ca": [dump_state(samples.full_state())],
    "restore_judged": [dump_state(samples.full_state()), b"sums", "ab" * 32, True, 5, b"p" * 32],
    "cluster": [],
    "transfer": ["nobody"],
    "add_peer": ["d", "127.0.0.1:1", "127.0.0.1:2"],
    "remove_peer": ["d", None],
    "seal_check": ["file", "0123456789abcdef", b""],
    "rotate_seal": [b"0123456789abcdef", True],
    "seal_status": [],
    "announce_key": [b"k" * KEY_BYTES, "d"],
}
_WILD: Final[list[Any]] = [
    *(None, True, False, 0, 1, -1, 99, 1.5, float("nan"), float("inf")),
    *(1 << 31, (1 << 63) - 1, 1 << 63, (1 << 64) - 1, -(1 << 63), LAST_SECOND, LAST_SECOND + 1),
    *("", "x", "nul\0", "x" * 300, "x" * 70_000, "{", "[" * 20_000, '{"a":' * 5000, '{"LeafCertTTL":"\\ud800"}', "٣"),
    *('{"LeafCertTTL":1e999}', '{"LeafCertTTL":99999999999999999999999}', "null", "[]", "../..", "spiffe://", "a/b"),
    *(b"", b"\x01", bytes(16), bytes(20), bytes(21), bytes(65), bytes(1000), b"\x91" * 3000),
    *([], [[]], {}, {"a": 1}, [None] * 30, [[1, 2], [3]], [ROW], [ROW, ROW], [[*ROW[:6], 1 << 63, *ROW[7:]]]),
]


class _Request:
    """A POST of a member, as far as the RPC server looks at it."""

    def __init__(self, operation: str, body: bytes, version: int | str) -> None:
        self.match_info = {"operation": operation}
        self.headers = {"Quorumca-Rpc": str(version)}
        self.transport = self
        self.protocol = None
        self._body = body

    def get_extra_info(self, _name: str) -> None:
        return None

    async def read(self) -> bytes:
        return self._body


class _Tls:
    def peer_name(self, _certificate: object) -> str:
        return "b"

    def peer_key(self, _connection: object) -> bytes:
        return b"k" * KEY_BYTES


def _mutated(value: Any, rng: random.Random) -> Any:
    """One place somewhere in it is something else, or missing, or there twice."""
    if isinstance(value, list) and value and rng.random() < 0.85:
        position = rng.randrange(len(value))
        rest = value[position + 1 :]
        if (chance := rng.random()) < 0.06:
            return [*value[:position], *rest]
        if chance < 0.12:
            return [*value[: position + 1], value[position], *rest]
        return [*value[:position], _mutated(value[position], rng), *rest]
    if isinstance(value, bytes) and value and rng.random() < 0.5:
        damaged = bytearray(value)
        for _ in range(rng.randint(1, 3)):
            damaged[rng.randrange(len(damaged))] = rng.randrange(256)
        return bytes(damaged)
    return rng.choice(_WILD)


async def _still_leads_and_signs(node: Node, cluster: FakeCluster) -> None:
    cluster.elect("a")
    await until(lambda: node.authority.is_ready and not node.authority.is_behind(cluster.state))
    serial = serial_bytes(new_serial())
    await node.authority.sign(service_csr(cluster.state.trust_domain), serial, "test")
    assert await node.ledger.call(lambda reader: reader.find(serial)) is not None


async def _can_be_read(node: Node, cluster: FakeCluster) -> None:
    assert load_state(dump_state(cluster.state)) == cluster.state
    rows = await node.ledger.call(lambda reader: reader.search(LedgerQuery(limit=100_000)))
    answer = json_response([_cert_object(row) for row in rows], {})
    assert isinstance(answer.body, bytes)
    assert len(json.loads(answer.body)) == len(rows)


def _server(node: Node) -> RpcServer:
    tls = cast(Any, _Tls())
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
            values = [_mutated(plain, rng) for _ in range(rng.randint(1, 4))]
            body = msgpack.packb([40, values], unicode_errors="surrogatepass")
            response = await server._handle(cast(web.Request, _Request(operation, body, version)))
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
            asked = _Request(request.operation, request.body, request.version)
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
    response = await server._handle(cast(web.Request, _Request("watchers", body, 2)))
    assert isinstance(response.body, bytes)
    first, bad, last = msgpack.unpackb(response.body)
    assert first == last == [None, [0, 0]]
    assert bad[0][0] == "AnswerLost"
    await asyncio.sleep(0)
    node.ledger.close()
