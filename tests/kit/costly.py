"""Keys, requests and certificates that are made to cost whoever reads them: octet by octet, signed by nobody."""

import base64
import secrets
from datetime import UTC, datetime, timedelta
from typing import Final

from tests.kit.handmade import UTF8, extension, integer, named, oid, sequence, utc, value

ECDSA_SHA256: Final = "1.2.840.10045.4.3.2"
RSA_SHA256: Final = "1.2.840.113549.1.1.11"
_RSA: Final = "1.2.840.113549.1.1.1"
_EC: Final = "1.2.840.10045.2.1"
_PRIME_FIELD: Final = "1.2.840.10045.1.1"
_EXTENSION_REQUEST: Final = "1.2.840.113549.1.9.14"
_SAN: Final = "2.5.29.17"
_NO_SIGNATURE: Final = b"\1" * 64
_P256: Final = {
    "p": 2**256 - 2**224 + 2**192 + 2**96 - 1,
    "b": 0x5AC635D8AA3A93E7B3EBBD55769886BC651D06B0CC53B0F63BCE3C3E27D2604B,
    "x": 0x6B17D1F2E12C4247F8BCE6E563A440F277037D812DEB33A0F4A13945D898C296,
    "y": 0x4FE342E2FE1A7F9B8EE7EB4A7C0F9E162BCE33576B315ECECBB6406837BF51F5,
    "order": 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551,
}


def odd(bits: int) -> int:
    """Of so many bits, at random."""
    return secrets.randbits(bits) | 1 << (bits - 1) | 1


def _bits(data: bytes) -> bytes:
    return value(3, b"\0" + data)


def rsa_key(modulus: int, exponent: int = 65537) -> bytes:
    """A SubjectPublicKeyInfo, as the others."""
    return sequence(sequence(oid(_RSA), value(5)), _bits(sequence(integer(modulus), integer(exponent))))


def explicit_key(prime: int, b: int, point: bytes, order: int, size: int) -> bytes:
    """A curve given by its parameters in place of its name."""
    curve = sequence(value(4, (prime - 3).to_bytes(size, "big")), value(4, b.to_bytes(size, "big")))
    field = sequence(oid(_PRIME_FIELD), integer(prime))
    parameters = sequence(integer(1), field, curve, value(4, point), integer(order), integer(1))
    return sequence(sequence(oid(_EC), parameters), _bits(point))


def explicit_p256() -> bytes:
    """The parameters of P-256, and its generator as the key."""
    point = b"\4" + _P256["x"].to_bytes(32, "big") + _P256["y"].to_bytes(32, "big")
    return explicit_key(_P256["p"], _P256["b"], point, _P256["order"], 32)


def explicit_nonsense(bits: int) -> bytes:
    size = (bits + 7) // 8
    return explicit_key(odd(bits), odd(bits - 1), b"\4" + secrets.token_bytes(2 * size), odd(bits - 1), size)


def request(key: bytes, uri: str, *others: bytes, signature: bytes = _NO_SIGNATURE, algorithm: str = RSA_SHA256) -> str:
    """A CSR, PEM; `others` are further SANs."""
    san = extension(_SAN, sequence(value(0x86, uri.encode()), *others))
    attributes = value(0xA0, sequence(oid(_EXTENSION_REQUEST), value(0x31, sequence(san))))
    content = sequence(integer(0), named(UTF8, b"x"), key, attributes)
    return _pem("CERTIFICATE REQUEST", sequence(content, sequence(oid(algorithm)), _bits(signature)))


def certificate(subject: str, issuer: str, key: bytes) -> str:
    """Of a CA, PEM, valid today."""
    today = datetime.now(UTC)
    basic = extension("2.5.29.19", sequence(value(1, b"\xff")), critical=True)
    content = sequence(
        value(0xA0, integer(2)),
        integer(secrets.randbits(100)),
        sequence(oid(ECDSA_SHA256)),
        named(UTF8, issuer.encode()),
        sequence(utc(today - timedelta(days=1)), utc(today + timedelta(days=1))),
        named(UTF8, subject.encode()),
        key,
        value(0xA3, sequence(basic)),
    )
    return _pem("CERTIFICATE", sequence(content, sequence(oid(ECDSA_SHA256)), _bits(_NO_SIGNATURE)))


def nested(depth: int) -> bytes:
    found = b""
    for _ in range(depth):
        found = sequence(found)
    return found


def _pem(label: str, der: bytes) -> str:
    return f"-----BEGIN {label}-----\n{base64.encodebytes(der).decode()}-----END {label}-----\n"
