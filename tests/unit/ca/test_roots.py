"""From a provider's chain to the replicated root."""

import pytest

from cluster.ca.roots import intermediate_of, root_of
from fsm.ca import CAConfig, ProviderState
from fsm.ca_rules import broken_invariant
from fsm.state import State
from providers.pki import x509
from providers.pki.x509 import load_cert
from tests.kit import pki
from tests.unit.providers.test_builtin import chain_of, primary, primary_of_kind, secondary


def config_of(provider: str) -> CAConfig:
    return CAConfig(pki.CLUSTER_ID, provider, "1", "{}")


@pytest.mark.parametrize(("kind", "bits"), [("ec", 256), ("ec", 384), ("rsa", 2048)])
def test_root_that_signs_itself_is_described_whole(kind: str, bits: int) -> None:
    chain = chain_of(primary_of_kind((kind, bits)))
    cert = load_cert(chain.root_pem)
    root = root_of(chain, config_of("consul"), is_active=True, made_at=7)
    assert root.root_id == x509.root_id(chain.root_pem)
    assert root.name == "Consul CA Primary Cert"
    assert root.serial_number == cert.serial_number % (1 << 64)
    assert root.key_id == root.signing_key_id
    assert (root.private_key_type, root.private_key_bits) == (kind, bits)
    assert root.not_before == int(cert.not_valid_before_utc.timestamp())
    assert root.not_after == int(cert.not_valid_after_utc.timestamp())
    assert root.intermediates == ()
    assert root.external_trust_domain == pki.CLUSTER_ID
    assert root.provider_id == "1"
    assert root.is_active
    assert not root_of(chain, config_of("consul"), is_active=False, made_at=7).is_active


def test_root_with_an_intermediate_satisfies_the_state_machine() -> None:
    provider, _ = secondary(primary(1))
    chain = chain_of(provider)
    root = root_of(chain, config_of("aws-pca"), is_active=True, made_at=7)
    assert root.name == "Aws-Pca CA Primary Cert"
    assert root.signing_key_id != root.key_id
    [intermediate] = root.intermediates
    assert intermediate == intermediate_of(chain.intermediate_pems[0], 7)
    assert (intermediate.key_id, intermediate.issuer_key_id) == (root.signing_key_id, root.key_id)
    record = ProviderState("1", "consul", b"", is_prepared=True)
    state = State(config=config_of("consul"), roots=(root,), providers=(record,))
    assert broken_invariant(state) is None
