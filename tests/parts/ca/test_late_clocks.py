"""Clients whose clocks are late by less than a minute accept what is signed right after a change of the CA: every
certificate of a new chain, the root included, begins a minute ago, and none before what it is signed by.
"""

import subprocess
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

import pytest
from cryptography import x509

from cluster.ca.roots import begins_just_now
from cluster.signing.serials import new_serial
from providers import registry
from providers.pki.serials import serial_bytes
from providers.pki.x509 import load_bundle, load_cert
from providers.vault.provider import VaultProvider
from tests.kit import pki
from tests.kit.callers import anybody
from tests.kit.clock import FakeClock
from tests.kit.fake_cluster import FakeCluster, Node, bootstrapped, put, running, update
from tests.kit.fake_vault import TOKEN, FakeVault
from tests.kit.pki import needs_openssl
from tests.kit.wait import until

LATE_SECONDS: Final = 58
CONSUL: Final[dict[str, object]] = {"CSRMaxPerSecond": 0}
VAULT: Final[dict[str, object]] = {**CONSUL, "Address": "https://vault.test:8200", "Token": TOKEN}


@pytest.fixture(autouse=True)
def _short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cluster.ca.leader._FIRST_PAUSE_SECONDS", 0.001)


class Ahead(FakeClock):
    """The real time, as the fake Vault has it, and what it was moved ahead."""

    def now(self) -> float:
        return time.time() + super().now()


@pytest.fixture
async def node(cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Node]:
    clock, vault = Ahead(now=0), FakeVault()
    real = registry._constructor

    def constructor(name: str) -> Callable[[], Any]:
        return (lambda: VaultProvider(vault.connect, clock.monotonic, clock.now)) if name == "vault" else real(name)

    monkeypatch.setattr(registry, "_constructor", constructor)
    node = Node(cluster, "a", clock=clock)
    async with running(node):
        await bootstrapped(node)
        yield node
        node.pool.renew()
        node.pool.admit()


def vault_at(number: int) -> dict[str, object]:
    return {**VAULT, "RootPKIPath": f"root{number}", "IntermediatePKIPath": f"int{number}"}


#: What the CA is changed to, one after the other, each a moment after the one before.
WAYS: Final[dict[str, list[tuple[str, dict[str, object]]]]] = {
    "a new CA": [],
    "a rotation": [("consul", {**CONSUL, "PrivateKeyBits": 384})],
    "two rotations": [("consul", {**CONSUL, "PrivateKeyBits": 384}), ("consul", {**CONSUL, "PrivateKeyBits": 256})],
    "to Vault": [("vault", vault_at(1))],
    "within Vault": [("vault", vault_at(1)), ("vault", vault_at(2))],
    "to Vault and back": [("vault", vault_at(1)), ("consul", CONSUL)],
}


async def fresh_chain(node: Node, way: str) -> list[x509.Certificate]:
    for provider, config in WAYS[way]:
        await node.reconfigurer.wait_for_rotation(await put(node, update(config, provider=provider)))
    await until(lambda: node.authority.is_ready and not node.authority.is_behind(node.cluster.state))
    uri = f"spiffe://{node.cluster.state.trust_domain}/ns/default/dc/dc1/svc/web"
    csr_pem, _ = await node.pool.make_csr(uri, (), ())
    return load_bundle((await node.authority.sign(csr_pem, serial_bytes(new_serial()), "test", anybody)).cert_pem)


@pytest.mark.parametrize("way", WAYS)
async def test_every_certificate_of_a_fresh_chain_began_a_minute_ago(node: Node, way: str) -> None:
    chain = await fresh_chain(node, way)
    roots = [load_cert(root.root_pem) for root in node.cluster.state.roots]
    moment = int(node.clock.now()) - 60
    for cert in (*chain, *roots):
        assert cert.not_valid_before_utc.timestamp() <= moment, cert.subject
    for cert, issuer in pairwise(chain):
        assert issuer.not_valid_before_utc <= cert.not_valid_before_utc, cert.subject


@needs_openssl
@pytest.mark.parametrize("way", WAYS)
async def test_openssl_with_a_late_clock_accepts_it_with_each_root(node: Node, way: str, tmp_path: Path) -> None:
    """It builds the chain to the nearest trusted root, so the youngest certificate decides."""
    chain = await fresh_chain(node, way)
    (tmp_path / "chain").write_text("".join(map(pki.pem, chain)))
    pems = [root.root_pem for root in node.cluster.state.roots]
    for store in (*([pem] for pem in pems), pems):
        (tmp_path / "roots").write_text("".join(store))
        moment = str(int(node.clock.now()) - LATE_SECONDS)
        command = ["openssl", "verify", "-x509_strict", "-attime", moment, "-CAfile", "roots", "-untrusted", "chain"]
        judged = subprocess.run([*command, "chain"], cwd=tmp_path, capture_output=True, text=True, check=False)
        assert judged.returncode == 0, judged.stderr


async def test_operators_root_that_begins_in_the_future_is_refused_and_one_that_begins_just_now_warned_of(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cluster.ca.leader._LOOK_SECONDS", 0.02)
    now = int(node.clock.now())
    before = node.cluster.state
    with pytest.raises(Exception, match="RootCert is valid from"):
        await put(node, update(own_root(node, not_before=now + 1)))
    assert node.cluster.state is before
    await node.reconfigurer.wait_for_rotation(await put(node, update(own_root(node, not_before=now - 5))))
    active, config = node.cluster.state.active_root, node.cluster.state.config
    assert active is not None
    assert config is not None
    text = begins_just_now(active, config, now)
    assert begins_just_now(active, replace(config, config_json="{}"), now) == ""
    assert "clients whose clocks are late refuse" in text
    await until(lambda: node.health.now.warnings == (text,))
    node.clock.advance(55)
    await until(lambda: node.health.now.warnings == ())


def own_root(node: Node, *, not_before: int) -> dict[str, object]:
    private = pki.key(number=77)
    public = private.public_key()
    uri = f"spiffe://{node.cluster.state.trust_domain}"
    end = int(node.clock.now()) + 90 * 86_400
    extensions = pki.ca_extensions(public, pki.key_id(public), uris=[uri])
    cert = pki.certificate(
        public, private, extensions, subject="own", issuer="own", not_before=not_before, not_after=end
    )
    return {**CONSUL, "PrivateKey": pki.key_pem(private), "RootCert": pki.pem(cert)}
