"""The rule language: what Consul reads, what it says of what it does not, and what only we refuse."""

import json
import time

import pytest

from cluster.access.hcl import MAX_TEXT_BYTES
from cluster.access.rules import Issuance, Rule, RulesRefused, parse_rules
from cluster.api.access import Level, Resource

WEB = Rule(Resource.SERVICE, Level.WRITE, "web")


@pytest.mark.parametrize("text", ["", "  \n", "{}", "# nothing", "/* nothing */", "// nothing\n"])
def test_text_without_rules_grants_nothing(text: str) -> None:
    assert parse_rules(text) == ()


@pytest.mark.parametrize(
    "text",
    [
        'service "web" { policy = "write" }',
        'service web { policy = "write" }',
        'Service "web" { Policy = "WRITE" }',
        'service "web" {\n  # as\n  policy = "write" // it is\n  /* usual */\n}',
        'service "web" { policy = "write", }',
        '{"service": {"web": {"policy": "write"}}}',
        '{"service": [{"web": {"policy": "write"}}]}',
        '{"service": [{"web": [{"policy": "write"}]}]}',
        '  {"SERVICE": {"web": {"POLICY": "Write"}}}',
    ],
)
def test_one_rule_in_all_its_forms(text: str) -> None:
    assert parse_rules(text) == (WEB,)


@pytest.mark.parametrize("resource", Resource)
@pytest.mark.parametrize("level", ["deny", "read", "write"])
def test_every_resource_of_consul_is_read(resource: Resource, level: str) -> None:
    expected = Level[level.upper()]
    if resource in {Resource.ACL, Resource.KEYRING, Resource.MESH, Resource.OPERATOR, Resource.PEERING}:
        assert parse_rules(f'{resource} = "{level}"') == (Rule(resource, expected),)
        assert parse_rules(json.dumps({resource: level})) == (Rule(resource, expected),)
        for text in (f'{resource} "x" {{ policy = "{level}" }}', f'{resource}_prefix "x" {{ policy = "{level}" }}'):
            with pytest.raises(RulesRefused):
                parse_rules(text)
    else:
        assert parse_rules(f'{resource} "x" {{ policy = "{level}" }}') == (Rule(resource, expected, "x"),)
        assert parse_rules(f'{resource}_prefix "" {{ policy = "{level}" }}') == (
            Rule(resource, expected, is_prefix=True),
        )
        with pytest.raises(RulesRefused):
            parse_rules(f'{resource} = "{level}"')


def test_list_is_a_level_of_keys_alone() -> None:
    assert parse_rules('key_prefix "a/" { policy = "list" }') == (Rule(Resource.KEY, Level.LIST, "a/", is_prefix=True),)
    with pytest.raises(RulesRefused, match="Invalid service policy"):
        parse_rules('service "a" { policy = "list" }')


def test_what_certificates_of_a_service_may_have() -> None:
    [rule] = parse_rules(
        'service "web" { policy = "write" intentions = "read"'
        ' dns = ["web.*.Internal", "web"] ip = ["10.0.0.0/8", "::1"] ttl_max = "24h" }'
    )
    assert rule.intentions is Level.READ
    assert rule.issuance == Issuance(("web.*.internal", "web"), ("10.0.0.0/8", "::1/128"), 86_400)
    [again] = parse_rules(
        '{"service": {"web": {"policy": "write", "intentions": "read", "dns": ["web.*.internal", "web"],'
        ' "ip": ["10.0.0.0/8", "::1"], "ttl_max": "24h"}}}'
    )
    assert again == rule


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('service "web" { policy = "x" }', "Invalid service policy"),
        ('service "web" { }', "Invalid service policy"),
        ('service_prefix "web" { policy = "x" }', "Invalid service_prefix policy"),
        ('agent "a" { policy = "x" }', "Invalid agent policy"),
        ('operator = "x"', "Invalid operator policy"),
        ('service "web" { policy = "write" intentions = "x" }', "Invalid service intentions policy"),
        ('operator = ["write"]', "Failed to parse ACL rules"),
        ('acl { policy = "read" }', "Failed to parse ACL rules"),
        ('service = "write"', "Failed to parse ACL rules"),
        ('service "web" { policy = true }', "Failed to parse ACL rules"),
        (
            'service "web" { policy = "read" policy = "write" }',
            (
                'Failed to parse ACL rules: The argument "policy" at 1:33 was already set. Each argument can only be'
                " defined once"
            ),
        ),
        ('operator = "read"\noperator = "write"', 'The argument "operator" at 2:1 was already set'),
        # Consul takes these, and does what nobody meant.
        ('service "web" { policy = "write" }\nservice "web" { policy = "read" }', "already set"),
        ('{"service": {"web": {"policy": "read"}, "web": {"policy": "write"}}}', "already set"),
        ('{"service": {"web": {"policy": "read", "policy": "write"}}}', "already set"),
        ('servicee "web" { policy = "write" }', "is no resource"),
        ('foo = "bar"', "is no resource"),
        ('service { policy = "write" }', "0 labels"),
        ('service "a" "b" { policy = "write" }', "2 labels"),
        ('service "web" { policy = "write" polcy = "read" }', "allowed are"),
        ('agent "web" { policy = "write" dns = ["x"] }', "allowed are"),
        ('service "web" { policy { x = 1 } }', "no block is allowed"),
        (f'service "{"x" * 513}" {{ policy = "write" }}', "longer than 512"),
        ('service "web" { policy = "write" dns = ["a b"] }', "Invalid dns pattern"),
        ('service "web" { policy = "write" dns = ["*..x"] }', "Invalid dns pattern"),
        ('service "web" { policy = "write" dns = "x" }', "list of at most"),
        ('service "web" { policy = "write" ip = "::1" }', "list of at most"),
        ('service "web" { policy = "write" ttl_max = "59s" }', 'Invalid ttl_max "59s" of "web"'),
        ('service "web" { policy = "write" ttl_max = "1ns" }', "at least 60s"),
        ('service "web" { policy = "write" ttl_max = "-1h" }', "Invalid ttl_max"),
        *(
            (
                f'{resource} "web" {{ policy = "{level}" {issuance} }}',
                f'Invalid {resource} policy: "web" has {issuance.split()[0]} and policy = "{level}"',
            )
            for resource in ("service", "service_prefix", "node", "node_prefix")
            for level in ("deny", "read")
            for issuance in ("dns = []", 'ip = ["::1"]', 'ttl_max = "1h"')
        ),
        ('service "web" { policy = "write" dns = [1] }', "list of at most"),
        ('service "web" { policy = "write" ip = ["10.0.0.1/8"] }', "Invalid ip pattern"),
        ('service "web" { policy = "write" ttl_max = "0s" }', "Invalid ttl_max"),
        ('service "web" { policy = "write" ttl_max = 5 }', "Invalid ttl_max"),
        ('service "web" { policy = "write" ttl_max = "x" }', "invalid duration"),
    ],
)
def test_mistake_is_refused_and_named(text: str, said: str) -> None:
    with pytest.raises(RulesRefused) as refused:
        parse_rules(text)
    assert said in str(refused.value)


@pytest.mark.parametrize(
    "text",
    [
        'service "web" {',
        "}",
        'service "web" policy = "write" }',
        'service "web" = "write"',
        "service",
        '"',
        'service "web',
        'service "web" { policy = }',
        'service "web" { policy = <<EOF\nwrite\nEOF\n}',
        'service "\\x" { policy = "write" }',
        'service "\\ud800" { policy = "write" }',
        'service "web" { policy = [["write"]] }',
        'service "web" { policy = ["write" }',
        "/* never ends",
        "\0",
        '{"service": ',
        '{"service": []}',
        '{"service": {"web": "write"}}',
        '{"service": {"web": {"policy": null}}}',
        '{"operator": NaN}',
        "{" * 60_000,
        '{"service":' * 5_000,
        "a {" * 20_000,
        '{"a": ' + "[" * 30_000 + "]" * 30_000 + "}",
        "x" * (MAX_TEXT_BYTES + 1),
        "é" * (MAX_TEXT_BYTES // 2 + 1),
        '"' + "\\" * 60_000,
        "#" * 30_000 + "\n" + "/*" * 10_000,
        "1" * 60_000,
        "service \ud800 {}",
    ],
)
def test_broken_text_is_refused_soon(text: str) -> None:
    began = time.process_time()
    with pytest.raises(RulesRefused):
        parse_rules(text)
    assert time.process_time() - began < 2.0


@pytest.mark.parametrize(
    "text", ["a=1\n" * 16_000, "a {" + "b=1\n" * 15_000 + "}", "key x {}\n" * 7_000, "\n" * 32_000 + "a=1 " * 8_000]
)
def test_many_lines_cost_no_more_than_their_length(text: str) -> None:
    """Whoever may write policies must not hold the leader up: where each item stands was counted from the top."""
    began = time.process_time()
    with pytest.raises(RulesRefused):
        parse_rules(text)
    assert time.process_time() - began < 0.25


@pytest.mark.parametrize("name", ["\\ud800", "web\\udfff", "\\udc00\\ud800"])
@pytest.mark.parametrize("resource", ["service", "service_prefix", "node", "key_prefix"])
def test_name_that_has_no_bytes_is_refused(resource: str, name: str) -> None:
    """Rules travel to whoever signs: a name that cannot be written there would end every signature of its tokens."""
    with pytest.raises(RulesRefused, match="half of a surrogate pair"):
        parse_rules(f'{{"{resource}": {{"{name}": {{"policy": "write"}}}}}}')
    [rule] = parse_rules(f'{{"{resource}": {{"\\ud83d\\ude00": {{"policy": "write"}}}}}}')
    assert rule.name == "\U0001f600"


def test_place_of_a_mistake_is_its_line_and_column() -> None:
    for text, where in (("x=1", "1:1"), ("\n\n  x=1", "3:3"), ("# a\r\nx=1", "2:1"), ('acl="read"\n\tx=1\n', "2:2")):
        with pytest.raises(RulesRefused, match=rf'"x" at {where} is no resource'):
            parse_rules(text)


def test_nothing_in_a_name_is_evaluated() -> None:
    [rule] = parse_rules('service "${x} %{y} \\"z\\"" { policy = "read" }')
    assert rule.name == '${x} %{y} "z"'
