"""Access control in the OpenAPI document."""

from typing import Final

from cluster.http.openapi.parts import (
    BLOCKING,
    FLAG,
    READ,
    TIME,
    Json,
    fields,
    json_body,
    list_of,
    nullable,
    number,
    operation,
    parameter,
    ref,
    text,
)
from fsm.acl import BindType, Locality, MethodType

_WRITES: Final = (400, 404, 413, 422, 500, 503, 504)
_LINKS: Final = list_of(fields(False, ID=text(), Name=text("one of the two is enough where it is written")))
_SERVICES: Final = list_of(
    {**fields(False, ServiceName=text(), Datacenters=list_of(text())), "required": ["ServiceName"]}
)
_NODES: Final = list_of(fields(NodeName=text(), Datacenter=text()))
_RIGHTS: Final = {"Policies": _LINKS, "ServiceIdentities": _SERVICES, "NodeIdentities": _NODES}
_INDEXES: Final = {"CreateIndex": number(), "ModifyIndex": number()}
_HASH: Final = text("changes with the content")


def _optional(required: str, /, **properties: Json) -> Json:
    return {**fields(False, **properties), "required": required.split()}


_TOKEN: Final = {
    "AccessorID": text("UUID: the token's name, which is no secret"),
    "SecretID": text("UUID: what clients send. Shown once, to whoever has the token made; `<hidden>` afterwards"),
    "Description": text(),
    **_RIGHTS,
    "Roles": _LINKS,
    "Local": FLAG,
    "AuthMethod": text("by which it was logged in for"),
    "ExpirationTime": TIME,
    "CreateTime": TIME,
    "Hash": _HASH,
    **_INDEXES,
}
_METHOD: Final = {
    "Name": text(),
    "Type": {"type": "string", "enum": [kind.value for kind in MethodType]},
    "DisplayName": text(),
    "Description": text(),
    "MaxTokenTTL": text("Go duration"),
    "TokenLocality": {"type": "string", "enum": [locality.value for locality in Locality]},
    **_INDEXES,
}
_POLICY: Final = {
    "ID": text("UUID"),
    "Name": text(),
    "Description": text(),
    "Datacenters": nullable(list_of(text())),
    "Hash": _HASH,
    **_INDEXES,
}
_DURATION: Final[Json] = {"type": ["string", "integer"], "description": "Go duration or nanoseconds"}

SCHEMAS: Final[Json] = {
    "Token": _optional("AccessorID SecretID Description Local CreateTime Hash CreateIndex ModifyIndex", **_TOKEN),
    "ExpandedToken": _optional(
        "AccessorID SecretID Description Local CreateTime Hash CreateIndex ModifyIndex",
        **_TOKEN,
        ExpandedPolicies=list_of(ref("Policy")),
        ExpandedRoles=list_of(ref("Role")),
        NamespaceDefaultPolicyIDs={"type": "null"},
        NamespaceDefaultRoleIDs={"type": "null"},
        AgentACLDefaultPolicy={"type": "string", "enum": ["allow", "deny"]},
        AgentACLDownPolicy=text(),
        ResolvedByAgent=text("node name"),
    ),
    "TokenUpdate": fields(
        False,
        **{name: kind for name, kind in _TOKEN.items() if name not in ("CreateTime", "Hash", *_INDEXES)},
        ExpirationTTL=_DURATION,
    ),
    "Policy": _optional("ID Name Description Rules Hash CreateIndex ModifyIndex", **_POLICY, Rules=text("HCL or JSON")),
    "PolicyStub": fields(**_POLICY),
    "PolicyUpdate": fields(
        False, ID=text(), Name=text(), Description=text(), Rules=text("HCL or JSON"), Datacenters=list_of(text())
    ),
    "Role": _optional(
        "ID Name Description Hash CreateIndex ModifyIndex",
        ID=text("UUID"),
        Name=text(),
        Description=text(),
        **_RIGHTS,
        Hash=_HASH,
        **_INDEXES,
    ),
    "RoleUpdate": fields(False, ID=text(), Name=text(), Description=text(), **_RIGHTS),
    "AuthMethod": _optional(
        "Name Type Description TokenLocality Config CreateIndex ModifyIndex",
        **_METHOD,
        Config={"type": "object", "description": "of its type; no secrets"},
    ),
    "AuthMethodStub": _optional("Name Type Description TokenLocality CreateIndex ModifyIndex", **_METHOD),
    "AuthMethodUpdate": fields(
        False,
        **{name: kind for name, kind in _METHOD.items() if name not in ("MaxTokenTTL", *_INDEXES)},
        MaxTokenTTL=_DURATION,
        Config={"type": "object"},
    ),
    "BindingRule": fields(
        ID=text("UUID"),
        Description=text(),
        AuthMethod=text(),
        Selector=text("over what the method has proved"),
        BindType={"type": "string", "enum": [kind.value for kind in BindType]},
        BindName=text("may hold ${...}"),
        **_INDEXES,
    ),
    "BindingRuleUpdate": fields(
        False,
        ID=text(),
        Description=text(),
        AuthMethod=text(),
        Selector=text(),
        BindType=text(),
        BindName=text(),
    ),
}


def _id(description: str) -> Json:
    return parameter("id", description, where="path")


def _get(summary: str, schema: Json, *parameters: Json, errors: tuple[int, ...] = (400, 500, 503)) -> Json:
    return operation(summary, json_body(schema), *parameters, *READ, *BLOCKING, is_query=True, errors=errors)


def _put(summary: str, schema: str, body: Json, *parameters: Json, is_open: bool = False) -> Json:
    return operation(summary, json_body(ref(schema)), *parameters, body=body, errors=_WRITES, is_open=is_open)


def _delete(summary: str, what: str) -> Json:
    return operation(summary, json_body(FLAG), _id(what), errors=_WRITES)


def _objects(path: str, many: str, what: str, schema: str, stub: str, key: str, *filters: Json) -> Json:
    """Of one kind: one is made, read, changed and deleted; all are listed."""
    update = ref(f"{schema}Update")
    return {
        f"/v1/acl/{path}": {"put": _put(f"Make {what}", schema, update)},
        f"/v1/acl/{path}/{{id}}": {
            "get": _get(f"Read {what}", ref(schema), _id(key), errors=(400, 404, 500, 503)),
            "put": _put(f"Change {what}", schema, update, _id(key)),
            "delete": _delete(f"Delete {what}", key),
        },
        f"/v1/acl/{many}": {"get": _get(f"List: {many}", list_of(ref(stub)), *filters)},
    }


_EXPANDED: Final = parameter("expanded", "with everything that it leads to; presence counts")
_ANY_TOKEN: Final[Json] = {"anyOf": [ref("Token"), ref("ExpandedToken")]}
_TOKENS: Final = _objects(
    "token",
    "tokens",
    "a token",
    "Token",
    "Token",
    "AccessorID",
    parameter("policy", "only those with this policy, by ID"),
    parameter("role", "only those with this role, by ID"),
    parameter("authmethod", "only those of logins by this method"),
    parameter("servicename", "only those with an identity of this service"),
)
_TOKENS["/v1/acl/token/{id}"]["get"] = _get(
    "Read a token", _ANY_TOKEN, _id("AccessorID"), _EXPANDED, errors=(400, 404, 500, 503)
)
_LOGIN: Final = _put(
    "Prove who one is, and get a token for it",
    "Token",
    _optional(
        "AuthMethod",
        AuthMethod=text(),
        BearerToken=text(
            "what the method asks for: a JWT; for the type tls, a statement that is signed with the certificate's key"
        ),
        Meta={"type": "object", "additionalProperties": text()},
    ),
    is_open=True,
)
_LOGOUT: Final = operation("End the token of a login, which is the one sent", json_body(FLAG), errors=(401, *_WRITES))
_BOOTSTRAP: Final = _put(
    "The first token for management, once",
    "Token",
    fields(False, BootstrapSecret=text("UUID: the SecretID, if it is to be this one")),
    is_open=True,
)
_BOOTSTRAP["requestBody"]["required"] = False

PATHS: Final[Json] = {
    "/v1/acl/bootstrap": {"put": _BOOTSTRAP},
    "/v1/acl/login": {"post": _LOGIN, "put": _LOGIN},
    "/v1/acl/logout": {"post": _LOGOUT, "put": _LOGOUT},
    **_TOKENS,
    "/v1/acl/token/self": {"get": _get("The token that is sent", _ANY_TOKEN, _EXPANDED)},
    "/v1/acl/token/{id}/clone": {
        "put": _put("Make another with the same rights", "Token", fields(False, Description=text()), _id("AccessorID"))
    },
    "/v1/acl/replication": {
        "get": operation(
            "Whether another datacenter is followed: there is one, so it is not",
            json_body(
                fields(
                    Enabled=FLAG,
                    Running=FLAG,
                    SourceDatacenter=text(),
                    ReplicationType=text(),
                    ReplicatedIndex=number(),
                    ReplicatedRoleIndex=number(),
                    ReplicatedTokenIndex=number(),
                    LastSuccess=TIME,
                    LastError=TIME,
                    LastErrorMessage=text(),
                )
            ),
            is_open=True,
            errors=(400,),
        )
    },
    **_objects("policy", "policies", "a policy", "Policy", "PolicyStub", "UUID"),
    "/v1/acl/policy/name/{id}": {
        "get": _get("Read a policy by its name", ref("Policy"), _id("name"), errors=(400, 404, 500, 503))
    },
    **_objects("role", "roles", "a role", "Role", "Role", "UUID", parameter("policy", "only those with it, by ID")),
    "/v1/acl/role/name/{id}": {
        "get": _get("Read a role by its name", ref("Role"), _id("name"), errors=(400, 404, 500, 503))
    },
    **_objects("auth-method", "auth-methods", "an auth method", "AuthMethod", "AuthMethodStub", "name"),
    **_objects(
        "binding-rule",
        "binding-rules",
        "a binding rule",
        "BindingRule",
        "BindingRule",
        "UUID",
        parameter("authmethod", "only those of this method"),
    ),
    "/v1/agent/token/{kind}": {
        "put": operation(
            "Give this node a token of its own, or take it away; it is not kept over a restart",
            None,
            parameter("kind", "default, agent, config_file_service_registration or replication", where="path"),
            body=fields(Token=text("SecretID; empty: none")),
            errors=(400, 404, 413, 500),
        )
    },
}
