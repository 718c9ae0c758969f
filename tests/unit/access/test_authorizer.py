"""Merging and deciding, as Consul does (docs/consul-compat.md, ACL decisions)."""

import itertools
import random

import pytest

from cluster.access.authorizer import NO_HOSTS, NOTHING, OF_AN_AGENT, Authorizer
from cluster.access.rules import Rule, parse_rules
from cluster.api.access import GivenNames, Level, Resource
from providers.grants import ANYTHING, Grant, NameGrant

NAMES = ("web", "webx", "api", "wet", "wall", "")


def authorizer(*texts: str, allows_by_default: bool = False) -> Authorizer:
    return Authorizer((rule for text in texts for rule in parse_rules(text)), allows_by_default=allows_by_default)


@pytest.mark.parametrize(
    ("texts", "allowed"),
    [
        (['service_prefix "we" { policy = "write" } service "web" { policy = "deny" }'], {"webx", "wet"}),
        (['service_prefix "" { policy = "deny" } service "web" { policy = "write" }'], {"web"}),
        (['service_prefix "w" { policy = "write" } service_prefix "we" { policy = "deny" }'], {"wall"}),
        (['service "web" { policy = "write" }', 'service "web" { policy = "deny" }'], set()),
        (['service "web" { policy = "read" }', 'service "web" { policy = "write" }'], {"web"}),
        (['service_prefix "" { policy = "write" }'], set(NAMES)),
        (['service "WEB" { policy = "write" }'], set()),
    ],
)
def test_exact_before_prefix_and_longest_prefix_and_deny_first(texts: list[str], allowed: set[str]) -> None:
    for order in itertools.permutations(texts):
        asked = authorizer(*order)
        assert {name for name in NAMES if asked.allows(Resource.SERVICE, Level.WRITE, name)} == allowed


def test_higher_level_gives_the_lower_ones() -> None:
    for level in (Level.DENY, Level.READ, Level.WRITE):
        asked = Authorizer([Rule(Resource.OPERATOR, level)], allows_by_default=False)
        assert [asked.allows(Resource.OPERATOR, wanted) for wanted in (Level.READ, Level.WRITE)] == [
            level >= Level.READ,
            level >= Level.WRITE,
        ]


def test_mesh_follows_operator_until_it_has_a_rule() -> None:
    assert authorizer('operator = "write"').allows(Resource.MESH, Level.WRITE)
    assert not authorizer('operator = "write" mesh = "read"').allows(Resource.MESH, Level.WRITE)
    assert not authorizer('operator = "deny"', allows_by_default=True).allows(Resource.MESH, Level.READ)


def test_default_policy_is_what_no_rule_speaks_of_and_gives_no_rights_on_rights() -> None:
    asked = authorizer('service "web" { policy = "deny" }', allows_by_default=True)
    assert not asked.allows(Resource.SERVICE, Level.READ, "web")
    assert asked.allows(Resource.SERVICE, Level.WRITE, "api")
    assert asked.allows(Resource.OPERATOR, Level.WRITE)
    assert not asked.allows(Resource.ACL, Level.READ)
    assert authorizer('acl = "write"').allows(Resource.ACL, Level.WRITE)
    assert not authorizer('acl = "write"').allows(Resource.OPERATOR, Level.READ)


@pytest.mark.parametrize(
    ("texts", "exact", "prefixes"),
    [
        ([], (), ()),
        (['service "web" { policy = "read" } node "a" { policy = "write" } operator = "write"'], (), ()),
        (['service "web" { policy = "write" }', 'service "web" { policy = "deny" }'], (), ()),
        (['service "b" { policy = "write" } service "a" { policy = "write" }'], ("a", "b"), ()),
        (['service_prefix "" { policy = "read" } service "a" { policy = "write" }'], ("a",), ()),
        (['service_prefix "a-" { policy = "write" } service "a-b" { policy = "deny" }'], (), ("a-",)),
        (['service_prefix "" { policy = "write" }'], (), ("",)),
    ],
)
def test_names_on_which_a_level_is_given(texts: list[str], exact: tuple[str, ...], prefixes: tuple[str, ...]) -> None:
    asked = authorizer(*texts)
    assert asked.names_given(Resource.SERVICE, Level.WRITE) == GivenNames(exact, prefixes)
    assert asked.gives_any(Resource.SERVICE, Level.WRITE) == bool(exact or prefixes)


def test_default_policy_gives_a_level_on_whatever_no_rule_about_all_names_denies() -> None:
    for text, prefixes in (
        ("", ("",)),
        ('service "web" { policy = "deny" }', ("",)),
        ('service_prefix "" { policy = "deny" }', ()),
        ('service_prefix "" { policy = "read" } service_prefix "a" { policy = "write" }', ("a",)),
    ):
        asked = authorizer(text, allows_by_default=True)
        assert asked.names_given(Resource.SERVICE, Level.WRITE) == GivenNames((), prefixes), text
        assert asked.gives_any(Resource.SERVICE, Level.WRITE) == bool(prefixes)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('service "web" { policy = "write" }', Level.READ),
        ('service "web" { policy = "read" }', Level.READ),
        ('service "web" { policy = "deny" }', Level.DENY),
        ('service "web" { policy = "deny" intentions = "write" }', Level.WRITE),
        ('service "web" { policy = "write" intentions = "deny" }', Level.DENY),
        ("", Level.DENY),
    ],
)
def test_intentions_have_levels_of_their_own(text: str, expected: Level) -> None:
    asked = authorizer(text)
    assert [asked.intends(level, "web") for level in (Level.READ, Level.WRITE)] == [
        expected >= Level.READ,
        expected >= Level.WRITE,
    ]


def _slowly(rules: list[Rule], level: Level, name: str, *, by_default: bool) -> bool:
    """The same by the words of the specification."""
    exact = [rule for rule in rules if not rule.is_prefix and rule.name == name]
    prefixes = [rule for rule in rules if rule.is_prefix and name.startswith(rule.name)]
    longest = max((len(rule.name) for rule in prefixes), default=0)
    deciding = exact or [rule for rule in prefixes if len(rule.name) == longest]
    if not deciding:
        return by_default
    if any(rule.level is Level.DENY for rule in deciding):
        return False
    return max(rule.level for rule in deciding) >= level


@pytest.mark.parametrize("seed", range(40))
def test_it_decides_as_the_specification_says(seed: int) -> None:
    rng = random.Random(seed)
    letters = "ab-"

    def name() -> str:
        return "".join(rng.choice(letters) for _ in range(rng.randrange(4)))

    rules = [
        Rule(Resource.SERVICE, rng.choice([Level.DENY, Level.READ, Level.WRITE]), name(), is_prefix=rng.random() < 0.5)
        for _ in range(rng.randrange(12))
    ]
    by_default = rng.random() < 0.5
    asked = Authorizer(rules, allows_by_default=by_default)
    for length in range(4):
        for each in map("".join, itertools.product(letters, repeat=length)):
            for level in (Level.READ, Level.WRITE):
                assert asked.allows(Resource.SERVICE, level, each) is _slowly(rules, level, each, by_default=by_default)


def _granted(asked: Authorizer) -> Grant:
    return Grant.from_bytes(asked.grant)


def test_write_gives_certificates_with_the_names_that_the_rule_speaks_of() -> None:
    grant = _granted(
        authorizer(
            'service "web" { policy = "write" dns = ["web.internal"] ip = ["10.0.0.0/8"] ttl_max = "1h" }'
            ' service_prefix "api" { policy = "write" } service "apix" { policy = "read" }'
            ' node "n1" { policy = "write" } node_prefix "n" { policy = "write" dns = [] }'
        )
    )
    assert grant.services.of("web") == NameGrant(
        is_given=True, dns=("web.internal",), networks=("10.0.0.0/8",), ttl_max_seconds=3600
    )
    assert grant.services.of("api-1") == NO_HOSTS
    assert grant.services.of("apix") == grant.services.of("db") == NOTHING
    assert grant.nodes.of("n1") == OF_AN_AGENT
    assert grant.nodes.of("n2").dns == ()
    assert grant.gateways == NOTHING


def test_where_nothing_is_denied_by_default_nothing_is_said_of_names() -> None:
    grant = _granted(
        authorizer('service "web" { policy = "deny" } service "api" { policy = "write" }', allows_by_default=True)
    )
    assert grant.services.of("db") == grant.services.of("api") == grant.nodes.of("n1") == grant.gateways == ANYTHING
    assert grant.services.of("web") == NOTHING


def test_several_rules_about_one_name_add_up_their_names_and_bound_the_lifetime() -> None:
    texts = [
        'service "web" { policy = "write" dns = ["a"] ttl_max = "2h" }',
        'service "web" { policy = "write" dns = ["b"] ttl_max = "1h" }',
        'service "web" { policy = "write" }',
    ]
    for order in itertools.permutations(texts):
        found = _granted(authorizer(*order)).services.of("web")
        assert (sorted(found.dns or ()), found.networks, found.ttl_max_seconds) == (["a", "b"], (), 3600)


def test_gateways_need_the_right_on_the_mesh_or_on_everything_operators_do() -> None:
    for text in ('mesh = "write"', 'operator = "write"'):
        assert _granted(authorizer(text)).gateways == ANYTHING
    assert _granted(authorizer('operator = "write" mesh = "read"')).gateways == NOTHING


@pytest.mark.parametrize("seed", range(20))
def test_grant_is_what_the_rules_say(seed: int) -> None:
    rng = random.Random(seed)

    def name() -> str:
        return "".join(rng.choice("ab") for _ in range(rng.randrange(4)))

    rules = [
        Rule(Resource.SERVICE, rng.choice([*Level]), name(), is_prefix=rng.random() < 0.5)
        for _ in range(rng.randrange(10))
    ]
    asked = Authorizer(rules, allows_by_default=rng.random() < 0.5)
    grant = _granted(asked)
    for length in range(5):
        for each in map("".join, itertools.product("ab", repeat=length)):
            assert grant.services.of(each).is_given is asked.allows(Resource.SERVICE, Level.WRITE, each)


@pytest.mark.parametrize(
    ("rules", "by_default", "resource", "is_some"),
    [
        ("", False, Resource.SERVICE, False),
        ("", True, Resource.SERVICE, True),
        ("", True, Resource.ACL, False),
        ('service "web" { policy = "write" }', False, Resource.SERVICE, True),
        ('service "web" { policy = "write" }', False, Resource.NODE, False),
        ('service_prefix "web" { policy = "write" }', False, Resource.SERVICE, True),
        ('service_prefix "" { policy = "read" }', True, Resource.SERVICE, False),
        ('service_prefix "" { policy = "deny" } service "web" { policy = "write" }', True, Resource.SERVICE, True),
        ('service_prefix "a" { policy = "deny" }', True, Resource.SERVICE, True),
        ('operator = "write"', False, Resource.MESH, True),
        ('operator = "write" mesh = "read"', False, Resource.MESH, False),
        ('operator = "read"', True, Resource.MESH, False),
        ('operator = "deny"', True, Resource.OPERATOR, False),
    ],
)
def test_whether_there_is_any_name_of_which_it_is_allowed(
    rules: str, by_default: bool, resource: Resource, is_some: bool
) -> None:
    authorizer = Authorizer(parse_rules(rules), allows_by_default=by_default)
    for _ in range(2):
        assert authorizer.gives_any(resource, Level.WRITE) is is_some
