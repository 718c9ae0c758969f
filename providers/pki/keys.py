"""Private and public keys of CAs: make, load, describe, sign. Pure functions over `cryptography`.

Owns which key types and sizes exist for this CA and which hash goes with which key.
"""

import hashlib
from dataclasses import dataclass
from typing import TypeAlias

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

SigningKey: TypeAlias = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey
VerifyKey: TypeAlias = ec.EllipticCurvePublicKey | rsa.RSAPublicKey
Hash: TypeAlias = hashes.SHA256 | hashes.SHA384 | hashes.SHA512

# secp224r1 is left out on purpose: TLS 1.3 has no such group and verifiers refuse it (consul-compat 10.3).
_CURVES: dict[int, type[ec.EllipticCurve]] = {256: ec.SECP256R1, 384: ec.SECP384R1, 521: ec.SECP521R1}
_CURVE_BITS = {curve().name: bits for bits, curve in _CURVES.items()}
EC_BITS = tuple(_CURVES)
RSA_BITS = (2048, 4096)

# Below 2048 is too weak (NIST SP 800-131A); above 4096 a verification costs more than a handshake can bear.
RSA_MIN_BITS, RSA_MAX_BITS = 2048, 4096
# NIST SP 800-89 5.3.3 allows odd exponents from 65537; OpenSSL and Go refuse to work with very large ones.
RSA_MIN_EXPONENT, RSA_MAX_EXPONENT = 65537, 2**31 - 1

# A tuple that exists: this is asked for every CSR, and `A | B` would build a new union each time.
_EC_KEYS = (ec.EllipticCurvePublicKey, ec.EllipticCurvePrivateKey)

_PEM_TYPES = ("EC PRIVATE KEY", "RSA PRIVATE KEY", "PRIVATE KEY")


@dataclass(frozen=True, slots=True)
class KeyKind:
    """`type` is "ec" or "rsa"; `bits` is the curve's or the modulus' size."""

    type: str
    bits: int

    def __str__(self) -> str:
        return f"EC P-{self.bits}" if self.type == "ec" else f"RSA {self.bits}"


class KeyRefused(ValueError):
    """The key is of a type or size that this CA does not work with."""


def kind_of(key: object) -> KeyKind:
    """What a public or private key is.

    Raises: KeyRefused for everything but EC P-256, P-384, P-521 and RSA of 2048 to 4096 bits with a sane exponent.
    """
    if isinstance(key, _EC_KEYS):
        bits = _CURVE_BITS.get(key.curve.name)
        if bits is None:
            raise KeyRefused(f"EC curve {key.curve.name} is not allowed: must be P-256, P-384 or P-521")
        return KeyKind("ec", bits)
    if isinstance(key, rsa.RSAPrivateKey):
        key = key.public_key()
    if isinstance(key, rsa.RSAPublicKey):
        numbers = key.public_numbers()
        if not RSA_MIN_BITS <= key.key_size <= RSA_MAX_BITS:
            raise KeyRefused(
                f"RSA key of {key.key_size} bits is not allowed: must be {RSA_MIN_BITS} to {RSA_MAX_BITS} bits"
            )
        if not RSA_MIN_EXPONENT <= numbers.e <= RSA_MAX_EXPONENT or numbers.e % 2 == 0:
            raise KeyRefused(
                f"RSA public exponent is not allowed: must be odd, {RSA_MIN_EXPONENT} to {RSA_MAX_EXPONENT}"
            )
        if numbers.n % 2 == 0:
            raise KeyRefused("RSA modulus is not allowed: must be odd")
        return KeyKind("rsa", key.key_size)
    name = type(key).__name__.removesuffix("PublicKey").removesuffix("PrivateKey")
    raise KeyRefused(f"invalid key type: {name}: must be RSA or EC")


def generate(kind: KeyKind) -> SigningKey:
    if kind.type == "ec":
        return ec.generate_private_key(_CURVES[kind.bits]())
    return rsa.generate_private_key(public_exponent=65537, key_size=kind.bits)


def load_pem(pem: str) -> SigningKey:
    """Read an operator's key: "EC PRIVATE KEY", "RSA PRIVATE KEY" or unencrypted PKCS#8.

    Raises: KeyRefused; its text never repeats key material.
    """
    # `openssl ecparam -genkey` writes the curve as a block of its own before the key.
    _, begin, block = pem.rpartition("-----BEGIN ") if "EC PARAMETERS" in pem else pem.partition("-----BEGIN ")
    label = block.partition("-----")[0]
    if not label:
        raise KeyRefused("no PEM-encoded data found")
    if label not in _PEM_TYPES:
        raise KeyRefused(f"unknown PEM block type for signing key: {label[:40]}: must be one of {_PEM_TYPES}")
    try:
        key = serialization.load_pem_private_key((begin + block).encode(), password=None)
    except TypeError:
        raise KeyRefused("the key is encrypted: it must be given without a passphrase") from None
    except (ValueError, UnsupportedAlgorithm):  # UnicodeEncodeError is a ValueError
        raise KeyRefused("the key cannot be decoded, or its curve or algorithm is not supported") from None
    kind_of(key)
    assert isinstance(key, ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey)
    return key


def load_der(der: bytes) -> SigningKey:
    """Read a key that `to_der` wrote. Raises: KeyRefused, ValueError."""
    key = serialization.load_der_private_key(der, password=None)
    kind_of(key)
    assert isinstance(key, ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey)
    return key


def to_der(key: SigningKey) -> bytes:
    """Plain PKCS#8; the caller seals it."""
    return key.private_bytes(
        serialization.Encoding.DER, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def spki_der(key: VerifyKey) -> bytes:
    """The SubjectPublicKeyInfo in its one canonical encoding, whatever encoding the key arrived in."""
    return key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)


def key_id(key: VerifyKey) -> bytes:
    """The key identifier: raw SHA-256 over the SubjectPublicKeyInfo, 32 bytes (consul-compat 2)."""
    return key_id_of(spki_der(key))


def key_id_of(spki: bytes) -> bytes:
    """Of a key that has been encoded already: that takes a twentieth of the way of a CSR."""
    return hashlib.sha256(spki).digest()


def hash_for(kind: KeyKind) -> Hash:
    """The hash that fits a signing key (consul-compat 10.3; RFC 5480 section 4 for curves)."""
    match kind.type, kind.bits:
        case "ec", 384:
            return hashes.SHA384()
        case "ec", 521:
            return hashes.SHA512()
        case _:
            return hashes.SHA256()
