"""Public keys that bearer tokens are signed with: where they are read from, and what they verify.

An algorithm belongs to a key before any token is seen (RFC 8725 3.1): a token's header chooses among what its method
and the key allow, and nothing else. So `none` is never a choice, nor is an HMAC, whose secret would be the public key.
"""

import base64
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.serialization import load_pem_public_key

PublicKey = rsa.RSAPublicKey | ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey

MAX_KEYS: Final = 64
MAX_KID: Final = 256
MIN_RSA_BITS: Final = 2048
MAX_RSA_BITS: Final = 8192
#: What verifying costs grows with the exponent; everybody's is 65537.
_MAX_EXPONENT: Final = (1 << 32) - 1
MAX_PEM: Final = 16 << 10

_HASHES: Final[Mapping[str, hashes.HashAlgorithm]] = {
    "256": hashes.SHA256(),
    "384": hashes.SHA384(),
    "512": hashes.SHA512(),
}
_RSA: Final = frozenset(f"{family}{size}" for family in ("RS", "PS") for size in _HASHES)
#: Each curve has one algorithm (RFC 7518 3.4), and the name that a JWK gives it (6.2.1.1).
_CURVES: Final[Mapping[str, tuple[str, ec.EllipticCurve]]] = {
    "P-256": ("ES256", ec.SECP256R1()),
    "P-384": ("ES384", ec.SECP384R1()),
    "P-521": ("ES512", ec.SECP521R1()),
}
_OF_CURVE: Final = {curve.name: algorithm for algorithm, curve in _CURVES.values()}
EDDSA: Final = "EdDSA"
ALGORITHMS: Final = _RSA | frozenset(_OF_CURVE.values()) | {EDDSA}

_BASE64URL: Final = re.compile(r"[A-Za-z0-9_-]*")
NO_PUBLIC_KEY: Final = "data does not contain any valid RSA, ECDSA, or ED25519 public keys"


class KeyRefused(ValueError):
    """It is no public key, or none that may verify anything here."""


@dataclass(frozen=True, slots=True)
class VerifyingKey:
    """`kid` is what a key set calls it; keys of a list have none. `algorithms`: what it may be used with."""

    public: PublicKey
    algorithms: frozenset[str]
    kid: str | None = None

    def verifies(self, algorithm: str, signed: bytes, signature: bytes) -> bool:
        """Whether this key has signed it, with this algorithm."""
        if algorithm not in self.algorithms:
            return False
        try:
            _verify(self.public, algorithm, signed, signature)
        except (InvalidSignature, ValueError):
            return False
        return True


def decoded(text: object, most: int) -> bytes:
    """Bytes of base64url without padding (RFC 7515 2), of at most `most` characters. There is one text for them: bits
    at its end that count for nothing must be 0 (RFC 4648 3.5). Raises: KeyRefused.
    """
    if not isinstance(text, str) or len(text) > most or not _BASE64URL.fullmatch(text) or len(text) % 4 == 1:
        raise KeyRefused("it is not base64url, or too long")
    data = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    if base64.urlsafe_b64encode(data).rstrip(b"=") != text.encode("ascii"):
        raise KeyRefused("it is not base64url as it is written")
    return data


def pem_key(pem: str) -> VerifyingKey:
    """Of a PEM block with a public key, or a certificate. Raises: KeyRefused, with Consul's text."""
    if len(pem) > MAX_PEM or not pem.isascii() or pem.count("-----BEGIN ") != 1 or "PRIVATE KEY" in pem:
        raise KeyRefused(NO_PUBLIC_KEY)
    try:
        if "-----BEGIN CERTIFICATE-----" in pem:
            public: object = x509.load_pem_x509_certificate(pem.encode()).public_key()
        else:
            public = load_pem_public_key(pem.encode())
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise KeyRefused(NO_PUBLIC_KEY) from None
    return _verifying(public, None)


def key_of(certificate: x509.Certificate) -> VerifyingKey:
    """Raises: KeyRefused."""
    try:
        return _verifying(certificate.public_key(), None)
    except (ValueError, UnsupportedAlgorithm):  # KeyRefused is a ValueError, too
        raise KeyRefused("its key is none that may verify anything here") from None


def key_set(document: Mapping[str, Any]) -> tuple[VerifyingKey, ...]:
    """Of a JWK set (RFC 7517 5), without those that cannot verify tokens here; a set may hold keys for other uses, and
    of kinds still to come. Raises: KeyRefused when there are none, or too many.
    """
    found = document.get("keys")
    if not isinstance(found, list):
        raise KeyRefused('it has no list "keys"')
    if len(found) > MAX_KEYS:
        raise KeyRefused(f"it has {len(found)} keys: at most {MAX_KEYS} are allowed")
    keys = []
    for jwk in found:
        try:
            keys.append(_jwk(jwk))
        except KeyRefused:
            continue
    if not keys:
        raise KeyRefused("none of its keys can verify a token")
    return tuple(keys)


def _jwk(jwk: object) -> VerifyingKey:
    if not isinstance(jwk, dict):
        raise KeyRefused("it is no object")
    operations = jwk.get("key_ops", ["verify"])
    if jwk.get("use", "sig") != "sig" or not isinstance(operations, list) or "verify" not in operations:
        raise KeyRefused("it is for another use")
    kid = jwk.get("kid")
    if kid is not None and (not isinstance(kid, str) or len(kid) > MAX_KID):
        raise KeyRefused("its kid is no text, or too long")
    reader = _KINDS.get(kind) if isinstance(kind := jwk.get("kty"), str) else None
    if reader is None:
        raise KeyRefused("its kty is not known")
    try:
        key = _verifying(reader(jwk), kid)
    except (ValueError, UnsupportedAlgorithm):  # KeyRefused is a ValueError, too
        raise KeyRefused("it is not well formed") from None
    algorithm = jwk.get("alg")
    if algorithm is None:
        return key
    if not isinstance(algorithm, str) or algorithm not in key.algorithms:
        raise KeyRefused("its alg is none of its kind")
    return VerifyingKey(key.public, frozenset({algorithm}), kid)


def _rsa_jwk(jwk: Mapping[str, Any]) -> PublicKey:
    modulus = int.from_bytes(decoded(jwk.get("n"), 2 * MAX_RSA_BITS // 8), "big")
    exponent = int.from_bytes(decoded(jwk.get("e"), 16), "big")
    _check_rsa(modulus.bit_length(), exponent)
    return rsa.RSAPublicNumbers(exponent, modulus).public_key()


def _ec_jwk(jwk: Mapping[str, Any]) -> PublicKey:
    name = jwk.get("crv")
    if not isinstance(name, str) or name not in _CURVES:
        raise KeyRefused("its curve is not known")
    curve = _CURVES[name][1]
    x, y = (decoded(jwk.get(part), 128) for part in ("x", "y"))
    if not len(x) == len(y) == _width(curve):  # RFC 7518 6.2.1.2
        raise KeyRefused("its point does not have the length of its curve")
    numbers = ec.EllipticCurvePublicNumbers(int.from_bytes(x, "big"), int.from_bytes(y, "big"), curve)
    return numbers.public_key()  # refuses a point that is not on the curve


def _okp_jwk(jwk: Mapping[str, Any]) -> PublicKey:
    if jwk.get("crv") != "Ed25519":
        raise KeyRefused("its curve is not known")
    return ed25519.Ed25519PublicKey.from_public_bytes(decoded(jwk.get("x"), 64))


_KINDS: Final[Mapping[str, Callable[[Mapping[str, Any]], PublicKey]]] = {
    "RSA": _rsa_jwk,
    "EC": _ec_jwk,
    "OKP": _okp_jwk,
}


def _verifying(public: object, kid: str | None) -> VerifyingKey:
    match public:
        case rsa.RSAPublicKey():
            _check_rsa(public.key_size, public.public_numbers().e)
            return VerifyingKey(public, _RSA, kid)
        case ec.EllipticCurvePublicKey() if public.curve.name in _OF_CURVE:
            return VerifyingKey(public, frozenset({_OF_CURVE[public.curve.name]}), kid)
        case ed25519.Ed25519PublicKey():
            return VerifyingKey(public, frozenset({EDDSA}), kid)
        case _:
            raise KeyRefused(NO_PUBLIC_KEY)


def _check_rsa(bits: int, exponent: int) -> None:
    if not MIN_RSA_BITS <= bits <= MAX_RSA_BITS:
        raise KeyRefused(f"RSA key of {bits} bits: must have from {MIN_RSA_BITS} to {MAX_RSA_BITS}")
    if exponent > _MAX_EXPONENT:
        raise KeyRefused(f"RSA key with an exponent of {exponent.bit_length()} bits: must have at most 32")


def _width(curve: ec.EllipticCurve) -> int:
    return (curve.key_size + 7) // 8


def _verify(public: PublicKey, algorithm: str, signed: bytes, signature: bytes) -> None:
    """Raises: InvalidSignature, ValueError. That the algorithm fits the key has been checked."""
    match public:
        case rsa.RSAPublicKey():
            hashed = _HASHES[algorithm[2:]]
            if algorithm.startswith("PS"):  # the salt is as long as the hash (RFC 7518 3.5)
                public.verify(signature, signed, padding.PSS(padding.MGF1(hashed), padding.PSS.DIGEST_LENGTH), hashed)
            else:
                public.verify(signature, signed, padding.PKCS1v15(), hashed)
        case ec.EllipticCurvePublicKey():
            width = _width(public.curve)
            if len(signature) != 2 * width:  # both numbers at full length, not DER (RFC 7518 3.4)
                raise InvalidSignature
            r, s = (int.from_bytes(half, "big") for half in (signature[:width], signature[width:]))
            public.verify(encode_dss_signature(r, s), signed, ec.ECDSA(_HASHES[algorithm[2:]]))
        case ed25519.Ed25519PublicKey():
            public.verify(signature, signed)
