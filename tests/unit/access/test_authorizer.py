"""Merging and deciding, as Consul does (docs/consul-compat.md, ACL decisions)."""

import itertools
import random

import pytest

from cluster.access.authorizer import Authorizer
from cluster.access.rules import Rule, parse_rules
from cluster.api.access import Level, Resource

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
