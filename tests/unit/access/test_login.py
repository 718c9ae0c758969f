"""What a login gives, and certificates as logins."""

import random
from collections.abc import Sequence
from typing import Any

import pytest

from cluster.access.login import MAX_META, Granted, MetaRefused, description_of, grant, identity_of
from cluster.access.methods.config import TlsConfig, written_config
from cluster.access.methods.key_sets import KeySets
from cluster.access.methods.prove import REFUSED_AFTER_SECONDS, Prover, hold_refusal
from cluster.access.methods.refusal import LoginRefused, MethodInvalid
from cluster.access.methods.tls import Trust, proved_by_certificate
from cluster.access.selector import Fields, Proved
from fsm.acl import AuthMethod, BindingRule, BindType, Locality, MethodType, NodeIdentity, ServiceIdentity
from providers.pki.spiffe import Kind
from tests.kit import login_proofs, pki
from tests.kit.acl_samples import uuid
from tests.kit.clock import FakeClock
from tests.kit.fake_fetch import FakeFetch
from tests.kit.tokens import jwk, jwks, public_pem, signer

NOW = 1_800_000_000
FIELDS = Fields(
    frozenset({"serviceaccount.name", "value.team", "value.absent"}), frozenset({"list.groups", "list.absent"})
)
PROVED = Proved({"serviceaccount.name": "web", "value.team": "ops"}, {"list.groups": ("a", "b")})
POLICIES = {"p-web": uuid(1), "p-ops": uuid(2)}
ROLES = {"r-ops": uuid(3), "r-web": uuid(4)}


def method_of(**changes: Any) -> AuthMethod:
    values: dict[str, Any] = {
        "name": "k8s",
        "kind": MethodType.KUBERNETES,
        "display_name": "",
        "description": "",
        "config_json": "{}",
    }
    return AuthMethod(**(values | changes))


def rule(bind_type: BindType, bind_name: str, selector: str = "", method: str = "k8s") -> BindingRule:
    return BindingRule(uuid(9), "", method, selector, bind_type, bind_name)


def granted(rules: Sequence[BindingRule], method: AuthMethod | None = None, proved: Proved = PROVED) -> Granted:
    return grant(
        method or method_of(),
        proved,
        rules,
        fields=FIELDS,
        policy_id=POLICIES.get,
        role_id=ROLES.get,
        datacenter="dc1",
        description="token created via login",
        now=NOW,
    )


def refused(rules: Sequence[BindingRule], **options: Any) -> str:
    with pytest.raises(LoginRefused) as caught:
        granted(rules, **options)
    return caught.value.reason


def test_all_rules_that_hold_add_up() -> None:
    found = granted(
        [
            rule(BindType.SERVICE, "${serviceaccount.name}", "serviceaccount.name == web"),
            rule(BindType.SERVICE, "web"),
            rule(BindType.SERVICE, "api", "a in list.groups"),
            rule(BindType.SERVICE, "db", "serviceaccount.name == db"),
            rule(BindType.SERVICE, "other", method="other"),
            rule(BindType.NODE, "node-${value.team}"),
            rule(BindType.POLICY, "p-${value.team}"),
            rule(BindType.POLICY, "nosuch"),
            rule(BindType.ROLE, "r-web"),
            rule(BindType.ROLE, "r-${value.team}"),
            rule(BindType.ROLE, "r-web"),
        ]
    )
    assert found == Granted(
        "token created via login",
        (uuid(2),),
        (uuid(4), uuid(3)),
        (ServiceIdentity("web"), ServiceIdentity("api")),
        (NodeIdentity("node-ops", "dc1"),),
        True,
        "k8s",
        identity_of("k8s", PROVED),
        NOW,
        NOW + 86_400,
    )


def test_identity_is_the_method_and_all_that_was_proved() -> None:
    texts, lists = {"a": "1", "b": "2"}, {"list.g": ("x", "y")}
    own = identity_of("k8s", Proved(texts, lists))
    assert own == identity_of("k8s", Proved(dict(reversed(texts.items())), {"list.g": ["y", "x", "y"]}))
    others = [
        identity_of("other", Proved(texts, lists)),
        identity_of("k8s", Proved(texts)),
        identity_of("k8s", Proved({}, lists)),
        identity_of("k8s", Proved({"a": "2", "b": "1"}, lists)),
        identity_of("k8s", Proved({"a": "1"}, lists)),
        identity_of("k8s", Proved(texts, {"list.g": ("xy",)})),
        identity_of("k8s", Proved(texts, {"list.g": ("x",), "list.h": ("y",)})),
        identity_of("k8s", Proved(texts, {**lists, "list.h": ()})),
    ]
    assert len({own, *others}) == 1 + len(others)
    assert {len(one) for one in others} == {32}


@pytest.mark.parametrize(
    "rules",
    [
        [],
        [rule(BindType.SERVICE, "web", "serviceaccount.name == db")],
        [rule(BindType.SERVICE, "web", method="other")],
        [rule(BindType.SERVICE, "web", "no selector ==")],
        [rule(BindType.SERVICE, "web", "not nosuch.field == x")],
        # Names that the method has mapped once, and does not map any more.
        [rule(BindType.SERVICE, "web", 'value.former != ""')],
        [rule(BindType.SERVICE, "web", "value.former != x")],
        [rule(BindType.SERVICE, "web", "not (value.former == x)")],
        [rule(BindType.SERVICE, "web", "x not in list.former")],
        [rule(BindType.SERVICE, "web", "list.former is empty")],
        # Names that are mapped, to what this login has not brought.
        [rule(BindType.SERVICE, "web", 'value.absent != ""')],
        [rule(BindType.SERVICE, "web", 'not value.absent == ""')],
        [rule(BindType.SERVICE, "web", "list.absent is not empty")],
        [rule(BindType.POLICY, "nosuch"), rule(BindType.ROLE, "nosuch")],
        [rule(BindType.POLICY, "p-${value.nosuch}")],
        [rule(BindType.POLICY, "${")],
    ],
)
def test_a_login_that_no_rule_gives_anything_is_refused(rules: list[BindingRule]) -> None:
    assert refused(rules) == "no binding rule gives anything"


@pytest.mark.parametrize("bind_type", [BindType.SERVICE, BindType.NODE])
@pytest.mark.parametrize(
    "name", ["Web", "web-", "-web", "we b", "web\n", "${value.nosuch}", "web${value.nosuch}", "é", "x" * 257, "${"]
)
def test_an_identity_with_a_name_that_is_none_fails_the_whole_login(bind_type: BindType, name: str) -> None:
    reason = refused([rule(BindType.SERVICE, "web"), rule(BindType.ROLE, "r-web"), rule(bind_type, name)])
    assert f"{bind_type} name" in reason


def test_what_a_login_has_proved_is_not_looked_into() -> None:
    proved = Proved({"serviceaccount.name": "${value.team}", "value.team": "ops"})
    assert "invalid service name" in refused([rule(BindType.SERVICE, "${serviceaccount.name}")], proved=proved)


def test_there_are_at_most_as_many_links_as_a_token_may_have() -> None:
    rules = [rule(BindType.SERVICE, f"s{number}") for number in range(256)]
    assert len(granted(rules).service_identities) == 256
    assert "at most 256" in refused([*rules, rule(BindType.SERVICE, "one-more")])


def test_ttl_and_locality_are_the_methods() -> None:
    found = granted([rule(BindType.SERVICE, "web")], method_of(max_token_ttl_seconds=300, locality=Locality.GLOBAL))
    assert (found.created_at, found.expires_at, found.is_local) == (NOW, NOW + 300, False)


@pytest.mark.parametrize(
    ("meta", "text"),
    [
        ({}, "token created via login"),
        ({"pod": "p1"}, 'token created via login: {"pod":"p1"}'),
        ({"b": "2", "a": 'x"y'}, 'token created via login: {"a":"x\\"y","b":"2"}'),
        ({"a": "<é&>\u2028"}, 'token created via login: {"a":"\\u003cé\\u0026\\u003e\\u2028"}'),
    ],
)
def test_description_has_the_meta_sorted(meta: dict[str, str], text: str) -> None:
    assert description_of(meta) == text


@pytest.mark.parametrize(
    "meta",
    [
        {"a": "x" * 513},
        {"a" * 129: "x"},
        {"a": "\0"},
        {"\ud800": "x"},
        {str(number): "" for number in range(MAX_META + 1)},
        {str(number): "x" * 500 for number in range(9)},
        {str(number): "<" * 500 for number in range(2)},
    ],
)
def test_meta_that_cannot_be_kept_is_refused(meta: dict[str, str]) -> None:
    with pytest.raises(MetaRefused):
        description_of(meta)


def test_no_rule_raises_anything_but_a_refusal() -> None:
    rng = random.Random(14)
    pieces = [
        "${",
        "}",
        "value.team",
        "serviceaccount.name",
        "==",
        "!=",
        " ",
        "not ",
        "(",
        ")",
        '"',
        "`",
        "$",
        "web",
        "é",
    ]
    for _ in range(2000):
        texts = ["".join(rng.choices(pieces, k=rng.randint(0, 8))) for _ in range(2)]
        try:
            granted([rule(rng.choice(list(BindType)), texts[0], texts[1])])
        except LoginRefused:
            continue


# -- certificates

SERVICES = TlsConfig(frozenset({Kind.SERVICE}))
EVERYBODY = TlsConfig(frozenset({Kind.SERVICE, Kind.AGENT, Kind.MESH_GATEWAY, Kind.SERVER}))
CA = pki.key()
AGENT = f"{pki.ROOT_URI}/agent/client/dc/dc2/id/web"
OTHER_NAMESPACE = pki.WEB.replace("/ns/default", "/ns/other")
GATEWAY = f"{pki.ROOT_URI}/gateway/mesh/dc/dc1"


def leaf(uri: str = pki.WEB, **changes: Any) -> Any:
    key = pki.key("ec", 256, 1)
    extensions = pki.leaf_extensions(key.public_key(), pki.key_id(CA.public_key()), uri)
    return pki.certificate(key.public_key(), CA, **({"extensions": extensions} | changes))


def test_certificate_proves_its_identity() -> None:
    assert proved_by_certificate([leaf()], pki.WEB, SERVICES, pki.TRUST_DOMAIN.upper(), pki.NOW) == Proved(
        {"trust_domain": pki.TRUST_DOMAIN, "datacenter": "dc1", "kind": "service", "name": "web"}
    )
    agent = proved_by_certificate([leaf(AGENT)], AGENT, EVERYBODY, pki.TRUST_DOMAIN, pki.NOW)
    assert (agent.texts["kind"], agent.texts["name"]) == ("agent", "web")
    assert agent.texts["datacenter"] == "dc2"
    gateway = proved_by_certificate([leaf(GATEWAY)], GATEWAY, EVERYBODY, pki.TRUST_DOMAIN, pki.NOW)
    assert (gateway.texts["kind"], gateway.texts["name"]) == ("mesh-gateway", "")


@pytest.mark.parametrize(
    ("uri", "spiffe_id", "domain", "now"),
    [
        (pki.WEB, pki.WEB, "other.consul", pki.NOW),
        (pki.WEB, pki.WEB.replace("web", "api"), pki.TRUST_DOMAIN, pki.NOW),
        (pki.WEB, "", pki.TRUST_DOMAIN, pki.NOW),
        (pki.WEB, pki.WEB, pki.TRUST_DOMAIN, pki.NOW + 10 * pki.YEAR),
        (pki.WEB, pki.WEB, pki.TRUST_DOMAIN, pki.NOW - 10 * pki.YEAR),
        (AGENT, AGENT, pki.TRUST_DOMAIN, pki.NOW),
        (GATEWAY, GATEWAY, pki.TRUST_DOMAIN, pki.NOW),
        (pki.ROOT_URI, pki.ROOT_URI, pki.TRUST_DOMAIN, pki.NOW),
        ("https://a.example", "https://a.example", pki.TRUST_DOMAIN, pki.NOW),
        (OTHER_NAMESPACE, OTHER_NAMESPACE, pki.TRUST_DOMAIN, pki.NOW),
    ],
)
def test_another_certificate_is_refused(uri: str, spiffe_id: str, domain: str, now: int) -> None:
    with pytest.raises(LoginRefused):
        proved_by_certificate([leaf(uri)], spiffe_id, SERVICES, domain, now)


def test_a_ca_or_no_chain_or_a_long_one_is_refused() -> None:
    ca = pki.certificate(CA.public_key(), CA, pki.ca_extensions(CA.public_key(), b"ca", uris=[pki.WEB]))
    for chain, why in (([], "must have"), ([ca], "of a CA"), ([leaf()] * 9, "must have")):
        with pytest.raises(LoginRefused) as caught:
            proved_by_certificate(chain, pki.WEB, EVERYBODY, pki.TRUST_DOMAIN, pki.NOW)
        assert why in caught.value.reason


# -- one door


def prover_of(fetch: FakeFetch, roots: list[str]) -> Prover:
    clock = FakeClock(pki.NOW)
    return Prover(fetch, KeySets(fetch, clock), clock, lambda: Trust(pki.TRUST_DOMAIN, tuple(roots)))


async def test_certificate_logs_in_by_a_proof_for_its_method_once_and_with_the_roots_of_the_moment() -> None:
    roots = [pki.pem(login_proofs.ROOT)]
    prover = prover_of(FakeFetch(), roots)
    proofs = [login_proofs.proof_of(claims={"jti": f"{number:022}"}) for number in range(3)]
    assert (await prover.proved(login_proofs.METHOD, SERVICES, proofs[0])).texts["name"] == "web"
    for method, proof in ((login_proofs.METHOD, proofs[0]), ("other", proofs[1]), (login_proofs.METHOD, "a.b.c")):
        with pytest.raises(LoginRefused):
            await prover.proved(method, SERVICES, proof)
    await prover.proved(login_proofs.METHOD, SERVICES, proofs[1])
    roots.clear()
    with pytest.raises(LoginRefused):
        await prover.proved(login_proofs.METHOD, SERVICES, proofs[2])


async def test_a_key_set_must_answer_when_its_method_is_written() -> None:
    url = "https://a.example"
    prover = prover_of(FakeFetch({url: jwks(jwk(signer()))}), [])
    jwt = MethodType.JWT
    for raw in ({"JWKSURL": url}, {"JWTValidationPubKeys": public_pem(signer())}):
        await prover.check(written_config(jwt, raw).config)
    await prover.check(SERVICES)
    for raw, text in (({"JWKSURL": f"{url}/no"}, "JWKSURL"), ({"OIDCDiscoveryURL": url}, "OIDCDiscoveryURL")):
        with pytest.raises(MethodInvalid, match=f"^Invalid Auth Method: error checking {text}: https://a.example/"):
            await prover.check(written_config(jwt, raw).config)


@pytest.mark.parametrize("passed", [0.0, 0.001, 0.2499, 0.25, 0.3, 1.9, -1.0])
async def test_refusals_are_answered_at_the_same_moments(passed: float) -> None:
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    clock = FakeClock()
    await hold_refusal(clock.monotonic() - passed, clock, sleep)
    answered = (max(passed, 0.0) + slept[0]) / REFUSED_AFTER_SECONDS
    assert 0 < slept[0] <= REFUSED_AFTER_SECONDS
    assert answered == pytest.approx(round(answered))
