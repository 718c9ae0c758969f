"""CSRs for one service that ask for something beside it: names of every kind, and the same said twice, in different
words or in different bytes. Each is signed by its own key, so that only what it asks for can be wrong with it.
"""

import base64
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from ipaddress import ip_address, ip_network
from typing import Final

from tests.fuzz.csr import der
from tests.fuzz.csr.der import BOOLEAN, OCTET_STRING, SET, UTF8, Node, children_of, oid, read, sequence, set_of, write
from tests.fuzz.csr.names import (
    _ADDRESS,
    _DIRECTORY,
    _EDI,
    _EMAIL,
    _OTHER_NAME,
    _REGISTERED,
    _URI,
    _X400,
    DNS,
)
from tests.fuzz.csr.request import EXTENSION_REQUEST, Request, der_of, read_request, sign
from tests.kit import pki

#: What may be had, as a rule and as names.
RULE: Final = 'service "web" { policy = "write", dns = ["web.*.internal"], ip = ["10.0.0.0/8", "fd00::/8"] }'
_ALT_NAME: Final = "2.5.29.17"
_MICROSOFT_REQUEST: Final = "1.3.6.1.4.1.311.2.1.14"
_ISSUERS_NAME: Final = "2.5.29.18"
_COMMON_NAME: Final = "2.5.4.3"

Change = Callable[[Request], None]


@dataclass(frozen=True, slots=True)
class Case:
    """Names beside the SPIFFE ID, and the status of whoever has RULE and asks for them."""

    what: str
    names: tuple[Node, ...]
    status: int

    def __str__(self) -> str:
        return self.what


def _dns(text: str | bytes, status: int) -> Case:
    data = text if isinstance(text, bytes) else text.encode()
    return Case(f"DNS {data!r}", (Node(DNS, data),), status)


def _ip(text: str, status: int) -> Case:
    data = bytes.fromhex(text)
    return Case(f"IP {len(data)} bytes {text[:12]}", (Node(_ADDRESS, data),), status)


def _subject(common: str) -> Node:
    return sequence(set_of(sequence(oid(_COMMON_NAME), Node(UTF8, common.encode()))))


def cases(web_uri: str) -> tuple[Case, ...]:
    other = web_uri.replace("/web", "/api")
    return (
        Case("nothing", (), 200),
        *(
            _dns(name, 200)
            for name in ("web.a.internal", "WEB.a.Internal", "web.a.internal.", "web.xn--a-ecp.internal")
        ),
        *(_dns(name, 403) for name in ("api.internal", "web.internal", "web.a.b.internal", "xweb.a.internal")),
        *(_dns(name, 403) for name in ("*.a.internal", "web.a.internal.example.com", "xn--web-9xa.a.internal", "web")),
        *(_dns(name, 403) for name in ("_web.a.internal", "web_.a.internal", "web.a.internal0", "webx.a.internal")),
        *(
            _dns(name, 400)
            for name in ("web.a.internal\0.example.com", "web.\0.internal", "\0", "web.a.internal\n", "")
        ),
        *(
            _dns(name, 400)
            for name in ("web.*.internal", "*", "*.", "*.com", "**.internal", "w*.a.internal", ".", "..")
        ),
        *(_dns(name, 400) for name in ("web.é.internal", "wéb.a.internal", "web。a。internal", "web.a.internal\u200b")),
        *(
            _dns(name, 400)
            for name in (b"web.\xff.internal", b"web.\xe9.internal", b"web.a.internal ", b" web.a.internal")
        ),
        *(_dns(name, 400) for name in ("web..internal", ".web.a.internal", "web.a.internal..", "web.a.internal:443")),
        *(_dns(name, 400) for name in ("web.-.internal", "web.a/.internal", "web.10.0.0.1", "10.0.0.1", "localhost")),
        *(_dns(name, 400) for name in ("web." + "a" * 64 + ".internal", "web." + "a." * 130 + "internal")),
        *(_ip(data, 200) for data in ("0a000001", "0affffff", "fd" + "00" * 15)),
        *(_ip(data, 403) for data in ("0b000001", "7f000001", "c0a80001", "00" * 15 + "01", "fe80" + "00" * 13 + "01")),
        _ip("00" * 10 + "ffff0a000001", 403),  # mapped: another address than the one that may be had
        *(_ip(data, 400) for data in ("00000000", "00" * 16, "ffffffff", "e0000001", "ff02" + "00" * 13 + "01")),
        *(
            _ip(data, 400)
            for data in ("", "0a", "0a0000", "0a00000101", "0a000001ff000000", "fd" + "00" * 16, "00" * 32)
        ),
        Case("IP twice", (Node(_ADDRESS, b"\x0a\0\0\1"),) * 2, 200),
        Case("one that may be had, one that may not", (Node(DNS, b"web.a.internal"), Node(DNS, b"b.example")), 403),
        Case("the same the other way about", (Node(DNS, b"b.example"), Node(DNS, b"web.a.internal")), 403),
        Case("the same hidden among many", (*(Node(DNS, b"web.a.internal"),) * 50, Node(_ADDRESS, b"\x0b\0\0\1")), 403),
        Case("too many", (Node(DNS, b"web.a.internal"),) * 100, 400),
        Case("second URI", (Node(_URI, other.encode()),), 400),
        Case("its own URI twice", (Node(_URI, web_uri.encode()),), 400),
        Case("an https URI", (Node(_URI, b"https://web.a.internal"),), 400),
        Case("empty URI", (Node(_URI, b""),), 400),
        *(Case(f"e-mail {text!r}", (Node(_EMAIL, text),), 400) for text in (b"web@a.internal", b"", b"\xff@b", b"web")),
        Case(
            "otherName",
            (Node(_OTHER_NAME, children=[oid("1.3.6.1.4.1.311.20.2.3"), Node(0xA0, children=[Node(UTF8, b"admin")])]),),
            400,
        ),
        Case(
            "SmtpUTF8Mailbox",
            (Node(_OTHER_NAME, children=[oid("1.3.6.1.5.5.7.8.9"), Node(0xA0, children=[Node(UTF8, b"a")])]),),
            400,
        ),
        Case("directoryName", (Node(_DIRECTORY, children=[_subject("web.a.internal")]),), 400),
        Case("registeredID", (Node(_REGISTERED, oid("1.2.3.4").data),), 400),
        Case("empty registeredID", (Node(_REGISTERED, b""),), 400),
        Case("x400Address", (Node(_X400, children=[]),), 400),
        Case("ediPartyName", (Node(_EDI, children=[Node(0x81, b"party")]),), 400),
        Case("a tenth kind", (Node(0x89, b"web.a.internal"),), 400),
        Case("DNS as constructed", (Node(DNS | 0x20, children=[Node(0x16, b"web.a.internal")]),), 400),
        Case("DNS as universal IA5String", (Node(0x16, b"web.a.internal"),), 400),
    )


#: SPIFFE IDs in the place of the own one, by their end, and the status of whoever has RULE.
IDENTITIES: Final[Mapping[str, int]] = {
    "/ns/default/dc/dc1/svc/web": 200,
    "/ns/default/dc/dc1/svc/api": 403,
    "/ns/default/dc/dc1/svc/WEB": 403,
    "/ns/default/dc/dc1/svc/web-1": 403,
    "/ns/default/dc/dc1/svc/we": 403,
    "/ns/default/dc/dc1/svc/web.": 403,
    "/agent/client/dc/dc1/id/web": 403,
    "/gateway/mesh/dc/dc1": 403,
    "/ns/default/dc/dc1/svc/%77eb": 400,
    "/ns/default/dc/dc1/svc/web%00": 400,
    "/ns/default/dc/dc1/svc/web%2F": 400,
    "/ns/default/dc/dc1/svc/web/": 400,
    "/ns/default/dc/dc1/svc/*": 400,
    "/ns/default/dc/dc1/svc/we*": 400,
    "/ns/default/dc/dc1/svc/web+api": 400,
    '/ns/default/dc/dc1/svc/web"': 400,
    "/ns/default/dc/dc1/svc/${web}": 400,
    "/ns/default/dc/dc1/svc/": 400,
    "/ns/default/dc/dc1/svc/..": 400,
    "/ns/default/dc/dc1/svc/api/../web": 400,
    "/ns/default/dc/dc1/svc/web?x=1": 400,
    "/ns/default/dc/dc1/svc/web#x": 400,
    "/ns/other/dc/dc1/svc/web": 400,
    "/ap/other/ns/default/dc/dc1/svc/web": 400,
    "/ns/default/dc/dc2/svc/web": 400,
    "/agent/server/dc/dc1": 400,
    "": 400,
}


def csr_for(uri: str, names: Sequence[Node] = (), *, is_first: bool = False) -> str:
    """With these names behind the SPIFFE ID, or before it."""
    request = _request(uri)
    own = children_of(request.names)
    own[:] = [*names, *_uris(request)] if is_first else [*_uris(request), *names]
    return signed(request)


def _request(uri: str) -> Request:
    request = read_request(pki.csr_pem(uri=pki.WEB).encode(), ())
    children_of(request.names)[:] = [Node(_URI, uri.encode())]
    return request


def _uris(request: Request) -> list[Node]:
    return [node for node in children_of(request.names) if node.tag == _URI]


def signed(request: Request) -> str:
    sign(request)
    return pem(write(request.whole))


def pem(data: bytes) -> str:
    text = base64.encodebytes(data).decode()
    return f"-----BEGIN CERTIFICATE REQUEST-----\n{text}-----END CERTIFICATE REQUEST-----\n"


# -- the same in other bytes: what is judged must be what is signed


def _extension(names: Sequence[Node], *, dotted: str = _ALT_NAME) -> Node:
    return sequence(oid(dotted), Node(OCTET_STRING, children=[sequence(*names)]))


def _attribute(names: Sequence[Node], dotted: str = EXTENSION_REQUEST) -> Node:
    return sequence(oid(dotted), set_of(sequence(_extension(names))))


def twisted(uri: str) -> dict[str, str]:
    """CSRs that say one thing to one reader, and perhaps another to the next. All want more than may be had, in a place
    where a reader could pass over it.
    """
    other = uri.replace("/web", "/api")
    more = (Node(_URI, other.encode()), Node(DNS, b"b.example"))
    both = (Node(_URI, uri.encode()), Node(DNS, b"b.example"))
    made: dict[str, str] = {}

    def add(what: str, change: Change) -> None:
        request = _request(uri)
        change(request)
        made[what] = signed(request)

    for what, names in (("another identity", more), ("its own identity", both)):
        for name, change in _places(names).items():
            add(name.format(what), change)
    for common in ("api", "b.example", "*.a.internal", other, "web.a.internal\0.b.example"):
        for name, texts in (("one", (common,)), ("then", ("web", common)), ("first", (common, "web"))):
            add(f"common name, {name} {common!a:.40}", partial(_name, common=texts))
    for dotted, value in _UNASKED.items():
        whole = sequence(oid(dotted), Node(BOOLEAN, b"\xff"), Node(OCTET_STRING, children=[value]))
        add(f"extension {dotted}", partial(_append_extension, extension=whole))
    return made | _in_other_bytes(uri, more)


#: What a CA decides, and not who asks.
_UNASKED: Final[Mapping[str, Node]] = {
    "2.5.29.19": sequence(Node(BOOLEAN, b"\xff")),  # a CA
    "2.5.29.15": Node(0x03, b"\x01\x06"),  # whose key signs certificates
    "2.5.29.37": sequence(oid("2.5.29.37.0")),  # for any purpose
    "2.5.29.30": sequence(Node(0xA0, children=[])),
    "1.3.6.1.5.5.7.1.24": sequence(),
    "1.2.3.4.5": Node(UTF8, b"of nobody"),
}


def _append_extension(request: Request, extension: Node) -> None:
    children_of(request.extensions).append(extension)


def _places(names: Sequence[Node]) -> dict[str, Change]:
    """Where names may stand a second time, by what that is."""

    def attributes(request: Request) -> list[Node]:
        return children_of(request.attributes)

    def extensions(request: Request) -> list[Node]:
        return children_of(request.extensions)

    def values(request: Request) -> list[Node]:
        return _set_of(attributes(request)[0])

    again, asked = _extension(names), sequence(_extension(names))
    return {
        "SAN twice, then {}": lambda request: extensions(request).append(again),
        "SAN twice, first {}": lambda request: extensions(request).insert(0, again),
        "extension request twice, then {}": lambda request: attributes(request).append(_attribute(names)),
        "extension request twice, first {}": lambda request: attributes(request).insert(0, _attribute(names)),
        "Microsoft's extension request with {}": lambda request: attributes(request).insert(
            0, _attribute(names, _MICROSOFT_REQUEST)
        ),
        "two values in the extension request, then {}": lambda request: values(request).append(asked),
        "two values in the extension request, first {}": lambda request: values(request).insert(0, asked),
        "two sequences in the SAN, then {}": lambda request: children_of(_alt_names(request)).append(sequence(*names)),
        "SAN as an attribute with {}": lambda request: attributes(request).append(
            sequence(oid(_ALT_NAME), set_of(sequence(*names)))
        ),
        "issuer's alternative name with {}": lambda request: extensions(request).append(
            _extension(names, dotted=_ISSUERS_NAME)
        ),
    }


def _in_other_bytes(uri: str, more: tuple[Node, ...]) -> dict[str, str]:
    good = der_of(csr_for(uri).encode())
    greedy = der_of(csr_for(uri.replace("/web", "/api"), more[1:]).encode())
    body, end = good[4:], pem(good)
    made = {
        "more behind the request": pem(good + greedy),
        "a byte behind the request": pem(good + b"\0"),
        "more behind it in base64": pem(good).replace("-----END", base64.encodebytes(greedy).decode() + "-----END", 1),
        "two blocks": end + pem(greedy),
        "two blocks the other way about": pem(greedy) + end,
        "of indefinite length": pem(b"\x30\x80" + body + b"\0\0"),
        "length in too many bytes": pem(b"\x30" + der.length_of(len(body), 3) + body),
        "length of less": pem(good[:2] + (len(body) - 1).to_bytes(2, "big") + body),
        "length of more": pem(good[:2] + (len(body) + len(greedy)).to_bytes(2, "big") + body + greedy),
        "as a certificate": end.replace("CERTIFICATE REQUEST", "CERTIFICATE"),
        "headers in the PEM": end.replace("REQUEST-----\n", "REQUEST-----\nProc-Type: 4,ENCRYPTED\n\n", 1),
        "another block in front": end.replace("CERTIFICATE REQUEST", "X", 2) + end,
    }
    whole = read(good)
    children_of(whole).append(read(greedy))
    made["a fourth part"] = pem(write(whole))
    whole = read(good)
    children_of(children_of(whole)[0]).append(children_of(children_of(read(greedy))[0])[-1])
    made["attributes twice"] = pem(write(whole))
    return made


def _set_of(attribute: Node) -> list[Node]:
    found = children_of(attribute)[1]
    assert found.tag == SET
    return children_of(found)


def _alt_names(request: Request) -> Node:
    """The OCTET STRING around them."""
    return children_of(children_of(request.extensions)[0])[-1]


def _name(request: Request, common: Sequence[str]) -> None:
    children_of(request.subject)[:] = [
        set_of(sequence(oid(_COMMON_NAME), Node(UTF8, text.encode()))) for text in common
    ]


#: Basic constraints, key usage and its extension, both key identifiers, and the names: what every leaf has.
_OF_A_LEAF: Final = frozenset({"551d13", "551d0f", "551d25", "551d0e", "551d23", "551d11"})

# -- what a certificate says, read once more by nobody's library


def certified(leaf_der: bytes) -> tuple[list[tuple[int, bytes]], list[str], int]:
    """The names in all alternative names, the identifiers of all extensions, and how many parts the subject has."""
    parts = children_of(children_of(read(leaf_der))[0])
    subject = parts[5]
    [extensions] = [part for part in parts if part.tag == 0xA3]
    names: list[tuple[int, bytes]] = []
    kinds = []
    for extension in children_of(children_of(extensions)[0]):
        kinds.append(children_of(extension)[0].data.hex())
        if children_of(extension)[0] == oid(_ALT_NAME):
            value = children_of(extension)[-1]
            holder = children_of(value)[0] if value.children is not None else read(value.data)
            names += [(name.tag, name.data) for name in children_of(holder)]
    return names, kinds, len(children_of(subject))


def assert_within_rule(leaf_der: bytes, uri: str) -> None:
    """A certificate of this identity, with nothing in it that RULE does not allow, nor anything else of a CSR."""
    names, kinds, parts_of_subject = certified(leaf_der)
    assert len(kinds) == len(set(kinds))
    assert set(kinds) <= _OF_A_LEAF
    assert parts_of_subject <= 1
    assert [data for tag, data in names if tag == _URI] == [uri.encode()]
    for tag, data in names:
        if tag == DNS:
            first, _, last = data.decode("ascii").lower().split(".")
            assert (first, last) == ("web", "internal")
        elif tag == _ADDRESS:
            assert any(ip_address(data) in ip_network(network) for network in ("10.0.0.0/8", "fd00::/8"))
        else:
            assert tag == _URI
