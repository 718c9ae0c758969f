"""The common configuration: defaults, weak typing, and rules in Consul's order and words (consul-compat 1.2)."""

import pytest

from providers.config.common import CommonConfig
from providers.errors import ConfigInvalid
from providers.pki.keys import KeyKind

HOUR = 3_600_000_000_000


def test_empty_configuration_has_consuls_defaults() -> None:
    assert CommonConfig.parse({}) == CommonConfig(
        leaf_ttl_ns=72 * HOUR,
        intermediate_ttl_ns=8760 * HOUR,
        root_ttl_ns=87600 * HOUR,
        skip_validate=False,
        csr_max_per_second=50.0,
        csr_max_concurrent=0,
        key_kind=KeyKind("ec", 256),
        key_type_given=False,
        key_bits_given=False,
    )


def test_configuration_as_the_go_client_sends_it() -> None:
    """Durations as integer nanoseconds; unknown keys ignored (consul-compat 1.2 and 9)."""
    config = CommonConfig.parse(
        {
            "LeafCertTTL": 72 * HOUR,
            "IntermediateCertTTL": 300 * 24 * HOUR,
            "RootCertTTL": 11 * 365 * 24 * HOUR,
            "RotationPeriod": "2160h",
            "test_state": {"foo": "bar"},
        }
    )
    assert config.leaf_ttl_seconds == 72 * 3600
    assert config.intermediate_ttl_seconds == 300 * 86400
    assert config.root_ttl_seconds == 11 * 365 * 86400


def test_values_are_typed_weakly_and_keys_match_in_any_case() -> None:
    config = CommonConfig.parse(
        {
            "leafcertttl": "2h",
            "PRIVATEKEYTYPE": "rsa",
            "privateKeyBits": "2048",
            "CsrMaxPerSecond": "0",
            "csrMaxConcurrent": 4.0,
        }
    )
    assert config.leaf_ttl_ns == 2 * HOUR
    assert config.key_kind == KeyKind("rsa", 2048)
    assert (config.key_type_given, config.key_bits_given) == (True, True)
    assert (config.csr_max_per_second, config.csr_max_concurrent) == (0.0, 4)


def test_snake_case_keys_are_not_understood() -> None:
    assert CommonConfig.parse({"leaf_cert_ttl": "2h"}).leaf_ttl_ns == 72 * HOUR


def test_null_and_empty_key_settings_count_as_absent() -> None:
    config = CommonConfig.parse({"PrivateKeyType": "", "PrivateKeyBits": 0, "CSRMaxPerSecond": None})
    assert config == CommonConfig.parse({})


def test_explicit_default_key_kind_is_the_same_kind() -> None:
    assert CommonConfig.parse({"PrivateKeyType": "ec", "PrivateKeyBits": 256}).key_kind == KeyKind("ec", 256)


@pytest.mark.parametrize(
    ("raw", "text"),
    [
        (
            {"RootCertTTL": "24h", "IntermediateCertTTL": "8760h"},
            (
                "root cert TTL is set and is not greater than intermediate cert ttl. "
                "root cert ttl: 24h0m0s, intermediate cert ttl: 8760h0m0s"
            ),
        ),
        ({"LeafCertTTL": "59m"}, "leaf cert TTL must be greater or equal than 1h0m0s"),
        ({"LeafCertTTL": 3600}, "leaf cert TTL must be greater or equal than 1h0m0s"),
        ({"LeafCertTTL": 0}, "leaf cert TTL must be greater or equal than 1h0m0s"),
        ({"LeafCertTTL": "-72h"}, "leaf cert TTL must be greater or equal than 1h0m0s"),
        ({"LeafCertTTL": "8760h1ns"}, "leaf cert TTL must be less than 8760h0m0s"),
        (
            {"LeafCertTTL": "1h", "IntermediateCertTTL": "2h59m"},
            "Intermediate Cert TTL must be greater or equal than 3h",
        ),
        (
            {"LeafCertTTL": "72h", "IntermediateCertTTL": "215h"},
            "Intermediate Cert TTL must be greater or equal than 3 * LeafCertTTL (>=216h0m0s).",
        ),
        ({"PrivateKeyBits": 224}, "EC key length must be one of (256, 384, 521) bits"),
        ({"PrivateKeyType": "ec", "PrivateKeyBits": 2048}, "EC key length must be one of (256, 384, 521) bits"),
        ({"PrivateKeyType": "rsa"}, "RSA key length must be 2048 or 4096 bits"),
        ({"PrivateKeyType": "rsa", "PrivateKeyBits": 3072}, "RSA key length must be 2048 or 4096 bits"),
        ({"PrivateKeyType": "ed25519"}, "private key type must be either 'ec' or 'rsa'"),
        ({"CSRMaxPerSecond": -1}, "CSRMaxPerSecond and CSRMaxConcurrent must not be negative"),
    ],
)
def test_broken_rule_is_refused_in_consuls_words(raw: dict[str, object], text: str) -> None:
    with pytest.raises(ConfigInvalid) as caught:
        CommonConfig.parse(raw)
    assert str(caught.value) == text


def test_first_broken_rule_in_consuls_order_is_reported() -> None:
    broken: dict[str, object] = {
        "RootCertTTL": "1h",
        "LeafCertTTL": "1m",
        "IntermediateCertTTL": "2h",
        "PrivateKeyType": "x",
    }
    for repair, text in (
        ({"RootCertTTL": "87600h"}, "root cert TTL is set"),
        ({"LeafCertTTL": "1h"}, "leaf cert TTL must be greater"),
        ({"IntermediateCertTTL": "3h"}, "Intermediate Cert TTL"),
        ({"PrivateKeyType": "ec"}, "private key type"),
    ):
        with pytest.raises(ConfigInvalid, match=text):
            CommonConfig.parse(broken)
        broken |= repair
    CommonConfig.parse(broken)


def test_limits_themselves_are_allowed() -> None:
    CommonConfig.parse({"LeafCertTTL": "1h", "IntermediateCertTTL": "3h", "RootCertTTL": "3h"})
    CommonConfig.parse({"LeafCertTTL": "8760h", "IntermediateCertTTL": "26280h"})


def test_root_ttl_of_zero_counts_as_not_set() -> None:
    assert CommonConfig.parse({"RootCertTTL": 0}).root_ttl_ns == 87600 * HOUR


def test_skip_validate_permits_ttls_of_seconds_but_nothing_impossible() -> None:
    config = CommonConfig.parse({"SkipValidate": True, "LeafCertTTL": "1.5s", "IntermediateCertTTL": "10s"})
    assert (config.leaf_ttl_seconds, config.intermediate_ttl_seconds) == (2, 10)
    for raw, text in (
        ({"LeafCertTTL": "-1s"}, "must be greater than 0s"),
        ({"IntermediateCertTTL": "0s"}, "must be greater than 0s"),
        ({"PrivateKeyBits": 224}, "EC key length"),
        ({"PrivateKeyType": "dsa"}, "private key type"),
    ):
        with pytest.raises(ConfigInvalid, match=text):
            CommonConfig.parse({"SkipValidate": "true", **raw})


def test_bad_types_are_reported_before_any_rule() -> None:
    with pytest.raises(ConfigInvalid, match=r"^error decoding config: 1 error\(s\) decoding:"):
        CommonConfig.parse({"LeafCertTTL": "30d", "PrivateKeyBits": 224})


@pytest.mark.parametrize(
    ("raw", "fitting"),
    [
        ({}, {"ec256", "ec384", "rsa2048"}),
        ({"PrivateKeyType": "ec"}, {"ec256", "ec384"}),
        ({"PrivateKeyBits": 256}, {"ec256"}),
        ({"PrivateKeyType": "rsa", "PrivateKeyBits": 2048}, {"rsa2048"}),
    ],
)
def test_supplied_key_is_judged_by_what_is_given_only(raw: dict[str, object], fitting: set[str]) -> None:
    config = CommonConfig.parse(raw)
    kinds = [KeyKind("ec", 256), KeyKind("ec", 384), KeyKind("rsa", 2048)]
    assert {f"{kind.type}{kind.bits}" for kind in kinds if config.accepts_key(kind)} == fitting
