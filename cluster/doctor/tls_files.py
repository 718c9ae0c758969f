"""What is wrong with the certificates that a node's configuration names. Reads files, and changes nothing."""

import stat
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.x509.oid import ExtendedKeyUsageOID

from cluster.base.config import NodeConfig
from cluster.doctor.findings import Finding, Severity, critical, warning
from cluster.doctor.validity import end_text, expires_soon, is_expired, is_not_valid_yet, time_text
from cluster.tls.contexts import NodeTls, TlsFileRefused, TlsFiles
from cluster.tls.proof import refusal_of

_MAX_FILE_BYTES: Final = 1 << 20
_MAX_CHAIN: Final = 8
_USAGES: Final = (ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH)
_NO_LINK: Final = "The node does not start with it, or no other node lets it in."
_NEW_CA: Final = (
    "make a new agent CA (quorumca tls ca create) and certificates of it for all nodes; see docs/recovery.md"
)

Certificates = Sequence[x509.Certificate]
#: Findings on the way, the certificates of a file at the end.
_Reading = Generator[Finding, None, Certificates]


@dataclass(frozen=True, slots=True)
class _Pair:
    """A certificate file, its key file, and how to come by new ones."""

    cert_file: Path
    key_file: Path
    remedy: str
    #: Before it ends and afterwards, where the node itself should see to that.
    renewal: str = ""


def check_tls(config: NodeConfig, now: datetime) -> Iterator[Finding]:
    is_sound = True
    for finding in _look(config, now):
        is_sound = is_sound and finding.severity is not Severity.CRITICAL
        yield finding
    if is_sound:
        yield from _check_as_a_peer(config)


def _look(config: NodeConfig, now: datetime) -> Iterator[Finding]:
    tls = config.tls
    make = f"quorumca tls cert create -server -node {config.node_name} -dc {config.datacenter} -domain {tls.domain}"
    pair = _Pair(
        tls.cert_file,
        tls.key_file,
        f"{make}, and put both files in place",
        f"it should have been renewed by now (tls.renew): look for tls.renewal_failed in the node's log; or, at any"
        f" time, quorumca operator join-token -name {config.node_name} -rejoin on another server, and quorumca join"
        " -rejoin here (docs/join.md)"
        if tls.renew
        else "",
    )
    authorities = yield from _certificates(tls.ca_file, "copy the agent CA's certificate from another node")
    for authority in authorities:
        yield from _check_authority(tls.ca_file, authority, now)
    chain = yield from _checked_pair(pair, now)
    if not chain:
        return
    yield from _check_names(config, pair, chain[0])
    yield from _check_usages(pair, chain[0], _USAGES, "both ends of a connection (serverAuth and clientAuth)")
    if authorities and not _is_trusted(chain, authorities):
        yield critical(
            "tls-untrusted",
            tls.cert_file,
            f"is not signed by a CA in {tls.ca_file}",
            _NO_LINK,
            f"{pair.remedy}; or put the CA that signed it into the ca_file of every node",
        )


def _check_as_a_peer(config: NodeConfig) -> Iterator[Finding]:
    """Whatever else may be wrong with the files: the node's own TLS, at both ends of a connection, is asked."""
    tls = config.tls
    why = "Every other node with the same ca_file refuses this node's connections, and it theirs."
    try:
        own = NodeTls(TlsFiles(str(tls.ca_file), str(tls.cert_file), str(tls.key_file)), config.datacenter, tls.domain)
        refusal = refusal_of(own, own.server_name(config.node_name), _read(tls.cert_file), _read(tls.ca_file))
    except TlsFileRefused as error:
        yield critical("tls-unreadable", tls.cert_file, str(error), _NO_LINK, "replace the file that is named")
        return
    if refusal is not None and refusal.is_the_cas:
        yield critical("tls-ca-refused", tls.ca_file, refusal.reason, why, _NEW_CA)
    elif refusal is not None:
        make = "have it made again: quorumca tls cert create -server -node"
        yield critical("tls-refused", tls.cert_file, refusal.reason, why, f"{make} {config.node_name}")


def check_http_tls(config: NodeConfig, now: datetime) -> Iterator[Finding]:
    cert_file, key_file = config.http.tls_cert, config.http.tls_key
    if cert_file is not None and key_file is not None:
        pair = _Pair(cert_file, key_file, "have it issued again, and put both files in place")
        chain = yield from _checked_pair(pair, now)
        if chain:
            yield from _check_usages(pair, chain[0], (ExtendedKeyUsageOID.SERVER_AUTH,), "a server (serverAuth)")


def _checked_pair(pair: _Pair, now: datetime) -> _Reading:
    chain = yield from _certificates(pair.cert_file, pair.remedy)
    if chain:
        yield from _check_validity(pair, chain[0], now)
    yield from _check_key(pair, chain)
    return chain


def _certificates(path: Path, remedy: str) -> _Reading:
    try:
        return x509.load_pem_x509_certificates(_read(path))
    except OSError as error:
        yield critical("tls-missing", path, f"cannot be read: {error.strerror}", _NO_LINK, remedy)
    except ValueError:
        yield critical("tls-unreadable", path, "holds no certificate (PEM)", _NO_LINK, remedy)
    return ()


def _read(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(_MAX_FILE_BYTES)


def _check_validity(pair: _Pair, cert: x509.Certificate, now: datetime) -> Iterator[Finding]:
    then = pair.renewal or f"{pair.remedy}: a node that runs takes them within 10 s, or at once with kill -HUP"
    if is_expired(cert, now):
        why = "Every new connection to and from this node is refused."
        yield critical("tls-expired", pair.cert_file, f"has expired: {end_text(cert)}", why, then)
    elif is_not_valid_yet(cert, now):
        start = time_text(cert.not_valid_before_utc)
        why = "It is refused until then; or this machine's clock is wrong."
        yield critical("tls-not-valid-yet", pair.cert_file, f"is valid from {start} on", why, "date -u; timedatectl")
    elif expires_soon(cert, now):
        why = "After that this node has no connection to the others, or to its clients."
        yield warning("tls-expires-soon", pair.cert_file, f"expires at {end_text(cert)}", why, then)


def _check_authority(path: Path, cert: x509.Certificate, now: datetime) -> Iterator[Finding]:
    if is_expired(cert, now):
        why = "What it has signed is refused, however long that itself is valid."
        yield critical("tls-ca-expired", path, f"a CA in it has expired: {end_text(cert)}", why, _NEW_CA)
    elif expires_soon(cert, now):
        why = "With it ends every certificate that it has signed."
        yield warning("tls-ca-expires-soon", path, f"a CA in it expires at {end_text(cert)}", why, _NEW_CA)


def _check_key(pair: _Pair, chain: Certificates) -> Iterator[Finding]:
    path = pair.key_file
    try:
        key = serialization.load_pem_private_key(_read(path), None)
        mode = stat.S_IMODE(path.stat().st_mode)
    except OSError as error:
        yield critical("tls-missing", path, f"cannot be read: {error.strerror}", _NO_LINK, pair.remedy)
        return
    except TypeError:
        remedy = f"openssl pkey -in {path} -out FILE, put that in its place, and protect it by its mode (chmod 600)"
        yield critical("tls-key-encrypted", path, "is encrypted: keys are taken without a passphrase", _NO_LINK, remedy)
        return
    except (ValueError, UnsupportedAlgorithm):
        yield critical("tls-unreadable", path, "holds no private key (PEM)", _NO_LINK, pair.remedy)
        return
    if chain and _public_bytes(key) != _public_bytes(chain[0]):
        text = f"is not the key of {pair.cert_file}"
        yield critical("tls-key-mismatch", path, text, _NO_LINK, pair.remedy)
    if mode & 0o007:
        why = "Who has it can join the cluster as this server, or answer in its place."
        yield warning("key-exposed", path, f"can be read by everybody (mode {mode:04o})", why, f"chmod 600 {path}")


def _public_bytes(holder: object) -> bytes:
    return holder.public_key().public_bytes(  # type: ignore[attr-defined,no-any-return]  # of a key or a certificate
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )


def _check_names(config: NodeConfig, pair: _Pair, cert: x509.Certificate) -> Iterator[Finding]:
    expected = f"{config.node_name}.server.{config.datacenter}.{config.tls.domain}"
    try:
        names = cert.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        found = names.get_values_for_type(x509.DNSName)
    except (x509.ExtensionNotFound, ValueError):
        found = []
    if expected not in found:
        shown = ", ".join(found) or "no DNS name"
        why = "The other nodes know a server by that name, and refuse any other."
        yield critical("tls-name", pair.cert_file, f"names {shown}, not {expected}", why, pair.remedy)


def _check_usages(
    pair: _Pair, cert: x509.Certificate, wanted: Sequence[x509.ObjectIdentifier], purpose: str
) -> Iterator[Finding]:
    try:
        usages = cert.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    except (x509.ExtensionNotFound, ValueError):
        return  # good for everything
    if not all(usage in usages for usage in wanted):
        text = f"its extended key usage does not make it good for {purpose}"
        yield critical("tls-usage", pair.cert_file, text, _NO_LINK, pair.remedy)


def _is_trusted(chain: Certificates, authorities: Certificates) -> bool:
    """Signatures and names only: what has expired is said elsewhere."""
    cert = chain[0]
    for _ in range(_MAX_CHAIN):
        if any(_is_issued_by(cert, authority) for authority in authorities):
            return True
        issuer = next((other for other in chain[1:] if _is_issued_by(cert, other)), None)
        if issuer is None:
            return False
        cert = issuer
    return False


def _is_issued_by(cert: x509.Certificate, issuer: x509.Certificate) -> bool:
    try:
        cert.verify_directly_issued_by(issuer)
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True
