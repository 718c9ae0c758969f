"""From raw to checked: what a CSR must be to get a leaf.

Every refusal is a CSRRejected; the texts are Consul's where Consul has one (docs/consul-compat.md 3). Nothing
here signs.

A leaf's CSR is checked in this order (rules as numbered in consul-compat 3; readiness, rate limit and expiry, which
are rules 11 to 13, are the caller's):

    size                before anything is decoded, so that the work per byte received is bounded
    0b, 1               not empty; one PEM block of the right type; ASN.1
    count of SANs       before rules that walk over them
    3, 4, 5, 7, 8, 10   Consul's rules in Consul's order; 10b, an agent's trust domain is replaced, not compared
    identity            a name that every SPIFFE library reads, in the one namespace and partition
    names               DNS and IP SANs that a certificate may carry (hosts.py), nothing of another type
    2, 6, 9             whoever asks may have a certificate of this identity, with these names (granted.py)
    key                 type, size, exponent
    proof               the CSR's signature by its own key: the only costly step, so it comes last
"""

import binascii
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from typing import TypeVar

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import SignatureAlgorithmOID

from providers.api import CSRPolicy
from providers.errors import CSRRejected, NotGranted
from providers.grants import Grant
from providers.pki import keys, spiffe
from providers.pki.constraints import refusal
from providers.pki.granted import check_grant
from providers.pki.hosts import check_host
from providers.pki.keys import KeyKind, VerifyKey
from providers.pki.spiffe import Kind, SpiffeId
from providers.pki.x509 import public_key_and_kind, subject_alt_names

T = TypeVar("T")

MAX_CSR_BYTES = 16 * 1024
MAX_SANS = 100
# As much of what somebody else has written as a text of ours repeats.
MAX_DETAIL = 200

_ECDSA = {
    SignatureAlgorithmOID.ECDSA_WITH_SHA256: ec.ECDSA(hashes.SHA256()),
    SignatureAlgorithmOID.ECDSA_WITH_SHA384: ec.ECDSA(hashes.SHA384()),
    SignatureAlgorithmOID.ECDSA_WITH_SHA512: ec.ECDSA(hashes.SHA512()),
}
_RSA: dict[x509.ObjectIdentifier, keys.Hash] = {
    SignatureAlgorithmOID.RSA_WITH_SHA256: hashes.SHA256(),
    SignatureAlgorithmOID.RSA_WITH_SHA384: hashes.SHA384(),
    SignatureAlgorithmOID.RSA_WITH_SHA512: hashes.SHA512(),
}
# RFC 7468 section 7: the second is what Java's keytool, GnuTLS' certtool and NSS' certutil write.
_LABELS = (b"CERTIFICATE REQUEST", b"NEW CERTIFICATE REQUEST")
_KEY = "must be RSA (rsaEncryption) or EC (a named curve)"
_DER = "it must be one PKCS#10 request (RFC 2986) in DER"
# What to say of what `cryptography` finds, whose own texts are about its parser.
_FAULTS: tuple[tuple[type[Exception], str], ...] = (
    (x509.DuplicateExtension, "an extension occurs twice"),
    (x509.InvalidVersion, "its version is unknown: must be v1"),
    (x509.UnsupportedGeneralNameType, "a SAN of an unknown type: must be URI, DNS name or IP address"),
    (UnicodeError, "a name is not ASCII: must be as RFC 5280 4.2.1.6 has it"),
)


@dataclass(frozen=True, slots=True)
class CheckedCSR:
    """A leaf's CSR that broke no rule, and what of it the certificate will carry."""

    identity: SpiffeId  # in our trust domain
    spiffe_id: str  # the identity in its one spelling
    names: tuple[x509.GeneralName, ...]  # DNS names, addresses and URI, in the order in which Go writes them
    key: VerifyKey
    key_kind: KeyKind
    key_id: bytes  # SHA-256 over the SubjectPublicKeyInfo: key identifier and public key fingerprint in one
    ttl_max_seconds: int = 0  # what is granted; 0: as the CA is configured

    @property
    def kind(self) -> str:
        return self.identity.kind.value

    @property
    def name(self) -> str:
        """The service's or node's; empty for a mesh gateway."""
        return self.identity.name


@dataclass(frozen=True, slots=True)
class CheckedIntermediateCSR:
    """An intermediate's CSR that broke no rule. `subject` may be empty: Consul's own secondaries send it so."""

    subject: x509.Name
    key: VerifyKey
    names: tuple[x509.GeneralName, ...]


def check_csr(csr_pem: str, policy: CSRPolicy, grant: Grant) -> CheckedCSR:
    """Judge a leaf's CSR, whatever bytes it is made of.

    Raises: CSRRejected; NotGranted, where it is sound and whoever asks may not have it.
    """
    return _guarded(_check_csr, csr_pem, _Asked(policy, grant))


def check_intermediate_csr(csr_pem: str, trust_domain: str) -> CheckedIntermediateCSR:
    """Judge a secondary's CSR (consul-compat 1.1).

    Raises: CSRRejected, and nothing else.
    """
    return _guarded(_check_intermediate_csr, csr_pem, trust_domain)


P = TypeVar("P")


def _guarded(check: Callable[[str, P], T], csr_pem: str, policy: P) -> T:
    """Run a check so that no input can make it fail otherwise than by CSRRejected.

    `cryptography` decodes lazily and raises at many places: ValueError, TypeError, UnsupportedAlgorithm,
    InvalidVersion, DuplicateExtension, UnsupportedGeneralNameType, and UnicodeError for names. A defect of its Rust
    part comes as PanicException, which derives from BaseException and has no importable name; letting it through
    would end the worker.
    """
    try:
        return check(csr_pem, policy)
    except (CSRRejected, NotGranted):
        raise
    except Exception as error:
        raise CSRRejected(f"malformed CSR: {_fault(error)}") from error
    except BaseException as error:
        if type(error).__name__ != "PanicException":
            raise
        raise CSRRejected(f"malformed CSR: {_DER}") from error


def _fault(error: Exception) -> str:
    return next((text for kind, text in _FAULTS if isinstance(error, kind)), _DER)


@dataclass(frozen=True, slots=True)
class _Asked:
    policy: CSRPolicy
    grant: Grant


def _check_csr(csr_pem: str, asked: _Asked) -> CheckedCSR:
    policy = asked.policy
    csr = _load(csr_pem)
    uris, emails, others = [], 0, []
    hosts: dict[x509.GeneralName, None] = {}  # without repetitions, in order
    for name in _alt_names(csr):
        form = type(name)  # these are abstract base classes too, for which isinstance is slow
        if form is x509.UniformResourceIdentifier:
            uris.append(name)
        elif form is x509.RFC822Name:
            emails += 1
        elif form is x509.DNSName or isinstance(name.value, IPv4Address | IPv6Address):
            hosts[name] = None
        else:
            others.append(form.__name__)
    if len(uris) != 1:
        raise CSRRejected(f"CSR SAN contains an invalid number of URIs: {len(uris)}")
    if emails:
        raise CSRRejected("CSR SAN does not allow specifying email addresses")
    identity = _identity(uris[0].value, policy)
    if others:
        raise CSRRejected(f"CSR SAN holds a name that is neither URI, DNS name nor IP address: {others[0]}")
    checked_hosts = [check_host(name, identity, policy) for name in hosts]
    checked_hosts.sort(key=lambda name: type(name) is x509.IPAddress)
    if policy.limits and (text := refusal(checked_hosts, policy.limits)):
        raise CSRRejected(text)
    granted = check_grant(asked.grant, identity, checked_hosts)
    key, key_kind, spki = _key(csr)
    _prove_possession(csr, key)
    uri = identity.uri
    return CheckedCSR(
        identity=identity,
        spiffe_id=uri,
        names=(*checked_hosts, uris[0] if uris[0].value == uri else x509.UniformResourceIdentifier(uri)),
        key=key,
        key_kind=key_kind,
        key_id=keys.key_id_of(spki),
        ttl_max_seconds=granted.ttl_max_seconds,
    )


def _check_intermediate_csr(csr_pem: str, trust_domain: str) -> CheckedIntermediateCSR:
    csr = _load(csr_pem)
    names = _alt_names(csr)
    uris = [name.value for name in names if isinstance(name, x509.UniformResourceIdentifier)]
    if len(uris) > 1:
        raise CSRRejected(f"incoming CSR has unexpected number of URIs: {len(uris)}")
    if uris:
        ours = spiffe.signing_id(trust_domain)
        theirs = _parse_id(uris[0])
        if not spiffe.can_sign(ours, theirs) or theirs.kind is not Kind.SIGNING:
            raise CSRRejected(f'incoming CSR domain "{theirs.uri}" is not valid for our domain "{ours.uri}"')
    key, _, _ = _key(csr)
    _prove_possession(csr, key)
    # The CA's own identity is always said, also for a CSR whose maker could not (AWS), and in its one spelling.
    kept = [name for name in names if isinstance(name, x509.DNSName | x509.IPAddress | x509.RFC822Name)]
    own = x509.UniformResourceIdentifier(spiffe.signing_id(trust_domain).uri)
    return CheckedIntermediateCSR(csr.subject, key, (*kept, own))


def _load(csr_pem: str) -> x509.CertificateSigningRequest:
    if not csr_pem or csr_pem.isspace():
        raise CSRRejected("CSR is required")
    # Characters are at least one byte each; the exact size is checked when they are bytes.
    if len(csr_pem) > MAX_CSR_BYTES or len(data := csr_pem.encode("utf-8", "replace")) > MAX_CSR_BYTES:
        raise CSRRejected(f"CSR is larger than {MAX_CSR_BYTES} bytes")
    # Text before the block is allowed (RFC 7468 5.2; `openssl req -text` writes it), text after it is not.
    _, _, block = data.partition(b"-----BEGIN ")
    label, _, rest = block.partition(b"-----")
    body, end, behind = rest.partition(b"-----END %b-----" % label)
    if label and label not in _LABELS:
        raise CSRRejected("first PEM-block should be CERTIFICATE REQUEST type")
    try:
        der = binascii.a2b_base64(b"".join(body.split()), strict_mode=True)
    except binascii.Error:
        der = b""
    if not end or not der:
        raise CSRRejected("no PEM-encoded data found")
    if behind and not behind.isspace():
        raise CSRRejected("CSR must be one PEM block with nothing behind it")
    return x509.load_der_x509_csr(der)


def plain_pem(csr_pem: str) -> str:
    """An accepted CSR in the one form of PEM that everybody reads: no text before it, and the usual label."""
    return csr_pem[csr_pem.index("-----BEGIN ") :].replace("NEW CERTIFICATE REQUEST", "CERTIFICATE REQUEST")


def _alt_names(csr: x509.CertificateSigningRequest) -> list[x509.GeneralName]:
    names = subject_alt_names(csr)
    if len(names) > MAX_SANS:
        raise CSRRejected(f"CSR SAN contains {len(names)} names: at most {MAX_SANS} are allowed")
    return names


def _parse_id(uri: str) -> SpiffeId:
    try:
        return spiffe.parse(uri)
    except spiffe.SpiffeError as error:
        raise CSRRejected(str(error)) from error


def _identity(uri: str, policy: CSRPolicy) -> SpiffeId:
    """Rules 5, 7, 8, 10 and 10b, and what every SPIFFE library reads.

    Consul signs for servers, too, and for agents of any datacenter. Here nobody gets the identity of a server, and a
    name is good where it was given.
    """
    spiffe_id = _parse_id(uri)
    if spiffe_id.kind in (Kind.SIGNING, Kind.SERVER):
        raise CSRRejected("SPIFFE ID in CSR must be a service, mesh-gateway, or agent ID")
    if spiffe_id.datacenter != policy.datacenter:
        raise CSRRejected(
            f"SPIFFE ID in CSR from a different datacenter: {spiffe_id.datacenter}, we are {policy.datacenter}"
        )
    if spiffe_id.kind is not Kind.AGENT and not spiffe.same_trust_domain(spiffe_id.trust_domain, policy.trust_domain):
        raise CSRRejected(
            f"SPIFFE ID in CSR from a different trust domain: {spiffe_id.trust_domain}, we are {policy.trust_domain}"
        )
    try:
        spiffe.check_issuable(spiffe_id, uri)
    except spiffe.SpiffeError as error:
        raise CSRRejected(f"SPIFFE ID in CSR is not allowed: {error}") from error
    return spiffe_id.in_trust_domain(policy.trust_domain)


def _key(csr: x509.CertificateSigningRequest) -> tuple[VerifyKey, KeyKind, bytes]:
    """The key, its kind, and its one encoding."""
    try:
        key, kind = public_key_and_kind(csr)
    except keys.KeyRefused as error:
        raise CSRRejected(f"CSR key: {error}") from error
    except ValueError as error:
        raise CSRRejected(f"malformed CSR: its public key cannot be decoded: {_KEY}") from error
    # `cryptography` reads a key that is for RSASSA-PSS alone (RFC 4055 1.2) as one for all of RSA, and a curve given by
    # its parameters as the curve of that name: the certificate would be for another type of key than was asked for.
    spki = keys.spki_der(key)
    if spki not in csr.tbs_certrequest_bytes and not _is_compressed(key, spki, csr.tbs_certrequest_bytes):
        other = "id-RSASSA-PSS" if kind.type == "rsa" else "explicit curve parameters"
        raise CSRRejected(f"CSR key: {kind.type.upper()} in another form, such as {other}, is not allowed: {_KEY}")
    return key, kind, spki


def _is_compressed(key: VerifyKey, spki: bytes, request: bytes) -> bool:
    """A point in compressed form (RFC 5480 2.2), on a curve that is named."""
    if not isinstance(key, ec.EllipticCurvePublicKey):
        return False
    short = key.public_bytes(Encoding.X962, PublicFormat.CompressedPoint)
    start = 2 if spki[1] < 0x80 else 3  # behind the tag and length of the whole, both of known sizes
    algorithm = spki[start : start + 2 + spki[start + 1]]
    return algorithm + bytes([3, len(short) + 1, 0]) + short in request


def _prove_possession(csr: x509.CertificateSigningRequest, key: VerifyKey) -> None:
    """The CSR must be signed by its own key, else somebody may ask for a certificate of a key that is not theirs.

    `csr.is_signature_valid` would do for all, but decodes the key once more: a tenth of the whole path to a leaf.
    """
    algorithm = csr.signature_algorithm_oid
    try:
        if isinstance(key, ec.EllipticCurvePublicKey) and algorithm in _ECDSA:
            key.verify(csr.signature, csr.tbs_certrequest_bytes, _ECDSA[algorithm])
        elif isinstance(key, rsa.RSAPublicKey) and algorithm in _RSA:
            key.verify(csr.signature, csr.tbs_certrequest_bytes, padding.PKCS1v15(), _RSA[algorithm])
        elif not isinstance(csr.signature_hash_algorithm, hashes.SHA256 | hashes.SHA384 | hashes.SHA512):
            raise CSRRejected("CSR signature algorithm is not allowed: must use SHA-256, SHA-384 or SHA-512")
        elif not csr.is_signature_valid:
            raise InvalidSignature
    except InvalidSignature:
        raise CSRRejected("CSR signature does not verify with the CSR's own public key") from None
