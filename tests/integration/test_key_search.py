"""The search for private keys finds them in every form they are written in, and does not take other bytes for them."""

import base64
import json

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization

from providers.pki import keys
from tests.integration.key_search import KeySearch
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
