"""The search for private keys and other secrets finds them in every form they are written in, and does not take other
bytes for them.
"""

import base64
import json
import urllib.parse
import uuid

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization

from providers.pki import keys
from tests.integration.key_search import KeySearch, SecretSearch
from tests.kit import pki

KINDS = [("ec", 256), ("ec", 384), ("ec", 521), ("rsa", 2048)]


def written(key: pki.PrivateKey) -> dict[str, bytes]:
    """One key in many forms."""
    der, old_der = keys.to_der(key), b""
    pem, old_pem = pki.key_pem(key), pki.key_pem(key, "traditional")
    old_der = key.private_bytes(
        serialization.Encoding.DER, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()
    )
    number = next(iter(KeySearch.of("", key).numbers))[0]
    return {
        "PKCS8": der,
        "traditional": old_der,
        "inside other bytes": b"x" * 1001 + der + b"y" * 77,
        "PEM": pem.encode(),
        "traditional PEM": old_pem.encode(),
        "PEM in JSON": json.dumps({"PrivateKey": pem}).encode(),
        "PEM with CRLF": old_pem.replace("\n", "\r\n").encode(),
        "base64 of PEM bytes in one line": base64.b64encode(b"ab" + der),
        "base64 for URLs": base64.urlsafe_b64encode(b"a" + old_der),
        "hex": der.hex().encode(),
        "HEX with colons": old_der.hex(":").upper().encode(),
        "decimal": f"d = {number}".encode(),
        "little-endian": number.to_bytes(600, "little"),
    }


@pytest.mark.parametrize("kind", KINDS, ids=str)
@pytest.mark.parametrize("form", list(written(pki.key())))
def test_key_is_found(kind: tuple[str, int], form: str) -> None:
    key = pki.key(*kind)
    planted = written(key)[form]
    assert KeySearch.of("key", key).found_in(planted)
    assert not KeySearch.of("other key", pki.key(*kind, number=1)).found_in(planted)


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_what_is_public_is_not_taken_for_the_key(kind: tuple[str, int]) -> None:
    key = pki.key(*kind)
    root: x509.Certificate = pki.root_certificate(key)
    public = [
        pki.pem(root).encode(),
        root.public_bytes(serialization.Encoding.DER),
        pki.spki(key.public_key()),
        pki.csr_pem(key).encode(),
        b"",
    ]
    assert not [found for data in public for found in KeySearch.of("key", key).found_in(data)]


SECRET_ID = "5ec7e7d0-1a2b-4c3d-8e4f-a0b1c2d3e4f5"
OTHER_ID = "5ec7e7d0-1a2b-4c3e-8e4f-a0b1c2d3e4f5"
BEARER = "eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJ3ZWIifQ.c2lnbmF0dXJl-_c2lnbmF0dXJl"
KEY = bytes(range(7, 39))


def spelt(data: bytes, form: str) -> bytes:
    """Every byte escaped."""
    return b"".join(form.format(byte).encode() for byte in data)


def encoded(data: bytes) -> dict[str, bytes]:
    """What bytes may be written as, whatever they are."""
    return {
        "as they are": b"x" * 99 + data + b"y" * 7,
        "base64": base64.b64encode(b"token=" + data + b" and more"),
        "base64, shifted by one": base64.b64encode(b"token==" + data),
        "base64, shifted by two": base64.b64encode(b"token===" + data),
        "base64 alone": base64.b64encode(data),
        "base64 for URLs, without padding": base64.urlsafe_b64encode(data).rstrip(b"="),
        "base64 in lines": base64.encodebytes(data * 3),
        "base64 in JSON": base64.b64encode(data).replace(b"/", b"\\/"),
        "hex": data.hex().encode(),
        "HEX with colons": data.hex(":").upper().encode(),
        "every byte percent-encoded": spelt(data, "%{:02X}"),
        "every byte escaped for JSON": spelt(data, "\\u{:04x}"),
        "every byte escaped for JSON in JSON": spelt(data, "\\\\u{:04X}"),
        "every byte escaped for Python": spelt(data, "\\x{:02x}"),
    }


def spellings(text: str) -> dict[str, bytes]:
    number = uuid.UUID(text)
    numbers = {
        f"{name}: {form}": written
        for name, data in (("number", number.bytes), ("little-endian number", number.bytes_le))
        for form, written in encoded(data).items()
    }
    return numbers | {
        "upper case": text.upper().encode(),
        "without dashes": number.hex.encode(),
        "in braces": f"{{{text}}}".encode(),
        "as a URN": number.urn.encode(),
        "in a URL": b"/v1/acl/tokens?token=" + urllib.parse.quote(text, safe="").encode(),
        "in JSON": json.dumps({"SecretID": text}).encode(),
        "in a repr": repr({"SecretID": text}).encode(),
        "dashes percent-encoded": text.replace("-", "%2D").encode(),
        "one character escaped": text.replace("7", "\\u0037", 1).encode(),
        "UTF-16": text.encode("utf-16"),
    }


@pytest.mark.parametrize("form", [*encoded(b""), *spellings(SECRET_ID)])
def test_secret_id_is_found(form: str) -> None:
    search, other = SecretSearch.of_text("id", SECRET_ID), SecretSearch.of_text("other", OTHER_ID)
    planted = (encoded(SECRET_ID.encode()) | spellings(SECRET_ID))[form]
    assert search.found_in(planted)
    assert not other.found_in(planted)


@pytest.mark.parametrize("form", list(encoded(b"")))
def test_bearer_token_and_key_are_found(form: str) -> None:
    searches = SecretSearch.of_text("bearer", BEARER), SecretSearch.of_key("key", KEY)
    for search, data in zip(searches, (BEARER.encode(), KEY), strict=True):
        planted = encoded(data)[form]
        assert search.found_in(planted)
        assert not [found for found in searches if found is not search and found.found_in(planted)]


def test_key_is_found_from_behind() -> None:
    assert SecretSearch.of_key("key", KEY).found_in(KEY[::-1])


def test_what_is_no_secret_is_not_taken_for_one() -> None:
    """The AccessorID beside it, the hash that is kept, other tokens."""
    data = json.dumps({"AccessorID": OTHER_ID, "Hash": "aGFzaA=="}).encode() + bytes(1000) + BEARER[:40].encode()
    searches = SecretSearch.of_text("id", SECRET_ID), SecretSearch.of_text("bearer", BEARER)
    assert not [search for search in (*searches, SecretSearch.of_key("key", KEY)) if search.found_in(data)]
