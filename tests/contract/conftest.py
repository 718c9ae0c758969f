"""The providers that the contract suite runs against, and how a test gets one.

A new provider adds one line to PROVIDERS; one with a backend names the fixture that gives it. Nothing in the suite
assumes that keys are local, that the given serial is used, or that the root signs leaves itself.
"""

import itertools
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import pytest
from _pytest.mark import ParameterSet

from providers.api import (
    CAChain,
    CrossSignRequest,
    CSRPolicy,
    IntermediateRequest,
    IssuedLeaf,
    LeafRequest,
    Provider,
    ProviderSettings,
    RootIntent,
)
from providers.builtin.provider import BuiltinProvider
from providers.errors import ProviderError
from providers.grants import EVERYTHING
from providers.vault.provider import VaultProvider
from tests.kit import pki
from tests.kit.vault_server import VaultServer, any_vault


def _no_config() -> Mapping[str, object]:
    return {}


@dataclass(frozen=True)
class Subject:
    """One provider under test. `fresh_config` gives what it must be told beyond the common keys, new for every CA.

    With `backend`, the fixture of that name has it as its `config` method.
    """

    name: str
    new: Callable[[], Provider]
    fresh_config: Callable[[], Mapping[str, object]] = _no_config
    backend: str = ""


PROVIDERS = [
    Subject("consul", BuiltinProvider),
    Subject("vault", VaultProvider, backend="vault"),
]


@pytest.fixture(scope="session")
def vault(tmp_path_factory: pytest.TempPathFactory) -> Iterator[VaultServer]:
    with any_vault(tmp_path_factory.mktemp("vault")) as server:
        yield server


@dataclass
class Bench:
    """Makes CAs of one provider and keeps what a caller would keep: settings, and the state committed last."""

    subject: Subject
    # The real time: TLS stacks judge certificates by their own clock.
    now: int = field(default_factory=lambda: int(time.time()))
    numbers: Iterator[int] = field(default_factory=lambda: itertools.count(1))
    made: list[Provider] = field(default_factory=list)
    credentials_dir: str = ""

    def settings(self, config: Mapping[str, object] | None = None, *, is_primary: bool = True) -> ProviderSettings:
        datacenter = "dc1" if is_primary else "dc2"
        merged = {**self.subject.fresh_config(), **(config or {})}
        return ProviderSettings(pki.CLUSTER_ID, datacenter, is_primary, merged, credentials_dir=self.credentials_dir)

    def provider(self, settings: ProviderSettings) -> Provider:
        provider = self.subject.new()
        self.made.append(provider)
        provider.configure(settings)
        return provider

    def intent(self) -> RootIntent:
        number = next(self.numbers)
        return RootIntent(pki.serial(number), f"uid{number:05d}", self.now)

    def primary(self, **config: object) -> "CA":
        """A finished primary CA."""
        settings = self.settings(config)
        provider = self.provider(settings)
        provider.prepare_root(self.intent())
        chain, state = provider.generate_root()
        return CA(self, provider, chain, replace(settings, state=state))

    def secondary(self, primary: "CA", **config: object) -> "CA":
        """A finished secondary CA, signed by `primary`."""
        settings = self.settings(config, is_primary=False)
        provider = self.provider(settings)
        csr, _ = provider.generate_intermediate_csr()
        chain, state = provider.set_intermediate(primary.sign_intermediate(csr), primary.chain.root_pem)
        return CA(self, provider, chain, replace(settings, state=state))


@dataclass
class CA:
    bench: Bench
    provider: Provider
    chain: CAChain
    settings: ProviderSettings

    def reopened(self, **config: object) -> Provider:
        """Another instance, as a new leader makes it from what was committed."""
        return self.bench.provider(replace(self.settings, config={**self.settings.config, **config}))

    def request(self, csr: str) -> LeafRequest:
        policy = CSRPolicy(pki.TRUST_DOMAIN, self.settings.datacenter)
        return LeafRequest(csr, policy, pki.serial(next(self.bench.numbers)), self.bench.now, EVERYTHING)

    def leaf(self, kind: str = "service", private: pki.PrivateKey | None = None) -> IssuedLeaf:
        return self.provider.sign_leaf(self.request(self.csr(kind, private)))

    def csr(self, kind: str = "service", private: pki.PrivateKey | None = None) -> str:
        return pki.csr_pem(private, self.uri(kind))

    def leaves(self, csrs: Sequence[str]) -> list[IssuedLeaf | ProviderError]:
        return self.provider.sign_leaves([self.request(csr) for csr in csrs])

    def uri(self, kind: str = "service") -> str:
        return pki.IDENTITIES[kind][0].replace("/dc/dc1", f"/dc/{self.settings.datacenter}")

    def served(self, leaf: IssuedLeaf, *extra: str) -> str:
        """The leaf with everything that goes with it, as a client gets it."""
        return leaf.cert_pem + "".join(self.chain.intermediate_pems) + "".join(extra)

    def sign_intermediate(self, csr: str) -> str:
        number = pki.serial(next(self.bench.numbers))
        return self.provider.sign_intermediate(IntermediateRequest(csr, number, self.bench.now))

    def cross_sign(self, cert_pem: str, not_after: int | None = None) -> str:
        end = not_after or self.bench.now + 30 * pki.DAY
        number = pki.serial(next(self.bench.numbers))
        return self.provider.cross_sign(CrossSignRequest(cert_pem, number, self.bench.now, end))


def _as_parameter(subject: Subject) -> ParameterSet:
    return pytest.param(subject, id=subject.name, marks=[pytest.mark.slow] if subject.backend else [])


@pytest.fixture(params=map(_as_parameter, PROVIDERS))
def bench(request: pytest.FixtureRequest) -> Iterator[Bench]:
    subject: Subject = request.param
    if subject.backend:
        backend = request.getfixturevalue(subject.backend)
        subject = replace(subject, fresh_config=backend.config)
    bench = Bench(subject)
    yield bench
    for provider in bench.made:
        provider.close()
