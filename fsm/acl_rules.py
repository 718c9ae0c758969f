"""How each command of access control changes the state."""

from bisect import bisect_left
from collections.abc import Callable, Mapping, Set
from dataclasses import replace
from itertools import pairwise
from operator import attrgetter
from typing import Any, Final, TypeVar

from fsm.acl import (
    ANONYMOUS,
    MAX_BINDING_RULES,
    MAX_METHODS,
    MAX_OF_AN_IDENTITY,
    MAX_POLICIES,
    MAX_ROLES,
    MAX_TOKENS,
    RESERVED_TOKENS,
    Acl,
    AuthMethod,
    BindingRule,
    BootstrapAcl,
    DeleteAuthMethod,
    DeleteBindingRule,
    DeletePolicy,
    DeleteRole,
    DeleteTokens,
    InitAcl,
    Policy,
    Role,
    SetAuthMethod,
    SetBindingRule,
    SetPolicy,
    SetRole,
    SetToken,
    Token,
)
from fsm.commands import Rejected
from fsm.rule import Rule
from fsm.state import Area, State

NOT_FOUND: Final = "not_found"
CHANGED: Final = "changed"
EXISTS: Final = "exists"
FULL: Final = "full"

T = TypeVar("T", bound=Policy | Role | Token | AuthMethod | BindingRule)
_Key = Callable[[Any], str]


_policy_id: Final[_Key] = attrgetter("policy_id")
_role_id: Final[_Key] = attrgetter("role_id")
_accessor: Final[_Key] = attrgetter("accessor_id")
_method_name: Final[_Key] = attrgetter("name")
_rule_id: Final[_Key] = attrgetter("rule_id")


def _place(table: tuple[T, ...], key: str, key_of: _Key) -> tuple[int, T | None]:
    """Where it is, or would be, in a table that is in the order of its keys."""
    at = bisect_left(table, key, key=key_of)
    found = table[at] if at < len(table) and key_of(table[at]) == key else None
    return at, found


#: By what each table is in order.
_KEYS: Final[Mapping[str, _Key]] = {
    "policies": _policy_id,
    "roles": _role_id,
    "tokens": _accessor,
    "methods": _method_name,
    "binding_rules": _rule_id,
}


def find(acl: Acl, table: str, key: str) -> Any:
    """The one with this ID, or name of a method, in the table of this name; None: there is none."""
    return _place(getattr(acl, table), key, _KEYS[table])[1]


def broken_order(acl: Acl) -> str | None:
    """What no commands could have led to, and look-ups would go wrong by; None: nothing is."""
    for name, key_of in _KEYS.items():
        keys = [key_of(value) for value in getattr(acl, name)]
        for before, key in pairwise(keys):
            if before >= key:
                what = "is there twice" if before == key else f"comes after {before}"
                return f"acl.{name}: {key} {what}: must be in the order of its keys, each once"
    for name, field, values in (
        ("policies", "name", [policy.name for policy in acl.policies]),
        ("roles", "name", [role.name for role in acl.roles]),
        ("tokens", "secret_hash", [token.secret_hash for token in acl.tokens]),
    ):
        if len(set(values)) < len(values):
            return f"acl.{name}: two have the same {field}: must be each one's own"
    return None


def _set(
    table: tuple[T, ...], value: T, replaces: int, index: int, key_of: _Key, most: int
) -> tuple[T, ...] | Rejected:
    at, old = _place(table, key_of(value), key_of)
    if old is None and replaces:
        return Rejected(NOT_FOUND, f"{key_of(value)} is gone")
    if old is not None and old.modify_index != replaces:
        return Rejected(CHANGED if replaces else EXISTS, f"{key_of(value)} has index {old.modify_index}")
    if old is None and len(table) >= most:
        return Rejected(FULL, f"there are {most} already")
    stamped = replace(value, create_index=old.create_index if old else index, modify_index=index)
    return (*table[:at], stamped, *table[at + (old is not None) :])


def _without(table: tuple[T, ...], key: str, key_of: _Key) -> tuple[T, ...] | Rejected:
    at, old = _place(table, key, key_of)
    if old is None:
        return Rejected(NOT_FOUND, f"{key} is not there")
    return (*table[:at], *table[at + 1 :])


def _with_table(state: State, name: str, table: tuple[Any, ...] | Rejected) -> State | Rejected:
    if isinstance(table, Rejected):
        return table
    changes: dict[str, Any] = {name: table, f"{name}_index": state.index + 1}
    return replace(state, acl=replace(state.acl, **changes))


def _init(state: State, cmd: InitAcl) -> State | Rejected:
    if state.acl.key is not None:
        return Rejected("already_initialised", "access control is set up already")
    index = state.index + 1
    policies = sorted(cmd.policies, key=_policy_id)
    acl = Acl(
        key=cmd.key,
        policies=tuple(replace(policy, create_index=index, modify_index=index) for policy in policies),
        tokens=(replace(cmd.anonymous, create_index=index, modify_index=index),),
        policies_index=index,
        tokens_index=index,
    )
    return replace(state, acl=acl)


def _bootstrap(state: State, cmd: BootstrapAcl) -> State | Rejected:
    if state.acl.bootstrap_index != cmd.reset:
        return Rejected("bootstrapped", str(state.acl.bootstrap_index))
    after = _set_token(state, SetToken(cmd.token))
    if isinstance(after, Rejected):
        return after
    return replace(after, acl=replace(after.acl, bootstrap_index=state.index + 1))


def _set_policy(state: State, cmd: SetPolicy) -> State | Rejected:
    if any(
        other.name == cmd.policy.name != "" and other.policy_id != cmd.policy.policy_id for other in state.acl.policies
    ):
        return Rejected("name_exists", cmd.policy.name)
    table = _set(state.acl.policies, cmd.policy, cmd.replaces, state.index + 1, _policy_id, MAX_POLICIES)
    return _with_table(state, "policies", table)


def _set_role(state: State, cmd: SetRole) -> State | Rejected:
    if any(other.name == cmd.role.name and other.role_id != cmd.role.role_id for other in state.acl.roles):
        return Rejected("name_exists", cmd.role.name)
    table = _set(state.acl.roles, cmd.role, cmd.replaces, state.index + 1, _role_id, MAX_ROLES)
    return _with_table(state, "roles", table)


def _set_token(state: State, cmd: SetToken) -> State | Rejected:
    token = cmd.token
    if state.acl.key is None:
        return Rejected("not_initialised", "access control is not set up yet")
    if _has_secret_of_another(state.acl.tokens, token):
        return Rejected("secret_exists", "the SecretID is in use")
    if token.auth_method and _place(state.acl.methods, token.auth_method, _method_name)[1] is None:
        return Rejected("no_method", token.auth_method)
    most = MAX_TOKENS - RESERVED_TOKENS if token.auth_method else MAX_TOKENS
    ended = () if cmd.replaces else ended_by(state.acl, token)
    before = _all_but(state.acl.tokens, {other.accessor_id for other in ended})
    table = _set(before, token, cmd.replaces, state.index + 1, _accessor, most)
    return _with_table(state, "tokens", table)


def _has_secret_of_another(tokens: tuple[Token, ...], token: Token) -> bool:
    # All nodes wait for it: of all ways to compare all of them, a list of those that are equal is the quickest.
    same = [other.accessor_id for other in tokens if other.secret_hash == token.secret_hash]
    return any(accessor_id != token.accessor_id for accessor_id in same)


def ended_by(acl: Acl, token: Token) -> tuple[Token, ...]:
    """Those whose place a new one takes, because its identity has as many as it may: such as have expired by the time
    that it was made, and then the oldest.
    """
    identity = token.identity_hash
    if not identity:
        return ()
    own = [other for other in acl.tokens if other.identity_hash == identity]
    own.sort(key=lambda other: (not other.is_expired(token.created_at), other.create_index))
    return tuple(own[: max(0, len(own) + 1 - MAX_OF_AN_IDENTITY)])


def _all_but(tokens: tuple[Token, ...], gone: Set[str]) -> tuple[Token, ...]:
    return tuple(token for token in tokens if token.accessor_id not in gone) if gone else tokens


def _set_method(state: State, cmd: SetAuthMethod) -> State | Rejected:
    table = _set(state.acl.methods, cmd.method, cmd.replaces, state.index + 1, _method_name, MAX_METHODS)
    return _with_table(state, "methods", table)


def _set_binding_rule(state: State, cmd: SetBindingRule) -> State | Rejected:
    if _place(state.acl.methods, cmd.rule.auth_method, _method_name)[1] is None:
        return Rejected("no_method", cmd.rule.auth_method)
    table = _set(state.acl.binding_rules, cmd.rule, cmd.replaces, state.index + 1, _rule_id, MAX_BINDING_RULES)
    return _with_table(state, "binding_rules", table)


def _delete_policy(state: State, cmd: DeletePolicy) -> State | Rejected:
    return _with_table(state, "policies", _without(state.acl.policies, cmd.policy_id, _policy_id))


def _delete_role(state: State, cmd: DeleteRole) -> State | Rejected:
    return _with_table(state, "roles", _without(state.acl.roles, cmd.role_id, _role_id))


def _delete_tokens(state: State, cmd: DeleteTokens) -> State | Rejected:
    gone = frozenset(cmd.accessor_ids) - {ANONYMOUS}
    kept = _all_but(state.acl.tokens, gone)
    if len(kept) == len(state.acl.tokens):
        return Rejected(NOT_FOUND, "none of them is there")
    return _with_table(state, "tokens", kept)


def _delete_method(state: State, cmd: DeleteAuthMethod) -> State | Rejected:
    after = _with_table(state, "methods", _without(state.acl.methods, cmd.name, _method_name))
    if isinstance(after, Rejected):
        return after
    acl, index = after.acl, state.index + 1
    rules = tuple(rule for rule in acl.binding_rules if rule.auth_method != cmd.name)
    tokens = tuple(token for token in acl.tokens if token.auth_method != cmd.name)
    if rules != acl.binding_rules:
        acl = replace(acl, binding_rules=rules, binding_rules_index=index)
    if tokens != acl.tokens:
        acl = replace(acl, tokens=tokens, tokens_index=index)
    return replace(after, acl=acl)


def _delete_binding_rule(state: State, cmd: DeleteBindingRule) -> State | Rejected:
    return _with_table(state, "binding_rules", _without(state.acl.binding_rules, cmd.rule_id, _rule_id))


RULES: Final[Mapping[type, Rule]] = {
    InitAcl: Rule(_init, Area.ACL),
    BootstrapAcl: Rule(_bootstrap, Area.ACL),
    SetPolicy: Rule(_set_policy, Area.ACL),
    SetRole: Rule(_set_role, Area.ACL),
    SetToken: Rule(_set_token, Area.ACL),
    SetAuthMethod: Rule(_set_method, Area.ACL),
    SetBindingRule: Rule(_set_binding_rule, Area.ACL),
    DeletePolicy: Rule(_delete_policy, Area.ACL),
    DeleteRole: Rule(_delete_role, Area.ACL),
    DeleteTokens: Rule(_delete_tokens, Area.ACL),
    DeleteAuthMethod: Rule(_delete_method, Area.ACL),
    DeleteBindingRule: Rule(_delete_binding_rule, Area.ACL),
}

#: What may be otherwise by the time that the command is made anew from the state of then.
OVERTAKEN: Final = frozenset({CHANGED, EXISTS, "name_exists", "secret_exists", "no_method", "bootstrapped"})


Setting = SetPolicy | SetRole | SetToken | SetAuthMethod | SetBindingRule


def key_of(command: Setting) -> str:
    """Of what it sets, in its table."""
    match command:
        case SetPolicy(policy):
            return policy.policy_id
        case SetRole(role):
            return role.role_id
        case SetToken(token):
            return token.accessor_id
        case SetAuthMethod(method):
            return method.name
        case SetBindingRule(rule):
            return rule.rule_id
