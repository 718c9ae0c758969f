"""The certificates, checked with `cryptography`'s verifier and, where there is one, with the openssl command."""

import shutil
import ssl
import subprocess
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, load_pem_private_key
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from cryptography.x509.verification import PolicyBuilder, Store

from cluster.tls.certificates import Identity, Pair, load_ca, new_ca, new_cert
from cluster.tls.contexts import NodeTls, TlsFiles
from providers.pki import keys
from tests.kit import pki

NOW = datetime(2027, 1, 15, 8, tzinfo=UTC)
#: When what is made now begins: somebody's clock may be late.
BEGIN = NOW - timedelta(minutes=1)
CA_SUBJECT = {
    "countryName": "US",
    "organizationName": "HashiCorp Inc.",
    "localityName": "San Francisco",
    "stateOrProvinceName": "CA",
    "streetAddress": "101 Second Street",
    "postalCode": "94105",
}


@pytest.fixture(scope="module")
def ca() -> Pair:
    return new_ca(NOW, 1825)


def cert_of(pair: Pair) -> x509.Certificate:
    cert = x509.load_pem_x509_certificate(pair.cert_pem.encode())
    assert pair.key_pem.startswith("-----BEGIN EC PRIVATE KEY-----")
    assert load_pem_private_key(pair.key_pem.encode(), None).public_key() == cert.public_key()
    assert isinstance(cert.public_key(), ec.EllipticCurvePublicKey)
    assert 0 < cert.serial_number < 1 << 128
    return cert


def signed(ca: Pair, identity: Identity, days: int = 365) -> x509.Certificate:
    return cert_of(new_cert(load_ca(ca.cert_pem, ca.key_pem, NOW), identity, NOW, days))


def extensions(cert: x509.Certificate) -> dict[type, tuple[x509.ExtensionType, bool]]:
    return {type(extension.value): (extension.value, extension.critical) for extension in cert.extensions}


def test_ca_profile(ca: Pair) -> None:
    cert = cert_of(ca)
    subject = {attribute.rfc4514_attribute_name: attribute.value for attribute in cert.subject}
    names = {attribute.oid._name: attribute.value for attribute in cert.subject}
    assert subject["CN"] == f"Consul Agent CA {cert.serial_number}"
    assert names == {**CA_SUBJECT, "commonName": subject["CN"]}
    assert cert.issuer == cert.subject
    assert (cert.not_valid_before_utc, cert.not_valid_after_utc) == (BEGIN, BEGIN + timedelta(days=1825))
    key_id = pki.key_id(cert.public_key())
    assert extensions(cert) == {
        x509.KeyUsage: (pki.key_usage(digital_signature=True, key_cert_sign=True, crl_sign=True), True),
        x509.BasicConstraints: (x509.BasicConstraints(ca=True, path_length=None), True),
        x509.SubjectKeyIdentifier: (x509.SubjectKeyIdentifier(key_id), False),
        x509.AuthorityKeyIdentifier: (x509.AuthorityKeyIdentifier(key_id, None, None), False),
    }
    cert.verify_directly_issued_by(cert)


def test_ca_with_everything() -> None:
    pair = new_ca(NOW, 1, common_name="Our CA", uri="spiffe://1234.consul", permitted_dns=["consul", "x.org", "consul"])
    cert = cert_of(pair)
    assert cert.subject.rfc4514_string().startswith("CN=Our CA,")
    found = extensions(cert)
    assert found[x509.SubjectAlternativeName] == (
        x509.SubjectAlternativeName([x509.UniformResourceIdentifier("spiffe://1234.consul")]),
        False,
    )
    permitted = [x509.DNSName("consul"), x509.DNSName("x.org")]
    assert found[x509.NameConstraints] == (x509.NameConstraints(permitted, None), True)


@pytest.mark.parametrize(
    ("identity", "usages", "dns", "addresses"),
    [
        (
            Identity("server", "dc2", "acme.org", "a", ["vip.acme.org", "localhost"], ["10.0.0.1"]),
            [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH],
            ["vip.acme.org", "localhost", "a.server.dc2.acme.org", "server.dc2.acme.org"],
            ["10.0.0.1", "127.0.0.1"],
        ),
        (
            Identity("client"),
            [ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH],
            ["client.dc1.consul", "localhost"],
            ["127.0.0.1"],
        ),
        (Identity("cli", more_dns=["x"], more_addresses=["::1"]), None, ["cli.dc1.consul", "localhost"], ["::1"]),
        (Identity("cli"), None, ["cli.dc1.consul", "localhost"], []),
    ],
)
def test_certificate_profile(
    ca: Pair, identity: Identity, usages: list[x509.ObjectIdentifier] | None, dns: list[str], addresses: list[str]
) -> None:
    cert, issuer = signed(ca, identity), cert_of(ca)
    assert cert.subject.rfc4514_string() == f"CN={identity.name}"
    assert cert.issuer == issuer.subject
    assert (cert.not_valid_before_utc, cert.not_valid_after_utc) == (BEGIN, BEGIN + timedelta(days=365))
    names = [*(x509.DNSName(name) for name in dns), *(x509.IPAddress(ip_address(text)) for text in addresses)]
    expected = {
        x509.KeyUsage: (pki.key_usage(digital_signature=True, key_encipherment=True), True),
        x509.BasicConstraints: (x509.BasicConstraints(ca=False, path_length=None), True),
        x509.SubjectKeyIdentifier: (x509.SubjectKeyIdentifier(pki.key_id(cert.public_key())), False),
        x509.AuthorityKeyIdentifier: (
            x509.AuthorityKeyIdentifier(pki.key_id(issuer.public_key()), None, None),
            False,
        ),
        x509.SubjectAlternativeName: (x509.SubjectAlternativeName(names), False),
    }
    if usages:
        expected[x509.ExtendedKeyUsage] = (x509.ExtendedKeyUsage(usages), False)
    assert extensions(cert) == expected


@pytest.mark.parametrize("role", ["server", "client", "cli"])
def test_chain_verifies(ca: Pair, role: str, tmp_path: Path) -> None:
    cert, root = signed(ca, Identity(role)), cert_of(ca)
    cert.verify_directly_issued_by(root)
    if role != "cli":  # without extended key usage it is for no TLS server
        name = x509.DNSName(f"{role}.dc1.consul")
        PolicyBuilder().store(Store([root])).time(NOW).build_server_verifier(name).verify(cert, [])
    if shutil.which("openssl") is not None:
        (tmp_path / "ca.pem").write_text(ca.cert_pem)
        (tmp_path / "cert.pem").write_text(cert.public_bytes(Encoding.PEM).decode())
        when = str(int(NOW.timestamp()))
        command = ["openssl", "verify", "-x509_strict", "-attime", when, "-CAfile", "ca.pem", "cert.pem"]
        subprocess.run(command, check=True, capture_output=True)


def test_server_certificates_are_what_nodes_know_each_other_by(tmp_path: Path) -> None:
    now = datetime.now(UTC).replace(microsecond=0)
    ca = new_ca(now, 1)
    pair = new_cert(load_ca(ca.cert_pem, ca.key_pem, now), Identity("server", node="a"), now, 1)
    for name, text in (("ca", ca.cert_pem), ("cert", pair.cert_pem), ("key", pair.key_pem)):
        (tmp_path / name).write_text(text)
    node = NodeTls(TlsFiles("ca", "cert", "key"), "dc1", "consul")
    assert node.peer_name(handshake(node)) == "a"
    assert NodeTls(TlsFiles("ca", "cert", "key"), "dc2", "consul").peer_name(handshake(node)) is None


def handshake(node: NodeTls) -> dict[str, object]:
    """What a server sees of a client that is itself, in memory."""
    one, other = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = node.client_context.wrap_bio(one, other, server_hostname=node.server_name("a"))
    server = node.server_context.wrap_bio(other, one, server_side=True)
    for side in (client, server, client, server):
        try:
            side.do_handshake()
        except ssl.SSLWantReadError:
            continue
    return dict(server.getpeercert() or {})


def test_certificate_ends_with_its_ca() -> None:
    ca = new_ca(NOW, 10)
    assert signed(ca, Identity("client"), days=365).not_valid_after_utc == BEGIN + timedelta(days=10)


@pytest.mark.parametrize("permitted", ["consul", ".consul", "dc1.consul"])
def test_name_constraints_are_kept(permitted: str) -> None:
    ca = new_ca(NOW, 10, permitted_dns=[permitted, "localhost"])
    signed(ca, Identity("server", node="a"))
    for outside in ("example.com", "notconsul", "a.server.dc1.consul.example.com"):
        with pytest.raises(ValueError, match=f"do not permit {outside}: must be in {permitted}, localhost$"):
            signed(ca, Identity("server", more_dns=[outside]))


def test_ca_with_an_rsa_key_signs() -> None:
    key = pki.key("rsa", 2048)
    names = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "old CA")])
    cert = (
        x509.CertificateBuilder(names, names, key.public_key(), 7, NOW, NOW + timedelta(days=9))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier(b"own"), critical=False)
        .sign(key, hashes.SHA256())
    )
    ca = Pair(cert.public_bytes(Encoding.PEM).decode(), pki.key_pem(key))
    made = signed(ca, Identity("client"), days=1)
    made.verify_directly_issued_by(cert)
    assert extensions(made)[x509.AuthorityKeyIdentifier][0] == x509.AuthorityKeyIdentifier(b"own", None, None)


def test_useless_cas_are_refused(ca: Pair) -> None:
    leaf = new_cert(load_ca(ca.cert_pem, ca.key_pem, NOW), Identity("client"), NOW, 1)
    for cert_pem, key_pem, now, text in (
        (ca.cert_pem, leaf.key_pem, NOW, "the private key does not belong to the CA certificate"),
        (leaf.cert_pem, leaf.key_pem, NOW, "the certificate is not that of a CA"),
        (ca.cert_pem, ca.key_pem, NOW + timedelta(days=1825), "the CA certificate has expired on 2032-01-14"),
        (ca.cert_pem, ca.cert_pem, NOW, "unknown PEM block type for signing key: CERTIFICATE"),
        ("nothing", ca.key_pem, NOW, "."),
    ):
        with pytest.raises(ValueError, match=text):
            load_ca(cert_pem, key_pem, now)


def test_keys_are_not_shown(ca: Pair) -> None:
    assert "PRIVATE" not in repr(ca)
    assert keys.kind_of(cert_of(ca).public_key()) == keys.KeyKind("ec", 256)
