"""Mutated requests: whatever arrives, the answer is documented, plain, and the next request is served."""

import asyncio
import random
from collections import Counter

import pytest

from cluster.http.app import ROUTES
from tests.kit.acl_samples import uuid
from tests.kit.callers import MANAGER
from tests.kit.fake_service import CSR
from tests.kit.wait import until
from tests.parts.http.conftest import DEADLINE_SECONDS, Running, Start

SEEDS = 8
REQUESTS = 100
ROUNDS = 4
_PATIENCE_SECONDS = 0.2

#: Statuses that the API documents for a request that is at fault, or for none.
_EXPECTED = {200, 400, 401, 403, 404, 405, 408, 409, 413, 414, 421, 422, 429, 431}
#: 500 is documented for these texts only.
_EXPECTED_500 = ("No path to datacenter", "URI must be either service, agent, server, or kind")
#: And 503 for this one, because several requests are made at a time.
_EXPECTED_503 = (
    "a snapshot is being restored on this node already",
    "2 snapshots are being saved on this node already",
)

_BODIES = (
    b'{"CSR": "%s"}' % CSR.replace("\n", "\\n").encode(),
    b'{"Provider":"consul","Config":{"LeafCertTTL":"72h"},"State":{},"ModifyIndex":3}',
    b'{"Target":"web","ClientCertURI":"spiffe://x.consul/ns/default/dc/dc1/svc/a"}',
    b'{"ID":"n4","Address":"127.0.0.1:8304","RPC":"127.0.0.1:8404"}',
    b'{"Name":"web","Rules":"service \\"web\\" { policy = \\"write\\" }"}',
    b'{"Description":"of web","ServiceIdentities":[{"ServiceName":"web"}],"ExpirationTTL":"1h"}',
    b'{"AuthMethod":"jwt-1","BearerToken":"a.b.c","Meta":{"pod":"web-1"}}',
    b"",
)
_QUERIES = (
    "pem=1",
    "index=3&wait=1ms",
    "stale",
    "consistent",
    "dc=dc1&ns=a",
    "limit=5&after=2&kind=agent",
    "expires_before=2027-01-01T00:00:00Z&issuer=aa:bb",
    "id=n1",
    "address=127.0.0.1:8301",
    "pretty",
    "format=prometheus",
)
_IDS = (uuid(1), "jwt-1", "policy-1", "aa:r1")
#: What requests bring along: mostly what everything is allowed to.
_TOKENS = (
    *("", f"X-Consul-Token: {MANAGER.secret_id}\r\n", f"Authorization: Bearer {MANAGER.secret_id}\r\n"),
    *(f"X-Consul-Token: {MANAGER.secret_id}\r\n", "X-Consul-Token: nobody\r\n"),
)
_ODD = (
    b"\x00",
    b"\xff",
    b"%",
    b"%00",
    b"\r\n",
    b"\n",
    b":",
    b"{",
    b"}",
    b'"',
    b"\\u0000",
    b"\\ud800",
    b"1e999",
    b"-1",
    b"?",
)


def _request(rng: random.Random) -> bytes:
    """A whole request for some endpoint."""
    route = rng.choice(ROUTES)
    path = route.path.replace("{service:.*}", "web").replace("{serial}", "01:2f").replace("{kind}", "agent")
    path = path.replace("{id:.*}", rng.choice(_IDS)).replace("{id}", rng.choice(_IDS))
    method = rng.choice((*route.methods, *route.methods, "GET", "PUT", "DELETE", "POST"))
    query = "&".join(rng.sample(_QUERIES, rng.randrange(3)))
    body = rng.choice(_BODIES)
    head = f"{method} {path}{'?' + query if query else ''} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
    head += rng.choice(_TOKENS)
    if rng.random() < 0.2:
        chunk = f"{len(body):x}\r\n".encode() + body + b"\r\n" if body else b""
        return f"{head}Transfer-Encoding: chunked\r\n\r\n".encode() + chunk + b"0\r\n\r\n"
    return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body


def _mutated(data: bytes, rng: random.Random) -> bytes:
    for _ in range(rng.randrange(4)):
        start = rng.randrange(len(data) + 1)
        end = min(len(data), start + rng.randrange(12))
        match rng.randrange(5):
            case 0:
                data = data[:start] + data[end:]
            case 1:
                data = data[:start] + rng.choice(_ODD) + data[start:]
            case 2:
                data = data[:start] + rng.randbytes(end - start) + data[end:]
            case 3:
                data = data[:start] + data[start:end] * rng.randrange(2, 40) + data[end:]
            case 4:
                other = _request(rng)
                data = data[:start] + other[rng.randrange(len(other)) :]
    return data


def _check(reply: bytes, sent: bytes) -> int:
    """Every answer in `reply`, as far as it can be told from its bytes; the status of the first, 0 for none."""
    if not reply:
        return 0
    assert b"Traceback" not in reply, (sent, reply)
    assert b"<html" not in reply.lower(), (sent, reply)
    status = int(reply.split(b" ", 2)[1])
    head, _, body = reply.partition(b"\r\n\r\n")
    if status == 500:
        assert body.startswith(tuple(text.encode() for text in _EXPECTED_500)), (sent, reply)
    elif status == 503:
        assert body.startswith(tuple(text.encode() for text in _EXPECTED_503)), (sent, reply)
    elif status != 100:
        assert status in _EXPECTED, (sent, reply)
    if status != 100:
        assert b"X-Content-Type-Options: nosniff\r\n" in head, (sent, reply)
        assert b"Server: quorumca\r\n" in head, (sent, reply)
    if status >= 400:
        assert b"Content-Type: text/plain; charset=utf-8" in head, (sent, reply)
    return status


@pytest.fixture
async def quick(start: Start, monkeypatch: pytest.MonkeyPatch) -> Running:
    """An API that soon ends what does not end by itself: requests that are cut off, blocking queries, idle connections.
    The other side must not be closed for that: who leaves gets no answer.
    """
    for bound in (
        "body.BODY_SECONDS",
        "body._DRAIN_SECONDS",
        "blocking.MAX_WAIT_SECONDS",
        "connection.IDLE_SECONDS",
        "routes.snapshot._SILENCE_SECONDS",
    ):
        monkeypatch.setattr(f"cluster.http.{bound}", _PATIENCE_SECONDS)
    api: Running = await start(head_seconds=_PATIENCE_SECONDS)
    return api


async def _answer(api: Running, sent: bytes) -> int:
    async with asyncio.timeout(DEADLINE_SECONDS):
        return _check(await api.send(sent), sent)


@pytest.mark.parametrize("seed", range(SEEDS))
async def test_no_request_gets_an_answer_that_is_not_documented(quick: Running, seed: int) -> None:
    rng = random.Random(seed)
    statuses: Counter[int] = Counter()
    for _ in range(ROUNDS):
        requests = [_mutated(_request(rng), rng) for _ in range(REQUESTS // ROUNDS)]
        statuses.update(await asyncio.gather(*(_answer(quick, sent) for sent in requests)))
    assert "http.failed" not in quick.log.names(), [e for e in quick.log.events if e[0] == "http.failed"][:1]
    assert (await quick.get("/v1/connect/ca/roots")).status == 200
    # They get that far: most are answered, and many are good enough to be carried out.
    assert statuses[0] < REQUESTS // 10
    assert statuses[200] >= REQUESTS // 20


#: What request lines, targets and headers are made of, and what is not allowed in them.
_PIECES = (
    *(
        b"GET",
        b"PUT",
        b"POST",
        b"OPTIONS",
        b"CONNECT",
        b"HEAD",
        b"TRACE",
        b"PRI",
        b"get",
        b"FROB",
        b"",
        b"\x16\x03\x01",
    ),
    *(
        b" ",
        b"  ",
        b"\t",
        b"\r\n",
        b"\n",
        b"\r",
        b"\r\n\r\n",
        b"\0",
        b"\x7f",
        b"\xff",
        b"\xc3\xa9",
        b"%0a",
        b"%00",
        b"%",
        b"#",
    ),
    *(
        b"/",
        b"//",
        b"*",
        b"?",
        b":",
        b"@",
        b"[",
        b"]",
        b"http://",
        b"https:",
        b"ftp://",
        b"http:///",
        b"http://[",
        b"://",
    ),
    *(b"localhost", b"127.0.0.1", b"[::1]", b"[::1%25x]", b"xn--", b"xn--a.", b"\xe4.example", b"a" * 70, b"a" * 9000),
    *(b":8500", b":99999", b":-1", b":x", b".", b"..", b"/../", b"/v1/status/leader", b"/v1/connect/ca/roots", b"/%0a"),
    *(b" HTTP/1.1", b" HTTP/1.0", b" HTTP/0.9", b" HTTP/2.0", b" HTTP/1.1\r\n", b"HTTP", b"Host: localhost\r\n"),
    *(
        b"Host: x\r\n",
        b"Host:\r\n",
        b"Host: localhost",
        b"Origin: null\r\n",
        b"Connection: close\r\n",
        b"Connection: upgrade\r\n",
    ),
    *(
        b"Upgrade: websocket\r\n",
        b"Upgrade: h2c\r\n",
        b"Sec-WebSocket-Key1: 1\r\n",
        b"Expect: 100-continue\r\n",
        b"Expect: x\r\n",
    ),
    *(
        b"Content-Length: 3\r\n",
        b"Content-Length: 99999999999999999999\r\n",
        b"Content-Length: +1\r\n",
        b"abc",
        b"0\r\n\r\n",
    ),
    *(
        b"Transfer-Encoding: chunked\r\n",
        b"Transfer-Encoding: gzip, chunked\r\n",
        b"Content-Encoding: gzip\r\n",
        b"5\r\n",
    ),
    *(b" folded: 1\r\n", b": no name\r\n", b"A : 1\r\n", b"A: \x00\r\n", b"Sec-Fetch-Site: cross-site\r\n"),
)
_TARGETS = (b"http://", b"https://", b"", b"/", b"*", b"//", b"http:", b"h-t.t+p://", b"1://", b"://", b"@", b"[")
SOCKETS = 400


def _bytes(rng: random.Random) -> bytes:
    """Pieces in any order; or a request line that is well formed but for its target, with good or odd headers."""
    pieces = b"".join(rng.choice(_PIECES) for _ in range(rng.randrange(1, 9)))
    match rng.randrange(4):
        case 0:
            return pieces
        case 1:
            return rng.randbytes(rng.randrange(1, 200))
        case 2:
            target = rng.choice(_TARGETS) + pieces.translate(None, b" \r\n\t")
            method = rng.choice((b"GET", b"PUT", b"OPTIONS", b"CONNECT"))
            return method + b" " + target + b" HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
        case _:
            lines = rng.choice(_PIECES) + rng.choice(_PIECES)
            return b"GET /v1/status/leader HTTP/1.1\r\nHost: localhost\r\n" + lines + b"Connection: close\r\n\r\n"


@pytest.mark.parametrize("seed", range(SEEDS))
async def test_no_bytes_at_the_socket_get_an_answer_that_is_not_documented(quick: Running, seed: int) -> None:
    """Also what the parser refuses by itself, or lets pass and the router cannot take."""
    rng = random.Random(f"bytes {seed}")
    statuses: Counter[int] = Counter()
    for _ in range(SOCKETS // 50):
        sent = [_bytes(rng) for _ in range(50)]
        statuses.update(await asyncio.gather(*(_answer(quick, data) for data in sent)))
    assert "http.failed" not in quick.log.names(), [e for e in quick.log.events if e[0] == "http.failed"][:1]
    assert (await quick.get("/v1/connect/ca/roots")).status == 200
    # No connection is left behind, waiting for an answer that nobody gives.
    await until(lambda: quick.server.open_connections <= 1)
    assert statuses[400] > SOCKETS // 8
    assert statuses[0] < SOCKETS // 4
    assert {200, 404, 421} <= statuses.keys()
