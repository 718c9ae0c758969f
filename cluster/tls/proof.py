"""What a peer would say of a certificate: its holder shakes hands with itself, in memory, as nodes do with each other.

The judge is the TLS library that the nodes' transport uses, with the same contexts: what is refused here every node
refuses, for whatever reason; and what is taken here is not refused by a rule of our own. Afterwards, and only for the
text, the certificates are looked at for the reason.
"""

import os
import ssl
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final, TypeVar

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.x509.oid import ExtendedKeyUsageOID

from cluster.tls.certificates import Identity, Pair
from cluster.tls.contexts import NodeTls, TlsFileRefused, TlsFiles

E = TypeVar("E", bound=x509.ExtensionType)

#: Both sides in turn, more often than a handshake has flights.
_TURNS: Final = 8
_USAGES: Final = (ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH)
#: Critical extensions that OpenSSL understands, by the last number below 2.5.29 (RFC 5280 4.2), from
#: keyUsage to inhibitAnyPolicy.
_UNDERSTOOD: Final = frozenset(f"2.5.29.{number}" for number in (15, 17, 19, 30, 31, 32, 33, 35, 36, 37, 54))


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a peer refuses it. `is_the_cas` says in which file to look: that of the CA, or that of the certificate."""

    reason: str
    is_the_cas: bool


def refusal_of(tls: NodeTls, name: str, cert_pem: bytes, ca_pem: bytes) -> Refusal | None:
    """None when a peer that knows the holder by this DNS name takes the certificate, at either end of a connection.

    `tls` has been made of the two files, whose content is given for the reason's sake.
    """
    try:
        _shake_hands(tls, name)
    except ssl.SSLCertVerificationError as error:
        return _explained(error, cert_pem, ca_pem)
    except ssl.SSLError as error:
        return Refusal(f"the TLS library refuses it ({_plain(error.reason)})", is_the_cas=False)
    return None


def check_made(made: Pair, identity: Identity, ca_pem: str) -> None:
    """Before it is written: whether nodes with this CA file take what has been made.

    Raises: ValueError with the reason.
    """
    name = f"{identity.node}.{identity.name}" if identity.node else identity.name
    try:
        with _in_memory(made.cert_pem, made.key_pem, ca_pem, identity) as tls:
            refusal = refusal_of(tls, name, made.cert_pem.encode(), ca_pem.encode())
    except TlsFileRefused as error:
        raise ValueError(
            "nodes cannot read it: it must hold certificates only, as PEM, without a byte-order mark"
        ) from error
    if refusal is not None:
        raise ValueError(f"no peer would accept a certificate that it signs: {refusal.reason}")


@contextmanager
def _in_memory(cert_pem: str, key_pem: str, ca_pem: str, identity: Identity) -> Iterator[NodeTls]:
    """The identity of a node without files: a key that may be thrown away again should not have been on a disk.

    Raises: TlsFileRefused.
    """
    with ExitStack() as stack:
        ca, cert, key = (stack.enter_context(_memory_file(pem)) for pem in (ca_pem, cert_pem, key_pem))
        yield NodeTls(TlsFiles(ca, cert, key), identity.datacenter, identity.domain)


@contextmanager
def _memory_file(pem: str) -> Iterator[str]:
    fd = os.memfd_create("pem", os.MFD_CLOEXEC)
    try:
        with os.fdopen(os.dup(fd), "w", encoding="utf-8") as file:
            file.write(pem)
        yield f"/proc/self/fd/{fd}"
    finally:
        os.close(fd)


def _shake_hands(tls: NodeTls, name: str) -> None:
    """Raises: ssl.SSLError."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    sides = [
        tls.client_context.wrap_bio(to_client, to_server, server_hostname=name),
        tls.server_context.wrap_bio(to_server, to_client, server_side=True),
    ]
    for _ in range(_TURNS):
        for side in list(sides):
            try:
                side.do_handshake()
                sides.remove(side)
            except ssl.SSLWantReadError:
                continue


# -- the reason in words


def _explained(error: ssl.SSLCertVerificationError, cert_pem: bytes, ca_pem: bytes) -> Refusal:
    chain, authorities = _certificates(cert_pem), _certificates(ca_pem)
    now = datetime.now(UTC)
    signers = [ca for ca in authorities if chain and any(_is_signed_by(cert, ca) for cert in chain)]
    for ca in signers or authorities[:1]:
        for fault in _FAULTS:
            if reason := fault(ca, now):
                return Refusal(f"{reason} ({_shown(ca)})", is_the_cas=True)
        if reason := _outside(chain, ca):
            return Refusal(reason, is_the_cas=True)
    return Refusal(f"the TLS library's verification says: {error.verify_message}", is_the_cas=False)


def _not_a_ca(ca: x509.Certificate, _now: datetime) -> str:
    basic = _extension(ca, x509.BasicConstraints)
    if basic is not None and not basic.ca:
        return "the certificate is not that of a CA: its basic constraints must say CA:TRUE"
    return ""


def _may_not_sign(ca: x509.Certificate, _now: datetime) -> str:
    usage = _extension(ca, x509.KeyUsage)
    if usage is not None and not usage.key_cert_sign:
        return "the CA may not sign certificates: its key usage must have keyCertSign"
    return ""


def _other_purpose(ca: x509.Certificate, _now: datetime) -> str:
    usages = _extension(ca, x509.ExtendedKeyUsage)
    if usages is not None and not all(usage in usages for usage in _USAGES):
        return "the CA is for other purposes: its extended key usage must have serverAuth and clientAuth, or be absent"
    return ""


def _not_yet(ca: x509.Certificate, now: datetime) -> str:
    start = ca.not_valid_before_utc
    return f"the CA is valid from {start:%Y-%m-%dT%H:%M:%SZ} on, which is not yet" if start > now else ""


def _no_more(ca: x509.Certificate, now: datetime) -> str:
    end = ca.not_valid_after_utc
    return f"the CA certificate has expired on {end:%Y-%m-%d}" if end < now else ""


def _not_understood(ca: x509.Certificate, _now: datetime) -> str:
    for extension in ca.extensions:
        oid = extension.oid.dotted_string
        if extension.critical and oid not in _UNDERSTOOD:
            return f"the CA has a critical extension that TLS does not know, {oid}: it must not be critical"
    return ""


def _not_its_own(ca: x509.Certificate, _now: datetime) -> str:
    if ca.subject != ca.issuer:
        return "the CA is signed by another one: the CA file must hold that one, too, up to a self-signed root"
    if not _is_signed_by(ca, ca):
        return "the CA's own signature does not verify, or is of a kind that is not allowed"
    return ""


def _other_issuer(ca: x509.Certificate, _now: datetime) -> str:
    own, issuers = _extension(ca, x509.SubjectKeyIdentifier), _extension(ca, x509.AuthorityKeyIdentifier)
    if own is not None and issuers is not None and issuers.key_identifier not in (None, own.digest):
        return "the CA's authority key identifier is not its own subject key identifier, though it signs itself"
    return ""


def _too_long(ca: x509.Certificate, _now: datetime) -> str:
    basic = _extension(ca, x509.BasicConstraints)
    if basic is not None and basic.path_length is not None:
        return f"the CA allows {basic.path_length} CAs below it (path length), and there are more"
    return ""


_FAULTS: Final[tuple[Callable[[x509.Certificate, datetime], str], ...]] = (
    _not_a_ca,
    _may_not_sign,
    _other_purpose,
    _not_yet,
    _no_more,
    _not_understood,
    _not_its_own,
    _other_issuer,
)


def _outside(chain: Sequence[x509.Certificate], ca: x509.Certificate) -> str:
    constraints = _extension(ca, x509.NameConstraints)
    names = _extension(chain[0], x509.SubjectAlternativeName) if chain else None
    if constraints is not None:
        held = ", ".join(str(name.value) for name in names or ())
        return f"the CA's name constraints ({_subtrees(constraints)}) do not permit one of the names {held}"
    return _too_long(ca, datetime.now(UTC)) if len(chain) > 1 else ""


def _subtrees(constraints: x509.NameConstraints) -> str:
    parts = []
    for word, subtrees in (("permitted", constraints.permitted_subtrees), ("excluded", constraints.excluded_subtrees)):
        if subtrees:
            parts.append(f"{word} {', '.join(str(name.value) for name in subtrees)}")
    return "; ".join(parts)


def _certificates(pem: bytes) -> list[x509.Certificate]:
    """All, or none where there is one that cannot be read: this is about a text only."""
    try:
        certs = x509.load_pem_x509_certificates(pem)
        for cert in certs:
            _ = cert.extensions
    except (ValueError, TypeError, UnsupportedAlgorithm, x509.DuplicateExtension, x509.UnsupportedGeneralNameType):
        return []
    return certs


def _extension(cert: x509.Certificate, kind: type[E]) -> E | None:
    try:
        return cert.extensions.get_extension_for_class(kind).value
    except x509.ExtensionNotFound:
        return None


def _is_signed_by(cert: x509.Certificate, issuer: x509.Certificate) -> bool:
    try:
        cert.verify_directly_issued_by(issuer)
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True


def _shown(ca: x509.Certificate) -> str:
    return ca.subject.rfc4514_string() or "it has no name"


def _plain(reason: str | None) -> str:
    return (reason or "no reason given").replace("_", " ").lower()
