"""CSRs for fuzzing: good ones, and changes of them that know what a CSR is made of.

Changed bytes hardly ever get further than the decoder of ASN.1 or the check of the signature, which covers all of
them. So most changes are made in the tree, lengths are written anew, and the request is signed again, by a key that
fits the public key that it carries now: then every rule is reached, and so is what comes after them. The rest is
changed without a new signature, or as text.
"""

import base64
import functools
import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from tests.fuzz.csr import elements, keys, names, parts, subject
from tests.fuzz.csr.der import write
from tests.fuzz.csr.keys import PrivateKey
from tests.fuzz.csr.names import LEAF_URIS
from tests.fuzz.csr.request import Request, read_request, sign
from tests.fuzz.mutate import mutated
from tests.kit import pki

#: Of all mutants: changed as text.
_AS_TEXT: Final = 0.1
#: Of those that are changed in the tree: made from a seed, not signed again, changed once more after the signature.
_OF_SEEDS: Final = 0.9
_UNSIGNED: Final = 0.06
_OUTSIDE: Final = 0.04
_MAX_BYTES: Final = 1 << 16


def leaf_seeds() -> list[bytes]:
    """Every kind of key, and every kind of identity."""
    full = pki.alt_names([pki.WEB], ["web.example.com", "*.x.example"], ["10.0.0.1", "::1"])
    kinds = dict.fromkeys(owner.private for owner in keys.allowed())
    return [
        *(_made(private, full) for private in kinds),
        *(_made(keys.ec_key(), pki.alt_names([uri])) for uri in LEAF_URIS),
    ]


def intermediate_seeds() -> list[bytes]:
    """As secondaries ask: with the CA's identity, without any (AWS), with and without a subject."""
    own = pki.alt_names([pki.ROOT_URI])
    return [
        _made(keys.ec_key(), own),
        _made(keys.ec_key(), own, "sec-1.consul"),
        _made(keys.ec_key(), pki.alt_names([pki.ROOT_URI], ["ca.example.com"], ["10.0.0.1"], ["ca@example.com"]), "x"),
        _made(keys.ec_key(), [], "sec-2.consul"),
        _made(keys.ec_key(ec.SECP384R1), own, "sec-3.consul"),
        _made(keys.rsa_key(), own, "sec-4.consul"),
    ]


def _made(private: PrivateKey, alt_names: list[x509.GeneralName], common_name: str = "") -> bytes:
    assert isinstance(private, ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey)
    attributes = [x509.NameAttribute(NameOID.COMMON_NAME, common_name)] if common_name else []
    builder = x509.CertificateSigningRequestBuilder(subject_name=x509.Name(attributes))
    if alt_names:
        builder = builder.add_extension(x509.SubjectAlternativeName(alt_names), critical=False)
    is_ec = isinstance(private, ec.EllipticCurvePrivateKey)
    csr = builder.sign(private, hashes.SHA256(), ecdsa_deterministic=True if is_ec else None)
    return csr.public_bytes(Encoding.PEM)


# -- mutants

_Change = Callable[[Request, random.Random], None]
#: After most of these a CSR is still good: what comes after the rules is to be reached, too.
_MILD: Final[tuple[_Change, ...]] = (
    names.add_host,
    names.replace_uri,
    parts.replace_key,
    parts.good_algorithm,
    parts.mark_critical,
    parts.add_extension,
    parts.add_attribute,
)
#: Each of these is for one rule.
_AIMED: Final[tuple[_Change, ...]] = (
    names.bad_uri,
    names.bad_host,
    names.add_name,
    names.name_of_another_kind,
    names.many_names,
    parts.refused_key,
    parts.other_algorithm,
    subject.replace_subject,
)
#: These break what is around them as often as not.
_RUDE: Final[tuple[_Change, ...]] = (
    elements.drop,
    elements.duplicate,
    elements.swap,
    elements.graft,
    elements.resize,
    elements.fill,
    elements.number,
    elements.retag,
    elements.wrap,
    elements.unwrap,
    elements.lie,
)
KINDS: Final = (_MILD,) * 6 + (_AIMED,) * 3 + (_RUDE,)


def mutated_csr(seeds: Sequence[bytes], kept: Sequence[bytes], rng: random.Random) -> bytes:
    """Mostly one of the seeds: what was kept is mostly not good, and with one more change it is not better."""
    if rng.random() < _AS_TEXT:
        return mutated(seeds, kept, rng)
    readable = [data for data in kept if _is_csr(data)]
    donors = [*seeds, *readable]
    request = read_request(rng.choice(seeds if rng.random() < _OF_SEEDS else donors), donors)
    for _ in range(rng.choice((1, 1, 1, 1, 1, 2, 2, 3, 5))):
        rng.choice(rng.choice(KINDS))(request, rng)
    if rng.random() >= _UNSIGNED:
        sign(request)
    if rng.random() < _OUTSIDE:
        rng.choice(_RUDE)(replace(request, info=request.whole), rng)
    return _pem(write(request.whole), rng)[:_MAX_BYTES]


@functools.cache
def _is_csr(data: bytes) -> bool:
    try:
        read_request(data, ())
    except ValueError:
        return False
    return True


def _pem(der: bytes, rng: random.Random) -> bytes:
    text = base64.encodebytes(der)
    if rng.random() < 0.05:
        text = rng.choice(
            (text.replace(b"\n", b""), text.replace(b"\n", b"\r\n"), text + text, b"Proc-Type: 4\n\n" + text)
        )
    others = (b"NEW CERTIFICATE REQUEST", b"OLD CERTIFICATE REQUEST", b"CERTIFICATE")
    label = b"CERTIFICATE REQUEST" if rng.random() > 0.02 else rng.choice(others)
    pem = b"-----BEGIN %s-----\n%s-----END %s-----\n" % (label, text, label)
    if rng.random() < 0.03:
        return rng.choice((b"a comment\n" + pem, pem + b"more", pem + pem, pem[:-2], b" ", b"\n" + pem + b"\n "))
    return pem
