"""Changes of extensions, attributes, the key, and how a CSR is signed."""

import random

from cryptography.hazmat.primitives.asymmetric import rsa

from tests.fuzz.csr import keys
from tests.fuzz.csr.der import (
    BIT_STRING,
    BOOLEAN,
    IA5,
    NULL,
    OCTET_STRING,
    UTF8,
    Node,
    children_of,
    copied,
    integer,
    octets,
    oid,
    sequence,
    set_of,
)
from tests.fuzz.csr.names import DNS, general_name
from tests.fuzz.csr.request import (
    ECDSA,
    EXTENSION_REQUEST,
    OTHER_HASHES,
    PSS,
    RSA,
    SHA2,
    Algorithm,
    Request,
    algorithm_for,
    pss,
    put_key,
)
from tests.fuzz.csr.subject import put_in_order


def add_extension(request: Request, rng: random.Random) -> None:
    dotted, value = rng.choice(
        (
            ("2.5.29.15", Node(BIT_STRING, b"\5\xa0")),  # key usage
            ("2.5.29.19", sequence(Node(BOOLEAN, b"\xff"))),  # basic constraints: a CA
            ("2.5.29.37", sequence(oid("1.3.6.1.5.5.7.3.2"))),
            ("2.5.29.14", Node(OCTET_STRING, bytes(20))),
            ("2.5.29.30", sequence(Node(0xA0, children=[sequence(Node(DNS, b"x"))]))),  # name constraints
            ("1.2.3.4.5", Node(UTF8, b"unknown")),
            ("1.3.6.1.5.5.7.1.24", sequence(integer(5))),  # TLS feature
            ("2.5.29.17", sequence(general_name(rng))),
            ("2.5.29.15", Node(BIT_STRING, b"")),
            ("2.5.29.19", sequence(Node(BOOLEAN, b"\1"), integer(-1))),
            ("2.5.29.37", sequence()),
        )
    )
    extension = sequence(oid(dotted), octets(value))
    if rng.random() < 0.3:
        extension.children = [oid(dotted), Node(BOOLEAN, _truth(rng)), octets(value)]
    extensions = children_of(request.extensions)
    extensions.insert(rng.randrange(len(extensions) + 1), extension)


def mark_critical(request: Request, rng: random.Random) -> None:
    for extension in children_of(request.extensions):
        parts = extension.children
        if parts and len(parts) == 2:
            parts.insert(1, Node(BOOLEAN, _truth(rng)))


def _truth(rng: random.Random) -> bytes:
    """Mostly the only one that may be written: FALSE is what holds without a word."""
    return b"\xff" if rng.random() < 0.85 else rng.choice((b"\0", b"\1", b""))


def add_attribute(request: Request, rng: random.Random) -> None:
    kind, value = rng.choice(
        (
            *[("1.2.840.113549.1.9.7", set_of(Node(UTF8, b"challenge")))] * 3,
            *[("1.2.840.113549.1.9.2", set_of(Node(IA5, b"unstructured")))] * 3,
            *[("1.3.6.1.4.1.311.13.2.3", set_of(Node(IA5, b"10.0.1")))] * 3,
            # Microsoft's own number for a request of extensions.
            *[("1.3.6.1.4.1.311.2.1.14", set_of(copied(request.extensions)))] * 3,
            ("1.2.3.4.5", set_of(Node(NULL), Node(NULL))),
            ("1.2.3.4.5", set_of()),
            (EXTENSION_REQUEST, set_of()),
            (EXTENSION_REQUEST, set_of(sequence())),
            (EXTENSION_REQUEST, set_of(copied(request.extensions), copied(request.extensions))),
        )
    )
    attributes = children_of(request.attributes)
    attributes.insert(rng.randrange(len(attributes) + 1), sequence(oid(kind), value))
    put_in_order(attributes, rng)


def replace_key(request: Request, rng: random.Random) -> None:
    put_key(request, rng.choice(keys.allowed()) if rng.random() < 0.8 else keys.compressed())


def refused_key(request: Request, rng: random.Random) -> None:
    put_key(request, rng.choice(keys.refused()))


def good_algorithm(request: Request, rng: random.Random) -> None:
    request.algorithm = algorithm_for(request.private, rng.choice(SHA2))


def other_algorithm(request: Request, rng: random.Random) -> None:
    """Weak, unusual, with odd parameters, or of another kind of key."""
    usual = algorithm_for(request.private, rng.choice(SHA2))
    match rng.randrange(5):
        case 0 | 1:
            request.algorithm = algorithm_for(request.private, rng.choice(OTHER_HASHES))
        case 2:
            request.algorithm = pss() if isinstance(request.private, rsa.RSAPrivateKey) else usual
        case 3:
            number, *_ = children_of(usual.identifier)
            odd = rng.choice(([], [Node(NULL)], [sequence()], [oid("1.2.3")], [Node(NULL), Node(NULL)]))
            request.algorithm = Algorithm(sequence(number, *odd), usual.hash)
        case _:
            dotted = rng.choice((*ECDSA.values(), *RSA.values(), PSS, "1.3.101.112", "1.2.840.10040.4.3", "1.2.3"))
            request.algorithm = Algorithm(sequence(oid(dotted)), usual.hash)
