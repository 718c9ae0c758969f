"""One decision: what the rules of a token say about a resource and a name.

Rules of all its policies, roles and identities are one set. Of several about one name, or one beginning of names, deny
wins over write, and write over read. The rule about the very name decides; where there is none, the one about the
longest beginning of it; else the default policy. So a rule about a name is never overruled by one about many names,
whatever the two say (Consul's `policy_authorizer.go`; docs/consul-compat.md 12.3).
"""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Final

from cluster.access.rules import NAMELESS, Issuance, Rule
from cluster.api.access import GivenNames, Level, Resource
from providers.grants import ANYTHING, Grant, NameGrant, Names

#: Where they have no rule, the one about this resource decides.
_FOLLOWS: Final = {Resource.MESH: Resource.OPERATOR, Resource.PEERING: Resource.OPERATOR}
#: What the default policy `allow` never gives: with it anybody could take the whole.
_NEVER_BY_DEFAULT: Final = frozenset({Resource.ACL})


class _Names:
    """The rules about one resource."""

    __slots__ = ("_lengths", "exact", "prefixes")

    def __init__(self, exact: Mapping[str, Rule], prefixes: Mapping[str, Rule]) -> None:
        self.exact = exact
        self.prefixes = prefixes
        self._lengths = tuple(sorted({len(prefix) for prefix in prefixes}, reverse=True))

    def rule(self, name: str) -> Rule | None:
        """The one that decides. As many look-ups as prefixes have lengths, however many rules there are."""
        if (found := self.exact.get(name)) is not None:
            return found
        for length in self._lengths:
            if length <= len(name) and (found := self.prefixes.get(name[:length])) is not None:
                return found
        return None


_NO_NAMES: Final = _Names({}, {})
NO_HOSTS: Final = NameGrant(is_given=True)
#: What agents of Consul ask for to be reached on their own host (docs/consul-compat.md 2.4).
OF_AN_AGENT: Final = NameGrant(is_given=True, dns=("localhost",), networks=("127.0.0.0/8", "::1/128"))
NOTHING: Final = NameGrant(is_given=False)


class Authorizer:
    """What one set of rules allows; made once for it, and asked by every request."""

    __slots__ = ("_allows_by_default", "_given", "_grant", "_names")

    def __init__(self, rules: Iterable[Rule], *, allows_by_default: bool) -> None:
        self._allows_by_default = allows_by_default
        self._grant: bytes | None = None
        self._given: dict[tuple[Resource, Level], GivenNames] = {}
        exact: dict[Resource, dict[str, Rule]] = {}
        prefixes: dict[Resource, dict[str, Rule]] = {}
        for rule in rules:
            into = (prefixes if rule.is_prefix else exact).setdefault(rule.resource, {})
            known = into.get(rule.name)
            into[rule.name] = rule if known is None else merged(known, rule)
        self._names = {
            resource: _Names(exact.get(resource, {}), prefixes.get(resource, {})) for resource in {*exact, *prefixes}
        }

    @property
    def grant(self) -> bytes:
        """What certificates may be had, for whoever signs; made when it is first asked for."""
        if self._grant is None:
            self._grant = Grant(
                self._grants(Resource.SERVICE, NO_HOSTS),
                self._grants(Resource.NODE, OF_AN_AGENT),
                ANYTHING if self.allows(Resource.MESH, Level.WRITE) else NOTHING,
            ).to_bytes()
        return self._grant

    def _grants(self, resource: Resource, unsaid: NameGrant) -> Names:
        names = self._names.get(resource, _NO_NAMES)
        default = ANYTHING if self._allows_by_default else NOTHING
        unsaid = ANYTHING if self._allows_by_default else unsaid
        return Names(
            {name: _name_grant(rule, unsaid) for name, rule in names.exact.items()},
            {prefix: _name_grant(rule, unsaid) for prefix, rule in names.prefixes.items()},
            default,
        )

    def rule(self, resource: Resource, name: str = "") -> Rule | None:
        """The one that decides about the name; None where the default policy does."""
        names = self._names.get(resource)
        found = names.rule(name) if names is not None else None
        if found is None and (other := _FOLLOWS.get(resource)) is not None:
            return self.rule(other, name)
        return found

    def allows(self, resource: Resource, level: Level, name: str = "") -> bool:
        rule = self.rule(resource, name)
        if rule is None:
            return self._allows_by_default and resource not in _NEVER_BY_DEFAULT
        return rule.level >= level

    def names_given(self, resource: Resource, level: Level) -> GivenNames:
        """The default policy gives it on whatever begins with nothing, unless a rule speaks of all names."""
        if (known := self._given.get((resource, level))) is not None:
            return known
        names = self._names.get(resource, _NO_NAMES)
        prefixes = {prefix for prefix, rule in names.prefixes.items() if rule.level >= level}
        if self._allows_by_default and resource not in _NEVER_BY_DEFAULT and "" not in names.prefixes:
            prefixes.add("")
        exact = sorted(name for name, rule in names.exact.items() if rule.level >= level)
        given = self._given[resource, level] = GivenNames(tuple(exact), tuple(sorted(prefixes)))
        return given

    def gives_any(self, resource: Resource, level: Level) -> bool:
        if resource in NAMELESS:
            return self.allows(resource, level)
        given = self.names_given(resource, level)
        return bool(given.exact or given.prefixes)

    def ttl_max_seconds(self, service: str) -> int:
        rule = self.rule(Resource.SERVICE, service)
        return 0 if rule is None else rule.issuance.ttl_max_seconds

    def intends(self, level: Level, name: str) -> bool:
        """Rights on the intentions of a service: where its rule does not speak of them, whoever may read it may read
        them.
        """
        rule = self.rule(Resource.SERVICE, name)
        if rule is None:
            return self._allows_by_default
        given = rule.intentions
        if given is None:
            given = Level.READ if rule.level >= Level.READ else Level.DENY
        return given >= level


def _name_grant(rule: Rule, unsaid: NameGrant) -> NameGrant:
    """`unsaid` is what names and addresses there may be where the rule does not speak of them."""
    if rule.level < Level.WRITE:
        return NOTHING
    issuance = rule.issuance
    if issuance.is_any:
        return replace(ANYTHING, ttl_max_seconds=issuance.ttl_max_seconds)
    return NameGrant(
        is_given=True,
        dns=unsaid.dns if issuance.dns is None else issuance.dns,
        networks=unsaid.networks if issuance.ip is None else issuance.ip,
        ttl_max_seconds=issuance.ttl_max_seconds,
    )


def merged(one: Rule, other: Rule) -> Rule:
    """Of two rules about the same."""
    return replace(
        one,
        level=_stronger(one.level, other.level),
        intentions=_stronger_given(one.intentions, other.intentions),
        issuance=_both(one.issuance, other.issuance),
    )


def _stronger(one: Level, other: Level) -> Level:
    return Level.DENY if Level.DENY in (one, other) else max(one, other)


def _stronger_given(one: Level | None, other: Level | None) -> Level | None:
    if one is None or other is None:
        return other if one is None else one
    return _stronger(one, other)


def _both(one: Issuance, other: Issuance) -> Issuance:
    """Names add up; of two bounds on the lifetime the shorter one holds."""
    bounds = [bound for bound in (one.ttl_max_seconds, other.ttl_max_seconds) if bound]
    return Issuance(
        dns=_joined(one.dns, other.dns),
        ip=_joined(one.ip, other.ip),
        ttl_max_seconds=min(bounds, default=0),
        is_any=one.is_any or other.is_any,
    )


def _joined(one: tuple[str, ...] | None, other: tuple[str, ...] | None) -> tuple[str, ...] | None:
    if one is None or other is None:
        return other if one is None else one
    return tuple(dict.fromkeys((*one, *other)))
