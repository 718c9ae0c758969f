"""Certificates of the agent CA that belong to no server: of one that was removed, of one that never was, and of a
server's name with another key. Neither beside a leader nor while there is none may they lead, vote, ask, depose, or
make terms grow; on both ports, on real nodes.
"""

import json
import secrets
import shutil
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any, Final

import pytest
import pytest_asyncio

from cluster.tls.certificates import Identity
from tests.integration.peers import add_peer, join, remove_peer, voters, wait_until_voting, wipe
from tests.kit import attacker
from tests.kit.attacker import Credentials
from tests.kit.real_cluster import LocalCluster, Node, make_csr
from tests.kit.wait import eventually

pytestmark = [pytest.mark.slow, pytest.mark.asyncio(loop_scope="module")]

KINDS: Final = ("removed", "never a server", "name of a server")
_TERMS_AHEAD: Final = 1000
_WAIT_SECONDS: Final = 20.0
_LISTEN_SECONDS: Final = 2.0


@dataclass(frozen=True, slots=True)
class Known:
    """What a node says of itself without asking anybody."""

    term: int
    leader: str
    digest: tuple[Any, ...]


class Target:
    def __init__(self, cluster: LocalCluster, gone: Node, credentials: dict[str, Credentials]) -> None:
        self.cluster = cluster
        self.gone = gone
        self.credentials = credentials

    async def known(self, node: Node) -> Known:
        stats = (await self.cluster.ask(node, "GET", "/v1/agent/self")).json()["Stats"]["raft"]
        leader = (await self.cluster.ask(node, "GET", "/v1/status/leader")).json()
        digest = (await self.cluster.ask(node, "GET", "/v1/operator/digest", query={"stale": ""})).json()
        return Known(int(stats["term"]), leader, tuple(digest.items()))

    async def attack(self, node: Node, kind: str, term: int) -> None:
        """All that could be said; nothing is answered but that it is refused."""
        context = attacker.client_context(self.credentials[kind])
        said = attacker.hello("127.0.0.1:9") + attacker.take_over(term) + attacker.lead(term) + attacker.ask(term)
        recording = attacker.record_tls(node.local.raft, context, said, _LISTEN_SECONDS)
        assert recording.answer == b""
        csr_pem, _ = make_csr("spiffe://x.consul/ns/default/dc/dc1/svc/web")
        for operation, arguments in (
            ("sign", [[csr_pem, secrets.token_bytes(20), "attacker"]]),
            ("cluster", [[]]),
            ("watchers", [[0]]),
            ("announce_key", [[secrets.token_bytes(72), "node-1"]]),
        ):
            answer = attacker.send_tls(node.local.rpc, context, attacker.rpc_request(operation, arguments))
            assert answer.startswith(b"HTTP/1.1 403 "), (operation, answer)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def target(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Target]:
    """node-4 has come and gone."""
    root = tmp_path_factory.mktemp("members")
    directory = root / "attacker"
    directory.mkdir()
    async with LocalCluster(root) as cluster:
        await cluster.start_all()
        await cluster.wait_ready()
        gone = await join(cluster, cluster.nodes[0])
        stolen = Credentials(directory / "gone.pem", directory / "gone-key.pem")
        shutil.copy(gone.local.directory / "cert.pem", stolen.cert)
        shutil.copy(gone.local.directory / "key.pem", stolen.key)
        await cluster.kill(gone)
        cluster.part_with(gone)
        via = await cluster.leader()
        assert (await remove_peer(cluster, via, gone)).status == 200
        ca = attacker.ca_of(root)
        credentials = {
            "removed": stolen,
            "never a server": attacker.issue(directory, "never", ca, Identity("server", node="node-9")),
            "name of a server": attacker.issue(directory, "name", ca, Identity("server", node="node-2")),
        }
        await cluster.wait_same_digest()
        yield Target(cluster, gone, credentials)


def no_traceback(cluster: LocalCluster) -> None:
    for node in cluster.nodes:
        assert "Traceback" not in node.local.log.read_text(), node.name


@pytest.mark.parametrize("kind", KINDS)
async def test_beside_a_leader_nothing_changes(target: Target, kind: str) -> None:
    cluster = target.cluster
    before = [await target.known(node) for node in cluster.nodes]
    for node in cluster.nodes:
        await target.attack(node, kind, max(known.term for known in before) + _TERMS_AHEAD)
    assert [await target.known(node) for node in cluster.nodes] == before
    no_traceback(cluster)


@pytest.mark.parametrize("kind", KINDS)
async def test_without_a_leader_nobody_is_led(target: Target, kind: str) -> None:
    """A majority is down. The one that is left, restarted or not, must not take the attacker for its leader."""
    cluster = target.cluster
    leader = await cluster.leader()
    left, *others = [node for node in cluster.nodes if node is not leader]
    for node in (leader, *others):
        await cluster.kill(node)

    async def is_alone() -> Known | None:
        known = await target.known(left)
        return None if known.leader else known

    before = await eventually("it has no leader", is_alone, _WAIT_SECONDS)
    await target.attack(left, kind, before.term + _TERMS_AHEAD)
    assert await target.known(left) == before
    for node in (leader, *others):
        cluster.start(node)
    await cluster.wait_ready()
    csr_pem, _ = make_csr(await cluster.service_uri())
    await cluster.sign(left, csr_pem)
    await cluster.wait_same_digest()
    assert (await target.known(left)).term < before.term + _TERMS_AHEAD
    no_traceback(cluster)


async def test_restarted_node_still_knows_who_was_removed(target: Target) -> None:
    """While it cannot know what of its log is committed."""
    cluster = target.cluster
    left, *others = cluster.nodes
    for node in cluster.nodes:
        await cluster.kill(node)
    cluster.start(left)

    async def answers() -> Known | None:
        try:
            return await target.known(left)
        except OSError:
            return None

    before = await eventually("it answers", answers, _WAIT_SECONDS)
    for kind in KINDS:
        await target.attack(left, kind, before.term + _TERMS_AHEAD)
    assert await target.known(left) == before
    for node in others:
        cluster.start(node)
    await cluster.wait_ready()
    await cluster.wait_same_digest()


async def test_refusals_are_in_the_log_with_the_reason(target: Target) -> None:
    said = [json.loads(line) for node in target.cluster.nodes for line in node.local.log.read_text().splitlines()]
    refused = {event["reason"] for event in said if event["event"] in ("raft.peer_refused", "rpc.refused")}
    assert "node-4 was removed from this cluster" in refused
    assert "no server of this cluster" in refused
    assert any("not the one that is pinned for node-2" in reason for reason in refused)


async def test_removed_name_comes_back_when_an_operator_says_so(target: Target) -> None:
    cluster, gone = target.cluster, target.gone
    wipe(gone)
    assert (await add_peer(cluster, cluster.nodes[0], gone)).status == 200
    cluster.nodes.append(gone)
    cluster.start(gone)
    await wait_until_voting(cluster, cluster.nodes[0], gone)
    assert await voters(cluster, gone) == dict.fromkeys((node.name for node in cluster.nodes), True)
    await cluster.wait_same_digest()
