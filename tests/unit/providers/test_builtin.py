"""The built-in provider: its certificates as whole objects, its state, and what a crash may leave behind."""

import functools
from dataclasses import replace

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization

from providers.api import CAChain, CrossSignRequest, IntermediateRequest
from providers.builtin import state as builtin_state
from providers.builtin.provider import BuiltinProvider
from providers.errors import ChainInvalid, ConfigInvalid, CSRRejected, NotInitialized, NotSupported
from providers.pki import verify
from tests.kit import pki
from tests.kit.pki import DAY, NOW, YEAR, intent, leaf_request, serial, settings


def primary(number: int = 1, **config: object) -> BuiltinProvider:
    provider = BuiltinProvider()
    provider.configure(settings(config))
    provider.prepare_root(intent(number))
    provider.generate_root()
    return provider


@functools.cache
def primary_of_kind(kind: tuple[str, int]) -> BuiltinProvider:
    """Shared between tests that only sign with it: RSA keys are slow to make."""
    return primary(PrivateKeyType=kind[0], PrivateKeyBits=kind[1])


def chain_of(provider: BuiltinProvider) -> CAChain:
    chain = provider.chain()
    assert chain is not None
    return chain


def secondary(parent: BuiltinProvider, **config: object) -> tuple[BuiltinProvider, bytes]:
    provider = BuiltinProvider()
    provider.configure(settings(config, is_primary=False))
    csr, _ = provider.generate_intermediate_csr()
    answer = parent.sign_intermediate(IntermediateRequest(csr, serial(50), NOW))
    _, state = provider.set_intermediate(answer, chain_of(parent).root_pem)
    return provider, state


def _pem(csr: x509.CertificateSigningRequest) -> str:
    return csr.public_bytes(serialization.Encoding.PEM).decode()


# --- root ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", pki.CA_KINDS, ids=str)
def test_generated_root_is_whole_and_the_chain_is_the_root_alone(kind: tuple[str, int]) -> None:
    provider = primary(PrivateKeyType=kind[0], PrivateKeyBits=kind[1])
    chain = chain_of(provider)
    root = pki.assert_is_root(chain.root_pem, made=intent())
    assert chain == CAChain(chain.root_pem, chain.root_pem)
    expected = pki.key(*kind).public_key()
    assert type(root.public_key()) is type(expected)
    assert root.public_key().key_size == expected.key_size  # type: ignore[union-attr]  # EC and RSA both have it


def test_root_ttl_is_that_of_the_preparation_even_if_the_configuration_changes_before_the_signature() -> None:
    provider = BuiltinProvider()
    provider.configure(settings({"RootCertTTL": "20000h"}))
    prepared = provider.prepare_root(intent())
    provider.configure(settings(state=prepared))
    chain, _ = provider.generate_root()
    pki.assert_is_root(chain.root_pem, made=intent(), ttl=20000 * 3600)


@pytest.mark.parametrize("kind", [("ec", 256), ("ec", 521), ("rsa", 2048)], ids=str)
def test_two_leaders_that_finish_the_same_preparation_make_the_same_root(kind: tuple[str, int]) -> None:
    """Same serial, so it must be the same certificate: RFC 6979 signatures."""
    config = {"PrivateKeyType": kind[0], "PrivateKeyBits": kind[1]}
    first, second = BuiltinProvider(), BuiltinProvider()
    first.configure(settings(config))
    prepared = first.prepare_root(intent())
    second.configure(settings(config, state=prepared))
    assert first.generate_root() == second.generate_root()


def test_root_is_not_served_when_it_does_not_verify(monkeypatch: pytest.MonkeyPatch) -> None:
    provider = BuiltinProvider()
    provider.configure(settings())
    provider.prepare_root(intent())

    def of_another_mesh(_: object, private: pki.PrivateKey) -> str:
        public = private.public_key()
        extensions = pki.ca_extensions(public, pki.key_id(public), uris=["spiffe://other.consul"])
        return pki.pem(pki.certificate(public, private, extensions, subject="root"))

    monkeypatch.setattr(provider, "_self_signed", of_another_mesh)
    with pytest.raises(ChainInvalid, match=r"signing certificate has URIs \['spiffe://other.consul'\]"):
        provider.generate_root()
    assert provider.chain() is None


# --- leaves -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ca_kind", pki.CA_KINDS, ids=str)
@pytest.mark.parametrize("key_kind", pki.LEAF_KINDS, ids=str)
def test_leaf_is_whole_for_every_pair_of_keys(ca_kind: tuple[str, int], key_kind: tuple[str, int]) -> None:
    provider = primary_of_kind(ca_kind)
    csr = pki.csr_pem(pki.key(*key_kind), dns=["web.example.com"], ips=["10.0.0.1", "2001:db8::1"])
    request = leaf_request(csr)
    pki.assert_is_leaf(provider.sign_leaf(request), chain_of(provider).root_pem, request)


@pytest.mark.parametrize("kind", pki.IDENTITIES)
def test_leaf_is_whole_for_every_kind_in_both_roles(kind: str) -> None:
    parent = primary_of_kind(("ec", 256))
    child, _ = secondary(parent)
    request = leaf_request(pki.csr_pem(uri=pki.IDENTITIES[kind][0]))
    for provider in (parent, child):
        pki.assert_is_leaf(provider.sign_leaf(request), chain_of(provider).signing_cert_pem, request, kind=kind)


@pytest.mark.parametrize("seconds", [1, 5, 10, 59, 300, 600])
def test_leaf_of_seconds_is_valid_when_it_is_issued(seconds: int) -> None:
    """SkipValidate permits TTLs of seconds: the usual minute of backdating would eat them up."""
    provider = primary(SkipValidate=True, LeafCertTTL=f"{seconds}s")
    leaf = provider.sign_leaf(leaf_request())
    pki.assert_is_leaf(leaf, chain_of(provider).root_pem, leaf_request(), ttl=seconds)
    assert leaf.not_before <= NOW < leaf.not_after <= NOW + seconds


def test_ttl_change_applies_to_the_next_leaf() -> None:
    provider = BuiltinProvider()
    provider.configure(settings())
    provider.prepare_root(intent())
    _, state = provider.generate_root()
    provider.configure(settings({"LeafCertTTL": "2h"}, state=state))
    request = leaf_request()
    pki.assert_is_leaf(provider.sign_leaf(request), chain_of(provider).root_pem, request, ttl=7200)


def test_leaf_is_capped_at_its_issuer_and_refused_after_it() -> None:
    provider = primary(LeafCertTTL="1h", IntermediateCertTTL="3h", RootCertTTL="3h")
    late = leaf_request(now=NOW + 3 * 3600 - 10)
    pki.assert_is_leaf(provider.sign_leaf(late), chain_of(provider).root_pem, late, ttl=3600)
    with pytest.raises(ChainInvalid, match="the signing certificate has expired"):
        provider.sign_leaf(leaf_request(now=NOW + 3 * 3600 + 1))


def test_leaf_of_another_second_has_its_own_validity() -> None:
    provider = primary()
    for now in (NOW, NOW + 1, NOW + 1, NOW):
        request = leaf_request(now=now)
        pki.assert_is_leaf(provider.sign_leaf(request), chain_of(provider).root_pem, request)


@pytest.mark.parametrize("bad", [0, -1, 1 << 159])
def test_serial_that_no_certificate_may_have_is_a_defect_of_the_caller(bad: int) -> None:
    with pytest.raises(ValueError, match="at most 20 octets"):
        primary().sign_leaf(replace(leaf_request(), serial=bad))


def test_leaf_before_the_root_has_begun_is_signed() -> None:
    """Clocks differ; a not-yet-valid root is accepted on purpose (consul-compat 3)."""
    provider = primary()
    assert provider.sign_leaf(leaf_request(now=NOW - 30)).not_before == NOW - 90


def test_first_leaf_of_every_combination_is_verified_and_the_others_are_not(monkeypatch: pytest.MonkeyPatch) -> None:
    provider = primary()
    seen: list[str | None] = []
    monkeypatch.setattr(verify, "verify_leaf", lambda *_, now, spiffe_id: seen.append(spiffe_id))
    ec_csr, rsa_csr = pki.csr_pem(), pki.csr_pem(pki.key("rsa", 2048))
    agent = pki.csr_pem(uri=pki.IDENTITIES["agent"][0])
    for csr in (ec_csr, ec_csr, rsa_csr, agent, rsa_csr, agent):
        provider.sign_leaf(leaf_request(csr))
    assert seen == [pki.WEB, pki.WEB, pki.IDENTITIES["agent"][0]]


def test_leaf_that_does_not_verify_is_never_returned_and_asked_for_again(monkeypatch: pytest.MonkeyPatch) -> None:
    provider = primary()
    calls = []

    def refuse(*_: object, **__: object) -> None:
        calls.append(1)
        raise ChainInvalid("no")

    monkeypatch.setattr(verify, "verify_leaf", refuse)
    for _ in range(2):
        with pytest.raises(ChainInvalid):
            provider.sign_leaf(leaf_request())
    assert len(calls) == 2


def test_every_leaf_below_name_constraints_is_verified() -> None:
    private = pki.key()
    public = private.public_key()
    constraints = x509.NameConstraints([x509.DNSName("consul")], None)
    extensions = [*pki.ca_extensions(public, pki.key_id(public)), (constraints, True)]
    root = pki.pem(pki.certificate(public, private, extensions, subject="mine", issuer="mine"))
    provider = primary(PrivateKey=pki.key_pem(private), RootCert=root)
    provider.sign_leaf(leaf_request(pki.csr_pem(dns=["web.service.consul"])))
    with pytest.raises(CSRRejected, match=r"'www\.example\.com', which not every trusted CA may vouch for"):
        provider.sign_leaf(leaf_request(pki.csr_pem(dns=["www.example.com"])))


# --- intermediates ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("root_kind", pki.CA_KINDS[:4], ids=str)
def test_intermediate_is_whole(root_kind: tuple[str, int]) -> None:
    parent = primary_of_kind(root_kind)
    child = BuiltinProvider()
    child.configure(settings({"PrivateKeyType": "ec", "PrivateKeyBits": 384}, is_primary=False))
    csr, _ = child.generate_intermediate_csr()
    answer = parent.sign_intermediate(IntermediateRequest(csr, serial(50), NOW))
    request = pki.x509_csr(csr)
    cert = pki.assert_is_intermediate(answer, pki.load(chain_of(parent).root_pem), request, number=50)
    assert pki.times(cert)[0] == NOW - 60
    assert cert.subject == request.subject
    assert cert.subject.rfc4514_string().startswith("CN=sec-")
    chain, _ = child.set_intermediate(answer, chain_of(parent).root_pem)
    assert chain == CAChain(chain_of(parent).root_pem, answer, (answer,))


def test_intermediate_for_a_nameless_csr_gets_a_name() -> None:
    """Consul's own secondaries send an empty subject; a leaf's issuer must never be empty (consul-compat 10.2)."""
    parent = primary()
    csr = pki.csr_of(pki.key(), [])
    answer = parent.sign_intermediate(IntermediateRequest(_pem(csr), serial(50), NOW))
    cert = pki.assert_is_intermediate(answer, pki.load(chain_of(parent).root_pem), csr, number=50)
    assert cert.subject.rfc4514_string().startswith("CN=sec-")
    again = parent.sign_intermediate(IntermediateRequest(_pem(csr), serial(50), NOW))
    assert again == answer


def test_intermediate_ends_with_its_root_and_is_not_made_after_it() -> None:
    parent = primary(LeafCertTTL="1h", IntermediateCertTTL="3h", RootCertTTL="3h")
    csr = _pem(pki.csr_of(pki.key(), []))
    answer = parent.sign_intermediate(IntermediateRequest(csr, serial(50), NOW + 3600))
    assert pki.times(pki.load(answer)) == (NOW + 3540, NOW + 3 * 3600)
    with pytest.raises(ChainInvalid, match="root certificate is expired"):
        parent.sign_intermediate(IntermediateRequest(csr, serial(50), NOW + 3 * 3600))


def test_intermediate_with_the_name_of_the_root_is_refused() -> None:
    parent = primary()
    csr = pki.csr_of(pki.key(), [], subject=f"pri-{intent().uid}.consul.ca.{pki.CLUSTER_ID[:8]}.consul")
    with pytest.raises(CSRRejected, match="must not be the name of the root"):
        parent.sign_intermediate(IntermediateRequest(_pem(csr), serial(50), NOW))


def test_root_without_room_for_intermediates_refuses_them_and_does_not_cross_sign(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The release before took such a root. This one does not take it, and goes on with one that is there."""
    private = pki.key()
    public = private.public_key()
    extensions = pki.ca_extensions(public, pki.key_id(public), path_length=0)
    root = pki.pem(pki.certificate(public, private, extensions, subject="mine", issuer="mine"))
    with pytest.raises(ConfigInvalid, match=r"allows no CA below it \(path length 0\)"):
        primary(PrivateKey=pki.key_pem(private), RootCert=root)
    with monkeypatch.context() as release_before:
        rules = tuple(rule for rule in verify._ROOT_RULES if rule is not verify._rule_path_length)
        release_before.setattr(verify, "_ROOT_RULES", rules)
        parent = primary(PrivateKey=pki.key_pem(private), RootCert=root)
    parent.sign_leaf(leaf_request())
    with pytest.raises(ChainInvalid, match="CN=mine allows 0 CAs below it, not 1"):
        parent.sign_intermediate(IntermediateRequest(_pem(pki.csr_of(pki.key(), [])), serial(50), NOW))
    with pytest.raises(ChainInvalid, match="CN=mine allows 0 CAs below it, not 1"):
        parent.cross_sign(CrossSignRequest(chain_of(primary(2)).root_pem, serial(60), NOW, NOW + DAY))


def test_answer_to_an_older_csr_does_not_disturb_the_pending_one() -> None:
    parent = primary()
    child, _ = secondary(parent)
    before = chain_of(child)
    csr, _ = child.generate_intermediate_csr()
    chain, _ = child.set_intermediate(before.signing_cert_pem, before.root_pem)
    assert chain == before
    assert child.generate_intermediate_csr()[0] == csr


def test_root_that_comes_along_with_the_intermediate_is_not_served_twice() -> None:
    parent = primary()
    child = BuiltinProvider()
    child.configure(settings(is_primary=False))
    csr, _ = child.generate_intermediate_csr()
    answer = parent.sign_intermediate(IntermediateRequest(csr, serial(50), NOW))
    root = chain_of(parent).root_pem
    chain, _ = child.set_intermediate(answer + root, root)
    assert chain.intermediate_pems == (answer,)


def test_intermediate_before_any_csr_is_refused() -> None:
    parent = primary()
    answer = parent.sign_intermediate(IntermediateRequest(_pem(pki.csr_of(pki.key(), [])), serial(50), NOW))
    child = BuiltinProvider()
    child.configure(settings(is_primary=False))
    with pytest.raises(NotInitialized, match="no intermediate CSR has been generated"):
        child.set_intermediate(answer, chain_of(parent).root_pem)


@pytest.mark.parametrize(
    ("uris", "text"),
    [
        ((), "incoming intermediate cert has unexpected number of URIs: 0"),
        ((pki.ROOT_URI, pki.WEB), "incoming intermediate cert has unexpected number of URIs: 2"),
        (("spiffe://x.consul",), f'incoming cert URI "spiffe://x.consul" does not match current URI: "{pki.ROOT_URI}"'),
    ],
)
def test_intermediate_with_other_uris_is_refused_in_consuls_words(uris: tuple[str, ...], text: str) -> None:
    child = BuiltinProvider()
    child.configure(settings(is_primary=False))
    csr, _ = child.generate_intermediate_csr()
    public, root_key = pki.x509_csr(csr).public_key(), pki.key()
    root = pki.root_certificate(root_key)
    extensions = pki.ca_extensions(public, pki.ski(root), path_length=0, uris=uris)
    answer = pki.pem(pki.certificate(public, root_key, extensions, subject="int"))
    with pytest.raises(ChainInvalid) as caught:
        child.set_intermediate(answer, pki.pem(root))
    assert str(caught.value) == text


def test_change_of_key_kind_in_a_secondary_asks_for_a_new_intermediate() -> None:
    child, state = secondary(primary())
    again = BuiltinProvider()
    again.configure(settings({"LeafCertTTL": "2h"}, is_primary=False, state=state))
    assert again.chain() == chain_of(child)
    again.configure(settings({"PrivateKeyBits": 384}, is_primary=False, state=state))
    assert again.chain() is None
    csr, _ = again.generate_intermediate_csr()
    assert pki.x509_csr(csr).public_key().key_size == 384  # type: ignore[union-attr]


def test_private_key_setting_of_a_secondary_changes_nothing() -> None:
    """In a secondary it never was the key that signs (consul-compat 1.3)."""
    child, state = secondary(primary())
    again = BuiltinProvider()
    again.configure(settings({"PrivateKey": pki.key_pem(pki.key(number=9))}, is_primary=False, state=state))
    assert again.chain() == chain_of(child)


# --- cross-signing ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("old_kind", pki.CA_KINDS[:4], ids=str)
@pytest.mark.parametrize("new_kind", pki.CA_KINDS[:4], ids=str)
def test_cross_signed_root_is_whole(old_kind: tuple[str, int], new_kind: tuple[str, int]) -> None:
    old = primary_of_kind(old_kind)
    new = primary(2, PrivateKeyType=new_kind[0], PrivateKeyBits=new_kind[1])
    request = CrossSignRequest(chain_of(new).root_pem, serial(60), NOW, NOW + 30 * DAY)
    cross = old.cross_sign(request)
    old_root, new_root = pki.load(chain_of(old).root_pem), pki.load(chain_of(new).root_pem)
    cert = pki.assert_is_cross_signed(cross, new_root, old_root, number=60, not_after=NOW + 30 * DAY)
    assert pki.times(cert)[0] == NOW - 60
    assert old.cross_sign(request) == cross


@pytest.mark.parametrize(("seconds", "begin"), [(1, NOW - 60), (3000, NOW - 60), (7200, NOW + 7200 - 60)])
def test_cross_signature_of_a_root_that_was_just_made_begins_with_it(seconds: int, begin: int) -> None:
    """However long the rotation was held up: who knows what the new root has signed knows this, too."""
    new = chain_of(primary(2)).root_pem
    cross = primary().cross_sign(CrossSignRequest(new, serial(60), NOW + seconds, NOW + 30 * DAY))
    assert pki.times(pki.load(cross))[0] == begin


def test_root_renewed_with_the_same_key_and_name_can_be_cross_signed() -> None:
    private = pki.key()
    first, second = (pki.pem(pki.root_certificate(private, "mine", not_after=NOW + n * YEAR)) for n in (1, 2))
    old = primary(PrivateKey=pki.key_pem(private), RootCert=first)
    new = primary(PrivateKey=pki.key_pem(private), RootCert=second)
    cross = old.cross_sign(CrossSignRequest(second, serial(60), NOW, NOW + DAY))
    leaf = new.sign_leaf(leaf_request())
    verify.verify_leaf(leaf.cert_pem + cross, {"old": [first], "new": [second], "both": [first, second]}, now=NOW)


def test_cross_signing_can_be_switched_off() -> None:
    old = primary(DisableCrossSigning="true")
    assert not old.supports_cross_signing()
    with pytest.raises(NotSupported, match="cross-signing disabled"):
        old.cross_sign(CrossSignRequest(chain_of(primary(2)).root_pem, serial(60), NOW, NOW + DAY))


def test_secondary_does_not_cross_sign() -> None:
    parent = primary()
    child, _ = secondary(parent)
    assert not child.supports_cross_signing()
    with pytest.raises(NotSupported):
        child.cross_sign(CrossSignRequest(chain_of(parent).root_pem, serial(60), NOW, NOW + DAY))


def test_cross_signing_something_self_made_that_is_no_proof_is_refused() -> None:
    public = pki.key(number=30).public_key()
    forged = pki.certificate(
        public, pki.key(), pki.ca_extensions(public, pki.key_id(public)), subject="new", issuer="new"
    )
    with pytest.raises(ChainInvalid):
        primary().cross_sign(CrossSignRequest(pki.pem(forged), serial(60), NOW, NOW + DAY))


def test_expired_roots_are_not_cross_signed_and_do_not_sign() -> None:
    """Whichever it is, and whatever the other verifications would find, the reason says so."""
    short = primary(LeafCertTTL="1h", IntermediateCertTTL="3h", RootCertTTL="3h")
    long = primary(2)
    later = NOW + DAY
    with pytest.raises(ChainInvalid, match=r"^root certificate is expired$"):
        short.cross_sign(CrossSignRequest(chain_of(long).root_pem, serial(60), later, later + DAY))
    with pytest.raises(ChainInvalid, match=r"^certificate to cross-sign is expired$"):
        long.cross_sign(CrossSignRequest(chain_of(short).root_pem, serial(60), later, later + DAY))


def test_cross_signing_that_would_end_at_once_is_refused() -> None:
    new = chain_of(primary(2)).root_pem
    with pytest.raises(ChainInvalid, match="would end before it is issued"):
        primary().cross_sign(CrossSignRequest(new, serial(60), NOW, NOW))


# --- life ---------------------------------------------------------------------------------------------------------


def test_nothing_works_before_configure_or_after_close() -> None:
    fresh, closed = BuiltinProvider(), primary()
    closed.close()
    for provider in (fresh, closed):
        assert provider.chain() is None
        assert provider.public_state() == {}
        assert not provider.supports_cross_signing()
        with pytest.raises(NotInitialized):
            provider.sign_leaf(leaf_request())
        with pytest.raises(NotInitialized):
            provider.prepare_root(intent())


def test_test_state_is_shown_as_public_state() -> None:
    """Consul's own API test reads it back (consul-compat 9)."""
    provider = primary(test_state={"foo": "bar", "n": 1})
    assert provider.public_state() == {"foo": "bar", "n": "1"}
    assert primary().public_state() == {}


def test_state_with_a_key_that_is_not_the_certificates_is_set_aside() -> None:
    provider = BuiltinProvider()
    provider.configure(settings())
    provider.prepare_root(intent())
    _, state = provider.generate_root()
    decoded = builtin_state.decode(state)
    assert isinstance(decoded, builtin_state.PrimaryState)
    stranger = pki.key(number=40).private_bytes(
        serialization.Encoding.DER, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    for broken in (
        replace(decoded, key_der=stranger),
        replace(decoded, key_der=b"\x30\x00"),
        replace(decoded, root_pem="nonsense"),
    ):
        provider.configure(settings(state=builtin_state.encode(broken)))
        assert provider.chain() is None
