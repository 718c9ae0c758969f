"""Independent verification: no certificate or chain is stored or served before it has passed here.

Two verifiers must agree. `cryptography`'s path builder finds the way to a trust anchor and checks it as TLS clients do.
The rules below then look at every certificate of that way once more: names and key identifiers that fit, CA and
key-usage bits, path lengths, one SPIFFE ID that fits the trust domain, and lifetimes that end with the issuer's.
Nothing here signs, and nothing here trusts what the signing code believes it has built.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import pairwise
from typing import TypeVar

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.x509.oid import ExtendedKeyUsageOID
from cryptography.x509.verification import ExtensionPolicy, PolicyBuilder, Store, VerificationError

from providers.api import CAChain
from providers.errors import ChainInvalid, ConfigInvalid, NamesRefused
from providers.pki import constraints, keys, peers, spiffe, twins
from providers.pki.keys import SigningKey
from providers.pki.path_words import is_about_names, why_no_path
from providers.pki.spiffe import Kind
from providers.pki.x509 import (
    at,
    authority_key_id,
    colon_hex,
    is_ca,
    load_bundle,
    public_key,
    subject_key_id,
    unix,
    uris,
)

_TLS = {ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH}
_GOOD_HASHES = (hashes.SHA256, hashes.SHA384, hashes.SHA512)

E = TypeVar("E", bound=x509.ExtensionType)
Path = Sequence[x509.Certificate]  # leaf or lowest CA first, trust anchor last


# --- chains -------------------------------------------------------------------------------------------------------


def verify_leaf(
    chain_pem: str, trust_stores: Mapping[str, Sequence[str]], *, now: int, spiffe_id: str | None = None
) -> None:
    """Verify a leaf with the certificates that accompany it, as served (leaf first), against every trust store.

    `trust_stores` maps a name for the error text ("old only", "new only", "both") to root PEMs; give all of one
    rotation in one call, since a leaf below a cross-signed CA may last as long as that CA's own root. `now` is in
    Unix seconds. With `spiffe_id` the leaf must carry exactly that URI. A leaf and the CAs that come with it may
    begin after `now`, because clocks of signer and host differ; nothing may have ended.

    Raises: ChainInvalid; NamesRefused, which says so, when nothing but a name is wrong.
    """
    chain = _load(chain_pem)
    stores = {name: [root for pem in pems for root in _load(pem)] for name, pems in trust_stores.items()}
    _check_leaf(chain[0], spiffe_id)
    for position, cert in enumerate(chain[1:], start=1):
        # More than one may follow for the same issuer: a CA that several older roots have cross-signed.
        _require(
            any(cert.subject == below.issuer for below in chain[:position]), f"chain is out of order at {_show(cert)}"
        )
    known = [*chain, *(root for roots in stores.values() for root in roots)]
    for name, roots in stores.items():
        try:
            path = _find_path(chain[0], chain[1:], roots, now)
            _check_path(path, known)
            _check_trust_domain(path)
        except NamesRefused:
            raise
        except ChainInvalid as error:
            raise ChainInvalid(f"trust store {name!r}: {error}") from error


def verify_ca(chain: CAChain, *, trust_domain: str, now: int) -> None:
    """Verify a CA before it is committed: the root alone, or root and intermediates.

    Raises: ChainInvalid.
    """
    roots = _load(chain.root_pem)
    intermediates = [cert for pem in chain.intermediate_pems for cert in _load(pem)]
    signing = _load(chain.signing_cert_pem)[0]
    lowest = intermediates[0] if intermediates else roots[0]
    _require(signing == lowest, "the signing certificate is not the first of the chain")
    for cert, issuer in pairwise([*intermediates, roots[0]]):
        _require(cert.issuer == issuer.subject, f"chain is out of order at {_show(cert)}")
    wanted = spiffe.signing_id(trust_domain).uri
    _require(uris(signing) == [wanted], f"signing certificate has URIs {uris(signing)}, expected {wanted}")
    verify_below(signing, [*intermediates[1:], *roots[:-1]], roots[-1], now=now)


def verify_below(
    cert: x509.Certificate, helpers: Sequence[x509.Certificate], anchor: x509.Certificate, *, now: int
) -> None:
    """Verify one CA certificate up to one trust anchor, which it may be itself.

    Raises: ChainInvalid.
    """
    _check_ca(cert)
    _check_ca(anchor)
    path = _find_path(cert, helpers, [anchor], now)
    if len(path) == 1:
        _check_signed_by(anchor, anchor)
    _check_path(path, [cert, *helpers, anchor])


def is_usable_ca(cert: x509.Certificate) -> bool:
    """Whether it may sign certificates, and names what it signs with."""
    try:
        _check_ca(cert)
    except ChainInvalid:
        return False
    return True


def is_signed_by(cert: x509.Certificate, issuer: x509.Certificate) -> bool:
    try:
        _check_signed_by(cert, issuer)
    except ChainInvalid:
        return False
    return True


# --- an operator's own root ---------------------------------------------------------------------------------------


def check_supplied_root(root_pem: str, key: SigningKey, *, cluster_id: str, now: int) -> x509.Certificate:
    """Judge an operator's RootCert and PrivateKey as a pair (consul-compat 10.7); returns the certificate.

    Raises: ConfigInvalid, which names what is wrong and what is expected.
    """
    try:
        certs = load_bundle(root_pem)
    except ValueError as error:
        raise ConfigInvalid(f"RootCert cannot be decoded: {error}") from error
    if len(certs) != 1:
        raise ConfigInvalid(f"RootCert must hold exactly one certificate, found {len(certs)}")
    root = certs[0]
    wanted_uri = spiffe.signing_id(spiffe.trust_domain_of(cluster_id)).uri
    problems = [text for rule in _ROOT_RULES if (text := rule(root))]
    problems += [f"RootCert {text}" for text in peers.problems(root)]
    if keys.spki_der(public_key(root)) != keys.spki_der(key.public_key()):
        problems.insert(
            0,
            f"PrivateKey ({keys.kind_of(key)}, {_short(keys.key_id(key.public_key()))}) is not the key of RootCert "
            f"({keys.kind_of(public_key(root))}, {_short(keys.key_id(public_key(root)))})",
        )
    if uris(root) != [wanted_uri]:
        problems.append(f"RootCert has URI SANs {uris(root)}, expected exactly one: {wanted_uri}")
    if not root.not_valid_before_utc <= at(now) <= root.not_valid_after_utc:
        problems.append(
            f"RootCert is valid from {root.not_valid_before_utc.isoformat()} to "
            f"{root.not_valid_after_utc.isoformat()}, now is {at(now).isoformat()}"
        )
    if problems:
        raise ConfigInvalid("; ".join(problems))
    try:
        verify_below(root, [], root, now=now)
    except ChainInvalid as error:
        raise ConfigInvalid(f"RootCert is not usable as a root: {error}") from error
    return root


def check_for_peers(chain: CAChain) -> None:
    """Judge a CA that a backend brings as its operators made it: whether some peer refuses what is below it.

    Raises: ChainInvalid.
    """
    anchor = _load(chain.root_pem)
    for cert in [*anchor, *(cert for pem in chain.intermediate_pems for cert in _load(pem))]:
        said = [rule(cert).replace("RootCert", _show(cert), 1) for rule in (_rule_purpose, _rule_name_constraints)]
        if found := [*filter(None, said), *(f"{_show(cert)} {text}" for text in peers.problems(cert))]:
            raise ChainInvalid("; ".join(found))


def _rule_path_length(root: x509.Certificate) -> str:
    if peers.path_length(root) != 0:
        return ""
    return (
        "RootCert allows no CA below it (path length 0): expected none, or 1 to 6, for as many cross-signed roots as a"
        " rotation may put there"
    )


def _rule_ca(root: x509.Certificate) -> str:
    constraints = _extension(root, x509.BasicConstraints)
    if constraints is None or not constraints.value.ca or not constraints.critical:
        return "RootCert is not a CA certificate: basic constraints must be critical with CA true"
    return ""


def _rule_key_usage(root: x509.Certificate) -> str:
    usage = _extension(root, x509.KeyUsage)
    if usage is None or not usage.value.key_cert_sign:
        return "RootCert cannot sign certificates: key usage must include keyCertSign"
    return ""


def _rule_self_signed(root: x509.Certificate) -> str:
    if root.subject != root.issuer:
        return "RootCert is not self-signed: issuer and subject must be the same"
    if not root.subject.rdns:
        return "RootCert has an empty subject: expected a name, which leaves carry as issuer"
    try:
        _check_signed_by(root, root)
    except ChainInvalid:
        return "RootCert is not self-signed: its signature does not verify with its own key"
    return ""


def _rule_identifiers(root: x509.Certificate) -> str:
    if not subject_key_id(root):
        return "RootCert has no subject key identifier: expected one (RFC 5280 4.2.1.2)"
    if authority_key_id(root) not in (b"", subject_key_id(root)):
        return "RootCert has an authority key identifier that is not its own subject key identifier"
    return ""


def _rule_hash(root: x509.Certificate) -> str:
    if not isinstance(root.signature_hash_algorithm, _GOOD_HASHES):
        name = getattr(root.signature_hash_algorithm, "name", "unknown")
        return f"RootCert is signed with {name}: expected SHA-256, SHA-384 or SHA-512"
    return ""


def _rule_purpose(root: x509.Certificate) -> str:
    usage = _extension(root, x509.ExtendedKeyUsage)
    if usage is not None and usage.critical:
        return (
            "RootCert has a critical extended key usage, which not every verifier takes: expected none, or not critical"
        )
    if usage is None or set(usage.value) >= _TLS:  # anyExtendedKeyUsage does for Go, and not for OpenSSL
        return ""
    return "RootCert has an extended key usage that forbids TLS: expected none, or serverAuth and clientAuth"


def _rule_name_constraints(root: x509.Certificate) -> str:
    constraints = _extension(root, x509.NameConstraints)
    if constraints is None:
        return ""
    names = [*(constraints.value.permitted_subtrees or ()), *(constraints.value.excluded_subtrees or ())]
    if any(isinstance(name, x509.DNSName) and name.value.strip(".") != name.value for name in names):
        return "RootCert has name constraints with a dot at an end, which verifiers read differently: expected domains"
    if any(isinstance(name, x509.DNSName) and not name.value for name in names):
        return "RootCert has an empty name constraint, which verifiers read differently: expected domains"
    if all(isinstance(name, x509.DNSName | x509.IPAddress) for name in names):
        return ""
    return "RootCert has name constraints other than on DNS names and IP addresses, which not every verifier supports"


_ROOT_RULES: tuple[Callable[[x509.Certificate], str], ...] = (
    _rule_ca,
    _rule_key_usage,
    _rule_self_signed,
    _rule_identifiers,
    _rule_hash,
    _rule_purpose,
    _rule_name_constraints,
    _rule_path_length,
)


# --- path: `cryptography` -----------------------------------------------------------------------------------------


def _find_path(
    cert: x509.Certificate, helpers: Sequence[x509.Certificate], roots: Sequence[x509.Certificate], now: int
) -> Path:
    """The way from `cert` to one of the roots, as `cryptography` finds it.

    The client verifier fits SPIFFE certificates: it asks for the clientAuth purpose and a SAN but for no DNS name.
    The lowest certificate may be a CA here, so what an end entity's extensions must be is left to the rules below;
    what a CA's must be is not.
    """
    anchor_policy = ExtensionPolicy.webpki_defaults_ca()
    lowest_policy = ExtensionPolicy.webpki_defaults_ee()
    if is_ca(cert):
        lowest_policy = ExtensionPolicy.permit_all()
    # Not-yet-valid is accepted on purpose (consul-compat 3): a fresh root starts at its maker's clock.
    moment = max(now, *(unix(member.not_valid_before_utc) for member in (cert, *helpers, *roots)))
    try:
        verifier = (
            PolicyBuilder()
            .store(Store(list(roots)))
            .time(at(moment))
            .extension_policies(ca_policy=anchor_policy, ee_policy=lowest_policy)
            .build_client_verifier()
        )
        return verifier.verify(cert, list(helpers)).chain
    except (VerificationError, ValueError) as error:
        if is_about_names(error) and (path := _path_in_parts(cert, helpers, roots, now)):
            return path
        what = _show(cert) if is_ca(cert) else "a leaf"
        raise ChainInvalid(f"no valid path from {what} to a trusted root: {why_no_path(error)}") from error


def _path_in_parts(
    leaf: x509.Certificate, helpers: Sequence[x509.Certificate], roots: Sequence[x509.Certificate], now: int
) -> Path:
    """The way from a leaf of whose names nobody is sure (twins.py); empty when more than its names is wrong.

    Raises: NamesRefused.
    """
    hosts = twins.hosts_of(leaf)
    refused = ""
    for issuer in (*helpers, *roots) if hosts else ():
        if issuer.subject != leaf.issuer or not is_signed_by(leaf, issuer):
            continue
        try:
            _find_path(leaf, (), [twins.unconstrained(issuer)], now)
            path = [leaf, *_find_path(issuer, helpers, roots, now)]
        except ChainInvalid:
            continue
        limits = constraints.limits_of(path[1:])
        text = constraints.refusal(hosts, limits)
        if not text and any(map(twins.has_underscore, hosts)):
            return path
        refused = refused or text or constraints.doubt(hosts, limits)
    if refused:
        raise NamesRefused(refused)
    return ()


# --- path: our own rules ------------------------------------------------------------------------------------------


def _check_path(path: Path, known: Iterable[x509.Certificate]) -> None:
    """Every link of a path, lowest certificate first (RFC 5280 section 6.1)."""
    pool = list(known)
    cas_below = 0
    is_link = False
    for cert, issuer in pairwise(path):
        _check_signed_by(cert, issuer)
        _check_ca(issuer)
        _require(
            authority_key_id(cert) == subject_key_id(issuer) != b"",
            f"{_show(cert)} names issuer key {_short(authority_key_id(cert))}, {_show(issuer)} has "
            f"{_short(subject_key_id(issuer))}",
        )
        # RFC 5280 6.1.4 (l): self-issued certificates do not count against a path length. The lowest one counts when
        # it is a CA, unlike in the RFC, because it is verified here in order to sign.
        cas_below += is_ca(cert) and cert.subject != cert.issuer
        limit = _constraints(issuer).path_length
        _require(limit is None or cas_below <= limit, f"{_show(issuer)} allows {limit} CAs below it, not {cas_below}")
        # An issuer's key may be certified twice, by its own root and cross-signed; the longest of these counts, since
        # a cross-signed certificate only has to last as long as clients know the old root alone (consul-compat 10.5).
        # From the first cross-signed one upwards that is all there is to it: the roots between may be gone by now.
        is_link = is_link or any(_same_ca(other, cert) and other.subject == other.issuer for other in pool)
        last = max(c.not_valid_after_utc for c in pool if _same_ca(c, issuer))
        _require(
            is_link or cert.not_valid_after_utc <= last,
            f"{_show(cert)} outlives its issuer: {cert.not_valid_after_utc.isoformat()} is after {last.isoformat()}",
        )


def _same_ca(one: x509.Certificate, other: x509.Certificate) -> bool:
    return one.subject == other.subject and subject_key_id(one) == subject_key_id(other)


def _check_ca(cert: x509.Certificate) -> None:
    usage = _extension(cert, x509.KeyUsage)
    basic = _extension(cert, x509.BasicConstraints)
    _require(basic is not None and basic.critical and basic.value.ca, f"{_show(cert)} is not a CA certificate")
    _require(usage is not None and usage.value.key_cert_sign, f"{_show(cert)} may not sign certificates")
    _require(bool(cert.subject.rdns), "a CA certificate has an empty subject")
    _require(bool(subject_key_id(cert)), f"{_show(cert)} has no subject key identifier")


def _check_leaf(leaf: x509.Certificate, spiffe_id: str | None) -> None:
    """What holds for a leaf of any provider; the built-in one's narrower profile is in providers/pki/leaf.py."""
    usage = _extension(leaf, x509.KeyUsage)
    purpose = _extension(leaf, x509.ExtendedKeyUsage)
    names = _extension(leaf, x509.SubjectAlternativeName)
    _require(not is_ca(leaf), "leaf is a CA certificate")
    _require(usage is not None and usage.value.digital_signature, "leaf may not sign, which TLS 1.3 needs")
    _require(usage is not None and not usage.value.key_cert_sign, "leaf may sign certificates")
    _require(purpose is not None and set(purpose.value) == _TLS, "leaf is not for TLS client and server alone")
    _require(
        names is not None and names.critical is (not leaf.subject.rdns),
        "leaf's subject alternative name must be critical if, and only if, its subject is empty (RFC 5280 4.2.1.6)",
    )
    found = uris(leaf)
    _require(len(found) == 1, f"leaf has {len(found)} URIs, expected one SPIFFE ID")
    _require(spiffe_id in (None, found[0]), f"leaf is for {found[0]}, expected {spiffe_id}")


def _check_trust_domain(path: Path) -> None:
    """The leaf's trust domain is that of every CA above it that states one."""
    try:
        identity = spiffe.parse(uris(path[0])[0])
    except spiffe.SpiffeError as error:
        raise ChainInvalid(f"leaf's URI is not usable: {error}") from error
    _require(identity.kind is not Kind.SIGNING, "leaf carries the SPIFFE ID of a CA")
    wanted = spiffe.signing_id(identity.trust_domain).uri
    for issuer in path[1:]:
        for uri in uris(issuer):
            _require(
                uri.lower() == wanted or not uri.lower().startswith("spiffe:"),
                f"leaf of {wanted} is signed below {_show(issuer)} of {uri}",
            )


def _check_signed_by(cert: x509.Certificate, issuer: x509.Certificate) -> None:
    try:
        cert.verify_directly_issued_by(issuer)
    except (InvalidSignature, ValueError, TypeError) as error:
        raise ChainInvalid(f"{_show(cert)} is not signed by {_show(issuer)}") from error


# --- small helpers ------------------------------------------------------------------------------------------------


def _load(pem: str) -> list[x509.Certificate]:
    try:
        return load_bundle(pem)
    except ValueError as error:
        raise ChainInvalid(f"certificate cannot be decoded: {error}") from error


def _extension(cert: x509.Certificate, kind: type[E]) -> x509.Extension[E] | None:
    try:
        return cert.extensions.get_extension_for_class(kind)
    except x509.ExtensionNotFound:
        return None


def _constraints(cert: x509.Certificate) -> x509.BasicConstraints:
    return cert.extensions.get_extension_for_class(x509.BasicConstraints).value


def _require(holds: bool, text: str) -> None:
    if not holds:
        raise ChainInvalid(text)


def _show(cert: x509.Certificate) -> str:
    """A name for an operator to recognise: the subject, else the URI."""
    return cert.subject.rfc4514_string() or next(iter(uris(cert)), "certificate without a name")


def _short(key_id: bytes) -> str:
    return colon_hex(key_id[:8]) + ".." if key_id else "nothing"
