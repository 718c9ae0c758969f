"""Proofs of a login by certificate, right or wrong, made without the code that makes or judges them."""

import base64
import json
from collections.abc import Mapping, Sequence
from typing import Any, Final

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding

from tests.kit import pki
from tests.kit.tokens import token_of

ROOT_KEY: Final = pki.key("ec", 256, 500)
LEAF_KEY: Final = pki.key("ec", 256, 501)
THIEF: Final = pki.key("ec", 256, 502)
#: Begins before today, so that the command may use it, whose clock is real.
ROOT: Final = pki.root_certificate(
    ROOT_KEY, "root", not_before=pki.NOW - 5 * pki.YEAR, not_after=pki.NOW + 10 * pki.YEAR
)
METHOD: Final = "mesh"
#: Leaves it out.
GONE: Final = object()


def leaf(uri: str = pki.WEB, key: pki.PrivateKey = LEAF_KEY, **changes: Any) -> x509.Certificate:
    extensions = pki.leaf_extensions(key.public_key(), pki.key_id(ROOT_KEY.public_key()), uri)
    return pki.certificate(key.public_key(), ROOT_KEY, **({"extensions": extensions} | changes))


def x5c(chain: Sequence[x509.Certificate]) -> list[str]:
    return [base64.b64encode(cert.public_bytes(Encoding.DER)).decode() for cert in chain]


def header_of(chain: Sequence[x509.Certificate], **changes: Any) -> dict[str, Any]:
    return _changed({"alg": "ES256", "typ": "quorumca-login+jwt", "x5c": x5c(chain)}, changes)


def claims_of(**changes: Any) -> dict[str, Any]:
    claims = {
        "aud": f"spiffe://{pki.TRUST_DOMAIN}",
        "mth": METHOD,
        "iat": pki.NOW,
        "exp": pki.NOW + 120,
        "jti": "AAECAwQFBgcICQoLDA0ODw",
    }
    return _changed(claims, changes)


def _changed(fields: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in {**fields, **changes}.items() if value is not GONE}


def proof_of(
    chain: Sequence[x509.Certificate] = (),
    *,
    key: pki.PrivateKey = LEAF_KEY,
    header: Mapping[str, Any] | bytes | None = None,
    claims: Mapping[str, Any] | bytes | None = None,
    signed_as: str = "",
) -> str:
    """Faultless without arguments. `header` and `claims` are changes, or in bytes the whole; whatever the header says,
    it is signed with this key, and `signed_as` or what fits it.
    """
    chain = chain or [leaf()]
    top = header if isinstance(header, bytes) else json.dumps(header_of(chain, **(header or {}))).encode()
    payload = claims if isinstance(claims, bytes) else claims_of(**(claims or {}))
    return token_of(payload, key=key, algorithm=signed_as or _fitting(key), header=top)


def _fitting(key: pki.PrivateKey) -> str:
    if isinstance(key, ec.EllipticCurvePrivateKey):
        return {256: "ES256", 384: "ES384", 521: "ES512"}.get(key.curve.key_size, "ES256")
    return "RS256"
