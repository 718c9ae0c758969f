"""How long the chain of a leaf may get, and whether a rotation leaves room for the links back to every root.

A chain that is too long is found out before anything is signed: a rotation that cannot be finished is not begun.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from cluster.base.clock import rfc3339
from cluster.base.errors import Refused
from cluster.ca.opened import Opened
from fsm.ca import CARoot, Intermediate
from fsm.links import live_links, local_chain, must_stay_trusted, needed_links
from providers.errors import ChainInvalid
from providers.pki.peers import path_length
from providers.pki.x509 import colon_hex, load_bundle, subject_key_id

#: Leaf and CAs together, PEM: TLS stacks refuse longer chains, and every handshake carries them.
MAX_CHAIN_BYTES: Final = 32 << 10
#: Certificates between leaf and root, local intermediates included. Tried: s2n-tls and rustls follow six, a Java 25
#: server seven, Mbed TLS, wolfSSL and `cryptography`, by which every chain is verified, eight; everything else more.
MAX_CHAIN_LINKS: Final = 6
_NEVER: Final = 1 << 62
_LEAF_BYTES: Final = 3 << 10
#: PEM of a root that is not made yet: RSA 4096, the largest.
_ROOT_BYTES: Final = 2 << 10
#: What a cross-signed certificate has beyond the root it re-issues and its issuer's name, PEM: a longer signature.
_CROSS_SIGNED_EXTRA_BYTES: Final = 1 << 10


@dataclass(frozen=True, slots=True)
class PlannedChain:
    """What leaves would carry once a rotation is done, at most."""

    size: int  # PEM, with the leaf
    links: int  # cross-signed certificates, and what goes with them


#: A forced rotation links to nothing.
UNLINKED: Final = PlannedChain(_LEAF_BYTES, 0)


def planned_chain(opened: Opened, roots: Iterable[CARoot], provider: str, root_pem: str, now: float) -> PlannedChain:
    """Of a rotation to this root ("": one that the provider has yet to make) that keeps the trust that there is.

    Raises: Refused, with the date from which on it is possible, when the chain would be too long.
    """
    old, new = opened.root, _certificate(root_pem)
    trusted = must_stay_trusted(old, roots, now)
    # Not made yet, and it lasts: whoever knows the old root alone needs it.
    cross = Intermediate("", colon_hex(subject_key_id(new)) if new else "", old.key_id, _NEVER)
    ways = _Ways(cross, (() if cross.key_id == old.key_id else (cross,)) + live_links(old, now))
    links = ways.to(trusted)
    above = local_chain(old)[1:]  # CAs between the one that signs and its trust anchor go with what it signs
    own_bytes = _leaf_bytes(new) + _cross_signed_bytes(new, root_pem, old, above) + _size(above)
    # Another provider may sign leaves with an intermediate where this one does not: known once it has a root.
    own_links = 1 + max(len(local_chain(old)), provider != opened.config.provider) + len(above)
    size, count = own_bytes + _size(links), own_links + len(links)
    if not _fits(size, count):
        fits_from = _fits_from(trusted, ways, own_bytes, own_links)
        date = f"possible from {rfc3339(fits_from)} on, when older roots are no longer trusted, or at once"
        raise Refused(
            f"the chain back to every trusted root would have about {size} bytes and {count} certificates between"
            f" leaf and root, more than {MAX_CHAIN_BYTES} or {MAX_CHAIN_LINKS}:"
            f" {date if fits_from else 'possible'} with ForceWithoutCrossSigning"
        )
    _require_room(old, trusted, links, own_links - 1 - len(above), cross.key_id)
    return PlannedChain(size, 1 + len(above) + len(links))


@dataclass(frozen=True, slots=True)
class _Ways:
    """What leads from the new root to the ones before it."""

    cross: Intermediate  # which is not made yet
    links: tuple[Intermediate, ...]

    def to(self, trusted: Iterable[CARoot]) -> tuple[Intermediate, ...]:
        """The links that are needed beyond the first."""
        needed = needed_links(self.links, trusted, self.cross.key_id)
        return tuple(link for link in needed if link is not self.cross)


def _certificate(root_pem: str) -> x509.Certificate | None:
    """None for what is none, which is told where the root is judged."""
    try:
        return load_bundle(root_pem)[-1] if root_pem else None
    except ValueError:
        return None


def _leaf_bytes(issuer: x509.Certificate | None) -> int:
    return _LEAF_BYTES + (_pem_bytes(_naming_bytes(issuer)) if issuer else 0)


def _cross_signed_bytes(
    new: x509.Certificate | None, root_pem: str, old: CARoot, above: tuple[Intermediate, ...]
) -> int:
    """PEM of the new root under the name of the old one, or of the CA below that which signs."""
    issuers = [cert for pem in (old.root_pem, *(link.cert_pem for link in above)) for cert in load_bundle(pem)]
    issuer_bytes = max(_naming_bytes(issuer) for issuer in issuers)
    copied = len(new.public_bytes(Encoding.DER)) - len(new.issuer.public_bytes()) if new else 0
    known = _pem_bytes(copied + issuer_bytes) if new else (len(root_pem) or _ROOT_BYTES) + _pem_bytes(issuer_bytes)
    return known + _CROSS_SIGNED_EXTRA_BYTES


def _naming_bytes(issuer: x509.Certificate) -> int:
    """What stands of an issuer in each certificate that it signs: its name and key identifier, DER."""
    return len(issuer.subject.public_bytes()) + len(subject_key_id(issuer))


def _pem_bytes(der_bytes: int) -> int:
    """Base64, in lines of 64."""
    characters = -(-der_bytes // 3) * 4
    return characters + -(-characters // 64)


def stuck(active: CARoot) -> str:
    """Why this root can be replaced by force only, whatever comes after it; empty when it need not be."""
    try:
        _require_room(active, (active,), (), len(local_chain(active)), "")
    except Refused as refusal:
        return str(refusal)
    return ""


def _require_room(
    old: CARoot, trusted: tuple[CARoot, ...], links: tuple[Intermediate, ...], new_local: int, new_key_id: str
) -> None:
    """Whether each CA above the new root may have as many CAs below it as there would be (its path length).

    Raises: Refused, with the date from which on those that may not are not needed.
    """
    above = local_chain(old)[1:]
    below = new_local + 1 + len(above)
    rows = [(link.cert_pem, new_local + 1 + number, trusted) for number, link in enumerate(above)]
    rows += [(root.root_pem, below, (root,)) for root in trusted if root.key_id == old.key_id]
    met = {new_key_id, old.key_id}  # a root that is passed twice ends the way of its clients where it is met first
    for number, link in enumerate(links):
        beyond = {further.issuer_key_id for further in links[number:]}
        rows.append((link.cert_pem, below + number, tuple(root for root in trusted if root.key_id in beyond)))
        anchors = [root for root in trusted if root.key_id == link.issuer_key_id and root.key_id not in met]
        rows += [(root.root_pem, below + number + 1, (root,)) for root in anchors]
        met.add(link.issuer_key_id)
    for pem, count, needed_by in rows:
        cert = load_bundle(pem)[-1]
        limit = path_length(cert)
        if limit is None or count <= limit or not needed_by:
            continue
        until = max((root.prune_at if root.is_retired else _NEVER for root in needed_by), default=0)
        date = f"possible from {rfc3339(until)} on, when it is no longer trusted, or at once" if until < _NEVER else ""
        raise Refused(
            f"{cert.subject.rfc4514_string()} allows {limit} CAs below it (path length), and a rotation would put"
            f" {count} there: {date or 'possible'} with ForceWithoutCrossSigning"
        )


def _fits_from(roots: tuple[CARoot, ...], ways: _Ways, own_bytes: int, own_links: int) -> int:
    """The Unix time from which on the chain fits, because enough roots are pruned; 0 if it never does."""
    retired = sorted((root for root in roots if root.is_retired), key=lambda root: root.prune_at)
    for position, root in enumerate(retired):
        left = [other for other in roots if other not in retired[: position + 1]]
        links = ways.to(left)
        if _fits(own_bytes + _size(links), own_links + len(links)):
            return root.prune_at
    return 0


def require_short(root: CARoot) -> None:
    """Whatever was planned: of a root that is about to be used. Raises: ChainInvalid."""
    count = len(root.intermediates)
    if count > MAX_CHAIN_LINKS:
        raise ChainInvalid(
            f"a chain would have {count} certificates between leaf and root, more than {MAX_CHAIN_LINKS}"
        )


def _fits(chain_bytes: int, links: int) -> bool:
    return chain_bytes <= MAX_CHAIN_BYTES and links <= MAX_CHAIN_LINKS


def _size(links: tuple[Intermediate, ...]) -> int:
    return sum(len(link.cert_pem) for link in links)
