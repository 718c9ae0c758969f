"""Requests that meet the end of a leadership: given up where nobody will answer, and never answered with nonsense."""

import asyncio
from collections.abc import AsyncIterator, Callable
from types import SimpleNamespace
from typing import Any, cast

import msgpack
import pytest

from cluster.base.errors import CommitUnknown, NotLeader
from cluster.base.telemetry import Metrics
from cluster.rpc.client import Answer
from cluster.rpc.forward import Forwarder
from cluster.rpc.messages import SIGN, SignRequest
from cluster.rpc.peers import Peers
from providers.errors import NotInitialized
from tests.kit.clock import FakeClock
from tests.kit.csrs import serial, service_csr
from tests.kit.fake_cluster import FakeCluster, Node, bootstrapped, running
from tests.kit.rpc_nodes import Ask, operation, working
from tests.kit.wait import until

WAIT_SECONDS = 30.0


class Client:
    """What reaches the others: who of them answers, and what was sent to whom."""

    def __init__(self) -> None:
        self.answering: set[str] = set()
        self.late = asyncio.Event()  # once it is set, the silent ones answer too
        self.sent: list[str] = []
        self.given_up: list[str] = []

    async def post(
        self, peer: str, _address: str, _operation: str, body_of: Callable[[int], bytes], _tokens: str = ""
    ) -> Answer:
        self.sent.append(peer)
        if peer not in self.answering:
            try:
                await self.late.wait()  # as a process that is stopped: connected, and silent
            except asyncio.CancelledError:
                self.given_up.append(peer)
                raise
        _, arguments = msgpack.unpackb(body_of(2))
        return Answer(200, msgpack.packb([[None, [f"{peer}: {argument}"]] for [argument] in arguments]), 2)

    def close(self) -> None:
        pass


@pytest.fixture
async def peers() -> Client:
    return Client()


@pytest.fixture
async def forwarder(cluster: FakeCluster, peers: Client, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Forwarder]:
    """Of node c."""

    async def local(argument: Any) -> str:
        return f"c: {argument}"

    replica = cluster.replicas["c"].real
    others = Peers(replica, cast(Any, SimpleNamespace(server_name=str)))
    monkeypatch.setattr(others, "_client", peers)
    forwarder = Forwarder(replica, working({"do": local}), others, "c", FakeClock(), Metrics(), WAIT_SECONDS)
    yield forwarder
    await forwarder.close()
    await others.close()


async def ask(forwarder: Forwarder, *, is_repeatable: bool = True, is_batched: bool = False) -> Any:
    what = operation(is_repeatable=is_repeatable, is_batched=is_batched)
    return (await forwarder.call(what, Ask("first"), Ask("again"))).value


@pytest.mark.parametrize("is_batched", [True, False])
@pytest.mark.parametrize("successor", ["b", "c"])
async def test_silent_leader_is_given_up_once_another_leads(
    cluster: FakeCluster,
    forwarder: Forwarder,
    peers: Client,
    successor: str,
    is_batched: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("cluster.rpc.peers._OLD_LEADER_SECONDS", 0.0)
    changes = cluster.replicas["c"].leadership_changed
    cluster.elect("a")
    peers.answering = {"b"}
    asked = [asyncio.ensure_future(ask(forwarder, is_batched=is_batched)) for _ in range(300)]
    await until(lambda: peers.sent)
    cluster.elect(None)  # nobody knows of a better leader yet
    await until(lambda: changes._future)  # that has been seen: the next change is waited for
    assert peers.given_up == []
    assert not [request for request in asked if request.done()]
    cluster.elect(successor)
    async with asyncio.timeout(5.0):
        answers = set(await asyncio.gather(*asked))
    # Whatever waited behind others was never sent to the old leader, and counts as new.
    assert answers <= {f"{successor}: again", f"{successor}: first"}
    assert f"{successor}: again" in answers


async def test_leader_that_answers_is_not_given_up(cluster: FakeCluster, forwarder: Forwarder, peers: Client) -> None:
    cluster.elect("a")
    peers.answering = {"a"}
    assert await ask(forwarder) == "a: first"
    cluster.elect("b")
    cluster.elect("a")
    assert await ask(forwarder, is_batched=True) == "a: first"


async def test_what_cannot_be_repeated_waits_for_its_answer(
    cluster: FakeCluster, forwarder: Forwarder, peers: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A transfer of leadership ends with another leader, and is then answered by the old one."""
    monkeypatch.setattr(forwarder, "_wait_seconds", 0.5)
    cluster.elect("a")
    asked = asyncio.ensure_future(ask(forwarder, is_repeatable=False))
    await until(lambda: peers.sent)
    cluster.elect("b")
    with pytest.raises(CommitUnknown):
        await asked
    assert peers.sent == ["a"]


async def test_what_cannot_be_repeated_is_not_given_up_when_another_leads(
    cluster: FakeCluster, forwarder: Forwarder, peers: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The old leader's answer may come after the election: a repeatable request beside it is given up by then."""
    monkeypatch.setattr("cluster.rpc.peers._OLD_LEADER_SECONDS", 0.0)
    cluster.elect("a")
    peers.answering = {"b"}
    once = asyncio.ensure_future(ask(forwarder, is_repeatable=False))
    repeatable = asyncio.ensure_future(ask(forwarder))
    await until(lambda: len(peers.sent) == 2)
    cluster.elect("b")
    assert await repeatable == "b: again"
    peers.late.set()
    assert await once == "a: first"


async def test_provider_that_was_forgotten_is_not_initialized(cluster: FakeCluster) -> None:
    node = Node(cluster, "a")
    async with running(node):
        await bootstrapped(node)
        node.pool.renew()
        with pytest.raises(NotInitialized):
            await node.pool.sign_leaves("gone", cluster.state.trust_domain, "dc1", 0, [])


async def test_sign_at_the_end_of_leadership_is_for_the_next_leader(cluster: FakeCluster) -> None:
    """Between the look at who leads and the signature the leadership ends, and the provider is dropped with it."""
    node = Node(cluster, "a")
    async with running(node):
        await bootstrapped(node)
        argument = SignRequest(service_csr(cluster.state.trust_domain), serial(1), "token:web")
        node.worker.held = {"check_csr", "sign_leaves"}
        request = asyncio.ensure_future(node.operations.run(SIGN, argument))
        await until(lambda: {"check_csr", "sign_leaves"} & set(node.worker.calls))
        cluster.elect("b")
        await until(lambda: not node.worker.keys)
        node.worker.gate.set()
        with pytest.raises(NotLeader):
            await request
        with pytest.raises(NotLeader):
            await node.operations.run(SIGN, argument)
