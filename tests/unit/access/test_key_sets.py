"""Key sets: which keys count, when they are fetched, and how often."""

import asyncio
import json
from typing import Any

import pytest

from cluster.access.methods.key_sets import (
    FRESH_SECONDS,
    REFETCH_SECONDS,
    STALE_SECONDS,
    JwksUrl,
    KeyList,
    KeySetRefused,
    KeySets,
    OidcIssuer,
)
from cluster.access.methods.keys import KeyRefused, VerifyingKey, key_set, pem_key
from cluster.access.methods.refusal import LoginRefused
from tests.kit import pki
from tests.kit.clock import FakeClock
from tests.kit.fake_fetch import FakeFetch
from tests.kit.tokens import ALGORITHMS, b64, jwk, jwks, public_pem, signer

URL = "https://issuer.example/keys"
SOURCE = JwksUrl(URL, "CA")
ISSUER = "https://issuer.example/realm"
DISCOVERY = f"{ISSUER}/.well-known/openid-configuration"


def one_set(*kids: str) -> bytes:
    return jwks(*(jwk(signer("ES256"), kid=kid) for kid in kids))


def names(keys: tuple[VerifyingKey, ...]) -> list[str | None]:
    return [key.kid for key in keys]


async def refused(sets: KeySets, kid: str | None = "one", source: Any = SOURCE) -> str:
    with pytest.raises(LoginRefused) as caught:
        await sets.keys_for(source, kid)
    return caught.value.reason


# -- which keys count


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_public_key_is_the_same_as_pem_and_as_jwk(algorithm: str) -> None:
    key = signer(algorithm)
    (of_set,) = key_set({"keys": [jwk(key, kid="k", use="sig", alg=algorithm, key_ops=["verify"], x5t="ignored")]})
    of_pem = pem_key(public_pem(key))
    assert of_set.public == of_pem.public
    assert of_set.algorithms == {algorithm}
    assert algorithm in of_pem.algorithms
    assert (of_set.kid, of_pem.kid) == ("k", None)


def test_a_certificate_stands_for_its_key() -> None:
    key = pki.key("rsa", 2048)
    assert pem_key(pki.pem(pki.root_certificate(key))).public == key.public_key()


RSA, EC = jwk(signer("RS256")), jwk(signer("ES256"))
SKIPPED: list[Any] = [
    RSA | {"use": "enc"},
    RSA | {"use": None},
    RSA | {"key_ops": ["encrypt"]},
    RSA | {"key_ops": "verify"},
    RSA | {"alg": "ES256"},
    RSA | {"alg": "RSA-OAEP"},
    RSA | {"alg": "HS256"},
    RSA | {"alg": ["RS256"]},
    RSA | {"kid": 1},
    RSA | {"kid": "x" * 257},
    RSA | {"kty": "rsa"},
    RSA | {"kty": []},
    RSA | {"e": b64(b"\1")},
    RSA | {"e": b64(b"\2")},
    RSA | {"e": b64(b"\1\0\0\0\1")},
    RSA | {"e": ""},
    RSA | {"e": None},
    RSA | {"n": RSA["n"] + "="},
    RSA | {"n": b64(b"\xff" * 128)},
    RSA | {"n": b64(b"\xff" * 255)},
    RSA | {"n": b64(b"\xff" * 1025)},
    RSA | {"n": "A" * 100_000},
    EC | {"crv": "P-384"},
    EC | {"crv": "secp256k1"},
    EC | {"crv": []},
    EC | {"x": EC["y"], "y": EC["x"]},
    EC | {"x": b64(b"\0" * 32), "y": b64(b"\0" * 32)},
    EC | {"x": b64(b"\0" + b"\1" * 32)},
    EC | {"y": None},
    EC | {"alg": "RS256"},
    {"kty": "OKP", "crv": "X25519", "x": b64(b"\1" * 32)},
    {"kty": "OKP", "crv": "Ed25519", "x": b64(b"\1" * 31)},
    {"kty": "oct", "k": "AAAA", "alg": "HS256"},
    {},
    None,
    [],
    "RSA",
]


@pytest.mark.parametrize("key", SKIPPED)
def test_a_key_that_cannot_verify_is_passed_over(key: Any) -> None:
    with pytest.raises(KeyRefused, match="none of its keys"):
        key_set({"keys": [key]})
    assert names(key_set({"keys": [key, jwk(signer("ES256"), kid="good")]})) == ["good"]


@pytest.mark.parametrize("document", [{}, {"keys": {}}, {"keys": None}, {"keys": []}, {"keys": [RSA] * 65}])
def test_what_is_no_key_set_is_refused(document: Any) -> None:
    with pytest.raises(KeyRefused):
        key_set(document)


def test_small_keys_and_other_curves_are_refused_in_a_list() -> None:
    from cryptography.hazmat.primitives.asymmetric import ec, rsa, x25519
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    small = rsa.generate_private_key(65537, 1024)
    for key in (small, ec.generate_private_key(ec.SECP256K1()), x25519.X25519PrivateKey.generate()):
        pem = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
        with pytest.raises(KeyRefused):
            pem_key(pem)
    with pytest.raises(LoginRefused):
        asyncio.run(KeySets(FakeFetch(), FakeClock()).keys_for(KeyList(("x",)), None))


# -- when they are fetched


async def test_known_keys_are_fetched_once_and_again_when_they_are_old() -> None:
    fetch, clock = FakeFetch({URL: one_set("one", "two")}), FakeClock()
    sets = KeySets(fetch, clock)
    for _ in range(5):
        assert names(await sets.keys_for(SOURCE, "one")) == ["one"]
        assert names(await sets.keys_for(SOURCE, None)) == ["one", "two"]
    assert [(request.url, request.ca_pem) for request in fetch.asked] == [(URL, "CA")]
    clock.advance(FRESH_SECONDS + 1)
    fetch.answers[URL] = one_set("two")
    assert "not in the key set" in await refused(sets)  # taken out: does not count any more
    assert len(fetch.asked) == 2


async def test_unknown_kid_fetches_again_at_most_every_ten_seconds() -> None:
    fetch, clock = FakeFetch({URL: one_set("one")}), FakeClock()
    sets = KeySets(fetch, clock)
    assert await sets.keys_for(SOURCE, "one")
    for number in range(100):
        await refused(sets, f"made-up-{number}")
    assert len(fetch.asked) == 1
    clock.advance(REFETCH_SECONDS - 0.1)
    await refused(sets, "two")
    assert len(fetch.asked) == 1
    clock.advance(0.1)
    fetch.answers[URL] = one_set("one", "two")
    assert names(await sets.keys_for(SOURCE, "two")) == ["two"]
    await refused(sets, "three")
    assert len(fetch.asked) == 2


async def test_a_server_that_fails_is_asked_at_most_every_ten_seconds_and_its_last_set_ends() -> None:
    fetch, clock = FakeFetch(), FakeClock()
    sets = KeySets(fetch, clock)
    for _ in range(10):
        assert "status 404" in await refused(sets)
    assert len(fetch.asked) == 1
    clock.advance(REFETCH_SECONDS)
    fetch.answers[URL] = one_set("one")
    assert await sets.keys_for(SOURCE, "one")
    del fetch.answers[URL]
    clock.advance(STALE_SECONDS)
    assert await sets.keys_for(SOURCE, "one")
    clock.advance(1)
    assert "status 404" in await refused(sets)


async def test_one_fetch_is_in_flight_and_serves_all_who_wait_also_when_some_give_up() -> None:
    fetch = FakeFetch({URL: one_set("one")})
    fetch.gate = asyncio.Event()
    sets = KeySets(fetch, FakeClock())
    logins = [asyncio.create_task(sets.keys_for(SOURCE, "one")) for _ in range(20)]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    logins[0].cancel()
    await asyncio.sleep(0)
    fetch.gate.set()
    found = await asyncio.gather(*logins, return_exceptions=True)
    assert isinstance(found[0], asyncio.CancelledError)
    assert all(isinstance(keys, tuple) and names(keys) == ["one"] for keys in found[1:])
    assert len(fetch.asked) == 1


async def test_closing_ends_what_is_in_flight() -> None:
    fetch = FakeFetch({URL: one_set("one")})
    fetch.gate = asyncio.Event()
    sets = KeySets(fetch, FakeClock())
    login = asyncio.create_task(sets.keys_for(SOURCE, "one"))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    await sets.close()
    with pytest.raises(LoginRefused):
        await login


@pytest.mark.parametrize(
    "body", [b"", b"{}", b"[" * 9999, b'{"keys":[],"keys":[]}', b'{"keys":[{"kty":"RSA"}]}', b"<html>", b"\xff"]
)
async def test_what_a_server_answers_wrongly_is_no_key_set(body: bytes) -> None:
    sets = KeySets(FakeFetch({URL: body}), FakeClock())
    assert "no key set" in await refused(sets)
    with pytest.raises(KeySetRefused):
        await sets.check(SOURCE)


# -- discovery


def discovery(**changes: Any) -> bytes:
    return json.dumps({"issuer": ISSUER, "jwks_uri": URL} | changes).encode()


async def test_an_issuer_leads_to_its_keys() -> None:
    for issuer in (ISSUER, f"{ISSUER}/"):
        fetch = FakeFetch({DISCOVERY: discovery(issuer=issuer), URL: one_set("one")})
        sets = KeySets(fetch, FakeClock())
        source = OidcIssuer(issuer, "CA")
        await sets.check(source)
        assert names(await sets.keys_for(source, "one")) == ["one"]
        assert fetch.urls == [DISCOVERY, URL] * 2
        assert {request.ca_pem for request in fetch.asked} == {"CA"}


@pytest.mark.parametrize(
    "changes",
    [
        {"issuer": f"{ISSUER}/"},
        {"issuer": ISSUER.upper()},
        {"issuer": "https://issuer.example"},
        {"issuer": None},
        {"issuer": [ISSUER]},
        {"jwks_uri": None},
        {"jwks_uri": [URL]},
        {"jwks_uri": "http://issuer.example/keys"},
        {"jwks_uri": "file:///etc/passwd"},
        {"jwks_uri": "https://issuer.example@evil.example/keys"},
        {"jwks_uri": "https://evil.example/keys"},
        {"jwks_uri": "https://169.254.169.254/latest"},
        {"jwks_uri": "https://issuer.example/\ud800"},
    ],
)
async def test_a_document_of_another_issuer_or_that_leads_away_is_refused(changes: dict[str, Any]) -> None:
    fetch = FakeFetch(
        {DISCOVERY: discovery(**changes), URL: one_set("one"), "https://evil.example/keys": one_set("one")}
    )
    sets = KeySets(fetch, FakeClock())
    await refused(sets, source=OidcIssuer(ISSUER))
    with pytest.raises(KeySetRefused):
        await sets.check(OidcIssuer(ISSUER))
    assert set(fetch.urls) == {DISCOVERY}


async def test_keys_on_another_host_count_where_the_operator_says_so() -> None:
    other = "https://keys.example:8443/k"
    fetch = FakeFetch({DISCOVERY: discovery(jwks_uri=other), other: one_set("one")})
    for hosts in (["keys.example"], ["KEYS.example:8443"]):
        assert await KeySets(fetch, FakeClock(), hosts=hosts).keys_for(OidcIssuer(ISSUER), "one")
