"""What a leading node signs with: taken into use, limited, and gone with its leadership."""

import asyncio
from dataclasses import replace

import pytest

from cluster.api.ca import RotateRequest
from cluster.base.errors import InternalError, NotLeader, NotReady, RateLimitReached
from cluster.ca.attempts import Attempt
from cluster.ca.health import CAHealth
from cluster.ca.uptake import UptakeMeter
from cluster.raft.membership import Member
from cluster.rpc.operation import A, Operation, Q
from cluster.seal.keeper import CoveredRecord
from cluster.seal.sources import SealError
from fsm.ca import RotationPhase
from providers.errors import CSRRejected, NotInitialized, ProviderUnavailable
from tests.kit.callers import anybody
from tests.kit.csrs import serial, service_csr
from tests.kit.fake_cluster import FakeCluster, Node, bootstrapped, put, running, update
from tests.kit.keeper import record_in
from tests.kit.wait import until


async def test_provider_record_opens_under_its_own_id_only(node: Node) -> None:
    cover, opener, config = node.kept.cover, node.parts.opener, node.cluster.state.config
    assert config is not None
    record = CoveredRecord(cover.cover_values({"Token": "s"}), cover.cover(b"state"), "{}")
    sealed = opener.sealed(config, record)
    assert opener.record(sealed) == record
    opened = record_in(node.cluster.directory, node.cluster.state, sealed)
    assert (opened.secrets, opened.state, opened.config_json) == ({"Token": "s"}, b"state", "{}")
    with pytest.raises(SealError):
        opener.record(replace(sealed, provider_id="two"))


async def test_signed_certificate_is_whole(node: Node) -> None:
    csr = service_csr(node.cluster.state.trust_domain)
    cert = await node.authority.sign(csr, serial(1), "me", anybody)
    assert cert.serial == int.from_bytes(serial(1), "big")
    assert (cert.kind, cert.name, cert.index) == ("service", "web", node.cluster.state.index)
    assert cert.cert_pem.count("BEGIN CERTIFICATE") == 1  # the built-in root signs leaves itself
    assert cert.not_before < node.clock.now() < cert.not_after


async def test_before_the_ca_is_up_the_reason_is_given(cluster: FakeCluster) -> None:
    node = Node(cluster, "a")
    cluster.elect("a")
    with pytest.raises(NotReady, match="unable to sign certificates yet: no root certificate"):
        await node.authority.sign("x", serial(1), "me", anybody)
    node.health.show(CAHealth(trouble="backend is down"))
    with pytest.raises(NotReady, match="yet: backend is down"):
        await node.authority.sign("x", serial(1), "me", anybody)
    node.ledger.close()


async def test_rate_limit_holds_and_a_bad_csr_takes_no_token(node: Node) -> None:
    await put(node, update({"CSRMaxPerSecond": 1}))
    csr = service_csr(node.cluster.state.trust_domain)
    with pytest.raises(CSRRejected):
        await node.authority.sign("rubbish", serial(1), "me", anybody)
    await node.authority.sign(csr, serial(2), "me", anybody)
    with pytest.raises(RateLimitReached):
        await node.authority.sign(csr, serial(3), "me", anybody)
    with pytest.raises(CSRRejected):
        await node.authority.sign("rubbish", serial(4), "me", anybody)


async def test_change_of_something_else_hands_out_no_fresh_tokens(node: Node) -> None:
    await put(node, update({"CSRMaxPerSecond": 1}))
    csr = service_csr(node.cluster.state.trust_domain)
    await node.authority.sign(csr, serial(1), "me", anybody)
    await put(node, update({"CSRMaxPerSecond": 1, "LeafCertTTL": "24h"}))
    with pytest.raises(RateLimitReached):
        await node.authority.sign(csr, serial(2), "me", anybody)
    await put(node, update({"CSRMaxPerSecond": 2}))
    await node.authority.sign(csr, serial(3), "me", anybody)


async def test_new_leaf_ttl_holds_from_the_next_leaf_on(node: Node) -> None:
    csr = service_csr(node.cluster.state.trust_domain)
    await put(node, update({"LeafCertTTL": "1h", "CSRMaxPerSecond": 0}))
    cert = await node.authority.sign(csr, serial(1), "me", anybody)
    assert cert.not_after - cert.not_before <= 3600


async def test_expired_root_signs_nothing(node: Node) -> None:
    csr = service_csr(node.cluster.state.trust_domain)
    root = node.cluster.state.active_root
    assert root is not None
    node.clock.advance(root.not_after - node.clock.now() + 1)
    with pytest.raises(InternalError, match=r"^root expired: certificate expired, expiration date: 20\d\d-\d\d-\d\d "):
        await node.authority.sign(csr, serial(1), "me", anybody)


async def test_taking_the_same_state_into_use_again_costs_nothing(node: Node) -> None:
    before = len(node.worker.calls)
    await node.authority.adopt(node.cluster.state)
    assert len(node.worker.calls) == before


async def test_node_that_does_not_lead_takes_no_keys(node: Node) -> None:
    await node.authority.drop()
    with pytest.raises(NotLeader):
        await node.authority.adopt(node.cluster.state)
    assert not node.worker.keys
    assert not node.authority.is_ready


async def test_request_that_waits_while_leadership_ends_is_for_the_next_leader(node: Node) -> None:
    """The keys are gone from the workers then: not a fault of ours, but "not done, not leader"."""
    csr = service_csr(node.cluster.state.trust_domain)
    await put(node, update({"CSRMaxPerSecond": 0}))
    node.worker.calls.clear()
    node.worker.held.add("sign_leaves")
    requests = [asyncio.ensure_future(node.authority.sign(csr, serial(n), "me", anybody)) for n in range(4)]
    await until(lambda: node.worker.calls.count("sign_leaves") == 2)
    node.cluster.elect("b")
    await until(lambda: not node.worker.keys)
    node.worker.gate.set()
    outcomes = await asyncio.gather(*requests, return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [NotLeader] * 4


async def test_request_that_waits_while_the_lead_is_lost_and_won_back_is_asked_again(node: Node) -> None:
    """Its provider is gone from the workers, and another one is there: no reason to say that the CA is not ready."""
    csr = service_csr(node.cluster.state.trust_domain)
    await put(node, update({"CSRMaxPerSecond": 0}))
    before = node.authority._signing
    node.worker.calls.clear()
    node.worker.held.add("sign_leaves")
    waiting = asyncio.ensure_future(node.authority.sign(csr, serial(1), "me", anybody))
    await until(lambda: "sign_leaves" in node.worker.calls)
    node.cluster.elect("b")
    await until(lambda: not node.worker.keys)
    node.cluster.elect("a")
    await until(lambda: node.authority.is_ready and node.authority._signing is not before)
    node.worker.failures_behind["sign_leaves"] = NotInitialized("provider not initialized")
    node.worker.gate.set()
    with pytest.raises(NotLeader):
        await waiting
    node.worker.failures_behind.clear()
    assert (await node.authority.sign(csr, serial(1), "me", anybody)).serial == int.from_bytes(serial(1), "big")


async def test_new_leader_is_waited_for_until_it_can_sign_or_says_why_not(cluster: FakeCluster) -> None:
    node = Node(cluster, "a")
    waiting = asyncio.ensure_future(node.authority.settled(0, 10))
    async with running(node):
        await asyncio.sleep(0)
        assert not waiting.done()
        await bootstrapped(node)
        await waiting
    other = Node(cluster, "b")
    waiting = asyncio.ensure_future(other.authority.settled(5, 10))
    await asyncio.sleep(0)
    other.health.show(CAHealth(trouble="backend is down", ca_index=4))  # of the CA before this one
    await asyncio.sleep(0.01)
    assert not waiting.done()
    other.health.show(CAHealth(trouble="backend is down", ca_index=5))
    await waiting
    other.ledger.close()


async def test_wait_for_a_new_leader_ends_when_its_leadership_does(cluster: FakeCluster) -> None:
    node = Node(cluster, "a")
    waiting = asyncio.ensure_future(node.authority.settled(0, 30))
    await asyncio.sleep(0)
    await node.authority.drop()
    async with asyncio.timeout(5):
        await waiting
    node.ledger.close()


async def test_wait_for_a_new_leader_is_bounded(cluster: FakeCluster) -> None:
    node = Node(cluster, "a")
    async with asyncio.timeout(5):
        await node.authority.settled(0, 0.01)
    node.ledger.close()


@pytest.mark.parametrize(
    "failure", [InternalError("lost under way"), asyncio.CancelledError()], ids=["failed", "cancelled"]
)
async def test_provider_that_only_some_workers_took_is_forgotten_with_leadership(
    cluster: FakeCluster, failure: BaseException
) -> None:
    """Its key must not stay in the workers of a node that does not lead."""
    node = Node(cluster, "a")
    async with running(node):
        await bootstrapped(node)
        await node.authority.drop()
        assert not node.worker.keys
        node.authority.lead()
        node.worker.failures_behind["configure"] = failure
        with pytest.raises(type(failure)):
            await node.authority.adopt(cluster.state)
        assert node.worker.keys
        await node.authority.drop()
        assert not node.worker.keys


async def test_node_that_does_not_lead_adopts_nothing(cluster: FakeCluster) -> None:
    node = Node(cluster, "a")
    async with running(node):
        await bootstrapped(node)
        await node.authority.drop()
        with pytest.raises(NotLeader):
            await node.authority.adopt(cluster.state)
        assert not node.worker.keys


class RudePeers:
    """A member that answers with an error of a provider, which no member has any business with."""

    async def ask(self, member: Member, operation: Operation[Q, A], request: Q, seconds: float) -> A:
        raise ProviderUnavailable(f"{member.id} says so to {request} of {operation} within {seconds} s")


async def test_whatever_a_member_answers_it_is_left_out_of_the_count(cluster: FakeCluster) -> None:
    node = Node(cluster, "a")
    async with running(node):
        await bootstrapped(node)
        await node.operator_rotation.rotate(
            RotateRequest(is_staged=True, wait_seconds=3600), Attempt(b"1", cluster.state.ca_index, False)
        )
        await until(lambda: cluster.state.rotation and cluster.state.rotation.phase is RotationPhase.WAIT)
        rotation = cluster.state.rotation
        assert rotation is not None
        meter = UptakeMeter(node.parts, RudePeers(), node.watchers, node.name)
        uptake = await meter.measure(rotation)
        assert (uptake.watchers, uptake.watchers_seen) == (0, 0)
