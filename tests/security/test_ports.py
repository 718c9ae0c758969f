"""Whoever is no server of the cluster gets nowhere on the ports between nodes, whatever they send: the real ports of
real nodes, on which nothing may change.
"""

import os
import pickle
import secrets
import ssl
import struct
import zlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import psutil
import pytest
import pytest_asyncio

from cluster.tls.certificates import Identity
from tests.kit import attacker
from tests.kit.attacker import Credentials
from tests.kit.real_cluster import LocalCluster, Node, make_csr
from tests.kit.wait import eventually

pytestmark = [pytest.mark.slow, pytest.mark.asyncio(loop_scope="module")]

RAFT, RPC = PORTS = ("raft", "rpc")
_TERMS_AHEAD: Final = 1000
_OLD_TERMS: Final = 5
_MANY_BYTES: Final = 50 << 20
#: By this much ECDSA signatures differ in length: each of their two numbers may be a few bytes shorter.
_SIGNATURE_BYTES: Final = 6


@dataclass(frozen=True, slots=True)
class Facts:
    """What an attack must not change."""

    leader: str
    terms: tuple[int, ...]
    digests: tuple[Any, ...]


class Target:
    """A cluster at rest, and the node that is attacked: a follower, which believes a newer term if anybody does."""

    def __init__(self, cluster: LocalCluster, leader: Node, directory: Path) -> None:
        self.cluster = cluster
        self.leader = leader
        self.node = next(node for node in cluster.nodes if node is not leader)
        self.peer = next(node for node in cluster.nodes if node not in (leader, self.node))
        self.directory = directory
        self.ca = attacker.ca_of(cluster.root)

    def address(self, port: str) -> str:
        return self.node.local.raft if port == RAFT else self.node.local.rpc

    async def facts(self) -> Facts:
        nodes = self.cluster.nodes
        digests = tuple([tuple((await self.cluster.digest(node)).items()) for node in nodes])
        stats = [(await self.cluster.ask(node, "GET", "/v1/agent/self")).json()["Stats"]["raft"] for node in nodes]
        leader = await self.cluster.leader()
        return Facts(leader.name, tuple(int(of_node["term"]) for of_node in stats), digests)

    async def rest(self) -> Facts:
        """Once nothing changes any more."""
        before = [await self.facts()]

        async def still() -> Facts | None:
            now = await self.facts()
            is_still = now == before[0] and len(set(now.digests)) == 1
            before[0] = now
            return now if is_still else None

        return await eventually("the cluster is at rest", still, 20.0, pause=0.3)

    def said(self, port: str, term: int) -> bytes:
        """The worst that somebody could say on this port."""
        if port == RAFT:
            return attacker.hello("127.0.0.1:9") + attacker.take_over(term)
        csr_pem, _ = make_csr("spiffe://x.consul/ns/default/dc/dc1/svc/web")
        return attacker.rpc_request("sign", [[csr_pem, secrets.token_bytes(16), "attacker"]])

    def issue(self, identity: Identity, *, age_days: int = 0) -> Credentials:
        return attacker.issue(self.directory, secrets.token_hex(4), self.ca, identity, age_days=age_days)

    def of_node(self, node: Node) -> Credentials:
        """Stolen from a server."""
        return Credentials(node.local.directory / "cert.pem", node.local.directory / "key.pem")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def target(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Target]:
    root = tmp_path_factory.mktemp("security")
    (root / "attacker").mkdir()
    async with LocalCluster(root) as cluster:
        await cluster.start_all()
        await cluster.wait_ready()
        yield Target(cluster, await cluster.leader(), root / "attacker")


@pytest_asyncio.fixture(loop_scope="module")
async def untouched(target: Target) -> AsyncIterator[Facts]:
    """Leader, term, index and state are the same behind the test as before it, and nothing fell over."""
    logs = {node: node.local.log.stat().st_size for node in target.cluster.nodes}
    before = await target.rest()
    yield before
    assert await target.rest() == before
    for node, size in logs.items():
        log = node.local.log.read_bytes()[size:]
        assert b"Traceback" not in log, log.decode()
        assert b"raft.link_down" not in log, log.decode()


class Bomb:
    """Makes a file where it is unpickled."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return os.mkdir, (str(self._path),)


def _pickles(path: Path) -> list[bytes]:
    """Bare, and framed as PySyncObj's own transport does."""
    bare = pickle.dumps(Bomb(path))
    framed = zlib.compress(bare)
    return [bare, struct.pack("i", len(framed)) + framed]


def _is_refused(answer: bytes) -> bool:
    """Nothing at all, or (RPC) the refusal of whoever is no server of this cluster."""
    return not answer or answer.startswith(b"HTTP/1.1 403 ")


def _is_alert(answer: bytes) -> bool:
    """At most one TLS alert record (RFC 8446 6)."""
    return not answer or (answer[:1] == b"\x15" and len(answer) == 7)


def _assert_only_handshake(answer: bytes, handshake: bytes) -> None:
    """Records of TLS 1.3 and nothing else: the server's half of a handshake, as a peer got it, and at most one alert.
    Application data would come after that. What is encrypted looks all the same, so number and size must tell.
    """
    expected, found = attacker.tls_records(handshake), attacker.tls_records(answer)
    half, rest = found[: len(expected)], found[len(expected) :]
    assert [record.type for record in expected[:3]] == [
        attacker.HANDSHAKE,
        attacker.CHANGE_CIPHER_SPEC,
        attacker.ENCRYPTED,
    ]
    assert expected[0].body[:1] == attacker.SERVER_HELLO
    assert [record.type for record in half] == [record.type for record in expected]
    for mine, peers in zip(half, expected, strict=True):
        assert abs(len(mine.body) - len(peers.body)) <= _SIGNATURE_BYTES
    assert [len(record.body) for record in rest] == [attacker.ALERT_BYTES[record.type] for record in rest][:1]


@pytest.mark.parametrize("port", PORTS)
async def test_pickle_is_never_loaded(target: Target, untouched: Facts, port: str) -> None:
    path = target.directory / f"loaded-{port}"
    for data in _pickles(path):
        assert _is_alert(attacker.send_plain(target.address(port), data))
    assert not path.exists()
    pickle.loads(_pickles(path)[0])
    assert path.exists()  # the bomb would have gone off


async def test_pickle_of_a_peer_is_never_loaded(target: Target, untouched: Facts) -> None:
    """Even somebody with a server's key finds nobody who unpickles."""
    path = target.directory / "loaded-of-peer"
    context = attacker.client_context(target.of_node(target.peer))
    for data in _pickles(path):
        framed = struct.pack("<I", len(data)) + data
        attacker.send_tls(target.node.local.raft, context, attacker.hello("127.0.0.1:9") + framed)
        answer = attacker.send_tls(
            target.node.local.rpc,
            context,
            b"POST /rpc/sign HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % len(data) + data,
        )
        assert answer.startswith(b"HTTP/1.1 400 ")
    assert not path.exists()


@pytest.mark.parametrize("port", PORTS)
async def test_garbage_ends_the_connection(target: Target, untouched: Facts, port: str) -> None:
    for data in (secrets.token_bytes(1 << 16), b"\0" * 4096, b"GET /rpc/sign HTTP/1.1\r\nHost: x\r\n\r\n"):
        assert _is_alert(attacker.send_plain(target.address(port), data))


@pytest.mark.parametrize("port", PORTS)
async def test_nobody_comes_in_without_a_certificate(target: Target, untouched: Facts, port: str) -> None:
    said = target.said(port, max(untouched.terms) + _TERMS_AHEAD)
    assert attacker.send_tls(target.address(port), attacker.client_context(None), said) == b""


@pytest.mark.parametrize("port", PORTS)
async def test_certificates_of_others_are_refused(target: Target, untouched: Facts, port: str) -> None:
    """A stranger's own, and one that another cluster's CA has made for the name of a server of this one."""
    identity = Identity("server", node=target.peer.name)
    for credentials in (
        attacker.self_signed(target.directory, f"stranger-{port}"),
        attacker.issue(target.directory, f"other-{port}", attacker.another_ca(), identity),
    ):
        said = target.said(port, max(untouched.terms) + _TERMS_AHEAD)
        assert attacker.send_tls(target.address(port), attacker.client_context(credentials), said) == b""


@pytest.mark.parametrize("port", PORTS)
async def test_expired_certificate_of_a_server_is_refused(target: Target, untouched: Facts, port: str) -> None:
    credentials = target.issue(Identity("server", node=target.peer.name), age_days=3)
    said = target.said(port, max(untouched.terms) + _TERMS_AHEAD)
    assert attacker.send_tls(target.address(port), attacker.client_context(credentials), said) == b""


@pytest.mark.parametrize("port", PORTS)
@pytest.mark.parametrize(
    "identity",
    [
        Identity("client"),
        Identity("cli"),
        Identity("server"),
        Identity("server", datacenter="dc2", node="node-2"),
        Identity("server", domain="example", node="node-2"),
        Identity("client", more_dns=["node-2.client.dc1.consul"]),
    ],
    ids=["client", "cli", "nameless server", "other datacenter", "other domain", "client of a server's name"],
)
async def test_other_roles_of_the_same_ca_are_refused(
    target: Target, untouched: Facts, port: str, identity: Identity
) -> None:
    context = attacker.client_context(target.issue(identity))
    said = target.said(port, max(untouched.terms) + _TERMS_AHEAD)
    assert _is_refused(attacker.send_tls(target.address(port), context, said))


async def test_server_that_is_no_member_is_not_heard(target: Target, untouched: Facts) -> None:
    """One that was removed has a good certificate still. On the Raft port it may stay, but while there is a leader
    nothing is done or answered for it.
    """
    context = attacker.client_context(target.issue(Identity("server", node="node-9")))
    for node in target.cluster.nodes:
        said = target.said(RAFT, max(untouched.terms) + _TERMS_AHEAD)
        assert attacker.record_tls(node.local.raft, context, said, 2.0).answer == b""
        answer = attacker.send_tls(node.local.rpc, context, target.said(RPC, 0))
        assert answer.startswith(b"HTTP/1.1 403 ")


@pytest.mark.parametrize("port", PORTS)
async def test_tls_1_2_is_refused(target: Target, untouched: Facts, port: str) -> None:
    context = attacker.client_context(target.of_node(target.peer))
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    said = target.said(port, max(untouched.terms) + _TERMS_AHEAD)
    assert attacker.send_tls(target.address(port), context, said) == b""


@pytest.mark.parametrize("data", [b"", bytes(1 << 20)], ids=["header only", "header and a megabyte"])
async def test_frame_of_2_gib_is_refused_by_its_header(target: Target, untouched: Facts, data: bytes) -> None:
    context = attacker.client_context(target.of_node(target.peer))
    process = psutil.Process(target.node.pid)
    before = process.memory_info().rss
    said = attacker.hello(target.peer.local.raft) + struct.pack("<I", 1 << 31) + data
    assert attacker.send_tls(target.node.local.raft, context, said) == b""
    assert process.memory_info().rss - before < _MANY_BYTES


async def test_body_of_2_gib_is_refused_by_its_header(target: Target, untouched: Facts) -> None:
    context = attacker.client_context(target.of_node(target.peer))
    said = b"POST /rpc/sign HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % (1 << 31)
    assert not attacker.send_tls(target.node.local.rpc, context, said + bytes(5 << 20)).startswith(b"HTTP/1.1 2")


async def test_recorded_raft_connection_cannot_be_played_again(target: Target, untouched: Facts) -> None:
    """Every byte that a peer sent, once more: keys differ in every connection; there are no tickets and no 0-RTT."""
    context = attacker.client_context(target.of_node(target.peer))
    term = max(untouched.terms)
    old = attacker.frame({"type": "term_notice", "ct": term, "term": term})
    peers = attacker.record_tls(target.node.local.raft, context, attacker.hello(target.peer.local.raft) + old)
    _assert_only_handshake(attacker.play_again(target.node.local.raft, peers), peers.handshake)


async def test_old_frames_of_a_peer_change_nothing(target: Target, untouched: Facts) -> None:
    """Raft's own part: what a leader or candidate once said is known, or over."""
    context = attacker.client_context(target.of_node(target.leader))
    for term in range(max(0, max(untouched.terms) - _OLD_TERMS), max(untouched.terms) + 1):
        said = attacker.hello(target.leader.local.raft) + attacker.frame(
            {"type": "request_vote", "ct": term, "term": term, "last_log_index": 1 << 40, "last_log_term": term}
        )
        attacker.record_tls(target.node.local.raft, context, said, 0.3)


async def test_recorded_rpc_request_cannot_be_played_again(target: Target) -> None:
    """The request was done when it was made; its bytes are worth nothing afterwards."""
    await target.rest()
    context = attacker.client_context(target.of_node(target.peer))
    csr_pem, _ = make_csr(await target.cluster.service_uri())
    said = attacker.rpc_request("sign", [[csr_pem, secrets.token_bytes(16), "peer"]])
    peers = attacker.record_tls(target.leader.local.rpc, context, said, 3.0)
    assert peers.answer.startswith(b"HTTP/1.1 200 ")
    with pytest.raises(AssertionError):  # an answer would show
        _assert_only_handshake(peers.handshake + peers.received, peers.handshake)
    before = await target.rest()
    _assert_only_handshake(attacker.play_again(target.leader.local.rpc, peers), peers.handshake)
    assert await target.rest() == before


async def test_cluster_still_signs(target: Target) -> None:
    csr_pem, _ = make_csr(await target.cluster.service_uri())
    for node in target.cluster.nodes:
        await target.cluster.sign(node, csr_pem)
    await target.cluster.wait_same_digest()
