"""The provider over real sockets, and what is behind them is no Vault."""

from collections.abc import Iterator

import pytest

from providers.api import ProviderSettings
from providers.errors import ProviderError
from providers.vault.provider import VaultProvider
from tests.kit import pki
from tests.kit.hostile_vault import MODES, HostileVault, hostile_vault

pytestmark = pytest.mark.slow


@pytest.fixture
def hostile() -> Iterator[HostileVault]:
    with hostile_vault() as vault:
        yield vault


def make_root(provider: VaultProvider, settings: ProviderSettings) -> None:
    provider.configure(settings)
    provider.prepare_root(pki.intent())
    provider.generate_root()


@pytest.mark.parametrize("is_far", [False, True], ids=["at once", "far"])
@pytest.mark.parametrize("mode", MODES)
def test_whatever_is_answered_is_a_failure_in_few_words(hostile: HostileVault, mode: str, *, is_far: bool) -> None:
    hostile.mode, hostile.is_far = mode, is_far
    config = {"Address": hostile.address, "Token": "t", "RootPKIPath": "r", "IntermediatePKIPath": "i"}
    provider = VaultProvider()
    try:
        with pytest.raises(ProviderError) as caught:
            make_root(provider, ProviderSettings(pki.CLUSTER_ID, "dc1", True, config))
        assert len(str(caught.value)) < 1200
        assert str(caught.value).isprintable()
        assert hostile.answered[mode]
        assert hostile.trapped == 0
    finally:
        provider.close()
