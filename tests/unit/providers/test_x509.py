"""Identifiers, text forms, PEM, and the CA certificates as whole objects."""

import base64

import pytest
from cryptography import x509 as cx509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from providers.grants import EVERYTHING
from providers.pki import keys, x509
from providers.pki.csr import check_csr
from providers.pki.x509 import Issuer, Validity, at
from tests.kit import pki


@pytest.mark.parametrize("text", ["01:2f", "012f", "12F", "01:2F"])
def test_identifiers_are_read_in_every_spelling(text: str) -> None:
    assert x509.parse_hex(text) == bytes([1, 47])


@pytest.mark.parametrize("text", ["", ":", "xyz", "0x12", "-1", "１"])
def test_what_is_no_identifier_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="not a hexadecimal identifier"):
        x509.parse_hex(text)


def test_root_id_is_sha1_of_the_first_certificate() -> None:
    """The documented sample of Consul's own API page, whose id is printed next to it."""
    sample = (
        "-----BEGIN CERTIFICATE-----\n"
        "MIICmDCCAj6gAwIBAgIBBzAKBggqhkjOPQQDAjAWMRQwEgYDVQQDEwtDb25zdWwg\n"
        "Q0EgNzAeFw0xODA2MDYxNzM1MjVaFw0yODA2MDMxNzM1MjVaMBYxFDASBgNVBAMT\n"
        "C0NvbnN1bCBDQSA3MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEgo09lpx63bHw\n"
        "cSXeeoSpHpHgyzX1Q8ewJ3RUg6Ie8Howbs/QBz1y/kGxsF35HXij3YrqhgQyPPx4\n"
        "bQ8FH2YR4aOCAXswggF3MA4GA1UdDwEB/wQEAwIBhjAPBgNVHRMBAf8EBTADAQH/\n"
        "MGgGA1UdDgRhBF8xOTo0NTo4YjozMDphMTo0NTo4NDphZToyMzo1MjpkYjo4ZDox\n"
        "YjpmZjphOTowOTpkYjpmYzoyYTo3MjozOTphZTpkYToxMTo1MzpmNDozNzo1Yzpk\n"
        "ZTpkMTo2ODpkODBqBgNVHSMEYzBhgF8xOTo0NTo4YjozMDphMTo0NTo4NDphZToy\n"
        "Mzo1MjpkYjo4ZDoxYjpmZjphOTowOTpkYjpmYzoyYTo3MjozOTphZTpkYToxMTo1\n"
        "MzpmNDozNzo1YzpkZTpkMTo2ODpkODA/BgNVHREEODA2hjRzcGlmZmU6Ly8zNmNi\n"
        "NTJjZC00MDU4LWY4MTEtMDQzMi02Nzk4YTI0MGM1ZDMuY29uc3VsMD0GA1UdHgEB\n"
        "/wQzMDGgLzAtgiszNmNiNTJjZC00MDU4LWY4MTEtMDQzMi02Nzk4YTI0MGM1ZDMu\n"
        "Y29uc3VsMAoGCCqGSM49BAMCA0gAMEUCIHl6UDdouw8Fzn/oDHputAxt3UFbVg/U\n"
        "vC6jWPuqqMwmAiEAkvMadtwjtNU7m/AQRJrj1LeG3eXw7dWO8SlI2fEs0yY=\n"
        "-----END CERTIFICATE-----\n"
    )
    other = pki.pem(pki.root_certificate(pki.key()))
    assert x509.root_id(sample + other) == "31:6c:06:fb:49:94:42:d5:e4:55:cc:2e:27:b3:b2:2e:96:67:3e:7e"


def test_signing_key_id_is_the_subject_key_identifier() -> None:
    private = pki.key()
    root = pki.pem(pki.root_certificate(private))
    assert x509.signing_key_id(root) == pki.key_id(private.public_key()).hex(":")
    assert x509.parse_hex(x509.signing_key_id(root)) == pki.key_id(private.public_key())


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        (("pri", "1cj8zamm", "consul", "07933A13-x"), "pri-1cj8zamm.consul.ca.07933a13.consul"),
        (("sec", "-9ABCdefghij", "Vault PKI!", "07933a13-x"), "sec-9abcdefg.vaultpki.ca.07933a13.consul"),
        (("pri", "a", "x" * 40, "07933a13"), f"pri-a.{'x' * 32}.ca.07933a13.consul"),
    ],
)
def test_common_name_is_consuls(arguments: tuple[str, str, str, str], name: str) -> None:
    assert x509.common_name(*arguments) == name


def test_uid_follows_from_the_key() -> None:
    one, other = (keys.generate(keys.KeyKind("ec", 256)).public_key() for _ in range(2))
    assert x509.uid_of(one) == x509.uid_of(one) != x509.uid_of(other)
    assert len(x509.uid_of(one)) == 8
    assert x509.uid_of(one).isalnum()


def test_bundle_is_split_and_normalised() -> None:
    one, other = (pki.pem(pki.root_certificate(pki.key(number=n), f"root{n}")) for n in (0, 1))
    messy = f"comment\n{one.strip()}\r\n  \n{other.strip()}"
    assert x509.split_bundle(messy) == (one, other)
    for text in ("", "nonsense", pki.csr_pem()):
        with pytest.raises(ValueError, match="no PEM-encoded certificate found"):
            x509.load_bundle(text)


def test_certificate_of_a_refused_key_cannot_be_loaded() -> None:
    curve = ec.generate_private_key(ec.SECP224R1())
    with pytest.raises(ValueError, match="secp224r1 is not allowed"):
        x509.load_bundle(pki.pem(pki.root_certificate(curve)))


def test_backdating_is_a_minute_but_never_more_than_a_tenth() -> None:
    assert [x509.backdate_seconds(ttl) for ttl in (1, 10, 599, 600, 3600, pki.YEAR)] == [0, 1, 59, 60, 60, 60]


@pytest.mark.parametrize("serial", [0, -1, 1 << 159])
def test_serial_out_of_range_is_a_defect(serial: int) -> None:
    with pytest.raises(ValueError, match="at most 20 octets"):
        x509.check_serial(serial)


@pytest.mark.parametrize("kind", pki.CA_KINDS[:4], ids=str)
def test_root_is_built_whole_and_the_same_every_time(kind: tuple[str, int]) -> None:
    private, made = pki.key(*kind), pki.intent()
    name = x509.common_name("pri", made.uid, "consul", pki.CLUSTER_ID)
    validity = Validity(at(pki.NOW - 60), at(pki.NOW + 10 * pki.YEAR))
    root = x509.build_root(private, name, pki.ROOT_URI, made.serial, validity)
    pki.assert_is_root(x509.cert_pem(root), made=made)
    assert root == x509.build_root(private, name, pki.ROOT_URI, made.serial, validity)


def test_cross_signing_keeps_what_is_the_roots_and_drops_what_was_its_issuers() -> None:
    old_key, new_key = pki.key("rsa", 2048), pki.key("ec", 384)
    old = pki.root_certificate(old_key, "old")
    public = new_key.public_key()
    own = cx509.UnrecognizedExtension(cx509.ObjectIdentifier("1.2.3.4"), b"\x05\x00")
    constraints = cx509.NameConstraints([cx509.DNSName("consul")], None)
    points = cx509.CRLDistributionPoints(
        [cx509.DistributionPoint([cx509.UniformResourceIdentifier("http://crl")], None, None, None)]
    )
    extensions = [
        *pki.ca_extensions(public, pki.key_id(public)),
        (own, False),
        (constraints, True),
        (points, False),
    ]
    new = pki.certificate(public, new_key, extensions, subject="new", issuer="new")
    validity = Validity(at(pki.NOW), at(pki.NOW + pki.DAY))
    cross = x509.build_cross_signed(Issuer(old, old_key), new, pki.serial(1), validity)
    kept = [e.value for e in cross.extensions]
    assert own in kept
    assert constraints in kept
    assert points not in kept
    pki.assert_signature_fits(cross, old)


def test_agents_csr_is_one_that_the_ca_accepts_with_a_new_key_each_time() -> None:
    dns = ["localhost", "web.example.com:8443", "localhost", "", ":80"]
    uri, name = pki.IDENTITIES["agent"]
    csr, key_pem = x509.new_leaf_csr(uri, dns, ["127.0.0.1", "::1", "127.0.0.1"])
    checked = check_csr(csr, pki.POLICY, EVERYTHING)
    assert list(checked.names) == pki.alt_names([uri], ["localhost", "web.example.com"], ["127.0.0.1", "::1"])
    assert (checked.kind, checked.name, checked.spiffe_id) == ("agent", name, uri)
    assert key_pem.startswith("-----BEGIN EC PRIVATE KEY-----\n")
    assert keys.key_id(keys.load_pem(key_pem).public_key()) == checked.key_id
    assert checked.key_kind == keys.KeyKind("ec", 256)
    assert x509.new_leaf_csr(pki.WEB, [], [])[1] != key_pem


def test_agents_csr_for_an_address_that_is_none_is_refused() -> None:
    with pytest.raises(ValueError, match="does not appear to be"):
        x509.new_leaf_csr(pki.WEB, [], ["localhost"])


def test_certificate_of_a_version_that_there_is_not_is_no_certificate() -> None:
    """`cryptography` raises of its own kind, which whoever reads certificates of others does not expect."""
    der = pki.root_certificate(pki.key()).public_bytes(serialization.Encoding.DER)
    odd = der.replace(b"\xa0\x03\x02\x01\x02", b"\xa0\x03\x02\x01\x12", 1)
    assert odd != der
    text = base64.encodebytes(odd).decode()
    with pytest.raises(ValueError, match="18 is not a valid X509 version"):
        x509.load_cert(f"-----BEGIN CERTIFICATE-----\n{text}-----END CERTIFICATE-----\n")


def test_defect_of_the_library_is_no_certificate(monkeypatch: pytest.MonkeyPatch) -> None:
    class PanicException(BaseException):
        pass

    def panic(_data: bytes) -> None:
        raise PanicException

    monkeypatch.setattr(cx509, "load_pem_x509_certificate", panic)
    with pytest.raises(ValueError, match=r"it is damaged, or no X\.509 certificate"):
        x509.load_cert("-----BEGIN CERTIFICATE-----\nAA==\n-----END CERTIFICATE-----\n")
