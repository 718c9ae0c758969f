"""The form of a CA certificate: what some parser of OpenSSL, Go, Java or rustls does not read at all.

`cryptography` reads more than each of them. A root whose form one of them refuses is as if it were not in that peer's
trust store; once it is cross-signed the chain through it is refused, too.
"""

import re
from collections.abc import Callable, Iterable, Iterator
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from providers.pki.x509 import colon_hex, extension_of

#: By the names that `cryptography` has for them: what Go reads in a name, of which OpenSSL reads all.
_STRINGS: Final = frozenset({"UTF8String", "PrintableString", "IA5String", "BMPString", "T61String"})
_NUMERIC: Final = re.compile(r"[0-9 ]*")
#: Go reads an arc of an object identifier into 31 bits, except in certificate policies.
_MAX_ARC: Final = (1 << 31) - 1
#: rustls reads one octet, Java 31 bits.
_MAX_PATH_LENGTH: Final = 255
#: SHA-512 has 64 bytes, and no tool makes longer ones (RFC 7093). It is repeated in each leaf, and recorded with it.
MAX_KEY_ID: Final = 64
#: Encoded in PEM, with a leaf and what a cross-signed certificate has beyond its root, a chain of 32 KiB.
MAX_BYTES: Final = 20 << 10
_HOST: Final = re.compile(r"(?=.{1,253}\Z)[A-Za-z0-9_-]{1,63}(?:\.[A-Za-z0-9_-]{1,63})*")
#: The years that UTCTime is for (RFC 5280 4.1.2.5).
_UTC_YEARS: Final = range(1950, 2050)
_GENERALIZED_TIME: Final = 0x18
_VERSION: Final = 0xA0
_UNIQUE_IDS: Final = {0x81: "issuerUniqueID", 0x82: "subjectUniqueID"}
_SHOWN: Final = 100


def _strings(cert: x509.Certificate) -> str:
    for field, name in _directory_names(cert):
        for attribute in name:
            kind = attribute._type.name
            if kind in _STRINGS or (kind == "NumericString" and _NUMERIC.fullmatch(str(attribute.value))):
                continue
            return (
                f"has a {kind} in its {field} ({attribute.oid.dotted_string}), which not every peer can read: expected"
                " UTF8String or PrintableString"
            )
    return ""


def _arcs(cert: x509.Certificate) -> str:
    for field, oid in _identifiers(cert):
        first, second, *others = map(int, oid.dotted_string.split("."))
        if max(40 * first + second, *others, 0) > _MAX_ARC:
            return (
                f"has the object identifier {oid.dotted_string[:_SHOWN]} as {field}, which Go does not read: expected"
                f" numbers of at most {_MAX_ARC}"
            )
    return ""


def _path_length(cert: x509.Certificate) -> str:
    basic = extension_of(cert, x509.BasicConstraints)
    if basic is None or basic.path_length is None or basic.path_length <= _MAX_PATH_LENGTH:
        return ""
    return (
        f"has the path length {basic.path_length}: expected none, or at most {_MAX_PATH_LENGTH}, which peers can read"
    )


def _key_ids(cert: x509.Certificate) -> str:
    subject, authority = extension_of(cert, x509.SubjectKeyIdentifier), extension_of(cert, x509.AuthorityKeyIdentifier)
    for field, key_id in (
        ("subject key identifier", subject.digest if subject else b""),
        ("authority key identifier", (authority.key_identifier or b"") if authority else b""),
    ):
        if len(key_id) > MAX_KEY_ID:
            return f"has a {field} of {len(key_id)} bytes ({colon_hex(key_id[:8])}..): expected at most {MAX_KEY_ID}"
    return ""


def _size(cert: x509.Certificate) -> str:
    size = len(cert.public_bytes(Encoding.DER))
    if size <= MAX_BYTES:
        return ""
    return f"has {size} bytes: expected at most {MAX_BYTES}, which peers take in a chain once it is cross-signed"


def _unique_ids(cert: x509.Certificate) -> str:
    found = [_UNIQUE_IDS[tag] for tag, _ in _fields(cert) if tag in _UNIQUE_IDS]
    if not found:
        return ""
    return f"has {' and '.join(found)}, which Go and rustls do not read: expected none (RFC 5280 4.1.2.8)"


def _times(cert: x509.Certificate) -> str:
    validity = [content for tag, content in _fields(cert) if tag != _VERSION][3]
    for field, (tag, content) in zip(("notBefore", "notAfter"), _items(validity), strict=True):
        if tag == _GENERALIZED_TIME and content[:4].isdigit() and int(content[:4]) in _UTC_YEARS:
            shown = content.decode("ascii", "replace")[:_SHOWN]
            return f"has the {field} {shown} as GeneralizedTime: expected UTCTime before 2050 (RFC 5280 4.1.2.5)"
    return ""


def _constraints(cert: x509.Certificate) -> str:
    constraints = extension_of(cert, x509.NameConstraints)
    if constraints is None:
        return ""
    for name in (*(constraints.permitted_subtrees or ()), *(constraints.excluded_subtrees or ())):
        # A dot at an end, or nothing at all, has words of its own (verify.py).
        if isinstance(name, x509.DNSName) and (bare := name.value.strip(".")) and not _HOST.fullmatch(bare):
            return (
                f"has the name constraint {name.value[:_SHOWN]!r}, which is no domain, so that verifiers refuse all"
                " names below it: expected labels of letters, digits and hyphens, at most 63 each"
            )
    if constraints.public_bytes() not in cert.tbs_certificate_bytes:
        return "has name constraints with a minimum or maximum, which verifiers refuse: expected names alone"
    return ""


def _policies(cert: x509.Certificate) -> str:
    policies = extension_of(cert, x509.CertificatePolicies)
    seen: set[str] = set()
    for policy in policies or ():
        oid = policy.policy_identifier.dotted_string
        if oid in seen:
            return f"has the certificate policy {oid[:_SHOWN]} twice: expected each once (RFC 5280 4.2.1.4)"
        seen.add(oid)
    return ""


def _alternative_names(cert: x509.Certificate) -> str:
    for name in extension_of(cert, x509.SubjectAlternativeName) or ():
        if isinstance(name, x509.DNSName | x509.RFC822Name | x509.UniformResourceIdentifier) and not (
            name.value.isascii()
        ):
            return f"has the alternative name {name.value[:_SHOWN]!r}, which is not ASCII: expected IA5String"
    return ""


RULES: Final[tuple[Callable[[x509.Certificate], str], ...]] = (
    _strings,
    _arcs,
    _path_length,
    _key_ids,
    _size,
    _unique_ids,
    _times,
    _constraints,
    _policies,
    _alternative_names,
)


# -- what a certificate holds


def _directory_names(cert: x509.Certificate) -> Iterator[tuple[str, x509.Name]]:
    """All that OpenSSL reads before it looks at anything else."""
    yield "subject", cert.subject
    yield "issuer", cert.issuer
    authority = extension_of(cert, x509.AuthorityKeyIdentifier)
    points = extension_of(cert, x509.CRLDistributionPoints) or ()
    general: tuple[tuple[str, Iterable[x509.GeneralName]], ...] = (
        ("subject alternative name", extension_of(cert, x509.SubjectAlternativeName) or ()),
        ("authority key identifier", (authority and authority.authority_cert_issuer) or ()),
        *(("CRL distribution point", (*(point.full_name or ()), *(point.crl_issuer or ()))) for point in points),
    )
    for field, names in general:
        yield from ((field, name.value) for name in names if isinstance(name, x509.DirectoryName))


def _identifiers(cert: x509.Certificate) -> Iterator[tuple[str, x509.ObjectIdentifier]]:
    yield from (("extension", extension.oid) for extension in cert.extensions)
    yield from ((f"attribute type in its {field}", one.oid) for field, name in _directory_names(cert) for one in name)
    yield from (("extended key usage", oid) for oid in extension_of(cert, x509.ExtendedKeyUsage) or ())
    access = extension_of(cert, x509.AuthorityInformationAccess) or ()
    yield from (("access method", one.access_method) for one in access)


def _fields(cert: x509.Certificate) -> list[tuple[int, bytes]]:
    [(_, certificate)] = _items(cert.tbs_certificate_bytes)
    return list(_items(certificate))


def _items(der: bytes) -> Iterator[tuple[int, bytes]]:
    """Tag and content of each value in turn; of bytes that `cryptography` has read as DER (X.690 8.1)."""
    position = 0
    while position < len(der):
        tag, size = der[position], der[position + 1]
        position += 2
        if size & 0x80:
            octets = size & 0x7F
            size = int.from_bytes(der[position : position + octets], "big")
            position += octets
        yield tag, der[position : position + size]
        position += size
