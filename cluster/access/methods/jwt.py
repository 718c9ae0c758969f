"""A bearer JWT (RFC 7515, RFC 7519, RFC 8725): from text that anybody may have sent to what it proves.

In this order: its size and shape; its header, of which `alg` and `kid` alone are used; the key, from the method and
never from the token (`jwk`, `jku`, `x5u`, `x5c` are not read, `crit` is refused); the signature; and only then what it
claims: issuer, audience, times, mappings. All of it is in this module and a few calls of `cryptography`, because most
of the rules are stricter than, or other than, those of the libraries for it.
"""

from collections.abc import Mapping
from typing import Any, Final

from cluster.access.methods.config import JwtConfig, TokenCheck
from cluster.access.methods.jws import json_of, taken_apart
from cluster.access.methods.key_sets import KeySets
from cluster.access.methods.keys import MAX_KID
from cluster.access.methods.refusal import LoginRefused
from cluster.access.methods.strict_json import is_clean
from cluster.access.selector import Proved

MAX_TOKEN: Final = 16 << 10
_MAX_HEADER: Final = 4096
#: Of what is mapped to one name.
MAX_LIST: Final = 1024
_MAX_AUDIENCES: Final = 256
#: 9999-12-31T23:59:59Z: whoever writes a later one means milliseconds, or mischief.
_LAST_SECOND: Final = 253_402_300_799
_MAX_INTEGER: Final = (1 << 63) - 1


async def proved_by_jwt(token: str, config: JwtConfig, keys: KeySets, now: float) -> Proved:
    """`now` is in Unix seconds. Raises: LoginRefused."""
    claims = await verified_claims(token, config.check, keys, now)
    texts: dict[str, str] = {}
    lists: dict[str, tuple[str, ...]] = {}
    for claim, name in config.claims:
        if (value := claim_of(claims, claim)) is not None:
            texts[f"value.{name}"] = _as_text(claim, value)
    for claim, name in config.list_claims:
        if (value := claim_of(claims, claim)) is not None:
            lists[f"list.{name}"] = _as_texts(claim, value)
    return Proved(texts, lists)


async def verified_claims(token: str, check: TokenCheck, keys: KeySets, now: float) -> Mapping[str, Any]:
    """Of a token that passes. Raises: LoginRefused."""
    unverified = taken_apart(token, max_token=MAX_TOKEN, max_header=_MAX_HEADER)
    kid = _kid(unverified.header)
    if unverified.algorithm not in check.algorithms:
        allowed = ", ".join(sorted(check.algorithms))
        raise LoginRefused(f"alg {unverified.algorithm[:40]!a} is not in JWTSupportedAlgs: {allowed}")
    candidates = await keys.keys_for(check.source, kid)
    if not any(key.verifies(unverified.algorithm, unverified.signed, unverified.signature) for key in candidates):
        raise LoginRefused("no known key successfully validated the token signature")
    claims = json_of("payload", unverified.payload, MAX_TOKEN)
    _check_issuer(claims, check)
    _check_audience(claims, check)
    _check_times(claims, check, now)
    return claims


# -- header


def _kid(header: Mapping[str, Any]) -> str | None:
    """Raises: LoginRefused, also for a header with what changes how a token is read."""
    kid = header.get("kid")
    if kid is not None and (not isinstance(kid, str) or len(kid) > MAX_KID):
        raise LoginRefused("the header's kid is no text, or too long")
    # What an issuer demands to be understood, and is not here (RFC 7515 4.1.11, RFC 7797), or an encrypted token.
    for name in ("crit", "b64", "zip", "enc"):
        if name in header:
            raise LoginRefused(f"the header has {name}")
    return kid


# -- claims


def _check_issuer(claims: Mapping[str, Any], check: TokenCheck) -> None:
    issuer = claims.get("iss")
    if issuer is not None and not isinstance(issuer, str):
        raise LoginRefused("iss is no text")
    if check.issuer and issuer != check.issuer:
        raise LoginRefused(f"iss {str(issuer)[:200]!a} is not the bound issuer")


def _check_audience(claims: Mapping[str, Any], check: TokenCheck) -> None:
    """Texts are compared as they are. A token that was made for somebody is for nobody else (RFC 7519 4.1.3)."""
    given = claims.get("aud", [])
    audiences = [given] if isinstance(given, str) else given
    if not isinstance(audiences, list) or not all(isinstance(one, str) for one in audiences):
        raise LoginRefused("aud is neither a text nor a list of texts")
    if len(audiences) > _MAX_AUDIENCES:
        raise LoginRefused(f"aud has {len(audiences)} items: at most {_MAX_AUDIENCES} are allowed")
    if not check.audiences and audiences:
        raise LoginRefused("the token has aud, and the method no BoundAudiences")
    if check.audiences and check.audiences.isdisjoint(audiences):
        raise LoginRefused("aud shares nothing with BoundAudiences")


def _check_times(claims: Mapping[str, Any], check: TokenCheck, now: float) -> None:
    """Consul's rules: what is missing is derived from what is there, and the skew is added to both ends."""
    issued, starts, ends = (_time(claims, name) for name in ("iat", "nbf", "exp"))
    if issued is None and starts is None and ends is None:
        raise LoginRefused("no issue time, notbefore, or expiration time encoded in token")
    if ends is None:
        ends = max(issued or 0, starts or 0) + check.expiration_leeway_seconds
    if starts is None:
        starts = issued if issued is not None else ends - check.not_before_leeway_seconds
    if now + check.skew_seconds < starts:
        raise LoginRefused(f"the token is not valid before {starts}")
    if now - check.skew_seconds > ends:
        raise LoginRefused(f"the token has expired at {ends}")
    if issued is not None and now + check.skew_seconds < issued:
        raise LoginRefused(f"the token was issued in the future, at {issued}")


def _time(claims: Mapping[str, Any], name: str) -> int | None:
    """In whole Unix seconds. A claim that is there counts, also when it says 0: Consul takes that for a missing one."""
    if name not in claims:
        return None
    value = claims[name]
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= _LAST_SECOND:
        raise LoginRefused(f"{name} is no time in seconds")
    return int(value)


# -- mappings


def claim_of(claims: Mapping[str, Any], claim: str) -> Any:
    """By its name, or by a JSON pointer (RFC 6901); None where it is missing, or null."""
    if not claim.startswith("/"):
        return claims.get(claim)
    found: Any = claims
    for step in claim[1:].split("/"):
        name = step.replace("~1", "/").replace("~0", "~")
        if isinstance(found, dict):
            found = found.get(name)
        elif isinstance(found, list):
            found = _item(found, name)
        else:
            return None
    return found


def _item(items: list[Any], name: str) -> Any:
    is_index = name.isascii() and name.isdigit() and len(name) <= 5 and (name == "0" or name[0] != "0")
    return items[int(name)] if is_index and int(name) < len(items) else None


def _as_text(claim: str, value: object) -> str:
    """Numbers are integers in decimal, without a fraction; unlike in Consul, exact ones however large: two accounts
    must not become one.
    """
    match value:
        case bool():
            return "true" if value else "false"
        case str() if is_clean(value):
            return value
        case int() if abs(value) <= _MAX_INTEGER:
            return str(value)
        case float() if abs(value) < 1 << 53:  # beyond it a float is no exact integer
            return str(int(value))
        case _:
            raise LoginRefused(f"claim {claim[:80]!a} cannot be converted to a text")


def _as_texts(claim: str, value: object) -> tuple[str, ...]:
    items = value if isinstance(value, list) else [value]
    if len(items) > MAX_LIST:
        raise LoginRefused(f"claim {claim[:80]!a} has {len(items)} items: at most {MAX_LIST} are allowed")
    return tuple(_as_text(claim, item) for item in items)
