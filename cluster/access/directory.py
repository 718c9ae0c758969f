"""Who a SecretID belongs to, and what that allows: on any node, from the replicated state.

Nothing is remembered for longer than the state that it was read from: another token, policy or role counts with the
next question. Rules are parsed once for each text, and merged once for each set of links.
"""

from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from cluster.access.authorizer import Authorizer
from cluster.access.identities import node_rules, service_rules
from cluster.access.rules import NAMELESS, Issuance, Rule, RulesRefused, parse_rules
from cluster.api.access import Caller, Level, Resource
from cluster.base.clock import Clock
from cluster.base.errors import TokenUnknown
from fsm.acl import ANONYMOUS, GLOBAL_MANAGEMENT, Acl, Policy, Role, Token

#: Sets of links whose rules are kept merged, and texts whose rules are kept parsed.
_MERGED_KEPT: Final = 4096
_PARSED_KEPT: Final = 4096


#: Consul's texts.
NOT_FOUND: Final = "ACL not found"
NOT_BOOTSTRAPPED: Final = (
    "ACL system must be bootstrapped before making any requests that require authorization: ACL not found"
)
#: Stands for the anonymous token until a leader has made it: it has no rights of its own then either.
_NOBODY: Final = Token(ANONYMOUS, b"", "")


@dataclass(frozen=True, slots=True)
class _Tables:
    """Look-ups over one state's tables."""

    acl: Acl
    by_hash: Mapping[bytes, Token]
    policies: Mapping[str, Policy]
    roles: Mapping[str, Role]
    authorizers: dict[bytes, Authorizer]  # of tokens that were asked with, by the same hash


class Directory:
    def __init__(
        self,
        acl: Callable[[], Acl],
        hashed: Callable[[str], bytes],
        datacenter: str,
        clock: Clock,
        *,
        allows_by_default: bool,
    ) -> None:
        """`acl`: the state's, as this node has applied it. `hashed`: a SecretID as it is looked up; raises NotReady
        while this node has no key for that.
        """
        self._acl = acl
        self._hashed = hashed
        self._datacenter = datacenter
        self._clock = clock
        self.allows_by_default = allows_by_default
        self._tables = _tables_of(Acl())
        self._merged: OrderedDict[tuple[object, ...], Authorizer] = OrderedDict()
        self._parsed: OrderedDict[str, tuple[Rule, ...]] = OrderedDict()

    @property
    def is_open(self) -> bool:
        """Whether nobody is asked for a token, as far as this node knows."""
        return self._is_open(self._current())

    def caller(self, secret_id: str) -> Caller:
        """Of a request; "" where it brings no token. Raises: TokenUnknown, NotReady."""
        tables = self._current()
        if not secret_id or self._is_open(tables):
            # Of an open cluster nobody has a token: clients send what they have for others, as where ACLs are off.
            return self._anonymous(tables)
        token = tables.by_hash.get(self._hashed(secret_id))
        if token is None or token.is_expired(self._clock.now()):
            raise TokenUnknown(NOT_FOUND if tables.acl.bootstrap_index else NOT_BOOTSTRAPPED)
        return Caller(
            secret_id,
            token.accessor_id,
            self._authorizer(tables, token),
            token.expires_at,
            is_anonymous=token.accessor_id == ANONYMOUS,
            is_of_open_cluster=self._is_open(tables),
            judged_by=tables,
        )

    def rules_of(self, accessor_id: str) -> Authorizer | None:
        """What the token with this AccessorID allows now; None where there is none any more."""
        tables = self._current()
        for token in tables.acl.tokens:
            if token.accessor_id == accessor_id and not token.is_expired(self._clock.now()):
                return self._authorizer(tables, token)
        return None

    def judged(self, secret_id: str, before: Caller | None) -> Caller:
        """As `caller`. `before`: what that was for the same SecretID, which it still is while nothing has changed."""
        if before is None or before.judged_by is not self._current():
            return self.caller(secret_id)
        if before.expires_at and self._clock.now() >= before.expires_at:
            raise TokenUnknown(NOT_FOUND)
        return before

    def _anonymous(self, tables: _Tables) -> Caller:
        token = next((token for token in tables.acl.tokens if token.accessor_id == ANONYMOUS), _NOBODY)
        return Caller(
            "",
            ANONYMOUS,
            self._authorizer(tables, token),
            is_anonymous=True,
            is_of_open_cluster=self._is_open(tables),
            judged_by=tables,
        )

    def _is_open(self, tables: _Tables) -> bool:
        return self.allows_by_default and not tables.acl.bootstrap_index

    def _current(self) -> _Tables:
        acl = self._acl()
        if acl is not self._tables.acl:
            self._tables = _tables_of(acl)
        return self._tables

    def _authorizer(self, tables: _Tables, token: Token) -> Authorizer:
        found = tables.authorizers.get(token.secret_hash)
        if found is None:
            found = tables.authorizers[token.secret_hash] = self._merged_for(tables, token)
        return found

    def _merged_for(self, tables: _Tables, token: Token) -> Authorizer:
        links = (
            tables.acl.policies_index,
            tables.acl.roles_index,
            token.policies,
            token.roles,
            token.service_identities,
            token.node_identities,
        )
        found = self._merged.get(links)
        if found is None:
            found = Authorizer(self._rules(tables, token), allows_by_default=self.allows_by_default)
            self._merged[links] = found
            if len(self._merged) > _MERGED_KEPT:
                self._merged.popitem(last=False)
        else:
            self._merged.move_to_end(links)
        return found

    def _rules(self, tables: _Tables, token: Token) -> Iterator[Rule]:
        holders: list[Token | Role] = [token]
        holders += [tables.roles[role_id] for role_id in token.roles if role_id in tables.roles]
        for holder in holders:
            for policy_id in holder.policies:
                if (policy := tables.policies.get(policy_id)) and self._counts_here(policy.datacenters):
                    yield from self._rules_of(policy)
            for service in holder.service_identities:
                if self._counts_here(service.datacenters):
                    yield from service_rules(service)
            for node in holder.node_identities:
                if node.datacenter == self._datacenter:
                    yield from node_rules(node)

    def _counts_here(self, datacenters: tuple[str, ...]) -> bool:
        return not datacenters or self._datacenter in datacenters

    def _rules_of(self, policy: Policy) -> tuple[Rule, ...]:
        if policy.policy_id == GLOBAL_MANAGEMENT:
            return EVERYTHING
        found = self._parsed.get(policy.rules)
        if found is None:
            try:
                found = parse_rules(policy.rules)
            except RulesRefused:
                # No release takes such rules. What they say cannot be known: perhaps that all is denied.
                found = NOTHING
            self._parsed[policy.rules] = found
            if len(self._parsed) > _PARSED_KEPT:
                self._parsed.popitem(last=False)
        else:
            self._parsed.move_to_end(policy.rules)
        return found


def _tables_of(acl: Acl) -> _Tables:
    return _Tables(
        acl,
        {token.secret_hash: token for token in acl.tokens},
        {policy.policy_id: policy for policy in acl.policies},
        {role.role_id: role for role in acl.roles},
        {},
    )


def _of_all(level: Level) -> tuple[Rule, ...]:
    return tuple(
        Rule(
            resource,
            level,
            is_prefix=resource not in NAMELESS,
            intentions=level if resource is Resource.SERVICE else None,
            issuance=Issuance(is_any=True),
        )
        for resource in Resource
    )


#: What the policy global-management gives, whatever its text says (Consul does not let it be changed).
EVERYTHING: Final = _of_all(Level.WRITE)
NOTHING: Final = _of_all(Level.DENY)
