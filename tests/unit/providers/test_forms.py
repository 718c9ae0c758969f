"""The form of an operator's root: what some peer does not read at all is refused by the name of the field, also below
a backend's root, and what all of them read is taken. Which peer refuses what was tried with OpenSSL 3.0, Go 1.26,
Java 17 and rustls, with the root itself and with its cross-signed certificate.
"""

from datetime import UTC, datetime, timedelta
from typing import Any, Final

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from providers.api import CAChain
from providers.errors import ChainInvalid, ConfigInvalid
from providers.pki import verify
from tests.kit import handmade as made
from tests.kit import pki
from tests.kit.pki import CLUSTER_ID, NOW, ROOT_URI, TRUST_DOMAIN

_DAY: Final = timedelta(days=1)
_MOMENT: Final = datetime.fromtimestamp(NOW, UTC)
#: An identifier of which the last arc has 128 bits, as anybody may make one (ITU-T X.667).
_UUID: Final = "2.25.329800735698586629295641978511506172918"
_TLS: Final = (made.oid("1.3.6.1.5.5.7.3.1"), made.oid("1.3.6.1.5.5.7.3.2"))
_NAME_TAGS: Final = {"permitted": 0xA0, "excluded": 0xA1}


def _subject(tag: int, text: bytes, kind: str = made.COMMON_NAME) -> dict[str, Any]:
    return {"subject": made.name((made.COMMON_NAME, made.UTF8, b"Ours"), (kind, tag, text))}


def _with(dotted: str, der: bytes) -> dict[str, Any]:
    return {"extensions": (made.extension(dotted, der),)}


def _constraints(which: str, domain: bytes, more: bytes = b"") -> dict[str, Any]:
    tree = made.value(_NAME_TAGS[which], made.sequence(made.value(0x82, domain), more))
    return {"extensions": (made.extension("2.5.29.30", made.sequence(tree), critical=True),)}


def _policies(*dotted: str) -> dict[str, Any]:
    return _with("2.5.29.32", made.sequence(*(made.sequence(made.oid(one)) for one in dotted)))


def _netscape(der: bytes) -> dict[str, Any]:
    return _with("2.16.840.1.113730.1.1", der)


def _directory(tag: int, text: bytes) -> bytes:
    return made.value(0xA4, made.named(tag, text))


def _generalized(year: int) -> bytes:
    return made.value(0x18, b"%04d0101000000Z" % year)


def _wide(text: str) -> bytes:
    return text.encode("utf-32-be")


TAKEN: Final = {
    "as recommended": {},
    "PrintableString": _subject(0x13, b"Mesh 1"),
    "IA5String": _subject(0x16, b"a@b.test", "1.2.840.113549.1.9.1"),
    "BMPString": _subject(0x1E, "Größe".encode("utf-16-be")),
    "T61String": _subject(0x14, b"Mesh"),
    "NumericString of digits": _subject(0x12, b"12 34"),
    "the largest arc": _with("1.3.6.1.4.1.2147483647.1", b"\5\0"),
    "a UUID as policy": _policies(_UUID),
    "two policies": _policies("1.2.3.4", "1.2.3.5"),
    "path length 255": {"basic": made.integer(255)},
    "a key identifier of one byte": {"key_id": b"\1"},
    "a key identifier as long as SHA-512": {"key_id": b"\7" * 64},
    "a large extension": _with("1.2.3.4", b"x" * 19_000),
    "Netscape's TLS CA": _netscape(bytes.fromhex("03020204")),
    "Netscape's all": _netscape(bytes.fromhex("030200ff")),
    "a constraint in upper case": _constraints("permitted", b"CONSUL"),
    "a constraint on others": _constraints("excluded", b"example.com"),
    "a constraint on this cluster's CAs": _constraints("permitted", f"ca.{CLUSTER_ID[:8]}.consul".encode()),
    "a constraint with an underscore": _constraints("excluded", b"_srv.example-1.com"),
    "an end after 2050": {"not_after": _generalized(2051)},
    "no end": {"not_after": made.value(0x18, b"99991231235959Z")},
    "a beginning before 1950": {"not_before": _generalized(1900)},
    "a directory name": {"alternatives": (_directory(made.UTF8, b"v"),)},
    "a DNS name": {"alternatives": (made.value(0x82, b"ours.test"),)},
    "an authority by name and serial": {
        "authority": made.sequence(
            made.value(0xA1, _directory(made.UTF8, b"Our mesh root")), made.value(0x82, made.integer(4711)[2:])
        )
    },
}
REFUSED: Final = {
    "NumericString of letters": (_subject(0x12, b"abc"), "a NumericString in its subject (2.5.4.3)"),
    "VisibleString": (_subject(0x1A, b"Mesh"), "a VisibleString in its subject (2.5.4.3)"),
    "UniversalString": (_subject(0x1C, _wide("Mesh")), "a UniversalString in its subject (2.5.4.3)"),
    "BIT STRING": (_subject(3, b"\0abc", "2.5.4.45"), "a BitString in its subject (2.5.4.45)"),
    "UTCTime": (_subject(0x17, b"260101000000Z", "2.5.4.4"), "a UTCTime in its subject (2.5.4.4)"),
    "VisibleString in a directory name": (
        {"alternatives": (_directory(0x1A, b"v"),)},
        "a VisibleString in its subject alternative name (2.5.4.3)",
    ),
    "the same in a CRL's address": (
        _with(
            "2.5.29.31",
            made.sequence(made.sequence(made.value(0xA0, made.value(0xA0, _directory(0x1A, b"v"))))),
        ),
        "a VisibleString in its CRL distribution point (2.5.4.3)",
    ),
    "a UUID as extension": (_with(_UUID, b"\5\0"), f"identifier {_UUID} as extension"),
    "an arc of 32 bits": (_with("1.3.6.1.4.1.2147483648.1", b"\5\0"), "1.3.6.1.4.1.2147483648.1 as extension"),
    "a UUID as purpose": (
        _with("2.5.29.37", made.sequence(*_TLS, made.oid(_UUID))),
        f"identifier {_UUID} as extended key usage",
    ),
    "a UUID as attribute": (_subject(made.UTF8, b"v", _UUID), f"identifier {_UUID} as attribute type in its subject"),
    "a UUID as access method": (
        _with("1.3.6.1.5.5.7.1.1", made.sequence(made.sequence(made.oid(_UUID), made.value(0x86, b"http://x.test")))),
        f"identifier {_UUID} as access method",
    ),
    "proxy": (
        _with("1.3.6.1.5.5.7.1.14", made.sequence(made.sequence(made.oid("1.3.6.1.5.5.7.21.1")))),
        "has proxyCertInfo",
    ),
    "a broken proxy": (_with("1.3.6.1.5.5.7.1.14", b"xx"), "has proxyCertInfo"),
    "addresses": (
        _with("1.3.6.1.5.5.7.1.7", made.sequence(made.sequence(made.value(4, b"\0\1"), made.value(5)))),
        "IP address or AS number resources (RFC 3779)",
    ),
    "broken addresses": (_with("1.3.6.1.5.5.7.1.7", b"xx"), "IP address or AS number resources (RFC 3779)"),
    "broken AS numbers": (_with("1.3.6.1.5.5.7.1.8", b"xx"), "IP address or AS number resources (RFC 3779)"),
    "Netscape's, of another type": (_netscape(b"\xff\x04"), "a Netscape certificate type that is malformed"),
    "Netscape's, cut off": (_netscape(b"\x03\x02\x04"), "a Netscape certificate type that is malformed"),
    "Netscape's, with something after it": (_netscape(bytes.fromhex("0302020404")), "type that is malformed"),
    "Netscape's, with bits that are none": (_netscape(bytes.fromhex("03020304")), "type that is malformed"),
    "Netscape's, empty": (_netscape(b""), "a Netscape certificate type that is malformed"),
    "Netscape's server": (_netscape(bytes.fromhex("03020640")), "a Netscape certificate type without TLS CA"),
    "path length 256": ({"basic": made.integer(256)}, "has the path length 256: expected none, or at most 255"),
    "path length of 32 bits": ({"basic": made.integer(1 << 31)}, "has the path length 2147483648"),
    "two unique identifiers": (
        {"unique_ids": made.value(0x81, b"\0abc") + made.value(0x82, b"\0abc")},
        "has issuerUniqueID and subjectUniqueID",
    ),
    "a unique identifier": ({"unique_ids": made.value(0x82, b"\0abc")}, "has subjectUniqueID"),
    "names of CAs not permitted": (
        _constraints("permitted", b"example.com"),
        "has name constraints (permits example.com) that do not permit the names of the CAs that may come below it",
    ),
    "names of CAs excluded": (
        _constraints("excluded", b"consul"),
        "has name constraints (excludes consul) that do not permit the names of the CAs",
    ),
    "a minimum": (_constraints("permitted", b"x.test", made.value(0x80, b"\1")), "with a minimum or maximum"),
    "a maximum": (_constraints("excluded", b"x.test", made.value(0x81, b"\5")), "with a minimum or maximum"),
    "a policy twice": (_policies("1.2.3.4", "1.2.3.5", "1.2.3.4"), "has the certificate policy 1.2.3.4 twice"),
    "a DNS name that is not ASCII": (
        {"alternatives": (made.value(0x82, "é.test".encode()),)},
        "has the alternative name 'é.test', which is not ASCII",
    ),
    "an early end": ({"not_after": _generalized(2049)}, "has the notAfter 20490101000000Z as GeneralizedTime"),
    "a late beginning": ({"not_before": _generalized(2026)}, "has the notBefore 20260101000000Z as GeneralizedTime"),
    "a long key identifier": (
        {"key_id": b"\1" * 65},
        "has a subject key identifier of 65 bytes (01:01:01:01:01:01:01:01..): expected at most 64",
    ),
    "a very long one": ({"key_id": b"\1" * 3000}, "has a subject key identifier of 3000 bytes"),
    "an extension without end": (_with("1.2.3.4", b"x" * 120_000), "bytes: expected at most 20480"),
    "a name without end": (_subject(made.UTF8, b"x" * 10_200), "bytes: expected at most 20480"),
    "an authority by another's name and serial": (
        {"authority": made.sequence(made.value(0xA1, _directory(made.UTF8, b"Other")), made.value(0x82, b"\5"))},
        "has an authority key identifier with the name or serial of another certificate",
    ),
}
for _which in _NAME_TAGS:
    for _domain in ("exa mple.com", "a..b", "https://x.test", "a" * 64 + ".com", ".".join(["a" * 63] * 4), "x\n.com"):
        REFUSED[f"{_which} {_domain!r}"] = (
            _constraints(_which, _domain.encode()),
            f"has the name constraint {_domain[:100]!r}, which is no domain",
        )


def _root(fields: dict[str, Any]) -> tuple[str, ec.EllipticCurvePrivateKey]:
    private = pki.key()
    assert isinstance(private, ec.EllipticCurvePrivateKey)
    validity = {"not_before": made.utc(_MOMENT - _DAY), "not_after": made.utc(_MOMENT + 365 * _DAY)}
    return made.root(private, ROOT_URI, **{**validity, **fields}), private


@pytest.mark.parametrize("kind", TAKEN)
def test_root_that_all_peers_read_is_taken(kind: str) -> None:
    root_pem, private = _root(TAKEN[kind])
    verify.check_supplied_root(root_pem, private, cluster_id=CLUSTER_ID, now=NOW)
    verify.check_for_peers(CAChain(root_pem, root_pem))
    verify.verify_ca(CAChain(root_pem, root_pem), trust_domain=TRUST_DOMAIN, now=NOW)


@pytest.mark.parametrize("kind", REFUSED)
def test_root_that_some_peer_does_not_read_is_refused_by_the_name_of_the_field(kind: str) -> None:
    fields, text = REFUSED[kind]
    root_pem, private = _root(fields)
    with pytest.raises(ConfigInvalid) as caught:
        verify.check_supplied_root(root_pem, private, cluster_id=CLUSTER_ID, now=NOW)
    assert text in str(caught.value)
    assert len(str(caught.value)) < 1000
    above, _ = _root({})
    for chain in (CAChain(root_pem, root_pem), CAChain(above, root_pem, (root_pem,))):
        with pytest.raises(ChainInvalid) as refused:
            verify.check_for_peers(chain)
        assert text in str(refused.value)
