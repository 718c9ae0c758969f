"""A signature while the leader's CA changes: what it waits for, and what it is signed with."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from cluster.base.errors import NotLeader
from cluster.rpc.messages import SIGN, SignRequest
from fsm.ca import SetRoots
from providers.errors import ProviderUnavailable
from tests.kit.csrs import serial, service_csr
from tests.kit.fake_cluster import FakeCluster, Node, bootstrapped, running
from tests.kit.wait import until


@pytest.fixture
async def node(cluster: FakeCluster) -> AsyncIterator[Node]:
    node = Node(cluster, "a")
    async with running(node):
        await bootstrapped(node)
        yield node


@pytest.fixture
async def settling(node: Node) -> Node:
    """Elected again, and its provider is not in use yet."""
    node.cluster.elect("b")
    await until(lambda: not node.worker.keys and not node.authority.is_ready)
    node.worker.calls.clear()
    node.worker.held.add("configure")
    node.cluster.elect("a")
    await until(lambda: "configure" in node.worker.calls)
    return node


def asked(node: Node) -> SignRequest:
    return SignRequest(service_csr(node.cluster.state.trust_domain), serial(1), "token:web")


async def test_new_leader_takes_its_provider_into_use_first(settling: Node) -> None:
    request = asyncio.ensure_future(settling.operations.run(SIGN, asked(settling)))
    await asyncio.sleep(0)  # it is carried out up to its first wait
    settling.worker.gate.set()
    assert (await request).name == "web"


async def test_leadership_that_ends_while_it_is_waited_for_is_for_the_next_leader(node: Node) -> None:
    other = Node(node.cluster, "b")  # its loop does not run: it never has the provider
    node.cluster.elect("b")
    request = asyncio.ensure_future(other.operations.run(SIGN, asked(other)))
    await asyncio.sleep(0)
    node.cluster.elect("c")
    await other.authority.drop()
    with pytest.raises(NotLeader):
        await request
    other.ledger.close()


async def test_leader_takes_what_was_committed_into_use_before_it_signs(node: Node) -> None:
    """Who has seen the change must not get a leaf of before; if it cannot be had, there is none."""
    node.worker.failures["configure"] = ProviderUnavailable("it is down")
    state = node.cluster.state
    node.cluster.commit(SetRoots(state.ca_index, state.roots, state.providers))
    with pytest.raises(ProviderUnavailable):
        await node.operations.run(SIGN, asked(node))
    node.worker.failures.clear()
    assert (await node.operations.run(SIGN, asked(node))).name == "web"
    assert not node.authority.is_behind(node.cluster.state)
