"""What somebody sends who wants to log in, and what the servers answer that are asked about it: tokens, key sets, a
Kubernetes API, a discovery document; and the Config of auth methods, which says whom to ask.

Tokens are fuzzed twice: as they are, when none may pass that was changed; and signed rightly after the change.
"""

import base64
import json
import random
from collections.abc import Coroutine, Sequence
from typing import Any, Final, TypeVar

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

from cluster.access.login import grant
from cluster.access.methods.addresses import UrlRefused, https_url
from cluster.access.methods.config import (
    JwtConfig,
    KubernetesConfig,
    TokenCheck,
    fields_of,
    stored_config,
    written_config,
)
from cluster.access.methods.fetching import MAX_ANSWER, FetchFailed, Request
from cluster.access.methods.jwt import proved_by_jwt
from cluster.access.methods.key_sets import JwksUrl, KeySetRefused, KeySets, OidcIssuer
from cluster.access.methods.keys import ALGORITHMS, KeyRefused, key_set
from cluster.access.methods.kubernetes import proved_by_review
from cluster.access.methods.refusal import LoginRefused, MethodInvalid
from cluster.access.methods.strict_json import JsonRefused, read_object
from fsm import codec as fsm_codec
from fsm.acl import BindType, MethodType, SetAuthMethod, SetToken, Token
from tests.fuzz.access.changes import Mutate, of_json
from tests.fuzz.access.prompt import promptly
from tests.fuzz.mutate import mutated
from tests.fuzz.reasons import reason_of
from tests.fuzz.roots import root_pem
from tests.kit import acl_samples, tokens
from tests.kit.acl_samples import NOW
from tests.kit.clock import FakeClock

T = TypeVar("T")

LOGIN_ERRORS: Final = (LoginRefused,)
KEY_SET_ERRORS: Final = (JsonRefused, KeyRefused)
METHOD_ERRORS: Final = (MethodInvalid,)
DISCOVERY_ERRORS: Final = (KeySetRefused,)

_ISSUER: Final = "https://issuer.example"
#: Keys, and what is signed with them, are the same in every process.
_KEYS: Final[dict[str, tokens.SigningKey]] = {
    "ES256": ec.derive_private_key(7, ec.SECP256R1()),
    "ES384": ec.derive_private_key(7, ec.SECP384R1()),
    "EdDSA": ed25519.Ed25519PrivateKey.from_private_bytes(b"k" * 32),
}
_NAMES: Final = tuple(_KEYS)
_JWKS_URL: Final = f"{_ISSUER}/keys"
_JWKS: Final = tokens.jwks(*(tokens.jwk(key, kid=name, use="sig") for name, key in _KEYS.items()))
_CLAIMS: Final[dict[str, Any]] = {
    "iss": _ISSUER,
    "aud": ["quorumca", "other"],
    "iat": NOW,
    "nbf": NOW,
    "exp": NOW + 300,
    "project": "web",
    "number": 7,
    "groups": ["dev", "ops"],
    "deep": {"a/b": [{"x": True}]},
}
_BINDINGS: Final = (
    acl_samples.binding_rule(1, selector="", bind_type=BindType.SERVICE, bind_name="${value.project}"),
    acl_samples.binding_rule(2, selector="dev in list.groups", bind_type=BindType.NODE, bind_name="n-${value.number}"),
    acl_samples.binding_rule(3, selector="value.deep == true", bind_type=BindType.POLICY, bind_name="${value.project}"),
)


def _config(*algorithms: str) -> JwtConfig:
    check = TokenCheck(
        JwksUrl(_JWKS_URL), _ISSUER, frozenset({"quorumca", "me"}), frozenset(algorithms or ALGORITHMS), 150, 150, 60.0
    )
    claims = (("/deep/a~1b/0/x", "deep"), ("number", "number"), ("project", "project"))
    return JwtConfig(check, claims, (("groups", "groups"),))


def done(work: Coroutine[Any, Any, T]) -> T:
    """Of what waits for nothing."""
    try:
        while True:
            work.send(None)
    except StopIteration as stop:
        found: T = stop.value
        return found


class _Known:
    """A key set that is there already: nothing is fetched."""

    def __init__(self) -> None:
        self._keys = key_set(json.loads(_JWKS))

    async def keys_for(self, source: object, kid: str | None) -> tuple[Any, ...]:
        if found := tuple(key for key in self._keys if kid in (None, key.kid)):
            return found
        raise LoginRefused("the token names a key that is not in the key set")


_KNOWN: Final[Any] = _Known()


def login_reason_of(error: Exception) -> str:
    """What is told nobody but the log."""
    assert isinstance(error, LoginRefused)
    return reason_of(Exception(error.reason))


# -- tokens


def _signature(name: str, signed: bytes) -> bytes:
    key = _KEYS[name]
    if isinstance(key, ec.EllipticCurvePrivateKey):
        width = (key.curve.key_size + 7) // 8
        hashed = hashes.SHA256() if name == "ES256" else hashes.SHA384()
        made = key.sign(signed, ec.ECDSA(hashed, deterministic_signing=True))
        return b"".join(part.to_bytes(width, "big") for part in decode_dss_signature(made))
    return tokens.signature(key, name, signed)


def _token(name: str, header: bytes, payload: bytes) -> str:
    signed = f"{tokens.b64(header)}.{tokens.b64(payload)}"
    return f"{signed}.{tokens.b64(_signature(name, signed.encode()))}"


def _headers(name: str) -> list[bytes]:
    return [
        json.dumps({"alg": name, "typ": "JWT", "kid": name}).encode(),
        json.dumps({"alg": name}).encode(),
    ]


_GOOD: Final = tuple(_token(name, _headers(name)[0], json.dumps(_CLAIMS).encode()) for name in _NAMES)
_SIGNED: Final = frozenset(token.rpartition(".")[0] for token in _GOOD)


def token_seeds() -> list[bytes]:
    return [token.encode() for token in _GOOD]


def mutated_token(seeds: Sequence[bytes], kept: Sequence[bytes], rng: random.Random) -> bytes:
    """Of the text, or of what one of its parts stands for; parts of two tokens come together."""
    if rng.random() < 0.4:
        return mutated(seeds, kept, rng)
    parts = list(rng.choice(seeds).split(b"."))
    for _ in range(rng.choice((1, 2))):
        at = rng.randrange(len(parts))
        match rng.randrange(4):
            case 0:
                parts[at] = rng.choice(rng.choice(seeds).split(b"."))
            case 1:
                parts[at : at + 1] = rng.choice(([], [b""], [parts[at], parts[at]], [parts[at] + b"="]))
                if not parts:
                    return b""
            case _:
                raw = base64.urlsafe_b64decode(parts[at] + b"=" * (-len(parts[at]) % 4))
                parts[at] = tokens.b64(mutated([raw or b"{}"], (), rng)).encode()
    return b".".join(parts)


def token(data: bytes) -> object:
    """As somebody sends it who has no key: nothing passes that was not signed as it is."""
    text = data.decode("utf-8", "surrogateescape")
    proved = promptly(len(data), lambda: done(proved_by_jwt(text, _config(), _KNOWN, NOW)))
    assert text.rpartition(".")[0] in _SIGNED, "a token that nobody has signed"
    return proved


# -- tokens that are signed

_HEADER_LENGTH: Final = 2


def signed_seeds() -> list[bytes]:
    return [_pack(number, header, payload) for number, name in enumerate(_NAMES) for header, payload in _pairs(name)]


def _pairs(name: str) -> list[tuple[bytes, bytes]]:
    few = {"iss": _ISSUER, "aud": "me", "exp": NOW + 60, "project": "web"}
    return [(header, json.dumps(claims).encode()) for header in _headers(name) for claims in (_CLAIMS, few)]


def _pack(number: int, header: bytes, payload: bytes) -> bytes:
    return bytes([number]) + len(header).to_bytes(_HEADER_LENGTH, "big") + header + payload


def _unpack(data: bytes) -> tuple[str, bytes, bytes]:
    name = _NAMES[(data[0] if data else 0) % len(_NAMES)]
    length = int.from_bytes(data[1:3], "big")
    return name, data[3 : 3 + length], data[3 + length :]


_CLAIM_WORDS: Final = (
    *(b'"iss"', b'"aud"', b'"exp"', b'"nbf"', b'"iat"', b'"alg"', b'"kid"', b'"crit"', b'"jwk"', b'"b64"', b'"none"'),
    *(b'"HS256"', b'"ES256"', b'"EdDSA"', b"1800000000", b"-1", b"0", b"1e9", b"1e400", b"253402300800", b"true"),
    *(b'"project"', b'"groups"', b"{", b"}", b"[", b"]", b",", b":", b'"quorumca"', b'"https://issuer.example"'),
)
_of_claims: Final[Mutate] = of_json(_CLAIM_WORDS)


def mutated_signed(seeds: Sequence[bytes], kept: Sequence[bytes], rng: random.Random) -> bytes:
    name, header, payload = _unpack(rng.choice([*seeds, *kept]))
    number = _NAMES.index(name) if rng.random() < 0.95 else rng.randrange(256)
    if rng.random() < 0.25:
        header = _of_claims([b" " + header], (), rng)[1:]
    else:
        payload = _of_claims([b" " + payload], (), rng)[1:]
    return _pack(number, header[:0xFFFF], payload)


def signed_token(data: bytes) -> object:
    """Signed by the issuer, whatever it says. What passes is judged again, in other words, and becomes a token."""
    name, header, payload = _unpack(data)
    text = _token(name, header, payload)
    proved = promptly(len(text), lambda: done(proved_by_jwt(text, _config(), _KNOWN, NOW)))
    claims, top = json.loads(payload), json.loads(header)
    assert top["alg"] == name, "another algorithm than the one that it is signed with"
    assert top.get("kid") in (None, name)
    assert not {"crit", "b64", "zip", "enc"} & top.keys()
    assert claims["iss"] == _ISSUER
    assert {"quorumca", "me"} & set([claims["aud"]] if isinstance(claims["aud"], str) else claims["aud"])
    assert claims.keys() & {"exp", "nbf", "iat"}
    assert int(claims.get("exp", NOW)) >= NOW - 60
    assert all(int(claims.get(at, 0)) <= NOW + 60 for at in ("nbf", "iat"))
    assert proved.texts.get("value.project") in (None, _text(claims.get("project")))
    granted = grant(
        acl_samples.method(),
        proved,
        _BINDINGS,
        fields=fields_of(_config()),
        policy_id={"web": acl_samples.uuid(1)}.get,
        role_id=lambda _name: None,
        datacenter="dc1",
        description="",
        now=NOW,
    )
    made = Token(
        acl_samples.uuid(5),
        bytes(32),
        granted.description,
        granted.policies,
        granted.roles,
        granted.service_identities,
        granted.node_identities,
        auth_method=granted.auth_method,
        created_at=granted.created_at,
        expires_at=granted.expires_at,
    )
    fsm_codec.check_command(SetToken(made))
    return granted


def _text(value: object) -> str | None:
    """As a claim's value is written: a number without a fraction."""
    match value:
        case bool():
            return "true" if value else "false"
        case int() | float():
            return str(int(value))
        case str():
            return value
        case _:
            return None


# -- key sets


def key_set_seeds() -> list[bytes]:
    n = tokens.b64(bytes([0xC1]) + bytes(254) + b"\x01")
    rsa = {"kty": "RSA", "n": n, "e": "AQAB", "kid": "rsa", "alg": "RS256", "use": "sig"}
    return [b" " + _JWKS, b" " + tokens.jwks(rsa), b" " + tokens.jwks({**rsa, "key_ops": ["verify"], "e": "Aw"})]


_JWK_WORDS: Final = (
    *(b'"kty"', b'"RSA"', b'"EC"', b'"OKP"', b'"oct"', b'"crv"', b'"P-256"', b'"P-521"', b'"secp256k1"', b'"n"'),
    *(b'"e"', b'"x"', b'"y"', b'"d"', b'"kid"', b'"alg"', b'"use"', b'"enc"', b'"AQAB"', b'""', b"[", b"]", b"{", b"}"),
)
mutated_key_set: Final[Mutate] = of_json(_JWK_WORDS)


def keys(data: bytes) -> object:
    """No key takes a signature that nobody has made, with whatever algorithm, and it says so soon."""
    found = promptly(len(data), lambda: key_set(read_object(data[1:], max_bytes=MAX_ANSWER)))
    for key in found:
        assert key.algorithms <= ALGORITHMS
        for algorithm in sorted(ALGORITHMS | {"none", "HS256"}):
            for signature in (b"", bytes(64), b"\x01" * 256, b"\xff" * 132):
                assert not promptly(0, lambda: key.verifies(algorithm, b"signed", signature)), algorithm  # noqa: B023
    return [(key.kid, sorted(key.algorithms)) for key in found]


# -- the Config of a method

_KINDS: Final = tuple(MethodType)


def method_seeds() -> list[bytes]:
    pem = tokens.public_pem(_KEYS["ES256"])
    jwt = {
        "BoundIssuer": _ISSUER,
        "BoundAudiences": ["quorumca"],
        "ClaimMappings": {"project": "project", "/deep/x~1y": "deep"},
        "ListClaimMappings": {"groups": "groups"},
        "JWTSupportedAlgs": ["ES256", "RS256"],
        "ExpirationLeeway": "10s",
        "NotBeforeLeeway": 1000000000,
        "ClockSkewLeeway": -1,
    }
    account = {
        "Host": "https://10.0.0.1:6443",
        "ServiceAccountJWT": "eyJhIjoxfQ.eyJhIjoxfQ.AAAA",
        "CACert": root_pem(1),
    }
    values: list[tuple[MethodType, dict[str, Any]]] = [
        (MethodType.JWT, {**jwt, "JWTValidationPubKeys": [pem]}),
        (MethodType.JWT, {**jwt, "JWKSURL": _JWKS_URL}),
        (MethodType.JWT, {"OIDCDiscoveryURL": _ISSUER, "BoundAudiences": "quorumca"}),
        (MethodType.KUBERNETES, account),
        (MethodType.KUBERNETES, {"JWKSURL": _JWKS_URL, "BoundIssuer": _ISSUER, "BoundAudiences": ["api"]}),
        (MethodType.TLS, {"Kinds": ["service", "agent"], "NotBefore": {"web": "2027-01-31T12:00:00Z"}}),
        (MethodType.TLS, {}),
    ]
    return [bytes([_KINDS.index(kind)]) + json.dumps(value).encode() for kind, value in values]


_METHOD_WORDS: Final = (
    *(b'"BoundIssuer"', b'"JWKSURL"', b'"OIDCDiscoveryURL"', b'"JWTValidationPubKeys"', b'"Kinds"', b'"server"'),
    *(
        b'"https://169.254.169.254/"',
        b'"http://a"',
        b'"https://a@b/"',
        b'"https://a\\u0000/"',
        b'"<hidden>"',
        b'"none"',
    ),
    *(b'"-----BEGIN PRIVATE KEY-----"', b'"1h"', b"9223372036854775808", b"-1", b"1.5", b"[", b"]", b"{", b"}"),
)
mutated_method: Final[Mutate] = of_json(_METHOD_WORDS)


def method(data: bytes) -> object:
    """What is taken is stored, and read again as the same; what is secret of it is not shown."""
    kind = _KINDS[(data[0] if data else 0) % len(_KINDS)]
    try:
        value = json.loads(data[1:])
    except (ValueError, RecursionError):
        raise MethodInvalid("no JSON") from None
    if not isinstance(value, dict):
        raise MethodInvalid("no object")
    written = promptly(len(data), lambda: written_config(kind, value))
    assert stored_config(kind, written.public_json, written.secrets) == written
    assert not any(secret in written.public_json for secret in written.secrets.values() if len(secret) > 8)
    sample = acl_samples.method(kind=kind, config_json=written.public_json)
    fsm_codec.check_command(SetAuthMethod(sample))
    return written.public_json


# -- what other servers answer

_KUBERNETES: Final = KubernetesConfig("https://k8s.example:6443", "", "a.b.c")
_BEARER: Final = "eyJhIjoxfQ.eyJhIjoxfQ.AAAA"


class _Answers:
    """In their order, whatever is asked for."""

    def __init__(self, *answers: bytes) -> None:
        self._answers = list(answers)
        self.urls: list[str] = []

    async def __call__(self, request: Request) -> bytes:
        self.urls.append(request.url)
        https_url(request.url)  # or nothing would be sent
        if not self._answers:
            raise FetchFailed("nobody answers")
        return self._answers.pop(0)


def review_seeds() -> list[bytes]:
    user = {"username": "system:serviceaccount:prod:web", "uid": "u-1"}
    review = {"status": {"authenticated": True, "user": user}}
    named = {"metadata": {"uid": "u-1", "annotations": {"consul.hashicorp.com/service-name": "shop"}}}
    pairs = [(review, named), (review, {"metadata": {"uid": "u-1"}})]
    return [b" " + json.dumps(pair).encode() for pair in pairs]


_REVIEW_WORDS: Final = (
    *(b'"status"', b'"authenticated"', b"true", b'"true"', b'"user"', b'"username"', b'"uid"', b'"metadata"'),
    *(
        b'"system:serviceaccount:a:b"',
        b'"system:serviceaccount:../..:x"',
        b'"system:node:n"',
        b'"annotations"',
        b'"error"',
    ),
)
mutated_review: Final[Mutate] = of_json(_REVIEW_WORDS)


def review(data: bytes) -> object:
    """Both answers of a Kubernetes API. Its words do not lead a request anywhere else, nor the login's token out."""
    try:
        pair = json.loads(data[1:])
        answers = [json.dumps(part).encode() for part in pair[:2]] if isinstance(pair, list) else [data[1:]]
    except (ValueError, RecursionError):
        answers = [data[1:]]
    fetch = _Answers(*answers)
    try:
        proved = done(proved_by_review(_BEARER, _KUBERNETES, fetch))
    except LoginRefused as error:
        if _BEARER in error.reason:
            raise AssertionError("the token is in the log") from None
        raise
    finally:
        for url in fetch.urls[1:]:
            path = url.removeprefix("https://k8s.example:6443/api/v1/namespaces/").split("/")
            assert (len(path), path[1]) == (3, "serviceaccounts"), url
            assert set(path) & {"", ".", ".."} == set(), url
    assert set(proved.texts) == {f"serviceaccount.{name}" for name in ("namespace", "name", "uid")}
    return proved


def discovery_seeds() -> list[bytes]:
    found = [{"issuer": _ISSUER, "jwks_uri": url} for url in (_JWKS_URL, "https://keys.example/k")]
    return [b" " + json.dumps(one).encode() for one in found]


_DISCOVERY_WORDS: Final = (
    *(b'"issuer"', b'"jwks_uri"', b'"https://issuer.example/a"', b'"https://issuer.example@evil.example/"'),
    *(b'"https://issuer.example.evil.example/"', b'"http://issuer.example/"', b'"https://169.254.169.254/"', b'"//x"'),
    *(
        b'"https://ISSUER.example:443/"',
        b'"https://[::1]/"',
        b'"https://issuer.example\\\\@x/"',
        b'"https://issuer.example#@x"',
    ),
)
mutated_discovery: Final[Mutate] = of_json(_DISCOVERY_WORDS)


def discovery(data: bytes) -> object:
    """Keys are fetched from the issuer's host, or from one that the operator has named, and from nowhere else."""
    fetch = _Answers(data[1:], _JWKS)
    sets = KeySets(fetch, FakeClock(), hosts=("keys.example",))
    try:
        done(sets.check(OidcIssuer(_ISSUER)))
    except UrlRefused as error:
        raise AssertionError(f"a URL that was not looked at: {error}") from error
    finally:
        for url in fetch.urls[1:]:
            assert https_url(url).host in ("issuer.example", "keys.example"), url
    assert len(fetch.urls) == 2
    return fetch.urls
