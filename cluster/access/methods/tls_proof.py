"""The proof that a workload logs in with by its certificate: its form, and how it is made.

Who has the certificate shows it by a signature of its key, not by a TLS handshake. A handshake is with whoever is at
the other end of the connection: a proxy that ends TLS, or a server that does not lead. The leader would hear from them
whom they have seen; and what a member says about identity is never enough. So the client signs a statement, whoever is
between passes it on as it is, and the leader judges it by itself. It is the BearerToken of the login, a JWS in its
compact form (RFC 7515), signed with the key of the first certificate:

    header  alg   one that fits the key
            typ   quorumca-login+jwt
            x5c   the chain that the certificate was issued with, leaf first, as RFC 7515 4.1.6 writes it
    claims  aud   spiffe://<trust domain>, of the cluster
            mth   the auth method's name
            iat   when it was made, Unix seconds: at most 60 s from the leader's clock
            exp   when it ends: at most 300 s after iat
            jti   drawn anew for each: 128 random bits or more, base64url

Header and claims have these names and no others. `typ` keeps what the key has signed for other purposes from being a
proof (RFC 8725 3.11), `aud` and `mth` keep a proof for one cluster or method from being one for another.

What it does not protect from: whoever carries it to the leader also carries the new token back.
"""

import base64
import json
import secrets
from collections.abc import Mapping, Sequence
from typing import Any, Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding

from cluster.access.methods.keys import KeyRefused, key_of
from providers.pki.spiffe import SpiffeError, parse, signing_id
from providers.pki.x509 import uris

TYPE: Final = "quorumca-login+jwt"
HEADER: Final = frozenset({"alg", "typ", "x5c"})
CLAIMS: Final = frozenset({"aud", "mth", "iat", "exp", "jti"})
#: Of the leaf and the CAs that came with it. A CA of this cluster never gives more than seven.
MAX_CHAIN: Final = 8
MAX_CERTIFICATE_BYTES: Final = 8 << 10
#: From iat to exp.
MAX_SECONDS: Final = 300
#: Between iat and the leader's clock.
MAX_SKEW_SECONDS: Final = 60
#: As long as both clocks may differ, and the way takes.
_SECONDS: Final = 2 * MAX_SKEW_SECONDS
_RANDOM_BYTES: Final = 32
_EC: Final[Mapping[str, tuple[str, hashes.HashAlgorithm]]] = {
    "secp256r1": ("ES256", hashes.SHA256()),
    "secp384r1": ("ES384", hashes.SHA384()),
    "secp521r1": ("ES512", hashes.SHA512()),
}


class ProofRefused(ValueError):
    """No proof can be made with what is there; the text says why."""


def audience(trust_domain: str) -> str:
    return signing_id(trust_domain).uri


def login_proof(chain: Sequence[x509.Certificate], key: object, method: str, now: float) -> str:
    """`chain` is leaf first, `key` the leaf's private key. It is for the trust domain of the leaf.

    Raises: ProofRefused.
    """
    leaf = chain[0]
    if len(chain) > MAX_CHAIN:
        raise ProofRefused(f"{len(chain)} certificates: at most {MAX_CHAIN} are allowed, the leaf's chain alone")
    if not isinstance(key, rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey):
        raise ProofRefused("the key is neither RSA nor EC")
    if key.public_key() != leaf.public_key():
        raise ProofRefused("the key is not that of the first certificate")
    algorithm = _algorithm(key)
    try:
        allowed = key_of(leaf).algorithms
    except KeyRefused as error:
        raise ProofRefused(str(error)) from None
    if algorithm not in allowed:
        raise ProofRefused("the key is none that may sign a login")
    issued = int(now)
    header = {"alg": algorithm, "typ": TYPE, "x5c": [_standard(cert.public_bytes(Encoding.DER)) for cert in chain]}
    claims = {
        "aud": audience(_trust_domain(leaf)),
        "mth": method,
        "iat": issued,
        "exp": issued + _SECONDS,
        "jti": secrets.token_urlsafe(_RANDOM_BYTES),
    }
    signed = f"{_part(header)}.{_part(claims)}"
    return f"{signed}.{_base64url(_signature(key, signed.encode('ascii')))}"


def _trust_domain(leaf: x509.Certificate) -> str:
    names = uris(leaf)
    if len(names) != 1:
        raise ProofRefused(f"the first certificate has {len(names)} URIs: must have one, a SPIFFE ID")
    try:
        return parse(names[0]).trust_domain
    except SpiffeError as error:
        raise ProofRefused(f"the first certificate: {error}") from None


def _algorithm(key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey) -> str:
    if isinstance(key, rsa.RSAPrivateKey):
        return "PS256"
    return _EC[key.curve.name][0] if key.curve.name in _EC else ""


def _signature(key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey, signed: bytes) -> bytes:
    if isinstance(key, rsa.RSAPrivateKey):
        hashed = hashes.SHA256()
        return key.sign(signed, padding.PSS(padding.MGF1(hashed), padding.PSS.DIGEST_LENGTH), hashed)
    width = (key.curve.key_size + 7) // 8
    r, s = decode_dss_signature(key.sign(signed, ec.ECDSA(_EC[key.curve.name][1])))
    return r.to_bytes(width, "big") + s.to_bytes(width, "big")  # RFC 7518 3.4


def _part(fields: dict[str, Any]) -> str:
    return _base64url(json.dumps(fields, separators=(",", ":")).encode("ascii"))


def _base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode("ascii")


def _standard(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")
