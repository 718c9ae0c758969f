"""Small, valid values and commands of access control, shared by all tests of it."""

from collections.abc import Callable
from typing import Any

from fsm.acl import (
    ANONYMOUS,
    GLOBAL_MANAGEMENT,
    Acl,
    AclCommand,
    AclKey,
    AuthMethod,
    BindingRule,
    BindType,
    BootstrapAcl,
    DeleteAuthMethod,
    DeleteBindingRule,
    DeletePolicy,
    DeleteRole,
    DeleteTokens,
    InitAcl,
    Locality,
    MethodType,
    NodeIdentity,
    Policy,
    Role,
    ServiceIdentity,
    SetAuthMethod,
    SetBindingRule,
    SetPolicy,
    SetRole,
    SetToken,
    Token,
)
from fsm.apply import apply
from fsm.commands import Applied
from fsm.state import State

NOW = 1_800_000_000


def uuid(number: int) -> str:
    return f"{number:08x}-1111-2222-3333-444444444444"


def policy(number: int = 1, **changes: Any) -> Policy:
    return Policy(
        **{
            "policy_id": uuid(number),
            "name": f"policy-{number}",
            "description": f"policy {number}",
            "rules": 'service "web" { policy = "write" }',
            "datacenters": ("dc1", "dc2"),
            **changes,
        }
    )


def role(number: int = 1, **changes: Any) -> Role:
    return Role(
        **{
            "role_id": uuid(number),
            "name": f"role-{number}",
            "description": f"role {number}",
            "policies": (uuid(1),),
            "service_identities": (ServiceIdentity("web", ("dc1",)),),
            "node_identities": (NodeIdentity("n1", "dc1"),),
            **changes,
        }
    )


def token(number: int = 1, **changes: Any) -> Token:
    return Token(
        **{
            "accessor_id": uuid(number),
            "secret_hash": number.to_bytes(32, "big"),
            "description": f"token {number}",
            "policies": (uuid(1), GLOBAL_MANAGEMENT),
            "roles": (uuid(1),),
            "service_identities": (ServiceIdentity("web", ("dc1",)), ServiceIdentity("api")),
            "node_identities": (NodeIdentity("n1", "dc1"),),
            "created_at": NOW,
            **changes,
        }
    )


def method(name: str = "jwt-1", **changes: Any) -> AuthMethod:
    return AuthMethod(
        **{
            "name": name,
            "kind": MethodType.JWT,
            "display_name": "tokens of the pipeline",
            "description": "jwt",
            "config_json": '{"BoundIssuer":"https://ci.example"}',
            "sealed": b"sealed",
            "max_token_ttl_seconds": 300,
            "locality": Locality.GLOBAL,
            **changes,
        }
    )


def binding_rule(number: int = 1, **changes: Any) -> BindingRule:
    return BindingRule(
        **{
            "rule_id": uuid(number),
            "description": f"rule {number}",
            "auth_method": "jwt-1",
            "selector": "value.project == web",
            "bind_type": BindType.SERVICE,
            "bind_name": "${value.project}",
            **changes,
        }
    )


KEY = AclKey(b"a sealed key")
ANONYMOUS_TOKEN = Token(ANONYMOUS, b"\xff" * 32, "Anonymous Token", created_at=NOW)
MANAGEMENT = Policy(GLOBAL_MANAGEMENT, "global-management", "", 'acl = "write"')
INIT = InitAcl(KEY, (MANAGEMENT,), ANONYMOUS_TOKEN)

#: One of each kind, every field set to something that is not its default.
COMMANDS: dict[str, AclCommand] = {
    "init_acl": INIT,
    "bootstrap_acl": BootstrapAcl(token(9, is_local=True, expires_at=NOW + 60), 7),
    "set_policy": SetPolicy(policy(create_index=3, modify_index=4), 4),
    "set_role": SetRole(role(create_index=3, modify_index=4), 4),
    "set_token": SetToken(
        token(
            is_local=True,
            auth_method="jwt-1",
            identity_hash=b"i" * 32,
            expires_at=NOW + 60,
            create_index=3,
            modify_index=4,
        ),
        4,
    ),
    "set_auth_method": SetAuthMethod(method(create_index=3, modify_index=4), 4),
    "set_binding_rule": SetBindingRule(binding_rule(create_index=3, modify_index=4), 4),
    "delete_policy": DeletePolicy(uuid(1)),
    "delete_role": DeleteRole(uuid(1)),
    "delete_tokens": DeleteTokens((uuid(1), uuid(2))),
    "delete_auth_method": DeleteAuthMethod("jwt-1"),
    "delete_binding_rule": DeleteBindingRule(uuid(1)),
}


def fitting(acl: Acl, kind: type) -> AclCommand:
    """Of this kind, such that it is applied; or else of the kind that has to come before."""
    if acl.key is None:
        return INIT
    rules = acl.binding_rules
    has_method = any(found.name == "jwt-1" for found in acl.methods)
    if not has_method and kind in (SetBindingRule, DeleteBindingRule, DeleteAuthMethod):
        kind = SetAuthMethod
    if kind is DeleteBindingRule and not rules:
        kind = SetBindingRule
    if kind is DeletePolicy and all(found.policy_id != uuid(1) for found in acl.policies):
        kind = SetPolicy
    if kind is DeleteRole and not acl.roles:
        kind = SetRole
    if kind is DeleteTokens and all(found.accessor_id != uuid(1) for found in acl.tokens):
        kind = SetToken
    return _FITTING[kind](acl)


def _at(table: tuple[Any, ...], field: str, key: str) -> int:
    """The index of what is there under this key."""
    return next((found.modify_index for found in table if getattr(found, field) == key), 0)


def _bootstrap(acl: Acl) -> AclCommand:
    """A new token each time: the earlier one may be there still."""
    number = 1000 + acl.bootstrap_index
    return BootstrapAcl(token(number), acl.bootstrap_index)


_FITTING: dict[type, Callable[[Acl], AclCommand]] = {
    InitAcl: lambda acl: INIT,
    BootstrapAcl: _bootstrap,
    SetPolicy: lambda acl: SetPolicy(policy(), _at(acl.policies, "policy_id", uuid(1))),
    SetRole: lambda acl: SetRole(role(), _at(acl.roles, "role_id", uuid(1))),
    SetToken: lambda acl: SetToken(token(), _at(acl.tokens, "accessor_id", uuid(1))),
    SetAuthMethod: lambda acl: SetAuthMethod(method(), _at(acl.methods, "name", "jwt-1")),
    SetBindingRule: lambda acl: SetBindingRule(binding_rule(), _at(acl.binding_rules, "rule_id", uuid(1))),
    DeletePolicy: lambda acl: DeletePolicy(uuid(1)),
    DeleteRole: lambda acl: DeleteRole(uuid(1)),
    DeleteTokens: lambda acl: DeleteTokens((uuid(1), uuid(2))),
    DeleteAuthMethod: lambda acl: DeleteAuthMethod("jwt-1"),
    DeleteBindingRule: lambda acl: DeleteBindingRule(uuid(1)),
}


def with_one_of_each(state: State) -> State:
    """The same, and access control set up in it."""
    commands = (INIT, SetPolicy(policy()), SetRole(role()), SetAuthMethod(method()), SetBindingRule(binding_rule()))
    for command in (*commands, SetToken(token())):
        state, result = apply(state, command)
        assert isinstance(result, Applied), result
    return state
