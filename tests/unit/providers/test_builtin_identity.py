"""Which change of configuration keeps the root and which makes another, and operators' keys (consul-compat 10.1)."""

from dataclasses import dataclass, field

import pytest

from providers.api import CAChain, ProviderSettings
from providers.builtin.provider import BuiltinProvider
from providers.builtin.state import private_key_fits
from providers.errors import ConfigInvalid
from tests.kit import pki
from tests.kit.pki import DAY, NOW, YEAR, intent, settings

K1, K2, RSA = pki.key(number=21), pki.key(number=22), pki.key("rsa", 2048, 23)
R1 = pki.pem(pki.root_certificate(K1, "R1", not_after=NOW + 10 * YEAR))
R1_AGAIN = pki.pem(pki.root_certificate(K1, "R1 again", not_after=NOW + 10 * YEAR))
R2 = pki.pem(pki.root_certificate(K2, "R2", not_after=NOW + 10 * YEAR))
OTHER_CLUSTER = "99999999-2222-3333-4444-555555555555"
K1_PEM, K2_PEM, RSA_PEM = (pki.key_pem(private) for private in (K1, K2, RSA))


@dataclass
class Operator:
    """Plays the caller: puts stored secrets back into each PUT, and commits what the provider returns."""

    state: bytes = b""
    secrets: dict[str, object] = field(default_factory=dict)
    rotations: int = -1  # the first root is none

    def put(self, **config: object) -> CAChain:
        if "PrivateKey" in config:
            self.secrets = {"PrivateKey": config["PrivateKey"]}
        elif not private_key_fits({**self.secrets, **config}):
            self.secrets = {}
        provider = BuiltinProvider()
        provider.configure(settings({**self.secrets, **config}, state=self.state))
        before = provider.chain()
        if before is None:
            self.rotations += 1
            provider.prepare_root(intent(self.rotations + 1))
        chain, self.state = provider.generate_root()
        assert before in (None, chain)
        return chain


def key_of(chain: CAChain) -> bytes:
    return pki.key_id(pki.load(chain.root_pem).public_key())


SAME: list[tuple[dict[str, object], dict[str, object]]] = [
    ({}, {}),
    ({}, {"LeafCertTTL": "24h", "IntermediateCertTTL": "1000h", "RootCertTTL": "9999h"}),
    ({}, {"CSRMaxPerSecond": 0, "CSRMaxConcurrent": 5, "SkipValidate": True}),
    ({}, {"PrivateKeyType": "ec", "PrivateKeyBits": 256}),
    ({"PrivateKeyType": "ec", "PrivateKeyBits": "256"}, {}),
    ({}, {"PrivateKey": "", "RootCert": ""}),
    ({}, {"Unknown": "x", "test_state": {"a": "b"}, "DisableCrossSigning": True}),
    ({"PrivateKey": K1_PEM}, {}),
    ({"PrivateKey": K1_PEM}, {"PrivateKey": K1_PEM}),
    ({"PrivateKey": K1_PEM}, {"PrivateKey": pki.key_pem(K1, "traditional")}),
    ({"PrivateKey": K1_PEM}, {"PrivateKeyType": "ec", "PrivateKeyBits": 256}),
    ({"PrivateKey": RSA_PEM}, {"LeafCertTTL": "24h"}),
    ({"PrivateKey": RSA_PEM}, {"PrivateKeyType": "rsa", "PrivateKeyBits": 2048}),
    ({"PrivateKey": K1_PEM, "RootCert": R1}, {}),
    ({"PrivateKey": K1_PEM, "RootCert": R1}, {"PrivateKey": K1_PEM}),
    ({"PrivateKey": K1_PEM, "RootCert": R1}, {"RootCert": R1}),
    ({"PrivateKey": K1_PEM, "RootCert": R1}, {"RootCert": f"a comment\n{R1.strip()}\r\n"}),
    ({"PrivateKey": K1_PEM, "RootCert": R1}, {"PrivateKey": K1_PEM, "RootCert": R1}),
]

NEW: list[tuple[dict[str, object], dict[str, object]]] = [
    ({}, {"PrivateKeyBits": 384}),
    ({}, {"PrivateKeyType": "rsa", "PrivateKeyBits": 2048}),
    ({"PrivateKeyBits": 384}, {}),
    ({}, {"PrivateKey": K1_PEM}),
    ({}, {"PrivateKey": K1_PEM, "RootCert": R1}),
    ({"PrivateKey": K1_PEM}, {"PrivateKey": K2_PEM}),
    ({"PrivateKey": K1_PEM}, {"PrivateKey": ""}),
    ({"PrivateKey": K1_PEM}, {"PrivateKeyBits": 384}),
    ({"PrivateKey": K1_PEM}, {"PrivateKeyType": "rsa", "PrivateKeyBits": 2048}),
    ({"PrivateKey": RSA_PEM}, {"PrivateKeyType": "ec"}),
    ({"PrivateKey": RSA_PEM}, {"PrivateKeyBits": 256}),
    ({"PrivateKey": RSA_PEM}, {"PrivateKey": K1_PEM, "PrivateKeyType": "rsa", "PrivateKeyBits": 2048}),
    ({"PrivateKey": K1_PEM, "RootCert": R1}, {"PrivateKey": ""}),
    ({"PrivateKey": K1_PEM, "RootCert": R1}, {"PrivateKey": K2_PEM, "RootCert": R2}),
    ({"PrivateKey": K1_PEM, "RootCert": R1}, {"RootCert": R1_AGAIN}),
    ({"PrivateKey": K1_PEM}, {"RootCert": R1}),
]


@pytest.mark.parametrize(("first", "second"), SAME)
def test_change_that_keeps_the_root(first: dict[str, object], second: dict[str, object]) -> None:
    operator = Operator()
    chain = operator.put(**first)
    assert operator.put(**second) == chain
    assert operator.rotations == 0


@pytest.mark.parametrize(("first", "second"), NEW)
def test_change_that_means_a_new_root(first: dict[str, object], second: dict[str, object]) -> None:
    operator = Operator()
    before = operator.put(**first)
    after = operator.put(**second)
    assert after != before
    assert operator.rotations == 1
    same_key = "RootCert" in second and "PrivateKey" not in second
    assert (key_of(after) == key_of(before)) is same_key
    # And it settles: a new leader, or the same PUT again, finds nothing to do.
    assert operator.put(**{name: value for name, value in second.items() if name != "PrivateKey"}) == after
    assert operator.rotations == 1


def test_cleared_key_stays_cleared_when_the_explicit_kind_is_left_out_again() -> None:
    """The old key does not come back from the store of secrets: type and bits go back to the default, a new key."""
    operator = Operator()
    operator.put(PrivateKey=K1_PEM)
    rsa = operator.put(PrivateKeyType="rsa", PrivateKeyBits=2048)
    after = operator.put()
    assert key_of(after) not in (pki.key_id(K1.public_key()), key_of(rsa))
    assert operator.rotations == 2


def test_cleared_key_is_not_generated_anew_at_every_start() -> None:
    operator = Operator()
    operator.put(PrivateKey=K1_PEM)
    chain = operator.put(PrivateKey="")
    assert operator.put(PrivateKey="") == chain
    assert operator.put() == chain


def test_supplied_key_without_root_gets_a_new_self_signed_root() -> None:
    operator = Operator()
    operator.put(PrivateKey=K1_PEM, RootCert=R1)
    chain = operator.put(PrivateKey=RSA_PEM)
    root = pki.assert_is_root(chain.root_pem, made=intent(2))
    assert pki.spki(root.public_key()) == pki.spki(RSA.public_key())


def test_supplied_root_is_served_as_it_is_and_signs() -> None:
    operator = Operator()
    chain = operator.put(PrivateKey=K1_PEM, RootCert=f"# ours\n{R1.strip()}")
    assert chain == CAChain(R1, R1)
    provider = BuiltinProvider()
    provider.configure(settings({"PrivateKey": K1_PEM}, state=operator.state))
    request = pki.leaf_request()
    pki.assert_is_leaf(provider.sign_leaf(request), R1, request)


def test_root_of_another_cluster_or_role_is_set_aside() -> None:
    operator = Operator()
    operator.put()
    provider = BuiltinProvider()
    provider.configure(settings(state=operator.state, is_primary=False))
    assert provider.chain() is None
    other = ProviderSettings(OTHER_CLUSTER, "dc1", True, {}, operator.state)
    provider.configure(other)
    assert provider.chain() is None


def test_intermediate_of_another_cluster_or_role_is_set_aside() -> None:
    """A primary that becomes a secondary takes over another trust domain, and so must its intermediate."""
    root_key = pki.key()
    root = pki.root_certificate(root_key)
    provider = BuiltinProvider()
    provider.configure(settings(is_primary=False))
    csr = pki.x509_csr(provider.generate_intermediate_csr()[0])
    extensions = pki.ca_extensions(csr.public_key(), pki.ski(root), path_length=0)
    answer = pki.certificate(csr.public_key(), root_key, extensions, subject="int")
    chain, state = provider.set_intermediate(pki.pem(answer), pki.pem(root))
    provider.configure(settings(state=state, is_primary=False))
    assert provider.chain() == chain
    provider.configure(settings(state=state))
    assert provider.chain() is None
    provider.configure(ProviderSettings(OTHER_CLUSTER, "dc2", False, {}, state))
    assert provider.chain() is None


@pytest.mark.parametrize(
    ("config", "text"),
    [
        ({"RootCert": R1}, "must provide a private key when providing a root cert"),
        ({"RootCert": R1, "PrivateKey": "", "LeafCertTTL": "1s"}, "must provide a private key when providing a root"),
        ({"PrivateKey": "nonsense"}, "PrivateKey cannot be used: no PEM-encoded data found"),
        ({"PrivateKey": R1}, "PrivateKey cannot be used: unknown PEM block type for signing key: CERTIFICATE"),
        ({"PrivateKey": [K1_PEM]}, "error decoding config: 1 error(s) decoding:"),
        (
            {"PrivateKey": K1_PEM, "RootCert": R1, "PrivateKeyBits": 384},
            "RootCert goes with a PrivateKey that is not of the kind",
        ),
    ],
)
def test_configuration_that_cannot_be_is_refused(config: dict[str, object], text: str) -> None:
    with pytest.raises(ConfigInvalid) as caught:
        BuiltinProvider().configure(settings(config))
    assert str(caught.value).startswith(text)
    assert "BEGIN" not in str(caught.value)


@pytest.mark.parametrize(
    ("root", "text"),
    [
        (R2, "is not the key of RootCert"),
        (pki.pem(pki.root_certificate(K1, not_after=NOW - DAY, not_before=NOW - YEAR)), "RootCert is valid from"),
        ("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----", "RootCert cannot be decoded"),
    ],
)
def test_supplied_root_that_cannot_be_used_is_refused_before_anything_is_made(root: str, text: str) -> None:
    operator = Operator()
    chain = operator.put(PrivateKey=K1_PEM)
    provider = BuiltinProvider()
    provider.configure(settings({"PrivateKey": K1_PEM, "RootCert": root}, state=operator.state))
    assert provider.chain() is None
    with pytest.raises(ConfigInvalid, match=text):
        provider.prepare_root(intent(9))
    # The old instance, and the old state, are as they were.
    assert operator.put() == chain


def test_root_that_changes_between_preparing_and_generating_is_checked_again() -> None:
    provider = BuiltinProvider()
    provider.configure(settings({"PrivateKey": K1_PEM, "RootCert": R1}))
    prepared = provider.prepare_root(intent())
    provider.configure(settings({"PrivateKey": K1_PEM, "RootCert": R2}, state=prepared))
    with pytest.raises(ConfigInvalid, match="is not the key of RootCert"):
        provider.generate_root()
    assert provider.chain() is None


def test_kept_root_stays_although_it_has_expired_meanwhile() -> None:
    """Trouble with the CA must not take away what is there: the caller warns, signing says why it cannot."""
    operator = Operator()
    short = pki.pem(pki.root_certificate(K1, not_after=NOW + DAY))
    operator.put(PrivateKey=K1_PEM, RootCert=short)
    provider = BuiltinProvider()
    provider.configure(settings({"PrivateKey": K1_PEM, "RootCert": short}, state=operator.state))
    assert provider.chain() == CAChain(short, short)


@pytest.mark.parametrize(
    ("config", "fits"),
    [
        ({}, True),
        ({"PrivateKey": ""}, True),
        ({"PrivateKey": "nonsense", "PrivateKeyType": "rsa"}, True),
        ({"PrivateKey": K1_PEM}, True),
        ({"PrivateKey": K1_PEM, "PrivateKeyType": "rsa", "PrivateKeyBits": 2048}, False),
        ({"privatekey": K1_PEM, "privatekeybits": "384"}, False),
        ({"PrivateKey": RSA_PEM, "PrivateKeyType": "rsa"}, True),
    ],
)
def test_caller_learns_whether_a_stored_key_still_counts(config: dict[str, object], fits: bool) -> None:
    assert private_key_fits(config) is fits
