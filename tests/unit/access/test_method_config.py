"""Config of auth methods: Consul's types and texts, and what is secret."""

import json
from typing import Any

import pytest

from cluster.access.bind_names import BindNameRefused, check_bind_name
from cluster.access.methods.config import (
    HIDDEN,
    JwtConfig,
    KubernetesConfig,
    KubernetesOfflineConfig,
    TlsConfig,
    TokenCheck,
    fields_of,
    stored_config,
    written_config,
)
from cluster.access.methods.key_sets import JwksUrl, KeyList, OidcIssuer
from cluster.access.methods.refusal import MethodInvalid
from cluster.access.selector import SelectorRefused, parse_selector
from fsm.acl import MethodType
from providers.pki.spiffe import Kind
from tests.kit import pki
from tests.kit.tokens import public_pem, signer, token_of

PEM = public_pem(signer())
CA = pki.pem(pki.root_certificate(pki.key()))
SECRET = token_of({"sub": "reviewer"})
JWT = {"JWTValidationPubKeys": [PEM]}
KUBERNETES = {"Host": "https://k8s.example:6443", "CACert": CA, "ServiceAccountJWT": SECRET}
OFFLINE = {"JWKSURL": "https://k8s.example/openid/v1/jwks", "BoundIssuer": "k8s", "BoundAudiences": ["ca"]}
SECOND = 1_000_000_000


def refused(kind: MethodType, raw: dict[str, Any], **options: Any) -> str:
    with pytest.raises(MethodInvalid) as caught:
        written_config(kind, raw, **options)
    text = str(caught.value)
    assert text.startswith("Invalid Auth Method: ")
    assert SECRET not in text
    return text.removeprefix("Invalid Auth Method: ")


def check_of(**raw: Any) -> TokenCheck:
    config = written_config(MethodType.JWT, JWT | raw).config
    assert isinstance(config, JwtConfig)
    return config.check


def test_defaults_are_consuls() -> None:
    assert written_config(MethodType.JWT, JWT).config == JwtConfig(
        TokenCheck(KeyList((PEM,)), "", frozenset(), frozenset({"RS256"}), 150, 150, 60.0)
    )


def test_types_are_weak_as_in_consul() -> None:
    one = check_of(JWTValidationPubKeys=PEM, BoundAudiences="ca", JWTSupportedAlgs="ES256", boundissuer=7)
    assert one == TokenCheck(KeyList((PEM,)), "7", frozenset({"ca"}), frozenset({"ES256"}), 150, 150, 60.0)
    some = check_of(ExpirationLeeway="1m30s", NotBeforeLeeway=10 * SECOND, ClockSkewLeeway="250ms")
    assert (some.expiration_leeway_seconds, some.not_before_leeway_seconds, some.skew_seconds) == (
        90,
        10,
        0.25,
    )
    none = check_of(ExpirationLeeway=-1, NotBeforeLeeway="-1s", ClockSkewLeeway=-SECOND)
    assert (none.expiration_leeway_seconds, none.not_before_leeway_seconds, none.skew_seconds) == (0, 0, 0)
    zero = check_of(ExpirationLeeway=0, NotBeforeLeeway="0s", ClockSkewLeeway="0")
    assert zero == check_of()


def test_key_sources_are_read() -> None:
    def source_of(**raw: Any) -> object:
        config = written_config(MethodType.JWT, raw).config
        assert isinstance(config, JwtConfig)
        return config.check.source

    assert source_of(JWKSURL="https://a.example/k?x=1", JWKSCACert=CA) == JwksUrl("https://a.example/k?x=1", CA)
    assert source_of(OIDCDiscoveryURL="https://a.example/") == OidcIssuer("https://a.example/")
    discovered = written_config(MethodType.JWT, {"OIDCDiscoveryURL": "https://a.example"}).config
    assert isinstance(discovered, JwtConfig)
    assert discovered.check.issuer == "https://a.example"


EXACTLY = "exactly one of 'JWTValidationPubKeys', 'JWKSURL', or 'OIDCDiscoveryURL' must be set for type \"jwt\""
ONE_ERROR = "error decoding config: 1 error(s) decoding:\n\n* "


@pytest.mark.parametrize(
    ("raw", "text"),
    [
        ({}, EXACTLY),
        (JWT | {"JWKSURL": "https://a.example"}, EXACTLY),
        ({"JWKSURL": "https://a.example", "OIDCDiscoveryURL": "https://a.example"}, EXACTLY),
        ({"JWTValidationPubKeys": []}, EXACTLY),
        (JWT | {"JWTSupportedAlgs": ["RS256", "HS256"]}, "Invalid supported algorithm: HS256"),
        (JWT | {"JWTSupportedAlgs": "none"}, "Invalid supported algorithm: none"),
        (JWT | {"NoSuch": 1, "Other": 2}, ONE_ERROR + "'' has invalid keys: NoSuch, Other"),
        (JWT | {"OIDCClientSecret": SECRET}, ONE_ERROR + "'' has invalid keys: OIDCClientSecret"),
        (JWT | {"BoundIssuer": "a", "boundISSUER": "b"}, ONE_ERROR + "'BoundIssuer' is given more than once"),
        (JWT | {"BoundIssuer": {}}, ONE_ERROR + "'BoundIssuer' expected type 'string', got unconvertible type"),
        (JWT | {"BoundAudiences": [{}]}, ONE_ERROR + "'BoundAudiences[0]' expected type 'string'"),
        (JWT | {"ClaimMappings": ["a"]}, ONE_ERROR + "'ClaimMappings' expected type 'map[string]string'"),
        (JWT | {"ClockSkewLeeway": "1"}, ONE_ERROR + "error decoding 'ClockSkewLeeway': time: missing unit"),
        (JWT | {"ClockSkewLeeway": []}, ONE_ERROR + "'ClockSkewLeeway' expected type 'time.Duration'"),
        (JWT | {"ClaimMappings": {"a": "x", "b": "x"}}, 'ClaimMappings contains multiple mappings for key "x"'),
        (JWT | {"ListClaimMappings": {"a": "x", "b": "x"}}, 'ListClaimMappings contains multiple mappings for key "x"'),
        (JWT | {"ClaimMappings": {"a": "x.y"}}, "ClaimMappings: 'x.y': must be"),
        (JWT | {"ClaimMappings": {"a": ""}}, "ClaimMappings: '': must be"),
        (JWT | {"ClaimMappings": {"/a~2": "x"}}, "ClaimMappings: '/a~2': must be a JSON pointer"),
        (
            {"JWTValidationPubKeys": [PEM, "x"]},
            "error parsing public key JWTValidationPubKeys[1]: data does not",
        ),
        ({"JWTValidationPubKeys": pki.key_pem(pki.key())}, "error parsing public key JWTValidationPubKeys[0]: data"),
        ({"JWTValidationPubKeys": PEM + PEM}, "error parsing public key JWTValidationPubKeys[0]: data"),
        ({"JWTValidationPubKeys": [PEM] * 65}, "JWTValidationPubKeys has 65 items: at most 64 are allowed"),
        (JWT | {"JWKSCACert": CA}, "'JWKSCACert' should not be set unless 'JWKSURL' is set"),
        (JWT | {"OIDCDiscoveryCACert": CA}, "'OIDCDiscoveryCACert' should not be set unless"),
        ({"JWKSURL": "https://a.example", "JWKSCACert": "x"}, "error checking JWKSCACert: must be certificates"),
        (
            {"JWKSURL": "https://a.example", "JWKSCACert": CA + pki.key_pem(pki.key())},
            "error checking JWKSCACert: must be certificates",
        ),
        ({"JWKSURL": "http://a.example"}, "error checking JWKSURL: 'http://a.example': must be an https URL"),
        ({"JWKSURL": "https://u:p@a.example"}, "error checking JWKSURL: "),
        ({"OIDCDiscoveryURL": "https://a.example?x"}, "error checking OIDCDiscoveryURL: "),
        ({"OIDCDiscoveryURL": "file:///etc/passwd"}, "error checking OIDCDiscoveryURL: "),
        ({"OIDCDiscoveryURL": "https://a.example", "BoundIssuer": "b"}, "BoundIssuer is not OIDCDiscoveryURL"),
        (JWT | {"BoundIssuer": "\ud800"}, "BoundIssuer must contain neither NUL nor"),
        (JWT | {"BoundIssuer": "a\0"}, "BoundIssuer must contain neither NUL nor"),
        (JWT | {"BoundIssuer": "a" * 2049}, "BoundIssuer has a text of 2049 characters: at most 2048 are allowed"),
        (JWT | {"BoundAudiences": ["a"] * 257}, "BoundAudiences has 257 items: at most 256 are allowed"),
    ],
)
def test_what_is_wrong_with_a_jwt_method_is_named(raw: dict[str, Any], text: str) -> None:
    assert refused(MethodType.JWT, raw).startswith(text)


@pytest.mark.parametrize(
    ("raw", "text"),
    [
        ({}, "Config.Host is required"),
        ({"Host": "https://a.example"}, "Config.CACert is required"),
        ({"Host": "https://a.example", "CACert": CA}, "Config.ServiceAccountJWT is required"),
        (KUBERNETES | {"Host": "http://a.example"}, "Config.Host: 'http://a.example': must be an https URL"),
        (KUBERNETES | {"Host": "https://a.example?x=1"}, "Config.Host: "),
        (KUBERNETES | {"CACert": "x"}, "error parsing kubernetes ca cert: must be certificates in PEM"),
        (KUBERNETES | {"ServiceAccountJWT": "x"}, "Config.ServiceAccountJWT is not a valid JWT"),
        (KUBERNETES | {"ServiceAccountJWT": "a.b.c\r\nX: y"}, "Config.ServiceAccountJWT is not a valid JWT"),
        (KUBERNETES | {"ServiceAccountJWT": HIDDEN}, "Config.ServiceAccountJWT is <hidden>: there is none"),
        (KUBERNETES | {"BoundIssuer": "x"}, "'BoundIssuer' should not be set unless the keys"),
        (KUBERNETES | {"ClaimMappings": {"a": "b"}}, ONE_ERROR + "'' has invalid keys: ClaimMappings"),
        (KUBERNETES | OFFLINE, "'Host' must not be set when the keys of the cluster are given"),
        (OFFLINE | {"BoundAudiences": None}, "Config.BoundIssuer and Config.BoundAudiences are required"),
        (OFFLINE | {"BoundIssuer": ""}, "Config.BoundIssuer and Config.BoundAudiences are required"),
    ],
)
def test_what_is_wrong_with_a_kubernetes_method_is_named(raw: dict[str, Any], text: str) -> None:
    assert refused(MethodType.KUBERNETES, raw).startswith(text)


def test_kubernetes_and_tls_methods_are_read() -> None:
    assert written_config(MethodType.KUBERNETES, KUBERNETES).config == KubernetesConfig(
        "https://k8s.example:6443", CA, SECRET
    )
    bare = written_config(MethodType.KUBERNETES, KUBERNETES | {"Host": "10.0.0.1:6443"}).config
    assert isinstance(bare, KubernetesConfig)
    assert bare.host == "https://10.0.0.1:6443"
    offline = written_config(MethodType.KUBERNETES, OFFLINE).config
    assert isinstance(offline, KubernetesOfflineConfig)
    assert offline.check.source == JwksUrl("https://k8s.example/openid/v1/jwks")
    assert written_config(MethodType.TLS, {}).config == TlsConfig(frozenset({Kind.SERVICE}))
    assert written_config(MethodType.TLS, {"Kinds": ["agent", "service"]}).config == TlsConfig(
        frozenset({Kind.SERVICE, Kind.AGENT})
    )
    assert "must be one of service, agent" in refused(MethodType.TLS, {"Kinds": "signing"})
    moments = {"web": "2027-01-15T08:00:00Z", "*": "2027-01-15T10:00:00.5+02:00"}
    assert written_config(MethodType.TLS, {"NotBefore": moments}).config == TlsConfig(
        frozenset({Kind.SERVICE}), (("*", 1_800_000_001), ("web", 1_800_000_000))
    )
    for moment in ("", "2027-01-15", "2027-01-15T08:00:00", "now", "1800000000"):
        text = refused(MethodType.TLS, {"NotBefore": {"web": moment}})
        assert text == f"Config.NotBefore[web]: {moment!a} must be RFC 3339, as in 2027-01-31T12:00:00Z"
    many = {str(number): moments["web"] for number in range(257)}
    assert refused(MethodType.TLS, {"NotBefore": many}) == "NotBefore has 257 items: at most 256 are allowed"
    assert "'' has invalid keys: NotBefore" in refused(MethodType.JWT, JWT | {"NotBefore": moments})


@pytest.mark.parametrize(
    ("kind", "raw"),
    [
        (MethodType.JWT, JWT | {"clockSKEWleeway": "5s", "boundAudiences": "é", "ClaimMappings": {"b": "b", "a": "a"}}),
        (MethodType.KUBERNETES, KUBERNETES),
        (MethodType.KUBERNETES, OFFLINE),
        (MethodType.TLS, {"Kinds": "agent", "notbefore": {"web": "2027-01-15T08:00:00Z"}}),
    ],
)
def test_what_is_stored_is_canonical_shows_no_secret_and_means_the_same(kind: MethodType, raw: dict[str, Any]) -> None:
    written = written_config(kind, raw)
    assert SECRET not in written.public_json
    assert SECRET not in repr(written)
    assert written.public_json == json.dumps(json.loads(written.public_json), sort_keys=True, separators=(",", ":"))
    assert stored_config(kind, written.public_json, written.secrets) == written
    shown = json.loads(written.public_json)
    assert written_config(kind, shown, written) == written  # a client sends back what it has read
    assert written_config(kind, dict(reversed(list(raw.items())))).public_json == written.public_json


def test_a_secret_stays_only_where_it_is_sent_to_the_same_server() -> None:
    written = written_config(MethodType.KUBERNETES, KUBERNETES)
    kept = KUBERNETES | {"ServiceAccountJWT": HIDDEN}
    assert json.loads(written.public_json)["ServiceAccountJWT"] == HIDDEN
    assert written_config(MethodType.KUBERNETES, kept, written) == written
    other = pki.pem(pki.root_certificate(pki.key("ec", 384)))
    for change, named in (({"Host": "https://evil.example"}, "Host"), ({"CACert": other}, "CACert")):
        text = refused(MethodType.KUBERNETES, kept | change, before=written)
        assert text == f"Config.ServiceAccountJWT must be given again when {named} is changed"
    assert "is required" in refused(MethodType.KUBERNETES, KUBERNETES | {"ServiceAccountJWT": ""}, before=written)


def test_fields_that_rules_may_ask() -> None:
    mapped: dict[str, object] = {"ClaimMappings": {"sub": "name"}, "ListClaimMappings": {"/a/b": "groups"}}
    jwt = written_config(MethodType.JWT, {**JWT, **mapped}).config
    parse_selector("value.name == x and a in list.groups", fields_of(jwt))
    for text in ('value.nosuch != ""', "value.groups == x", "a not in list.name", "list.nosuch is empty", "name == x"):
        with pytest.raises(SelectorRefused, match=r"known are value\.name, list\.groups$"):
            parse_selector(text, fields_of(jwt))
    with pytest.raises(SelectorRefused, match="the method has none"):
        parse_selector('value.name != ""', fields_of(written_config(MethodType.JWT, JWT).config))
    check_bind_name("${value.name}", fields_of(jwt))
    for text in ("${value.nosuch}", "${list.groups}", "${serviceaccount.name}"):
        with pytest.raises(BindNameRefused):
            check_bind_name(text, fields_of(jwt))
    for raw in (KUBERNETES, OFFLINE):
        kubernetes = written_config(MethodType.KUBERNETES, raw).config
        parse_selector("serviceaccount.uid == x", fields_of(kubernetes))
        check_bind_name("${serviceaccount.namespace}-${serviceaccount.name}", fields_of(kubernetes))
        with pytest.raises(SelectorRefused):
            parse_selector("value.name == x", fields_of(kubernetes))
    tls = written_config(MethodType.TLS, {}).config
    parse_selector("trust_domain == a and datacenter == b and kind == c", fields_of(tls))
    check_bind_name("${name}", fields_of(tls))


@pytest.mark.parametrize("kind", list(MethodType))
@pytest.mark.parametrize("value", [None, True, -1, 1e300, float("nan"), "x", "\ud800", [], [[]], {}, {"a": {}}, [None]])
def test_no_value_raises_anything_but_a_refusal(kind: MethodType, value: object) -> None:
    for good in (JWT, KUBERNETES, OFFLINE, {}):
        for name in [
            *JWT,
            *KUBERNETES,
            *OFFLINE,
            "ClaimMappings",
            "ClockSkewLeeway",
            "Kinds",
            "NotBefore",
            "OIDCDiscoveryURL",
            "JWKSCACert",
        ]:
            try:
                written_config(kind, good | {name: value})
            except MethodInvalid:
                continue
