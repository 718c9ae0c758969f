"""Changes of the subject alternative names: every kind of name, and SPIFFE IDs and hosts at the edges of the rules."""

import random
from typing import Final

from tests.fuzz.csr.der import NULL, UTF8, Node, children_of, oid, sequence
from tests.fuzz.csr.request import Request
from tests.fuzz.csr.subject import distinguished_name
from tests.kit import pki

_OTHER_NAME, _EMAIL, DNS, _X400, _DIRECTORY, _EDI, _URI, _ADDRESS, _REGISTERED = (
    *(0xA0, 0x81, 0x82, 0xA3, 0xA4, 0xA5),
    *(0x86, 0x87, 0x88),
)
LEAF_URIS: Final = tuple(uri for uri, _ in pki.IDENTITIES.values())
_GOOD_URIS: Final = (
    *(pki.WEB, pki.WEB, pki.ROOT_URI, *LEAF_URIS),
    f"{pki.ROOT_URI}/ap/default/gateway/mesh/dc/dc1",
    pki.WEB.replace("spiffe", "SPIFFE"),
    pki.WEB.replace(".consul", ".CONSUL"),
    pki.WEB.replace("/web", f"/{'w' * 128}"),
    "spiffe://other.consul/agent/client/dc/dc1/id/node-1",
)
_BAD_URIS: Final = (
    f"{pki.ROOT_URI}/ap/part/ns/other/dc/dc1/svc/web%2Fapi",
    f"{pki.ROOT_URI}/ns/default/dc/dc1/svc/%E2%82%AC",
    f"{pki.ROOT_URI}/ap/part/agent/client/dc/dc1/id/node-1",
    f"{pki.ROOT_URI}/ap/part/gateway/mesh/dc/dc1",
    f"{pki.ROOT_URI}/agent/server/dc/dc1",
    pki.WEB.replace("/web", f"/{'w' * 129}"),
    "spiffe://other.consul/agent/client/dc/dc9/id/node-1",
    *(pki.WEB.replace("dc1", "dc2"), pki.WEB.replace("1111", "2222"), pki.ROOT_URI.replace("1111", "2222")),
    *(pki.WEB.replace("spiffe:", "https:"), pki.WEB + "/", pki.WEB + "/more", pki.WEB + "?a=b", pki.WEB + "#a"),
    *(pki.WEB.replace("web", name) for name in ("", ".", "..", "%2e%2E", "%", "%zz", "%00", "%FF", "a%0Ab", "ü", "[")),
    *(pki.WEB.replace("default", name) for name in ("..", "%C0%AF", "%80")),
    *(pki.WEB.replace("/dc1", f"/{name}") for name in ("%00", "..", "dc1%20", "DC1")),
    *(pki.WEB.replace("/ns", f"/ap/{name}/ns") for name in ("%00", "default", "..")),
    pki.IDENTITIES["agent"][0].replace("node-1", "%00"),
    *(f"spiffe://{host}/ns/default/dc/dc1/svc/web" for host in ("", "a:1", "u@a", "[::1]", "%41", "x" * 256)),
    *("", "spiffe://", "spiffe:///", "spiffe", pki.WEB.replace("/web", f"/{'w' * 2100}"), "spiffe://consul"),
)
_GOOD_HOSTS: Final = (
    *("web.example.com", "*.x.y", "web", "a.b.", "_dns-sd._tcp.x", "x" * 63, "1.2.3.4.x", "xn--bcher-kva.example"),
    ".".join(["x" * 60] * 4),
)
_BAD_HOSTS: Final = (
    *("*.x", "*.co.uk", "1.2.3.4", "localhost", "server.dc1.consul", "node-1.server.dc1.consul", "*.dc1.consul"),
    *("", ".", "*", "*.*.x", "a..b", "-x", "x-", "bücher", "a b", "a\0b", "a_.b", "x.."),
    *("x" * 64, "y" * 300, ".".join(["x" * 60] * 5)),
)
_ADDRESSES: Final = (bytes([10, 0, 0, 1]), bytes(15) + b"\1", bytes([0xFE, 0x80, *bytes(14)]))
_BAD_ADDRESSES: Final = (
    bytes(4),
    bytes(16),
    bytes([255]) * 4,
    bytes([255]) * 16,
    b"",
    bytes(3),
    bytes(5),
    bytes(8),
    bytes(32),
)


def add_name(request: Request, rng: random.Random) -> None:
    names = children_of(request.names)
    names.insert(rng.randrange(len(names) + 1), general_name(rng))


def add_host(request: Request, rng: random.Random) -> None:
    """One that a certificate may carry."""
    names = children_of(request.names)
    node = Node(DNS, rng.choice(_GOOD_HOSTS).encode()) if rng.random() < 0.5 else Node(_ADDRESS, rng.choice(_ADDRESSES))
    names.insert(rng.randrange(len(names) + 1), node)


def replace_uri(request: Request, rng: random.Random) -> None:
    """Mostly by another that may be signed."""
    for node in children_of(request.names):
        if node.tag == _URI:
            node.data = _uri(rng)


def bad_uri(request: Request, rng: random.Random) -> None:
    for node in children_of(request.names):
        if node.tag == _URI:
            node.data = rng.choice(_BAD_URIS).encode()


def bad_host(request: Request, rng: random.Random) -> None:
    names = children_of(request.names)
    names.insert(rng.randrange(len(names) + 1), Node(DNS, rng.choice(_BAD_HOSTS).encode()))


def many_names(request: Request, rng: random.Random) -> None:
    count = rng.choice((97, 98, 99, 100, 101, 400, 1200))
    children_of(request.names)[:0] = [Node(DNS, b"host-%d.example" % number) for number in range(count)]


def name_of_another_kind(request: Request, rng: random.Random) -> None:
    names = children_of(request.names)
    if names:
        rng.choice(names).tag = rng.choice((_EMAIL, DNS, _URI, _ADDRESS, _REGISTERED, _OTHER_NAME, _DIRECTORY, 0x83))


def general_name(rng: random.Random) -> Node:
    match rng.randrange(12):
        case 0 | 1 | 2:
            return Node(DNS, rng.choice(_GOOD_HOSTS if rng.random() < 0.5 else _BAD_HOSTS).encode())
        case 3 | 4:
            return Node(_ADDRESS, rng.choice(_ADDRESSES if rng.random() < 0.5 else _BAD_ADDRESSES))
        case 5:
            return Node(_URI, _uri(rng))
        case 6:
            return Node(_EMAIL, rng.choice((b"a@b.example", b"", b"\xff@b", b"a@b@c")))
        case 7:
            value = rng.choice((Node(UTF8, b"text"), Node(NULL), sequence()))
            return Node(_OTHER_NAME, children=[oid("1.3.6.1.4.1.311.20.2.3"), Node(0xA0, children=[value])])
        case 8:
            return Node(_DIRECTORY, children=[distinguished_name(rng)])
        case 9:
            return Node(_REGISTERED, rng.choice((oid("1.2.3.4").data, b"", b"\x80", b"\xff" * 30)))
        case 10:
            return Node(_X400, children=[])
        case _:
            return Node(_EDI, children=[Node(0x81, b"party")])


def _uri(rng: random.Random) -> bytes:
    text = bytearray(rng.choice(_GOOD_URIS).encode())
    if rng.random() < 0.2:
        text[rng.randrange(len(text))] = rng.choice(b"/.%:@?#\\\0\n \x7f\xffAz0")
    return bytes(text)
