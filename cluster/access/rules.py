"""The rules of a policy: text in HCL or JSON -> rules, each about a resource and a name, or the beginning of one.

Consul's language (docs/consul-compat.md 12.2) without what it passes over in silence: an unknown resource or
argument, a block with no label or with two, and the same block twice are refused, because each of them is a mistake
that opens or closes a door unnoticed. Resources of Consul that stand for nothing here are read, and have no effect.

`service` and `service_prefix` take what is ours: which names and lifetimes certificates for the service may have.
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from ipaddress import ip_network
from typing import Final

from cluster.access.hcl import Argument, Block, SyntaxRefused, Value, parse
from cluster.api.access import Level, Resource
from providers.config.durations import parse_duration, to_seconds

MAX_NAME: Final = 512
#: In one policy: a token's rules are merged when they are first used.
MAX_RULES: Final = 2048
MAX_PATTERNS: Final = 64
#: Shorter ones would be over before they are renewed.
MIN_TTL_SECONDS: Final = 60
_MAX_SHOWN: Final = 80


#: Of the cluster as a whole: `operator = "read"`. The others are about names.
NAMELESS: Final = frozenset((Resource.ACL, Resource.KEYRING, Resource.MESH, Resource.OPERATOR, Resource.PEERING))
_PREFIX: Final = "_prefix"
_LEVELS: Final = {level.name.lower(): level for level in Level}
#: A star is one label, or a part of one.
_LABEL: Final = r"(?=[^.]{1,63}(?:\.|\Z))[A-Za-z0-9_-]*\*?[A-Za-z0-9_-]*"
_DNS_PATTERN: Final = re.compile(rf"(?=.{{1,253}}\Z){_LABEL}(\.{_LABEL})*")
_POLICY_ALONE: Final = frozenset({"policy"})
_ISSUANCE: Final = frozenset({"dns", "ip", "ttl_max"})
_ARGUMENTS: Final = {
    Resource.SERVICE: _POLICY_ALONE | {"intentions"} | _ISSUANCE,
    Resource.NODE: _POLICY_ALONE | _ISSUANCE,
}


class RulesRefused(ValueError):
    """The text is no policy's; the message is Consul's where it has one."""


@dataclass(frozen=True, slots=True)
class Issuance:
    """What certificates for a service may have besides its SPIFFE ID."""

    #: Patterns, lower case, and networks. None: the rule does not speak of them, and the default policy decides.
    dns: tuple[str, ...] | None = None
    ip: tuple[str, ...] | None = None
    ttl_max_seconds: int = 0  # 0: as the CA's configuration says
    is_any: bool = False  # any names and addresses that the CA has for anybody


@dataclass(frozen=True, slots=True)
class Rule:
    """`name` is empty for a resource of the cluster as a whole; with `is_prefix` it is how names begin."""

    resource: Resource
    level: Level
    name: str = ""
    is_prefix: bool = False
    intentions: Level | None = None
    issuance: Issuance = field(default_factory=Issuance)


def parse_rules(text: str) -> tuple[Rule, ...]:
    """Empty text, and `{}`, are valid and grant nothing. Raises: RulesRefused."""
    try:
        body = parse(text)
    except SyntaxRefused as error:
        raise RulesRefused(f"Failed to parse ACL rules: {error}") from None
    rules = tuple(_rules(body))
    if len(rules) > MAX_RULES:
        raise RulesRefused(f"Failed to parse ACL rules: {len(rules)} rules: at most {MAX_RULES} are allowed")
    return rules


def _rules(body: tuple[Argument | Block, ...]) -> Iterator[Rule]:
    given: set[tuple[Resource, bool, str]] = set()
    for item in body:
        rule = _of_argument(item) if isinstance(item, Argument) else _of_block(item)
        key = (rule.resource, rule.is_prefix, rule.name)
        if key in given:
            _refuse_twice(item)
        given.add(key)
        yield rule


def _refuse_twice(item: Argument | Block) -> None:
    if isinstance(item, Argument):
        raise _unparsed(f'The argument "{item.name}" at {item.where} was already set. {_ONCE}')
    raise _unparsed(
        f"{item.name} {_shown(item.labels[0])} at {item.where} was already set: give its rules in one block"
    )


_ONCE: Final = "Each argument can only be defined once"


def _of_argument(item: Argument) -> Rule:
    resource, is_prefix = _resource(item)
    if is_prefix or resource not in NAMELESS:
        raise _unparsed(f'{item.name} at {item.where} is about names: write {item.name} "NAME" {{ policy = "read" }}')
    return Rule(resource, _level(item.value, f"Invalid {resource} policy", resource))


def _of_block(item: Block) -> Rule:
    resource, is_prefix = _resource(item)
    if resource in NAMELESS:
        raise _unparsed(f'{item.name} at {item.where} is about no names: write {item.name} = "read"')
    if len(item.labels) != 1:
        raise _unparsed(f"{item.name} at {item.where} has {len(item.labels)} labels: exactly one name is allowed")
    [name] = item.labels
    try:
        size = len(name.encode())
    except UnicodeEncodeError:  # JSON can say so; whoever signs could not be told of it
        raise _unparsed(f"{item.name} {_shown(name)} at {item.where}: the name has half of a surrogate pair") from None
    if size > MAX_NAME:
        raise _unparsed(f"{item.name} at {item.where}: the name is longer than {MAX_NAME} bytes")
    arguments = _given_once(item)
    kind = f"{resource}{_PREFIX if is_prefix else ''}"
    allowed = _ARGUMENTS.get(resource, _POLICY_ALONE)
    if unknown := sorted(set(arguments) - allowed):
        raise _unparsed(
            f"{item.name} {_shown(name)} has {_shown(unknown[0])}: allowed are {', '.join(sorted(allowed))}"
        )
    if "policy" not in arguments:
        raise RulesRefused(f"Invalid {kind} policy: {_shown(name)} has no policy")
    level = _level(arguments["policy"], f"Invalid {kind} policy", resource)
    if level is not Level.WRITE and (void := sorted(set(arguments) & _ISSUANCE)):
        raise RulesRefused(
            f'Invalid {kind} policy: {_shown(name)} has {void[0]} and policy = "{level.name.lower()}": only who may'
            ' write has certificates, so it must be "write"'
        )
    intentions = None
    if "intentions" in arguments:
        intentions = _level(arguments["intentions"], f"Invalid {kind} intentions policy", resource)
    issuance = Issuance(
        dns=_patterns(arguments, "dns", name, _dns_pattern),
        ip=_patterns(arguments, "ip", name, _network),
        ttl_max_seconds=_ttl(arguments, name),
    )
    return Rule(resource, level, name, is_prefix, intentions, issuance)


def _resource(item: Argument | Block) -> tuple[Resource, bool]:
    word = item.name.lower()
    is_prefix = word.endswith(_PREFIX)
    try:
        resource = Resource(word.removesuffix(_PREFIX))
    except ValueError:
        resource = None
    if resource is None or (is_prefix and resource in NAMELESS):
        raise _unparsed(f"{_shown(item.name)} at {item.where} is no resource: known are {', '.join(Resource)}")
    return resource, is_prefix


def _level(value: Value, refused: str, resource: Resource) -> Level:
    level = _LEVELS.get(value.lower()) if isinstance(value, str) else None
    if not isinstance(value, str):
        raise _unparsed(f"{refused}: {_shown(value)} must be a text")
    if level is None or (level is Level.LIST and resource is not Resource.KEY):
        raise RulesRefused(f"{refused}: {_shown(value)}: must be deny, read or write")
    return level


def _given_once(block: Block) -> dict[str, Value]:
    arguments: dict[str, Value] = {}
    for item in block.body:
        if isinstance(item, Block):
            raise _unparsed(f"{item.name} at {item.where}: no block is allowed inside {block.name}")
        name = item.name.lower()
        if name in arguments:
            _refuse_twice(item)
        arguments[name] = item.value
    return arguments


def _patterns(
    arguments: dict[str, Value], name: str, of: str, read: Callable[[str], str | None]
) -> tuple[str, ...] | None:
    if name not in arguments:
        return None
    texts = arguments[name]
    if not isinstance(texts, tuple) or not all(isinstance(text, str) for text in texts) or len(texts) > MAX_PATTERNS:
        raise _unparsed(f"{name} of {_shown(of)} must be a list of at most {MAX_PATTERNS} texts")
    patterns = []
    for text in texts:
        pattern = read(str(text))
        if pattern is None:
            raise RulesRefused(f"Invalid {name} pattern {_shown(text)} of {_shown(of)}: {_EXPECTED[name]}")
        patterns.append(pattern)
    return tuple(patterns)


_EXPECTED: Final = {
    "dns": "must be labels of letters, digits, - and _, in each of which one * may stand for any part of it",
    "ip": "must be an address, or a network such as 10.0.0.0/8",
}


def _dns_pattern(text: str) -> str | None:
    return text.lower() if _DNS_PATTERN.fullmatch(text) else None


def _network(text: str) -> str | None:
    try:
        return str(ip_network(text))
    except ValueError:
        return None


def _ttl(arguments: dict[str, Value], of: str) -> int:
    value = arguments.get("ttl_max")
    if value is None:
        return 0
    try:
        nanoseconds = parse_duration(value) if isinstance(value, str) else -1
    except ValueError as error:
        raise RulesRefused(f"Invalid ttl_max of {_shown(of)}: {error}") from None
    seconds = to_seconds(nanoseconds)
    if seconds < MIN_TTL_SECONDS:
        raise RulesRefused(
            f'Invalid ttl_max {_shown(value)} of {_shown(of)}: must be a duration such as "24h", of at least'
            f" {MIN_TTL_SECONDS}s"
        )
    return seconds


def _unparsed(what: str) -> RulesRefused:
    return RulesRefused(f"Failed to parse ACL rules: {what}")


def _shown(value: object) -> str:
    text = f'"{value}"' if isinstance(value, str) else str(value)
    return ascii(text)[1:-1][:_MAX_SHOWN]
