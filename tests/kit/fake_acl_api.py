"""A node's ACL endpoints as the commands see them: objects are kept, linked and found as Consul keeps them.

What it leaves out is what no command depends on: rules are never read, only the management token may do anything.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import count
from typing import Any, Final
from urllib.parse import unquote

from tests.kit.fake_api import FakeApi

MANAGEMENT: Final = "00000000-0000-0000-0000-000000000001"
ANONYMOUS: Final = "00000000-0000-0000-0000-000000000002"
#: The secret of `started`'s token.
ROOT: Final = "50000000-5555-5555-5555-555555555555"
CREATED: Final = "2020-05-22T18:52:31Z"
EXPIRES: Final = "2020-05-22T20:52:31.5Z"
HASH: Final = "AQL/"  # 01 02 ff
_HIDDEN: Final = "<hidden>"
_KINDS: Final = {
    "token": ("tokens", "AccessorID"),
    "policy": ("policies", "ID"),
    "role": ("roles", "ID"),
    "auth-method": ("auth-methods", "Name"),
    "binding-rule": ("binding-rules", "ID"),
}
_FIELDS: Final = {
    "token": {
        *("AccessorID", "SecretID", "Description", "Policies", "Roles", "ServiceIdentities", "NodeIdentities"),
        *("Local", "AuthMethod", "ExpirationTime", "ExpirationTTL"),
    },
    "policy": {"ID", "Name", "Description", "Rules", "Datacenters"},
    "role": {"ID", "Name", "Description", "Policies", "ServiceIdentities", "NodeIdentities"},
    "auth-method": {"Name", "Type", "DisplayName", "Description", "MaxTokenTTL", "TokenLocality", "Config"},
    "binding-rule": {"ID", "Description", "AuthMethod", "Selector", "BindType", "BindName"},
}

Object = dict[str, Any]


class Refused(Exception):
    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


def uuid(number: int) -> str:
    return f"{number:08x}-1111-2222-3333-444444444444"


def secret(number: int) -> str:
    return f"{number:08x}-5555-6666-7777-888888888888"


@dataclass
class FakeAclApi(FakeApi):
    """Canned answers win; the rest is served from `tables`. The bearer token `good` logs in everywhere."""

    tables: dict[str, dict[str, Object]] = field(default_factory=lambda: {kind: {} for kind in _KINDS})
    secrets: dict[str, str] = field(default_factory=dict)  # SecretID -> AccessorID
    agent_tokens: dict[str, str] = field(default_factory=dict)
    is_bootstrapped: bool = False
    numbers: Any = field(default_factory=lambda: count(1))
    index: int = 10

    def next_answer(self, method: str, path: str) -> tuple[int, bytes]:
        if (method, path) in self.answers:
            return super().next_answer(method, path)
        try:
            body = self._serve(method, [unquote(part) for part in path.removeprefix("/v1/").split("/")])
        except Refused as refused:
            return refused.status, str(refused).encode()
        self.answer(method, path, body)  # for its encoding
        return self.answers.pop((method, path))[0]

    def started(self) -> "FakeAclApi":
        """Bootstrapped, with the token of `ROOT`."""
        self._policy(MANAGEMENT, "global-management")
        self._token({"Description": "Anonymous Token"}, ANONYMOUS, "anonymous")
        self._token({"Description": "root", "Policies": [{"ID": MANAGEMENT}]}, uuid(0xF00), ROOT)
        self.is_bootstrapped = True
        return self

    def make(self, kind: str, **fields: Any) -> Object:
        """An object, as if somebody had put it."""
        return self._put(kind, None, fields)

    def secret_of(self, accessor_id: str) -> str:
        return next(secret for secret, accessor in self.secrets.items() if accessor == accessor_id)

    def _policy(self, policy_id: str, name: str) -> None:
        self.tables["policy"][policy_id] = {
            "ID": policy_id,
            "Name": name,
            "Description": "",
            "Rules": 'acl = "write"',
            "Datacenters": None,
            **self._meta(),
        }

    def _serve(self, method: str, parts: list[str]) -> Any:
        match method, *parts:
            case "PUT", "acl", "bootstrap":
                return self._bootstrap()
            case "POST", "acl", "login":
                return self._login()
            case "POST", "acl", "logout":
                return self._logout()
            case "GET", "acl", "token", "self":
                return self._expanded(self._caller() or self.tables["token"][ANONYMOUS])
        self._check_management()
        match method, *parts:
            case "PUT", "agent", "token", name:
                self.agent_tokens[name] = self.last.body["Token"]
                return ""
            case "PUT", "acl", "token", key, "clone":
                there = self._get("token", key)
                clone = {name: there.get(name) for name in ("Policies", "Roles", "Local") if there.get(name)}
                return self._token({**clone, **self.last.body}, None, None)
            case "PUT", "acl", kind, *key if kind in _KINDS:
                return self._put(kind, key[0] if key else None, self.last.body)
            case "GET", "acl", ("policy" | "role") as kind, "name", *name:
                found = [item for item in self.tables[kind].values() if item["Name"] == "/".join(name)]
                return self._found(kind, found[0] if found else None)
            case "GET", "acl", kind, key if kind in _KINDS:
                return self._expanded(self._get(kind, key)) if kind == "token" else self._get(kind, key)
            case "DELETE", "acl", kind, key if kind in _KINDS:
                if key not in self.tables[kind]:
                    raise Refused(404, f"Cannot find {kind.replace('-', ' ')} to delete")
                del self.tables[kind][key]
                return "true"
            case "GET", "acl", plural:
                listed = [kind for kind, names in _KINDS.items() if names[0] == plural]
                if listed:
                    return self._list(listed[0])
        raise Refused(404, "no such path")

    # -- who asks

    def _caller(self) -> Object | None:
        token = self.last.token
        if token is None:
            return None
        if token not in self.secrets or self.secrets[token] not in self.tables["token"]:
            raise Refused(403, "ACL not found")
        return self.tables["token"][self.secrets[token]]

    def _check_management(self) -> None:
        caller = self._caller()
        if caller is None:
            raise Refused(
                403,
                "Permission denied: anonymous token lacks permission 'acl:read'. The anonymous token is used"
                " implicitly when a request does not specify a token.",
            )
        if not any(link["ID"] == MANAGEMENT for link in caller.get("Policies", [])):
            raise Refused(403, f"Permission denied: token with AccessorID '{caller['AccessorID']}' lacks permission")

    def _bootstrap(self) -> Object:
        if self.is_bootstrapped:
            raise Refused(403, "Permission denied: ACL bootstrap no longer allowed (reset index: 7)")
        self.is_bootstrapped = True
        self._policy(MANAGEMENT, "global-management")
        fields = {"Description": "Bootstrap Token (Global Management)", "Policies": [{"ID": MANAGEMENT}]}
        token = self._token(fields, None, (self.last.body or {}).get("BootstrapSecret"))
        return {"ID": token["SecretID"], **token}

    def _login(self) -> Object:
        body = self.last.body
        if body["AuthMethod"] not in self.tables["auth-method"]:
            raise Refused(403, f'ACL not found: auth method "{body["AuthMethod"]}" not found')
        if body["BearerToken"] != "good":
            raise Refused(403, f"Permission denied: {body['BearerToken']} is not good")
        meta = body.get("Meta", {})
        fields = {"Description": f"token created via login: {meta}", "Local": True, "AuthMethod": body["AuthMethod"]}
        return self._token(fields, None, None)

    def _logout(self) -> str:
        caller = self._caller()
        if caller is None:
            raise Refused(401, "Supplied token does not exist")
        if not caller.get("AuthMethod"):
            raise Refused(403, "Permission denied: token wasn't created via login")
        del self.tables["token"][caller["AccessorID"]]
        return "true"

    # -- objects

    def _put(self, kind: str, key: str | None, body: Mapping[str, Any]) -> Object:
        unknown = set(body) - _FIELDS[kind]
        if unknown:
            raise Refused(400, f"{kind} decoding failed: unknown fields {sorted(unknown)}")
        id_field = _KINDS[kind][1]
        if kind == "token" and key is None:
            return self._token(body, body.get("AccessorID"), body.get("SecretID"))
        if key is None and id_field == "Name":
            key = body["Name"]
        there = self.tables[kind].get(key or "")
        if key is not None and there is None and id_field != "Name":
            raise Refused(400, f"cannot find {kind} {key}")
        key = key or uuid(next(self.numbers))
        new = {id_field: key, **body, **self._links(body), **self._meta(there)}
        if kind == "token" and there is not None:
            new["CreateTime"] = there["CreateTime"]
        self.tables[kind][key] = new
        return self._hidden(new) if kind == "token" else new

    def _token(self, body: Mapping[str, Any], accessor_id: str | None, secret_id: str | None) -> Object:
        number = next(self.numbers)
        accessor_id, secret_id = accessor_id or uuid(number), secret_id or secret(number)
        fields = {name: value for name, value in body.items() if name not in ("SecretID", "ExpirationTTL")}
        token = {
            "AccessorID": accessor_id,
            "Description": "",
            "Local": False,
            **fields,
            **self._links(body),
            **({"ExpirationTime": EXPIRES} if body.get("ExpirationTTL") else {}),
            "CreateTime": CREATED,
            **self._meta(),
        }
        token["AccessorID"] = accessor_id
        self.tables["token"][accessor_id], self.secrets[secret_id] = token, accessor_id
        return {"AccessorID": accessor_id, "SecretID": secret_id, **token}

    def _links(self, body: Mapping[str, Any]) -> Object:
        found = {}
        for name, kind in (("Policies", "policy"), ("Roles", "role")):
            links = {self._linked(kind, link)["ID"]: None for link in body.get(name) or ()}
            if links:
                found[name] = [{"ID": one, "Name": self.tables[kind][one]["Name"]} for one in links]
        return found

    def _linked(self, kind: str, link: Mapping[str, str]) -> Object:
        for item in self.tables[kind].values():
            if item["ID"] == link.get("ID") or ("ID" not in link and item["Name"] == link.get("Name")):
                return item
        raise Refused(400, f'No such ACL {kind} with name "{link.get("Name", link.get("ID"))}"')

    def _get(self, kind: str, key: str) -> Object:
        found = self._found(kind, self.tables[kind].get(key))
        return self._hidden(found) if kind == "token" else found

    def _found(self, kind: str, item: Object | None) -> Object:
        if item is not None:
            return item
        if kind == "token":
            raise Refused(403, "token does not exist: ACL not found")
        raise Refused(404, f"Requested {kind.replace('-', ' ')} does not exist: ACL not found")

    def _list(self, kind: str) -> list[Object]:
        items = [self._hidden(item) if kind == "token" else item for item in self.tables[kind].values()]
        method = self.last.query.get("authmethod")
        left_out = {"policy": "Rules", "auth-method": "Config"}.get(kind)
        return [
            {name: value for name, value in item.items() if name != left_out}
            for item in items
            if method is None or item.get("AuthMethod") == method
        ]

    def _expanded(self, token: Object) -> Object:
        token = self._hidden(token)
        if "expanded" not in self.last.query:
            return token
        roles = [self.tables["role"][link["ID"]] for link in token.get("Roles", [])]
        links = [link for item in (token, *roles) for link in item.get("Policies", [])]
        return {
            **token,
            "ExpandedPolicies": [self.tables["policy"][link["ID"]] for link in links],
            "ExpandedRoles": roles,
            "NamespaceDefaultPolicyIDs": None,
            "NamespaceDefaultRoleIDs": None,
            "AgentACLDefaultPolicy": "deny",
            "AgentACLDownPolicy": "deny",
            "ResolvedByAgent": "node-1",
        }

    @staticmethod
    def _hidden(token: Object) -> Object:
        return {"AccessorID": token["AccessorID"], "SecretID": _HIDDEN, **token}

    def _meta(self, there: Object | None = None) -> Object:
        self.index += 1
        created = self.index if there is None else there["CreateIndex"]
        return {"Hash": HASH, "CreateIndex": created, "ModifyIndex": self.index}
