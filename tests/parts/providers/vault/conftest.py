"""A provider in front of the fake, and a caller's memory: the state that was committed last."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from providers.api import CAChain, LeafRequest, ProviderSettings
from providers.vault.provider import VaultProvider
from tests.kit import pki
from tests.kit.clock import FakeClock
from tests.kit.fake_vault import TOKEN, FakeVault

CONFIG = {
    "Address": "https://vault.test:8200",
    "Token": TOKEN,
    "RootPKIPath": "root/",
    "IntermediatePKIPath": "int/",
}


@dataclass
class Caller:
    vault: FakeVault
    clock: FakeClock = field(default_factory=lambda: FakeClock(now=time.time()))
    state: bytes = b""
    made: list[VaultProvider] = field(default_factory=list)
    credentials_dir: str = ""  # the node's

    def settings(self, *, is_primary: bool = True, **config: Any) -> ProviderSettings:
        datacenter = "dc1" if is_primary else "dc2"
        merged = {**CONFIG, **config}
        return ProviderSettings(pki.CLUSTER_ID, datacenter, is_primary, merged, self.state, self.credentials_dir)

    def provider(self, *, is_primary: bool = True, **config: Any) -> VaultProvider:
        """Configured with what was committed last, as a new leader or a restarted worker does."""
        provider = VaultProvider(self.vault.connect, clock=self.clock.monotonic, now=self.clock.now)
        self.made.append(provider)
        provider.configure(self.settings(is_primary=is_primary, **config))
        return provider

    def primary(self, **config: Any) -> tuple[VaultProvider, CAChain]:
        provider = self.provider(**config)
        self.state = provider.prepare_root(pki.intent(not_before=self.now))
        chain, self.state = provider.generate_root()
        return provider, chain

    @property
    def now(self) -> int:
        return int(self.clock.now())

    def request(self, csr: str | None = None) -> LeafRequest:
        return pki.leaf_request(csr, now=self.now)


@pytest.fixture
def new_caller() -> Iterator[Callable[[FakeVault], Caller]]:
    callers: list[Caller] = []

    def new(vault: FakeVault) -> Caller:
        callers.append(Caller(vault))
        return callers[-1]

    yield new
    for caller in callers:
        for provider in caller.made:
            provider.close()


@pytest.fixture(params=["ids", "legacy"])
def vault(request: pytest.FixtureRequest) -> FakeVault:
    return FakeVault(is_legacy=request.param == "legacy")


@pytest.fixture
def caller(vault: FakeVault, new_caller: Callable[[FakeVault], Caller]) -> Caller:
    return new_caller(vault)


@pytest.fixture
def modern(new_caller: Callable[[FakeVault], Caller]) -> Caller:
    return new_caller(FakeVault())
