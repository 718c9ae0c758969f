"""Changes of the subject: distinguished names of all sizes and string types."""

import random
from typing import Final

from tests.fuzz.csr.der import BIT_STRING, INTEGER, OCTET_STRING, UTF8, Node, oid, sequence, set_of, write
from tests.fuzz.csr.elements import STRING_TAGS
from tests.fuzz.csr.request import Request

_COMMON_NAME: Final = "2.5.4.3"
_OTHER_OIDS: Final = ("2.5.4.6", "2.5.4.10", "2.5.4.5", "0.9.2342.19200300.100.1.25", "1.2.840.113549.1.9.1", "1.2.3.4")


def replace_subject(request: Request, rng: random.Random) -> None:
    request.subject.children = distinguished_name(rng).children


def distinguished_name(rng: random.Random) -> Node:
    return sequence(*(_relative_name(rng) for _ in range(rng.choice((0, 1, 1, 2, 5)))))


def _relative_name(rng: random.Random) -> Node:
    attributes = [_name_attribute(rng) for _ in range(rng.choice((1, 1, 1, 1, 1, 1, 0, 2, 2)))]
    put_in_order(attributes, rng)
    return set_of(*attributes)


def _name_attribute(rng: random.Random) -> Node:
    values = (
        b"sec.consul",
        b"DE",
        b"",
        b"x" * 64,
        b"x" * 65,
        b"x" * 2000,
        "Ü".encode(),
        "ab".encode("utf-16-be"),
        b"a\0",
    )
    kind = _COMMON_NAME if rng.random() < 0.6 else rng.choice(_OTHER_OIDS)
    tag = UTF8 if rng.random() < 0.5 else rng.choice((*STRING_TAGS, BIT_STRING, INTEGER, OCTET_STRING))
    return sequence(oid(kind), Node(tag, rng.choice(values)))


def put_in_order(members: list[Node], rng: random.Random) -> None:
    """Of a SET, by their encodings, as DER wants it; but not always."""
    if rng.random() < 0.9:
        members.sort(key=write)
