"""Changing the root: every step can be the leader's last, and no client that trusts a listed root is ever left out."""

import asyncio
import json
from collections.abc import AsyncIterator, Iterable
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from cluster.api.ca import RotateRequest
from cluster.base.clock import rfc3339
from cluster.base.errors import AnswerLost, CommitUnknown, InternalError, NotLeader, Refused
from cluster.base.telemetry import Metrics
from cluster.ca.chain_limits import MAX_CHAIN_LINKS
from cluster.ca.rotation import NO_CROSS_SIGNING, retention_seconds
from cluster.node.start import _publish
from cluster.signing.serials import new_serial
from fsm.ca import AbortRotation, AdvanceRotation, BeginRotation, CARoot, FinishRotation, SetRoots
from fsm.commands import Command
from fsm.links import links_of
from providers.errors import ChainInvalid, NotInitialized, ProviderUnavailable
from providers.pki import keys, verify
from providers.pki.serials import serial_bytes
from tests.kit.callers import anybody
from tests.kit.fake_cluster import FakeCluster, Fate, Node, bootstrapped, put, running, update
from tests.kit.keeper import record_in
from tests.kit.wait import until

KINDS: list[dict[str, object]] = [
    {"PrivateKeyBits": 384},
    {"PrivateKeyBits": 521},
    {"PrivateKeyType": "rsa", "PrivateKeyBits": 2048},
    {"PrivateKeyBits": 256},
]
#: The commands of one rotation, in order.
STEPS: list[type] = [BeginRotation, AdvanceRotation, AdvanceRotation, FinishRotation]


@pytest.fixture(autouse=True)
def _short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cluster.ca.leader._FIRST_PAUSE_SECONDS", 0.001)


@pytest.fixture
async def nodes(cluster: FakeCluster) -> AsyncIterator[list[Node]]:
    """Three nodes; the first leads, and its CA is up."""
    nodes = [Node(cluster, name) for name in "abc"]
    async with running(*nodes):
        await bootstrapped(nodes[0])
        yield nodes


@pytest.fixture
def node(nodes: list[Node]) -> Node:
    return nodes[0]


async def rotate(node: Node, config: dict[str, object], **changes: Any) -> CARoot:
    """PUT, and wait as the API does; the new active root."""
    rotation_id = await put(node, update(config, **changes))
    assert rotation_id
    await node.reconfigurer.wait_for_rotation(rotation_id)
    root = node.cluster.state.active_root
    assert root is not None
    return root


async def leaf_chain(node: Node) -> str:
    """What a client gets when it has a leaf signed now."""
    csr_pem, _ = await node.pool.make_csr(
        f"spiffe://{node.cluster.state.trust_domain}/ns/default/dc/dc1/svc/web", (), ()
    )
    await until(lambda: node.authority.is_ready and not node.authority.is_behind(node.cluster.state))
    return (await node.authority.sign(csr_pem, serial_bytes(new_serial()), "test", anybody)).cert_pem


def assert_all_trust(node: Node, chain_pem: str, roots: Iterable[CARoot]) -> None:
    stores = {root.root_id: [root.root_pem] for root in roots}
    verify.verify_leaf(chain_pem, stores, now=int(node.clock.now()))


def kinds(commands: list[Command]) -> list[type]:
    return [type(command) for command in commands]


async def test_several_rotations_in_one_leaf_lifetime_lead_back_to_every_listed_root(node: Node) -> None:
    seen = list(node.cluster.state.roots)
    for config in KINDS:
        seen.append(await rotate(node, config))
        assert {root.root_id for root in node.cluster.state.roots} == {root.root_id for root in seen}
        assert_all_trust(node, await leaf_chain(node), node.cluster.state.roots)
    active = node.cluster.state.active_root
    assert active is not None
    assert len(links_of(active)) == len(KINDS)


async def test_leaves_issued_before_stay_valid_for_clients_with_the_new_bundle(node: Node) -> None:
    before = await leaf_chain(node)
    await rotate(node, {"PrivateKeyBits": 384})
    pems = [root.root_pem for root in node.cluster.state.roots]
    verify.verify_leaf(before, {"all": pems}, now=int(node.clock.now()))


async def test_without_cross_signing_clients_of_the_old_root_are_left_out(node: Node) -> None:
    """What the check above must be able to notice."""
    old = node.cluster.state.active_root
    assert old is not None
    new = await rotate(node, {"PrivateKeyBits": 384}, force=True)
    assert new.intermediates == ()
    chain = await leaf_chain(node)
    assert_all_trust(node, chain, (new,))
    with pytest.raises(ChainInvalid):
        assert_all_trust(node, chain, (old,))
    assert node.cluster.state.last_rotation is not None
    assert node.cluster.state.last_rotation.is_forced


async def test_rotation_is_four_commands_and_the_old_key_stays_until_the_root_is_pruned(node: Node) -> None:
    first = len(node.cluster.committed)
    old = node.cluster.state.config
    assert old is not None
    await rotate(node, {"PrivateKeyBits": 384})
    assert kinds(node.cluster.committed[first:]) == STEPS
    assert node.cluster.state.provider_state(old.provider_id) is not None


@pytest.mark.parametrize("fate", [Fate.LOST_BEFORE, Fate.LOST_AFTER, Fate.UNKNOWN])
@pytest.mark.parametrize("position", range(len(STEPS)))
async def test_leader_lost_at_any_step_is_continued_by_the_next(nodes: list[Node], position: int, fate: Fate) -> None:
    cluster = nodes[0].cluster
    first, count = len(cluster.committed), 0

    def decide(command: Command) -> Fate:
        nonlocal count
        count += 1
        return fate if count == position + 1 else Fate.COMMITTED

    cluster.on_propose = decide
    before = cluster.state
    attempt_id = b"rotate"
    try:
        rotation_id = await put(nodes[0], update({"PrivateKeyBits": 384}), request_id=attempt_id)
        await nodes[0].reconfigurer.wait_for_rotation(rotation_id)
    except (CommitUnknown, InternalError):
        leader = next(node for node in nodes if node.name == cluster.leader)
        rotation_id = await put(
            leader, update({"PrivateKeyBits": 384}), request_id=attempt_id, ca_index=before.ca_index, is_repeat=True
        )
        if rotation_id:
            await until(lambda: cluster.state.rotation is None)
    await until(lambda: cluster.state.rotation is None)
    assert kinds(cluster.committed[first:]) == STEPS
    assert [root.is_active for root in cluster.state.roots].count(True) == 1
    assert len(cluster.state.roots) == 2
    leader = next(node for node in nodes if node.name == cluster.leader)
    await until(lambda: leader.authority.is_ready)
    assert_all_trust(leader, await leaf_chain(leader), cluster.state.roots)


async def test_root_made_again_after_a_crash_is_the_same(nodes: list[Node]) -> None:
    cluster = nodes[0].cluster
    lost = [AdvanceRotation]

    def decide(command: Command) -> Fate:
        if lost and type(command) is lost[0]:
            lost.clear()
            return Fate.LOST_BEFORE
        return Fate.COMMITTED

    cluster.on_propose = decide
    await put(nodes[0], update({"PrivateKeyBits": 384}))
    await until(lambda: cluster.state.last_rotation is not None)
    first, second, *_ = [command for command in cluster.proposed if isinstance(command, AdvanceRotation)]
    assert first.rotation.root == second.rotation.root


@pytest.mark.parametrize("operation", ["generate_root", "cross_sign"])
async def test_step_that_fails_for_good_leaves_everything_as_it_was(node: Node, operation: str) -> None:
    before = node.cluster.state
    node.worker.failures[operation] = ChainInvalid("the chain is bad")
    rotation_id = await put(node, update({"PrivateKeyBits": 384}))
    with pytest.raises(InternalError, match="the chain is bad"):
        await node.reconfigurer.wait_for_rotation(rotation_id)
    after = node.cluster.state
    assert (after.roots, after.config, after.providers) == (before.roots, before.config, before.providers)
    assert type(node.cluster.committed[-1]) is AbortRotation
    assert rotation_id not in node.worker.keys
    node.worker.failures.clear()
    await rotate(node, {"PrivateKeyBits": 384})


def other_root(node: Node, cluster_id: str) -> Any:
    """Of a provider that is no part of the cluster, as the workers pack what it generates."""
    host = node.worker.host
    host.configure("other", "consul", cluster_id, "dc1", True, json.dumps({"PrivateKeyBits": 384}), {}, b"")
    host.prepare_root("other", serial_bytes(new_serial()), "other", int(node.clock.now()))
    return host.generate_root("other")


async def test_root_of_another_mesh_is_not_taken(node: Node) -> None:
    before, first = node.cluster.state, len(node.cluster.committed)
    generated = other_root(node, "11111111-2222-3333-4444-555555555555")
    node.worker.host.operations["generate_root"] = lambda _key: generated
    rotation_id = await put(node, update({"PrivateKeyBits": 384}))
    with pytest.raises(InternalError):
        await node.reconfigurer.wait_for_rotation(rotation_id)
    assert kinds(node.cluster.committed[first:]) == [BeginRotation, AbortRotation]
    assert node.cluster.state.roots == before.roots


async def test_link_that_does_not_verify_ends_the_rotation(node: Node) -> None:
    before = node.cluster.state
    assert before.config is not None
    [wrong, *_], _ = other_root(node, before.config.cluster_id)
    host = node.worker.host
    host.operations["cross_sign"] = lambda key, _pem, *others: host.cross_sign(key, wrong, *others)
    rotation_id = await put(node, update({"PrivateKeyBits": 384}))
    with pytest.raises(InternalError):
        await node.reconfigurer.wait_for_rotation(rotation_id)
    assert node.cluster.state.roots == before.roots
    assert node.cluster.state.config == before.config


async def test_expired_root_need_not_be_able_to_cross_sign(node: Node) -> None:
    await put(node, update({"DisableCrossSigning": True}))
    node.clock.advance(3651 * 86_400)
    new = await rotate(node, {"DisableCrossSigning": True, "PrivateKeyBits": 384})
    assert new.intermediates == ()


async def test_provider_that_does_not_answer_is_asked_again_and_then_given_up(node: Node) -> None:
    node.worker.failures["generate_root"] = ProviderUnavailable("it is down")
    await put(node, update({"PrivateKeyBits": 384}))
    await until(lambda: node.health.now.trouble == "it is down")
    assert node.cluster.state.rotation is not None
    node.clock.advance(61)
    await until(lambda: node.cluster.state.rotation is None)
    assert node.cluster.state.last_rotation is not None
    assert node.cluster.state.last_rotation.reason == "it is down"
    await until(lambda: node.health.now.trouble == "")


async def test_rotation_is_given_up_however_much_its_provider_has_to_say(node: Node) -> None:
    """Text that no log entry could hold, and characters that none may."""
    node.worker.failures["generate_root"] = ProviderUnavailable("nul \0 and \ud800 " + "garbage " * 100_000)
    await put(node, update({"PrivateKeyBits": 384}))
    await until(lambda: node.health.now.trouble)
    node.clock.advance(61)
    await until(lambda: node.cluster.state.rotation is None)
    assert node.cluster.state.last_rotation is not None
    assert node.cluster.state.last_rotation.reason.startswith("nul  and ? garbage ")


async def test_provider_without_cross_signing_is_refused_in_consuls_words_unless_forced(node: Node) -> None:
    rotation_id = await put(node, update({"DisableCrossSigning": True}))
    assert rotation_id == ""
    before = node.cluster.state
    config: dict[str, object] = {"DisableCrossSigning": True, "PrivateKeyBits": 384}
    with pytest.raises(InternalError, match=NO_CROSS_SIGNING[:50]):
        await put(node, update(config))
    assert node.cluster.state is before
    await rotate(node, config, force=True)


async def test_expired_root_is_replaced_without_cross_signing(node: Node) -> None:
    old = node.cluster.state.active_root
    assert old is not None
    node.clock.advance(3651 * 86_400)
    new = await rotate(node, {"PrivateKeyBits": 384})
    assert new.intermediates == ()
    assert "rotation.old_root_expired" in node.log.names()
    assert_all_trust(node, await leaf_chain(node), (new,))


async def test_root_that_expired_a_moment_ago_is_not_asked_for_by_the_check(node: Node) -> None:
    """Within its last second it is over for who compares fractions, and not for who does not."""
    old = node.cluster.state.active_root
    assert old is not None
    node.clock.advance(old.not_after + 0.5 - node.clock.now())
    await rotate(node, {"PrivateKeyBits": 384})


async def test_plan_that_is_asked_while_leadership_ends_is_for_the_next_leader(nodes: list[Node]) -> None:
    old = nodes[0]
    old.worker.held = {"supports_cross_signing"}
    plan = asyncio.ensure_future(old.operator_rotation.plan(RotateRequest()))
    await until(lambda: "supports_cross_signing" in old.worker.calls)
    old.cluster.elect("b")
    await until(lambda: "leader.lost" in old.log.names())
    old.worker.gate.set()
    with pytest.raises(NotLeader):
        await plan


async def test_leader_without_its_keys_says_so(node: Node) -> None:
    node.worker.failures["supports_cross_signing"] = NotInitialized("provider not initialized")
    with pytest.raises(NotInitialized):
        await node.operator_rotation.plan(RotateRequest())


async def test_provider_that_answers_with_the_active_root_ends_the_rotation(node: Node) -> None:
    """As one does that keeps its root in a backend: to ask it again would bring the same root for ever."""
    before = node.cluster.state
    assert before.active_root is not None
    assert before.config is not None
    held = node.worker.host.generate_root(before.config.provider_id)
    node.worker.host.operations["generate_root"] = lambda _key: held
    rotation_id = await put(node, update({"PrivateKeyBits": 384}))
    with pytest.raises(InternalError, match="the root that is active already"):
        await node.reconfigurer.wait_for_rotation(rotation_id)
    assert node.cluster.state.roots == before.roots
    assert node.cluster.state.config == before.config


async def test_a_second_change_meanwhile_waits_for_the_end_of_the_first(node: Node) -> None:
    node.worker.held.add("generate_root")
    first = await put(node, update({"PrivateKeyBits": 384}))
    await until(lambda: "generate_root" in node.worker.calls)
    second = asyncio.ensure_future(put(node, update({"PrivateKeyBits": 521}), request_id=b"2"))
    await asyncio.sleep(0.01)
    assert not second.done()
    node.worker.held.clear()
    node.worker.gate.set()
    await node.reconfigurer.wait_for_rotation(await second)
    last = node.cluster.state.last_rotation
    assert last is not None
    assert last.rotation_id != first
    assert node.cluster.state.active_root is not None
    assert node.cluster.state.active_root.private_key_bits == 521


async def test_stale_author_changes_nothing(node: Node) -> None:
    stale = node.cluster.state.ca_index - 1
    with pytest.raises(InternalError, match="could not atomically update roots and config"):
        await put(node, update({"PrivateKeyBits": 384}), ca_index=stale)
    with pytest.raises(AnswerLost):
        await put(node, update({"PrivateKeyBits": 384}), ca_index=stale, is_repeat=True)


# -- the end of a root


async def test_retention_comes_from_the_largest_ttl_while_active_and_is_fixed(node: Node) -> None:
    await put(node, update({"LeafCertTTL": "240h", "IntermediateCertTTL": "8760h"}))
    await put(node, update({"LeafCertTTL": "2h"}))
    await rotate(node, {"LeafCertTTL": "2h", "PrivateKeyBits": 384})
    [retired] = [root for root in node.cluster.state.roots if root.is_retired]
    assert retired.prune_at - retired.rotated_out_at == 2 * 240 * 3600
    await put(node, update({"LeafCertTTL": "1h", "PrivateKeyBits": 384}))
    assert [root.prune_at for root in node.cluster.state.roots if root.is_retired] == [retired.prune_at]


def test_retention_is_never_zero(node: Node) -> None:
    config, root = node.cluster.state.config, node.cluster.state.active_root
    assert config is not None
    assert root is not None
    none = replace(root, leaf_ttl_max_seconds=0)
    assert retention_seconds(none, replace(config, leaf_ttl_seconds=0)) > 0


async def test_retired_root_is_listed_until_its_retention_ends_and_gone_after_it(node: Node) -> None:
    old = node.cluster.state.config
    assert old is not None
    await rotate(node, {"PrivateKeyBits": 384})
    [retired] = [root for root in node.cluster.state.roots if root.is_retired]
    node.clock.advance(retired.prune_at - node.clock.now() - 1)
    await look_again(node)
    assert len(node.cluster.state.roots) == 2
    node.clock.advance(1)
    await look_again(node)
    await until(lambda: len(node.cluster.state.roots) == 1)
    active = node.cluster.state.active_root
    assert active is not None
    assert links_of(active) == ()
    assert node.cluster.state.provider_state(old.provider_id) is None
    assert_all_trust(node, await leaf_chain(node), node.cluster.state.roots)


async def look_again(node: Node) -> None:
    """Have the leader look for what time has brought, and do it: by elections that it wins. Its second look begins once
    the first one is over.
    """
    for _ in range(2):
        node.clock.advance(0.001)
        node.cluster.elect(node.name)
        await until(lambda: node.leader.last_look == node.clock.monotonic())


@pytest.mark.parametrize("fate", [Fate.LOST_BEFORE, Fate.LOST_AFTER, Fate.UNKNOWN])
async def test_leader_lost_while_pruning_is_continued_by_the_next(nodes: list[Node], fate: Fate) -> None:
    node, cluster = nodes[0], nodes[0].cluster
    await rotate(node, {"PrivateKeyBits": 384})
    lost = [SetRoots]

    def decide(command: Command) -> Fate:
        if lost and type(command) is lost[0]:
            lost.clear()
            return fate
        return Fate.COMMITTED

    cluster.on_propose = decide
    for other in nodes:
        other.clock.advance(400 * 86_400)
    cluster.elect(node.name)
    await until(lambda: len(cluster.state.roots) == 1)
    assert not lost
    assert kinds(cluster.committed).count(SetRoots) == 1


async def test_middle_root_that_goes_first_leaves_the_path_to_the_oldest(node: Node) -> None:
    """Its retention may be shorter than that of the root before it; the links through it are still needed."""
    await put(node, update({"LeafCertTTL": "2000h", "IntermediateCertTTL": "8760h"}))
    await rotate(node, {"LeafCertTTL": "1h", "PrivateKeyBits": 384})
    await rotate(node, {"LeafCertTTL": "1h", "PrivateKeyBits": 521})
    node.clock.advance(4 * 3600)
    await look_again(node)
    await until(lambda: len(node.cluster.state.roots) == 2)
    active = node.cluster.state.active_root
    assert active is not None
    assert len(links_of(active)) == 2
    assert_all_trust(node, await leaf_chain(node), node.cluster.state.roots)


async def test_chain_that_would_become_too_long_is_refused_with_the_date(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cluster.ca.chain_limits.MAX_CHAIN_BYTES", 7500)
    await rotate(node, {"PrivateKeyBits": 384})
    await rotate(node, {"PrivateKeyBits": 521})
    before = node.cluster.state
    with pytest.raises(Refused, match=r"possible from \d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ on"):
        await put(node, update({"PrivateKeyBits": 256}))
    assert node.cluster.state is before
    await rotate(node, {"PrivateKeyBits": 256}, force=True)


async def test_chain_deeper_than_verifiers_follow_is_refused_with_the_date(node: Node) -> None:
    """And not begun, to be given up at the end; once the oldest root is gone it is possible."""
    oldest = node.cluster.state.active_root
    assert oldest is not None
    for number in range(MAX_CHAIN_LINKS):
        await rotate(node, {"PrivateKeyBits": (384, 256)[number % 2]})
        node.clock.advance(1)
    assert_all_trust(node, await leaf_chain(node), node.cluster.state.roots)
    before = node.cluster.state
    with pytest.raises(Refused, match=r"possible from (\S+) on") as refused:
        await put(node, update({"PrivateKeyBits": 384}))
    assert node.cluster.state is before
    (retired,) = [root for root in before.roots if root.root_id == oldest.root_id]
    date = datetime.fromtimestamp(retired.prune_at, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    assert date in str(refused.value)
    node.clock.advance(retired.prune_at - node.clock.now())
    await look_again(node)
    await until(lambda: len(node.cluster.state.roots) == len(before.roots) - 1)
    await rotate(node, {"PrivateKeyBits": 384})
    assert_all_trust(node, await leaf_chain(node), node.cluster.state.roots)


async def test_cluster_whose_chains_are_longer_already_goes_on_and_rotates_again_once_they_fit(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the release before left it, which allowed eight certificates."""
    with monkeypatch.context() as before_now:
        before_now.setattr("cluster.ca.chain_limits.MAX_CHAIN_LINKS", 8)
        for number in range(8):
            await rotate(node, {"PrivateKeyBits": (384, 256)[number % 2]})
            node.clock.advance(1)
    state = node.cluster.state
    assert_all_trust(node, await leaf_chain(node), state.roots)
    assert await put(node, update({"PrivateKeyBits": 256, "LeafCertTTL": "71h"}), request_id=b"2") == ""
    assert_all_trust(node, await leaf_chain(node), state.roots)
    with pytest.raises(
        Refused, match=r"9 certificates between leaf and root.* more than \d+ or 6: possible from"
    ) as no:
        await put(node, update({"PrivateKeyBits": 384}), request_id=b"3")
    with pytest.raises(Refused, match=r"9 certificates between leaf and root"):
        await node.operator_rotation.plan(RotateRequest())
    retired = sorted(root.prune_at for root in node.cluster.state.roots if root.is_retired)
    assert rfc3339(retired[2]) in str(no.value)
    node.clock.advance(retired[2] - node.clock.now())
    await look_again(node)
    await until(lambda: len(node.cluster.state.roots) == 6)
    await rotate(node, {"PrivateKeyBits": 384})
    active = node.cluster.state.active_root
    assert active is not None
    assert len(active.intermediates) == 6
    assert_all_trust(node, await leaf_chain(node), node.cluster.state.roots)


async def test_rotation_that_begins_by_itself_is_given_up_rather_than_lead_to_a_chain_too_long(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    await put(node, update({"AutoRotateRoot": True}))
    await rotate(node, {"AutoRotateRoot": True, "PrivateKeyBits": 384})
    old = node.cluster.state.active_root
    assert old is not None
    monkeypatch.setattr("cluster.ca.chain_limits.MAX_CHAIN_LINKS", 0)
    node.clock.advance(0.81 * (old.not_after - old.not_before))
    await look_again(node)
    await until(lambda: bool(node.cluster.state.last_rotation and node.cluster.state.last_rotation.reason))
    assert node.cluster.state.last_rotation is not None
    assert "1 certificates between leaf and root, more than 0" in node.cluster.state.last_rotation.reason
    assert node.cluster.state.active_root is not None
    assert node.cluster.state.active_root.root_id == old.root_id


# -- secrets, staged, automatic


async def test_operators_key_that_does_not_fit_the_new_kind_is_forgotten(node: Node) -> None:
    await rotate(node, {"PrivateKey": new_key_pem()})
    await rotate(node, {"PrivateKeyBits": 384})
    assert secrets_of(node) == {}


def new_key_pem() -> str:
    key = keys.generate(keys.KeyKind("ec", 256))
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()


def secrets_of(node: Node) -> dict[str, Any]:
    config = node.cluster.state.config
    assert config is not None
    sealed = node.cluster.state.provider_state(config.provider_id)
    assert sealed is not None
    return dict(record_in(node.cluster.directory, node.cluster.state, sealed).secrets)


async def test_staged_rotation_publishes_first_and_signs_later(node: Node) -> None:
    old = node.cluster.state.active_root
    assert old is not None
    rotation_id = await put(node, update({"PrivateKeyBits": 384}, is_staged=True, wait_seconds=600))
    await node.reconfigurer.wait_for_rotation(rotation_id)
    state = node.cluster.state
    assert [root.is_active for root in state.roots].count(True) == 1
    assert state.active_root is not None
    assert state.active_root.root_id == old.root_id
    assert len(state.roots) == 2
    assert_all_trust(node, await leaf_chain(node), (old,))
    node.clock.advance(600)
    await look_again(node)
    await until(lambda: node.cluster.state.rotation is None)
    assert_all_trust(node, await leaf_chain(node), node.cluster.state.roots)


async def test_root_near_its_end_is_rotated_by_itself_if_asked_for(node: Node) -> None:
    await put(node, update({"AutoRotateRoot": True}))
    old = node.cluster.state.active_root
    assert old is not None
    node.clock.advance(0.79 * (old.not_after - old.not_before))
    await look_again(node)
    assert BeginRotation not in kinds(node.cluster.committed)
    node.clock.advance(0.02 * (old.not_after - old.not_before))
    await look_again(node)
    await until(lambda: node.cluster.state.last_rotation is not None)
    assert node.cluster.state.active_root is not None
    assert node.cluster.state.active_root.root_id != old.root_id
    assert "root.expires_soon" in node.log.names()


async def test_end_of_the_root_is_a_metric_from_a_fifth_of_its_lifetime_on(node: Node) -> None:
    metrics = Metrics()
    _publish(metrics, node.replica.real, node.authority, node.leader, node.clock)

    def is_soon() -> float:
        [family] = metrics.root_expires_soon.collect()
        return family.samples[0].value

    root = node.cluster.state.active_root
    assert root is not None
    node.clock.advance(root.not_before + 0.79 * (root.not_after - root.not_before) - node.clock.now())
    assert is_soon() == 0.0
    node.clock.advance(0.02 * (root.not_after - root.not_before))
    assert is_soon() == 1.0
