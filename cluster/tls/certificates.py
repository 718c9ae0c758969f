"""The agent CA and the certificates it signs: who the nodes are to each other (cluster/tls/contexts.py).

Builds certificates of Consul's profile (docs/consul-compat.md 8) and writes no file. This CA is not the mesh's.
"""

import secrets
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from ipaddress import ip_address
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from providers.pki import keys
from providers.pki.keys import KeyKind, SigningKey, VerifyKey
from providers.pki.x509 import (
    BACKDATE_SECONDS,
    CA_KEY_USAGE,
    Issuer,
    backdate_seconds,
    cert_pem,
    is_ca,
    load_cert,
    public_key,
    subject_key_id,
)

_KEY: Final = KeyKind("ec", 256)
_SERIAL_BITS: Final = 128
#: Who made the CA, as `consul tls ca create` says it, in the order in which Go writes names.
_SUBJECT: Final = (
    (NameOID.COUNTRY_NAME, "US"),
    (NameOID.ORGANIZATION_NAME, "HashiCorp Inc."),
    (NameOID.LOCALITY_NAME, "San Francisco"),
    (NameOID.STATE_OR_PROVINCE_NAME, "CA"),
    (NameOID.STREET_ADDRESS, "101 Second Street"),
    (NameOID.POSTAL_CODE, "94105"),
)
_LEAF_KEY_USAGE: Final = x509.KeyUsage(
    digital_signature=True,
    key_encipherment=True,
    content_commitment=False,
    data_encipherment=False,
    key_agreement=False,
    key_cert_sign=False,
    crl_sign=False,
    encipher_only=False,
    decipher_only=False,
)
#: Role -> extended key usages, in Consul's order.
ROLES: Final = {
    "server": (ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH),
    "client": (ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH),
    "cli": (),
}


@dataclass(frozen=True, slots=True)
class Pair:
    """A certificate and its private key ("EC PRIVATE KEY"), PEM."""

    cert_pem: str
    key_pem: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Identity:
    """Whom a certificate names. `role` is a key of ROLES."""

    role: str
    datacenter: str = "dc1"
    domain: str = "consul"
    node: str = ""
    more_dns: Sequence[str] = ()
    more_addresses: Sequence[str] = ()

    @property
    def name(self) -> str:
        return f"{self.role}.{self.datacenter}.{self.domain}"

    @property
    def dns_names(self) -> list[str]:
        own = [f"{self.node}.{self.name}", self.name] if self.node else [self.name]
        more = () if self.role == "cli" else self.more_dns
        return list(dict.fromkeys([*more, *own, "localhost"]))

    @property
    def addresses(self) -> list[str]:
        own = [] if self.role == "cli" else ["127.0.0.1"]
        return list(dict.fromkeys([*self.more_addresses, *own]))


def new_ca(
    now: datetime, days: int, *, common_name: str = "", uri: str = "", permitted_dns: Iterable[str] = ()
) -> Pair:
    """A self-signed CA; with `permitted_dns` good for these domains only (RFC 5280 4.2.1.10)."""
    key, serial = keys.generate(_KEY), _serial()
    begin = now - timedelta(seconds=BACKDATE_SECONDS)
    name = x509.NameAttribute(NameOID.COMMON_NAME, common_name or f"Consul Agent CA {serial}")
    subject = x509.Name([*(x509.NameAttribute(oid, value) for oid, value in _SUBJECT), name])
    key_id = keys.key_id(key.public_key())
    builder = (
        _builder(key.public_key(), serial, begin, begin + timedelta(days=days), issuer_key_id=key_id)
        .subject_name(subject)
        .issuer_name(subject)
        .add_extension(CA_KEY_USAGE, critical=True)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
    )
    if uri:
        builder = builder.add_extension(x509.SubjectAlternativeName([x509.UniformResourceIdentifier(uri)]), False)
    if permitted := [x509.DNSName(domain) for domain in dict.fromkeys(permitted_dns)]:
        builder = builder.add_extension(x509.NameConstraints(permitted, excluded_subtrees=None), critical=True)
    return _signed(builder, key, key)


def load_ca(ca_cert_pem: str, ca_key_pem: str, now: datetime) -> Issuer:
    """Raises: ValueError when nothing that is signed with these would be valid."""
    issuer = Issuer(load_cert(ca_cert_pem), keys.load_pem(ca_key_pem))
    if not is_ca(issuer.cert):
        raise ValueError("the certificate is not that of a CA: its basic constraints must say CA:TRUE")
    if keys.spki_der(public_key(issuer.cert)) != keys.spki_der(issuer.key.public_key()):
        raise ValueError("the private key does not belong to the CA certificate")
    if issuer.cert.not_valid_after_utc <= now:
        raise ValueError(f"the CA certificate has expired on {issuer.cert.not_valid_after_utc:%Y-%m-%d}")
    return issuer


def new_cert(issuer: Issuer, identity: Identity, now: datetime, days: int) -> Pair:
    """Signed for `identity`; ends with the CA's certificate at the latest.

    Raises: ValueError for a DNS name that the CA's name constraints do not permit: no verifier would accept it.
    """
    _check_permitted(issuer.cert, identity.dns_names)
    key = keys.generate(_KEY)
    begin = now - timedelta(seconds=BACKDATE_SECONDS)
    builder = _leaf_builder(issuer, identity, key.public_key(), begin, begin + timedelta(days=days))
    return _signed(builder, key, issuer.key)


def signed_for(
    issuer: Issuer, identity: Identity, public_key: VerifyKey, now: datetime, ttl: timedelta
) -> x509.Certificate:
    """As `new_cert`, for a key that somebody else has. Raises: ValueError."""
    _check_permitted(issuer.cert, identity.dns_names)
    begin = now - timedelta(seconds=backdate_seconds(int(ttl.total_seconds())))
    builder = _leaf_builder(issuer, identity, public_key, begin, now + ttl)
    return builder.sign(issuer.key, keys.hash_for(keys.kind_of(issuer.key)))


def _leaf_builder(
    issuer: Issuer, identity: Identity, public_key: VerifyKey, begin: datetime, end: datetime
) -> x509.CertificateBuilder:
    not_after = min(end, issuer.cert.not_valid_after_utc)
    names: list[x509.GeneralName] = [x509.DNSName(name) for name in identity.dns_names]
    names += [x509.IPAddress(ip_address(text)) for text in identity.addresses]
    builder = (
        _builder(public_key, _serial(), begin, not_after, issuer_key_id=subject_key_id(issuer.cert))
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, identity.name)]))
        .issuer_name(issuer.cert.subject)
        .add_extension(_LEAF_KEY_USAGE, critical=True)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
    )
    if usages := ROLES[identity.role]:
        builder = builder.add_extension(x509.ExtendedKeyUsage(usages), critical=False)
    return builder


def _builder(
    public_key: VerifyKey, serial: int, not_before: datetime, not_after: datetime, *, issuer_key_id: bytes
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .public_key(public_key)
        .serial_number(serial)
        .not_valid_before(not_before)
        .not_valid_after(not_after)
        .add_extension(x509.SubjectKeyIdentifier(keys.key_id(public_key)), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier(issuer_key_id, None, None), critical=False)
    )


def _signed(builder: x509.CertificateBuilder, key: SigningKey, issuer_key: SigningKey) -> Pair:
    cert = builder.sign(issuer_key, keys.hash_for(keys.kind_of(issuer_key)))
    key_data = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()
    )
    return Pair(cert_pem(cert), key_data.decode("ascii"))


def _serial() -> int:
    return secrets.randbelow((1 << _SERIAL_BITS) - 1) + 1


def _check_permitted(ca_cert: x509.Certificate, names: Iterable[str]) -> None:
    try:
        constraints = ca_cert.extensions.get_extension_for_class(x509.NameConstraints).value
    except x509.ExtensionNotFound:
        return
    permitted = [entry.value for entry in constraints.permitted_subtrees or () if isinstance(entry, x509.DNSName)]
    for name in names:
        if permitted and not any(f".{name}".endswith(f".{domain.lstrip('.')}") for domain in permitted):
            raise ValueError(f"the CA's name constraints do not permit {name}: must be in {', '.join(permitted)}")
