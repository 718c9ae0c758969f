"""The compact form of a signed token (RFC 7515 3.1), taken apart. Nothing of it has been verified here."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from cluster.access.methods.keys import MAX_RSA_BITS, KeyRefused, decoded
from cluster.access.methods.refusal import LoginRefused
from cluster.access.methods.strict_json import JsonRefused, read_object

MAX_SIGNATURE: Final = 4 * MAX_RSA_BITS // 8


@dataclass(frozen=True, slots=True)
class Jws:
    """`algorithm` is what the header says, `signed` what the signature is of."""

    header: Mapping[str, Any]
    algorithm: str
    signed: bytes = field(repr=False)
    payload: bytes = field(repr=False)
    signature: bytes = field(repr=False)


def taken_apart(token: str, *, max_token: int, max_header: int) -> Jws:
    """Bounds are in characters. Raises: LoginRefused."""
    if len(token) > max_token:
        raise LoginRefused(f"the token has {len(token)} characters: at most {max_token} are allowed")
    parts = token.split(".", 3)
    if len(parts) != 3:
        raise LoginRefused("the token does not have three parts")
    header, payload, signature = parts
    try:
        raw_header = decoded(header, max_header)
        raw_payload = decoded(payload, max_token)
        raw_signature = decoded(signature, MAX_SIGNATURE)
    except KeyRefused as error:
        raise LoginRefused(f"a part of the token: {error}") from None
    fields = json_of("header", raw_header, max_header)
    algorithm = fields.get("alg")
    if not isinstance(algorithm, str):
        raise LoginRefused("the header has no alg")
    return Jws(fields, algorithm, f"{header}.{payload}".encode("ascii"), raw_payload, raw_signature)


def json_of(what: str, data: bytes, most: int) -> dict[str, Any]:
    """Raises: LoginRefused."""
    try:
        return read_object(data, max_bytes=most)
    except JsonRefused as error:
        raise LoginRefused(f"the token's {what}: {error}") from None
