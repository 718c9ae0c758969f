"""Which keys this CA works with, in which forms, and with which hash."""

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed25519, rsa

from providers.pki import keys
from providers.pki.keys import KeyKind, KeyRefused
from tests.kit import pki

KINDS = [KeyKind(*kind) for kind in pki.LEAF_KINDS]


@pytest.mark.parametrize("kind", [KeyKind("ec", 256), KeyKind("ec", 384), KeyKind("ec", 521), KeyKind("rsa", 2048)])
def test_generated_key_is_of_the_kind_asked_for_and_survives_storage(kind: KeyKind) -> None:
    key = keys.generate(kind)
    assert keys.kind_of(key) == keys.kind_of(key.public_key()) == kind
    again = keys.load_der(keys.to_der(key))
    assert keys.spki_der(again.public_key()) == keys.spki_der(key.public_key())


@pytest.mark.parametrize("form", ["PKCS8", "traditional"])
@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_operators_key_loads_in_every_usual_form(kind: KeyKind, form: str) -> None:
    private = pki.key(kind.type, kind.bits)
    text = pki.key_pem(private, form)
    for variant in (text, f"\n{text}\n", text.replace("\n", "\r\n"), f"a comment\n{text}"):
        loaded = keys.load_pem(variant)
        assert keys.key_id(loaded.public_key()) == pki.key_id(private.public_key())


def test_key_behind_its_curve_parameters_loads() -> None:
    """The file that `openssl ecparam -name prime256v1 -genkey` writes."""
    parameters = "-----BEGIN EC PARAMETERS-----\nBggqhkjOPQMBBw==\n-----END EC PARAMETERS-----\n"
    loaded = keys.load_pem(parameters + pki.key_pem(pki.key(), "traditional"))
    assert keys.kind_of(loaded) == KeyKind("ec", 256)


def _pem(private: object, encryption: serialization.KeySerializationEncryption | None = None) -> str:
    data = private.private_bytes(  # type: ignore[attr-defined]  # any kind of private key
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        encryption or serialization.NoEncryption(),
    )
    return str(data.decode())


@pytest.mark.parametrize(
    ("pem", "text"),
    [
        ("", "no PEM-encoded data found"),
        ("secret-material", "no PEM-encoded data found"),
        (pki.pem(pki.root_certificate(pki.key())), "unknown PEM block type for signing key: CERTIFICATE"),
        (_pem(pki.key(), serialization.BestAvailableEncryption(b"x")), "unknown PEM block type for signing key: ENC"),
        (_pem(ec.generate_private_key(ec.SECP224R1())), "EC curve secp224r1 is not allowed: must be P-256, P-384 or"),
        (_pem(ec.generate_private_key(ec.SECP256K1())), "EC curve secp256k1 is not allowed"),
        (_pem(rsa.generate_private_key(65537, 1024)), "RSA key of 1024 bits is not allowed: must be 2048 to 4096"),
        (_pem(rsa.generate_private_key(3, 2048)), "RSA public exponent is not allowed"),
        (_pem(ed25519.Ed25519PrivateKey.generate()), "invalid key type: Ed25519: must be RSA or EC"),
        ("-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n", "the key cannot be decoded"),
        ("-----BEGIN PRIVATE KEY-----\n\udcff\n-----END PRIVATE KEY-----\n", "the key cannot be decoded"),
    ],
)
def test_unusable_key_is_refused_with_the_reason(pem: str, text: str) -> None:
    with pytest.raises(KeyRefused, match=text) as caught:
        keys.load_pem(pem)
    assert "secret" not in str(caught.value)


def test_encrypted_traditional_key_is_refused() -> None:
    data = pki.key().private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.TraditionalOpenSSL,
        serialization.BestAvailableEncryption(b"x"),
    )
    with pytest.raises(KeyRefused, match="the key is encrypted"):
        keys.load_pem(data.decode())


def test_dsa_is_refused_by_name() -> None:
    with pytest.raises(KeyRefused, match="invalid key type: DSA"):
        keys.kind_of(dsa.generate_private_key(2048).public_key())


def test_even_modulus_is_refused() -> None:
    """It has the factor 2, which `cryptography` does not look at."""
    private = pki.key("rsa", 2048)
    assert isinstance(private, rsa.RSAPrivateKey)
    even = rsa.RSAPublicNumbers(65537, private.public_key().public_numbers().n - 1).public_key()
    with pytest.raises(KeyRefused, match="RSA modulus is not allowed: must be odd"):
        keys.kind_of(even)


def test_hash_fits_the_key() -> None:
    """The larger the curve, the longer the hash (consul-compat 10.3)."""
    assert {str(kind): keys.hash_for(kind).name for kind in KINDS} == {
        "EC P-256": "sha256",
        "EC P-384": "sha384",
        "EC P-521": "sha512",
        "RSA 2048": "sha256",
        "RSA 3072": "sha256",
    }
