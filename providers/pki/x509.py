"""Certificates and CA signing requests: identifiers, text forms, PEM, and the builders for CA certificates.

Pure functions over `cryptography`; the profile of each kind of CA certificate stands in its
builder (docs/consul-compat.md 2, 10.2 to 10.5). The leaf's profile is in providers/pki/leaf.py.
"""

import hashlib
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from ipaddress import ip_address
from typing import TypeVar, cast

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtensionOID, NameOID

from providers.pki import keys
from providers.pki.keys import KeyKind, SigningKey, VerifyKey

E = TypeVar("E", bound=x509.ExtensionType)

# Covers clocks that run apart between hosts (consul-compat 7).
BACKDATE_SECONDS = 60

# RFC 5280 4.1.2.2: positive, at most 20 octets; the first bit is the sign.
MAX_SERIAL = 2**159 - 1

# RFC 7468 section 5 has the first label; the second is older.
_CERTIFICATE = re.compile(r"-----BEGIN ((?:X509 )?CERTIFICATE)-----.*?-----END \1-----", re.DOTALL)
_NOT_NAME = re.compile(r"[^a-z0-9]")

CA_KEY_USAGE = x509.KeyUsage(
    digital_signature=True,
    key_cert_sign=True,
    crl_sign=True,
    content_commitment=False,
    key_encipherment=False,
    data_encipherment=False,
    key_agreement=False,
    encipher_only=False,
    decipher_only=False,
)
# These speak of the issuer that a certificate had before it was cross-signed.
_OF_THE_ISSUER = frozenset(
    {
        ExtensionOID.AUTHORITY_KEY_IDENTIFIER,
        ExtensionOID.AUTHORITY_INFORMATION_ACCESS,
        ExtensionOID.CRL_DISTRIBUTION_POINTS,
        ExtensionOID.FRESHEST_CRL,
        ExtensionOID.ISSUER_ALTERNATIVE_NAME,
    }
)


# What `cryptography` raises about a certificate; a UnicodeError is a ValueError.
_UNUSABLE = (
    ValueError,
    TypeError,
    UnsupportedAlgorithm,
    x509.UnsupportedGeneralNameType,
)
_NO_PEM = "no PEM-encoded certificate found"


@dataclass(frozen=True, slots=True)
class Validity:
    """Both ends inclusive (RFC 5280 4.1.2.5), whole seconds."""

    not_before: datetime
    not_after: datetime


@dataclass(frozen=True, slots=True)
class Issuer:
    """A CA certificate together with its private key."""

    cert: x509.Certificate
    key: SigningKey


# --- time ---------------------------------------------------------------------------------------------------------


def at(unix: int) -> datetime:
    return datetime.fromtimestamp(unix, UTC)


def unix(moment: datetime) -> int:
    return int(moment.timestamp())


def backdate_seconds(ttl_seconds: int) -> int:
    """How far before now a certificate of this lifetime begins, whichever kind it is: clients whose clocks are late see
    a chain through its last certificate only, and refuse it at its youngest CA as well as at the leaf.

    A minute, which is counted inside the lifetime; but never more than a tenth of it, else a TTL of seconds, which
    SkipValidate permits, would have run out before the certificate is issued (consul-compat 2 and 11.10).
    """
    return min(BACKDATE_SECONDS, ttl_seconds // 10)


# --- identifiers and their text forms -----------------------------------------------------------------------------


def colon_hex(data: bytes) -> str:
    return data.hex(":")


def parse_hex(text: str) -> bytes:
    """Bytes of a hex text in either case, with or without colons; an odd number of digits gets a leading zero.

    Raises: ValueError.
    """
    digits = text.replace(":", "")
    if not digits or not re.fullmatch(r"[0-9A-Fa-f]+", digits):
        raise ValueError(f"not a hexadecimal identifier: {text[:80]!r}")
    return bytes.fromhex(digits if len(digits) % 2 == 0 else f"0{digits}")


def check_serial(serial: int) -> None:
    """Raises: ValueError. Serials are made by the caller, so a bad one is a defect, not somebody's input."""
    if not 0 < serial <= MAX_SERIAL:
        raise ValueError("serial must be positive and at most 20 octets (RFC 5280 4.1.2.2)")


def root_id(root_pem: str) -> str:
    """SHA-1 over the DER of the first certificate, as Consul names roots (consul-compat 2.3): an id, not a proof."""
    first = load_bundle(root_pem)[0]
    digest = hashlib.sha1(first.public_bytes(serialization.Encoding.DER), usedforsecurity=False)
    return colon_hex(digest.digest())


def signing_key_id(cert_pem: str) -> str:
    """Colon-hex of the subject key identifier: the SigningKeyID of a root, and the AKI of what it signs."""
    return colon_hex(subject_key_id(load_cert(cert_pem)))


def common_name(role: str, uid: str, provider: str, cluster_id: str) -> str:
    """The CA's common name, `pri-1cj8zamm.consul.ca.07933a13.consul`; `role` is "pri" or "sec" (consul-compat 2.1)."""
    uid8 = _NOT_NAME.sub("", uid.lower())[:8]
    return f"{role}-{uid8}.{_NOT_NAME.sub('', provider.lower())[:32]}.ca.{cluster_id[:8].lower()}.consul"


def uid_of(key: VerifyKey) -> str:
    """A uid for `common_name` that follows from the key, so that making it again gives the same name."""
    return uid_from(keys.key_id(key))


def uid_from(digest: bytes) -> str:
    digits = "0123456789abcdefghijklmnopqrstuvwxyz"
    number = int.from_bytes(digest, "big")
    return "".join(digits[number // 36**place % 36] for place in range(8))


def distinguished_name(common: str) -> x509.Name:
    """A subject of nothing but a common name."""
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common)])


# --- reading ------------------------------------------------------------------------------------------------------


def load_bundle(pem: str) -> list[x509.Certificate]:
    """The certificates of a PEM text in their order, at least one.

    Raises: ValueError.
    """
    blocks = [found[0] for found in _CERTIFICATE.finditer(pem)]
    if not blocks:
        raise ValueError(_NO_PEM)
    return [load_cert(block) for block in blocks]


def load_cert(pem: str) -> x509.Certificate:
    """The first certificate of a PEM text, with all its parts decoded.

    Raises: ValueError, and nothing else, whatever the text is.
    """
    found = _CERTIFICATE.search(pem)
    if found is None:
        raise ValueError(_NO_PEM)
    with _told_plainly("it is damaged, or no X.509 certificate (RFC 5280)"):
        cert = x509.load_pem_x509_certificate(found[0].encode("ascii"))
    # `cryptography` decodes these only when they are asked for; here is the place where they may fail.
    for part, decode in _PARTS:
        with _told_plainly(f"certificate cannot be used: its {part} cannot be decoded"):
            decode(cert)
    return cert


@contextmanager
def _told_plainly(text: str) -> Iterator[None]:
    """Whatever `cryptography` raises is a ValueError with our words: its own are about its parser.

    A defect of its Rust part comes as PanicException, which derives from BaseException and has no importable name; let
    through it would end whoever reads the certificate. Raises: ValueError; keys.KeyRefused, whose text is ours.
    """
    try:
        yield
    except keys.KeyRefused:
        raise
    except x509.DuplicateExtension as error:
        raise ValueError(f"certificate cannot be used: extension {error.oid.dotted_string} occurs twice") from error
    except x509.InvalidVersion as error:
        version = error.parsed_version
        raise ValueError(
            f"certificate cannot be used: {version} is not a valid X509 version: must be 2 (v3)"
        ) from error
    except _UNUSABLE as error:
        raise ValueError(text) from error
    except BaseException as error:
        if type(error).__name__ != "PanicException":
            raise
        raise ValueError(text) from error


def split_bundle(pem: str) -> tuple[str, ...]:
    """One newline-terminated PEM text per certificate."""
    return tuple(cert_pem(cert) for cert in load_bundle(pem))


def cert_pem(cert: x509.Certificate) -> str:
    return cert.public_bytes(serialization.Encoding.PEM).decode("ascii")


def public_key(cert: x509.Certificate) -> VerifyKey:
    """Raises: keys.KeyRefused (a ValueError) for key types that this CA does not work with."""
    return public_key_and_kind(cert)[0]


def public_key_and_kind(cert: x509.Certificate | x509.CertificateSigningRequest) -> tuple[VerifyKey, KeyKind]:
    """Raises: keys.KeyRefused (a ValueError)."""
    try:
        key = cert.public_key()
    except UnsupportedAlgorithm as error:
        raise keys.KeyRefused("invalid key type: unknown algorithm or curve: must be RSA or EC") from error
    return cast(VerifyKey, key), keys.kind_of(key)


def csr_key(csr_pem: str) -> VerifyKey:
    """Raises: ValueError."""
    return public_key_and_kind(x509.load_pem_x509_csr(csr_pem.encode()))[0]


def extension_of(cert: x509.Certificate, kind: type[E]) -> E | None:
    """What the certificate says there; None if it has no such extension."""
    try:
        return cert.extensions.get_extension_for_class(kind).value
    except x509.ExtensionNotFound:
        return None


def subject_key_id(cert: x509.Certificate) -> bytes:
    """The certificate's own identifier, of whatever length its maker chose; empty when it has none."""
    try:
        return cert.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value.digest
    except x509.ExtensionNotFound:
        return b""


def authority_key_id(cert: x509.Certificate) -> bytes:
    try:
        return cert.extensions.get_extension_for_class(x509.AuthorityKeyIdentifier).value.key_identifier or b""
    except x509.ExtensionNotFound:
        return b""


def subject_alt_names(cert: x509.Certificate | x509.CertificateSigningRequest) -> list[x509.GeneralName]:
    try:
        return list(cert.extensions.get_extension_for_class(x509.SubjectAlternativeName).value)
    except x509.ExtensionNotFound:
        return []


def is_ca(cert: x509.Certificate) -> bool:
    try:
        return cert.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except x509.ExtensionNotFound:
        return False


def path_length(cert: x509.Certificate) -> int | None:
    """How many CAs there may be below this one; None without a limit."""
    try:
        return cert.extensions.get_extension_for_class(x509.BasicConstraints).value.path_length
    except x509.ExtensionNotFound:
        return None


def uris(cert: x509.Certificate | x509.CertificateSigningRequest) -> list[str]:
    return [name.value for name in subject_alt_names(cert) if isinstance(name, x509.UniformResourceIdentifier)]


_PARTS: tuple[tuple[str, Callable[[x509.Certificate], object]], ...] = (
    ("names", lambda cert: (cert.subject, cert.issuer)),
    ("extensions", lambda cert: cert.extensions),
    ("signature algorithm", lambda cert: cert.signature_hash_algorithm),
    ("public key", public_key),
)


# --- building -----------------------------------------------------------------------------------------------------


def build_root(key: SigningKey, name: str, uri: str, serial: int, validity: Validity) -> x509.Certificate:
    """A self-signed root: CA without path length, named by its URI SAN (consul-compat 2)."""
    subject = distinguished_name(name)
    own_id = keys.key_id(key.public_key())
    builder = _ca_builder(subject, subject, key.public_key(), serial, validity, path_length=None)
    return _sign(
        _with_ids(builder, own_id, own_id).add_extension(_san([x509.UniformResourceIdentifier(uri)]), False), key
    )


def build_intermediate_csr(key: SigningKey, name: str, uri: str) -> str:
    """A secondary's request, PEM. Its subject is not empty, so no leaf has an empty issuer (consul-compat 10.2)."""
    builder = x509.CertificateSigningRequestBuilder(subject_name=distinguished_name(name)).add_extension(
        _san([x509.UniformResourceIdentifier(uri)]), critical=False
    )
    csr = builder.sign(key, keys.hash_for(keys.kind_of(key)), ecdsa_deterministic=_deterministic(key))
    return csr.public_bytes(serialization.Encoding.PEM).decode("ascii")


def new_leaf_csr(spiffe_id: str, dns_names: Iterable[str], addresses: Iterable[str]) -> tuple[str, str]:
    """What an agent does for a local service: a new key and a CSR for it; returns (CSR, key), both PEM.

    The key is EC P-256 as "EC PRIVATE KEY" whatever the CA's own keys are (consul-compat 6). DNS names are cut at the
    first ":" and empty ones dropped (consul-compat 2.4). Raises: ValueError for an address that is none.
    """
    key = keys.generate(keys.KeyKind("ec", 256))
    hosts = dict.fromkeys(host for name in dns_names if (host := name.partition(":")[0]))
    names: list[x509.GeneralName] = [x509.DNSName(host) for host in hosts]
    names += [x509.IPAddress(address) for address in dict.fromkeys(map(ip_address, addresses))]
    builder = x509.CertificateSigningRequestBuilder(subject_name=x509.Name([])).add_extension(
        _san([*names, x509.UniformResourceIdentifier(spiffe_id)]), critical=True
    )
    csr = builder.sign(key, keys.hash_for(keys.kind_of(key)))
    key_pem = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()
    )
    return csr.public_bytes(serialization.Encoding.PEM).decode("ascii"), key_pem.decode("ascii")


def build_intermediate(
    issuer: Issuer,
    subject: x509.Name,
    key: VerifyKey,
    names: Iterable[x509.GeneralName],
    serial: int,
    validity: Validity,
) -> x509.Certificate:
    """A CA certificate with path length 0 for a secondary's key."""
    builder = _ca_builder(subject, issuer.cert.subject, key, serial, validity, path_length=0)
    builder = _with_ids(builder, keys.key_id(key), subject_key_id(issuer.cert))
    return _sign(builder.add_extension(_san(names), critical=False), issuer.key)


def build_cross_signed(issuer: Issuer, other: x509.Certificate, serial: int, validity: Validity) -> x509.Certificate:
    """`other` re-issued: its subject, key, SKI and further extensions, under this issuer's name and key.

    The signature algorithm follows from the key that signs. Copying it from a certificate broke Consul's second
    rotation, where that certificate had been signed by a key of another type (consul#10070).
    """
    builder = _builder(other.subject, issuer.cert.subject, public_key(other), serial, validity)
    for extension in other.extensions:
        if extension.oid not in _OF_THE_ISSUER:
            builder = builder.add_extension(extension.value, extension.critical)
    return _sign(builder.add_extension(_aki(subject_key_id(issuer.cert)), critical=False), issuer.key)


def _builder(
    subject: x509.Name, issuer: x509.Name, key: VerifyKey, serial: int, validity: Validity
) -> x509.CertificateBuilder:
    check_serial(serial)
    return x509.CertificateBuilder(
        issuer_name=issuer,
        subject_name=subject,
        public_key=key,
        serial_number=serial,
        not_valid_before=validity.not_before,
        not_valid_after=validity.not_after,
    )


def _ca_builder(
    subject: x509.Name,
    issuer: x509.Name,
    key: VerifyKey,
    serial: int,
    validity: Validity,
    path_length: int | None,
) -> x509.CertificateBuilder:
    return (
        _builder(subject, issuer, key, serial, validity)
        .add_extension(CA_KEY_USAGE, critical=True)
        .add_extension(x509.BasicConstraints(ca=True, path_length=path_length), critical=True)
    )


def _with_ids(builder: x509.CertificateBuilder, subject_id: bytes, authority_id: bytes) -> x509.CertificateBuilder:
    return builder.add_extension(x509.SubjectKeyIdentifier(subject_id), critical=False).add_extension(
        _aki(authority_id), critical=False
    )


def _aki(key_id: bytes) -> x509.AuthorityKeyIdentifier:
    return x509.AuthorityKeyIdentifier(key_id, authority_cert_issuer=None, authority_cert_serial_number=None)


def _san(names: Iterable[x509.GeneralName]) -> x509.SubjectAlternativeName:
    return x509.SubjectAlternativeName(names)


def _sign(builder: x509.CertificateBuilder, key: SigningKey) -> x509.Certificate:
    return builder.sign(key, keys.hash_for(keys.kind_of(key)), ecdsa_deterministic=_deterministic(key))


def _deterministic(key: SigningKey) -> bool | None:
    """RFC 6979: signing the same CA certificate again after a crash gives the same bytes, not a second certificate
    with the same serial. PKCS#1 v1.5 is like that by nature, and `cryptography` takes the option for EC keys only."""
    return True if isinstance(key, ec.EllipticCurvePrivateKey) else None
