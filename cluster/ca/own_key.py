"""Whether a new root is told from the trusted ones by what verifiers go by: its name and its key identifier.

An operator chooses both. Where two keys have one identifier, verifiers take one root for the other and refuse what the
wrong one does not verify; where one key has two names or identifiers, they may find no way from one to the other, and
nor do we: links are followed by identifiers. So a key has one name and one identifier, whether a rotation is forced or
not, and no other key has them.
"""

from collections.abc import Iterable, Iterator, Sequence

from cryptography import x509

from cluster.base.errors import InternalError
from fsm.ca import CARoot
from providers.pki import keys
from providers.pki.x509 import load_cert, public_key, subject_key_id


def require_own_key(root: CARoot, roots: Iterable[CARoot]) -> None:
    """Raises: InternalError, which names the trusted root that this one collides with, and what to do."""
    new = load_cert(root.root_pem)
    for place, cert in _known([listed for listed in roots if listed.root_id != root.root_id]):
        if text := _collision(new, cert):
            raise InternalError(f"the root cannot be trusted beside {place}: {text}")


def _known(roots: Sequence[CARoot]) -> Iterator[tuple[str, x509.Certificate]]:
    """Roots first: they are what an operator knows."""
    yield from ((f"the root {listed.root_id}", load_cert(listed.root_pem)) for listed in roots)
    for listed in roots:
        yield from (
            (f"the chain of the root {listed.root_id}", load_cert(link.cert_pem)) for link in listed.intermediates
        )


def _collision(new: x509.Certificate, known: x509.Certificate) -> str:
    is_same_key = keys.spki_der(public_key(new)) == keys.spki_der(public_key(known))
    is_same_id = subject_key_id(new) == subject_key_id(known)
    if is_same_id and not is_same_key:
        return (
            "it has the same subject key identifier with another key: make it with an identifier of its own key"
            " (OpenSSL: subjectKeyIdentifier=hash)"
        )
    if is_same_key and not is_same_id:
        return (
            "it has the same key with another subject key identifier: use a new key, or make it again with the"
            f" identifier {subject_key_id(known).hex(':')}"
        )
    if is_same_key and new.subject.public_bytes() != known.subject.public_bytes():
        return (
            "it has the same key under another name: use a new key, or make it again with the name"
            f" {known.subject.rfc4514_string()[:200]!r}"
        )
    return ""
