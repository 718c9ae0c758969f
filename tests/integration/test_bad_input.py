"""Thousands of broken requests against real nodes: each is refused with a reason, and nothing else happens.

Made from good ones by a seeded generator, so that a failure can be had again; the seed is in every message.
"""

import asyncio
import base64
import json
import random
import re
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import psutil
import pytest
import pytest_asyncio
from cryptography.hazmat.primitives import serialization

from tests.integration.raw_http import RawAnswer, exchange, request, send_without_end
from tests.kit import pki
from tests.kit.real_cluster import LocalCluster, Node, make_csr

pytestmark = [pytest.mark.slow, pytest.mark.asyncio(loop_scope="module")]

SEED = 20261124
ANSWER_SECONDS = 15.0
MAX_GROWTH_BYTES = 64 << 20
MAX_TAKEN_BYTES = 1 << 20
_AT_ONCE = 32
SIGN, CONFIGURATION = "/v1/connect/ca/sign", "/v1/connect/ca/configuration"
AUTHORIZE, PEER = "/v1/agent/connect/authorize", "/v1/operator/raft/peer"
PATHS = (
    "/v1/connect/ca/roots",
    CONFIGURATION,
    "/v1/connect/ca/certs",
    "/v1/connect/ca/certs/01:02",
    "/v1/agent/connect/ca/roots",
    "/v1/agent/self",
    "/v1/agent/metrics",
    "/v1/status/leader",
    "/v1/status/peers",
    "/v1/operator/raft/configuration",
    "/v1/operator/autopilot/health",
    "/v1/operator/digest",
    "/v1/catalog/datacenters",
    "/v1/openapi.json",
)
#: Values that have broken parsers before.
NASTY: tuple[object, ...] = (
    *(None, True, False, 0, -1, 1, 2**31, 2**63, 2**64, 10**400, -(10**30), 0.5, -0.0, 1e308),
    *("", " ", "0", "-1", "1h", "1e9h", "9" * 500, "\0", "\ud800", "\u202e", "a" * 5000, "%s%n", "../../etc/passwd"),
    *("{{7*7}}", "'; DROP TABLE leaves;--", "spiffe://", "\r\nX-Injected: 1", "\N{PILE OF POO}" * 50),
    *([], [[]], {}, {"": None}, [1, 2, 3], {"a": {"b": {"c": []}}}, [None] * 200),
)
_LEAK = re.compile(
    rb"Traceback|File \"|line \d+, in |\.py\b|<module>|0x[0-9a-f]{8,}|<html|ParseError|' codec|__\w+__\(|\[Errno|asn1",
    re.IGNORECASE,
)

Rng = random.Random


# -- broken requests


def mutated(rng: Rng, data: bytes, changes: int = 0) -> bytes:
    """A few bytes changed, taken out, doubled or put in."""
    result = bytearray(data)
    for _ in range(changes or rng.choice((1, 1, 1, 2, 4, 16))):
        at = rng.randrange(len(result) + 1)
        match rng.randrange(6):
            case 0 if at < len(result):
                result[at] ^= 1 << rng.randrange(8)
            case 1 if at < len(result):
                result[at] = rng.choice((0, 0x7F, 0x80, 0xFF, rng.randrange(256)))
            case 2:
                del result[at : at + rng.choice((1, 2, 8, 64))]
            case 3:
                result[at:at] = rng.randbytes(rng.choice((1, 2, 8, 64)))
            case 4:
                result[at:at] = result[at : at + rng.choice((1, 8, 64))]
            case _:
                del result[at:]
    return bytes(result)


def wrapped(der: bytes) -> str:
    return f"-----BEGIN CERTIFICATE REQUEST-----\n{base64.encodebytes(der).decode()}-----END CERTIFICATE REQUEST-----\n"


def put(path: str, body: object, method: str = "PUT") -> bytes:
    data = body if isinstance(body, bytes) else json.dumps(body).encode("utf-8", "surrogatepass")
    return request(method, path, body=data)


def broken_csrs(rng: Rng, uri: str, count: int) -> Iterator[bytes]:
    pems = [pki.csr_pem(pki.key(*kind), uri) for kind in (("ec", 256), ("ec", 521), ("rsa", 2048))]
    # One byte more or less in the PEM text of a good CSR; then in what that text means.
    for number in range(count):
        pem = rng.choice(pems)
        if number % 3 == 0:
            yield put(SIGN, {"CSR": mutated(rng, pem.encode()).decode("latin-1")})
        else:
            der = base64.b64decode("".join(pem.splitlines()[1:-1]))
            yield put(SIGN, {"CSR": wrapped(mutated(rng, der))})


def strange_csrs(rng: Rng, uri: str, count: int) -> Iterator[bytes]:
    """Sound as CSRs, and not to be signed."""
    trust_domain = uri.removeprefix("spiffe://").partition("/")[0]
    paths = (
        *("", "/", "/ns/default/dc/dc2/svc/web", "/ns//dc/dc1/svc/web", "/agent/client/dc/dc1/id/", "/x" * 500),
        *("/agent/server/dc/dc1", "/agent/client/dc/dc2/id/n", "/ns/other/dc/dc1/svc/web", "/ap/p/gateway/mesh/dc/dc1"),
        *(f"/ns/default/dc/dc1/svc/{name}" for name in ("web%2F..%2Fadmin", "~", "a%20b", "w%C3%A9b", "w" * 129)),
    )
    other = [f"spiffe://{trust_domain}{path}" for path in paths]
    other += [uri + tail for tail in ("/../db", "%00", "#x")]
    other += ["http://web", "spiffe://elsewhere.consul/ns/default/dc/dc1/svc/web"]
    for _ in range(count):
        names = rng.choice(
            (
                {"uris": [rng.choice(other)]},
                {"uris": [uri, rng.choice(other)]},
                {"uris": [uri] * rng.choice((0, 2, 101))},
                {"uris": [uri], "dns": ["*.*.bad", "a..b"][: rng.randrange(1, 3)]},
                {
                    "uris": [uri],
                    "dns": [rng.choice(("node-1.server.dc1.consul", "*.com", "*.dc1.consul", "localhost"))],
                },
                {"uris": [uri], "ips": [rng.choice(("0.0.0.0", "ff02::1", "255.255.255.255"))]},
                {"uris": [uri], "emails": ["root@localhost"]},
                {"uris": [uri], "dns": [f"d{k}.example" for k in range(150)]},
            )
        )
        csr = pki.csr_of(pki.key(), pki.alt_names(**names))
        yield put(SIGN, {"CSR": csr.public_bytes(serialization.Encoding.PEM).decode()})


def broken_bodies(rng: Rng, csr_pem: str, count: int) -> Iterator[bytes]:
    """JSON of the wrong types, of the wrong shape, and what is no JSON."""
    good: dict[str, tuple[str, dict[str, Any]]] = {
        SIGN: ("PUT", {"CSR": csr_pem}),
        CONFIGURATION: (
            "PUT",
            {
                "Provider": "consul",
                "Config": {"LeafCertTTL": "72h", "RootCertTTL": "87600h"},
                "ModifyIndex": 4 << 30,
            },
        ),
        AUTHORIZE: ("POST", {"Target": "web", "ClientCertURI": "spiffe://x.consul/ns/default/dc/dc1/svc/db"}),
        # Never a whole one: it would be another server.
        PEER: ("PUT", {"ID": "node-77", "Address": "127.0.0.1:0"}),
    }
    for number in range(count):
        path = rng.choice(list(good))
        method, body = good[path]
        changed: Any = json.loads(json.dumps(body))
        match number % 4:
            case 0:
                changed[rng.choice(list(changed))] = rng.choice(NASTY)
            case 1 if path == CONFIGURATION:
                name = rng.choice(("LeafCertTTL", "PrivateKey", "PrivateKeyBits", "test_state", "x" * 300))
                changed["Config"][name] = rng.choice(NASTY)
            case 2:
                changed = rng.choice(NASTY)
            case _:
                yield put(path, mutated(rng, json.dumps(changed).encode()), method)
                continue
        yield put(path, changed, method)
    for depth in (33, 1000, 100_000):
        for path, (method, _) in good.items():
            yield put(path, b'{"Config":' * depth + b"1" + b"}" * depth, method)
            yield put(path, b"[" * depth, method)


def broken_targets(rng: Rng, count: int) -> Iterator[bytes]:
    """Paths and query strings."""
    names = ("index", "wait", "stale", "consistent", "dc", "pem", "limit", "after", "kind", "expires_before", "issuer")
    bad = (
        "%",
        "%zz",
        "%ff%fe",
        "%00",
        "-1",
        "9" * 40,
        "1e3",
        "%F0%9F%92%A9",
        "a" * 3000,
        "&" * 70,
        "=",
        "\u00e9",
        "5m5",
    )
    for _ in range(count):
        path = rng.choice(PATHS)
        match rng.randrange(4):
            case 0:
                path = mutated(rng, path.encode()).decode("latin-1")
                path = re.sub(r"[\s\x00-\x20\x7f]", "%09", path)
            case 1:
                path += rng.choice(("/", "//", "/..", "/%2e%2e/", "/%2f", ";x=1", "%20", "/" + "x" * 4000))
            case _:
                pass
        query = "&".join(f"{rng.choice(names)}={rng.choice(bad)}" for _ in range(rng.randrange(1, 4)))
        # A wait that is good would be waited for.
        target = f"{path}?{query}&wait=1ms" if rng.randrange(3) else path
        yield request(rng.choice(("GET", "GET", "HEAD", "OPTIONS")), target)


def broken_heads(rng: Rng, count: int) -> Iterator[bytes]:
    """Methods, versions and headers; and requests that are none."""
    methods = ("get", "BREW", "TRACE", "CONNECT", "PATCH", "DELETE", "G\x00T", "A" * 100, "\u00e9", "PUT", "PRI")
    bad = (
        [("X-Big", "y" * 20_000)],
        [(f"X-{k}", "1") for k in range(100)],
        [("Content-Length", "-1")],
        [("Content-Length", "99999999999999999999")],
        [("Content-Length", "0"), ("Content-Length", "5")],
        [("Transfer-Encoding", "chunked"), ("Content-Length", "3")],
        [("Transfer-Encoding", "gzip, chunked")],
        [("Content-Encoding", "gzip")],
        [("X-Bad\x00Name", "1")],
        [("X-Value", "\x00\x01\x7f")],
        [("Host", "a"), ("Host", "b")],
        [("Cache-Control", "max-age=abc")],
        [("Expect", "the-spanish-inquisition")],
        [("Connection", "upgrade"), ("Upgrade", "h2c")],
        [("X-Consul-Token", "\u00e9" * 300)],
        [("Range", "bytes=0-0,-1")],
        [(" X-Space", "1")],
    )
    chunks = (b"zz\r\n", b"-1\r\nx\r\n", b"f" * 17 + b"\r\n", b"5\r\nab", b"2\r\nabc\r\n0\r\n\r\n")
    for _ in range(count):
        path = rng.choice((*PATHS, SIGN))
        match rng.randrange(4):
            case 0:
                yield request(rng.choice(methods), path, body=rng.choice((b"", b"{}", b"x" * 100)))
            case 1:
                yield request("GET", path, rng.choice(bad), rng.choice((b"", b"{}")))
            case 2:
                yield mutated(rng, request("PUT", SIGN, [("Content-Type", "application/json")], b'{"CSR": ""}'))
            case _:
                yield request("PUT", path, [("Transfer-Encoding", "chunked")]) + rng.choice(chunks)
    yield from (b"\r\n" * 50, b"GET /\r\n\r\n", b"\xff" * 5000)
    yield b"\x16\x03\x01\x02\x00\x01\x00"  # TLS
    yield b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"


def broken_changes(rng: Rng, count: int) -> Iterator[bytes]:
    """Of the cluster itself: none may succeed."""
    ids = ("node-99", "", "NODE-1", "%00", "../node-1", "a" * 300, "node-1%20", "*", "node_1")
    for _ in range(count):
        name = rng.choice(ids)
        yield rng.choice(
            (
                request("DELETE", f"{PEER}?id={name}"),
                request("DELETE", f"{PEER}?address={name}"),
                request("DELETE", f"{PEER}?id=node-1&address=127.0.0.1:1"),
                request("POST", f"/v1/operator/raft/transfer-leader?id={rng.choice(ids[:1] + ids[2:])}"),
                put(PEER, {"ID": name, "Address": rng.choice(("x", "127.0.0.1:99999", ":1", ""))}),
            )
        )


# -- what comes of them


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def target(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[LocalCluster]:
    """Two of three nodes are asked: the leader, and one that forwards to it."""
    settings = {"connect": {"ca_config": {"csr_max_per_second": 0}}}
    async with LocalCluster(tmp_path_factory.mktemp("target"), settings=settings) as made:
        await made.start_all()
        await made.wait_ready()
        yield made


#: These may be cut short by their own mutations.
CUT_SHORT = "heads"
QUIET_SECONDS = 1.0

Make = Callable[[Rng, LocalCluster, str], Iterator[bytes]]
BATCHES: dict[str, tuple[int, Make]] = {
    "CSRs that are damaged": (700, lambda rng, _, uri: broken_csrs(rng, uri, 700)),
    "CSRs that are strange": (120, lambda rng, _, uri: strange_csrs(rng, uri, 120)),
    "bodies": (700, lambda rng, _, uri: broken_bodies(rng, make_csr(uri)[0], 700)),
    "paths and queries": (500, lambda rng, _, uri: broken_targets(rng, 500)),
    CUT_SHORT: (400, lambda rng, _, uri: broken_heads(rng, 400)),
    "changes of the cluster": (100, lambda rng, _, uri: broken_changes(rng, 100)),
}


def complaint(data: bytes, answer: RawAnswer, *, may_be_cut_short: bool) -> str:
    """What is wrong with this answer; empty when it is right."""
    if _LEAK.search(answer.body):
        return "it shows what is inside"
    has_reason = bool(answer.body) or data.startswith(b"HEAD")
    match answer.status:
        case 0:
            return "" if may_be_cut_short else "no answer"
        case status if 200 <= status < 300:
            return ""
        case status if 400 <= status <= 500 and b"internal error" not in answer.body:
            return "" if has_reason else "no reason"
        case status:
            return f"status {status}"


def resident_bytes(node: Node) -> int:
    """Of the node and its workers."""
    processes = [psutil.Process(node.pid), *psutil.Process(node.pid).children(recursive=True)]
    return sum(process.memory_info().rss for process in processes)


def failures_logged(cluster: LocalCluster) -> list[str]:
    """Lines about errors that nobody had expected, and what is no event at all."""
    lines = [line for node in cluster.nodes for line in node.local.log.read_text(errors="replace").splitlines()]
    return [line for line in lines if not line.startswith("{") or json.loads(line)["event"] == "http.failed"]


async def throw(
    cluster: LocalCluster, requests: list[bytes], quiet_seconds: float | None = None
) -> list[tuple[bytes, RawAnswer]]:
    """At two nodes, a few at a time."""
    leader = await cluster.leader()
    follower = next(node for node in cluster.nodes if node is not leader)
    addresses = leader.local.http, follower.local.http
    slots = asyncio.Semaphore(_AT_ONCE)

    async def one(number: int, data: bytes) -> tuple[bytes, RawAnswer]:
        async with slots:
            try:
                return data, await exchange(addresses[number % 2], data, ANSWER_SECONDS, quiet_seconds)
            except TimeoutError:
                raise AssertionError(f"no end within {ANSWER_SECONDS:g} s (seed {SEED}): {data[:500]!r}") from None

    return await asyncio.gather(*(one(number, data) for number, data in enumerate(requests)))


async def test_there_are_enough_of_them() -> None:
    assert sum(count for count, _ in BATCHES.values()) >= 2000


@pytest.mark.parametrize("name", list(BATCHES))
async def test_broken_requests_are_refused_with_a_reason(target: LocalCluster, name: str) -> None:
    count, make = BATCHES[name]
    uri = await target.service_uri()
    members = (await target.ask(target.nodes[0], "GET", "/v1/status/peers")).json()
    requests = list(make(Rng(SEED), target, uri))
    assert len(requests) >= count
    # What a node needs for this kind of work it may keep: only then is growth counted.
    quiet_seconds = QUIET_SECONDS if name == CUT_SHORT else None
    await throw(target, requests[: count // 4], quiet_seconds)
    before = {node.name: resident_bytes(node) for node in target.nodes}
    answers = await throw(target, requests, quiet_seconds)
    complaints = [
        (text, data[:600], answer)
        for data, answer in answers
        if (text := complaint(data, answer, may_be_cut_short=name == CUT_SHORT))
    ]
    assert not complaints, f"seed {SEED}: {len(complaints)} answers are wrong; the first: {complaints[:3]}"
    statuses = Counter(answer.status for _, answer in answers)
    print(name, statuses)
    assert statuses[0] < count / 3
    assert failures_logged(target) == []
    growth = {node.name: resident_bytes(node) - before[node.name] for node in target.nodes}
    assert max(growth.values()) < MAX_GROWTH_BYTES, growth
    # It is the cluster it was, and works.
    assert (await target.ask(target.nodes[0], "GET", "/v1/status/peers")).json() == members
    for node in target.nodes:
        await target.sign(node, make_csr(uri)[0])


async def test_most_broken_requests_really_are_broken(target: LocalCluster) -> None:
    """Else the tests above would show nothing."""
    uri = await target.service_uri()
    for make in (broken_csrs, strange_csrs):
        answers = await throw(target, list(make(Rng(SEED + 1), uri, 60)))
        assert sum(answer.status == 400 for _, answer in answers) > 50


async def test_good_request_as_bytes_is_answered(target: LocalCluster) -> None:
    csr_pem, _ = make_csr(await target.service_uri())
    ((_, answer),) = await throw(target, [put(SIGN, {"CSR": csr_pem})])
    assert answer.status == 200
    assert json.loads(answer.body)["Service"] == "web"


@pytest.mark.parametrize("path", [SIGN, CONFIGURATION, AUTHORIZE, PEER])
async def test_body_that_is_announced_as_too_large_is_refused_unread(target: LocalCluster, path: str) -> None:
    head = request("PUT", path, [("Content-Length", str(600_000))])
    for data in (head, head + b"x" * 10_000):
        answer = await exchange(target.nodes[0].local.http, data, ANSWER_SECONDS)
        assert (answer.status, answer.body) == (413, b"Request body is too large: at most 524288 bytes are allowed")


@pytest.mark.parametrize(
    ("framing", "part"),
    [
        (("Transfer-Encoding", "chunked"), b"4000\r\n" + b" " * 0x4000 + b"\r\n"),
        (("Content-Length", str(1 << 40)), b" " * 0x4000),
    ],
    ids=["chunks without end", "a terabyte"],
)
async def test_endless_body_is_cut_off(target: LocalCluster, framing: tuple[str, str], part: bytes) -> None:
    node = target.nodes[0]
    before = resident_bytes(node)
    for path in (SIGN, CONFIGURATION):
        sent, answer = await send_without_end(node.local.http, request("PUT", path, [framing]), part, 30.0)
        # Behind what the node takes in there may be something in the buffers of the system.
        assert sent < 2 * MAX_TAKEN_BYTES + (1 << 20), sent
        assert answer.status in (0, 413)
    assert resident_bytes(node) - before < MAX_GROWTH_BYTES
    await target.sign(node, make_csr(await target.service_uri())[0])
