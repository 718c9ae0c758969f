"""Bearer tokens and key sets, made with `cryptography` alone: what the code under test has no part in."""

import base64
import functools
import json
from collections.abc import Mapping, Sequence
from typing import Any

from cryptography.hazmat.primitives import hashes, hmac
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from tests.kit import pki

SigningKey = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey
HASHES: Mapping[str, hashes.HashAlgorithm] = {
    "256": hashes.SHA256(),
    "384": hashes.SHA384(),
    "512": hashes.SHA512(),
}
CURVES = {"ES256": 256, "ES384": 384, "ES512": 521}
CURVE_NAMES = {256: "P-256", 384: "P-384", 521: "P-521"}
ALGORITHMS = ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"]


@functools.cache
def signer(algorithm: str = "RS256", number: int = 0) -> SigningKey:
    """A key for this algorithm; the same arguments give the same one."""
    if algorithm == "EdDSA":
        return ed25519.Ed25519PrivateKey.generate()
    return pki.key("ec", CURVES[algorithm], number) if algorithm in CURVES else pki.key("rsa", 2048, number)


def b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def public_pem(key: SigningKey) -> str:
    return key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()


def signature(key: SigningKey, algorithm: str, data: bytes) -> bytes:
    if isinstance(key, ed25519.Ed25519PrivateKey):
        return key.sign(data)
    hashed = HASHES[algorithm[2:]]
    if isinstance(key, ec.EllipticCurvePrivateKey):
        width = (key.curve.key_size + 7) // 8
        return b"".join(part.to_bytes(width, "big") for part in decode_dss_signature(key.sign(data, ec.ECDSA(hashed))))
    if algorithm.startswith("PS"):
        return key.sign(data, padding.PSS(padding.MGF1(hashed), padding.PSS.DIGEST_LENGTH), hashed)
    return key.sign(data, padding.PKCS1v15(), hashed)


def token_of(
    claims: Mapping[str, Any] | bytes,
    *,
    key: SigningKey | None = None,
    algorithm: str = "RS256",
    header: Mapping[str, Any] | bytes | None = None,
) -> str:
    """Signed rightly, whatever its header says: a header in bytes is taken as it is, one in fields adds to alg."""
    payload = claims if isinstance(claims, bytes) else json.dumps(claims).encode()
    top = header if isinstance(header, bytes) else json.dumps({"alg": algorithm, **(header or {})}).encode()
    signed = f"{b64(top)}.{b64(payload)}"
    return f"{signed}.{b64(signature(key or signer(algorithm), algorithm, signed.encode()))}"


def hmac_token(claims: Mapping[str, Any], secret: bytes, algorithm: str = "HS256") -> str:
    signed = f"{b64(json.dumps({'alg': algorithm}).encode())}.{b64(json.dumps(claims).encode())}"
    mac = hmac.HMAC(secret, HASHES[algorithm[2:]])
    mac.update(signed.encode())
    return f"{signed}.{b64(mac.finalize())}"


def jwk(key: SigningKey, **members: Any) -> dict[str, Any]:
    """The public half."""
    match key:
        case rsa.RSAPrivateKey():
            numbers = key.public_key().public_numbers()
            found = {"kty": "RSA", "n": b64(_minimal(numbers.n)), "e": b64(_minimal(numbers.e))}
        case ec.EllipticCurvePrivateKey():
            point = key.public_key().public_numbers()
            width = (key.curve.key_size + 7) // 8
            found = {
                "kty": "EC",
                "crv": CURVE_NAMES[key.curve.key_size],
                "x": b64(point.x.to_bytes(width, "big")),
                "y": b64(point.y.to_bytes(width, "big")),
            }
        case ed25519.Ed25519PrivateKey():
            raw = key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
            found = {"kty": "OKP", "crv": "Ed25519", "x": b64(raw)}
    return found | members


def jwks(*keys: Mapping[str, Any]) -> bytes:
    return json.dumps({"keys": keys}).encode()


def parts_of(token: str) -> Sequence[str]:
    return token.split(".")


def _minimal(number: int) -> bytes:
    return number.to_bytes((number.bit_length() + 7) // 8, "big")
