"""PUT configuration on the leader: what is checked, in which order, in whose words, and what it leaves behind."""

import asyncio
import re
from collections.abc import AsyncIterator
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from cluster.api.ca import ConfigUpdate, RotateRequest
from cluster.base.config import ConnectSection
from cluster.base.errors import (
    AnswerLost,
    BadRequest,
    ChangeUnderWay,
    CommitUnknown,
    InternalError,
    LostRace,
    NotLeader,
    NotReady,
    StaleIndex,
)
from cluster.ca.attempts import Attempt
from cluster.ca.changes import BUSY
from fsm.ca import SetConfig, SetRoots
from fsm.commands import Command
from fsm.state import State
from providers.errors import ChainInvalid, ProviderUnavailable
from tests.kit.fake_cluster import FakeCluster, Fate, Node, bootstrapped, put, running, stored_config, update
from tests.kit.keeper import record_in
from tests.kit.wait import until


@pytest.fixture
async def broken(cluster: FakeCluster) -> AsyncIterator[Node]:
    """A leader whose CA cannot come up with what its file says."""
    node = Node(cluster, "a", connect=ConnectSection(ca_config={"leaf_cert_ttl": "1m", "private_key_type": "dsa"}))
    async with running(node):
        cluster.elect("a")
        await until(lambda: node.health.now.trouble)
        yield node


def secrets_of(node: Node) -> dict[str, Any]:
    config = node.cluster.state.config
    assert config is not None
    sealed = node.cluster.state.provider_state(config.provider_id)
    assert sealed is not None
    return dict(record_in(node.cluster.directory, node.cluster.state, sealed).secrets)


def root_key_of(node: Node) -> str:
    """The PEM of the key that the CA holds now: putting it in names what is there already."""
    [provider] = node.worker.host._providers.values()
    key: Any = provider._key  # type: ignore[attr-defined]
    return _pem(key)


def _pem(key: Any) -> str:
    pem: bytes = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return pem.decode()


async def assert_refused(node: Node, wanted: ConfigUpdate, error: type[Exception], text: str, **how: Any) -> None:
    """With this text, no effect on the state, and nothing left in the workers."""
    before, proposed = node.cluster.state, len(node.cluster.proposed)
    configured = set(node.worker.keys)
    with pytest.raises(error, match=f"^{re.escape(text)}$"):
        await put(node, wanted, **how)
    assert node.cluster.state == before
    assert len(node.cluster.proposed) == proposed
    assert node.worker.keys == configured


# -- what takes effect


async def test_change_that_keeps_the_root_is_one_command_and_in_use_at_once(node: Node) -> None:
    root = node.cluster.state.active_root
    await put(node, update({"LeafCertTTL": "24h", "CSRMaxPerSecond": 0}), request_id=b"me")
    state = node.cluster.state
    assert state.active_root == root
    assert state.config is not None
    assert state.config.request_id == b"me"
    assert state.config.modify_index == state.index
    assert stored_config(state) == {"LeafCertTTL": "24h", "CSRMaxPerSecond": 0, "IntermediateCertTTL": "8760h0m0s"}
    assert type(node.cluster.committed[-1]) is SetConfig
    assert node.authority._signing is not None
    assert node.authority._signing.limiter.is_off
    assert node.worker.keys == {state.config.provider_id}


async def test_omitted_keys_go_the_map_is_replaced_as_a_whole(node: Node) -> None:
    await put(node, update({"LeafCertTTL": "24h", "Note": "x"}))
    await put(node, update({"CSRMaxConcurrent": 3}))
    assert stored_config(node.cluster.state) == {"CSRMaxConcurrent": 3, "IntermediateCertTTL": "8760h0m0s"}


async def test_identical_configuration_writes_nothing(node: Node) -> None:
    await put(node, update({"LeafCertTTL": "24h"}))
    before, proposed = node.cluster.state, len(node.cluster.proposed)
    await put(node, update({"IntermediateCertTTL": "8760h0m0s", "LeafCertTTL": "24h"}), request_id=b"2")
    assert node.cluster.state is before
    assert len(node.cluster.proposed) == proposed


async def test_stored_key_of_another_kind_counts_as_cleared(node: Node) -> None:
    """And does not come back with a later change that says nothing of kinds."""
    key, kind = _pem(ec.generate_private_key(ec.SECP384R1())), {"PrivateKeyType": "ec", "PrivateKeyBits": 384}
    await node.reconfigurer.wait_for_rotation(await put(node, update({"PrivateKey": key, **kind})))
    await put(node, update({**kind, "LeafCertTTL": "24h"}))
    assert secrets_of(node) == {"PrivateKey": key}
    node.worker.failures["private_key_fits"] = ProviderUnavailable("gone")
    await assert_refused(
        node, update({"PrivateKeyBits": 256}), InternalError, "error configuring provider: gone", request_id=b"x"
    )
    node.worker.failures.clear()
    await node.reconfigurer.wait_for_rotation(await put(node, update({"PrivateKeyBits": 256})))
    root = node.cluster.state.active_root
    assert not secrets_of(node)
    await put(node, update({"LeafCertTTL": "48h"}))
    assert not secrets_of(node)
    assert node.cluster.state.active_root == root


async def test_force_without_cross_signing_is_stored_with_a_change(node: Node) -> None:
    await put(node, update({"LeafCertTTL": "24h"}, force=True))
    assert node.cluster.state.config is not None
    assert node.cluster.state.config.force_without_cross_signing


async def test_matching_modify_index_and_state_are_accepted(node: Node) -> None:
    await put(node, update({"test_state": {"a": "b"}}))
    config = node.cluster.state.config
    assert config is not None
    assert config.public_state == (("a", "b"),)
    wanted = update({"test_state": {"a": "b"}, "x": 1}, state={"a": "b"}, modify_index=config.modify_index)
    await put(node, wanted)
    assert stored_config(node.cluster.state)["x"] == 1


# -- secrets


async def test_omitted_secret_keeps_its_stored_value(node: Node) -> None:
    pem = root_key_of(node)
    await put(node, update({"PrivateKey": pem}))
    assert secrets_of(node) == {"PrivateKey": pem}
    await put(node, update({"LeafCertTTL": "24h"}))
    assert secrets_of(node) == {"PrivateKey": pem}
    assert "PrivateKey" not in stored_config(node.cluster.state)


async def test_secret_under_another_spelling_replaces_the_stored_one(node: Node) -> None:
    pem = root_key_of(node)
    await put(node, update({"Token": "one"}))
    await put(node, update({"token": "two", "privatekey": pem}))
    assert secrets_of(node) == {"token": "two", "privatekey": pem}


async def test_explicit_empty_secret_clears_the_stored_one(node: Node) -> None:
    await put(node, update({"Token": "one"}))
    await put(node, update({"Token": ""}))
    await put(node, update({"LeafCertTTL": "24h"}))
    assert "Token" not in secrets_of(node)


async def test_change_of_a_secret_alone_is_a_change(node: Node) -> None:
    await put(node, update({"Token": "one"}))
    before = node.cluster.state.index
    await put(node, update({"Token": "two"}))
    assert node.cluster.state.index == before + 1


async def test_no_secret_is_logged_or_shown(node: Node) -> None:
    wanted = update({"Token": "very-secret", "LeafCertTTL": "24h"})
    await put(node, wanted)
    assert "very-secret" not in repr(node.log.events) + repr(wanted) + repr(node.cluster.state)


# -- refusals, in the order in which they are looked for


async def test_state_that_is_not_the_stored_one_is_refused_first(node: Node) -> None:
    text = "Provider State is read-only. It must be omitted or identical to the current value"
    await assert_refused(node, update(provider="nope", state={"a": "b"}, modify_index=999), BadRequest, text)


@pytest.mark.parametrize("step", [-1, 1000])
async def test_stale_or_future_index_is_refused_with_the_current_one(node: Node, step: int) -> None:
    config = node.cluster.state.config
    assert config is not None
    given = config.modify_index + step
    text = f"ModifyIndex {given} is not the current one: the configuration is at {config.modify_index}"
    await assert_refused(node, update(provider="nope", modify_index=given), StaleIndex, text)


async def test_stale_index_of_an_identical_configuration_is_refused_too(node: Node) -> None:
    await put(node, update({"LeafCertTTL": "24h"}))
    with pytest.raises(StaleIndex):
        await put(node, update({"LeafCertTTL": "24h"}, modify_index=1))


async def test_unknown_provider_is_refused(node: Node) -> None:
    text = 'could not initialize provider: unknown CA provider "nope"'
    await assert_refused(node, update(provider="nope"), InternalError, text)


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        ({"LeafCertTTL": "1m"}, "leaf cert TTL must be greater or equal than 1h0m0s"),
        ({"PrivateKeyType": "dsa"}, "private key type must be either 'ec' or 'rsa'"),
        ({"RootCert": "x"}, "must provide a private key when providing a root cert"),
    ],
)
async def test_configuration_that_breaks_a_rule_is_refused_in_the_providers_words(
    node: Node, config: dict[str, object], reason: str
) -> None:
    await assert_refused(node, update(config), InternalError, f"error configuring provider: {reason}")


async def test_change_that_does_not_get_its_turn_in_time_is_refused(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cluster.ca.changes._WRITER_SECONDS", 0.05)
    async with node.changes.turn("RECONFIGURING", is_duty=True):
        await assert_refused(node, update(), ChangeUnderWay, BUSY.format("RECONFIGURING"))


async def test_before_there_is_a_configuration_the_reason_is_given(cluster: FakeCluster) -> None:
    node = Node(cluster, "a")
    cluster.elect("a")
    await assert_refused(node, update(), NotReady, "CA has not finished initializing: no configuration yet")
    node.ledger.close()


@pytest.mark.parametrize("operation", ["configure", "prepare_root"])
async def test_candidate_is_forgotten_when_the_backend_fails(broken: Node, operation: str) -> None:
    broken.worker.failures[operation] = ProviderUnavailable("backend is down")
    before = broken.cluster.state
    with pytest.raises(InternalError, match="backend is down"):
        await put(broken, update())
    assert broken.cluster.state is before
    assert not [key for key in broken.worker.keys if key.startswith("candidate")]


async def test_candidate_is_forgotten_when_a_worker_fails_in_an_unexpected_way(node: Node) -> None:
    configured = set(node.worker.keys)
    node.worker.failures_behind["configure"] = InternalError("KeyError in a worker")
    with pytest.raises(InternalError, match="KeyError in a worker"):
        await put(node, update({"LeafCertTTL": "24h"}))
    assert node.worker.keys == configured


async def test_candidate_is_forgotten_when_the_client_goes_away(node: Node) -> None:
    configured = set(node.worker.keys)
    node.worker.held.add("configure")
    request = asyncio.ensure_future(put(node, update({"LeafCertTTL": "24h"})))
    await until(lambda: node.worker.calls[-1] == "configure")
    request.cancel()
    await asyncio.gather(request, return_exceptions=True)
    node.worker.gate.set()
    assert node.worker.keys == configured
    node.worker.held.clear()
    await put(node, update({"LeafCertTTL": "24h"}))


# -- races and repetitions


async def test_write_between_reading_and_committing_is_a_lost_race(node: Node) -> None:
    earlier = Attempt(b"1", node.cluster.state.ca_index, is_repeat=False)
    await put(node, update({"LeafCertTTL": "24h"}), request_id=b"2")
    before = node.cluster.state
    with pytest.raises(InternalError, match=r"^could not atomically update roots and config$"):
        await node.reconfigurer.apply(update({"LeafCertTTL": "48h"}), earlier)
    assert node.cluster.state is before
    assert not [key for key in node.worker.keys if key.startswith("candidate")]


def _own_work(cluster: FakeCluster) -> None:
    """What pruning or a renewal leaves behind for others: another index, and the same configuration."""
    state = cluster.state
    cluster.commit(SetRoots(state.ca_index, state.roots, state.providers))


@pytest.mark.parametrize("is_repeat", [False, True])
@pytest.mark.parametrize("config", [{"LeafCertTTL": "24h"}, {"PrivateKeyBits": 384}], ids=["same root", "rotation"])
async def test_leaders_own_work_between_reading_and_committing_is_no_lost_race(
    node: Node, config: dict[str, object], is_repeat: bool
) -> None:
    attempt = Attempt(b"1", node.cluster.state.ca_index, is_repeat=is_repeat)
    _own_work(node.cluster)
    rotation_id = await node.reconfigurer.apply(update(config), attempt)
    await node.reconfigurer.wait_for_rotation(rotation_id)
    assert stored_config(node.cluster.state).items() >= config.items()


async def test_leaders_own_work_that_is_done_late_is_no_lost_race(node: Node) -> None:
    """A duty whose outcome was unknown: it is committed just before the write, which is made once more."""
    late = [_own_work]

    def decide(command: Command) -> Fate:
        if late and isinstance(command, SetConfig):
            late.pop()(node.cluster)
        return Fate.COMMITTED

    node.cluster.on_propose = decide
    await put(node, update({"LeafCertTTL": "24h"}, modify_index=_modify_index(node.cluster.state)))
    assert stored_config(node.cluster.state)["LeafCertTTL"] == "24h"
    assert [type(command) for command in node.cluster.proposed].count(SetConfig) == 2


async def test_write_that_loses_race_after_race_is_tried_once_more_only(node: Node) -> None:
    def decide(command: Command) -> Fate:
        if isinstance(command, SetConfig):
            _own_work(node.cluster)
        return Fate.COMMITTED

    node.cluster.on_propose = decide
    with pytest.raises(LostRace):
        await put(node, update({"LeafCertTTL": "24h"}))
    assert [type(command) for command in node.cluster.proposed].count(SetConfig) == 2


async def test_repetition_behind_a_rotation_that_was_given_up_is_not_made_again(node: Node) -> None:
    """That may have been its first sending: the configuration does not show it."""
    attempt = Attempt(b"1", node.cluster.state.ca_index, is_repeat=True)
    for request_id in (b"1", b"2"):
        node.worker.failures["generate_root"] = ChainInvalid("no")
        await put(node, update({"PrivateKeyBits": 384}), request_id=request_id)
        await until(lambda: node.cluster.state.rotation is None)
    with pytest.raises(AnswerLost):
        await node.reconfigurer.apply(update({"PrivateKeyBits": 384}), attempt)


async def test_repeated_write_that_took_effect_is_recognised(node: Node) -> None:
    attempt = Attempt(b"1", node.cluster.state.ca_index, is_repeat=False)
    wanted = update({"LeafCertTTL": "24h"}, modify_index=_modify_index(node.cluster.state))
    await node.reconfigurer.apply(wanted, attempt)
    before = node.cluster.state
    await node.reconfigurer.apply(wanted, Attempt(b"1", attempt.ca_index, is_repeat=True))
    assert node.cluster.state is before


async def test_repeated_write_that_took_no_effect_is_made_now(node: Node) -> None:
    await put(node, update({"LeafCertTTL": "24h"}), is_repeat=True)
    assert stored_config(node.cluster.state)["LeafCertTTL"] == "24h"


async def test_repeated_write_behind_another_writers_is_not_made_again(node: Node) -> None:
    first = Attempt(b"1", node.cluster.state.ca_index, is_repeat=False)
    await node.reconfigurer.apply(update({"LeafCertTTL": "24h"}), first)
    await put(node, update({"LeafCertTTL": "48h"}), request_id=b"2")
    before = node.cluster.state
    with pytest.raises(AnswerLost, match="the configuration has changed since: read it"):
        await node.reconfigurer.apply(update({"LeafCertTTL": "24h"}), Attempt(b"1", first.ca_index, is_repeat=True))
    assert node.cluster.state is before


async def test_repeated_write_that_meets_another_change_is_unknown(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its first sending may be done, or be that change: it must not be called refused."""
    monkeypatch.setattr("cluster.ca.changes._WRITER_SECONDS", 0.05)
    async with node.changes.turn("RECONFIGURING", is_duty=True):
        text = f"{BUSY.format('RECONFIGURING')}; it may have taken effect"
        await assert_refused(node, update(), CommitUnknown, text, is_repeat=True)


async def test_leader_behind_the_state_that_the_request_has_seen_judges_nothing(node: Node) -> None:
    """A deposed leader that does not know it yet must not answer from its old state."""
    attempt = Attempt(b"1", node.cluster.state.ca_index + 1, is_repeat=False)
    for wanted in (update(stored_config(node.cluster.state)), update(modify_index=1), update(provider="nope")):  # type: ignore[arg-type]
        with pytest.raises(NotLeader):
            await node.reconfigurer.apply(wanted, attempt)
    with pytest.raises(NotLeader):
        await node.operator_rotation.rotate(RotateRequest(), attempt)


async def test_leader_lost_behind_the_commit_leaves_no_keys_on_the_old_one(node: Node) -> None:
    node.cluster.on_propose = lambda _command: Fate.LOST_AFTER
    with pytest.raises(CommitUnknown):
        await put(node, update({"LeafCertTTL": "24h"}))
    await until(lambda: not node.authority.is_ready and not node.worker.keys)


async def test_node_that_has_lost_leadership_behind_its_commit_takes_nothing_into_use(cluster: FakeCluster) -> None:
    node = Node(cluster, "a")
    async with running(node):
        await bootstrapped(node)
    await node.authority.drop()  # as its leader loop does

    def decide(_command: Command) -> Fate:
        cluster.elect("b")
        return Fate.COMMITTED

    node.cluster.elect("a")
    node.pool.admit()
    node.sealer.unlock(cluster.state.seal)  # type: ignore[arg-type]
    await node.authority.configure(node.parts.opener.stored(cluster.state))
    cluster.on_propose = decide
    await put(node, update({"LeafCertTTL": "24h"}))
    assert not node.authority.is_ready


async def test_write_that_is_committed_is_done_even_if_taking_it_into_use_fails(node: Node) -> None:
    """The leader's loop tries again; an error here would say that the write had no effect."""

    def decide(_command: Command) -> Fate:
        node.worker.failures["configure"] = ProviderUnavailable("the signing process ended")
        return Fate.COMMITTED

    node.cluster.on_propose = decide
    await put(node, update({"LeafCertTTL": "24h"}))
    assert stored_config(node.cluster.state)["LeafCertTTL"] == "24h"


# -- repair


async def test_usable_configuration_repairs_a_ca_that_never_came_up(broken: Node) -> None:
    assert broken.health.now.trouble == "error configuring provider: leaf cert TTL must be greater or equal than 1h0m0s"
    before = broken.cluster.state
    await put(broken, update({"LeafCertTTL": "24h"}))
    await broken.reconfigurer.wait_for_root()
    await until(lambda: broken.authority.is_ready)
    state = broken.cluster.state
    assert broken.health.now.trouble == ""
    assert state.config is not None
    assert before.config is not None
    assert state.config.cluster_id == before.config.cluster_id
    assert [record.provider_id for record in state.providers] == [state.config.provider_id]
    assert len(state.roots) == 1
    assert broken.worker.keys == {state.config.provider_id}


async def test_repair_that_fails_too_is_reported_as_soon_as_it_is_known(broken: Node) -> None:
    broken.worker.failures["generate_root"] = ProviderUnavailable("backend is down")
    await put(broken, update({"LeafCertTTL": "24h"}))
    with pytest.raises(InternalError, match=r"^backend is down$"):
        await broken.reconfigurer.wait_for_root()


async def test_repair_whose_leader_is_lost_is_unknown_until_it_is_sent_again(broken: Node) -> None:
    broken.worker.held.add("generate_root")
    await put(broken, update({"LeafCertTTL": "24h"}))
    waiting = asyncio.ensure_future(broken.reconfigurer.wait_for_root())
    await until(lambda: "generate_root" in broken.worker.calls)
    assert not waiting.done()
    broken.cluster.elect("b")
    with pytest.raises(CommitUnknown, match="the configuration is stored"):
        await waiting
    broken.worker.gate.set()


def _modify_index(state: State) -> int:
    assert state.config is not None
    return state.config.modify_index
