"""Objects of access control as Consul's clients read them. A SecretID is in none of them: whoever has one, because it
was just made, or came with the request, puts it in.
"""

import base64
import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from cluster.access.writers import HIDDEN
from cluster.base.clock import rfc3339
from fsm.acl import Acl, AuthMethod, BindingRule, NodeIdentity, Policy, Role, ServiceIdentity, Token
from providers.config.durations import SECOND, format_duration

Json = dict[str, Any]
_HASHED_WITHOUT: Final = frozenset({"CreateIndex", "ModifyIndex", "Hash", "SecretID", "CreateTime"})


@dataclass(frozen=True, slots=True)
class Names:
    """Of the policies and roles of one state, by ID: made once for whatever is rendered of it."""

    policies: Mapping[str, str]
    roles: Mapping[str, str]

    @classmethod
    def of(cls, acl: Acl) -> "Names":
        return cls(
            {policy.policy_id: policy.name for policy in acl.policies}, {role.role_id: role.name for role in acl.roles}
        )


def token_object(token: Token, names: Names, secret_id: str = HIDDEN) -> Json:
    found: Json = {
        "AccessorID": token.accessor_id,
        "SecretID": secret_id,
        "Description": token.description,
        **_rights(token, names),
        "Local": token.is_local,
        **({"AuthMethod": token.auth_method} if token.auth_method else {}),
        **({"ExpirationTime": rfc3339(token.expires_at)} if token.expires_at else {}),
        "CreateTime": rfc3339(token.created_at),
    }
    return _indexed(found, token)


def policy_object(policy: Policy) -> Json:
    found: Json = {
        "ID": policy.policy_id,
        "Name": policy.name,
        "Description": policy.description,
        "Rules": policy.rules,
        **({"Datacenters": list(policy.datacenters)} if policy.datacenters else {}),
    }
    return _indexed(found, policy)


def policy_stub(policy: Policy) -> Json:
    """In lists: without the rules, and with what is null where it is not given."""
    found = policy_object(policy)
    del found["Rules"]
    return {**found, "Datacenters": list(policy.datacenters) or None}


def role_object(role: Role, names: Names) -> Json:
    found: Json = {
        "ID": role.role_id,
        "Name": role.name,
        "Description": role.description,
        **_rights(role, names),
    }
    return _indexed(found, role)


def method_object(method: AuthMethod) -> Json:
    """Of its Config what is no secret; what is one is `<hidden>` in it."""
    return {**method_stub(method), "Config": json.loads(method.config_json)}


def method_stub(method: AuthMethod) -> Json:
    found: Json = {
        "Name": method.name,
        "Type": method.kind.value,
        **({"DisplayName": method.display_name} if method.display_name else {}),
        "Description": method.description,
        **(
            {"MaxTokenTTL": format_duration(method.max_token_ttl_seconds * SECOND)}
            if method.max_token_ttl_seconds
            else {}
        ),
        "TokenLocality": method.locality.value,
    }
    return {**found, "CreateIndex": method.create_index, "ModifyIndex": method.modify_index}


def rule_object(rule: BindingRule) -> Json:
    return {
        "ID": rule.rule_id,
        "Description": rule.description,
        "AuthMethod": rule.auth_method,
        "Selector": rule.selector,
        "BindType": rule.bind_type.value,
        "BindName": rule.bind_name,
        "CreateIndex": rule.create_index,
        "ModifyIndex": rule.modify_index,
    }


def expanded(token: Token, acl: Acl, *, allows_by_default: bool, node_name: str) -> Json:
    """What `?expanded` adds to a token: everything that it leads to."""
    roles = [role for role in acl.roles if role.role_id in token.roles]
    names = Names.of(acl)
    wanted = {*token.policies, *(policy_id for role in roles for policy_id in role.policies)}
    return {
        "ExpandedPolicies": [policy_object(policy) for policy in acl.policies if policy.policy_id in wanted],
        "ExpandedRoles": [role_object(role, names) for role in roles],
        "NamespaceDefaultPolicyIDs": None,
        "NamespaceDefaultRoleIDs": None,
        "AgentACLDefaultPolicy": "allow" if allows_by_default else "deny",
        "AgentACLDownPolicy": "deny",  # nothing is extended: a server that hears from no leader takes no token
        "ResolvedByAgent": node_name,
    }


def _rights(holder: Token | Role, names: Names) -> Json:
    """Links to what is gone are left out, as are empty lists."""
    found: Json = {"Policies": _links(holder.policies, names.policies)}
    if isinstance(holder, Token):
        found["Roles"] = _links(holder.roles, names.roles)
    found["ServiceIdentities"] = [_service(identity) for identity in holder.service_identities]
    found["NodeIdentities"] = [_node(identity) for identity in holder.node_identities]
    return {name: values for name, values in found.items() if values}


def _links(ids: Iterable[str], names: Mapping[str, str]) -> list[Json]:
    return [{"ID": one, "Name": names[one]} for one in ids if one in names]


def _service(identity: ServiceIdentity) -> Json:
    datacenters = {"Datacenters": list(identity.datacenters)} if identity.datacenters else {}
    return {"ServiceName": identity.service, **datacenters}


def _node(identity: NodeIdentity) -> Json:
    return {"NodeName": identity.node, "Datacenter": identity.datacenter}


def _indexed(found: Json, value: Token | Policy | Role) -> Json:
    """`Hash` changes with the content, and is the same on every node."""
    content = {name: part for name, part in found.items() if name not in _HASHED_WITHOUT}
    digest = hashlib.blake2b(json.dumps(content, sort_keys=True).encode(), digest_size=32).digest()
    return {
        **found,
        "Hash": base64.b64encode(digest).decode("ascii"),
        "CreateIndex": value.create_index,
        "ModifyIndex": value.modify_index,
    }
