"""The few DER forms (ITU-T X.690) that the hot path writes and reads by itself.

Building a leaf through `cryptography`'s builder takes longer than signing it, because every extension passes through
Python objects. Nearly all bytes of a leaf are the same for one issuer, so they are encoded once (providers/leaf.py) and
only the rest is written here. Property tests hold the result byte for byte against the builder's.
"""

import base64
import time

SEQUENCE = 0x30
BIT_STRING = 0x03
OCTET_STRING = 0x04
EXTENSIONS = 0xA3  # [3] of a TBSCertificate

# RFC 5280 4.1.2.5: UTCTime through the year 2049, GeneralizedTime from 2050.
_YEAR_2050 = 2_524_608_000
_PEM_LINE = 64


def tlv(tag: int, content: bytes) -> bytes:
    """Tag, shortest definite length, content."""
    size = len(content)
    if size < 0x80:
        return bytes((tag, size)) + content
    length = size.to_bytes((size.bit_length() + 7) // 8, "big")
    return bytes((tag, 0x80 | len(length))) + length + content


def integer(value: int) -> bytes:
    """A positive INTEGER: the extra bit keeps the sign clear."""
    return tlv(0x02, value.to_bytes(value.bit_length() // 8 + 1, "big"))


def moment(unix: int) -> bytes:
    """A Time of a certificate's validity."""
    year, month, day, hour, minute, second = time.gmtime(unix)[:6]
    rest = f"{month:02d}{day:02d}{hour:02d}{minute:02d}{second:02d}Z"
    if unix < _YEAR_2050:
        return tlv(0x17, f"{year % 100:02d}{rest}".encode("ascii"))
    return tlv(0x18, f"{year:04d}{rest}".encode("ascii"))


def bit_string(data: bytes) -> bytes:
    """A BIT STRING of whole bytes."""
    return tlv(BIT_STRING, b"\x00" + data)


def pem(label: str, data: bytes) -> str:
    """Newline-terminated PEM (RFC 7468)."""
    text = base64.b64encode(data).decode("ascii")
    lines = [text[start : start + _PEM_LINE] for start in range(0, len(text), _PEM_LINE)]
    return "\n".join((f"-----BEGIN {label}-----", *lines, f"-----END {label}-----", ""))


def subject_of(tbs_certificate: bytes) -> bytes:
    """The subject of a TBSCertificate, exactly as encoded.

    Go compares names byte for byte when it builds a chain, so a leaf must carry its issuer's name as it stands in
    the issuer's certificate, not as another encoder would write it.
    """
    _, position, _ = _header(tbs_certificate, 0)
    tag, _, end = _header(tbs_certificate, position)
    if tag == 0xA0:  # version; absent in a v1 certificate
        position = end
    for _ in ("serial", "signature", "issuer", "validity"):
        _, _, position = _header(tbs_certificate, position)
    _, _, end = _header(tbs_certificate, position)
    return tbs_certificate[position:end]


def _header(data: bytes, position: int) -> tuple[int, int, int]:
    """Tag, start of content, end of content of the element at `position`; the data was parsed as DER before."""
    tag, size = data[position], data[position + 1]
    start = position + 2
    if size & 0x80:
        start += size & 0x7F
        size = int.from_bytes(data[position + 2 : start], "big")
    return tag, start, start + size
