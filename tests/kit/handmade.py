"""Roots made octet by octet: what `cryptography` and OpenSSL do not make, and somebody's tool may."""

from datetime import datetime
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding

from tests.kit import pki

COMMON_NAME: Final = "2.5.4.3"
UTF8: Final = 0x0C
_ECDSA_SHA256: Final = "1.2.840.10045.4.3.2"


def value(tag: int, *contents: bytes) -> bytes:
    content = b"".join(contents)
    size = len(content)
    octets = size.to_bytes((size.bit_length() + 7) // 8, "big")
    return bytes([tag]) + (bytes([size]) if size < 128 else bytes([0x80 | len(octets)]) + octets) + content


def sequence(*contents: bytes) -> bytes:
    return value(0x30, *contents)


def integer(number: int) -> bytes:
    return value(2, number.to_bytes(number.bit_length() // 8 + 1, "big", signed=True))


def oid(dotted: str) -> bytes:
    first, second, *others = map(int, dotted.split("."))
    octets = b""
    for arc in (40 * first + second, *others):
        digits = [arc & 0x7F]
        while arc := arc >> 7:
            digits.append(0x80 | arc & 0x7F)
        octets += bytes(reversed(digits))
    return value(6, octets)


def extension(dotted: str, der: bytes, *, critical: bool = False) -> bytes:
    return sequence(oid(dotted), value(1, b"\xff") if critical else b"", value(4, der))


def name(*attributes: tuple[str, int, bytes]) -> bytes:
    return sequence(*(value(0x31, sequence(oid(kind), value(tag, text))) for kind, tag, text in attributes))


def named(tag: int, text: bytes) -> bytes:
    return name((COMMON_NAME, tag, text))


def utc(moment: datetime) -> bytes:
    return value(0x17, moment.strftime("%y%m%d%H%M%SZ").encode())


def root(
    private: ec.EllipticCurvePrivateKey,
    uri: str,
    *,
    extensions: tuple[bytes, ...] = (),
    subject: bytes = b"",
    not_before: bytes,
    not_after: bytes,
    basic: bytes = b"",
    key_id: bytes = b"",
    authority: bytes = b"",
    alternatives: tuple[bytes, ...] = (),
    unique_ids: bytes = b"",
) -> str:
    """PEM, self-signed. What is left out is as peers like it."""
    subject = subject or named(UTF8, b"Our mesh root")
    key_id = key_id or pki.key_id(private.public_key())
    algorithm = sequence(oid(_ECDSA_SHA256))
    told = sequence(
        extension("2.5.29.19", sequence(value(1, b"\xff"), basic), critical=True),
        extension("2.5.29.15", value(3, b"\x01\x86"), critical=True),
        extension("2.5.29.14", value(4, key_id)),
        extension("2.5.29.35", authority or sequence(value(0x80, key_id))),
        extension("2.5.29.17", sequence(value(0x86, uri.encode()), *alternatives)),
        *extensions,
    )
    body = sequence(
        *(value(0xA0, integer(2)), integer(4711), algorithm, subject, sequence(not_before, not_after), subject),
        *(pki.spki(private.public_key()), unique_ids, value(0xA3, told)),
    )
    signature = private.sign(body, ec.ECDSA(hashes.SHA256()))
    der = sequence(body, algorithm, value(3, b"\0", signature))
    return x509.load_der_x509_certificate(der).public_bytes(Encoding.PEM).decode()
