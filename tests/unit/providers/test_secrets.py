"""What is taken for a secret: a table over names, spellings, contents and depth."""

import base64
import time
from collections.abc import Mapping
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from providers.config.secrets import PUBLIC_KEYS, folded, secret_places, without_secrets

EC_KEY = "-----BEGIN EC PRIVATE KEY-----\nAAAA\n-----END EC PRIVATE KEY-----\n"
PKCS8 = EC_KEY.replace("EC PRIVATE", "PRIVATE")
CERT = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"
RSA_KEY = rsa.generate_private_key(65537, 2048)
JWT = "eyJhbGciOiJFUzI1NiJ9.eyJzdWIiOiJub2RlIn0.c2lnbmF0dXJl"


def places(config: Mapping[str, object]) -> list[str]:
    return list(secret_places(config))


@pytest.mark.parametrize(
    "name",
    [
        "PrivateKey",
        "private_key",
        "Private-Key",
        "PRIVATEKEY",
        "private key",
        "VaultToken",
        "vault_token",
        "Token",
        "token",
        "ClientSecret",
        "secret-id",
        "Password",
        "db_passwd",
        "Pass",
        "db_pass",
        "pwd",
        "Authorization",
        "Passphrase",
        "AWSCredentials",
        "credential",
        "AuthMethod",
        "auth_method",
        "ApiKey",
        "access-key",
        "JWT",
        "private.key",
    ],
)
@pytest.mark.parametrize("value", ["s", 7, {"a": "b"}, ["s"], True])
def test_name_of_a_secret_is_one_in_any_spelling_and_depth(name: str, value: object) -> None:
    assert places({name: value}) == [name]
    assert places({"x": {name: value}}) == [f"x.{name}"]
    assert places({"x": [{"y": 1}, {name: value}]}) == [f"x[1].{name}"]
    assert places({name: ""}) == places({name: None}) == []


@pytest.mark.parametrize(
    "text",
    [
        EC_KEY,
        PKCS8,
        EC_KEY.replace("EC PRIVATE", "ENCRYPTED PRIVATE"),
        EC_KEY.replace("EC PRIVATE", "OPENSSH PRIVATE"),
        EC_KEY.replace("\n", "\\n"),
        CERT + EC_KEY,
        "x" * 1000 + PKCS8,
        "hvs.CAESIJ1rhGQ4Yb7nJ0Qb3dQ",
        "token hvb.AAAAAQJ1rhGQ4Yb7nJ0Qb3dQ",
        "s.Hk2Pb7nJ0Qb3dQz1rhGQ4Yb7",
        "s.Hk2Pb7nJ0Qb3dQz1rhGQ4Yb7.a1B2c3",
        "hvs.CAESIJ1rhGQ4Yb7nJ0Qb3dQ.a1B2c3",
        "Bearer s.Hk2Pb7nJ0Qb3dQz1rhGQ4Yb7.a1B2c3",
        "bearer s.Hk2Pb7nJ0Qb3dQz1rhGQ4Yb7",
        "X-Vault-Token: s.Hk2Pb7nJ0Qb3dQz1rhGQ4Yb7",
        *(
            base64.b64encode(key.private_bytes(Encoding.DER, form, NoEncryption())).decode()
            for key in (ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP384R1()), RSA_KEY)
            for form in (PrivateFormat.PKCS8, PrivateFormat.TraditionalOpenSSL)
        ),
        pytest.param(
            base64.b64encode(
                Ed25519PrivateKey.generate().private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
            ).decode(),
            id="ed25519",  # it is short enough to be the name of the test, another one each time
        ),
        JWT,
        "https://ann:pass@vault.test:8200",
        "https://s3cr3t@vault.test:8200",
    ],
)
def test_contents_of_a_secret_are_one_under_any_name(text: str) -> None:
    for name in ("RootCert", "root_cert", "Address", "Note", "LeafCertTTL", "PrivateKeyType"):
        assert places({name: text}) == [name]
    assert places({"x": {"y": [text]}}) == ["x.y[0]"]
    assert places({text: ""}) == places({text: "a key"}) == ["(a secret as a name)"]


def test_everything_else_is_none() -> None:
    config: dict[str, Any] = dict.fromkeys(PUBLIC_KEYS, "value")
    config |= {"RootCert": CERT, "Address": "https://vault.test:8200/prefix", "PrivateKeyBits": 256}
    config |= {"Bypass": True, "Compass": "north", "CertDER": base64.b64encode(b"0\x82\x01\x000\x81\xaa" * 20).decode()}
    config |= {"Note": "s.short", "test_state": {"a": "b"}, "nested": {"list": [1, None, {"x": "https://a/b@c"}]}}
    assert places(config) == []
    assert without_secrets(config) == config


def test_what_is_shown_lacks_every_secret_and_nothing_else() -> None:
    config = {"a": 1, "private_key": "k", "x": {"y": 2, "Token": "t", "z": [EC_KEY, {"Password": "p", "q": 3}]}}
    assert without_secrets(config) == {"a": 1, "x": {"y": 2, "z": [{"q": 3}]}}


def test_what_is_nested_too_deep_to_look_at_counts_as_one() -> None:
    deep: Any = {"Token": "t"}
    for _ in range(500):
        deep = {"x": deep}
    assert len(places(deep)) == 1
    assert "Token" not in str(without_secrets(deep))


@pytest.mark.parametrize(
    "piece",
    ["-----BEGIN ", "eyJ", "eyJaaaaaaaa.", "://", "://a:", ":", "a", "hvs.", "-----BEGIN A", "s.", "MII", "x "],
    ids=str,
)
def test_looking_takes_no_longer_than_a_text_is(piece: str) -> None:
    started = time.process_time()
    places({"x": piece * (500_000 // len(piece))})
    assert time.process_time() - started < 2.0


def test_spellings_of_one_name() -> None:
    assert {folded(name) for name in ("RootCert", "root_cert", "ROOT-CERT", "rootcert")} == {"rootcert"}
