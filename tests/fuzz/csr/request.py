"""A CSR as a tree of parts that can be changed, and its signature (RFC 2986 4, RFC 5280 4.2)."""

import base64
import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa

from tests.fuzz.csr import keys
from tests.fuzz.csr.der import BIT_STRING, NULL, Node, children_of, integer, oid, read, sequence, write
from tests.fuzz.csr.keys import Owner, PrivateKey

EXTENSION_REQUEST: Final = "1.2.840.113549.1.9.14"
_ALT_NAME: Final = "2.5.29.17"

SHA2: Final[tuple[hashes.HashAlgorithm, ...]] = (hashes.SHA256(), hashes.SHA384(), hashes.SHA512())
OTHER_HASHES: Final[tuple[hashes.HashAlgorithm, ...]] = (hashes.SHA1(), hashes.SHA224(), hashes.SHA3_256())
ECDSA: Final = {
    "sha1": "1.2.840.10045.4.1",
    "sha224": "1.2.840.10045.4.3.1",
    "sha256": "1.2.840.10045.4.3.2",
    "sha384": "1.2.840.10045.4.3.3",
    "sha512": "1.2.840.10045.4.3.4",
    "sha3-256": "2.16.840.1.101.3.4.3.10",
}
RSA: Final = {
    "sha1": "1.2.840.113549.1.1.5",
    "sha224": "1.2.840.113549.1.1.14",
    "sha256": "1.2.840.113549.1.1.11",
    "sha384": "1.2.840.113549.1.1.12",
    "sha512": "1.2.840.113549.1.1.13",
    "sha3-256": "2.16.840.1.101.3.4.3.14",
}
PSS: Final = "1.2.840.113549.1.1.10"
_SHA256: Final = "2.16.840.1.101.3.4.2.1"
_MGF1: Final = "1.2.840.113549.1.1.8"
#: A salt would be another each time, and with it the bytes that a seed gives.
_SALT_BYTES: Final = 0


@dataclass(frozen=True, slots=True)
class Algorithm:
    """How a signature is made, and what the CSR says about it."""

    identifier: Node
    hash: hashes.HashAlgorithm
    is_pss: bool = False


@dataclass(slots=True)
class Request:
    """A CSR as a tree; its parts stay what they are wherever a change has moved them."""

    whole: Node
    info: Node
    private: PrivateKey  # fits `spki`
    spki: Node
    subject: Node
    attributes: Node
    extensions: Node
    names: Node
    donors: Sequence[bytes]  # other CSRs, of which parts may be taken
    algorithm: "Algorithm | None" = None  # for the signature; None for a usual one


def read_request(pem: bytes, donors: Sequence[bytes]) -> Request:
    """Raises: ValueError for what is no CSR."""
    whole = read(der_of(pem))
    try:
        info = children_of(whole)[0]
        _, subject, spki, attributes = children_of(info)
        owner = _owners().get(write(spki))
        extensions = _value_of(attributes, EXTENSION_REQUEST)
        names = _value_of(extensions, _ALT_NAME)
        for part in (subject, attributes, extensions, names):
            children_of(part)
    except (TypeError, IndexError) as error:
        raise ValueError("not the parts of a CSR") from error
    request = Request(whole, info, keys.ec_key(), spki, subject, attributes, extensions, names, donors)
    if owner is None:  # somebody's, for whom nobody here can sign
        owner = keys.allowed()[0]
        put_key(request, owner)
    request.private = owner.private
    return request


def der_of(pem: bytes) -> bytes:
    _, begin, rest = pem.replace(b"NEW CERT", b"CERT").partition(b"-----BEGIN CERTIFICATE REQUEST-----")
    body, end, _ = rest.partition(b"-----END")
    if not begin or not end:
        raise ValueError("no PEM")
    return base64.b64decode(b"".join(body.split()), validate=True)


@functools.cache
def _owners() -> dict[bytes, Owner]:
    return {owner.spki: owner for owner in (*keys.allowed(), *keys.refused(), keys.compressed())}


def _value_of(node: Node, dotted: str) -> Node:
    """What an attribute or extension holds. Where it is missing: a part that is nowhere, changed without effect."""
    wanted = oid(dotted)
    for child in node.children or ():
        if children_of(child)[0] == wanted:
            return children_of(children_of(child)[-1])[0]
    return sequence()


def put_key(request: Request, owner: Owner) -> None:
    request.spki.children, request.private = read(owner.spki).children, owner.private


def algorithm_for(private: PrivateKey, used: hashes.HashAlgorithm) -> Algorithm:
    match private:
        case ec.EllipticCurvePrivateKey():
            return Algorithm(sequence(oid(ECDSA[used.name])), used)
        case rsa.RSAPrivateKey():
            return Algorithm(sequence(oid(RSA[used.name]), Node(NULL)), used)
        case _:
            dotted = "1.3.101.112" if len(private.private_bytes_raw()) == 32 else "1.3.101.113"
            return Algorithm(sequence(oid(dotted)), used)


def pss() -> Algorithm:
    """RFC 4055 3.1, with SHA-256 for everything."""
    digest = sequence(oid(_SHA256), Node(NULL))
    parameters = sequence(
        Node(0xA0, children=[digest]),
        Node(0xA1, children=[sequence(oid(_MGF1), digest)]),
        Node(0xA2, children=[integer(_SALT_BYTES)]),
    )
    return Algorithm(sequence(oid(PSS), parameters), hashes.SHA256(), is_pss=True)


def sign(request: Request) -> None:
    algorithm = request.algorithm or algorithm_for(request.private, hashes.SHA256())
    signature = _signature(request.private, algorithm, write(request.info))
    request.whole.children = [request.info, algorithm.identifier, Node(BIT_STRING, b"\0" + signature)]


def _signature(private: PrivateKey, algorithm: Algorithm, data: bytes) -> bytes:
    match private:
        case ec.EllipticCurvePrivateKey():
            return private.sign(data, ec.ECDSA(algorithm.hash, deterministic_signing=True))
        case rsa.RSAPrivateKey() if algorithm.is_pss:
            return private.sign(data, padding.PSS(padding.MGF1(algorithm.hash), _SALT_BYTES), algorithm.hash)
        case rsa.RSAPrivateKey():
            return private.sign(data, padding.PKCS1v15(), algorithm.hash)
        case _:
            return private.sign(data)
