"""Changes of any element of a CSR, whatever it means."""

import random
from typing import Final

from tests.fuzz.csr.der import (
    BIT_STRING,
    BOOLEAN,
    IA5,
    INTEGER,
    NULL,
    OCTET_STRING,
    OID,
    PRINTABLE,
    SEQUENCE,
    SET,
    UTF8,
    Node,
    children_of,
    copied,
    integer,
    length_of,
    read,
    walk,
    write,
)
from tests.fuzz.csr.request import Request, der_of

STRING_TAGS: Final = (UTF8, PRINTABLE, IA5, 0x12, 0x14, 0x1A, 0x1C, 0x1E)
_TAGS: Final = (BOOLEAN, INTEGER, BIT_STRING, OCTET_STRING, NULL, OID, SEQUENCE, SET, 0xA0, 0x80, 0x00, 0x1F)
_INTEGERS: Final = (-1, 0, 1, 2, 127, 128, 1 << 31, 1 << 63, -(1 << 63), 1 << 512)
#: What has so many bytes is not repeated many times.
_LARGE: Final = 1 << 11


def drop(request: Request, rng: random.Random) -> None:
    siblings, place = _somewhere(request, rng)
    del siblings[place]


def duplicate(request: Request, rng: random.Random) -> None:
    siblings, place = _somewhere(request, rng)
    times = rng.choice((1, 1, 2, 20))
    copies = [copied(siblings[place]) for _ in range(times if len(write(siblings[place])) < _LARGE else 1)]
    siblings[place:place] = copies


def swap(request: Request, rng: random.Random) -> None:
    siblings, place = _somewhere(request, rng)
    other = rng.randrange(len(siblings))
    siblings[place], siblings[other] = siblings[other], siblings[place]


def graft(request: Request, rng: random.Random) -> None:
    """Put in the place of one element another, of this CSR or of another one."""
    siblings, place = _somewhere(request, rng)
    donor = read(der_of(rng.choice(request.donors))) if rng.random() < 0.5 else request.info
    parent, other = rng.choice(list(walk(donor)))
    siblings[place] = copied(children_of(parent)[other])


def resize(request: Request, rng: random.Random) -> None:
    node = _leaf(request, rng)
    data = node.data
    longer = data * (40 if len(data) < _LARGE else 1)
    node.data = rng.choice((b"", data[:-1], data[1:], data + b"\0", data + data, longer, data[: len(data) // 2]))


def fill(request: Request, rng: random.Random) -> None:
    node = _leaf(request, rng)
    data = bytearray(node.data or b"\0")
    data[rng.randrange(len(data))] = rng.choice((0x00, 0x2E, 0x2F, 0x25, 0x7F, 0x80, 0xFF, rng.randrange(256)))
    node.data = bytes(data)


def number(request: Request, rng: random.Random) -> None:
    node = _leaf(request, rng, INTEGER)
    node.data = rng.choice((integer(rng.choice(_INTEGERS)).data, b"", b"\0" + node.data, b"\xff" + node.data))


def retag(request: Request, rng: random.Random) -> None:
    siblings, place = _somewhere(request, rng)
    siblings[place].tag = rng.choice(rng.choice((_TAGS, STRING_TAGS)))


def wrap(request: Request, rng: random.Random) -> None:
    siblings, place = _somewhere(request, rng)
    for _ in range(rng.choice((1, 1, 1, 50))):
        siblings[place] = Node(rng.choice((SEQUENCE, SET, 0xA0, OCTET_STRING)), children=[siblings[place]])


def unwrap(request: Request, rng: random.Random) -> None:
    siblings, place = _somewhere(request, rng)
    siblings[place : place + 1] = siblings[place].children or [siblings[place]]


def lie(request: Request, rng: random.Random) -> None:
    """A length that is not the content's, or written in a form that DER forbids."""
    siblings, place = _somewhere(request, rng)
    size = len(write(siblings[place]))
    siblings[place].length = rng.choice(
        (
            length_of(size + rng.choice((-3, -1, 1, 7)) if size > 3 else size + 1),
            length_of(size - 2, least=rng.choice((1, 2, 4, 8))),
            *(b"\x80", b"\x84\xff\xff\xff\xff", b"\x88" + b"\xff" * 8, b"\x00", b"\xff"),
        )
    )


def _somewhere(request: Request, rng: random.Random) -> tuple[list[Node], int]:
    """One element, as its siblings and its place among them."""
    found = list(walk(request.info))
    if not found:  # all of it is gone
        request.info.children = [Node(NULL)]
        return request.info.children, 0
    parent, place = rng.choice(found)
    return children_of(parent), place


def _leaf(request: Request, rng: random.Random, tag: int | None = None) -> Node:
    """One without children; another kind where there is none of this tag."""
    leaves = [children_of(parent)[place] for parent, place in walk(request.info)]
    leaves = [node for node in leaves if node.children is None]
    return rng.choice([node for node in leaves if node.tag == tag] or leaves or [Node(NULL)])
