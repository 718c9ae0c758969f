"""Independent verification: every rule, broken one at a time in certificates made by hand."""

from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID

from providers.api import CAChain
from providers.errors import ChainInvalid, ConfigInvalid
from providers.pki import verify
from tests.kit import pki
from tests.kit.pki import CLUSTER_ID, DAY, NOW, ROOT_URI, TRUST_DOMAIN, WEB, YEAR

Extensions = list[tuple[x509.ExtensionType, bool]]

ROOT_KEY, MIDDLE_KEY, LEAF_KEY = (pki.key(number=number) for number in (10, 11, 12))
ROOT = pki.root_certificate(ROOT_KEY, not_after=NOW + 10 * YEAR)
ROOT_ID, MIDDLE_ID = (pki.key_id(private.public_key()) for private in (ROOT_KEY, MIDDLE_KEY))


def _middle(change: Callable[[Extensions], Extensions] = list, **options: object) -> x509.Certificate:
    extensions = change(pki.ca_extensions(MIDDLE_KEY.public_key(), ROOT_ID, path_length=0))
    given = {"subject": "middle", "issuer": "root", **options}
    return pki.certificate(MIDDLE_KEY.public_key(), ROOT_KEY, extensions, **given)  # type: ignore[arg-type]


def _leaf(change: Callable[[Extensions], Extensions] = list, **options: object) -> x509.Certificate:
    extensions = change(pki.leaf_extensions(LEAF_KEY.public_key(), MIDDLE_ID))
    given = {"issuer": "middle", "not_after": NOW + DAY, **options}
    return pki.certificate(LEAF_KEY.public_key(), MIDDLE_KEY, extensions, **given)  # type: ignore[arg-type]


def _verify(leaf: x509.Certificate, *middle: x509.Certificate, root: x509.Certificate = ROOT, now: int = NOW) -> None:
    chain = "".join(map(pki.pem, (leaf, *middle)))
    verify.verify_leaf(chain, {"only": [pki.pem(root)]}, now=now)


def _replace(kind: type, value: x509.ExtensionType, critical: bool) -> Callable[[Extensions], Extensions]:
    return lambda extensions: [*pki.without(extensions, kind), (value, critical)]


def _drop(kind: type) -> Callable[[Extensions], Extensions]:
    return lambda extensions: pki.without(extensions, kind)


# --- leaves -------------------------------------------------------------------------------------------------------


def test_faultless_chain_verifies() -> None:
    _verify(_leaf(), _middle())
    verify.verify_leaf(pki.pem(_leaf()) + pki.pem(_middle()), {"only": [pki.pem(ROOT)]}, now=NOW, spiffe_id=WEB)


SAN = x509.SubjectAlternativeName
SIGN = pki.key_usage(digital_signature=True)

BROKEN_LEAVES = [
    (_leaf(_replace(x509.KeyUsage, pki.key_usage(key_agreement=True), True)), "leaf may not sign"),
    (
        _leaf(_replace(x509.KeyUsage, pki.key_usage(digital_signature=True, key_cert_sign=True), True)),
        "leaf may sign certificates",
    ),
    (_leaf(_drop(x509.KeyUsage)), "leaf may not sign"),
    (_leaf(_replace(x509.BasicConstraints, x509.BasicConstraints(True, None), True)), "leaf is a CA certificate"),
    (_leaf(_drop(x509.ExtendedKeyUsage)), "leaf is not for TLS client and server alone"),
    (
        _leaf(_replace(x509.ExtendedKeyUsage, x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]), False)),
        "leaf is not for TLS client and server alone",
    ),
    (
        _leaf(_replace(SAN, SAN(pki.alt_names(uris=[WEB])), False)),
        "must be critical if, and only if, its subject is empty",
    ),
    (_leaf(subject="web"), "must be critical if, and only if, its subject is empty"),
    (_leaf(_drop(SAN)), "must be critical if, and only if, its subject is empty"),
    (_leaf(_replace(SAN, SAN(pki.alt_names(dns=["web"])), True)), "leaf has 0 URIs, expected one SPIFFE ID"),
    (_leaf(_replace(SAN, SAN(pki.alt_names(uris=[WEB, WEB])), True)), "leaf has 2 URIs"),
    (_leaf(_replace(SAN, SAN(pki.alt_names(uris=["https://x"])), True)), "leaf's URI is not usable"),
    (_leaf(_replace(SAN, SAN(pki.alt_names(uris=[ROOT_URI])), True)), "leaf carries the SPIFFE ID of a CA"),
    (
        _leaf(_replace(SAN, SAN(pki.alt_names(uris=[WEB.replace("1111", "2222")])), True)),
        "is signed below CN=middle of",
    ),
    (_leaf(not_after=NOW + 2 * YEAR), "outlives its issuer"),
    (_leaf(not_before=NOW - 2 * DAY, not_after=NOW - DAY), "trust store 'only': no valid path"),
    (_leaf(issuer="root"), "chain is out of order"),
    (
        _leaf(_replace(x509.AuthorityKeyIdentifier, x509.AuthorityKeyIdentifier(ROOT_ID, None, None), False)),
        "names issuer key",
    ),
    (_leaf(_drop(x509.AuthorityKeyIdentifier)), "no valid path"),
]


@pytest.mark.parametrize(("leaf", "text"), BROKEN_LEAVES)
def test_broken_leaf_is_refused(leaf: x509.Certificate, text: str) -> None:
    with pytest.raises(ChainInvalid, match=text):
        _verify(leaf, _middle())


def test_leaf_for_somebody_else_is_refused() -> None:
    with pytest.raises(ChainInvalid, match="expected spiffe://other"):
        verify.verify_leaf(
            pki.pem(_leaf()) + pki.pem(_middle()), {"only": [pki.pem(ROOT)]}, now=NOW, spiffe_id="spiffe://other"
        )


def test_leaf_signed_by_another_key_is_refused() -> None:
    forged = pki.certificate(
        LEAF_KEY.public_key(), LEAF_KEY, pki.leaf_extensions(LEAF_KEY.public_key(), MIDDLE_ID), issuer="middle"
    )
    with pytest.raises(ChainInvalid, match="no valid path"):
        _verify(forged, _middle())


def test_missing_intermediate_or_root_is_refused() -> None:
    with pytest.raises(ChainInvalid, match="no valid path"):
        _verify(_leaf())
    other = pki.root_certificate(pki.key(number=13))
    with pytest.raises(ChainInvalid, match="trust store 'only': no valid path"):
        _verify(_leaf(), _middle(), root=other)


def test_text_that_is_no_chain_is_refused() -> None:
    for chain, roots in (("", pki.pem(ROOT)), (pki.pem(_leaf()), "nonsense")):
        with pytest.raises(ChainInvalid, match="cannot be decoded"):
            verify.verify_leaf(chain, {"only": [roots]}, now=NOW)


def test_store_that_fails_is_named_among_several() -> None:
    other = pki.root_certificate(pki.key(number=13))
    stores = {"both": [pki.pem(ROOT), pki.pem(other)], "new only": [pki.pem(other)]}
    with pytest.raises(ChainInvalid, match=r"^trust store 'new only': "):
        verify.verify_leaf(pki.pem(_leaf()) + pki.pem(_middle()), stores, now=NOW)


def test_chain_that_has_not_begun_is_accepted_on_purpose() -> None:
    _verify(_leaf(), _middle(), now=NOW - 300)


def test_expired_intermediate_is_refused() -> None:
    with pytest.raises(ChainInvalid, match="no valid path"):
        _verify(_leaf(not_after=NOW + YEAR), _middle(), now=NOW + YEAR + 1)


# --- CAs ----------------------------------------------------------------------------------------------------------

CA_ONLY = pki.key_usage(digital_signature=True, crl_sign=True)

BROKEN_CAS = [
    (_replace(x509.BasicConstraints, x509.BasicConstraints(False, None), True), "is not a CA certificate"),
    (_replace(x509.BasicConstraints, x509.BasicConstraints(True, 0), False), "is not a CA certificate"),
    (_drop(x509.BasicConstraints), "is not a CA certificate"),
    (_replace(x509.KeyUsage, CA_ONLY, True), "may not sign certificates"),
    (_drop(x509.KeyUsage), "may not sign certificates"),
    (_drop(x509.SubjectKeyIdentifier), "has no subject key identifier"),
    (_replace(SAN, SAN(pki.alt_names(uris=["spiffe://x.consul"])), False), "expected spiffe://11111111"),
    (_drop(SAN), r"signing certificate has URIs \[\], expected spiffe://11111111"),
    (
        _replace(x509.AuthorityKeyIdentifier, x509.AuthorityKeyIdentifier(MIDDLE_ID, None, None), False),
        "names issuer key",
    ),
]


def _chain(*intermediates: x509.Certificate, root: x509.Certificate = ROOT) -> CAChain:
    signing = intermediates[0] if intermediates else root
    return CAChain(pki.pem(root), pki.pem(signing), tuple(map(pki.pem, intermediates)))


def _verify_ca(chain: CAChain, now: int = NOW) -> None:
    verify.verify_ca(chain, trust_domain=TRUST_DOMAIN, now=now)


def test_faultless_root_and_intermediate_verify() -> None:
    _verify_ca(_chain())
    _verify_ca(_chain(_middle()))


@pytest.mark.parametrize(("change", "text"), BROKEN_CAS)
def test_broken_intermediate_is_refused(change: Callable[[Extensions], Extensions], text: str) -> None:
    with pytest.raises(ChainInvalid, match=text):
        _verify_ca(_chain(_middle(change)))


def test_intermediate_without_a_name_is_refused() -> None:
    """A leaf below it would have an empty issuer, which strict verifiers refuse (consul-compat 2)."""
    with pytest.raises(ChainInvalid, match="empty subject"):
        _verify_ca(_chain(_middle(subject="")))


def test_intermediate_that_outlives_its_root_is_refused() -> None:
    with pytest.raises(ChainInvalid, match="outlives its issuer"):
        _verify_ca(_chain(_middle(not_after=NOW + 11 * YEAR)))


def test_chain_in_disorder_is_refused() -> None:
    with pytest.raises(ChainInvalid, match="not the first of the chain"):
        _verify_ca(CAChain(pki.pem(ROOT), pki.pem(ROOT), (pki.pem(_middle()),)))
    with pytest.raises(ChainInvalid, match="out of order"):
        _verify_ca(_chain(_middle(), _middle()))


def test_expired_root_is_refused() -> None:
    with pytest.raises(ChainInvalid, match="no valid path"):
        _verify_ca(_chain(), now=NOW + 11 * YEAR)


def test_leaf_may_outlive_the_cross_signed_certificate_of_its_issuer() -> None:
    """That one lasts as long as clients know the old root alone; the issuer's own root lasts longer."""
    old_key = pki.key(number=14)
    old = pki.root_certificate(old_key, "old", not_after=NOW + 10 * YEAR)
    public = MIDDLE_KEY.public_key()
    extensions = pki.ca_extensions(public, pki.key_id(old_key.public_key()))
    cross = pki.certificate(public, old_key, extensions, subject="middle", issuer="old", not_after=NOW + 3600)
    new = pki.root_certificate(MIDDLE_KEY, "middle", not_after=NOW + 10 * YEAR)
    chain = pki.pem(_leaf()) + pki.pem(cross)
    verify.verify_leaf(chain, {"old": [pki.pem(old)], "new": [pki.pem(new)]}, now=NOW)
    with pytest.raises(ChainInvalid, match=r"^trust store 'old': .* outlives its issuer"):
        verify.verify_leaf(chain, {"old": [pki.pem(old)]}, now=NOW)


def test_path_length_of_the_root_is_respected() -> None:
    public = ROOT_KEY.public_key()
    tight = pki.certificate(
        public, ROOT_KEY, pki.ca_extensions(public, ROOT_ID, path_length=0), subject="root", issuer="root"
    )
    _verify_ca(_chain(root=tight))
    # The library lets it pass, because it takes the lowest certificate for an end entity.
    with pytest.raises(ChainInvalid, match="CN=root allows 0 CAs below it, not 1"):
        _verify_ca(_chain(_middle(), root=tight))
    with pytest.raises(ChainInvalid, match="no valid path"):
        _verify(_leaf(), _middle(), root=tight)


def test_own_rules_find_a_forged_signature_without_the_library() -> None:
    forged = pki.certificate(
        MIDDLE_KEY.public_key(),
        MIDDLE_KEY,
        pki.ca_extensions(MIDDLE_KEY.public_key(), ROOT_ID),
        subject="middle",
        issuer="root",
    )
    with pytest.raises(ChainInvalid, match="CN=middle is not signed by CN=root"):
        verify._check_path([forged, ROOT], [forged, ROOT])


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (_drop(x509.KeyUsage), "CN=middle may not sign certificates"),
        (_replace(x509.BasicConstraints, x509.BasicConstraints(True, 0), False), "CN=middle is not a CA certificate"),
        (_drop(x509.SubjectKeyIdentifier), "CN=middle has no subject key identifier"),
    ],
)
def test_own_rules_find_an_issuer_that_is_no_ca_without_the_library(
    change: Callable[[Extensions], Extensions], text: str
) -> None:
    path = [_leaf(), _middle(change), ROOT]
    with pytest.raises(ChainInvalid, match=text):
        verify._check_path(path, path)


def test_root_signed_by_another_key_is_refused() -> None:
    public = ROOT_KEY.public_key()
    forged = pki.certificate(public, MIDDLE_KEY, pki.ca_extensions(public, ROOT_ID), subject="root", issuer="root")
    with pytest.raises(ChainInvalid, match="is not signed by"):
        _verify_ca(_chain(root=forged))


# --- an operator's root -------------------------------------------------------------------------------------------


def _check(root_pem: str, private: pki.PrivateKey = ROOT_KEY, now: int = NOW) -> x509.Certificate:
    return verify.check_supplied_root(root_pem, private, cluster_id=CLUSTER_ID, now=now)


@pytest.mark.parametrize("kind", pki.CA_KINDS[:4], ids=str)
def test_operators_root_of_any_kind_is_accepted(kind: tuple[str, int]) -> None:
    private = pki.key(*kind)
    root = pki.root_certificate(private)
    assert _check(pki.pem(root), private) == root


def test_operators_root_with_short_key_id_and_dns_constraints_is_accepted() -> None:
    """As OpenSSL makes it (SHA-1 identifier), and as `consul tls ca create -name-constraint` does."""
    public = ROOT_KEY.public_key()
    short = x509.SubjectKeyIdentifier.from_public_key(public)
    extensions = pki.without(pki.ca_extensions(public, short.digest), x509.SubjectKeyIdentifier)
    constraints = x509.NameConstraints([x509.DNSName("consul"), x509.DNSName("localhost")], None)
    root = pki.certificate(
        public, ROOT_KEY, [*extensions, (short, False), (constraints, True)], subject="mine", issuer="mine"
    )
    assert _check(pki.pem(root)) == root


@pki.needs_openssl
def test_root_made_with_the_openssl_command_is_accepted(tmp_path: Path) -> None:
    """The recipe that the refusals point to does work."""
    root_pem, private = pki.openssl_root(tmp_path, f"URI:{ROOT_URI}")
    _check(root_pem, private, now=int(pki.load(root_pem).not_valid_before_utc.timestamp()))


def _root(change: Callable[[Extensions], Extensions] = list, **options: object) -> str:
    public = ROOT_KEY.public_key()
    given = {"subject": "mine", "issuer": "mine", **options}
    return pki.pem(
        pki.certificate(public, ROOT_KEY, change(pki.ca_extensions(public, ROOT_ID)), **given)  # type: ignore[arg-type]
    )


NO_TLS = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CODE_SIGNING])
URI_CONSTRAINT = x509.NameConstraints([x509.UniformResourceIdentifier("consul")], None)
UNKNOWN = x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3.4"), b"\x05\x00")


def _add(value: x509.ExtensionType, critical: bool) -> Callable[[Extensions], Extensions]:
    return lambda extensions: [*extensions, (value, critical)]


@pytest.mark.parametrize(
    ("root_pem", "text"),
    [
        ("nonsense", "RootCert cannot be decoded: no PEM-encoded certificate found"),
        (_root() + _root(), "RootCert must hold exactly one certificate, found 2"),
        (_root(_drop(x509.BasicConstraints)), "RootCert is not a CA certificate: basic constraints must be critical"),
        (
            _root(_replace(x509.BasicConstraints, x509.BasicConstraints(False, None), True)),
            "RootCert is not a CA certificate: basic constraints must be critical with CA true",
        ),
        (
            _root(_replace(x509.BasicConstraints, x509.BasicConstraints(True, None), False)),
            "RootCert is not a CA certificate: basic constraints must be critical with CA true",
        ),
        (_root(_drop(x509.KeyUsage)), "RootCert cannot sign certificates: key usage must include keyCertSign"),
        (_root(_replace(x509.KeyUsage, CA_ONLY, True)), "RootCert cannot sign certificates"),
        (_root(issuer="other"), "RootCert is not self-signed: issuer and subject must be the same"),
        (_root(subject="", issuer=""), "RootCert has an empty subject"),
        (_root(_drop(SAN)), f"RootCert has URI SANs [], expected exactly one: {ROOT_URI}"),
        (
            _root(_replace(SAN, SAN(pki.alt_names(uris=["spiffe://x.consul"])), False)),
            f"RootCert has URI SANs ['spiffe://x.consul'], expected exactly one: {ROOT_URI}",
        ),
        (
            _root(_replace(SAN, SAN(pki.alt_names(uris=[ROOT_URI, "https://x"])), False)),
            f"expected exactly one: {ROOT_URI}",
        ),
        (_root(_drop(x509.SubjectKeyIdentifier)), "RootCert has no subject key identifier"),
        (
            _root(_replace(x509.AuthorityKeyIdentifier, x509.AuthorityKeyIdentifier(b"x" * 20, None, None), False)),
            "RootCert has an authority key identifier that is not its own",
        ),
        (_root(not_before=NOW + 1), "RootCert is valid from 2027-01-15T08:00:01+00:00 to"),
        (_root(not_before=NOW - DAY, not_after=NOW - 1), "RootCert is valid from"),
        (_root(_add(NO_TLS, False)), "RootCert has an extended key usage that forbids TLS"),
        (_root(_add(URI_CONSTRAINT, True)), "RootCert has name constraints other than on DNS names"),
        (_root(_add(UNKNOWN, True)), "RootCert is not usable as a root: "),
        (
            pki.pem(pki.root_certificate(rsa.generate_private_key(65537, 1024))),
            "RootCert cannot be decoded: RSA key of 1024 bits is not allowed",
        ),
        (
            pki.pem(pki.root_certificate(ec.generate_private_key(ec.SECP224R1()))),
            "RootCert cannot be decoded: EC curve secp224r1 is not allowed",
        ),
    ],
)
def test_operators_root_with_a_fault_is_refused_by_name(root_pem: str, text: str) -> None:
    with pytest.raises(ConfigInvalid) as caught:
        _check(root_pem)
    assert text in str(caught.value)


def test_operators_root_that_is_not_the_keys_is_refused() -> None:
    for private in (MIDDLE_KEY, pki.key("rsa", 2048)):
        with pytest.raises(ConfigInvalid, match=r"^PrivateKey \(.*\) is not the key of RootCert \(EC P-256, "):
            _check(_root(), private)


def test_operators_root_whose_signature_is_not_its_own_is_refused() -> None:
    public = ROOT_KEY.public_key()
    forged = pki.certificate(public, MIDDLE_KEY, pki.ca_extensions(public, ROOT_ID), subject="mine", issuer="mine")
    with pytest.raises(ConfigInvalid, match="its signature does not verify with its own key"):
        _check(pki.pem(forged))


def test_operators_root_signed_with_sha1_is_refused() -> None:
    """No library signs like that any more: the identifier of the algorithm is changed in a finished certificate."""
    private = pki.key("rsa", 2048)
    der = pki.root_certificate(private).public_bytes(serialization.Encoding.DER)
    sha256, sha1 = bytes.fromhex("2a864886f70d01010b"), bytes.fromhex("2a864886f70d010105")
    weak = x509.load_der_x509_certificate(der.replace(sha256, sha1))
    assert isinstance(weak.signature_hash_algorithm, hashes.SHA1)
    with pytest.raises(ConfigInvalid, match="RootCert is signed with sha1: expected SHA-256, SHA-384 or SHA-512"):
        _check(pki.pem(weak), private)


def test_all_faults_of_an_operators_root_are_reported_together() -> None:
    text = f"{ROOT_URI}; RootCert is valid from"
    with pytest.raises(ConfigInvalid, match=r"is not a CA certificate.*; RootCert cannot sign") as caught:
        _check(_root(lambda _: [], not_before=NOW - DAY, not_after=NOW - 1))
    assert text in str(caught.value)
