"""Trust that is broken already holds nothing up: whatever was forced, has expired, was pruned or distrusted before,
some rotation is possible, and no client that accepts leaves now is lost by one that is not forced.
"""

import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import timedelta
from typing import Any, Final

import pytest

from cluster.api.ca import RotateRequest
from cluster.base.errors import Refused
from cluster.ca.attempts import Attempt
from cluster.signing.serials import new_serial
from fsm.ca import CARoot
from fsm.links import cut_off, links_of, must_stay_trusted
from providers import registry
from providers.errors import ChainInvalid, ProviderUnavailable
from providers.pki import verify
from providers.pki.serials import serial_bytes
from providers.vault.provider import VaultProvider
from tests.kit.callers import anybody
from tests.kit.clock import FakeClock
from tests.kit.fake_cluster import FakeCluster, Node, bootstrapped, put, running, update
from tests.kit.fake_vault import TOKEN, FakeVault
from tests.kit.wait import until

HOUR: Final = 3600
#: Long leaf TTLs keep retired roots listed for days; a root of three hours ends meanwhile.
LONG: Final[dict[str, object]] = {"LeafCertTTL": "72h", "CSRMaxPerSecond": 0}
SHORT: Final[dict[str, object]] = {
    "LeafCertTTL": "1h",
    "IntermediateCertTTL": "3h",
    "RootCertTTL": "3h",
    "CSRMaxPerSecond": 0,
}
SEEDS: Final = range(8)
STEPS: Final = 14


@pytest.fixture(autouse=True)
def _short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cluster.ca.leader._FIRST_PAUSE_SECONDS", 0.001)
    monkeypatch.setattr("cluster.ca.leader._LOOK_SECONDS", 0.02)


class Mesh:
    """One leading node, and a client for each root that there ever was, which knows no other."""

    def __init__(self, node: Node, vault: FakeVault) -> None:
        self.node = node
        self.vault = vault
        self._mounts = 0

    @property
    def cluster(self) -> FakeCluster:
        return self.node.cluster

    @property
    def active(self) -> CARoot:
        root = self.cluster.state.active_root
        assert root is not None
        return root

    @property
    def is_expired(self) -> bool:
        return self.node.clock.now() > self.active.not_after

    def advance(self, seconds: float) -> None:
        self.node.clock.advance(seconds)
        self.vault.clock_ahead += timedelta(seconds=seconds)

    async def leaf(self) -> str:
        await until(lambda: self.node.authority.is_ready and not self.node.authority.is_behind(self.cluster.state))
        uri = f"spiffe://{self.cluster.state.trust_domain}/ns/default/dc/dc1/svc/web"
        csr_pem, _ = await self.node.pool.make_csr(uri, (), ())
        return (await self.node.authority.sign(csr_pem, serial_bytes(new_serial()), "test", anybody)).cert_pem

    async def accepting(self) -> set[str]:
        """Roots whose clients accept a leaf that is issued now, as a verifier finds it; none of an expired CA."""
        if self.is_expired:
            return set()
        chain, accepted = await self.leaf(), set()
        for root in self.cluster.state.roots:
            try:
                stores = {"only": [root.root_pem], "all": [listed.root_pem for listed in self.cluster.state.roots]}
                verify.verify_leaf(chain, stores, now=int(self.node.clock.now()))
            except ChainInvalid:
                continue
            accepted.add(root.root_id)
        return accepted

    async def put(self, config: dict[str, object], provider: str = "consul", **changes: Any) -> None:
        rotation_id = await put(self.node, update(config, provider=provider, **changes), request_id=random.randbytes(8))
        assert rotation_id
        await self.node.reconfigurer.wait_for_rotation(rotation_id)
        if changes.get("is_staged"):
            self.advance(600)
        await until(lambda: self.cluster.state.rotation is None)

    async def rotate(self, *, is_forced: bool = False, is_staged: bool = False) -> None:
        config = self.cluster.state.config
        assert config is not None
        if config.provider != "consul":  # Vault's root is where RootPKIPath points
            await self.to_vault(force=is_forced, is_staged=is_staged, wait_seconds=600 * is_staged)
            return
        bits = 256 if self.active.private_key_bits == 384 else 384
        await self.put({**LONG, "PrivateKeyBits": bits}, force=is_forced, is_staged=is_staged, wait_seconds=600)

    async def to_vault(self, **changes: Any) -> None:
        self._mounts += 1
        paths = {"RootPKIPath": f"root{self._mounts}", "IntermediatePKIPath": f"int{self._mounts}"}
        await self.put({**LONG, "Address": "https://vault.test:8200", "Token": TOKEN, **paths}, "vault", **changes)

    # -- what may happen, each at any moment

    async def normal(self) -> None:
        await self.rotate()

    async def staged(self) -> None:
        await self.rotate(is_staged=True)

    async def forced(self) -> None:
        await self.rotate(is_forced=True)

    async def short_lived(self) -> None:
        """To a root that ends while the roots before it are still listed."""
        bits = 256 if self.active.private_key_bits == 384 else 384
        await self.put({**SHORT, "PrivateKeyBits": bits})

    async def change_provider(self) -> None:
        config = self.cluster.state.config
        assert config is not None
        await (self.to_vault() if config.provider == "consul" else self.put({**LONG, "PrivateKeyBits": 256}))

    async def expire(self) -> None:
        """Short-lived roots and the links to and from them end; others do not."""
        self.advance(3 * HOUR + 1)

    async def prune(self) -> None:
        """Everything that was retired so far goes, unless it had a long retention."""
        self.advance(48 * HOUR)

    async def distrust(self) -> None:
        retired = [root for root in self.cluster.state.roots if root.is_retired]
        if retired:
            await self.node.operator_rotation.distrust(retired[0].root_id)


OPERATIONS: Final[dict[str, Callable[[Mesh], Awaitable[None]]]] = {
    "normal": Mesh.normal,
    "staged": Mesh.staged,
    "forced": Mesh.forced,
    "short_lived": Mesh.short_lived,
    "change_provider": Mesh.change_provider,
    "expire": Mesh.expire,
    "prune": Mesh.prune,
    "distrust": Mesh.distrust,
}
ROTATIONS: Final = {"normal", "staged", "forced", "short_lived", "change_provider"}


@pytest.fixture
async def mesh(cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Mesh]:
    clock, vault = FakeClock(now=time.time()), FakeVault()
    real = registry._constructor

    def constructor(name: str) -> Callable[[], Any]:
        return (lambda: VaultProvider(vault.connect, clock.monotonic, clock.now)) if name == "vault" else real(name)

    monkeypatch.setattr(registry, "_constructor", constructor)
    node = Node(cluster, "a", clock=clock)
    async with running(node):
        await bootstrapped(node)
        yield Mesh(node, vault)
        node.pool.renew()
        node.pool.admit()


async def settled(mesh: Mesh) -> None:
    """Whatever time has brought is done."""

    def is_quiet() -> bool:
        now = mesh.node.clock.now()
        return not any(root.is_retired and now >= root.prune_at for root in mesh.cluster.state.roots)

    await until(is_quiet)


async def refused(operation: Awaitable[None]) -> str:
    """Why it was; empty when it was not."""
    try:
        await operation
    except Refused as refusal:
        return str(refusal)
    return ""


@pytest.mark.parametrize("seed", SEEDS)
async def test_whatever_happened_a_rotation_is_possible_and_loses_no_client_that_was_connected(
    mesh: Mesh, seed: int
) -> None:
    rng = random.Random(seed)
    for step in range(STEPS):
        name = rng.choice(list(OPERATIONS))
        if mesh.is_expired and name in ("expire", "prune", "distrust"):
            name = "normal"
        before = await mesh.accepting()
        expected = must_stay_trusted(mesh.active, mesh.cluster.state.roots, mesh.node.clock.now())
        assert before == {root.root_id for root in expected}, (seed, step, "what the state says of its chains")
        refusal = await refused(OPERATIONS[name](mesh))
        if refusal:
            # Only for chains that would get longer than clients follow, which has a date and a way out.
            assert "possible from" in refusal, (seed, step, name)
            assert len(before) >= 4, (seed, step, name)
            name = "forced"
            await mesh.forced()
        await settled(mesh)
        listed = {root.root_id for root in mesh.cluster.state.roots}
        if mesh.is_expired:
            continue
        after = await mesh.accepting()
        assert mesh.active.root_id in after, (seed, step, name)
        if name in ROTATIONS - {"forced"}:
            now = mesh.node.clock.now()
            alive = {root.root_id for root in mesh.cluster.state.roots if now <= root.not_after}
            assert before & listed & alive <= after, (seed, step, name)
        named = {root.root_id for root in cut_off(mesh.cluster.state.roots, mesh.node.clock.now())}
        assert named == listed - after, (seed, step, name, "roots that the answer names as cut off")


async def test_normal_rotation_after_a_forced_one_leaves_cut_off_roots_listed(mesh: Mesh) -> None:
    first = mesh.active
    await mesh.forced()
    forced = mesh.active
    await mesh.normal()
    assert {root.root_id for root in mesh.cluster.state.roots} == {first.root_id, forced.root_id, mesh.active.root_id}
    assert await mesh.accepting() == {forced.root_id, mesh.active.root_id}
    assert [link.issuer_key_id for link in links_of(mesh.active)] == [forced.key_id]
    named = cut_off(mesh.cluster.state.roots, mesh.node.clock.now())
    assert [root.root_id for root in named] == [first.root_id]
    plan = await mesh.node.operator_rotation.plan(RotateRequest())
    assert plan.links == 2


async def test_expired_root_is_replaced_while_an_older_one_is_still_listed(mesh: Mesh) -> None:
    first = mesh.active
    await mesh.short_lived()
    short = mesh.active
    await mesh.expire()
    assert {root.root_id for root in mesh.cluster.state.roots} == {first.root_id, short.root_id}
    await mesh.node.operator_rotation.plan(RotateRequest())
    attempt = Attempt(b"again", mesh.cluster.state.ca_index, is_repeat=False)
    rotation_id = await mesh.node.operator_rotation.rotate(RotateRequest(), attempt)
    await mesh.node.reconfigurer.wait_for_rotation(rotation_id)
    assert mesh.active.root_id not in (first.root_id, short.root_id)
    assert await mesh.accepting() == {mesh.active.root_id}
    assert first.root_id in {root.root_id for root in mesh.cluster.state.roots}


async def test_links_behind_one_that_has_expired_go_with_the_next_rotation(mesh: Mesh) -> None:
    """They would make every handshake longer, and lead nobody anywhere."""
    first = mesh.active
    await mesh.short_lived()
    await mesh.normal()
    await mesh.expire()
    middle = mesh.active
    assert len(links_of(middle)) == 2
    await mesh.normal()
    assert [link.issuer_key_id for link in links_of(mesh.active)] == [middle.key_id]
    assert first.root_id in {root.root_id for root in mesh.cluster.state.roots}
    assert await mesh.accepting() == {middle.root_id, mesh.active.root_id}


async def test_distrusted_root_in_the_middle_holds_no_rotation_up(mesh: Mesh) -> None:
    """The links through it stay, and nobody has its own certificate to compare them with any more."""
    oldest = mesh.active
    await mesh.normal()
    middle = mesh.active
    mesh.advance(HOUR)
    await mesh.normal()
    await mesh.node.operator_rotation.distrust(middle.root_id)
    await mesh.normal()
    assert oldest.root_id in await mesh.accepting()
    assert len(links_of(mesh.active)) == 3


async def test_provider_that_is_gone_for_good_is_left_by_force(mesh: Mesh) -> None:
    """The change is begun because of it, so it must not wait for it."""
    await mesh.change_provider()
    old = mesh.active
    config = mesh.cluster.state.config
    assert config is not None
    configure = mesh.node.worker.host.operations["configure"]

    def lost(key: str, *arguments: Any) -> Any:
        if key == config.provider_id:
            raise ProviderUnavailable("it is gone")
        return configure(key, *arguments)

    mesh.node.worker.host.operations["configure"] = lost
    await mesh.put({**LONG, "PrivateKeyBits": 256}, force=True)
    assert mesh.active.root_id != old.root_id
    assert await mesh.accepting() == {mesh.active.root_id}
