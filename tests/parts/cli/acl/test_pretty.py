"""What is shown, letter for letter. Where Consul has golden files, it is as in those."""

from contextlib import suppress
from typing import Any

import pytest

from cluster.cli.acl import pretty
from cluster.client.errors import CommandError

A: str = "a1b2c3d4-0000-1111-2222-333333333333"
TOKEN: dict[str, Any] = {
    "AccessorID": A,
    "SecretID": "c3d4",
    "Description": "for web",
    "Policies": [{"ID": "e9f0", "Name": "web"}],
    "Local": False,
    "CreateTime": "2020-05-22T18:52:31Z",
    "Hash": "AQL/",
    "CreateIndex": 42,
    "ModifyIndex": 100,
}
TOKEN_TEXT = f"""\
AccessorID:       {A}
SecretID:         c3d4
Description:      for web
Local:            false
Create Time:      2020-05-22 18:52:31 +0000 UTC
Policies:
   e9f0 - web"""
FULL_TOKEN = TOKEN | {
    "Local": True,
    "AuthMethod": "minikube",
    "ExpirationTime": "2020-05-22T19:52:31.120Z",
    "Roles": [{"ID": "r1", "Name": "ops"}, {"ID": "r2", "Name": "dev"}],
    "ServiceIdentities": [{"ServiceName": "web"}, {"ServiceName": "db", "Datacenters": ["dc1", "dc2"]}],
    "NodeIdentities": [{"NodeName": "n1", "Datacenter": "dc1"}],
}
FULL_TOKEN_TEXT = f"""\
AccessorID:       {A}
SecretID:         c3d4
Description:      for web
Local:            true
Auth Method:      minikube
Create Time:      2020-05-22 18:52:31 +0000 UTC
Expiration Time:  2020-05-22 19:52:31.12 +0000 UTC
Hash:             0102ff
Create Index:     42
Modify Index:     100
Policies:
   e9f0 - web
Roles:
   r1 - ops
   r2 - dev
Service Identities:
   web (Datacenters: all)
   db (Datacenters: dc1, dc2)
Node Identities:
   n1 (Datacenter: dc1)"""
POLICY = {
    "ID": "e9f0",
    "Name": "web",
    "Description": "for web",
    "Datacenters": ["dc1", "dc2"],
    "Rules": 'service "web" {\n\tpolicy = "write"\n}',
    "Hash": "AQL/",
    "CreateIndex": 42,
    "ModifyIndex": 100,
}
POLICY_TEXT = """\
ID:           e9f0
Name:         web
Description:  for web
Datacenters:  dc1, dc2
Rules:
service "web" {
\tpolicy = "write"
}"""
ROLE = {
    "ID": "r1",
    "Name": "ops",
    "Description": "for ops",
    **{name: FULL_TOKEN[name] for name in ("Policies", "ServiceIdentities", "NodeIdentities")},
    **{name: TOKEN[name] for name in ("Hash", "CreateIndex", "ModifyIndex")},
}
ROLE_TEXT = """\
ID:           r1
Name:         ops
Description:  for ops
Policies:
   e9f0 - web
Service Identities:
   web (Datacenters: all)
   db (Datacenters: dc1, dc2)
Node Identities:
   n1 (Datacenter: dc1)"""
METHOD = {
    "Name": "ci",
    "Type": "jwt",
    "DisplayName": "the pipeline",
    "Description": "for jobs",
    "MaxTokenTTL": "5m0s",
    "TokenLocality": "local",
    "Config": {"BoundIssuer": "x", "BoundAudiences": ["y"]},
    "CreateIndex": 42,
    "ModifyIndex": 100,
}
METHOD_TEXT = """\
Name:          ci
Type:          jwt
DisplayName:   the pipeline
Description:   for jobs
MaxTokenTTL:   5m0s
TokenLocality: local
Create Index:  42
Modify Index:  100
Config:
{
  "BoundAudiences": [
    "y"
  ],
  "BoundIssuer": "x"
}"""
RULE = {
    "ID": "b1",
    "AuthMethod": "ci",
    "Description": "for jobs",
    "BindType": "service",
    "BindName": "${value.job}",
    "Selector": "value.project == web",
    "CreateIndex": 42,
    "ModifyIndex": 100,
}
RULE_TEXT = """\
ID:           b1
AuthMethod:   ci
Description:  for jobs
BindType:     service
BindName:     ${value.job}
Selector:     value.project == web"""


def text(lines: pretty.Lines) -> str:
    return "\n".join(lines)


def below(heading: str, shown: str) -> str:
    return "\n".join([f"{heading}:", *(f"   {line}" for line in shown.splitlines())])


def test_token() -> None:
    assert text(pretty.token(TOKEN, meta=False)) == TOKEN_TEXT
    assert text(pretty.token(FULL_TOKEN, meta=True)) == FULL_TOKEN_TEXT
    assert text(pretty.token_list([TOKEN, TOKEN], meta=False)) == f"{TOKEN_TEXT}\n\n{TOKEN_TEXT}"


def test_policy() -> None:
    assert text(pretty.policy(POLICY, meta=False)) == POLICY_TEXT
    with_meta = POLICY_TEXT.replace("Rules:", "Hash:         0102ff\nCreate Index: 42\nModify Index: 100\nRules:")
    assert text(pretty.policy(POLICY, meta=True)) == with_meta
    stub = POLICY | {"Datacenters": None}
    assert text(pretty.policy_list([stub, POLICY], meta=False)) == (
        "web:\n   ID:           e9f0\n   Description:  for web\n   Datacenters:  \n"
        "web:\n   ID:           e9f0\n   Description:  for web\n   Datacenters:  dc1, dc2"
    )


def test_role() -> None:
    assert text(pretty.role(ROLE, meta=False)) == ROLE_TEXT
    listed = ROLE_TEXT.replace("Name:         ops\n", "")
    assert text(pretty.role_list([ROLE], meta=False)) == below("ops", listed)
    meta = "Hash:         0102ff\nCreate Index: 42\nModify Index: 100\n"
    assert text(pretty.role(ROLE, meta=True)) == ROLE_TEXT.replace("Policies:", f"{meta}Policies:")


def test_auth_method() -> None:
    assert text(pretty.auth_method(METHOD, meta=True)) == METHOD_TEXT
    plain = {"Name": "ci", "Type": "tls", "Description": "", "MaxTokenTTL": "0s", "Config": None}
    assert text(pretty.auth_method(plain, meta=False)) == (
        "Name:          ci\nType:          tls\nDescription:   \nConfig:\nnull"
    )
    assert text(pretty.auth_method_list([METHOD, plain], meta=False)) == (
        "ci:\n   Type:         jwt\n   DisplayName:  the pipeline\n   Description:  for jobs\n"
        "ci:\n   Type:         tls\n   Description:  "
    )


def test_binding_rule() -> None:
    assert text(pretty.binding_rule(RULE, meta=False)) == RULE_TEXT
    assert text(pretty.binding_rule(RULE, meta=True)) == f"{RULE_TEXT}\nCreate Index: 42\nModify Index: 100"
    listed = RULE_TEXT.removeprefix("ID:           b1\n")
    assert text(pretty.binding_rule_list([RULE], meta=False)) == below("b1", listed)


def test_expanded_token_has_the_rules_of_links_and_identities() -> None:
    answer = TOKEN | {
        "Roles": [{"ID": "r1", "Name": "ops"}],
        "ServiceIdentities": [{"ServiceName": "web"}],
        "NodeIdentities": [{"NodeName": "n1", "Datacenter": "dc1"}],
        "ExpandedPolicies": [POLICY],
        "ExpandedRoles": [{"ID": "r1", "Name": "ops", "Description": "", "Policies": TOKEN["Policies"]}],
        "AgentACLDefaultPolicy": "deny",
        "AgentACLDownPolicy": "extend-cache",
        "ResolvedByAgent": "node-1",
    }
    shown = text(pretty.expanded_token(answer, meta=False))
    policy = """\
  Policy Name: web
    ID: e9f0
    Description: for web
    Rules:
      service "web" {
      \tpolicy = "write"
      }
"""
    in_role = "".join(f"    {line}\n" for line in f"Policies:\n{policy}".splitlines())
    assert shown.startswith(
        f"""{TOKEN_TEXT.partition("Policies:")[0]}Policies:
{policy}
Service Identities:
  Name: web (Datacenters: all)
    Description: synthetic policy
    Rules:
      service "web" {{ policy = "write" }}
      service "web-sidecar-proxy" {{ policy = "write" }}
      service_prefix "" {{ policy = "read" }}
      node_prefix "" {{ policy = "read" }}

Node Identities:
  Name: n1 (Datacenter: dc1)
    Description: synthetic policy
    Rules:
      node "n1" {{ policy = "write" }}
      service_prefix "" {{ policy = "read" }}

Roles:
  Role Name: ops
    ID: r1
    Description:\x20
{in_role}
=== End of Authorizer Layer 0: Token ===
"""
    )
    assert 'Resolved By Agent: "node-1"\n\nDefault Policy: deny\n' in shown


@pytest.mark.parametrize(
    ("json_time", "shown"),
    [
        ("2020-05-22T18:52:31Z", "2020-05-22 18:52:31 +0000 UTC"),
        ("2020-05-22T18:52:31.000Z", "2020-05-22 18:52:31 +0000 UTC"),
        ("2020-05-22T18:52:31.123456789Z", "2020-05-22 18:52:31.123456789 +0000 UTC"),
        ("2020-05-22T18:52:31.10+00:00", "2020-05-22 18:52:31.1 +0000 UTC"),
        ("2020-05-22T18:52:31+02:00", "2020-05-22 18:52:31 +0200 +0200"),
        ("0001-01-01T00:00:00Z", "0001-01-01 00:00:00 +0000 UTC"),
        ("soon\x1b[2J", "soon\ufffd[2J"),
        (7, "7"),
    ],
)
def test_times_as_go_prints_them(json_time: object, shown: str) -> None:
    assert pretty.go_time(json_time) == shown


HOSTILE = "\x1b[2J\x9b\r\n\u202eSecretID: x\ud800"


def hostile(value: Any) -> Any:
    """The same, with every text something that a terminal, or a reader of lines, must not get."""
    match value:
        case dict():
            return {name: hostile(item) for name, item in value.items()}
        case list():
            return [hostile(item) for item in value]
        case str():
            return HOSTILE
        case _:
            return value


def listing(show: Any) -> Any:
    """Shows a list of one."""
    return lambda answer, *, meta: show([answer], meta=meta)


SHOWN: dict[str, tuple[Any, dict[str, Any]]] = {
    "token": (pretty.token, FULL_TOKEN),
    "policy": (pretty.policy, POLICY),
    "role": (pretty.role, ROLE),
    "auth method": (pretty.auth_method, METHOD),
    "binding rule": (pretty.binding_rule, RULE),
    "expanded": (pretty.expanded_token, FULL_TOKEN | {"ExpandedPolicies": [POLICY], "ExpandedRoles": [ROLE]}),
    "tokens": (listing(pretty.token_list), FULL_TOKEN),
    "policies": (listing(pretty.policy_list), POLICY),
    "roles": (listing(pretty.role_list), ROLE),
    "auth methods": (listing(pretty.auth_method_list), METHOD),
    "binding rules": (listing(pretty.binding_rule_list), RULE),
}


@pytest.mark.parametrize("kind", SHOWN)
def test_nothing_in_a_field_commands_the_terminal_or_looks_like_another_field(kind: str) -> None:
    show, answer = SHOWN[kind]
    shown = text(show(hostile(answer), meta=True))
    assert all(char.isprintable() or char in "\n\t" for char in shown)
    rules = shown.partition("Rules:")[0]  # which keep their lines
    assert not any(line.strip().startswith("SecretID: x") for line in rules.splitlines())


@pytest.mark.parametrize("kind", SHOWN)
@pytest.mark.parametrize("value", [None, 7, "text", True, [], {}, ["a"], [None], {"a": [1]}])
def test_fields_of_any_type_are_shown_or_refused(kind: str, value: object) -> None:
    show, answer = SHOWN[kind]
    for name in answer:
        shown = ""
        with suppress(CommandError):  # a list of links is one, or not understood
            shown = text(show({**answer, name: value}, meta=True))
        assert all(char.isprintable() or char in "\n\t" for char in shown)
