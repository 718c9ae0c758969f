"""Leaves of any names, kinds, keys and times: always exactly the profile, always verifiable."""

import functools
from datetime import UTC, datetime
from ipaddress import IPv4Address, IPv6Address

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.x509.oid import NameOID
from hypothesis import example, given, settings
from hypothesis import strategies as st

from providers.api import CAChain, CSRPolicy, LeafRequest
from providers.grants import EVERYTHING
from providers.pki import verify
from providers.pki.leaf import LeafSigner
from providers.pki.spiffe import Kind, SpiffeId
from providers.pki.x509 import Issuer
from tests.kit import pki
from tests.property.providers.strategies import ADDRESSES, DNS_NAMES, issued_identities

# 2049/2050 is where the form of a time changes (RFC 5280 4.1.2.5).
YEAR_2050 = 2_524_608_000
END = YEAR_2050 + 50 * pki.YEAR


@functools.cache
def _signer(kind: tuple[str, int]) -> tuple[LeafSigner, x509.Certificate]:
    """A CA with a name as an operator may have chosen it: several attributes in one place, other alphabets, long."""
    private = pki.key(*kind)
    public = private.public_key()
    name = x509.Name(
        [
            x509.RelativeDistinguishedName(
                [
                    x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Société"),
                    x509.NameAttribute(NameOID.COUNTRY_NAME, "FR"),
                ]
            ),
            x509.RelativeDistinguishedName([x509.NameAttribute(NameOID.COMMON_NAME, "r" * 64)]),
            x509.RelativeDistinguishedName([x509.NameAttribute(NameOID.EMAIL_ADDRESS, "ca@example.com")]),
            x509.RelativeDistinguishedName([x509.NameAttribute(NameOID.DOMAIN_COMPONENT, "d" * 90)]),
        ]
    )
    builder = x509.CertificateBuilder(
        subject_name=name,
        issuer_name=name,
        public_key=public,
        serial_number=1,
        not_valid_before=datetime.fromtimestamp(pki.NOW, UTC),
        not_valid_after=datetime.fromtimestamp(END, UTC),
    )
    for value, critical in pki.ca_extensions(public, pki.key_id(public)):
        builder = builder.add_extension(value, critical)
    root = builder.sign(private, hashes.SHA256())
    chain = CAChain(pki.pem(root), pki.pem(root))
    return LeafSigner(chain, Issuer(root, private), ttl_seconds=pki.DAY), root


@settings(deadline=None, max_examples=300)
@given(
    ca_kind=st.sampled_from(pki.CA_KINDS[:4]),
    key_kind=st.sampled_from(pki.LEAF_KINDS),
    identity=issued_identities(),
    dns_names=st.lists(DNS_NAMES, max_size=12, unique=True),
    addresses=st.lists(ADDRESSES, max_size=12, unique=True),
    serial=st.integers(1 << 127, (1 << 159) - 1),
    now=st.integers(pki.NOW, END - pki.DAY),
)
@example(("ec", 256), ("ec", 256), SpiffeId(Kind.MESH_GATEWAY, "x", "dc1"), [], [], 1 << 127, YEAR_2050 + 59)
@example(("ec", 256), ("ec", 256), SpiffeId(Kind.MESH_GATEWAY, "x", "dc1"), [], [], 1 << 158, YEAR_2050 + 60)
@example(("ec", 256), ("ec", 256), SpiffeId(Kind.MESH_GATEWAY, "x", "dc1"), [], [], 1 << 158, YEAR_2050 + 60 - pki.DAY)
def test_leaf_has_the_csrs_names_and_key_and_for_the_rest_the_profile(
    ca_kind: tuple[str, int],
    key_kind: tuple[str, int],
    identity: SpiffeId,
    dns_names: list[str],
    addresses: list[IPv4Address | IPv6Address],
    serial: int,
    now: int,
) -> None:
    signer, root = _signer(ca_kind)
    identity = identity.in_trust_domain(pki.TRUST_DOMAIN)
    private = pki.key(*key_kind)
    names = [
        x509.UniformResourceIdentifier(identity.uri),
        *(x509.IPAddress(address) for address in addresses),
        *(x509.DNSName(name) for name in dns_names),
    ]
    csr = pki.csr_of(private, names).public_bytes(serialization.Encoding.PEM).decode()
    policy = CSRPolicy(pki.TRUST_DOMAIN, identity.datacenter)
    leaf = signer.sign(LeafRequest(csr, policy, serial, now, EVERYTHING))

    cert = pki.load(leaf.cert_pem)
    assert cert.serial_number == serial
    assert pki.times(cert) == (now - 60, now - 60 + pki.DAY) == (leaf.not_before, leaf.not_after)
    assert pki.spki(cert.public_key()) == pki.spki(private.public_key())
    # Go compares names byte for byte when it builds a chain.
    assert root.subject.public_bytes() in root.tbs_certificate_bytes
    assert cert.issuer.public_bytes() == root.subject.public_bytes()
    # All names, in the order in which Go writes them.
    uri, hosts = names[0], names[1:]
    found = list(pki.value_of(cert, x509.SubjectAlternativeName))
    assert found == [*hosts[len(addresses) :], *hosts[: len(addresses)], uri]
    expected = pki.leaf_extensions(private.public_key(), pki.ski(root))[1:-1]
    usage = pki.key_usage(digital_signature=True, key_encipherment=key_kind[0] == "rsa")
    assert [(e.value, e.critical) for e in cert.extensions][:-1] == [(usage, True), *expected]
    verify.verify_leaf(leaf.cert_pem, {"root": [pki.pem(root)]}, now=now, spiffe_id=identity.uri)
