"""Rates on the leader: for one token before the CSR is looked at, for one SPIFFE ID before anything is signed; and who
comes first where the CA's own rate makes all wait.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest

from cluster.api.access import Caller
from cluster.base.errors import RateLimitReached
from providers.errors import CSRRejected, ProviderUnavailable
from tests.kit.callers import ANYBODY, MANAGER, anybody
from tests.kit.csrs import serial, service_csr
from tests.kit.fake_cluster import FakeCluster, Node, bootstrapped, put, running, update


@asynccontextmanager
async def limited(cluster: FakeCluster, *, per_token: float = 0.0, per_identity: float = 0.0) -> AsyncIterator[Node]:
    """A leader whose CA is up and has no rate of its own."""
    node = Node(cluster, "a", signing_per_token=per_token, signing_per_identity=per_identity)
    async with running(node):
        await bootstrapped(node)
        await put(node, update({"CSRMaxPerSecond": 0}))
        yield node


async def sign(node: Node, number: int, service: str = "web", caller: Caller = ANYBODY) -> str:
    csr = service_csr(node.cluster.state.trust_domain, service)
    return (await node.authority.sign(csr, serial(number), "me", lambda: caller)).name


async def count(node: Node) -> int:
    return (await node.ledger.call(lambda reader: reader.summary())).count


def refused(node: Node, limit: str) -> float | None:
    return node.metrics.registry.get_sample_value("quorumca_limited_total", {"limit": limit})


async def test_token_that_has_had_its_certificates_is_refused_before_its_csr_is_looked_at(cluster: FakeCluster) -> None:
    async with limited(cluster, per_token=0.1) as node:
        other = replace(MANAGER, accessor_id="another")
        await sign(node, 1, caller=MANAGER)
        before = [*node.worker.calls]
        with pytest.raises(RateLimitReached, match=r"at most 0\.1 certificates for one token in a second") as error:
            await sign(node, 2, "api", caller=MANAGER)
        assert error.value.retry_after_seconds == pytest.approx(10)
        assert (node.worker.calls, await count(node)) == (before, 1)
        assert await sign(node, 3, caller=other) == "web"
        node.clock.advance(10)
        assert await sign(node, 4, caller=MANAGER) == "web"
        assert refused(node, "token") == 1


async def test_nobody_without_a_token_is_one_token(cluster: FakeCluster) -> None:
    async with limited(cluster, per_token=0.1) as node:
        for number in range(1, 6):
            assert await sign(node, number) == "web"


async def test_spiffe_id_that_has_had_its_certificates_is_refused_before_anything_is_signed(
    cluster: FakeCluster,
) -> None:
    async with limited(cluster, per_identity=0.1) as node:
        with pytest.raises(CSRRejected):
            await node.authority.sign("rubbish", serial(1), "me", anybody)
        await sign(node, 2)
        signatures = node.worker.calls.count("sign_leaves")
        for caller in (ANYBODY, MANAGER):  # whoever asks
            with pytest.raises(RateLimitReached, match=r"at most 0\.1 certificates of one SPIFFE ID in a second"):
                await sign(node, 3, caller=caller)
        assert (node.worker.calls.count("sign_leaves"), await count(node)) == (signatures, 1)
        assert await sign(node, 4, "api") == "api"
        node.clock.advance(10)
        assert await sign(node, 5) == "web"
        assert refused(node, "identity") == 2


async def test_who_has_to_come_again_has_not_used_anything_up(cluster: FakeCluster) -> None:
    async with limited(cluster, per_token=0.1, per_identity=0.1) as node:
        node.worker.failures["sign_leaves"] = ProviderUnavailable("backend is down")
        for number in range(1, 4):
            with pytest.raises(ProviderUnavailable):
                await sign(node, number, caller=MANAGER)
        del node.worker.failures["sign_leaves"]
        await put(node, update({"CSRMaxPerSecond": 1}))
        await sign(node, 4, "other")
        for number in range(5, 8):
            with pytest.raises(RateLimitReached, match=r"^Rate limit reached, try again later$"):
                await sign(node, number, caller=MANAGER)
        node.clock.advance(1)
        assert await sign(node, 8, caller=MANAGER) == "web"
        node.clock.advance(1)
        with pytest.raises(RateLimitReached, match="certificates for one token"):
            await sign(node, 9, "api", caller=MANAGER)


async def test_rubbish_of_a_token_uses_its_rate_up(cluster: FakeCluster) -> None:
    async with limited(cluster, per_token=0.1) as node:
        with pytest.raises(CSRRejected):
            await node.authority.sign("rubbish", serial(1), "me", lambda: MANAGER)
        with pytest.raises(RateLimitReached):
            await sign(node, 2, caller=MANAGER)


async def test_without_rates_nothing_is_asked_of_a_worker_but_signatures(cluster: FakeCluster) -> None:
    async with limited(cluster) as node:
        del node.worker.calls[:]
        for number in range(1, 6):
            await sign(node, number, caller=MANAGER)
        assert {*node.worker.calls} == {"sign_leaves"}


async def test_where_all_have_to_wait_renewals_come_first_and_second_certificates_last(node: Node) -> None:
    await sign(node, 1, "old")
    node.clock.advance(40 * 3600)  # of 72 hours
    await sign(node, 2, "young")
    await put(node, update({"CSRMaxPerSecond": 8}))
    await sign(node, 3, "other")
    order: list[str] = []

    async def ask(number: int, service: str) -> None:
        order.append(await sign(node, number, service))

    asked = ["young", "young", "new-1", "new-2", "old"]
    await asyncio.gather(*(ask(number, service) for number, service in enumerate(asked, start=10)))
    assert order == ["old", "new-1", "new-2", "young", "young"]


async def test_where_nobody_has_to_wait_the_record_is_not_read(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    async def never(_spiffe_id: str) -> tuple[int, int] | None:
        raise AssertionError("the record was read for nothing")

    monkeypatch.setattr(node.authority, "_newest", never)
    for number in range(1, 4):
        await sign(node, number)
        node.clock.advance(1)
