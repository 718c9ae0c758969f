"""What operators write in languages of their own: rules, selectors and bind names. What is understood is compared with
a second, slower reading of the same.
"""

import json
from collections.abc import Mapping
from typing import Any, Final

from cluster.access.authorizer import Authorizer
from cluster.access.bind_names import BindNameRefused, bound_name, check_bind_name
from cluster.access.hcl import MAX_TEXT_BYTES
from cluster.access.rules import NAMELESS, Rule, RulesRefused, parse_rules
from cluster.access.selector import MAX_DEPTH, MAX_SELECTOR, Fields, Proved, SelectorRefused, parse_selector
from cluster.api.access import Level, Resource
from fsm.acl import is_identity_name
from providers.grants import Grant
from tests.fuzz.access.changes import Mutate, of_text
from tests.fuzz.access.prompt import promptly

RULES_ERRORS: Final = (RulesRefused,)
SELECTOR_ERRORS: Final = (SelectorRefused,)
BIND_NAME_ERRORS: Final = (BindNameRefused,)


def text_of(data: bytes) -> str:
    """As JSON could bring it: any characters, half of a surrogate pair, too."""
    return data.decode("utf-8", "surrogateescape")


# -- rules


def rules_seeds() -> list[bytes]:
    return [text.encode() for text in _SEEDS]


_SEEDS: Final = (
    'operator = "write"\nacl = "read" # what for\nmesh = "deny"\n',
    'service "web" { policy = "write" }\nservice_prefix "" { policy = "read" intentions = "deny" }\n',
    """service "web" {
  policy = "write"
  dns = ["web.*.internal", "*.web"]
  ip = ["10.0.0.0/8", "::1"]
  ttl_max = "24h"
}
""",
    """node "n1" { policy = "write" dns = [] ip = ["127.0.0.1"] ttl_max = "1h30m" }
key_prefix "a/b" { policy = "list" }
""",
    '{"service": {"web": {"policy": "write", "dns": ["a", "b"]}}, "acl": "read"}',
    """{"service": [{"web": {"policy": "write"}}, {"api": [{"policy": "read"}]}],
 "node_prefix": {"": {"policy": "deny"}}}
""",
    "/* nothing */ // at all\n",
)


_RULE_WORDS: Final = (
    *(resource.value.encode() for resource in Resource),
    *(f"{resource.value}_prefix".encode() for resource in Resource),
    *(b"policy", b"intentions", b"dns", b"ip", b"ttl_max", b'"deny"', b'"read"', b'"list"', b'"write"', b'"WRITE"'),
    *(
        b'"web"',
        b'""',
        b'"*.a"',
        b'"0s"',
        b'"1ns"',
        b'"-1h"',
        b'"9999999h"',
        b'"0.0.0.0/0"',
        b'"::/0"',
        b'"10.0.0.1/8"',
    ),
    *(b"{", b"}", b"=", b"[", b"]", b",", b"\n", b"{ policy = ", b' { policy = "write" }\n', b'"service"', b":"),
)
mutated_rules: Final[Mutate] = of_text(_RULE_WORDS)

_NAMES: Final = ("", "w", "web", "web-1", "webx", "api", "n1", "a/b", "a/b/c", "Web", "\u00e9")


def rules(data: bytes) -> object:
    text = text_of(data)
    found = promptly(len(data), lambda: parse_rules(text))
    assert len({(rule.resource, rule.is_prefix, rule.name) for rule in found}) == len(found), "one rule for each name"
    written = json.dumps(_as_json(found))
    if len(written) <= MAX_TEXT_BYTES:
        assert parse_rules(written) == found, "the same in JSON is something else"
    for allows_by_default in (False, True):
        authorizer = Authorizer(found, allows_by_default=allows_by_default)
        for resource in Resource:
            for name in _NAMES if resource not in NAMELESS else ("",):
                decided = _decided(found, resource, name, allows_by_default=allows_by_default)
                for level in (Level.READ, Level.WRITE):
                    assert authorizer.allows(resource, level, name) is (decided >= level), (resource, name)
        _check_grant(authorizer, found)
    return found


def _decided(found: tuple[Rule, ...], resource: Resource, name: str, *, allows_by_default: bool) -> Level:
    """The level that holds: the rule of the very name, else of the longest beginning, else what is left."""
    exact = [rule.level for rule in found if (rule.resource, rule.is_prefix, rule.name) == (resource, False, name)]
    longest = max(
        (rule for rule in found if rule.resource is resource and rule.is_prefix and name.startswith(rule.name)),
        key=lambda rule: len(rule.name),
        default=None,
    )
    if exact or longest is not None:
        return exact[0] if exact or longest is None else longest.level
    if resource in (Resource.MESH, Resource.PEERING):
        return _decided(found, Resource.OPERATOR, "", allows_by_default=allows_by_default)
    return Level.WRITE if allows_by_default and resource is not Resource.ACL else Level.DENY


def _check_grant(authorizer: Authorizer, found: tuple[Rule, ...]) -> None:
    """What whoever signs is told is what was decided, and no name has more hosts than its rule says."""
    grant = Grant.from_bytes(authorizer.grant)
    for resource, names in ((Resource.SERVICE, grant.services), (Resource.NODE, grant.nodes)):
        for name in _NAMES:
            assert names.of(name).is_given is authorizer.allows(resource, Level.WRITE, name), (resource, name)
        for rule in found:
            if rule.resource is resource and rule.level >= Level.WRITE:
                given = (names.prefixes if rule.is_prefix else names.exact)[rule.name]
                assert rule.issuance.dns is None or given.dns == rule.issuance.dns
                assert rule.issuance.ip is None or given.networks == rule.issuance.ip
                assert given.ttl_max_seconds == rule.issuance.ttl_max_seconds
    assert grant.gateways.is_given is authorizer.allows(Resource.MESH, Level.WRITE)


def _as_json(found: tuple[Rule, ...]) -> Mapping[str, Any]:
    written: dict[str, Any] = {}
    for rule in found:
        key = f"{rule.resource}{'_prefix' if rule.is_prefix else ''}"
        if rule.resource in NAMELESS:
            written[key] = rule.level.word
            continue
        body: dict[str, Any] = {"policy": rule.level.word}
        if rule.intentions is not None:
            body["intentions"] = rule.intentions.word
        for name in ("dns", "ip"):
            if (patterns := getattr(rule.issuance, name)) is not None:
                body[name] = list(patterns)
        if rule.issuance.ttl_max_seconds:
            body["ttl_max"] = f"{rule.issuance.ttl_max_seconds}s"
        written.setdefault(key, {})[rule.name] = body
    return written


# -- selectors

#: Of a jwt method; of kubernetes; of tls.
_FIELDS: Final = (
    Fields(frozenset({"value.project", "value.x"}), frozenset({"list.groups", "list.none"})),
    Fields(frozenset({"serviceaccount.namespace", "serviceaccount.name", "serviceaccount.uid"})),
    Fields(frozenset({"trust_domain", "datacenter", "kind", "name"})),
)
_LOGINS: Final = (
    Proved(),
    Proved({"value.project": "web", "value.x": ""}, {"list.groups": ("dev", "ops"), "list.none": ()}),
    Proved({"serviceaccount.namespace": "prod", "serviceaccount.name": "web", "serviceaccount.uid": "u"}),
    Proved({"trust_domain": "x.consul", "datacenter": "dc1", "kind": "service", "name": "web"}),
)


def selector_seeds() -> list[bytes]:
    return [
        b"\x00value.project == web and not (value.x != `a b` or dev in list.groups)",
        b'\x00list.groups contains "dev" and list.none is empty or list["groups"] is not empty',
        b'\x00value["project"] == "we\\"b" and ops not in list.groups and list.groups not contains x',
        b"\x01serviceaccount.namespace == prod and serviceaccount.name != default",
        b"\x02kind == service and not name == web",
        b"\x02",
    ]


_SELECTOR_WORDS: Final = (
    *(b"value.project", b"value.x", b"list.groups", b"list", b"value", b'value["project"]', b"list[`groups`]", b"name"),
    *(b"serviceaccount.name", b"serviceaccount.", b"kind", b" and ", b" or ", b" not ", b"not ", b" in ", b" is "),
    *(b" empty", b" contains ", b" matches ", b" == ", b" != ", b"(", b")", b"web", b'"web"', b"`w`", b"((", b"))"),
)
mutated_selector: Final[Mutate] = of_text(_SELECTOR_WORDS)


def selector(data: bytes) -> object:
    fields = _FIELDS[(data[0] if data else 0) % len(_FIELDS)]
    text = text_of(data[1:])
    found = promptly(len(data), lambda: parse_selector(text, fields))
    if text.strip() and len(text) < MAX_SELECTOR - 8:
        try:
            inside, opposite = parse_selector(f"({text})", fields), parse_selector(f"not ({text})", fields)
        except SelectorRefused as error:
            if f"deeper than {MAX_DEPTH}" not in str(error):
                raise AssertionError(f"in parentheses it is none: {error}") from error
        else:
            for login in _LOGINS:
                assert found.holds(login) is inside.holds(login) is not opposite.holds(login)
    return [found.holds(login) for login in _LOGINS]


# -- bind names


def bind_name_seeds() -> list[bytes]:
    return [
        b"\x00web-${value.project}",
        b"\x00$${value.x}-${ value.x }$",
        b"\x01${serviceaccount.namespace}-${serviceaccount.name}",
        b"\x02${name}",
        b"\x02web",
    ]


_BIND_WORDS: Final = (
    *(b"${value.project}", b"${value.x}", b"${ value.x }", b"${", b"}", b"$$", b"$", b"web", b"-", b"${name}", b"kind"),
    *(b"${serviceaccount.uid}", b"value", b".", b"${${name}}", b"${value.${value.x}}", b"upper(name)", b"${1+1}"),
)
mutated_bind_name: Final[Mutate] = of_text(_BIND_WORDS)

#: What a login brings must never be looked at as a bind name itself.
_VALUES: Final = {
    "value.project": "${value.x}",
    "value.x": "$${",
    "serviceaccount.namespace": "prod",
    "serviceaccount.name": "${name}",
    "serviceaccount.uid": "}",
    "trust_domain": "x.consul",
    "datacenter": "dc1",
    "kind": "service",
    "name": "web",
}


def bind_name(data: bytes) -> object:
    fields = _FIELDS[(data[0] if data else 0) % len(_FIELDS)]
    text = text_of(data[1:])
    promptly(len(data), lambda: check_bind_name(text, fields))
    name = promptly(len(data), lambda: bound_name(text, _VALUES))
    assert name == _filled(text), "another reading gives another name"
    try:
        bound_name(text, {})
    except BindNameRefused:
        assert "${" in text
    return name, is_identity_name(name)


def _filled(text: str) -> str:
    """Character by character."""
    out, at = "", 0
    while at < len(text):
        if text.startswith("$${", at):
            out, at = out + "${", at + 3
        elif text.startswith("${", at):
            end = text.index("}", at)
            out, at = out + _VALUES[text[at + 2 : end].strip()], end + 1
        else:
            out, at = out + text[at], at + 1
    return out
