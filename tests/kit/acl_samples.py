"""Small, valid values and commands of access control, shared by all tests of it."""

from typing import Any

from fsm.acl import (
    ANONYMOUS,
    GLOBAL_MANAGEMENT,
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
        token(is_local=True, auth_method="jwt-1", expires_at=NOW + 60, create_index=3, modify_index=4), 4
    ),
    "set_auth_method": SetAuthMethod(method(create_index=3, modify_index=4), 4),
    "set_binding_rule": SetBindingRule(binding_rule(create_index=3, modify_index=4), 4),
    "delete_policy": DeletePolicy(uuid(1)),
    "delete_role": DeleteRole(uuid(1)),
    "delete_tokens": DeleteTokens((uuid(1), uuid(2))),
    "delete_auth_method": DeleteAuthMethod("jwt-1"),
    "delete_binding_rule": DeleteBindingRule(uuid(1)),
}
