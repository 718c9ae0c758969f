"""A method's Config: from the map that an operator writes to checked values, and which of it is secret.

Keys, weak types and texts are Consul's (docs/consul-compat.md 12.7), but for what is ours: the type `tls`, and
a `kubernetes` method that is given a key source instead of a Host. Secrets are no part of what is shown and stored in
the open: the caller seals them. A secret goes only to the server that it was given for.
"""

import json
import math
import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from cryptography import x509

from cluster.access.methods.addresses import UrlRefused, https_url
from cluster.access.methods.key_sets import JwksUrl, KeyList, KeySource, OidcIssuer
from cluster.access.methods.keys import ALGORITHMS, MAX_KEYS, KeyRefused, decoded, pem_key
from cluster.access.methods.refusal import MethodInvalid
from cluster.access.methods.strict_json import JsonRefused, is_clean, read_object
from cluster.access.selector import Fields as SelectorFields
from fsm.acl import MethodType
from providers.config import decode
from providers.config.durations import SECOND
from providers.errors import ConfigInvalid
from providers.pki.spiffe import Kind

HIDDEN: Final = "<hidden>"
MAX_CONFIG: Final = 256 << 10
MAX_AUDIENCES: Final = 256
MAX_MAPPINGS: Final = 256
MAX_TEXT: Final = 2048
MAX_CA_PEM: Final = 64 << 10
MAX_SERVICE_ACCOUNT_JWT: Final = 16 << 10
EVERY_NAME: Final = "*"

_DEFAULT_LEEWAY: Final = 150 * SECOND
_DEFAULT_SKEW: Final = 60 * SECOND
_DEFAULT_ALGORITHM: Final = "RS256"
_TARGET: Final = re.compile(r"[A-Za-z0-9_-]{1,128}")
#: RFC 6901: a tilde begins ~0 or ~1.
_POINTER: Final = re.compile(r"(?:/(?:[^~/]|~[01])*)+")
#: What can be a workload; `signing` is the CA itself.
_KINDS: Final = (Kind.SERVICE, Kind.AGENT, Kind.MESH_GATEWAY, Kind.SERVER)

_SOURCE_KEYS: Final = ("JWTValidationPubKeys", "JWKSURL", "JWKSCACert", "OIDCDiscoveryURL", "OIDCDiscoveryCACert")
_CHECK_KEYS: Final = (
    *_SOURCE_KEYS,
    "BoundIssuer",
    "BoundAudiences",
    "JWTSupportedAlgs",
    "ExpirationLeeway",
    "NotBeforeLeeway",
    "ClockSkewLeeway",
)
_LEEWAYS: Final = ("ExpirationLeeway", "NotBeforeLeeway", "ClockSkewLeeway")
_LISTS: Final = ("JWTValidationPubKeys", "BoundAudiences", "JWTSupportedAlgs", "Kinds")
_MAPPINGS: Final = ("ClaimMappings", "ListClaimMappings")
_MAPS: Final = (*_MAPPINGS, "NotBefore")
_KEYS: Final[Mapping[MethodType, tuple[str, ...]]] = {
    MethodType.JWT: (*_CHECK_KEYS, *_MAPPINGS),
    MethodType.KUBERNETES: ("Host", "CACert", "ServiceAccountJWT", *_CHECK_KEYS),
    MethodType.TLS: ("Kinds", "NotBefore"),
}
#: What is sealed, and with which of the others it was given: where it is sent, and who may receive it.
_SECRETS: Final[Mapping[str, tuple[str, ...]]] = {"ServiceAccountJWT": ("Host", "CACert")}


@dataclass(frozen=True, slots=True)
class TokenCheck:
    """What a signed token must be. Leeways are of at least 0 seconds."""

    source: KeySource
    issuer: str
    audiences: frozenset[str]
    algorithms: frozenset[str]
    expiration_leeway_seconds: int
    not_before_leeway_seconds: int
    skew_seconds: float


@dataclass(frozen=True, slots=True)
class JwtConfig:
    """Mappings are pairs of a claim, or a JSON pointer to one, and the name that it gets."""

    check: TokenCheck
    claims: tuple[tuple[str, str], ...] = ()
    list_claims: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class KubernetesConfig:
    """The cluster itself is asked about each token."""

    host: str
    ca_pem: str
    service_account_jwt: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class KubernetesOfflineConfig:
    """Ours: tokens are checked with the keys of the cluster, which is not asked. An annotation that renames a service
    is not seen.
    """

    check: TokenCheck


@dataclass(frozen=True, slots=True)
class TlsConfig:
    """Ours: which certificates of the trust domain may log in. `not_before`: a name, or EVERY_NAME, and the moment, in
    Unix seconds, before which a certificate of it must not have begun.
    """

    kinds: frozenset[Kind]
    not_before: tuple[tuple[str, int], ...] = ()


MethodConfig = JwtConfig | KubernetesConfig | KubernetesOfflineConfig | TlsConfig


@dataclass(frozen=True, slots=True)
class Written:
    """A checked Config. `public_json` is canonical, is what is shown, and says `<hidden>` for each secret."""

    config: MethodConfig
    public_json: str
    secrets: Mapping[str, str] = field(repr=False)


def written_config(kind: MethodType, raw: Mapping[str, object], before: Written | None = None) -> Written:
    """Of a method that is written. `before` is what it replaces: what is sent back as `<hidden>` stays as it was.

    Whether its key set answers is not looked at: `KeySets.check`. Raises: MethodInvalid.
    """
    values = _values(kind, raw)
    secrets = _secrets(values, before)
    values |= secrets
    config = _CONFIGS[kind](values)
    shown = {name: HIDDEN if name in secrets else value for name, value in values.items()}
    try:
        public_json = json.dumps(shown, sort_keys=True, separators=(",", ":"), allow_nan=False)
    except ValueError:
        raise MethodInvalid("error decoding config: NaN and Infinity are no numbers") from None
    if len(public_json) > MAX_CONFIG:
        raise MethodInvalid(f"Config has {len(public_json)} bytes: at most {MAX_CONFIG} are allowed")
    return Written(config, public_json, secrets)


def stored_config(kind: MethodType, public_json: str, secrets: Mapping[str, str]) -> Written:
    """Of a method that was written. Raises: MethodInvalid, if by a release that took what this one does not."""
    try:
        shown = read_object(public_json.encode("utf-8", "replace"), max_bytes=2 * MAX_CONFIG)
    except JsonRefused as error:
        raise MethodInvalid(f"Config: {error}") from error
    values = _values(kind, {**shown, **secrets})
    return Written(_CONFIGS[kind](values), public_json, dict(secrets))


def fields_of(config: MethodConfig) -> SelectorFields:
    """What selectors may ask, and of it what bind names may use: what the method maps, and nothing else. Consul takes
    any name below `value` and `list` in a selector, but there a misspelt one decides about every login.
    """
    match config:
        case JwtConfig():
            return SelectorFields(
                frozenset(f"value.{name}" for _, name in config.claims),
                frozenset(f"list.{name}" for _, name in config.list_claims),
            )
        case KubernetesConfig() | KubernetesOfflineConfig():
            return SelectorFields(frozenset({"serviceaccount.namespace", "serviceaccount.name", "serviceaccount.uid"}))
        case TlsConfig():
            return SelectorFields(frozenset({"trust_domain", "datacenter", "kind", "name"}))


def _values(kind: MethodType, raw: Mapping[str, object]) -> dict[str, object]:
    """What is given, under the names of Consul and in the types that are wanted; durations as they were written.

    Raises: MethodInvalid.
    """
    fields = decode.Fields(raw)
    fields.allow_only(_KEYS[kind])
    values: dict[str, object] = {}
    for name in _KEYS[kind]:
        given = fields.get(name)
        if given is None:
            continue
        if name in _LEEWAYS:
            fields.duration_ns(name, 0)
            values[name] = given
        elif name in _LISTS:
            values[name] = fields.text_list(name)
        elif name in _MAPS:
            values[name] = dict(sorted(fields.text_map(name).items()))
        else:
            values[name] = fields.text(name)
    try:
        fields.finish()
    except ConfigInvalid as error:
        raise MethodInvalid(str(error)) from None
    for name, value in values.items():
        _check_texts(name, value)
    return values


def _check_texts(name: str, value: object) -> None:
    match value:
        case str():
            texts: Collection[str] = [value]
        case list():
            texts = value
        case dict():
            texts = [*value.keys(), *value.values()]
        case _:
            return
    if not all(map(is_clean, texts)):
        raise MethodInvalid(f"{name} must contain neither NUL nor half of a surrogate pair")
    most = {"JWTValidationPubKeys": MAX_KEYS, "BoundAudiences": MAX_AUDIENCES}.get(name, MAX_MAPPINGS)
    if not isinstance(value, str) and len(value) > most:
        raise MethodInvalid(f"{name} has {len(value)} items: at most {most} are allowed")
    longest = max(map(len, texts), default=0)
    allowed = _LONG.get(name, MAX_TEXT)
    if longest > allowed:
        raise MethodInvalid(f"{name} has a text of {longest} characters: at most {allowed} are allowed")


_LONG: Final = {
    "JWTValidationPubKeys": MAX_CA_PEM,
    "JWKSCACert": MAX_CA_PEM,
    "OIDCDiscoveryCACert": MAX_CA_PEM,
    "CACert": MAX_CA_PEM,
    "ServiceAccountJWT": MAX_SERVICE_ACCOUNT_JWT,
}


def _secrets(values: Mapping[str, object], before: Written | None) -> dict[str, str]:
    """Those that are given, and those that stay."""
    secrets: dict[str, str] = {}
    for name, given_with in _SECRETS.items():
        value = values.get(name)
        if value == HIDDEN:
            if before is None or name not in before.secrets:
                raise MethodInvalid(f"Config.{name} is {HIDDEN}: there is none that could be kept")
            shown = json.loads(before.public_json)
            if changed := [other for other in given_with if values.get(other) != shown.get(other)]:
                raise MethodInvalid(f"Config.{name} must be given again when {' or '.join(changed)} is changed")
            value = before.secrets[name]
        if isinstance(value, str) and value:
            secrets[name] = value
    return secrets


# -- one of each type


def _jwt(values: Mapping[str, object]) -> JwtConfig:
    return JwtConfig(
        _check(values, MethodType.JWT), _mappings(values, "ClaimMappings"), _mappings(values, "ListClaimMappings")
    )


def _kubernetes(values: Mapping[str, object]) -> KubernetesConfig | KubernetesOfflineConfig:
    asked = [name for name in ("Host", "CACert", "ServiceAccountJWT") if values.get(name)]
    if any(values.get(name) for name in _SOURCE_KEYS):
        if asked:
            raise MethodInvalid(f"'{asked[0]}' must not be set when the keys of the cluster are given")
        check = _check(values, MethodType.KUBERNETES)
        if not check.issuer or not check.audiences:
            # All clusters have the same names of service accounts.
            raise MethodInvalid("Config.BoundIssuer and Config.BoundAudiences are required to check tokens by keys")
        return KubernetesOfflineConfig(check)
    for name in ("Host", "CACert", "ServiceAccountJWT"):
        if name not in asked:
            raise MethodInvalid(f"Config.{name} is required")
    if unused := [name for name in _CHECK_KEYS if values.get(name)]:
        raise MethodInvalid(f"'{unused[0]}' should not be set unless the keys of the cluster are given")
    host, ca_pem, token = (_text(values, name) for name in ("Host", "CACert", "ServiceAccountJWT"))
    _check_url("Config.Host", host if "://" in host else f"https://{host}", has_query=False)
    _check_ca("error parsing kubernetes ca cert", ca_pem)
    _check_token(token)
    return KubernetesConfig((host if "://" in host else f"https://{host}").rstrip("/"), ca_pem, token)


def _tls(values: Mapping[str, object]) -> TlsConfig:
    kinds = _list(values, "Kinds") or [Kind.SERVICE.value]
    known = {kind.value: kind for kind in _KINDS}
    for kind in kinds:
        if kind not in known:
            raise MethodInvalid(f"Config.Kinds: {kind[:80]!a}: must be one of {', '.join(known)}")
    return TlsConfig(frozenset(known[kind] for kind in kinds), _moments(values, "NotBefore"))


_CONFIGS: Final[Mapping[MethodType, Callable[[Mapping[str, object]], MethodConfig]]] = {
    MethodType.JWT: _jwt,
    MethodType.KUBERNETES: _kubernetes,
    MethodType.TLS: _tls,
}


# -- parts of them


def _check(values: Mapping[str, object], kind: MethodType) -> TokenCheck:
    source = _source(values, kind)
    algorithms = _list(values, "JWTSupportedAlgs") or [_DEFAULT_ALGORITHM]
    for algorithm in algorithms:
        if algorithm not in ALGORITHMS:
            raise MethodInvalid(f"Invalid supported algorithm: {algorithm[:80]}")
    issuer = _text(values, "BoundIssuer")
    if isinstance(source, OidcIssuer):
        # A token of a discovered issuer says so (OpenID Connect Core 1.0, 3.1.3.7), whether it is asked for or not.
        if issuer not in ("", source.url):
            raise MethodInvalid("BoundIssuer is not OIDCDiscoveryURL: no token could have both")
        issuer = source.url
    return TokenCheck(
        source,
        issuer,
        frozenset(_list(values, "BoundAudiences")),
        frozenset(algorithms),
        _leeway_ns(values, "ExpirationLeeway", _DEFAULT_LEEWAY) // SECOND,
        _leeway_ns(values, "NotBeforeLeeway", _DEFAULT_LEEWAY) // SECOND,
        _leeway_ns(values, "ClockSkewLeeway", _DEFAULT_SKEW) / SECOND,
    )


def _source(values: Mapping[str, object], kind: MethodType) -> KeySource:
    """Exactly one. Raises: MethodInvalid."""
    pems = tuple(_list(values, "JWTValidationPubKeys"))
    jwks, issuer = _text(values, "JWKSURL"), _text(values, "OIDCDiscoveryURL")
    if sum(map(bool, (pems, jwks, issuer))) != 1:
        raise MethodInvalid(
            "exactly one of 'JWTValidationPubKeys', 'JWKSURL', or 'OIDCDiscoveryURL' must be set for type "
            f'"{kind.value}"'
        )
    for ca, url in (("JWKSCACert", "JWKSURL"), ("OIDCDiscoveryCACert", "OIDCDiscoveryURL")):
        if ca_pem := _text(values, ca):
            if not values.get(url):
                raise MethodInvalid(f"'{ca}' should not be set unless '{url}' is set")
            _check_ca(f"error checking {ca}", ca_pem)
    if jwks:
        _check_url("error checking JWKSURL", jwks, has_query=True)
        return JwksUrl(jwks, _text(values, "JWKSCACert"))
    if issuer:
        _check_url("error checking OIDCDiscoveryURL", issuer, has_query=False)
        return OidcIssuer(issuer, _text(values, "OIDCDiscoveryCACert"))
    for number, pem in enumerate(pems):
        try:
            pem_key(pem)
        except KeyRefused as error:
            raise MethodInvalid(f"error parsing public key JWTValidationPubKeys[{number}]: {error}") from None
    return KeyList(pems)


def _check_url(what: str, text: str, *, has_query: bool) -> None:
    try:
        url = https_url(text)
    except UrlRefused as error:
        raise MethodInvalid(f"{what}: {error}") from None
    if "?" in text and not has_query:
        raise MethodInvalid(f"{what}: {url.text[:200]!a}: must have no query")


def _check_ca(what: str, pem: str) -> None:
    """That it is certificates, and nothing else: a key in it would be shown to all who may read the method."""
    try:
        if "PRIVATE KEY" in pem:
            raise ValueError
        found = x509.load_pem_x509_certificates(pem.encode("ascii"))
    except ValueError:
        raise MethodInvalid(f"{what}: must be certificates in PEM") from None
    if not found:
        raise MethodInvalid(f"{what}: must be certificates in PEM")


def _check_token(token: str) -> None:
    """It is a header's value later. Its parts are not looked into: nobody here has to trust it."""
    try:
        parts = [decoded(part, MAX_SERVICE_ACCOUNT_JWT) for part in token.split(".")]
    except KeyRefused:
        parts = []
    if len(parts) != 3 or not all(parts):
        raise MethodInvalid("Config.ServiceAccountJWT is not a valid JWT: must be three parts of base64url")


def _leeway_ns(values: Mapping[str, object], name: str, default: int) -> int:
    """0 is the default, and less is none."""
    found = decode.Fields(values).duration_ns(name, 0)
    return max(found, 0) if found else default


def _mappings(values: Mapping[str, object], name: str) -> tuple[tuple[str, str], ...]:
    given = values.get(name)
    found = sorted(given.items()) if isinstance(given, dict) else []
    seen: set[str] = set()
    for claim, target in found:
        if target in seen:
            raise MethodInvalid(f"{name} contains multiple mappings for key {json.dumps(target)}")
        seen.add(target)
        if not _TARGET.fullmatch(target):
            raise MethodInvalid(f"{name}: {target[:80]!a}: must be 1 to 128 letters, digits, - and _")
        if claim.startswith("/") and not _POINTER.fullmatch(claim):
            raise MethodInvalid(f"{name}: {claim[:80]!a}: must be a JSON pointer (RFC 6901)")
    return tuple(found)


def _moments(values: Mapping[str, object], name: str) -> tuple[tuple[str, int], ...]:
    given = values.get(name)
    found = sorted(given.items()) if isinstance(given, dict) else []
    return tuple((key, _moment(f"Config.{name}[{key[:80]}]", text)) for key, text in found)


def _moment(what: str, text: str) -> int:
    """In whole seconds, not before it."""
    try:
        found = datetime.fromisoformat(text.upper())
        if found.tzinfo is None:
            raise ValueError
        return math.ceil(found.timestamp())
    except (ValueError, OverflowError):
        raise MethodInvalid(f"{what}: {text[:80]!a} must be RFC 3339, as in 2027-01-31T12:00:00Z") from None


def _text(values: Mapping[str, object], name: str) -> str:
    value = values.get(name, "")
    assert isinstance(value, str)
    return value


def _list(values: Mapping[str, object], name: str) -> list[str]:
    value = values.get(name, [])
    assert isinstance(value, list)
    return value
