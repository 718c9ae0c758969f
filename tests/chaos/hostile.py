"""Kinds of harm that somebody means to do: with the key of a server, with a certificate that is not good any more, with
snapshots. All of it goes on beside the clients, who are served, and `unharmed` says what must be the same afterwards.
"""

import asyncio
import contextlib
import secrets
import shutil
import ssl
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from typing import Any, Final

import aiohttp
import msgpack

from cluster.raft.codec import FRAME_HEADER, MAX_FRAME_BYTES
from cluster.rpc.operation import VERSION
from cluster.tls.certificates import Identity
from tests.chaos.scene import Scene
from tests.chaos.stage import Stage
from tests.chaos.unharmed import unharmed
from tests.integration.peers import PEER
from tests.kit import attacker, hostile_frames, poison
from tests.kit.attacker import Credentials
from tests.kit.hostile_frames import CONTRADICTIONS, GOOD_REQUESTS, PUSHES, REFUSED, TERMS, Known
from tests.kit.real_cluster import Node, make_csr
from tests.kit.wait import eventually

#: How often every kind is sent to every server.
_TIMES: Final = 2
_LISTEN_SECONDS: Final = 0.1
#: In which a connection has ended on which something was sent that no server sends.
_END_SECONDS: Final = 5.0
_PROGRESS_SECONDS: Final = 30.0
_PUSHED: Final = 3
_HELD: Final = 32
_HELD_SECONDS: Final = 3.0
#: All but the end of the largest frame that there may be.
_LARGE_BYTES: Final = MAX_FRAME_BYTES - 4
_NOBODY: Final = "127.0.0.1:9"
_TERMS_AHEAD: Final = 1000
_STRANGE_TIMES: Final = 2
#: Its connections to the Raft port stay: a server that was added meanwhile would come just so.
_NEVER: Final = "never a server"
_PIN_SECONDS: Final = 30.0
_SNAPSHOT: Final = "/v1/snapshot"
_RESTORE_SECONDS: Final = 60.0


# -- somebody with the key of a server


async def hostile_member(scene: Scene) -> None:
    """Somebody with the key of a follower sends garbage, forged and contradictory frames and requests to both ports of
    every server. It costs them their connections. New terms cost elections, as from any server.
    """
    stage = scene.stage
    async with unharmed(scene), _deadline_of_writers(scene):
        leader = await stage.leader()
        member = scene.rng.choice(stage.others(leader))
        context = attacker.client_context(_own(member))
        for _ in range(_TIMES):
            await asyncio.gather(*(_lie(scene, node, leader, member, context) for node in stage.nodes))
        scene.notes["held"] = await _hold(scene.rng.choice(stage.others(member)), context)
        await scene.workload.progress(stage.nodes, _PROGRESS_SECONDS)
        await _push(scene, member, context)
        await scene.workload.progress(stage.nodes, _PROGRESS_SECONDS)


def _own(node: Node) -> Credentials:
    return Credentials(node.local.directory / "cert.pem", node.local.directory / "key.pem")


async def _known(stage: Stage, leader: Node, member: Node) -> Known:
    """Before anything is sent: of the term in which `leader` leads, so that nothing of it is the member's to say."""
    stats = [(await stage.local(node, "/v1/agent/self")).json()["Stats"]["raft"] for node in stage.nodes]
    others = [node.name for node in stage.others(leader, member)]
    return Known(
        max(int(of["term"]) for of in stats), min(int(of["applied_index"]) for of in stats), member.name, others[0]
    )


async def _lie(scene: Scene, node: Node, leader: Node, member: Node, context: ssl.SSLContext) -> None:
    """Each kind once, to this node."""
    rng = scene.rng
    for kind, frames in {**REFUSED, **CONTRADICTIONS, **TERMS}.items():
        known = await _known(scene.stage, leader, member)
        said = attacker.hello(_NOBODY) + frames(known, rng)
        has_ended = await _said(node.local.raft, context, said, _END_SECONDS if kind in REFUSED else _LISTEN_SECONDS)
        assert has_ended or kind not in REFUSED, f"{node.name} has kept a connection after: {kind}"
    for operation in GOOD_REQUESTS:
        requests = [*hostile_frames.bad_requests(operation, rng)]
        for request in rng.sample(requests, min(len(requests), 4)):
            answer = await _answer(node.local.rpc, context, request.packed())
            assert hostile_frames.is_refused(answer), f"{node.name}, {operation}, {request.kind}: {answer[:500]!r}"


async def _hold(node: Node, context: ssl.SSLContext) -> int:
    """Many connections, on each of them all but the end of the largest frame: more than a node may keep."""
    said = attacker.hello(_NOBODY) + FRAME_HEADER.pack(MAX_FRAME_BYTES) + bytes(_LARGE_BYTES)
    return await asyncio.to_thread(attacker.fill, node.local.raft, context, said, _HELD, _HELD_SECONDS)


async def _push(scene: Scene, member: Node, context: ssl.SSLContext) -> None:
    stage = scene.stage
    for _ in range(_PUSHED):
        leader = await stage.leader()
        known = await _known(stage, leader, member)
        node = scene.rng.choice(stage.others(member))
        for frames in PUSHES.values():
            await _said(node.local.raft, context, attacker.hello(_NOBODY) + frames(known, scene.rng), _LISTEN_SECONDS)


async def _said(address: str, context: ssl.SSLContext, data: bytes, seconds: float) -> bool:
    """Whether the other side has ended the connection within this time."""
    try:
        async with asyncio.timeout(seconds):
            await _answer(address, context, data)
    except TimeoutError:
        return False
    return True


async def _answer(address: str, context: ssl.SSLContext, data: bytes) -> bytes:
    """What came back until the other side closed."""
    host, _, port = address.rpartition(":")
    received = bytearray()
    writer: asyncio.StreamWriter | None = None
    try:
        reader, writer = await asyncio.open_connection(host, int(port), ssl=context, server_hostname="")
        writer.write(data)
        await writer.drain()
        while chunk := await reader.read(1 << 16):
            received += chunk
    except OSError:
        pass  # it was refused, or cut off
    finally:
        if writer is not None:
            writer.transport.abort()
    return bytes(received)


@contextlib.asynccontextmanager
async def _deadline_of_writers(scene: Scene) -> AsyncIterator[None]:
    """Clients of every node are served meanwhile."""
    since = time.monotonic()
    yield
    assert scene.workload.signed_since(since), "nobody was served meanwhile"


# -- somebody with a certificate that is not good, or not any more


async def hostile_stranger(scene: Scene) -> None:
    """Somebody with certificates of the agent CA that belong to no server any more, or never did, says on both ports of
    every server all that could harm or get a certificate, and holds connections full of bytes.
    """
    stage = scene.stage
    service = f"stranger-{secrets.token_hex(4)}"
    csr_pem, _ = make_csr(await stage.cluster.service_uri(service))
    gone = await _removed(stage)
    with _strangers(stage, gone) as strangers:
        await _all_pinned(stage, strangers)
        async with unharmed(scene), _deadline_of_writers(scene):
            term = max([await stage.term(node) for node in stage.nodes])
            for _ in range(_STRANGE_TIMES):
                for kind, credentials in strangers.items():
                    context = attacker.client_context(credentials)
                    await asyncio.gather(*(_intrude(node, kind, context, term, csr_pem) for node in stage.nodes))
            context = attacker.client_context(strangers[_NEVER])
            scene.notes["held"] = await _hold(scene.rng.choice(stage.nodes), context)
            await scene.workload.progress(stage.nodes, _PROGRESS_SECONDS)
            assert max([await stage.term(node) for node in stage.nodes]) < term + _TERMS_AHEAD
    scene.notes["strangers"] = [*strangers]
    await _assert_none_on_record(stage, service)


async def _removed(stage: Stage) -> str:
    """The name of a server that was added, and removed again before it ever ran."""
    name = f"gone-{secrets.token_hex(3)}"
    for method, body, query in (
        ("PUT", {"ID": name, "Address": _NOBODY, "RPC": "127.0.0.1:10"}, None),
        ("DELETE", None, {"id": name}),
    ):

        async def done(method: str = method, body: object = body, query: Mapping[str, str] | None = query) -> bool:
            answer = await stage.cluster.ask(stage.nodes[0], method, PEER, body, query=query)
            return answer.status == 200 or (method == "DELETE" and answer.status == 404)

        await eventually(f"{method} {name}", done)
    return name


@contextlib.contextmanager
def _strangers(stage: Stage, gone: str) -> Iterator[Mapping[str, Credentials]]:
    directory = stage.cluster.root / f"strangers-{secrets.token_hex(3)}"
    directory.mkdir()
    ca, server = attacker.ca_of(stage.cluster.root), stage.nodes[-1].name
    try:
        yield {
            "removed": attacker.issue(directory, "removed", ca, Identity("server", node=gone)),
            _NEVER: attacker.issue(directory, "never", ca, Identity("server", node="never-there")),
            "key that is not pinned": attacker.issue(directory, "unpinned", ca, Identity("server", node=server)),
            "expired": attacker.issue(directory, "expired", ca, Identity("server", node=server), age_days=3),
            "client": attacker.issue(directory, "client", ca, Identity("client")),
            "another CA": attacker.issue(directory, "other", attacker.another_ca(), Identity("server", node=server)),
        }
    finally:
        shutil.rmtree(directory)


async def _all_pinned(stage: Stage, strangers: Mapping[str, Credentials]) -> None:
    """In a new cluster a name is enough, until the leader has pinned what keys the servers have."""
    asked = attacker.rpc_request("watchers", [[0]])
    context = attacker.client_context(strangers["key that is not pinned"])

    async def refused() -> bool:
        answers = await asyncio.gather(*(_answer(node.local.rpc, context, asked) for node in stage.nodes))
        return all(answer.startswith(b"HTTP/1.1 403 ") for answer in answers)

    await eventually("every server knows the keys of the others", refused, _PIN_SECONDS)


async def _intrude(node: Node, kind: str, context: ssl.SSLContext, term: int, csr_pem: str) -> None:
    ahead = term + _TERMS_AHEAD
    said = attacker.hello(_NOBODY) + attacker.take_over(ahead) + attacker.lead(ahead) + attacker.ask(ahead)
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_LISTEN_SECONDS):
            answer = await _answer(node.local.raft, context, said)
            assert answer == b"", f"{node.name} has answered a frame of: {kind}"

    async def request(operation: str, requests: list[Any]) -> None:
        answer = await _answer(node.local.rpc, context, attacker.rpc_request(operation, requests))
        is_refused = not answer or answer.startswith(b"HTTP/1.1 403 ")
        assert is_refused, f"{node.name}, {operation} for {kind}: {answer[:300]!r}"

    # Together: whoever is refused is held for a moment before the connection ends.
    asked = {**{name: [good] for name, good in GOOD_REQUESTS.items()}, "sign": _asks(csr_pem)}
    await asyncio.gather(*(request(operation, requests) for operation, requests in asked.items()))


def _asks(csr_pem: str) -> list[Any]:
    return [[csr_pem, secrets.token_bytes(size), "stranger"] for size in (16, 20)]


async def _assert_none_on_record(stage: Stage, service: str) -> None:
    await stage.cluster.wait_same_digest(30.0)
    for node in stage.nodes:
        query = {"service": service, "stale": "", "limit": "10"}
        listed = (await stage.cluster.ask(node, "GET", "/v1/connect/ca/certs", query=query)).json()["Certs"]
        assert listed == [], f"{node.name} has certificates on record that nobody may have: {listed}"


# -- snapshots


async def poisoned_snapshot(scene: Scene) -> None:
    """Snapshots that no cluster has saved are to be restored, on every node, and two at a time; and what is in them is
    sent to the leader by somebody who has the key of a server.
    """
    stage = scene.stage
    async with unharmed(scene), _deadline_of_writers(scene):
        saved = await _saved(stage)
        sorts = await asyncio.to_thread(list, poison.poisons(saved, scene.rng))
        for sort in sorts:
            node = scene.rng.choice(stage.nodes)
            status = await _put(stage, node, sort)
            assert 400 <= status < 500, f"{node.name} answered {status} to: {sort.kind}"
        await _put_beside_each_other(scene, saved, [sort for sort in sorts if sort.kind == "bomb"])
        await _restore_by_request(scene, saved)
        await scene.workload.progress(stage.nodes, _PROGRESS_SECONDS)
    scene.notes["refused"] = dict(Counter(sort.kind for sort in sorts))
    await _assert_none_on_record(stage, poison.SERVICE)


async def _saved(stage: Stage) -> bytes:
    node = await stage.leader()

    async def saved() -> bytes:
        async with aiohttp.ClientSession(trust_env=False) as session, session.get(f"{node.url}{_SNAPSHOT}") as response:
            assert response.status == 200, response.status
            return await response.read()

    return await eventually("a snapshot", saved)


async def _put(stage: Stage, node: Node, sort: poison.Poison) -> int:
    query = {"force": ""} if sort.is_forced else None
    answer = await stage.cluster.ask(node, "PUT", _SNAPSHOT, sort.data, query=query, seconds=_RESTORE_SECONDS)
    return answer.status


async def _put_beside_each_other(scene: Scene, saved: bytes, sorts: Sequence[poison.Poison]) -> None:
    """The second one is told to come later; those that break off leave nothing behind."""
    stage = scene.stage
    node = scene.rng.choice(stage.nodes)
    statuses = await asyncio.gather(*(_put(stage, node, sort) for sort in [*sorts] * 4))
    assert set(statuses) <= {422, 503}, statuses
    host, _, port = node.local.http.rpartition(":")
    for _ in range(8):
        _, writer = await asyncio.open_connection(host, int(port))
        writer.write(f"PUT {_SNAPSHOT} HTTP/1.1\r\nHost: {node.local.http}\r\nContent-Length: 999999\r\n\r\n".encode())
        writer.write(saved[: len(saved) // 2])
        with contextlib.suppress(ConnectionError):
            await writer.drain()
        writer.transport.abort()

    async def cleared() -> bool:
        return not [*node.data_dir.glob("transfer-*")]

    await eventually("what was not sent to its end is gone", cleared)


async def _restore_by_request(scene: Scene, saved: bytes) -> None:
    stage = scene.stage
    leader = await stage.leader()
    context = attacker.client_context(_own(scene.rng.choice(stage.others(leader))))
    for kind, state in poison.bad_states(poison.state_of(saved)):
        for operation, request in (
            ("restore_ca", [state]),
            ("restore_checked", [state, b"sums", "ab" * 32, True, 0, bytes(32)]),
            ("restore_judged", [state, b"sums", "ab" * 32, True, 0, bytes(32)]),
        ):
            answer = await _answer(leader.local.rpc, context, _request(operation, [request]))
            assert hostile_frames.is_refused(answer), f"{operation}, {kind}: {answer[:300]!r}"
    for row in poison.bad_rows():
        _, serial, kind, name, spiffe_id, issuer, fingerprint, start, end, by, request_id, _ = row
        fields = [serial, kind, name, spiffe_id, fingerprint, start, end, by, request_id or b""]
        for operation, request in (
            ("restore_rows", [issuer, [fields]]),
            ("restore_proven_rows", [issuer, [fields], "x.consul", 0, bytes(32)]),
        ):
            answer = await _answer(leader.local.rpc, context, _request(operation, [request]))
            assert hostile_frames.is_refused(answer), f"{operation}, {row}: {answer[:300]!r}"


def _request(operation: str, requests: list[Any]) -> bytes:
    return hostile_frames.Request("", operation, msgpack.packb([5000, requests]), str(VERSION)).packed()
