"""A cluster whose keys are in Vault: the signing certificate is renewed once for each need, whoever leads meanwhile."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from cluster.api.ca import RotateRequest
from cluster.base.config import ConnectSection
from cluster.base.errors import InternalError, Refused
from cluster.ca.chain_limits import MAX_CHAIN_LINKS
from cluster.signing.serials import new_serial
from fsm.ca import CARoot, FinishRotation, RenewSigning
from fsm.commands import Command
from fsm.duties import DutyPolicy
from fsm.links import links_of, local_chain
from providers import registry
from providers.errors import ProviderUnavailable, SigningKeyGone
from providers.pki import verify
from providers.pki.serials import serial_bytes
from providers.vault.provider import VaultProvider
from tests.kit.callers import anybody
from tests.kit.clock import FakeClock
from tests.kit.fake_cluster import FakeCluster, Fate, Node, bootstrapped, looked_again, put, running, update
from tests.kit.fake_vault import TOKEN, FakeVault
from tests.kit.wait import until

DAY = 86_400
CONFIG: dict[str, object] = {
    "Address": "https://vault.test:8200",
    "Token": TOKEN,
    "RootPKIPath": "root",
    "IntermediatePKIPath": "int",
    "CSRMaxPerSecond": 0,
}


@pytest.fixture(autouse=True)
def _short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cluster.ca.leader._FIRST_PAUSE_SECONDS", 0.001)
    monkeypatch.setattr("cluster.ca.leader._LOOK_SECONDS", 0.05)


@pytest.fixture
def clock() -> FakeClock:
    """Vault's certificates begin in the real time."""
    return FakeClock(now=time.time())


@pytest.fixture
def vault(clock: FakeClock, monkeypatch: pytest.MonkeyPatch) -> FakeVault:
    vault = FakeVault()
    real = registry._constructor

    def constructor(name: str) -> Callable[[], Any]:
        return (lambda: VaultProvider(vault.connect, clock.monotonic, clock.now)) if name == "vault" else real(name)

    monkeypatch.setattr(registry, "_constructor", constructor)
    return vault


@pytest.fixture
async def nodes(cluster: FakeCluster, vault: FakeVault, clock: FakeClock) -> AsyncIterator[list[Node]]:
    """Three nodes; the first leads, and its CA, in Vault, is up."""
    connect = ConnectSection(ca_provider="vault", ca_config=CONFIG)
    nodes = [Node(cluster, name, clock=clock, connect=connect) for name in "abc"]
    async with running(*nodes):
        await bootstrapped(nodes[0])
        yield nodes
        for node in nodes:
            node.pool.renew()


@pytest.fixture
def node(nodes: list[Node]) -> Node:
    return nodes[0]


@pytest.fixture
def later(vault: FakeVault, clock: FakeClock) -> Callable[[float], None]:
    def advance(seconds: float) -> None:
        clock.advance(seconds)
        vault.clock_ahead += timedelta(seconds=seconds)

    return advance


def active(cluster: FakeCluster) -> CARoot:
    assert cluster.state.active_root is not None
    return cluster.state.active_root


def leader_of(nodes: list[Node]) -> Node:
    return next(node for node in nodes if node.name == node.cluster.leader)


async def sign(node: Node) -> str:
    """What a client gets."""
    csr_pem, _ = await node.pool.make_csr(
        f"spiffe://{node.cluster.state.trust_domain}/ns/default/dc/dc1/svc/web", (), ()
    )
    return (await node.authority.sign(csr_pem, serial_bytes(new_serial()), "test", anybody)).cert_pem


def assert_trusted(node: Node, chain_pem: str, *roots: CARoot) -> None:
    stores = {root.root_id: [root.root_pem] for root in roots or node.cluster.state.roots}
    verify.verify_leaf(chain_pem, stores, now=int(node.clock.now()))


def renewals(cluster: FakeCluster) -> list[Command]:
    return [command for command in cluster.committed if isinstance(command, RenewSigning)]


def duties_done(node: Node) -> list[object]:
    return [fields["duty"] for event, fields in node.log.events if event == "duty.done"]


# --- renewal --------------------------------------------------------------------------------------------------------


async def test_signing_certificate_is_renewed_at_half_of_its_life_below_the_same_root(
    node: Node, vault: FakeVault, later: Callable[[float], None]
) -> None:
    before, old_leaf = active(node.cluster), await sign(node)
    later(182 * DAY)
    await looked_again(node)
    assert renewals(node.cluster) == []
    later(DAY)
    await until(lambda: renewals(node.cluster))
    after = active(node.cluster)
    assert after.root_id == before.root_id
    assert after.signing_key_id != before.signing_key_id
    assert len(after.intermediates) == 1
    await until(lambda: node.authority.is_ready and not node.authority.is_behind(node.cluster.state))
    new_leaf = await sign(node)
    assert after.intermediates[0].cert_pem in new_leaf
    assert_trusted(node, new_leaf)
    verify.verify_leaf(old_leaf, {"all": [after.root_pem]}, now=int(time.time()))
    await looked_again(node)
    assert len(renewals(node.cluster)) == 1
    assert len(vault.mounts["int"].issuers) == 2  # the one before goes a minute later
    assert "renew_signing" in duties_done(node)


async def test_certificate_that_the_backend_dates_back_is_not_renewed_at_once(
    node: Node, vault: FakeVault, later: Callable[[float], None]
) -> None:
    """Vault takes 30 s: of a life of seconds that is more than half."""
    quick = {**CONFIG, "LeafCertTTL": "20s", "IntermediateCertTTL": "20s", "SkipValidate": True}
    await put(node, update({**quick, "IntermediatePKIPath": "other"}, provider="vault"))
    await until(lambda: renewals(node.cluster))
    await looked_again(node)
    assert len(renewals(node.cluster)) == 1
    later(15)
    await until(lambda: len(renewals(node.cluster)) == 2)


@pytest.mark.parametrize("fate", [Fate.LOST_BEFORE, Fate.LOST_AFTER, Fate.UNKNOWN])
async def test_leader_lost_at_the_renewal_is_continued_by_the_next(
    nodes: list[Node], vault: FakeVault, later: Callable[[float], None], fate: Fate
) -> None:
    cluster, left = nodes[0].cluster, [fate]
    cluster.on_propose = lambda command: left.pop() if left and isinstance(command, RenewSigning) else Fate.COMMITTED
    later(200 * DAY)
    await until(lambda: renewals(cluster))
    await until(lambda: leader_of(nodes).authority.is_ready)
    leader = leader_of(nodes)
    await until(lambda: leader.authority.is_ready and not leader.authority.is_behind(cluster.state))
    assert_trusted(leader, await sign(leader))
    assert len(renewals(cluster)) == 1
    tried = [command for command in cluster.proposed if isinstance(command, RenewSigning)]
    assert {command.signing_key_id for command in tried} == {active(cluster).signing_key_id}
    assert len(vault.mounts["int"].keys) == 2


async def test_lost_mount_is_repaired_by_itself(node: Node, vault: FakeVault) -> None:
    before = active(node.cluster)
    del vault.mounts["int"]
    with pytest.raises(SigningKeyGone, match="has been removed"):
        await sign(node)
    await until(lambda: renewals(node.cluster))
    await until(lambda: node.authority.is_ready and not node.authority.is_behind(node.cluster.state))
    assert active(node.cluster).root_id == before.root_id
    assert_trusted(node, await sign(node))
    await looked_again(node)
    assert len(renewals(node.cluster)) == 1


async def test_renewal_that_fails_is_said_tried_again_and_holds_up_nothing_else(
    node: Node, vault: FakeVault, later: Callable[[float], None]
) -> None:
    theirs = vault.mounts["root"]
    vault.mount_root("root")  # another CA
    later(200 * DAY)
    await until(lambda: any("cannot be renewed" in text for text in node.health.now.warnings))
    assert "cannot be renewed: stored CA root" in node.health.now.warnings[0]
    assert node.health.now.trouble == ""
    assert_trusted(node, await sign(node))
    node.leader._parts = replace(node.parts, policy=DutyPolicy(keep_expired_seconds=0))
    await until(lambda: "tidy_ledger" in duties_done(node))
    assert "renew_signing" not in duties_done(node)
    await looked_again(node)
    assert node.log.names().count("duty.failed") == 1  # its pause is not over
    later(2)
    await until(lambda: node.log.names().count("duty.failed") == 2)
    vault.mounts["root"] = theirs
    later(4)
    await until(lambda: renewals(node.cluster))
    later(400)
    await until(lambda: node.health.now.warnings == ())
    assert node.log.names().count("ca.warning_over") == node.log.names().count("ca.warning")


async def test_leaf_signed_while_the_certificate_is_renewed_goes_with_its_own_chain(
    node: Node,
) -> None:
    """It waits with the old context, and the workers have the new certificate when it comes to them."""
    node.worker.held.add("sign_leaves")
    csr_pem, _ = await node.pool.make_csr(
        f"spiffe://{node.cluster.state.trust_domain}/ns/default/dc/dc1/svc/web", (), ()
    )
    waiting = asyncio.ensure_future(node.authority.sign(csr_pem, serial_bytes(new_serial()), "test", anybody))
    await until(lambda: "sign_leaves" in node.worker.calls)
    node.worker.held.clear()
    await put(node, update({**CONFIG, "IntermediatePKIPath": "other"}, provider="vault"))
    await until(lambda: renewals(node.cluster))
    await until(lambda: node.authority.is_ready and not node.authority.is_behind(node.cluster.state))
    node.worker.gate.set()
    assert_trusted(node, (await waiting).cert_pem)


@pytest.mark.parametrize("wrong", ["certificate", "state"])
async def test_renewal_that_does_not_hold_together_is_not_committed(
    node: Node, later: Callable[[float], None], wrong: str
) -> None:
    real = node.worker.host.operations["renew_signing_cert"]
    sealed = node.cluster.state.providers[0]
    old_pem = active(node.cluster).intermediates[0].cert_pem
    old_state = node.parts.opener.record(sealed).state

    def renew(key: str) -> list[Any]:
        chain, state = real(key)
        if wrong == "state":
            return [chain, old_state]  # it would go on signing with the old key
        return [[chain[0], old_pem, chain[2]], state]

    node.worker.host.operations["renew_signing_cert"] = renew
    later(200 * DAY)
    await until(lambda: node.health.now.warnings)
    assert renewals(node.cluster) == []


async def test_renewal_that_is_committed_and_not_in_use_yet_is_not_made_again(node: Node, vault: FakeVault) -> None:
    def decide(command: Command) -> Fate:
        if isinstance(command, RenewSigning):
            node.worker.failures["configure"] = ProviderUnavailable("Vault is away")
        return Fate.COMMITTED

    node.cluster.on_propose = decide
    del vault.mounts["int"]
    with pytest.raises(SigningKeyGone):
        await sign(node)
    await until(lambda: node.health.now.trouble == "Vault is away")
    node.worker.failures.clear()
    await until(lambda: node.authority.is_ready and not node.authority.is_behind(node.cluster.state))
    await looked_again(node)
    assert len(renewals(node.cluster)) == 1
    assert_trusted(node, await sign(node))


async def test_first_certificate_of_the_path_ends_signing_and_not_the_last(
    node: Node, later: Callable[[float], None]
) -> None:
    node.worker.failures["renew_signing_cert"] = ProviderUnavailable("Vault is away")
    later(active(node.cluster).intermediates[0].not_after - node.clock.now() + 1)
    with pytest.raises(InternalError, match=r"^intermediate expired: certificate expired, expiration date: "):
        await sign(node)


# --- warnings -------------------------------------------------------------------------------------------------------


async def test_what_the_provider_warns_of_is_said_once_shown_and_taken_back(
    node: Node, nodes: list[Node], vault: FakeVault, later: Callable[[float], None]
) -> None:
    def shown() -> float | None:
        return node.metrics.registry.get_sample_value("quorumca_ca_warnings")

    assert (node.health.now.warnings, shown()) == ((), 0.0)
    vault.tokens["short"] = {"ttl": 3600, "renewable": False}
    await put(node, update({**CONFIG, "Token": "short"}, provider="vault"))
    later(11)
    await until(lambda: node.health.now.warnings)
    assert "the Vault token expires at" in node.health.now.warnings[0]
    assert "short" not in str(node.log.events)
    assert shown() == 1.0
    for _ in range(3):
        node.worker.calls.clear()
        later(11)
        await until(lambda: "warnings" in node.worker.calls)
    await looked_again(node)
    assert node.log.names().count("ca.warning") == 1
    await put(node, update(CONFIG, provider="vault"))
    later(11)
    await until(lambda: node.health.now.warnings == ())
    assert node.log.names().count("ca.warning_over") == 1
    assert shown() == 0.0


async def test_warnings_go_with_the_leadership_and_the_next_leader_has_them(
    nodes: list[Node], vault: FakeVault, later: Callable[[float], None]
) -> None:
    vault.tokens["short"] = {"ttl": 3600, "renewable": False}
    await put(nodes[0], update({**CONFIG, "Token": "short"}, provider="vault"))
    later(11)
    await until(lambda: nodes[0].health.now.warnings)
    nodes[0].cluster.elect("b")
    await until(lambda: nodes[1].health.now.warnings)
    assert nodes[0].health.now.warnings == ()


# --- changes of configuration -----------------------------------------------------------------------------------------


async def test_other_path_for_intermediates_is_taken_into_use_at_once(node: Node, vault: FakeVault) -> None:
    before = active(node.cluster)
    assert await put(node, update({**CONFIG, "IntermediatePKIPath": "other"}, provider="vault")) == ""
    await until(lambda: renewals(node.cluster))
    await until(lambda: node.authority.is_ready and not node.authority.is_behind(node.cluster.state))
    after = active(node.cluster)
    assert after.root_id == before.root_id
    assert after.signing_key_id != before.signing_key_id
    assert "other" in vault.mounts
    assert_trusted(node, await sign(node))
    await looked_again(node)
    assert len(renewals(node.cluster)) == 1


async def test_migration_to_vault_and_back_leads_back_to_every_root(
    cluster: FakeCluster, vault: FakeVault, clock: FakeClock
) -> None:
    """With a trust anchor above the mounted CA: what is between goes with every leaf and cross-signed certificate."""
    vault.mount_root("root", is_below=True)
    node = Node(cluster, "a", clock=clock)
    async with running(node):
        await bootstrapped(node)
        for config, provider in ((CONFIG, "vault"), ({"CSRMaxPerSecond": 0}, "consul")):
            rotation_id = await put(node, update(dict(config), provider=provider))
            await node.reconfigurer.wait_for_rotation(rotation_id)
            await until(lambda: node.authority.is_ready and not node.authority.is_behind(cluster.state))
            assert_trusted(node, await sign(node))
        root = active(cluster)
        assert len(cluster.state.roots) == 3
        assert local_chain(root) == ()
        links = links_of(root)
        assert len(links) == 3  # by the mounted CA, that by its anchor, and the anchor by the first root
        assert [link.issuer_key_id for link in links[:-1]] == [link.key_id for link in links[1:]]
        assert [type(command) for command in cluster.committed].count(FinishRotation) == 2
        node.pool.renew()


@pytest.mark.parametrize("is_below", [False, True])
async def test_staged_migration_publishes_the_root_with_what_leads_from_it_to_leaves(
    cluster: FakeCluster, vault: FakeVault, clock: FakeClock, later: Callable[[float], None], *, is_below: bool
) -> None:
    vault.mount_root("root", is_below=is_below)
    node = Node(cluster, "a", clock=clock)
    async with running(node):
        await bootstrapped(node)
        old = active(cluster)
        rotation_id = await put(node, update(dict(CONFIG), provider="vault", is_staged=True, wait_seconds=600))
        await node.reconfigurer.wait_for_rotation(rotation_id)
        [published] = [root for root in cluster.state.roots if root.root_id != old.root_id]
        assert published.signing_key_id in [found.key_id for found in published.intermediates]
        assert links_of(published) == ()
        assert_trusted(node, await sign(node), old)
        later(600)
        await until(lambda: cluster.state.rotation is None)
        assert active(cluster).root_id == published.root_id
        await until(lambda: node.authority.is_ready and not node.authority.is_behind(cluster.state))
        assert_trusted(node, await sign(node))
        node.pool.renew()


async def test_intermediate_of_the_new_provider_counts_before_anything_begins(
    cluster: FakeCluster, vault: FakeVault, clock: FakeClock
) -> None:
    """One more rotation would be possible without it; given up behind its last step, it would be a vain attempt."""
    node = Node(cluster, "a", clock=clock)
    async with running(node):
        await bootstrapped(node)
        for number in range(MAX_CHAIN_LINKS - 1):
            kind: dict[str, object] = {"PrivateKeyBits": (384, 256)[number % 2], "CSRMaxPerSecond": 0}
            await node.reconfigurer.wait_for_rotation(await put(node, update(kind)))
        before = cluster.state
        with pytest.raises(Refused, match=r"7 certificates between leaf and root.*possible from"):
            await put(node, update(dict(CONFIG), provider="vault"))
        assert cluster.state is before
        await node.reconfigurer.wait_for_rotation(await put(node, update({"PrivateKeyBits": 256})))
        await until(lambda: node.authority.is_ready and not node.authority.is_behind(cluster.state))
        assert_trusted(node, await sign(node))
        node.pool.renew()


async def test_root_that_the_mount_has_already_is_refused_before_anything_begins(node: Node) -> None:
    for is_plan in (True, False):
        with pytest.raises(Refused, match="keeps its root where this configuration points"):
            await (node.operator_rotation.plan(RotateRequest()) if is_plan else rotate(node))
    assert node.cluster.state.last_rotation is None


async def rotate(node: Node) -> str:
    from cluster.ca.attempts import Attempt

    return await node.operator_rotation.rotate(
        RotateRequest(), Attempt(b"1", node.cluster.state.ca_index, is_repeat=False)
    )


async def test_root_that_was_replaced_in_vault_is_repaired_by_force(node: Node, vault: FakeVault) -> None:
    """It cannot cross-sign any more, and whoever tries is told what can be done."""
    before = active(node.cluster)
    vault.mount_root("root")
    moved = {**CONFIG, "RootPKIPath": "other", "IntermediatePKIPath": "otherint"}
    rotation_id = await put(node, update(moved, provider="vault"))
    with pytest.raises(InternalError, match=r"is not the one at RootPKIPath root .* with ForceWithoutCrossSigning"):
        await node.reconfigurer.wait_for_rotation(rotation_id)
    assert active(node.cluster).root_id == before.root_id
    await sign(node)
    assert "otherint" not in vault.mounts
    rotation_id = await put(node, update(moved, provider="vault", force=True), request_id=b"2")
    await node.reconfigurer.wait_for_rotation(rotation_id)
    assert active(node.cluster).root_id != before.root_id
    assert_trusted(node, await sign(node), active(node.cluster))


async def test_leader_that_was_deposed_in_a_step_removes_nothing_that_the_next_one_uses(
    nodes: list[Node], vault: FakeVault
) -> None:
    """Its keys have gone with the leadership, and that is no reason to give the rotation up."""
    old, new = nodes[:2]
    old.worker.held = {"cross_sign"}
    rotation_id = await put(
        old, update({**CONFIG, "RootPKIPath": "other", "IntermediatePKIPath": "otherint"}, provider="vault")
    )
    await until(lambda: "cross_sign" in old.worker.calls)
    old.cluster.elect(new.name)
    await new.reconfigurer.wait_for_rotation(rotation_id)
    old.pool.renew()
    old.worker.gate.set()
    await until(lambda: "leader.lost" in old.log.names())
    assert "cleanup" not in old.worker.calls
    last = old.cluster.state.last_rotation
    assert last is not None
    assert last.reason == ""
    await until(lambda: not new.authority.is_behind(new.cluster.state))
    assert_trusted(new, await sign(new))
    assert len(vault.mounts["otherint"].issuers) == len(vault.mounts["otherint"].keys) == 1


async def test_root_of_vault_is_not_rotated_by_itself_and_nothing_is_left_of_the_attempt(
    node: Node, vault: FakeVault, later: Callable[[float], None]
) -> None:
    await put(node, update({**CONFIG, "AutoRotateRoot": True, "RootCertTTL": "9000h"}, provider="vault"))
    root = active(node.cluster)
    later(0.81 * (root.not_after - root.not_before))
    await until(lambda: node.cluster.state.last_rotation)
    last = node.cluster.state.last_rotation
    assert last is not None
    assert "change that (for Vault: RootPKIPath)" in last.reason
    # The one in use, and the one that it has replaced at half of its life.
    assert len(vault.mounts["int"].issuers) == len(vault.mounts["int"].keys) == 2


async def test_why_nothing_can_be_warned_of_is_said_once(node: Node, later: Callable[[float], None]) -> None:
    node.worker.failures["warnings"] = InternalError("OverflowError in a worker")
    for _ in range(3):
        node.worker.calls.clear()
        later(11)
        await until(lambda: "warnings" in node.worker.calls)
        await looked_again(node)
    assert [fields for name, fields in node.log.events if name == "ca.warnings_unknown"] == [
        {"reason": "OverflowError in a worker"}
    ]
