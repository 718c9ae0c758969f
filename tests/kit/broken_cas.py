"""Agent CAs whose certificates no peer accepts, each for one reason; and the reason as it should be told."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from ipaddress import ip_network
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.x509.oid import ExtendedKeyUsageOID

from tests.kit import pki

NOW = datetime.now(UTC).replace(microsecond=0)
DAY = timedelta(days=1)
Extensions = list[tuple[x509.ExtensionType, bool]]


@dataclass(frozen=True)
class Broken:
    """How its certificate differs from a faultless one, and what is said of it."""

    reason: str
    change: Callable[[Extensions], Extensions] = lambda extensions: extensions
    start: datetime = NOW
    end: datetime = NOW + 100 * DAY
    issuer: str = "agent CA"
    #: It is refused before anything is signed with it.
    is_refused_at_once: bool = False


def _with(value: x509.ExtensionType, *, critical: bool) -> Callable[[Extensions], Extensions]:
    return lambda extensions: [*(e for e in extensions if not isinstance(e[0], type(value))), (value, critical)]


def _names(permitted: list[x509.GeneralName] | None, excluded: list[x509.GeneralName] | None) -> Broken:
    shown = "; ".join(
        f"{word} {', '.join(str(name.value) for name in names)}"
        for word, names in (("permitted", permitted), ("excluded", excluded))
        if names
    )
    constraints = x509.NameConstraints(permitted, excluded)
    return Broken(
        f"the CA's name constraints ({shown}) do not permit one of the names", _with(constraints, critical=True)
    )


def _other_authority(extensions: Extensions) -> Extensions:
    return _with(x509.AuthorityKeyIdentifier(b"other", None, None), critical=False)(extensions)


BROKEN: Final[Mapping[str, Broken]] = {
    "no certificate signing": Broken(
        "the CA may not sign certificates: its key usage must have keyCertSign",
        _with(pki.key_usage(digital_signature=True, crl_sign=True), critical=True),
    ),
    "other purpose": Broken(
        "the CA is for other purposes: its extended key usage must have serverAuth and clientAuth, or be absent",
        _with(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CODE_SIGNING]), critical=False),
    ),
    "for servers only": Broken(
        "the CA is for other purposes: its extended key usage must have serverAuth and clientAuth, or be absent",
        _with(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False),
    ),
    "not yet valid": Broken("the CA is valid from ", start=NOW + 2 * DAY),
    "expired": Broken(
        "the CA certificate has expired on ", start=NOW - 9 * DAY, end=NOW - DAY, is_refused_at_once=True
    ),
    "no CA": Broken(
        "the certificate is not that of a CA: its basic constraints must say CA:TRUE",
        _with(x509.BasicConstraints(ca=False, path_length=None), critical=True),
        is_refused_at_once=True,
    ),
    "not for its names": _names([x509.DNSName("example.com")], None),
    "not for localhost": _names([x509.DNSName("consul")], None),
    "not for its address": _names(None, [x509.IPAddress(ip_network("127.0.0.0/8"))]),
    "not for servers of this domain": _names(None, [x509.DNSName("server.dc1.consul")]),
    "unknown critical extension": Broken(
        "the CA has a critical extension that TLS does not know, 1.2.3.4: it must not be critical",
        _with(x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3.4"), b"\x05\x00"), critical=True),
    ),
    "signed by another": Broken(
        "the CA is signed by another one: the CA file must hold that one, too, up to a self-signed root",
        issuer="somebody else",
    ),
    "another authority": Broken(
        "the CA's authority key identifier is not its own subject key identifier, though it signs itself",
        _other_authority,
    ),
}


def certificate_of(broken: Broken) -> tuple[x509.Certificate, pki.PrivateKey]:
    private = pki.key()
    public = private.public_key()
    extensions = broken.change(pki.ca_extensions(public, pki.key_id(public), uris=()))
    cert = pki.certificate(
        public,
        private,
        extensions,
        subject="agent CA",
        issuer=broken.issuer,
        not_before=int(broken.start.timestamp()),
        not_after=int(broken.end.timestamp()),
        algorithm=hashes.SHA256(),
    )
    return cert, private
