"""Roots that come back: an operator's root is put in use again while the roots before and after it are still listed.

Whatever the order, clients of every listed root accept leaves, or the change is refused before anything is done, with
words about what to do. OpenSSL is asked, too: it follows the first certificate that fits, and never tries a second.
"""

import random
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final

import pytest

from cluster.base.errors import Refused
from cluster.signing.serials import new_serial
from fsm.ca import CARoot
from fsm.links import cut_off, links_of
from providers.pki import verify
from providers.pki.serials import serial_bytes
from tests.kit import pki
from tests.kit.callers import anybody
from tests.kit.clock import FakeClock
from tests.kit.fake_cluster import FakeCluster, Node, bootstrapped, put, running, update
from tests.kit.pki import needs_openssl
from tests.kit.wait import until

pytestmark = needs_openssl

HOUR: Final = 3600
MAX_LINKS: Final = 6


@pytest.fixture(autouse=True)
def _short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cluster.ca.leader._FIRST_PAUSE_SECONDS", 0.001)
    monkeypatch.setattr("cluster.ca.leader._LOOK_SECONDS", 0.02)


class Mesh:
    """One leading node, and an operator with roots of their own, by name."""

    def __init__(self, node: Node, directory: Path) -> None:
        self.node = node
        self._directory = directory
        self._own: dict[str, dict[str, object]] = {}
        self._generated = 0

    @property
    def roots(self) -> tuple[CARoot, ...]:
        return self.node.cluster.state.roots

    @property
    def active(self) -> CARoot:
        root = self.node.cluster.state.active_root
        assert root is not None
        return root

    def own(self, name: str, *, path_length: int | None = None) -> dict[str, object]:
        """The operator's root of this name: made the first time that it is asked for."""
        if name not in self._own:
            private = pki.key(number=100 + len(self._own))
            public, now = private.public_key(), int(self.node.clock.now())
            extensions = pki.ca_extensions(
                public,
                pki.key_id(public),
                path_length=path_length,
                uris=[f"spiffe://{self.node.cluster.state.trust_domain}"],
            )
            root = pki.certificate(
                public,
                private,
                extensions,
                subject=f"root {name}",
                issuer=f"root {name}",
                not_before=now - HOUR,
                not_after=now + 20 * pki.YEAR,
            )
            self._own[name] = {"PrivateKey": pki.key_pem(private), "RootCert": pki.pem(root)}
        return self._own[name]

    async def use(self, name: str, *, path_length: int | None = None) -> CARoot:
        """An operator's root, or "*" for one that is generated."""
        self.node.clock.advance(60)  # each certificate ends later than those before it
        self._generated += name == "*"
        kind: dict[str, object] = {"PrivateKey": "", "RootCert": "", "PrivateKeyBits": (256, 384)[self._generated % 2]}
        config = kind if name == "*" else self.own(name, path_length=path_length)
        wanted = update({"LeafCertTTL": "72h", "CSRMaxPerSecond": 0, **config})
        rotation_id = await put(self.node, wanted, request_id=random.randbytes(8))
        if rotation_id:
            await self.node.reconfigurer.wait_for_rotation(rotation_id)
        return self.active

    async def assert_all_accept(self) -> None:
        """With each listed root alone, and with all: by the strict verifier of this project, and by OpenSSL."""
        assert cut_off(self.roots, self.node.clock.now()) == ()
        assert len(self.active.intermediates) <= MAX_LINKS
        await until(lambda: self.node.authority.is_ready and not self.node.authority.is_behind(self.node.cluster.state))
        csr_pem = pki.csr_pem(uri=f"spiffe://{self.node.cluster.state.trust_domain}/ns/default/dc/dc1/svc/web")
        chain = (await self.node.authority.sign(csr_pem, serial_bytes(new_serial()), "test", anybody)).cert_pem
        now, pems = int(self.node.clock.now()), {root.root_id: [root.root_pem] for root in self.roots}
        stores = {**pems, "all": [root.root_pem for root in self.roots]}
        verify.verify_leaf(chain, stores, now=now)
        for store in stores.values():
            pki.openssl_verify(self._directory, chain, store, now=now)


@pytest.fixture
async def mesh(cluster: FakeCluster, tmp_path: Path) -> AsyncIterator[Mesh]:
    node = Node(cluster, "a", clock=FakeClock(now=int(time.time()) + 120))
    async with running(node):
        await bootstrapped(node)
        yield Mesh(node, tmp_path)


@pytest.mark.parametrize("names", ["ABA", "ABAB", "ABCA", "ABCABAC", "A*A", "AB*BA*"])
async def test_root_that_comes_back_serves_clients_of_every_listed_root(mesh: Mesh, names: str) -> None:
    for name in names:
        await mesh.use(name)
        await mesh.assert_all_accept()
    assert len(mesh.roots) == 1 + len(set(names.replace("*", ""))) + names.count("*")


@pytest.mark.parametrize("seed", range(3))
async def test_in_any_order_it_works_for_every_listed_root_or_is_refused_in_words(mesh: Mesh, seed: int) -> None:
    rng, refusals = random.Random(seed), list[str]()
    for _ in range(10):
        before, name = mesh.node.cluster.state, rng.choice("ABC*")
        try:
            await mesh.use(name)
        except Refused as refusal:
            refusals.append(str(refusal))
            assert mesh.node.cluster.state is before
            mesh.node.clock.advance(48 * HOUR)
            await until(lambda: not any(r.is_retired and r.prune_at <= mesh.node.clock.now() for r in mesh.roots))
        if rng.random() < 0.2:
            mesh.node.clock.advance(rng.choice((HOUR, 100 * HOUR)))
            await until(lambda: not any(r.is_retired and r.prune_at <= mesh.node.clock.now() for r in mesh.roots))
        await mesh.assert_all_accept()
    assert all("possible from" in text for text in refusals), refusals


async def test_links_around_a_loop_go_with_the_roots_that_needed_them(mesh: Mesh) -> None:
    for name in "ABA":
        await mesh.use(name)
    assert len(links_of(mesh.active)) == 3
    [other] = [root.root_id for root in mesh.roots if pki.load(root.root_pem).subject == pki.name("root B")]
    await mesh.node.operator_rotation.distrust(other)
    assert len(links_of(mesh.active)) == 1
    await mesh.assert_all_accept()


async def test_root_whose_path_length_leaves_no_room_for_its_return_is_refused_with_a_date(mesh: Mesh) -> None:
    """It would stand twice on the way of the oldest root's clients, with more CAs below than it allows."""
    await mesh.use("A", path_length=1)
    await mesh.use("B")
    before = mesh.node.cluster.state
    with pytest.raises(Refused, match=r"CN=root A allows 1 CAs below it .* possible from \S+ on"):
        await mesh.use("A")
    assert mesh.node.cluster.state is before
    await mesh.assert_all_accept()
