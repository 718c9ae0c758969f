"""DER as a tree whose parts can be changed: lengths are written anew, so that everything around a change fits again.

A walker of our own, because libraries refuse to write what they would refuse to read, and that is what is wanted here.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

BOOLEAN, INTEGER, BIT_STRING, OCTET_STRING, NULL, OID = 0x01, 0x02, 0x03, 0x04, 0x05, 0x06
UTF8, PRINTABLE, IA5 = 0x0C, 0x13, 0x16
SEQUENCE, SET = 0x30, 0x31
_CONSTRUCTED: Final = 0x20
_LONG: Final = 0x80
#: A tag of several octets; nothing in a CSR has one.
_HIGH_TAG: Final = 0x1F
_MAX_DEPTH: Final = 64


@dataclass(slots=True)
class Node:
    """One element. With `children` its content is these, after `lead`; without, it is `data`."""

    tag: int
    data: bytes = b""
    children: "list[Node] | None" = None
    lead: bytes = b""  # the count of unused bits of a BIT STRING that holds DER
    length: bytes | None = None  # octets to write instead of the right ones


def sequence(*children: Node) -> Node:
    return Node(SEQUENCE, children=list(children))


def set_of(*children: Node) -> Node:
    return Node(SET, children=list(children))


def oid(dotted: str) -> Node:
    first, second, *rest = map(int, dotted.split("."))
    return Node(OID, b"".join(map(_base_128, (40 * first + second, *rest))))


def integer(value: int) -> Node:
    return Node(INTEGER, value.to_bytes(value.bit_length() // 8 + 1, "big", signed=True))


def octets(child: Node) -> Node:
    """An OCTET STRING that holds DER, as the value of an extension does."""
    return Node(OCTET_STRING, children=[child])


def bits(child: Node) -> Node:
    """A BIT STRING that holds DER, as an RSA key and an ECDSA signature are written."""
    return Node(BIT_STRING, children=[child], lead=b"\0")


def read(data: bytes) -> Node:
    """Raises: ValueError for what is not exactly one element."""
    nodes = _read_all(data, 0)
    if len(nodes) != 1:
        raise ValueError(f"{len(nodes)} elements")
    return nodes[0]


def write(node: Node) -> bytes:
    content = node.data if node.children is None else node.lead + b"".join(map(write, node.children))
    return bytes([node.tag]) + (length_of(len(content)) if node.length is None else node.length) + content


def length_of(size: int, least: int = 0) -> bytes:
    """In the shortest form, or in the long one with `least` octets, which DER forbids."""
    if size < _LONG and not least:
        return bytes([size])
    count = max(least, (size.bit_length() + 7) // 8)
    return bytes([_LONG | count]) + size.to_bytes(count, "big")


def children_of(node: Node) -> list[Node]:
    """Raises: TypeError for one that has none."""
    if node.children is None:
        raise TypeError("no children")
    return node.children


def copied(node: Node) -> Node:
    children = None if node.children is None else [copied(child) for child in node.children]
    return Node(node.tag, node.data, children, node.lead, node.length)


def walk(node: Node) -> Iterator[tuple[Node, int]]:
    """Every element below this one, as its parent and its place there."""
    for place, child in enumerate(node.children or ()):
        yield node, place
        yield from walk(child)


def _read_all(data: bytes, depth: int) -> list[Node]:
    if depth > _MAX_DEPTH:
        raise ValueError("nested too deep")
    nodes, at = [], 0
    while at < len(data):
        tag, start, end = _header(data, at)
        nodes.append(_node(tag, data[start:end], depth))
        at = end
    return nodes


def _header(data: bytes, at: int) -> tuple[int, int, int]:
    """Tag, and where the content begins and ends."""
    if at + 2 > len(data) or data[at] & _HIGH_TAG == _HIGH_TAG:
        raise ValueError("no tag and length")
    size, start = data[at + 1], at + 2
    if size >= _LONG:
        count = size - _LONG
        size, start = int.from_bytes(data[start : start + count], "big"), start + count
        if not 1 <= count <= 4:
            raise ValueError("a length of another form")
    if start + size > len(data):
        raise ValueError("more announced than there is")
    return data[at], start, start + size


def _node(tag: int, content: bytes, depth: int) -> Node:
    if tag & _CONSTRUCTED:
        return Node(tag, children=_read_all(content, depth + 1))
    lead = b"\0" if tag == BIT_STRING else b""
    if tag in (BIT_STRING, OCTET_STRING) and content[: len(lead) + 1] == lead + bytes([SEQUENCE]):
        try:
            return Node(tag, children=[read(content[len(lead) :])], lead=lead)
        except ValueError:
            pass  # it only looked like DER
    return Node(tag, content)


def _base_128(value: int) -> bytes:
    groups = [value & 0x7F]
    while value := value >> 7:
        groups.append(_LONG | value & 0x7F)
    return bytes(reversed(groups))
