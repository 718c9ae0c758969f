"""What a CA certificate must not say because some peer refuses what is below it: OpenSSL, Go, Java or rustls.

Verifiers pass over much that a trust anchor says of itself. Once a root is cross-signed all of it counts: its
extensions are copied, and it stands in the middle of a chain. So what would only show at the next rotation is refused
when the CA comes.
"""

from collections.abc import Callable
from typing import Final

from cryptography import x509
from cryptography.x509.oid import ExtensionOID, PublicKeyAlgorithmOID

from providers.pki import forms, keys
from providers.pki.constraints import refusal_of_cas
from providers.pki.x509 import check_serial, extension_of, public_key

_UNDERSTOOD: Final = frozenset(
    {
        ExtensionOID.BASIC_CONSTRAINTS,
        ExtensionOID.KEY_USAGE,
        ExtensionOID.EXTENDED_KEY_USAGE,
        ExtensionOID.NAME_CONSTRAINTS,
        ExtensionOID.SUBJECT_ALTERNATIVE_NAME,
    }
)
_POLICIES: Final = {
    ExtensionOID.POLICY_CONSTRAINTS: "policy constraints",
    ExtensionOID.POLICY_MAPPINGS: "policy mappings",
    ExtensionOID.INHIBIT_ANY_POLICY: "inhibitAnyPolicy",
}
#: What a certificate may be used for as Netscape had it; OpenSSL still asks for the bit of TLS CAs where it is there.
_NETSCAPE_TYPE: Final = x509.ObjectIdentifier("2.16.840.1.113730.1.1")
_NETSCAPE_TLS_CA: Final = 0x04
_BIT_STRING: Final = 0x03
#: OpenSSL refuses the first under any CA; the others have to be nested in those of the CA above, which has none.
_ODD: Final = {
    "1.3.6.1.5.5.7.1.14": "proxyCertInfo, which makes it a proxy and no CA",
    **dict.fromkeys(
        ("1.3.6.1.5.5.7.1.7", "1.3.6.1.5.5.7.1.8", "1.3.6.1.5.5.7.1.28", "1.3.6.1.5.5.7.1.29"),
        "IP address or AS number resources (RFC 3779), which the CA above would have to have as well",
    ),
}
_KEYS: Final = frozenset({PublicKeyAlgorithmOID.RSAES_PKCS1_v1_5, PublicKeyAlgorithmOID.EC_PUBLIC_KEY})


def problems(cert: x509.Certificate) -> list[str]:
    """Sentences about this CA certificate that go on from its name."""
    return [text for rule in _RULES if (text := rule(cert))]


def path_length(cert: x509.Certificate) -> int | None:
    """How many CAs may stand between this one and a leaf; None for any number."""
    try:
        return cert.extensions.get_extension_for_class(x509.BasicConstraints).value.path_length
    except x509.ExtensionNotFound:
        return None


def _critical(cert: x509.Certificate) -> str:
    odd = [extension.oid for extension in cert.extensions if extension.critical and extension.oid not in _UNDERSTOOD]
    if not odd:
        return ""
    named = ", ".join(oid.dotted_string if oid._name == "Unknown OID" else oid._name for oid in odd)
    return (
        f"is not usable as a root: it has critical extensions that verifiers refuse ({named}): expected none but basic"
        " constraints, key usage, extended key usage, name constraints and subject alternative name"
    )


def _policies(cert: x509.Certificate) -> str:
    found = [_POLICIES[extension.oid] for extension in cert.extensions if extension.oid in _POLICIES]
    if not found:
        return ""
    return f"has {', '.join(found)}, for which verifiers may refuse leaves that carry no policies: expected none"


def _netscape(cert: x509.Certificate) -> str:
    for extension in cert.extensions:
        value = extension.value
        if extension.oid != _NETSCAPE_TYPE or not isinstance(value, x509.UnrecognizedExtension):
            continue
        if not _is_flags(value.value):
            return "has a Netscape certificate type that is malformed, which OpenSSL refuses: expected none"
        if not value.value[3] & _NETSCAPE_TLS_CA:
            return "has a Netscape certificate type without TLS CA, which OpenSSL refuses: expected none"
    return ""


def _is_flags(der: bytes) -> bool:
    """A BIT STRING of one to eight bits, as DER has it."""
    if len(der) != 4 or der[0] != _BIT_STRING or der[1] != 2 or der[2] > 7:
        return False
    return der[3] & ((1 << der[2]) - 1) == 0


def _unsupported(cert: x509.Certificate) -> str:
    found = [_ODD[extension.oid.dotted_string] for extension in cert.extensions if extension.oid.dotted_string in _ODD]
    return f"has {found[0]}, so that OpenSSL refuses what is below it: expected none" if found else ""


def _below(cert: x509.Certificate) -> str:
    if not (said := refusal_of_cas(cert)):
        return ""
    return (
        f"{said} that do not permit the names of the CAs that may come below it, pri-....consul, so that Java refuses"
        " what is below these: expected DNS:consul among the permitted names (quorumca tls ca create -name-constraint)"
    )


def _key(cert: x509.Certificate) -> str:
    algorithm = cert.public_key_algorithm_oid
    if algorithm in _KEYS:
        if keys.spki_der(public_key(cert)) in cert.tbs_certificate_bytes:
            return ""
        return "has a key that is not encoded as others read it: expected a named curve, and DER"
    return (
        f"has a key for {algorithm._name} only, with which no leaf can be signed for all verifiers: expected RSA or EC"
    )


def _serial(cert: x509.Certificate) -> str:
    try:
        check_serial(cert.serial_number)
    except ValueError:
        return (
            f"has the serial {cert.serial_number:#x}: expected a positive one of at most 20 octets (RFC 5280 4.1.2.2)"
        )
    return ""


def _name(cert: x509.Certificate) -> str:
    """Leaves and cross-signed certificates carry the name as it is written here; Go and Java compare bytes."""
    if cert.subject.public_bytes() in cert.tbs_certificate_bytes:
        return ""
    return "has a subject in an encoding that cannot be repeated byte by byte: expected DER with UTF8String attributes"


def _authority(cert: x509.Certificate) -> str:
    """Only of a root: of other certificates it speaks of somebody else."""
    named = extension_of(cert, x509.AuthorityKeyIdentifier)
    if cert.subject != cert.issuer or named is None:
        return ""
    if named.authority_cert_serial_number in (None, cert.serial_number) and (
        not named.authority_cert_issuer or named.authority_cert_issuer == [x509.DirectoryName(cert.subject)]
    ):
        return ""
    return "has an authority key identifier with the name or serial of another certificate: expected its own, or none"


_RULES: Final[tuple[Callable[[x509.Certificate], str], ...]] = (
    _critical,
    _policies,
    _netscape,
    _unsupported,
    _below,
    _key,
    _serial,
    _name,
    _authority,
    *forms.RULES,
)
