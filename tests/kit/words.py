"""What must not be in a text that a person gets to read: other people's exceptions, parsers and places in code."""

import re
from collections.abc import Mapping
from typing import Final

DEBUG: Final = re.compile(
    r"Traceback|File \"|\.py\b|\.rs\b|<module>|<class|<Certificate|ObjectIdentifier\(|object at 0x|0x[0-9a-f]{6,}"
    r"|ParseError|ShortData|'[a-z0-9_-]+' codec|codec can't|__\w+__|\[Errno|\[SSL|\[X509|_ssl\.c|asn1|NoneType"
    r"|\b[A-Z]\w*(?:Error|Exception)\b|cryptography\.|set_int_max"
)


def assert_plain(text: str) -> None:
    found = DEBUG.search(text)
    assert found is None, f"{found[0]!r} in {text[:500]!r}"


#: Contents that a file may have by mistake, whatever it should hold.
ODD_CONTENTS: Final[Mapping[str, bytes]] = {
    "empty": b"",
    "newlines": b"\n\n",
    "spaces": b"   ",
    "nul": b"\0",
    "nuls": b"\0" * 300,
    "byte-order mark": b"\xef\xbb\xbf",
    "UTF-16": "node_name = 'x'\n".encode("utf-16"),
    "UTF-16, big": "{}\n".encode("utf-16-be"),
    "Latin-1": b"n\xe9",
    "not ASCII": "é\n".encode(),
    "DER": bytes.fromhex("3082010a0282010100") + bytes(range(256)),
    "gzip": b"\x1f\x8b\x08\0\0\0\0\0\0\3",
    "half of a PEM": b"-----BEGIN CERTIFICATE-----\nMIIB",
    "PEM of nothing": b"-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----\n",
    "PEM of rubbish": b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
    "key of rubbish": b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n",
    "CSR of rubbish": b"-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n-----END CERTIFICATE REQUEST-----\n",
    "PEM that is not ASCII": "-----BEGIN CERTIFICATE-----\né\n-----END CERTIFICATE-----\n".encode(),
    "list": b"[]",
    "number": b"1",
    "long number": b"9" * 5000,
    "long number in TOML": b"a = " + b"9" * 5000,
    "long number in JSON": b'{"a": ' + b"9" * 5000 + b"}",
    "deep": b"[" * 20_000,
    "deep TOML": b"a = " + b"[" * 20_000,
    "half of an object": b'{"Provider":',
    "huge": b"a" * (2 << 20),
}
