"""How much access control may be in the state: what is in it must fit into what servers send each other of it, or no
server could be added any more, or catch up (`cluster.raft.snapshot`, `cluster.raft.machine`).

The leader looks before it proposes. Numbers of objects are bounded by the state machine; what they weigh together is
bounded here, because no handler should add up thousands of objects while all nodes wait for it.
"""

from bisect import bisect_left
from collections.abc import Iterable
from typing import Any, Final

from cluster.base.errors import Refused
from fsm.acl import (
    ACL_TABLES,
    Acl,
    AclCommand,
    AuthMethod,
    BindingRule,
    BootstrapAcl,
    Policy,
    Role,
    SetAuthMethod,
    SetBindingRule,
    SetPolicy,
    SetRole,
    SetToken,
    Token,
)
from fsm.acl_rules import ended_by

#: Of the 8 MiB that a state between servers may have; what is under way while this is looked at fits, too.
MAX_WEIGHT: Final = 6 << 20
#: Of these, what no login takes: some hundreds of tokens that operators make.
RESERVED_WEIGHT: Final = 128 << 10
#: What a value adds to its text. Values are counted, too, where a state arrives: so many of them weigh MAX_WEIGHT.
_VALUE: Final = 12

Weighed = Policy | Role | Token | AuthMethod | BindingRule


class Room:
    """Remembers what it has weighed last: most writes change one object."""

    def __init__(self, most: int = MAX_WEIGHT) -> None:
        self._most = most
        self._acl = Acl()
        self._weight = 0

    def check(self, acl: Acl, command: AclCommand) -> None:
        """Whether there is room for what it adds; deleting and making smaller is always possible. Raises: Refused."""
        wanted = _added(command)
        if wanted is None:
            return
        more = weight(wanted) - sum(map(weight, _replaced(acl, wanted)))
        most = self._most - (RESERVED_WEIGHT if _is_login(wanted) else 0)
        if more > 0 and self._of(acl) + more > most:
            raise Refused(f"no room for more of them: all of access control may have {self._most} bytes")

    def _of(self, acl: Acl) -> int:
        if acl is not self._acl:
            for before, after in zip(_tables(self._acl), _tables(acl), strict=True):
                if before is not after:
                    # By identity, which is quick: the objects of both are kept alive by their tables.
                    kept = {id(one) for one in before} & {id(one) for one in after}
                    self._weight -= sum(weight(one) for one in before if id(one) not in kept)
                    self._weight += sum(weight(one) for one in after if id(one) not in kept)
            self._acl = acl
        return self._weight


def _tables(acl: Acl) -> list[tuple[Weighed, ...]]:
    return [getattr(acl, name) for name in ACL_TABLES]


def _added(command: AclCommand) -> Weighed | None:
    match command:
        case SetPolicy(value) | SetRole(value) | SetToken(value) | SetAuthMethod(value) | SetBindingRule(value):
            return value
        case BootstrapAcl(token):
            return token
        case _:
            return None


def _is_login(wanted: Weighed) -> bool:
    return isinstance(wanted, Token) and wanted.auth_method != ""


def _replaced(acl: Acl, wanted: Weighed) -> tuple[Weighed, ...]:
    """What is there under the same key, or ends with it."""
    table = _table(acl, wanted)
    at = bisect_left(table, _key(wanted), key=_key)
    if at < len(table) and _key(table[at]) == _key(wanted):
        return (table[at],)
    return ended_by(acl, wanted) if isinstance(wanted, Token) else ()


def _table(acl: Acl, wanted: Weighed) -> tuple[Weighed, ...]:
    match wanted:
        case Policy():
            return acl.policies
        case Role():
            return acl.roles
        case Token():
            return acl.tokens
        case AuthMethod():
            return acl.methods
        case BindingRule():
            return acl.binding_rules


def _key(value: Any) -> str:
    match value:
        case Policy():
            return value.policy_id
        case Role():
            return value.role_id
        case Token():
            return value.accessor_id
        case AuthMethod():
            return value.name
        case _:
            key: str = value.rule_id
            return key


def weight(value: Weighed) -> int:
    """At least its bytes in a state, and _VALUE for each of its values."""
    match value:
        case Token():
            texts: Iterable[str] = (value.description, value.auth_method, *value.policies, *value.roles)
            return _texts(texts) + _identities(value) + 32 + len(value.identity_hash) + 16 * _VALUE
        case Role():
            return _texts((value.name, value.description, *value.policies)) + _identities(value) + 16 * _VALUE
        case Policy():
            return _texts((value.name, value.description, value.rules, *value.datacenters)) + 12 * _VALUE
        case AuthMethod():
            texts = (value.name, value.display_name, value.description, value.config_json)
            return _texts(texts) + len(value.sealed) + 12 * _VALUE
        case BindingRule():
            return _texts((value.description, value.auth_method, value.selector, value.bind_name)) + 12 * _VALUE


def _texts(texts: Iterable[str]) -> int:
    return sum(_VALUE + (len(text) if text.isascii() else len(text.encode())) for text in texts)


def _identities(holder: Token | Role) -> int:
    services = sum(_texts((one.service, *one.datacenters)) + 2 * _VALUE for one in holder.service_identities)
    return services + sum(_texts((one.node, one.datacenter)) + _VALUE for one in holder.node_identities)
