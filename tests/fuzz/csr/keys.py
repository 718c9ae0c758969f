"""Keys that are the same in every run, so that a seed gives the same CSRs again: public keys that a CSR may carry, and
for each who can sign for it.

They follow from labels. Private keys in files would do as well, but whatever searches repositories for keys would
find them.
"""

import functools
import hashlib
from dataclasses import dataclass
from typing import Final, TypeAlias

from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from tests.fuzz.csr.der import BIT_STRING, NULL, Node, bits, integer, oid, sequence, write

PrivateKey: TypeAlias = (
    ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey | ed448.Ed448PrivateKey
)

EC_OID: Final = "1.2.840.10045.2.1"
RSA_OID: Final = "1.2.840.113549.1.1.1"
_PSS_OID: Final = "1.2.840.113549.1.1.10"
_X25519_OID: Final = "1.3.101.110"
_P256_OID: Final = "1.2.840.10045.3.1.7"
#: From the number that a label gives to the next prime, for both primes of a key.
_OFFSETS: Final = {2048: (960, 214), 3072: (386, 1906), 4096: (744, 1248)}
_EXPONENT: Final = 65537


@dataclass(frozen=True, slots=True)
class Owner:
    """A SubjectPublicKeyInfo, in some encoding, and the key that signs for it; where there is none, any other."""

    spki: bytes
    private: PrivateKey


@functools.cache
def ec_key(curve: type[ec.EllipticCurve] = ec.SECP256R1) -> ec.EllipticCurvePrivateKey:
    kind = curve()
    return ec.derive_private_key(_number(f"ec {kind.name}", kind.key_size - 8), kind)


@functools.cache
def rsa_key(size: int = 2048) -> rsa.RSAPrivateKey:
    p, q = (
        _number(f"rsa {size} {name}", size // 2) + offset for name, offset in zip("pq", _OFFSETS[size], strict=True)
    )
    d = pow(_EXPONENT, -1, (p - 1) * (q - 1))
    numbers = rsa.RSAPrivateNumbers(
        p, q, d, d % (p - 1), d % (q - 1), pow(q, -1, p), rsa.RSAPublicNumbers(_EXPONENT, p * q)
    )
    return numbers.private_key()


@functools.cache
def allowed() -> tuple[Owner, ...]:
    """Of all kinds that the CA signs for, the quick ones more than once."""
    quick = [_owner(ec_key())] * 12 + [_owner(ec_key(ec.SECP384R1)), _owner(ec_key(ec.SECP521R1))]
    return (*quick, *[_owner(rsa_key())] * 3, _owner(rsa_key(3072)), _owner(rsa_key(4096)))


@functools.cache
def refused() -> tuple[Owner, ...]:
    """Of kinds and encodings that the CA does not sign for, or that no library should read."""
    owners = [
        _owner(ec_key(ec.SECP224R1)),
        _owner(ec_key(ec.SECP256K1)),
        _owner(ec_key(ec.BrainpoolP256R1)),
        _owner(ed25519.Ed25519PrivateKey.from_private_bytes(_digest("ed25519", 32))),
        _owner(ed448.Ed448PrivateKey.from_private_bytes(_digest("ed448", 57))),
    ]
    modulus, small = rsa_key().public_key().public_numbers().n, _number("a small modulus", 1024)
    numbers = [
        (small, _EXPONENT),
        (modulus << 2056 | 1, _EXPONENT),
        (modulus - 1, _EXPONENT),
        *((modulus, exponent) for exponent in (0, 1, 2, 3, 65536, 65539, (1 << 31) + 11, modulus)),
        (-modulus, _EXPONENT),
        (0, _EXPONENT),
    ]
    spkis = [_rsa_spki(RSA_OID, n, e) for n, e in numbers] + [_rsa_spki(_PSS_OID, modulus, _EXPONENT)]
    spkis += [_ec_spki(point) for point in _points()]
    spkis.append(sequence(sequence(oid(_X25519_OID)), Node(BIT_STRING, b"\0" + _digest("x25519", 32))))
    spkis.append(sequence(sequence(oid(EC_OID), sequence(integer(1))), Node(BIT_STRING, b"\0\x04" + bytes(64))))
    return (*owners, *(Owner(write(spki), ec_key()) for spki in spkis))


@functools.cache
def compressed() -> Owner:
    """A good key whose point is written in the short form."""
    point = ec_key().public_key().public_bytes(Encoding.X962, PublicFormat.CompressedPoint)
    return Owner(write(_ec_spki(point)), ec_key())


def _points() -> list[bytes]:
    """None on the curve but the last, which has more bytes than a point."""
    good = ec_key().public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
    return [b"", b"\0", good[:-1], good[:-1] + bytes([good[-1] ^ 1]), b"\x04" + b"\xff" * 64, good + b"\0"]


def _owner(private: PrivateKey) -> Owner:
    return Owner(private.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo), private)


def _rsa_spki(algorithm: str, n: int, e: int) -> Node:
    return sequence(sequence(oid(algorithm), Node(NULL)), bits(sequence(integer(n), integer(e))))


def _ec_spki(point: bytes) -> Node:
    return sequence(sequence(oid(EC_OID), oid(_P256_OID)), Node(BIT_STRING, b"\0" + point))


def _number(label: str, size: int) -> int:
    """Odd, with the two highest of so many bits set: the product of two has twice as many."""
    return int.from_bytes(_digest(label, size // 8), "big") | 3 << (size - 2) | 1


def _digest(label: str, size: int) -> bytes:
    return hashlib.shake_256(f"quorumca fuzz {label}".encode()).digest(size)
