"""The contract of providers/api.py, held against every provider. How its certificates look inside is not asked here."""

import ssl
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization

from providers.api import CAChain, CrossSignRequest, IntermediateRequest, IssuedLeaf, Provider, ProviderSettings
from providers.errors import ChainInvalid, ConfigInvalid, CSRRejected, NotInitialized, NotSupported
from providers.pki import verify
from tests.contract.conftest import CA, Bench
from tests.kit import pki

Act = Callable[[Provider], object]


# --- life of a primary --------------------------------------------------------------------------------------------


def test_new_primary_has_no_chain_and_refuses_to_sign(bench: Bench) -> None:
    provider = bench.provider(bench.settings())
    assert provider.chain() is None
    with pytest.raises(NotInitialized):
        provider.generate_root()
    with pytest.raises(NotInitialized):
        provider.sign_leaf(pki.leaf_request(now=bench.now))
    [result] = provider.sign_leaves([pki.leaf_request(now=bench.now)])
    assert isinstance(result, NotInitialized)


def test_bootstrapped_primary_has_a_chain_that_verifies(bench: Bench) -> None:
    ca = bench.primary()
    assert ca.provider.chain() == ca.chain
    assert all(text.endswith("-----END CERTIFICATE-----\n") for text in _texts(ca.chain))
    verify.verify_ca(ca.chain, trust_domain=pki.TRUST_DOMAIN, now=bench.now)


def test_preparing_twice_keeps_the_first_intent(bench: Bench) -> None:
    provider = bench.provider(bench.settings())
    first = provider.prepare_root(bench.intent())
    assert provider.prepare_root(bench.intent()) == first


def test_crash_after_preparing_is_finished_by_another_instance_with_the_same_key(bench: Bench) -> None:
    settings = bench.settings()
    provider = bench.provider(settings)
    prepared = provider.prepare_root(bench.intent())
    committed = CA(bench, provider, CAChain("", ""), _with_state(settings, prepared))

    successor = committed.reopened()
    assert successor.chain() is None
    assert successor.prepare_root(bench.intent()) == prepared
    theirs, _ = successor.generate_root()

    # The first instance had done the same work, but died before its result was committed.
    ours, _ = provider.generate_root()
    assert pki.spki(pki.load(ours.root_pem).public_key()) == pki.spki(pki.load(theirs.root_pem).public_key())


def test_generating_again_after_a_crash_returns_the_same_root(bench: Bench) -> None:
    ca = bench.primary()
    assert ca.provider.generate_root() == (ca.chain, ca.settings.state)
    successor = ca.reopened()
    assert successor.chain() == ca.chain
    assert successor.generate_root() == (ca.chain, ca.settings.state)
    assert successor.prepare_root(bench.intent()) == ca.settings.state


@pytest.mark.parametrize("change", [{"LeafCertTTL": "24h"}, {"CSRMaxPerSecond": 0}, {"PrivateKeyType": "ec"}])
def test_change_that_is_no_change_of_key_keeps_the_chain(bench: Bench, change: dict[str, object]) -> None:
    ca = bench.primary()
    assert ca.reopened(**change).chain() == ca.chain


def test_bad_configuration_is_refused_and_not_mutated(bench: Bench) -> None:
    settings = bench.settings({"LeafCertTTL": "1m"})
    before = dict(settings.config)
    with pytest.raises(ConfigInvalid, match=r"leaf cert TTL must be greater or equal than 1h0m0s"):
        bench.subject.new().configure(settings)
    assert settings.config == before


def test_state_of_somebody_else_is_set_aside(bench: Bench) -> None:
    provider = bench.provider(_with_state(bench.settings(), b"\x81\xa1a\x01"))
    assert provider.chain() is None


# --- leaves -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", pki.IDENTITIES)
@pytest.mark.parametrize("key_kind", pki.LEAF_KINDS, ids=str)
def test_leaf_is_reported_as_it_is_and_verifies(bench: Bench, kind: str, key_kind: tuple[str, int]) -> None:
    ca = bench.primary()
    private = pki.key(*key_kind)
    leaf = ca.leaf(kind, private)
    cert = pki.load(leaf.cert_pem)
    assert leaf.public_key_sha256 == pki.key_id(cert.public_key()) == pki.key_id(private.public_key())
    assert (leaf.kind, leaf.name, leaf.spiffe_id) == (kind, pki.IDENTITIES[kind][1], ca.uri(kind))
    assert leaf.serial == cert.serial_number
    assert (leaf.not_before, leaf.not_after) == pki.times(cert)
    assert leaf.not_before <= bench.now < leaf.not_after < bench.now + 3 * pki.DAY
    assert leaf.issuer_key_id == pki.ski(pki.load(ca.chain.signing_cert_pem))
    verify.verify_leaf(ca.served(leaf), {"own": [ca.chain.root_pem]}, now=bench.now, spiffe_id=ca.uri(kind))


def test_leaf_never_outlives_what_signed_it(bench: Bench) -> None:
    # The smallest CA that the rules allow, and a leaf that is asked for when little of it is left.
    ca = bench.primary(LeafCertTTL="1h", IntermediateCertTTL="3h", RootCertTTL="3h")
    end = pki.times(pki.load(ca.chain.signing_cert_pem))[1]
    ca.bench.now = end - 600
    leaf = ca.leaf()
    assert leaf.not_after == end


def test_leaf_carries_requested_names_and_nothing_else_of_the_csr(bench: Bench) -> None:
    ca = bench.primary()
    names = pki.alt_names(uris=[pki.WEB], dns=["web.example.com", "*.ingress.consul"], ips=["10.0.0.1", "::1"])
    builder = x509.CertificateSigningRequestBuilder(subject_name=pki.name("I am root"))
    csr = (
        builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=9), critical=True)
        .add_extension(pki.key_usage(key_cert_sign=True), critical=True)
        .sign(pki.key(), hashes.SHA256())
    )
    leaf = ca.provider.sign_leaf(ca.request(csr.public_bytes(serialization.Encoding.PEM).decode()))
    cert = pki.load(leaf.cert_pem)
    found = pki.value_of(cert, x509.SubjectAlternativeName)
    assert set(found.get_values_for_type(x509.DNSName)) == {"web.example.com", "*.ingress.consul"}
    assert {str(ip) for ip in found.get_values_for_type(x509.IPAddress)} == {"10.0.0.1", "::1"}
    assert found.get_values_for_type(x509.UniformResourceIdentifier) == [pki.WEB]
    assert not pki.value_of(cert, x509.BasicConstraints).ca
    assert not pki.value_of(cert, x509.KeyUsage).key_cert_sign
    assert "I am root" not in cert.subject.rfc4514_string()


def test_agent_from_an_unknown_trust_domain_gets_ours(bench: Bench) -> None:
    ca = bench.primary()
    uri = "spiffe://dummy.trustdomain/agent/client/dc/dc1/id/node-1"
    leaf = ca.provider.sign_leaf(ca.request(pki.csr_pem(uri=uri)))
    assert leaf.spiffe_id == f"{pki.ROOT_URI}/agent/client/dc/dc1/id/node-1"
    assert pki.uris(pki.load(leaf.cert_pem)) == [leaf.spiffe_id]


@pytest.mark.parametrize(
    ("csr", "text"),
    [
        ("", "CSR is required"),
        ("nonsense", "no PEM-encoded data found"),
        (pki.csr_pem(uri=pki.ROOT_URI), "SPIFFE ID in CSR must be a service, mesh-gateway, or agent ID"),
        (pki.csr_pem(uri=pki.WEB.replace("dc1", "dc9")), "SPIFFE ID in CSR from a different datacenter: dc9, we are"),
        (pki.csr_pem(emails=["a@b.example"]), "CSR SAN does not allow specifying email addresses"),
    ],
)
def test_bad_csr_is_rejected_with_consuls_text(bench: Bench, csr: str, text: str) -> None:
    ca = bench.primary()
    with pytest.raises(CSRRejected, match=text):
        ca.provider.sign_leaf(ca.request(csr))


def test_batch_of_leaves_has_one_result_for_each_in_order(bench: Bench) -> None:
    ca = bench.primary()
    kinds = [*pki.IDENTITIES] * 3
    csrs = [ca.csr(kind, pki.key(number=number)) for number, kind in enumerate(kinds)]
    csrs.insert(5, "nonsense")
    results = ca.leaves(csrs)
    assert isinstance(results.pop(5), CSRRejected)
    leaves = [result for result in results if isinstance(result, IssuedLeaf)]
    assert [leaf.kind for leaf in leaves] == kinds
    keys = [pki.key_id(pki.key(number=number).public_key()) for number in range(len(kinds))]
    assert [leaf.public_key_sha256 for leaf in leaves] == keys
    assert len({leaf.serial for leaf in leaves}) == len(kinds)
    assert ca.leaves([]) == []


# --- renewal ------------------------------------------------------------------------------------------------------


def test_renewed_signing_certificate_is_another_key_below_the_same_root(bench: Bench) -> None:
    ca = bench.primary()
    if not ca.chain.intermediate_pems:
        with pytest.raises(NotSupported, match="the root itself signs leaves"):
            ca.provider.renew_signing_cert()
        return
    before = ca.leaf()
    chain, state = ca.provider.renew_signing_cert()
    assert chain.root_pem == ca.chain.root_pem
    verify.verify_ca(chain, trust_domain=pki.TRUST_DOMAIN, now=bench.now)
    old, new = pki.load(ca.chain.signing_cert_pem), pki.load(chain.signing_cert_pem)
    assert pki.spki(old.public_key()) != pki.spki(new.public_key())

    # Until it is committed, the old one stays in use; and an attempt that is repeated makes no third.
    assert ca.provider.chain() == ca.chain
    assert ca.leaf().issuer_key_id == before.issuer_key_id
    assert ca.provider.renew_signing_cert() == (chain, state)
    assert ca.reopened().renew_signing_cert() == (chain, state)

    renewed = CA(bench, bench.provider(_with_state(ca.settings, state)), chain, _with_state(ca.settings, state))
    assert renewed.provider.chain() == chain
    after = renewed.leaf()
    assert after.issuer_key_id == pki.ski(new) != before.issuer_key_id
    verify.verify_leaf(renewed.served(after), {"same root": [ca.chain.root_pem]}, now=bench.now)
    # Whoever has not yet heard of it can still sign: other processes of a node are told one by one.
    assert ca.leaf().issuer_key_id == before.issuer_key_id
    assert renewed.provider.renew_signing_cert()[0] != chain


def test_secondary_has_no_signing_certificate_to_renew_by_itself(bench: Bench) -> None:
    secondary = bench.secondary(bench.primary())
    with pytest.raises(NotSupported):
        secondary.provider.renew_signing_cert()


# --- secondary ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("key_kind", [("ec", 256), ("rsa", 2048)], ids=str)
def test_secondary_leaf_verifies_against_the_primary_root_alone(bench: Bench, key_kind: tuple[str, int]) -> None:
    primary = bench.primary()
    secondary = bench.secondary(primary, PrivateKeyType=key_kind[0], PrivateKeyBits=key_kind[1])
    assert secondary.chain.root_pem == primary.chain.root_pem
    verify.verify_ca(secondary.chain, trust_domain=pki.TRUST_DOMAIN, now=bench.now)
    assert pki.value_of(pki.load(secondary.chain.signing_cert_pem), x509.BasicConstraints).path_length == 0
    leaf = secondary.leaf()
    verify.verify_leaf(
        secondary.served(leaf), {"primary": [primary.chain.root_pem]}, now=bench.now, spiffe_id=secondary.uri()
    )
    with pytest.raises(ChainInvalid):  # the test can fail: without the intermediate there is no way up
        verify.verify_leaf(leaf.cert_pem, {"primary": [primary.chain.root_pem]}, now=bench.now)


def test_secondary_key_in_use_stays_until_the_new_one_is_certified(bench: Bench) -> None:
    primary = bench.primary()
    secondary = bench.secondary(primary)
    csr, state = secondary.provider.generate_intermediate_csr()
    assert secondary.provider.chain() == secondary.chain
    before = secondary.leaf()

    # Crash: another instance has what was committed, repeats the same CSR and goes on signing meanwhile.
    secondary.settings = _with_state(secondary.settings, state)
    secondary.provider = secondary.reopened()
    assert secondary.provider.chain() == secondary.chain
    assert secondary.leaf().issuer_key_id == before.issuer_key_id
    assert secondary.provider.generate_intermediate_csr() == (csr, state)

    chain, _ = secondary.provider.set_intermediate(primary.sign_intermediate(csr), primary.chain.root_pem)
    assert secondary.provider.chain() == chain
    secondary.chain = chain
    after = secondary.leaf()
    assert after.issuer_key_id == pki.ski(pki.load(chain.signing_cert_pem)) != before.issuer_key_id
    verify.verify_leaf(secondary.served(after), {"primary": [primary.chain.root_pem]}, now=bench.now)


def test_setting_the_same_intermediate_again_after_a_crash_changes_nothing(bench: Bench) -> None:
    primary = bench.primary()
    settings = bench.settings(is_primary=False)
    provider = bench.provider(settings)
    answer = primary.sign_intermediate(provider.generate_intermediate_csr()[0])
    chain, state = provider.set_intermediate(answer, primary.chain.root_pem)
    successor = bench.provider(_with_state(settings, state))
    assert successor.chain() == chain
    assert successor.set_intermediate(answer, primary.chain.root_pem) == (chain, state)


def test_intermediate_that_does_not_fit_is_refused_and_the_old_one_stays(bench: Bench) -> None:
    primary, stranger = bench.primary(), bench.primary()
    secondary = bench.secondary(primary)
    csr, _ = secondary.provider.generate_intermediate_csr()
    leaf = secondary.leaf()
    refusals = [
        ("", primary.chain.root_pem, "error parsing intermediate PEM: "),
        (leaf.cert_pem, primary.chain.root_pem, "intermediate is not a CA certificate"),
        (stranger.sign_intermediate(csr), primary.chain.root_pem, "could not verify intermediate cert against root: "),
        (_signed_for_another_key(primary), primary.chain.root_pem, "intermediate cert is for a different private key"),
    ]
    for intermediate, root, text in refusals:
        with pytest.raises(ChainInvalid, match=text):
            secondary.provider.set_intermediate(intermediate, root)
        assert secondary.provider.chain() == secondary.chain
    assert secondary.leaf().issuer_key_id == leaf.issuer_key_id


def test_intermediate_csr_of_another_domain_is_rejected(bench: Bench) -> None:
    primary = bench.primary()
    other = pki.csr_pem(uri="spiffe://99999999-2222-3333-4444-555555555555.consul")
    two = pki.csr_of(pki.key(), pki.alt_names(uris=[pki.ROOT_URI, pki.WEB]))
    with pytest.raises(CSRRejected, match=r'incoming CSR domain "spiffe://99.*" is not valid for our domain'):
        primary.sign_intermediate(other)
    with pytest.raises(CSRRejected, match="incoming CSR has unexpected number of URIs: 2"):
        primary.sign_intermediate(two.public_bytes(serialization.Encoding.PEM).decode())


# --- roles --------------------------------------------------------------------------------------------------------


def test_secondary_refuses_the_work_of_a_primary(bench: Bench) -> None:
    primary = bench.primary()
    provider = bench.secondary(primary).provider
    acts: list[Act] = [
        lambda p: p.prepare_root(bench.intent()),
        lambda p: p.generate_root(),
        lambda p: p.sign_intermediate(IntermediateRequest(pki.csr_pem(uri=pki.ROOT_URI), pki.serial(1), bench.now)),
    ]
    for act in acts:
        with pytest.raises(NotSupported, match="provider is not the root certificate authority"):
            act(provider)


def test_primary_refuses_the_work_of_a_secondary(bench: Bench) -> None:
    primary = bench.primary()
    with pytest.raises(NotSupported, match="cannot generate an intermediate CSR"):
        primary.provider.generate_intermediate_csr()
    with pytest.raises(NotSupported, match="cannot set an intermediate using another root in the primary"):
        primary.provider.set_intermediate(primary.chain.root_pem, primary.chain.root_pem)


# --- rotation -----------------------------------------------------------------------------------------------------

ROTATIONS = [(old, new) for old in pki.CA_KINDS[:4] for new in pki.CA_KINDS[:4]]


@pytest.mark.parametrize(("old_kind", "new_kind"), ROTATIONS, ids=str)
def test_leaf_of_the_new_root_verifies_in_every_trust_store(
    bench: Bench, old_kind: tuple[str, int], new_kind: tuple[str, int]
) -> None:
    old = bench.primary(PrivateKeyType=old_kind[0], PrivateKeyBits=old_kind[1])
    new = bench.primary(PrivateKeyType=new_kind[0], PrivateKeyBits=new_kind[1])
    assert old.provider.supports_cross_signing()
    cross = old.cross_sign(new.chain.root_pem)
    assert pki.load(cross).issuer == pki.load(old.chain.root_pem).subject
    secondary = bench.secondary(new)
    stores = {
        "old only": [old.chain.root_pem],
        "new only": [new.chain.root_pem],
        "both": [old.chain.root_pem, new.chain.root_pem],
    }
    for ca in (new, secondary):
        verify.verify_leaf(ca.served(ca.leaf(), cross), stores, now=bench.now)
    with pytest.raises(ChainInvalid, match="trust store 'old only'"):
        verify.verify_leaf(new.served(new.leaf()), stores, now=bench.now)


def test_second_rotation_away_from_a_root_of_another_kind_verifies(bench: Bench) -> None:
    """Consul failed here when it copied the signature algorithm of a cross-signed root (consul#10070)."""
    first = bench.primary(PrivateKeyType="rsa", PrivateKeyBits=2048)
    second = bench.primary()
    third = bench.primary(PrivateKeyType="ec", PrivateKeyBits=384)
    chain = third.served(third.leaf(), second.cross_sign(third.chain.root_pem), first.cross_sign(second.chain.root_pem))
    stores = {name: [ca.chain.root_pem] for name, ca in (("1", first), ("2", second), ("3", third))}
    verify.verify_leaf(chain, stores, now=bench.now)


def test_cross_signed_root_ends_with_the_first_of_request_and_both_roots(bench: Bench) -> None:
    short = bench.primary(LeafCertTTL="1h", IntermediateCertTTL="3h", RootCertTTL="5h")
    long = bench.primary()
    end = pki.times(pki.load(short.chain.root_pem))[1]
    assert pki.times(pki.load(short.cross_sign(long.chain.root_pem)))[1] == end
    assert pki.times(pki.load(long.cross_sign(short.chain.root_pem)))[1] == end
    assert pki.times(pki.load(long.cross_sign(short.chain.root_pem, bench.now + 999)))[1] == bench.now + 999


def test_cross_signing_what_is_expired_or_no_root_is_refused(bench: Bench) -> None:
    short = bench.primary(LeafCertTTL="1h", IntermediateCertTTL="3h", RootCertTTL="3h")
    long = bench.primary()
    later = bench.now + pki.DAY
    leaf = long.leaf()

    def attempt(signer: CA, cert_pem: str, now: int) -> None:
        signer.provider.cross_sign(CrossSignRequest(cert_pem, pki.serial(7), now, now + 2 * pki.DAY))

    for signer, cert_pem, now in (
        (short, long.chain.root_pem, later),
        (long, short.chain.root_pem, later),
        (long, leaf.cert_pem, bench.now),
        (long, "nonsense", bench.now),
    ):
        with pytest.raises(ChainInvalid):
            attempt(signer, cert_pem, now)


# --- in use -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("key_kind", pki.LEAF_KINDS, ids=str)
@pytest.mark.parametrize("ca_kind", pki.CA_KINDS[:4], ids=str)
def test_leaves_shake_hands_in_every_trust_store(
    bench: Bench, tmp_path: Path, ca_kind: tuple[str, int], key_kind: tuple[str, int]
) -> None:
    """A server of the new CA and a client of its secondary meet, while either side knows the old root or the new."""
    old = bench.primary()
    new = bench.primary(PrivateKeyType=ca_kind[0], PrivateKeyBits=ca_kind[1])
    secondary = bench.secondary(new)
    cross = old.cross_sign(new.chain.root_pem)
    private = pki.key(*key_kind)
    server = new.served(new.leaf(private=private), cross), private
    client = secondary.served(secondary.leaf(private=private), cross), private
    roots = {"old": [old.chain.root_pem], "new": [new.chain.root_pem]}
    for client_trusts, server_trusts in (("old", "new"), ("new", "old"), ("old", "old")):
        seen = pki.handshake(
            tmp_path, server, client, server_trusts=roots[server_trusts], client_trusts=roots[client_trusts]
        )
        assert seen == (secondary.uri(), new.uri())


def test_stranger_is_refused_in_the_handshake(bench: Bench, tmp_path: Path) -> None:
    ours, theirs = bench.primary(), bench.primary()
    good = ours.served(ours.leaf()), pki.key()
    bad = theirs.served(theirs.leaf()), pki.key()
    roots = [ours.chain.root_pem]
    assert pki.handshake(tmp_path, good, good, server_trusts=roots, client_trusts=roots)
    with pytest.raises(ssl.SSLError):
        pki.handshake(tmp_path, good, bad, server_trusts=roots, client_trusts=roots)
    with pytest.raises(ssl.SSLError):
        pki.handshake(tmp_path, bad, good, server_trusts=roots, client_trusts=roots)


@pki.needs_openssl
@pytest.mark.parametrize("ca_kind", pki.CA_KINDS[:4], ids=str)
def test_openssl_strict_accepts_leaf_in_every_trust_store(
    bench: Bench, tmp_path: Path, ca_kind: tuple[str, int]
) -> None:
    old = bench.primary()
    new = bench.primary(PrivateKeyType=ca_kind[0], PrivateKeyBits=ca_kind[1])
    cross = old.cross_sign(new.chain.root_pem)
    for ca in (new, bench.secondary(new)):
        for roots in ([old.chain.root_pem], [new.chain.root_pem], [old.chain.root_pem, new.chain.root_pem]):
            pki.openssl_verify(tmp_path, ca.served(ca.leaf(), cross), roots, now=bench.now)


# --- end ----------------------------------------------------------------------------------------------------------


def test_secrets_stay_out_of_what_operators_see(bench: Bench) -> None:
    ca = bench.primary(test_state={"foo": "bar"})
    shown = repr((ca.provider.public_state(), ca.settings, ca.chain, ca.provider))
    assert "PRIVATE KEY" not in shown
    assert repr(ca.settings.state) not in shown


def test_provider_at_work_has_nothing_to_warn_of(bench: Bench) -> None:
    assert list(bench.primary().provider.warnings()) == []


def test_finished_ca_wants_no_renewal_and_takes_no_root_over(bench: Bench) -> None:
    ca = bench.primary()
    for provider in (ca.provider, ca.reopened()):
        assert not provider.wants_renewal()
        assert provider.root_to_adopt() == ""


def test_fresh_configuration_has_no_root_to_take_over(bench: Bench) -> None:
    assert bench.provider(bench.settings()).root_to_adopt() == ""


def test_cleaning_up_and_closing_twice_does_no_harm(bench: Bench) -> None:
    ca = bench.primary()
    ca.provider.cleanup()
    ca.provider.cleanup()
    ca.provider.close()
    ca.provider.close()


def _with_state(settings: ProviderSettings, state: bytes) -> ProviderSettings:
    return replace(settings, state=state)


def _texts(chain: CAChain) -> list[str]:
    return [chain.root_pem, chain.signing_cert_pem, *chain.intermediate_pems]


def _signed_for_another_key(primary: CA) -> str:
    return primary.sign_intermediate(pki.csr_pem(pki.key(number=5), uri=pki.ROOT_URI))
