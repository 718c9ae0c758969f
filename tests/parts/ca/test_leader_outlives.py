"""Nothing that is in the state, and nothing that goes wrong by the way, ends the leader's loop."""

from dataclasses import replace

import pytest

from fsm.commands import Applied, RestoreCA
from fsm.leaves import RecordLeaves
from fsm.state import State
from tests.kit import samples
from tests.kit.fake_cluster import FakeCluster, Node, bootstrapped, put, running, stored_config, update
from tests.kit.wait import until


@pytest.fixture(autouse=True)
def _short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cluster.ca.leader._FIRST_PAUSE_SECONDS", 0.001)
    monkeypatch.setattr("cluster.ca.leader._LONGEST_PAUSE_SECONDS", 0.002)


def _put_in_log(cluster: FakeCluster, saved: State) -> None:
    """As an older release did, which did not look at what it restored."""
    assert isinstance(cluster.commit(RestoreCA(cluster.state.ca_index, saved)), Applied)


@pytest.mark.parametrize("text", ["{", "", "null", "[]", "[" * 5000, '{"LeafCertTTL":1e400}', '{"LeafCertTTL":[]}'])
async def test_configuration_that_is_none_is_trouble_until_another_one_is_put(cluster: FakeCluster, text: str) -> None:
    node = Node(cluster, "a")
    async with running(node):
        await bootstrapped(node)
        good = cluster.state
        assert good.config is not None
        _put_in_log(cluster, replace(good, config=replace(good.config, config_json=text)))
        await until(lambda: node.health.now.trouble)
        failed = node.metrics.ca_duty_failures.labels("adopt")
        before = failed._value.get()
        await until(lambda: failed._value.get() >= before + 2)
        await put(node, update({"LeafCertTTL": "24h"}))
        await until(lambda: node.authority.is_ready and not node.health.now.trouble)
    assert stored_config(cluster.state)["LeafCertTTL"] == "24h"


async def test_sealed_provider_that_does_not_open_is_trouble_until_a_good_state_is_back(cluster: FakeCluster) -> None:
    node = Node(cluster, "a")
    async with running(node):
        await bootstrapped(node)
        good = cluster.state
        [record] = good.providers
        _put_in_log(cluster, replace(good, providers=(replace(record, sealed=b""),)))
        await until(lambda: node.health.now.trouble)
        _put_in_log(cluster, good)
        await until(lambda: node.authority.is_ready and not node.health.now.trouble)


@pytest.mark.parametrize(
    "error", [ValueError("bad"), KeyError("k"), AssertionError(), RecursionError(), MemoryError(), OSError(24, "many")]
)
async def test_duty_that_raises_anything_is_tried_again(
    cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    node = Node(cluster, "a")
    real, left = node.leader._step, [error, error, error]

    async def step(*arguments: object) -> bool:
        if left:
            raise left.pop()
        return await real(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(node.leader, "_step", step)
    async with running(node):
        await bootstrapped(node)
    failed = [fields for name, fields in node.log.events if name == "duty.failed"]
    assert len(failed) == 3
    assert all(type(error).__name__ in fields["reason"] for fields in failed)


async def test_text_of_an_error_that_nobody_foresaw_is_not_shown_to_clients(
    cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may hold anything; the log has it."""
    node = Node(cluster, "a")

    async def step(*_: object) -> bool:
        raise ValueError("what was in it")

    monkeypatch.setattr(node.leader, "_step", step)
    async with running(node):
        cluster.elect("a")
        await until(lambda: node.health.now.trouble)
        assert node.health.now.trouble == "internal error (ValueError): see the leader's log"


async def test_records_of_any_numbers_do_not_end_a_node(cluster: FakeCluster) -> None:
    """From the log of an older release: every number that msgpack can carry."""
    node = Node(cluster, "a")
    async with running(node):
        await bootstrapped(node)
        for number in (-(1 << 63), -1, (1 << 63) - 1, 1 << 63, (1 << 64) - 1):
            bad = samples.record(abs(number) % 1000 + 5, not_after=number, not_before=number, kind=abs(number))
            cluster.commit(RecordLeaves(samples.ISSUER, (bad,)))
        _put_in_log(cluster, replace(cluster.state, tidied_before=(1 << 64) - 1))
        cluster.commit(RecordLeaves(samples.ISSUER, (samples.record(1),)))
        await until(lambda: node.authority.is_ready and not node.authority.is_behind(cluster.state))
