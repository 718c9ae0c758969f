import json
from pathlib import Path

import pytest

from tests.kit.fake_api import FakeApi
from tests.parts.cli.conftest import Run

ROOTS = "/v1/connect/ca/roots"
CONFIGURATION = "/v1/connect/ca/configuration"
PEM = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"


def root(number: int, *, is_active: bool) -> dict[str, object]:
    return {
        "ID": f"0{number}:aa",
        "Name": "Consul CA Primary Cert",
        "SerialNumber": 7,
        "NotAfter": "2036-06-06T17:35:25Z",
        "RootCert": PEM,
        "IntermediateCerts": None,
        "Active": is_active,
        "PrivateKeyType": "ec",
        "PrivateKeyBits": 256,
    }


ANSWER = {
    "ActiveRootID": "02:aa",
    "TrustDomain": "11111111-2222.consul",
    "Roots": [root(1, is_active=False), root(2, is_active=True)],
}


def test_roots_as_table(run: Run, api: FakeApi) -> None:
    api.answer("GET", ROOTS, ANSWER)
    result = run("ca roots -stale -datacenter dc2 -token secret")
    assert (result.code, result.err) == (0, "")
    assert result.out == (
        "Trust domain: 11111111-2222.consul\n"
        "ID     Name                    Active  NotAfter              Key\n"
        "01:aa  Consul CA Primary Cert  false   2036-06-06T17:35:25Z  ec 256\n"
        "02:aa  Consul CA Primary Cert  true    2036-06-06T17:35:25Z  ec 256\n"
    )
    assert (api.last.query, api.last.token) == ({"stale": "", "dc": "dc2"}, "secret")


def test_roots_as_json(run: Run, api: FakeApi) -> None:
    api.answer("GET", ROOTS, ANSWER)
    assert json.loads(run("ca roots -format=json").out) == ANSWER


def test_roots_as_pem(run: Run, api: FakeApi) -> None:
    api.answer("GET", ROOTS, PEM * 2)
    result = run("ca roots --pem")
    assert (result.code, result.out) == (0, PEM * 2)
    assert api.last.query == {"pem": "1"}


def test_roots_as_pem_in_json_is_a_usage_error(run: Run, api: FakeApi) -> None:
    assert run("ca roots --pem --format json").code == 2
    assert api.requests == []


def test_get_config_prints_gos_json(run: Run, api: FakeApi) -> None:
    api.answer(
        "GET",
        CONFIGURATION,
        {"ModifyIndex": 9, "CreateIndex": 5, "Config": {"LeafCertTTL": "72h"}, "Provider": "consul", "State": None},
    )
    expected = (
        '{\n\t"Provider": "consul",\n\t"Config": {\n\t\t"LeafCertTTL": "72h"\n\t},\n\t"State": null,\n'
        '\t"ForceWithoutCrossSigning": false,\n\t"CreateIndex": 5,\n\t"ModifyIndex": 9\n}\n'
    )
    for form in ("pretty", "json"):
        result = run("ca", "get-config", "--format", form)
        assert (result.code, result.out, result.err) == (0, expected, "")


def test_get_config_fails_in_consuls_words(run: Run, api: FakeApi) -> None:
    api.answer("GET", CONFIGURATION, "Permission denied", status=403)
    result = run("ca get-config")
    assert (result.code, result.out) == (1, "")
    assert result.err == "Error querying CA configuration: Unexpected response code: 403 (Permission denied)\n"


def test_get_config_of_nobody(run: Run) -> None:
    result = run("ca get-config -http-addr 127.0.0.1:1")
    assert result.code == 3
    assert result.err == "Error querying CA configuration: cannot reach http://127.0.0.1:1: Connection refused\n"


@pytest.mark.parametrize(
    ("in_file", "argv", "sent"),
    [
        ({}, [], {}),
        ({}, ["-force-without-cross-signing"], {"ForceWithoutCrossSigning": True}),
        ({"ForceWithoutCrossSigning": True}, [], {"ForceWithoutCrossSigning": True}),
        ({"ForceWithoutCrossSigning": False}, ["-force-without-cross-signing"], {"ForceWithoutCrossSigning": True}),
        ({"force_without_cross_signing": False}, ["--force-without-cross-signing"], {"ForceWithoutCrossSigning": True}),
        (
            {"forcewithoutcrosssigning": True},
            ["-force-without-cross-signing=false"],
            {"forcewithoutcrosssigning": True},
        ),
    ],
)
def test_set_config_flag_only_ever_sets_the_field(
    run: Run, api: FakeApi, tmp_path: Path, in_file: dict[str, bool], argv: list[str], sent: dict[str, bool]
) -> None:
    """Deviates from Consul, where an absent flag overwrites the file's true (consul-compat 11.7)."""
    config = {"Provider": "consul", "Config": {"LeafCertTTL": "72h", "CSRMaxPerSecond": 1 << 60}}
    (tmp_path / "config.json").write_text(json.dumps(config | in_file))
    api.answer("PUT", CONFIGURATION)
    result = run("ca", "set-config", "-config-file", "config.json", *argv)
    assert (result.code, result.out, result.err) == (0, "Configuration updated!\n", "")
    assert api.last.body == config | sent


def test_set_config_fails_in_consuls_words(run: Run, api: FakeApi, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"Provider": "x"}')
    api.answer("PUT", CONFIGURATION, 'could not initialize provider: unknown CA provider "x"', status=500)
    result = run("ca set-config -config-file=config.json")
    assert (result.code, result.out) == (1, "")
    assert result.err == (
        "Error setting CA configuration: Unexpected response code: 500"
        ' (could not initialize provider: unknown CA provider "x")\n'
    )


@pytest.mark.parametrize(
    ("content", "code", "text"),
    [
        (None, 1, "Error reading config file: config.json: No such file or directory"),
        ("", 1, "Error reading config file: config.json: Expecting value"),
        ("[]", 1, "Error reading config file: config.json: must be a JSON object with Provider and Config"),
        ("[" * 100_000, 1, "Error reading config file: config.json: is nested too deeply"),
        (" " * (512 * 1024 + 1), 1, "Error reading config file: config.json: is larger than 524288 bytes"),
    ],
)
def test_set_config_sends_nothing_but_a_json_object(
    run: Run, api: FakeApi, tmp_path: Path, content: str | None, code: int, text: str
) -> None:
    if content is not None:
        (tmp_path / "config.json").write_text(content)
    result = run("ca set-config -config-file config.json")
    assert (result.code, api.requests) == (code, [])
    assert result.err.startswith(text)


@pytest.mark.parametrize(
    ("config", "is_secret"),
    [
        ({"LeafCertTTL": "72h", "PrivateKeyType": "rsa", "PrivateKeyBits": 2048, "RootCert": "x"}, False),
        ({"LeafCertTTL": "72h", "PrivateKey": "x"}, True),
        ({"Token": "x"}, True),
        ({"AuthMethod": {"Params": {"secret_id": "x"}}}, True),
        ({"Note": "-----BEGIN EC PRIVATE KEY-----"}, True),
    ],
)
@pytest.mark.parametrize("name", ["Config", "config"])
def test_keys_and_logins_of_a_provider_go_over_tls_or_to_this_machine(
    run: Run, api: FakeApi, tmp_path: Path, config: dict[str, object], is_secret: bool, name: str
) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"Provider": "consul", name: config}))
    result = run("ca set-config -config-file config.json -http-addr 0.0.0.0:1")
    assert ("a secret would be sent in clear" in result.err) is is_secret
    assert result.code == (2 if is_secret else 3)
    api.answer("PUT", CONFIGURATION)
    assert run("ca set-config -config-file config.json").code == 0


def test_set_config_needs_a_file(run: Run) -> None:
    result = run("ca set-config")
    assert (result.code, result.err) == (2, "The -config-file flag is required\n")
