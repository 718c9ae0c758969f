"""The CA configuration map: secrets apart, defaults filled in, one canonical text."""

import datetime
import uuid
from collections.abc import Mapping

import pytest

from cluster.base.config import ConnectSection
from cluster.base.errors import BadRequest
from cluster.ca.settings import (
    CASettings,
    FirstSettings,
    has_kept_key,
    keep_secrets,
    mistake_in,
    settings_of,
    unread_keys,
)
from cluster.seal.cover import Cover
from cluster.seal.keeper import new_cover_key
from providers.errors import ConfigInvalid

COVER = Cover(new_cover_key())


def settled(provider: str, raw: Mapping[str, object]) -> CASettings:
    return settings_of(provider, raw, COVER.cover_values)


def begun(section: ConnectSection) -> CASettings:
    return FirstSettings(section, COVER.cover_values).settings()


def bare(settings: CASettings) -> dict[str, object]:
    """Its secrets."""
    return COVER.uncover_values(settings.secrets)


def test_secrets_are_kept_apart_whatever_their_spelling() -> None:
    settings = settled("consul", {"privatekey": "k", "TOKEN": "t", "RootCert": "r"})
    assert bare(settings) == {"privatekey": "k", "TOKEN": "t"}
    assert settings.config == {"RootCert": "r", "IntermediateCertTTL": "8760h0m0s"}
    assert "secrets" not in repr(settings)
    assert not any(text in repr(settings.secrets) for text in ("'k'", "'t'"))


@pytest.mark.parametrize(
    ("given", "name"),
    [
        ("private_key", "PrivateKey"),
        ("Private-Key", "PrivateKey"),
        ("privatekey", "privatekey"),
        ("Auth-Method", "AuthMethod"),
        ("auth_method", "auth_method"),
        ("root_cert", "RootCert"),
        ("leaf-cert-ttl", "LeafCertTTL"),
        ("leafcertttl", "leafcertttl"),
        ("Some_Thing", "Some_Thing"),
    ],
)
def test_known_key_counts_in_any_spelling_and_an_unknown_one_stays(given: str, name: str) -> None:
    settings = settled("vault", {given: "x"})
    assert {**settings.config, **bare(settings)} == {name: "x", "IntermediateCertTTL": "8760h0m0s"}
    assert (name in settings.secrets) == ("ey" in name or "uth" in name)


def test_secrets_of_a_provider_that_is_not_installed_are_kept_apart_too() -> None:
    assert bare(settled("nope", {"Token": "t"})) == {"Token": "t"}


def test_given_intermediate_ttl_stays_under_any_spelling() -> None:
    assert settled("consul", {"intermediatecertttl": "30h"}).config == {"intermediatecertttl": "30h"}


def test_equal_settings_have_equal_texts() -> None:
    one = settled("consul", {"b": {"y": 1, "x": "ü"}, "a": [1.5, None]})
    other = settled("consul", {"a": [1.5, None], "b": {"x": "ü", "y": 1}})
    assert one.config_json == other.config_json
    assert one.config_json == '{"IntermediateCertTTL":"8760h0m0s","a":[1.5,null],"b":{"x":"ü","y":1}}'


@pytest.mark.parametrize("value", [float("nan"), float("inf"), b"x", {1, 2}], ids=str)
@pytest.mark.parametrize("key", ["x", "Token"])
def test_value_that_is_not_json_is_refused(key: str, value: object) -> None:
    with pytest.raises(ConfigInvalid, match="error decoding config"):
        settled("consul", {key: value})


def _settings(**secrets: object) -> CASettings:
    return CASettings("consul", {}, COVER.cover_values(secrets))


@pytest.mark.parametrize(
    ("given", "stored", "expected"),
    [
        ({}, {"PrivateKey": "k"}, {"PrivateKey": "k"}),
        ({"PrivateKey": "n"}, {"PrivateKey": "k"}, {"PrivateKey": "n"}),
        ({"privatekey": "n"}, {"PrivateKey": "k"}, {"privatekey": "n"}),
        ({"PrivateKey": ""}, {"PrivateKey": "k", "Token": "t"}, {"PrivateKey": "", "Token": "t"}),
        ({}, {"PrivateKey": ""}, {}),  # cleared earlier: it is not cleared again by every later PUT
    ],
)
def test_omitted_secret_is_kept_and_an_empty_one_clears(
    given: dict[str, object], stored: dict[str, object], expected: dict[str, object]
) -> None:
    kept = keep_secrets(_settings(**given), _settings(**stored))
    assert bare(kept) == expected
    assert has_kept_key(_settings(**given), kept) == (expected.get("PrivateKey") == "k")


def _vault(**secrets: object) -> CASettings:
    """What is stored."""
    return CASettings("vault", {}, COVER.cover_values(secrets))


@pytest.mark.parametrize("name", ["AuthMethod", "authmethod", "auth_method"])
def test_one_login_takes_the_place_of_the_other(name: str) -> None:
    method = {"Type": "approle"}
    with_token = keep_secrets(settled("vault", {"Token": "t"}), _vault(**{name: method, "PrivateKey": "k"}))
    assert bare(with_token) == {"Token": "t", "PrivateKey": "k"}
    with_method = keep_secrets(settled("vault", {name: method}), _vault(token="t"))
    assert bare(with_method) == {name: method}


@pytest.mark.parametrize("raw", [{}, {"Token": ""}])
def test_login_that_is_left_out_stays(raw: dict[str, object]) -> None:
    kept = keep_secrets(settled("vault", raw), _vault(AuthMethod={"Type": "approle"}))
    assert bare(kept)["AuthMethod"] == {"Type": "approle"}


# -- from the node's file


def test_new_ca_starts_from_consuls_defaults() -> None:
    settings = begun(ConnectSection())
    assert settings.provider == "consul"
    assert settings.config == {"LeafCertTTL": "72h", "IntermediateCertTTL": "8760h", "RootCertTTL": "87600h"}
    assert settings.secrets == {}


def test_names_of_configuration_files_become_those_of_the_api() -> None:
    section = ConnectSection(
        ca_config={
            "leaf_cert_ttl": "24h",
            "csr_max_per_second": 10,
            "private_key": "k",
            "root_pki_path": "p",
            "skip_validate": True,
            "address": "a",
            "PrivateKeyBits": 384,
            "test_state": {"a": "b"},
            "cluster_id": str(uuid.uuid4()),
        }
    )
    settings = begun(section)
    assert bare(settings) == {"PrivateKey": "k"}
    assert settings.config == {
        "LeafCertTTL": "24h",
        "IntermediateCertTTL": "8760h",
        "RootCertTTL": "87600h",
        "CSRMaxPerSecond": 10,
        "RootPKIPath": "p",
        "SkipValidate": True,
        "Address": "a",
        "PrivateKeyBits": 384,
        "test_state": {"a": "b"},
    }


def test_secret_under_another_name_in_a_node_s_file_is_refused_and_named() -> None:
    with pytest.raises(BadRequest, match=r"looks like a secret where it would be shown: VaultToken\. Secrets of the"):
        begun(ConnectSection(ca_provider="vault", ca_config={"vault_token": "s3cr3t"}))


def test_given_cluster_id_is_taken_in_its_canonical_form_and_a_missing_one_is_new() -> None:
    given = "{A0C1D2E3-0000-4000-8000-000000000001}"
    section = ConnectSection(ca_config={"cluster_id": given})
    assert FirstSettings(section, COVER.cover_values).new_cluster_id() == "a0c1d2e3-0000-4000-8000-000000000001"
    without = FirstSettings(ConnectSection(), COVER.cover_values)
    assert without.new_cluster_id() != without.new_cluster_id()


# -- what is wrong with a node's file

TOKEN = "hvs." + 24 * "A"
VAULT = {"address": "http://v:8200", "token": TOKEN, "root_pki_path": "r", "intermediate_pki_path": "i"}
SOUND: dict[str, tuple[str, Mapping[str, object]]] = {
    "nothing said": ("consul", {}),
    "names of files": ("consul", {"leaf_cert_ttl": "24h", "private_key_type": "rsa", "private_key_bits": 2048}),
    "names of the API": ("consul", {"LeafCertTTL": "24h", "AutoRotateRoot": True, "AutoRotateRootPercent": 30}),
    "a trust domain": ("consul", {"cluster_id": str(uuid.uuid4()), "csr_max_per_second": 0, "test_state": {"a": "b"}}),
    "Vault": ("vault", VAULT),
    "Vault, by a login": ("vault", {**VAULT, "token": "", "auth_method": {"Type": "kubernetes", "Params": {}}}),
}
MISTAKEN: dict[str, tuple[str, Mapping[str, object], str]] = {
    "provider": ("valt", {}, "connect.ca_provider = 'valt': must be 'consul' or 'vault'"),
    "provider, with a secret": (TOKEN, {}, "connect.ca_provider = (a secret): must be "),
    "duration": ("consul", {"leaf_cert_ttl": "72x"}, 'unknown unit "x" in duration "72x"'),
    "range": ("consul", {"leaf_cert_ttl": "1m"}, "leaf cert TTL must be greater or equal than 1h"),
    "kind": ("consul", {"leaf_cert_ttl": ["72h"]}, "'LeafCertTTL' expected type"),
    "key": ("consul", {"private_key_type": "dsa"}, "private key type must be either 'ec' or 'rsa'"),
    "percent": ("consul", {"auto_rotate_root_percent": 91}, "must be from 1 to 90 percent"),
    "date": ("consul", {"leaf_cert_ttl": datetime.date(2026, 1, 1)}, "error decoding config"),
    "secret in a wrong place": ("consul", {"leaf_cert_ttl": TOKEN}, "looks like a secret"),
    "secret of another provider": ("consul", {"pass_word": "SECRET"}, "looks like a secret"),
    "Vault without a login": ("vault", {**VAULT, "token": ""}, "must provide a Vault token"),
    "Vault, address": ("vault", {**VAULT, "address": "v:8200"}, "must be a URL"),
    "Vault, login": ("vault", {**VAULT, "token": "", "auth_method": {"Type": "x"}}, "must be one of approle"),
}


def section(provider: str, config: Mapping[str, object]) -> ConnectSection:
    return ConnectSection(ca_provider=provider, ca_config=dict(config))


@pytest.mark.parametrize("looks_at_key", [True, False])
@pytest.mark.parametrize("name", SOUND)
def test_file_of_which_a_ca_can_be_made_has_no_mistake(name: str, looks_at_key: bool) -> None:
    assert mistake_in(section(*SOUND[name]), looks_at_key=looks_at_key) == ""
    assert unread_keys(section(*SOUND[name])) == []


@pytest.mark.parametrize("looks_at_key", [True, False])
@pytest.mark.parametrize("name", MISTAKEN)
def test_mistake_is_told_on_one_line_without_secrets(name: str, looks_at_key: bool) -> None:
    provider, config, text = MISTAKEN[name]
    found = mistake_in(section(provider, config), looks_at_key=looks_at_key)
    assert text in found
    assert found.startswith("connect.ca_")
    assert found.isprintable()
    assert "SECRET" not in found
    assert TOKEN not in found


def test_operators_key_is_looked_at_only_where_that_is_asked_for() -> None:
    for config in ({"private_key": "SECRET"}, {"PrivateKey": "SECRET", "root_cert": "x"}):
        assert mistake_in(section("consul", config), looks_at_key=False) == ""
        found = mistake_in(section("consul", config), looks_at_key=True)
        assert found.startswith("connect.ca_config: PrivateKey cannot be used")
        assert "SECRET" not in found
    assert "must provide a private key" in mistake_in(section("consul", {"root_cert": "x"}), looks_at_key=True)


def test_keys_that_nobody_reads_are_named_as_they_stand_in_the_file() -> None:
    config: dict[str, object] = {"leaf_cert_tttl": "72h", "Leafcertttl": "72h", "cluster_id": None, TOKEN: "x"}
    assert unread_keys(section("consul", config)) == ["(a secret as a name)", "leaf_cert_tttl"]
    assert unread_keys(section("somebody's", config)) == []
    assert len(unread_keys(section("vault", {f"x{number}": 1 for number in range(99)}))) == 10
