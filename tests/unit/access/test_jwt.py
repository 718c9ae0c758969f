"""Bearer JWTs: what passes, and that nothing else does or raises anything but a refusal."""

import json
import random
import time
from collections.abc import Mapping
from typing import Any

import jwt
import pytest

from cluster.access.methods.config import JwtConfig, written_config
from cluster.access.methods.jwt import MAX_TOKEN, claim_of, proved_by_jwt
from cluster.access.methods.key_sets import KeySets
from cluster.access.methods.refusal import LoginRefused
from cluster.access.selector import Proved
from fsm.acl import MethodType
from tests.kit import pki
from tests.kit.clock import FakeClock
from tests.kit.fake_fetch import FakeFetch
from tests.kit.tokens import (
    ALGORITHMS,
    b64,
    hmac_token,
    jwk,
    jwks,
    parts_of,
    public_pem,
    signature,
    signer,
    token_of,
)

NOW = 1_800_000_000
JWKS = "https://issuer.example/keys"
CLAIMS: dict[str, Any] = {"iss": "me", "aud": "ca", "iat": NOW, "exp": NOW + 600, "sub": "web"}


def config_of(**changes: Any) -> JwtConfig:
    raw: dict[str, Any] = {
        "JWTValidationPubKeys": [public_pem(signer())],
        "BoundIssuer": "me",
        "BoundAudiences": ["ca", "other"],
        "ClaimMappings": {"sub": "name", "/deep/er~1/0": "deep"},
        "ListClaimMappings": {"groups": "groups"},
    }
    raw |= changes
    config = written_config(MethodType.JWT, {name: value for name, value in raw.items() if value is not None}).config
    assert isinstance(config, JwtConfig)
    return config


def of_set(**changes: Any) -> JwtConfig:
    return config_of(JWTValidationPubKeys=None, JWKSURL=JWKS, **changes)


async def proved(token: str, config: JwtConfig | None = None, *, now: float = NOW, keys: bytes = b"") -> Proved:
    fetch = FakeFetch({JWKS: keys or jwks(jwk(signer(), kid="one"))})
    return await proved_by_jwt(token, config or config_of(), KeySets(fetch, FakeClock()), now)


async def refusal(token: str, config: JwtConfig | None = None, *, now: float = NOW, keys: bytes = b"") -> str:
    """Why it was refused, which the caller is not told."""
    with pytest.raises(LoginRefused) as caught:
        await proved(token, config, now=now, keys=keys)
    assert str(caught.value) == "Permission denied"
    assert token == "" or token not in caught.value.reason
    return caught.value.reason


async def test_a_good_token_proves_its_mapped_claims() -> None:
    token = token_of(CLAIMS | {"groups": ["a", 1, True], "deep": {"er/": ["x"]}})
    assert await proved(token) == Proved({"value.name": "web", "value.deep": "x"}, {"list.groups": ("a", "1", "true")})


@pytest.mark.parametrize("algorithm", ALGORITHMS)
async def test_each_algorithm_passes_where_it_is_allowed_only(algorithm: str) -> None:
    key = signer(algorithm)
    token = token_of(CLAIMS, algorithm=algorithm)
    allowed = config_of(JWTValidationPubKeys=public_pem(key), JWTSupportedAlgs=algorithm)
    assert (await proved(token, allowed)).texts == {"value.name": "web"}
    in_set = of_set(JWTSupportedAlgs=[algorithm])
    named = token_of(CLAIMS, algorithm=algorithm, header={"kid": "k"})
    assert (await proved(named, in_set, keys=jwks(jwk(key, kid="k")))).texts == {"value.name": "web"}
    other = "ES256" if algorithm != "ES256" else "RS256"
    for config in (
        config_of(JWTValidationPubKeys=public_pem(key), JWTSupportedAlgs=other),
        of_set(JWTSupportedAlgs=other),
    ):
        assert "is not in JWTSupportedAlgs" in await refusal(token, config, keys=jwks(jwk(key)))
    head, payload, _ = parts_of(token)
    forged = f"{head}.{payload}.{b64(bytes(len(signature(key, algorithm, b''))))}"
    assert "no known key" in await refusal(forged, allowed)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
async def test_a_token_of_another_library_passes(algorithm: str) -> None:
    token = jwt.encode(CLAIMS, signer(algorithm), algorithm=algorithm)
    config = config_of(JWTValidationPubKeys=public_pem(signer(algorithm)), JWTSupportedAlgs=algorithm)
    assert (await proved(token, config)).texts == {"value.name": "web"}
    ours = token_of(CLAIMS, algorithm=algorithm)
    options: jwt.types.Options = {"verify_exp": False, "verify_iat": False, "verify_aud": False}
    assert jwt.decode(ours, signer(algorithm).public_key(), algorithms=[algorithm], options=options) == CLAIMS


# -- who has signed


@pytest.mark.parametrize(
    "name", ["none", "None", "NONE", "nOnE", "", "HS256", "HS512", "RS256 ", "rs256", "RS1", "ES256K"]
)
async def test_an_algorithm_that_is_no_signature_is_never_taken(name: str) -> None:
    everything = config_of(JWTSupportedAlgs=ALGORITHMS)
    for config in (config_of(), everything):
        for end in ("", b64(b"x"), parts_of(token_of(CLAIMS))[2]):
            token = ".".join([*parts_of(token_of(CLAIMS, header={"alg": name}))[:2], end])
            assert "is not in JWTSupportedAlgs" in await refusal(token, config)


async def test_public_key_is_no_secret_of_an_hmac() -> None:
    pem = public_pem(signer())
    for secret in (pem.encode(), pem.strip().encode(), pki.spki(signer().public_key()), b""):
        for algorithm in ("HS256", "HS384", "HS512"):
            assert "is not in JWTSupportedAlgs" in await refusal(hmac_token(CLAIMS, secret, algorithm))
    # The header says RS256, and the signature is the HMAC.
    _, payload, mac = parts_of(hmac_token(CLAIMS, pem.encode()))
    assert "no known key" in await refusal(f"{b64(json.dumps({'alg': 'RS256'}).encode())}.{payload}.{mac}")


async def test_a_key_of_one_kind_is_not_used_with_the_algorithm_of_another() -> None:
    everything = {"JWTSupportedAlgs": ALGORITHMS}
    for algorithm in ALGORITHMS:
        config = config_of(JWTValidationPubKeys=public_pem(signer(algorithm)), **everything)
        for other in ALGORITHMS:
            token = token_of(CLAIMS, algorithm=algorithm, header={"alg": other})
            if other == algorithm:
                await proved(token, config)
            else:
                assert "no known key" in await refusal(token, config)


async def test_key_that_a_token_brings_with_it_is_not_looked_at() -> None:
    mine = signer("RS256", 1)
    brought = {
        "jwk": jwk(mine),
        "jku": "https://evil.example/keys",
        "x5u": "https://evil.example/cert",
        "x5c": ["AAAA"],
        "x5t": "AAAA",
    }
    for name, value in brought.items():
        for config in (config_of(), of_set()):
            await proved(token_of(CLAIMS, header={name: value}), config)
            assert "no known key" in await refusal(token_of(CLAIMS, key=mine, header={name: value}), config)


@pytest.mark.parametrize("name", ["crit", "b64", "zip", "enc"])
async def test_header_that_demands_to_be_understood_is_refused(name: str) -> None:
    for value in (["exp"], [], None, False, "DEF"):
        assert f"the header has {name}" in await refusal(token_of(CLAIMS, header={name: value}))


async def test_each_part_has_one_text() -> None:
    """base64url of one or two bytes more than a multiple of three ends with bits that say nothing (RFC 4648 3.5)."""
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    token = token_of(CLAIMS)
    await proved(token)
    assert len(token.rpartition(".")[2]) % 4 == 2  # RSA 2048: 256 bytes
    last = alphabet.index(token[-1])
    for other in range(last + 1, last + 16):
        assert "as it is written" in await refusal(token[:-1] + alphabet[other])


KIDS = [
    "../../dev/null",
    "/dev/null",
    "one' OR '1'='1",
    "one\0",
    "ONE",
    " one",
    "one ",
    "",
    "0",
    "https://evil.example/",
    "один",
    "x" * 256,
]


@pytest.mark.parametrize("kid", KIDS)
async def test_kid_is_a_name_in_the_set_and_nothing_else(kid: str) -> None:
    token = token_of(CLAIMS, header={"kid": kid})
    assert "not in the key set" in await refusal(token, of_set())
    await proved(token, of_set(), keys=jwks(jwk(signer(), kid=kid)))
    await proved(token)  # keys of a list have no names


@pytest.mark.parametrize("kid", [1, True, [], {}, ["one"], "x" * 257])
async def test_kid_that_is_no_text_is_refused(kid: object) -> None:
    for config in (config_of(), of_set()):
        assert "kid" in await refusal(token_of(CLAIMS, header={"kid": kid}), config)


async def test_without_a_kid_any_key_of_the_set_will_do() -> None:
    keys = jwks(jwk(signer("RS256", 1), kid="other"), jwk(signer(), kid="one"))
    await proved(token_of(CLAIMS), of_set(), keys=keys)
    await proved(token_of(CLAIMS, header={"kid": None}), of_set(), keys=keys)
    assert "no known key" in await refusal(token_of(CLAIMS, header={"kid": "other"}), of_set(), keys=keys)


# -- issuer and audience


@pytest.mark.parametrize(
    ("bound", "given", "passes"),
    [
        ("me", "me", True),
        (None, "me", True),
        (None, ..., True),
        ("me", ..., False),
        ("me", "Me", False),
        ("me", "me ", False),
        ("me", "", False),
        ("me", None, False),
        ("me", ["me"], False),
        (None, 1, False),
        (None, ["me"], False),
        ("é", "e\u0301", False),
    ],
)
async def test_issuer_is_compared_as_it_is(bound: str | None, given: object, passes: bool) -> None:
    claims = {name: value for name, value in (CLAIMS | {"iss": given}).items() if value is not ...}
    await _passes(token_of(claims), config_of(BoundIssuer=bound), passes)


@pytest.mark.parametrize(
    ("bound", "given", "passes"),
    [
        (["ca", "other"], "ca", True),
        ("ca", "ca", True),
        (["ca", "other"], ["x", "other"], True),
        (["ca"], ["x", "y"], False),
        (["ca"], "x", False),
        (["ca"], "ca,x", False),
        (["ca"], "CA", False),
        (["ca"], ..., False),
        (["ca"], [], False),
        (["ca"], "", False),
        (["ca"], None, False),
        (["ca"], ["ca", 1], False),
        (["ca"], {"ca": 1}, False),
        (["ca"], ["ca"] * 257, False),
        (None, ..., True),
        (None, [], True),
        (None, "ca", False),
        (None, "", False),
        (None, ["ca"], False),
        (["\u212b"], "\u00c5", False),
    ],
)
async def test_audience_must_share_one_and_may_not_be_there_unbound(
    bound: list[str] | str | None, given: object, passes: bool
) -> None:
    claims = {name: value for name, value in (CLAIMS | {"aud": given}).items() if value is not ...}
    await _passes(token_of(claims), config_of(BoundAudiences=bound), passes)


async def _passes(token: str, config: JwtConfig, passes: bool, now: float = NOW) -> None:
    if passes:
        await proved(token, config, now=now)
    else:
        await refusal(token, config, now=now)


# -- times


@pytest.mark.parametrize(
    ("times", "leeways", "first", "last"),
    [
        # All three, or what is missing is derived. `first` and `last` are when it passes, around NOW.
        ({"iat": 0, "nbf": 0, "exp": 600}, {}, -60, 660),
        ({"nbf": 0, "exp": 600}, {}, -60, 660),
        ({"iat": 0, "exp": 600}, {}, -60, 660),
        ({"exp": 600}, {}, 600 - 150 - 60, 660),
        ({"iat": 0}, {}, -60, 150 + 60),
        ({"nbf": 0}, {}, 0 - 150 + 150 - 60, 150 + 60),
        ({"iat": 0, "nbf": 100}, {}, 100 - 60, 250 + 60),
        ({"iat": 100, "nbf": 0}, {}, 100 - 60, 250 + 60),
        # The two leeways are for what is missing, and for nothing else.
        ({"iat": 0, "nbf": 0, "exp": 600}, {"ExpirationLeeway": "10m", "NotBeforeLeeway": "10m"}, -60, 660),
        ({"exp": 600}, {"NotBeforeLeeway": "10s"}, 590 - 60, 660),
        ({"exp": 600}, {"NotBeforeLeeway": -1}, 600 - 60, 660),
        ({"exp": 600}, {"NotBeforeLeeway": 0}, 600 - 150 - 60, 660),
        ({"iat": 0}, {"ExpirationLeeway": 10_000_000_000}, -60, 10 + 60),
        ({"iat": 0}, {"ExpirationLeeway": -1}, -60, 60),
        ({"iat": 0}, {"ExpirationLeeway": "-1ns"}, -60, 60),
        # The skew is for both ends.
        ({"nbf": 0, "exp": 600}, {"ClockSkewLeeway": "1s"}, -1, 601),
        ({"nbf": 0, "exp": 600}, {"ClockSkewLeeway": -1}, 0, 600),
        ({"nbf": 0, "exp": 600}, {"ClockSkewLeeway": 0}, -60, 660),
        ({"nbf": 0.9, "exp": 600.9}, {}, -60, 660),
    ],
)
async def test_times_at_their_edges(
    times: Mapping[str, float], leeways: Mapping[str, object], first: int, last: int
) -> None:
    claims = {"iss": "me", "aud": "ca"} | {name: NOW + offset for name, offset in times.items()}
    token, config = token_of(claims), config_of(**leeways)
    for offset, passes in ((first - 1, False), (first, True), (last, True), (last + 1, False)):
        await _passes(token, config, passes, now=NOW + offset)
    await _passes(token, config, passes=False, now=NOW + first - 0.01)
    await _passes(token, config, passes=False, now=NOW + last + 0.01)


async def test_a_token_without_any_time_is_refused() -> None:
    assert "no issue time" in await refusal(token_of({"iss": "me", "aud": "ca"}))


@pytest.mark.parametrize("name", ["iat", "nbf", "exp"])
@pytest.mark.parametrize(
    "value",
    [
        "1800000000",
        True,
        None,
        [],
        {},
        -1,
        10**11 * 10,
        253_402_300_800,
        b"1e400",
        b"-1e400",
        b"NaN",
        b"Infinity",
        b"9" * 33,
    ],
)
async def test_a_time_that_is_none_is_refused(name: str, value: object) -> None:
    raw = value if isinstance(value, bytes) else json.dumps(value).encode()
    payload = json.dumps({k: v for k, v in CLAIMS.items() if k != name}).encode()
    await refusal(token_of(payload[:-1] + b', "' + name.encode() + b'": ' + raw + b"}"))


async def test_expiry_of_zero_is_an_expiry() -> None:
    assert "expired" in await refusal(token_of(CLAIMS | {"exp": 0}))


# -- mappings


@pytest.mark.parametrize(
    ("raw", "text"),
    [
        (b'"web"', "web"),
        (b'""', ""),
        (b"1", "1"),
        (b"-7", "-7"),
        (b"1.0", "1"),
        (b"1.9", "1"),
        (b"-1.9", "-1"),
        (b"1e3", "1000"),
        (b"9007199254740993", "9007199254740993"),
        (b"9223372036854775807", "9223372036854775807"),
        (b"true", "true"),
        (b"false", "false"),
        (b'"\\u00e9"', "é"),
        (b"null", None),
        (b"1e30", ...),
        (b"1e400", ...),
        (b"9223372036854775808", ...),
        (b"[]", ...),
        (b"{}", ...),
        (b'["web"]', ...),
        (b'"\\u0000"', ...),
        (b'"\\ud800"', ...),
    ],
)
async def test_values_become_texts(raw: bytes, text: Any) -> None:
    payload = json.dumps({name: value for name, value in CLAIMS.items() if name != "sub"}).encode()
    token = token_of(payload[:-1] + b', "sub": ' + raw + b', "groups": ' + raw + b"}")
    if text is ...:
        await refusal(token, config_of(ListClaimMappings=None))
        return
    found = await proved(token)
    assert found.texts.get("value.name") == text
    assert found.lists.get("list.groups") == (None if text is None else (text,))


async def test_lists_of_other_things_are_refused() -> None:
    lists: list[Any] = [[[]], [{}], [None], ["a", ["b"]], {"a": "b"}, ["x"] * 1025]
    for groups in lists:
        assert "claim" in await refusal(token_of(CLAIMS | {"groups": groups}))
    assert (await proved(token_of(CLAIMS | {"groups": []}))).lists == {"list.groups": ()}


@pytest.mark.parametrize(
    ("pointer", "found"),
    [
        ("/a", {"b/c": [10, {"~": "x"}]}),
        ("/a/b~1c/0", 10),
        ("/a/b~1c/1/~0", "x"),
        ("/a/b~1c/2", None),
        ("/a/b~1c/00", None),
        ("/a/b~1c/-1", None),
        ("/a/b~1c/-", None),
        ("/a/b~1c/٠", None),
        ("/a/b~1c/999999999999999999", None),
        ("/a/b~1c/0/x", None),
        ("/nosuch/x", None),
        ("/", "empty"),
        ("a/b", "flat"),
        ("a", {"b/c": [10, {"~": "x"}]}),
    ],
)
def test_pointers_lead_as_rfc_6901_says(pointer: str, found: object) -> None:
    claims = {"a": {"b/c": [10, {"~": "x"}]}, "": "empty", "a/b": "flat"}
    assert claim_of(claims, pointer) == found


# -- shape, and mischief


BOMBS: list[bytes] = [
    b"[" * 5000,
    b'{"a":' * 1500 + b"1" + b"}" * 1500,
    b'{"a":' + b"[" * 16 + b"]" * 16 + b"}",
    b'{"a":[' + b"1," * 4200 + b"1]}",
    b'{"exp":' + b"9" * 9000 + b"}",
    b'{"exp":1e' + b"9" * 9000 + b"}",
    b'{"exp":0.' + b"9" * 9000 + b"}",
    b'{"exp":1,"exp":2}',
    b'{"a":{"b":1,"b":1},"exp":1}',
    b'{"exp":1,"\\u0065xp":2}',
    b'{"a":"' + b'\\"' * 4000,
    b'"' + b"\\" * 8001,
    b'"' * 9000,
    b"",
    b"null",
    b"[]",
    b'"x"',
    b"1",
    b"\xff\xfe{\0}\0",
    b"\xef\xbb\xbf{}",
    b'{"a":"\xff"}',
    b'{"a":"\x01"}',
    b"{'a':1}",
    b"{} {}",
    b"{}x",
    b'{"a":1,}',
    b'{"a":NaN}',
    b'{"a":-Infinity}',
    b'{"alg":"RS256"}\0',
]


@pytest.mark.parametrize("data", BOMBS)
async def test_json_that_is_a_trap_is_refused_at_once(data: bytes) -> None:
    began = time.process_time()
    await refusal(token_of(data))
    await refusal(token_of(CLAIMS, header=data))
    assert time.process_time() - began < 1.0


@pytest.mark.parametrize("name", ["iss", "aud", "exp", "sub", "other"])
async def test_a_claim_that_is_given_twice_is_refused(name: str) -> None:
    once = json.dumps(CLAIMS | {"other": 1})[:-1]
    value = json.dumps((CLAIMS | {"other": 1})[name])
    assert "twice" in await refusal(token_of(f'{once}, "{name}": {value}}}'.encode()))
    assert "twice" in await refusal(token_of(CLAIMS, header=b'{"alg": "RS256", "alg": "RS256"}'))


@pytest.mark.parametrize(
    "token",
    [
        "",
        ".",
        "..",
        "...",
        "a.b",
        "a.b.c.d",
        "a.b.c.d.e",
        "." * MAX_TOKEN,
        "a" * (MAX_TOKEN + 1),
        "é.é.é",
        "\ud800.\ud800.\ud800",
        "\0.\0.\0",
        "e30.e30.e30",
        "eyJhbGciOiJSUzI1NiJ9.e30.",
        "eyJhbGciOiJSUzI1NiJ9..",
        "eyJhbGciOlsiUlMyNTYiXX0.e30.e30",
    ],
)
async def test_a_text_that_is_no_token_is_refused(token: str) -> None:
    await refusal(token)


async def test_token_is_read_in_one_spelling() -> None:
    token = token_of(CLAIMS)
    head, payload, end = parts_of(token)
    for changed in (f" {token}", f"{token}\n", f"{token}=", f"{head}=.{payload}.{end}", f"{head}.{payload}\n.{end}"):
        await refusal(changed)
    await refusal(token.replace("-", "+").replace("_", "/") + "+")


async def test_no_change_of_a_good_token_passes_or_raises_anything_but_a_refusal() -> None:
    rng = random.Random(14)
    good = [token_of(CLAIMS, algorithm=algorithm) for algorithm in ("RS256", "ES256", "EdDSA")]
    config = config_of(
        JWTValidationPubKeys=[public_pem(signer(algorithm)) for algorithm in ("RS256", "ES256", "EdDSA")],
        JWTSupportedAlgs=["RS256", "ES256", "EdDSA"],
    )
    keys = KeySets(FakeFetch(), FakeClock())
    signed = {token.rpartition(".")[0] for token in good}
    for _ in range(3000):
        token = _mutated(rng, rng.choice(good), good)
        try:
            await proved_by_jwt(token, config, keys, NOW)
        except LoginRefused:
            continue
        # The last character of a signature has bits that no byte takes.
        assert token.rpartition(".")[0] in signed


async def test_no_signed_payload_raises_anything_but_a_refusal() -> None:
    """Whoever has a key may sign anything."""
    rng = random.Random(15)
    config = config_of(
        JWTValidationPubKeys=public_pem(signer("EdDSA")),
        JWTSupportedAlgs="EdDSA",
        BoundIssuer=None,
        BoundAudiences=None,
    )
    keys = KeySets(FakeFetch(), FakeClock())
    odd: list[Any] = [
        None,
        True,
        -1,
        0,
        1.5,
        1e300,
        NOW,
        "x",
        "\ud800",
        "",
        [],
        {},
        ["x"],
        [NOW],
        {"0": 1},
        [[[]]],
        2**62,
    ]
    for _ in range(1500):
        claims = {name: rng.choice(odd) for name in ("iss", "aud", "iat", "nbf", "exp", "sub", "groups", "deep")}
        for name in list(claims):
            if rng.random() < 0.5:
                del claims[name]
        header = {"kid": rng.choice(odd), "typ": rng.choice(odd)} if rng.random() < 0.3 else None
        try:
            await proved_by_jwt(token_of(claims, algorithm="EdDSA", header=header), config, keys, NOW)
        except LoginRefused:
            continue


def _mutated(rng: random.Random, token: str, others: list[str]) -> str:
    alphabet = "ABCabc019-_.=+/ \n\0é{}"
    text = list(token)
    for _ in range(rng.randint(1, 4)):
        at = rng.randrange(len(text)) if text else 0
        match rng.randrange(5):
            case 0:
                text[at : at + 1] = rng.choice(alphabet)
            case 1:
                del text[at : at + rng.randint(1, 50)]
            case 2:
                text[at:at] = rng.choice(alphabet) * rng.randint(1, 50)
            case 3:
                other = rng.choice(others).split(".")
                parts = "".join(text).split(".")
                parts[rng.randrange(len(parts))] = rng.choice(other)
                text = list(".".join(parts))
            case _:
                text = text[:at]
    return "".join(text)
