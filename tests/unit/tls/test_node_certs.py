"""Certificates that the cluster makes for its servers."""

from datetime import UTC, datetime, timedelta
from typing import Any, Final

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding

from cluster.tls.certificates import Identity, Pair, load_ca, new_ca, new_cert
from cluster.tls.keys import KEY_BYTES, expiry_part, hash_of_certificate, public_part
from cluster.tls.node_certs import check_agent_ca, checked_key, key_pem, new_key, node_csr, sign_node
from cluster.tls.proof import check_made
from providers.errors import CSRRejected

NOW: Final = int(datetime.now(UTC).timestamp())
CA: Final = new_ca(datetime.fromtimestamp(NOW, UTC), 30)
OTHER_CA: Final = new_ca(datetime.fromtimestamp(NOW, UTC), 30)
KEY: Final = new_key()
CSR: Final = node_csr(KEY)


def signed(csr_pem: str = CSR, ca: Pair = CA, **changes: Any) -> tuple[str, bytes]:
    arguments: dict[str, Any] = {
        "node": "node-4",
        "datacenter": "dc1",
        "domain": "consul",
        "addresses": ["10.0.0.4"],
        "present_pem": "",
        "now": NOW,
        "ttl_seconds": 3600,
        **changes,
    }
    return sign_node(ca.cert_pem, ca.key_pem, csr_pem, **arguments)


def names_of(cert_pem: str) -> tuple[list[str], list[str]]:
    cert = x509.load_pem_x509_certificate(cert_pem.encode())
    names = cert.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    return names.get_values_for_type(x509.DNSName), [str(ip) for ip in names.get_values_for_type(x509.IPAddress)]


def made_by_hand(node: str = "node-4", ca: Pair = CA, days: int = 5, **changes: Any) -> str:
    moment = datetime.fromtimestamp(NOW, UTC)
    return new_cert(
        load_ca(ca.cert_pem, ca.key_pem, moment), Identity("server", node=node, **changes), moment, days
    ).cert_pem


def test_certificate_is_one_that_servers_take_from_each_other() -> None:
    cert_pem, known_by = signed()
    check_made(Pair(cert_pem, key_pem(KEY)), Identity("server", node="node-4"), CA.cert_pem)
    cert = x509.load_pem_x509_certificate(cert_pem.encode())
    assert public_part(known_by) == hash_of_certificate(cert.public_bytes(Encoding.DER))
    assert len(known_by) == KEY_BYTES
    assert expiry_part(known_by) == int(cert.not_valid_after_utc.timestamp()) == NOW + 3600
    assert names_of(cert_pem) == (
        ["node-4.server.dc1.consul", "server.dc1.consul", "localhost"],
        ["10.0.0.4", "127.0.0.1"],
    )


@pytest.mark.parametrize("ttl", [5, 10, 59, 600, 86_400])
def test_most_of_its_life_is_ahead_however_short_it_is(ttl: int) -> None:
    cert = x509.load_pem_x509_certificate(signed(ttl_seconds=ttl)[0].encode())
    begin, end = cert.not_valid_before_utc.timestamp(), cert.not_valid_after_utc.timestamp()
    assert begin <= NOW
    assert end == NOW + ttl
    assert begin + (end - begin) * 2 / 3 > NOW + ttl / 2


def test_it_ends_with_the_ca() -> None:
    cert = x509.load_pem_x509_certificate(signed(ttl_seconds=90 * 86_400)[0].encode())
    assert cert.not_valid_after_utc == x509.load_pem_x509_certificate(CA.cert_pem.encode()).not_valid_after_utc


def csr_with(key: Any, *extensions: x509.ExtensionType, hash_with: Any = hashes.SHA256()) -> str:  # noqa: B008
    builder = x509.CertificateSigningRequestBuilder(x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "node-1")]))
    for extension in extensions:
        builder = builder.add_extension(extension, critical=True)
    return builder.sign(key, hash_with).public_bytes(Encoding.PEM).decode()


def test_nothing_that_a_csr_asks_for_is_given() -> None:
    names = x509.SubjectAlternativeName([x509.DNSName("node-1.server.dc1.consul"), x509.DNSName("*")])
    asked = csr_with(KEY, names, x509.BasicConstraints(ca=True, path_length=None))
    plain, greedy = (x509.load_pem_x509_certificate(signed(csr)[0].encode()) for csr in (CSR, asked))
    assert greedy.subject == plain.subject
    assert [*map(str, greedy.extensions)] == [*map(str, plain.extensions)]


def tampered() -> str:
    der = bytearray(x509.load_pem_x509_csr(CSR.encode()).public_bytes(Encoding.DER))
    der[-1] ^= 1
    return x509.load_der_x509_csr(bytes(der)).public_bytes(Encoding.PEM).decode()


@pytest.mark.parametrize(
    "csr_pem",
    [
        "",
        "x",
        CSR[:200],
        "\0" + CSR,
        CSR.replace("CERTIFICATE REQUEST", "CERTIFICATE"),
        CSR + "x" * 4096,
        CA.cert_pem,
        tampered(),
        csr_with(rsa.generate_private_key(public_exponent=65537, key_size=1024)),
        csr_with(ec.generate_private_key(ec.SECP384R1())),
        csr_with(ed25519.Ed25519PrivateKey.generate(), hash_with=None),
        csr_with(KEY, hash_with=hashes.SHA512()),
    ],
)
def test_csr_that_is_none_or_of_another_kind_is_refused(csr_pem: str) -> None:
    with pytest.raises(CSRRejected):
        checked_key(csr_pem)


def test_renewed_certificate_keeps_the_names_that_an_operator_has_given() -> None:
    present = made_by_hand(more_dns=["ca.example.org"], more_addresses=["192.0.2.7"])
    cert_pem, _ = signed(present_pem=present)
    assert names_of(cert_pem) == names_of(present)
    assert "ca.example.org" in names_of(cert_pem)[0]


@pytest.mark.parametrize(
    "present",
    [
        made_by_hand("node-1"),
        made_by_hand(ca=OTHER_CA),
        made_by_hand(more_dns=["node-1.server.dc1.consul"]),
        made_by_hand(days=0),
        CA.cert_pem,
        "nonsense",
        "x" * 20_000,
    ],
    ids=["another server", "another CA", "two servers", "over", "a CA", "none", "long"],
)
def test_names_are_not_had_by_a_certificate_of_somebody_else(present: str) -> None:
    with pytest.raises(CSRRejected):
        signed(present_pem=present, now=NOW + 1)


def test_ca_is_tried_before_it_is_taken() -> None:
    check_agent_ca(CA.cert_pem, CA.key_pem, "dc1", "consul", NOW)
    with pytest.raises(ValueError, match="does not belong to the CA certificate"):
        check_agent_ca(CA.cert_pem, OTHER_CA.key_pem, "dc1", "consul", NOW)
    with pytest.raises(ValueError, match="has expired"):
        check_agent_ca(CA.cert_pem, CA.key_pem, "dc1", "consul", NOW + int(timedelta(days=31).total_seconds()))
    with pytest.raises(ValueError, match="not that of a CA"):
        check_agent_ca(made_by_hand(), CA.key_pem, "dc1", "consul", NOW)
    constrained = new_ca(datetime.fromtimestamp(NOW, UTC), 30, permitted_dns=["elsewhere"])
    with pytest.raises(ValueError, match="name constraints"):
        check_agent_ca(constrained.cert_pem, constrained.key_pem, "dc1", "consul", NOW)


def test_key_of_another_kind_is_the_operators() -> None:
    with pytest.raises(ValueError, match="EC P-256"):
        node_csr(ec.generate_private_key(ec.SECP384R1()))
