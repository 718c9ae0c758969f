"""What a CSR must be: Consul's rules in its order and words, and stricter ones (consul-compat 3, 10.3 and 10.7)."""

import base64
from collections.abc import Callable
from ipaddress import ip_network

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed25519, padding, rsa

from providers.errors import CSRRejected
from providers.grants import EVERYTHING
from providers.pki import csr as profiles
from providers.pki.csr import CheckedCSR, check_csr, check_intermediate_csr
from providers.pki.keys import KeyKind
from providers.pki.spiffe import Kind, SpiffeId
from tests.kit import pki
from tests.kit.pki import POLICY, ROOT_URI, TRUST_DOMAIN, WEB


def _refusal(csr: str) -> str:
    with pytest.raises(CSRRejected) as caught:
        check_csr(csr, POLICY, EVERYTHING)
    return str(caught.value)


def _pem(csr: x509.CertificateSigningRequest) -> str:
    return csr.public_bytes(serialization.Encoding.PEM).decode()


def _wrap(der: bytes) -> str:
    text = base64.encodebytes(der).decode()
    return f"-----BEGIN CERTIFICATE REQUEST-----\n{text}-----END CERTIFICATE REQUEST-----\n"


def _der(csr: str) -> bytes:
    return x509.load_pem_x509_csr(csr.encode()).public_bytes(serialization.Encoding.DER)


def _tlv(tag: int, content: bytes) -> bytes:
    size = len(content)
    length = size.to_bytes((size.bit_length() + 7) // 8, "big")
    return bytes([tag, size] if size < 128 else [tag, 0x80 + len(length), *length]) + content


def _assemble(tbs: bytes, algorithm: str, signature: bytes) -> str:
    """A CSR out of parts that no builder would put together; `algorithm` in hex."""
    return _wrap(_tlv(0x30, tbs + bytes.fromhex(algorithm) + _tlv(0x03, b"\x00" + signature)))


ECDSA_SHA256 = "300a06082a8648ce3d040302"
RSA_SHA256 = "300d06092a864886f70d01010b0500"


# --- accepted -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", pki.IDENTITIES)
@pytest.mark.parametrize("key_kind", pki.LEAF_KINDS, ids=str)
def test_good_csr_is_described_whole(kind: str, key_kind: tuple[str, int]) -> None:
    uri, name = pki.IDENTITIES[kind]
    private = pki.key(*key_kind)
    csr = pki.csr_pem(
        private, uri, dns=["www.example.com", "*.web.example.com", "www.example.com"], ips=["127.0.0.1", "::1"]
    )
    public = private.public_key()
    assert check_csr(csr, POLICY, EVERYTHING) == CheckedCSR(
        identity=SpiffeId(Kind(kind), TRUST_DOMAIN, "dc1", name),
        spiffe_id=uri,
        names=tuple(pki.alt_names([uri], ["www.example.com", "*.web.example.com"], ["127.0.0.1", "::1"])),
        key=public,
        key_kind=KeyKind(*key_kind),
        key_id=pki.key_id(public),
    )


def test_forms_of_pem_that_tools_write_are_accepted() -> None:
    csr = pki.csr_pem()
    for text in (csr.replace("\n", "\r\n"), csr.strip(), f"\n\n{csr}\n \n", f"Certificate Request:\n  Data: x\n{csr}"):
        assert check_csr(text, POLICY, EVERYTHING) == check_csr(csr, POLICY, EVERYTHING)


def test_trust_domain_is_compared_without_case_and_written_in_ours() -> None:
    checked = check_csr(pki.csr_pem(uri=WEB.replace(TRUST_DOMAIN, TRUST_DOMAIN.upper())), POLICY, EVERYTHING)
    assert checked.spiffe_id == WEB
    assert list(checked.names) == pki.alt_names([WEB])


def test_agent_of_any_trust_domain_is_rewritten_to_ours() -> None:
    """Auto-encrypt CSRs are made before the trust domain is known (rule 10b)."""
    checked = check_csr(pki.csr_pem(uri="spiffe://dummy.trustdomain/agent/client/dc/dc1/id/n1"), POLICY, EVERYTHING)
    assert checked.spiffe_id == f"{ROOT_URI}/agent/client/dc/dc1/id/n1"
    assert list(checked.names) == pki.alt_names([checked.spiffe_id])


def test_final_dot_of_a_dns_name_is_dropped() -> None:
    checked = check_csr(pki.csr_pem(dns=["*.ingress.dc1.consul.", "_x._tcp.example"]), POLICY, EVERYTHING)
    assert list(checked.names) == pki.alt_names([WEB], ["*.ingress.dc1.consul", "_x._tcp.example"])


def test_point_in_compressed_form_is_written_in_full() -> None:
    """Else the key identifier would depend on how the client happened to encode its key."""
    private = pki.key()
    assert isinstance(private, ec.EllipticCurvePrivateKey)
    full = pki.spki(private.public_key())
    point = private.public_key().public_bytes(serialization.Encoding.X962, serialization.PublicFormat.CompressedPoint)
    algorithm_of_key = full[2:23]
    short = _tlv(0x30, algorithm_of_key + _tlv(0x03, b"\x00" + point))
    tbs = x509.load_der_x509_csr(_der(pki.csr_pem(private))).tbs_certrequest_bytes
    content = tbs[3:] if tbs[1] == 0x81 else tbs[4:]
    tbs = _tlv(0x30, content.replace(full, short))
    checked = check_csr(_assemble(tbs, ECDSA_SHA256, private.sign(tbs, ec.ECDSA(hashes.SHA256()))), POLICY, EVERYTHING)
    assert pki.spki(checked.key) == full
    assert checked.key_id == pki.key_id(private.public_key())


def test_rsa_pss_signature_is_accepted() -> None:
    private = pki.key("rsa", 2048)
    assert isinstance(private, rsa.RSAPrivateKey)
    builder = x509.CertificateSigningRequestBuilder(subject_name=pki.name("")).add_extension(
        x509.SubjectAlternativeName(pki.alt_names(uris=[WEB])), critical=False
    )
    pss = padding.PSS(mgf=padding.MGF1(hashes.SHA256()), salt_length=padding.PSS.DIGEST_LENGTH)
    csr = _pem(builder.sign(private, hashes.SHA256(), rsa_padding=pss))
    assert check_csr(csr, POLICY, EVERYTHING).spiffe_id == WEB
    der = bytearray(_der(csr))
    der[-1] ^= 1
    assert _refusal(_wrap(bytes(der))) == "CSR signature does not verify with the CSR's own public key"


# --- refused: form ------------------------------------------------------------------------------------------------

GOOD = pki.csr_pem()


@pytest.mark.parametrize(
    ("csr", "text"),
    [
        ("", "CSR is required"),
        (" \n\t", "CSR is required"),
        ("nonsense", "no PEM-encoded data found"),
        ("-----BEGIN CERTIFICATE REQUEST-----", "no PEM-encoded data found"),
        (GOOD.replace("-----END CERTIFICATE REQUEST-----", ""), "no PEM-encoded data found"),
        (GOOD.replace("M", "!", 1), "no PEM-encoded data found"),
        # Nothing is missing: who passes over what is no Base64 would take it.
        (GOOD.replace("REQUEST-----\n", "REQUEST-----\n!", 1), "no PEM-encoded data found"),
        (_wrap(b""), "no PEM-encoded data found"),
        (
            GOOD.replace("REQUEST-----\n", "REQUEST-----\nProc-Type: 4,ENCRYPTED\n\n", 1),
            "no PEM-encoded data found",
        ),
        (pki.pem(pki.root_certificate(pki.key())), "first PEM-block should be CERTIFICATE REQUEST type"),
        (pki.key_pem(pki.key()) + GOOD, "first PEM-block should be CERTIFICATE REQUEST type"),
        (GOOD + GOOD, "CSR must be one PEM block with nothing behind it"),
        (GOOD + "x", "CSR must be one PEM block with nothing behind it"),
        (GOOD + "\n" * 16384, "CSR is larger than 16384 bytes"),
        ("é" * 9000, "CSR is larger than 16384 bytes"),
    ],
)
def test_csr_that_is_not_one_pem_block_is_refused(csr: str, text: str) -> None:
    assert _refusal(csr) == text


@pytest.mark.parametrize("der", [b"\x00", b"\x30\x00", _der(GOOD) + b"\x00", _der(GOOD)[:-1], b"\x30\x80\x00\x00"])
def test_csr_that_is_not_der_is_malformed(der: bytes) -> None:
    assert _refusal(_wrap(der)).startswith("malformed CSR: ")


def test_lone_surrogates_are_no_way_out() -> None:
    assert _refusal("\udcff" + GOOD.replace("\n", "\udcff", 1)) == "no PEM-encoded data found"


# --- refused: identity --------------------------------------------------------------------------------------------


def _csr(*uris: str, **names: list[str]) -> str:
    return _pem(pki.csr_of(pki.key(), pki.alt_names(uris=uris, **names)))


@pytest.mark.parametrize(
    ("csr", "text"),
    [
        (_csr(), "CSR SAN contains an invalid number of URIs: 0"),
        (_csr(dns=["web"]), "CSR SAN contains an invalid number of URIs: 0"),
        (_csr(WEB, WEB), "CSR SAN contains an invalid number of URIs: 2"),
        (_csr(WEB, emails=["a@b.example"]), "CSR SAN does not allow specifying email addresses"),
        (_csr("https://example.com"), "SPIFFE ID must have 'spiffe' scheme"),
        (_csr(f"{ROOT_URI}/other"), f"SPIFFE ID is not in the expected format: {ROOT_URI}/other"),
        (_csr(ROOT_URI), "SPIFFE ID in CSR must be a service, mesh-gateway, or agent ID"),
        (
            _csr(WEB.replace("/dc1/", "/dc2/")),
            "SPIFFE ID in CSR from a different datacenter: dc2, we are dc1",
        ),
        (
            _csr(f"{ROOT_URI}/gateway/mesh/dc/DC1"),
            "SPIFFE ID in CSR from a different datacenter: DC1, we are dc1",
        ),
        (
            _csr(f"{ROOT_URI}/agent/client/dc/dc2/id/n1"),
            "SPIFFE ID in CSR from a different datacenter: dc2, we are dc1",
        ),
        (
            _csr(f"{ROOT_URI}/agent/server/dc/dc1"),
            "SPIFFE ID in CSR must be a service, mesh-gateway, or agent ID",
        ),
        (
            _csr(WEB.replace(TRUST_DOMAIN, "other.consul")),
            f"SPIFFE ID in CSR from a different trust domain: other.consul, we are {TRUST_DOMAIN}",
        ),
        (
            _csr("spiffe://other.consul/gateway/mesh/dc/dc1"),
            f"SPIFFE ID in CSR from a different trust domain: other.consul, we are {TRUST_DOMAIN}",
        ),
    ],
)
def test_identity_that_is_not_ours_to_sign_is_refused(csr: str, text: str) -> None:
    assert _refusal(csr) == text


def test_rules_are_applied_in_consuls_order() -> None:
    """Each CSR breaks its rule and all later ones."""
    weak = rsa.generate_private_key(65537, 1024)
    foreign = "spiffe://other.consul/ns/default/dc/dc2/svc/web"
    broken = {"emails": ["a@b.example"], "dns": ["not a name"]}
    ordered = [
        (_pem(pki.csr_of(weak, pki.alt_names(uris=[], **broken))), "invalid number of URIs"),
        (_pem(pki.csr_of(weak, pki.alt_names(uris=["x:y"], **broken))), "email addresses"),
        (_pem(pki.csr_of(weak, pki.alt_names(uris=["x:y"], dns=["not a name"]))), "'spiffe' scheme"),
        (_pem(pki.csr_of(weak, pki.alt_names(uris=["spiffe://o.x"], dns=["not a name"]))), "must be a service"),
        (_pem(pki.csr_of(weak, pki.alt_names(uris=[foreign], dns=["not a name"]))), "different datacenter"),
        (
            _pem(pki.csr_of(weak, pki.alt_names(uris=[foreign.replace("dc2", "dc1")], dns=["not a name"]))),
            "different trust domain",
        ),
        (_pem(pki.csr_of(weak, pki.alt_names(uris=[WEB], dns=["not a name"]))), "DNS name that is not valid"),
        (_pem(pki.csr_of(weak, pki.alt_names(uris=[WEB]))), "CSR key: RSA key of 1024 bits"),
    ]
    for csr, text in ordered:
        assert text in _refusal(csr)


# --- refused: names -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    [
        *("", ".", "..", "a..b", ".a", "-a", "a-", "a b", "a:8080", "a\x00b", "a/b", "a\n"),
        *("*", "a.*.b", "**.a", "*a.b", "x" * 64, ".".join(["x" * 63] * 4), "\xc3\xa9"),
    ],
)
def test_dns_name_that_no_certificate_should_carry_is_refused(name: str) -> None:
    general = x509.DNSName._init_without_validation(name)
    csr = _pem(pki.csr_of(pki.key(), [general, *pki.alt_names(uris=[WEB])]))
    assert _refusal(csr) == f"CSR SAN holds a DNS name that is not valid: {name[: profiles.MAX_DETAIL]!r}"


def test_longest_names_are_accepted() -> None:
    name = ".".join(["x" * 63] * 3 + ["x" * 61])
    assert len(name) == 253
    assert list(check_csr(_csr(WEB, dns=[name]), POLICY, EVERYTHING).names) == pki.alt_names([WEB], [name])


def test_names_of_other_types_are_refused() -> None:
    for name in (
        x509.RegisteredID(x509.ObjectIdentifier("1.2.3")),
        x509.OtherName(x509.ObjectIdentifier("1.2.3"), b"\x05\x00"),
        x509.DirectoryName(pki.name("x")),
        x509.IPAddress(ip_network("10.0.0.0/8")),
    ):
        csr = _pem(pki.csr_of(pki.key(), [name, *pki.alt_names(uris=[WEB])]))
        assert "name that is neither URI, DNS name nor IP address" in _refusal(csr)


def test_a_hundred_names_are_the_limit() -> None:
    names = [f"n{number}" for number in range(99)]
    assert len(check_csr(_csr(WEB, dns=names), POLICY, EVERYTHING).names) == 100
    assert _refusal(_csr(WEB, dns=[*names, "x"])) == "CSR SAN contains 101 names: at most 100 are allowed"


# --- refused: key and proof ---------------------------------------------------------------------------------------


def _signed(private: object, algorithm: object = hashes.SHA256()) -> str:
    builder = x509.CertificateSigningRequestBuilder(subject_name=pki.name("")).add_extension(
        x509.SubjectAlternativeName(pki.alt_names(uris=[WEB])), critical=False
    )
    return _pem(builder.sign(private, algorithm))  # type: ignore[arg-type]  # also keys that are refused later


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: ec.generate_private_key(ec.SECP224R1()), "EC curve secp224r1 is not allowed: must be P-256, P-384 or"),
        (lambda: ec.generate_private_key(ec.SECP256K1()), "EC curve secp256k1 is not allowed"),
        (lambda: rsa.generate_private_key(65537, 1024), "RSA key of 1024 bits is not allowed: must be 2048 to 4096"),
        (lambda: rsa.generate_private_key(65537, 4104), "RSA key of 4104 bits is not allowed: must be 2048 to 4096"),
        (lambda: rsa.generate_private_key(3, 2048), "RSA public exponent is not allowed: must be odd, 65537 to"),
        (lambda: dsa.generate_private_key(2048), "invalid key type: DSA: must be RSA or EC"),
    ],
)
def test_key_too_weak_too_big_or_of_another_type_is_refused(make: Callable[[], object], text: str) -> None:
    assert _refusal(_signed(make())).startswith(f"CSR key: {text}")


def test_ed25519_is_refused() -> None:
    text = _refusal(_signed(ed25519.Ed25519PrivateKey.generate(), None))
    assert text == "CSR key: invalid key type: Ed25519: must be RSA or EC"


def test_key_of_an_unknown_algorithm_is_refused() -> None:
    # The curve's identifier, changed to one that nobody has assigned.
    der = _der(GOOD).replace(bytes.fromhex("06082a8648ce3d030107"), bytes.fromhex("06082a8648ce3d03017f"))
    assert _refusal(_wrap(der)) == "CSR key: invalid key type: unknown algorithm or curve: must be RSA or EC"


def test_point_off_the_curve_is_refused() -> None:
    der = _der(GOOD)
    spki = pki.spki(pki.key().public_key())
    broken = spki[:-1] + bytes([spki[-1] ^ 1])
    assert "malformed CSR: " in _refusal(_wrap(der.replace(spki, broken)))


@pytest.mark.parametrize("key_kind", pki.LEAF_KINDS, ids=str)
def test_csr_signed_by_another_key_is_refused(key_kind: tuple[str, int]) -> None:
    """Proof of possession: the thief has a public key, and signs with his own."""
    thief, victim = ec.generate_private_key(ec.SECP256R1()), pki.key(*key_kind)
    if key_kind == ("ec", 256):
        der = _der(_signed(thief)).replace(pki.spki(thief.public_key()), pki.spki(victim.public_key()))
    else:
        honest = bytearray(_der(_signed(victim)))
        honest[-1] ^= 1
        der = bytes(honest)
    assert _refusal(_wrap(der)) == "CSR signature does not verify with the CSR's own public key"


def test_csr_changed_after_signing_is_refused() -> None:
    der = _der(GOOD).replace(b"/svc/web", b"/svc/bew")
    assert _refusal(_wrap(der)) == "CSR signature does not verify with the CSR's own public key"


def test_weak_or_foreign_signature_algorithm_is_refused() -> None:
    text = "CSR signature algorithm is not allowed: must use SHA-256, SHA-384 or SHA-512"
    ecdsa = bytes.fromhex("06082a8648ce3d0403")
    sha224 = _der(GOOD).replace(ecdsa + b"\x02", ecdsa + b"\x01")  # ecdsa-with-SHA224
    assert _refusal(_wrap(sha224)) == text
    request = x509.load_der_x509_csr(_der(GOOD))
    assert _refusal(_assemble(request.tbs_certrequest_bytes, RSA_SHA256, request.signature)) == (
        "CSR signature does not verify with the CSR's own public key"
    )


# --- whatever comes -----------------------------------------------------------------------------------------------


class PanicException(BaseException):
    """What a defect in the Rust part of `cryptography` looks like from here: same name, same base."""


@pytest.mark.parametrize(
    "error", [PanicException("boom"), UnicodeDecodeError("utf-8", b"\xff", 0, 1, "x"), TypeError(), RecursionError()]
)
def test_any_failure_of_the_parser_becomes_a_refusal(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    def fail(_: bytes) -> None:
        raise error

    monkeypatch.setattr(x509, "load_der_x509_csr", fail)
    assert _refusal(GOOD).startswith("malformed CSR: ")


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_being_stopped_is_not_a_refusal(monkeypatch: pytest.MonkeyPatch, error: type[BaseException]) -> None:
    def stop(_: bytes) -> None:
        raise error

    monkeypatch.setattr(x509, "load_der_x509_csr", stop)
    with pytest.raises(error):
        check_csr(GOOD, POLICY, EVERYTHING)


# --- intermediates ------------------------------------------------------------------------------------------------


def _intermediate_refusal(csr: str) -> str:
    with pytest.raises(CSRRejected) as caught:
        check_intermediate_csr(csr, TRUST_DOMAIN)
    return str(caught.value)


def test_intermediate_csr_is_described_with_its_names_and_our_uri() -> None:
    csr = pki.csr_of(
        pki.key(),
        pki.alt_names(uris=[ROOT_URI.upper().replace("SPIFFE", "spiffe")], dns=["ca.example"], emails=["ca@b.example"]),
        subject="sec-1.consul.ca.11111111.consul",
    )
    checked = check_intermediate_csr(_pem(csr), TRUST_DOMAIN)
    assert checked.subject == csr.subject
    assert list(checked.names) == pki.alt_names(uris=[ROOT_URI], dns=["ca.example"], emails=["ca@b.example"])


def test_intermediate_csr_without_uri_is_allowed_and_gets_ours() -> None:
    """AWS cannot set one (consul-compat 1.1)."""
    checked = check_intermediate_csr(_csr(), TRUST_DOMAIN)
    assert list(checked.names) == pki.alt_names(uris=[ROOT_URI])


@pytest.mark.parametrize(
    ("csr", "text"),
    [
        (_csr(ROOT_URI, ROOT_URI), "incoming CSR has unexpected number of URIs: 2"),
        (
            _csr("spiffe://x.consul"),
            f'incoming CSR domain "spiffe://x.consul" is not valid for our domain "{ROOT_URI}"',
        ),
        (_csr(WEB), f'incoming CSR domain "{WEB}" is not valid for our domain "{ROOT_URI}"'),
        (_csr("https://x"), "SPIFFE ID must have 'spiffe' scheme"),
        ("", "CSR is required"),
        (_pem(pki.csr_of(rsa.generate_private_key(65537, 1024), [])), "CSR key: RSA key of 1024 bits is not allowed"),
        (
            _wrap(_der(_csr(ROOT_URI)).replace(TRUST_DOMAIN.encode(), TRUST_DOMAIN.upper().encode())),
            "CSR signature does not verify with the CSR's own public key",
        ),
    ],
)
def test_bad_intermediate_csr_is_refused(csr: str, text: str) -> None:
    assert _intermediate_refusal(csr).startswith(text)


def test_limits_are_the_documented_ones() -> None:
    assert (profiles.MAX_CSR_BYTES, profiles.MAX_SANS) == (16384, 100)
