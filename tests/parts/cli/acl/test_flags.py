"""Every flag of every command: what is sent because of it, however it is written."""

import argparse
import io
import json
import re
from pathlib import Path
from typing import Any

import pytest

from cluster.cli.main import build_parser
from tests.kit.fake_acl_api import MANAGEMENT, ROOT, FakeAclApi, uuid
from tests.parts.cli.conftest import Run

WEB, OPS, TOKEN, RULE = uuid(0xA1), uuid(0xB1), uuid(0xC1), uuid(0xD1)
META = {"Hash": "AQL/", "CreateIndex": 1, "ModifyIndex": 2}
#: What is there when a command is run.
THERE: dict[str, list[dict[str, Any]]] = {
    "policy": [
        {"ID": WEB, "Name": "web", "Description": "old", "Rules": "", "Datacenters": ["dc1"]},
        {"ID": uuid(0xA2), "Name": "other", "Description": "", "Rules": "", "Datacenters": None},
    ],
    "role": [
        {
            "ID": OPS,
            "Name": "ops",
            "Description": "old",
            "Policies": [{"ID": WEB, "Name": "web"}],
            "ServiceIdentities": [{"ServiceName": "web", "Datacenters": ["dc1"]}],
        }
    ],
    "token": [
        {
            "AccessorID": TOKEN,
            "Description": "old",
            "Policies": [{"ID": WEB, "Name": "web"}],
            "Roles": [{"ID": OPS, "Name": "ops"}],
            "ServiceIdentities": [{"ServiceName": "web", "Datacenters": ["dc1"]}],
            "NodeIdentities": [{"NodeName": "n1", "Datacenter": "dc1"}],
            "Local": True,
            "CreateTime": "2020-05-22T18:52:31Z",
        }
    ],
    "auth-method": [
        {
            "Name": "kube",
            "Type": "kubernetes",
            "Description": "old",
            "MaxTokenTTL": "5m0s",
            "Config": {"Host": "https://old", "CACert": "old", "ServiceAccountJWT": "<hidden>"},
        }
    ],
    "binding-rule": [
        {
            "ID": RULE,
            "AuthMethod": "kube",
            "Description": "old",
            "Selector": "a == b",
            "BindType": "role",
            "BindName": "ops",
        }
    ],
}
TOKEN_THERE = {name: value for name, value in THERE["token"][0].items() if name != "CreateTime"}
ROLE_THERE, POLICY_THERE, METHOD_THERE, RULE_THERE = (
    THERE[kind][0] for kind in ("role", "policy", "auth-method", "binding-rule")
)
LINKS = [{"Name": "web"}, {"Name": "other"}, {"ID": WEB}]
LINKS_FLAGS = f"-policy-name web -policy-name other -policy-id {WEB[:8]}"
IDENTITIES: dict[str, Any] = {
    "ServiceIdentities": [{"ServiceName": "a"}, {"ServiceName": "b", "Datacenters": ["dc1", "dc2"]}],
    "NodeIdentities": [{"NodeName": "n", "Datacenter": "dc1"}, {"NodeName": "m", "Datacenter": "dc2"}],
}
IDENTITY_FLAGS = "-service-identity a -service-identity b:dc1,dc2 -node-identity n:dc1 -node-identity m:dc2"

#: Command -> method, path and body of its last request.
SENT: list[tuple[str, str, str, Any]] = [
    ("bootstrap", "PUT", "bootstrap", None),
    (f"bootstrap {ROOT}", "PUT", "bootstrap", {"BootstrapSecret": ROOT}),
    # -- policies
    ("policy create -name x", "PUT", "policy", {"Name": "x"}),
    (
        "policy create -name x -description d -valid-datacenter dc1 -valid-datacenter dc2 -rules acl=1 -meta",
        "PUT",
        "policy",
        {"Name": "x", "Description": "d", "Datacenters": ["dc1", "dc2"], "Rules": "acl=1"},
    ),
    ("policy create -name x -rules @rules", "PUT", "policy", {"Name": "x", "Rules": "in a file\n"}),
    ("policy create -name x -rules -", "PUT", "policy", {"Name": "x", "Rules": "typed\n"}),
    (f"policy update -id {WEB}", "PUT", f"policy/{WEB}", {k: v for k, v in POLICY_THERE.items() if v}),
    (
        f"policy update -id {WEB[:8]} -name new -rules r -valid-datacenter dc9 -meta",
        "PUT",
        f"policy/{WEB}",
        {"ID": WEB, "Name": "new", "Description": "old", "Datacenters": ["dc9"], "Rules": "r"},
    ),
    (
        "policy update -name web -description=",
        "PUT",
        f"policy/{WEB}",
        {"ID": WEB, "Name": "web", "Datacenters": ["dc1"]},
    ),
    ("policy update -name web -no-merge", "PUT", f"policy/{WEB}", {"ID": WEB, "Name": "web"}),
    ("policy read -id global-management -meta", "GET", f"policy/{MANAGEMENT}", None),
    (f"policy read -id {WEB}", "GET", f"policy/{WEB}", None),
    (f"policy read -id {WEB[:8]}", "GET", f"policy/{WEB}", None),
    ("policy read -name web", "GET", "policy/name/web", None),
    ("policy list -meta", "GET", "policies", None),
    (f"policy delete -id {WEB[:8]}", "DELETE", f"policy/{WEB}", None),
    ("policy delete -name web", "DELETE", f"policy/{WEB}", None),
    # -- roles
    (
        f"role create -name x -description d {LINKS_FLAGS} {IDENTITY_FLAGS} -meta",
        "PUT",
        "role",
        {"Name": "x", "Description": "d", "Policies": LINKS, **IDENTITIES},
    ),
    (f"role update -id {OPS}", "PUT", f"role/{OPS}", ROLE_THERE),
    (
        f"role update -id {OPS[:8]} -name new -description d -policy-name other -service-identity web -meta",
        "PUT",
        f"role/{OPS}",
        {
            "ID": OPS,
            "Name": "new",
            "Description": "d",
            "Policies": [{"ID": WEB, "Name": "web"}, {"Name": "other"}],
            "ServiceIdentities": [{"ServiceName": "web"}],
        },
    ),
    (
        f"role update -id {OPS} -name new {LINKS_FLAGS} {IDENTITY_FLAGS} -no-merge",
        "PUT",
        f"role/{OPS}",
        {"ID": OPS, "Name": "new", "Policies": LINKS, **IDENTITIES},
    ),
    (f"role read -id {OPS[:8]} -meta", "GET", f"role/{OPS}", None),
    ("role read -name ops", "GET", "role/name/ops", None),
    ("role list -meta", "GET", "roles", None),
    (f"role delete -id {OPS[:8]}", "DELETE", f"role/{OPS}", None),
    ("role delete -name ops", "DELETE", f"role/{OPS}", None),
    # -- tokens
    (
        (
            f"token create -description d -local -expires-ttl 2m {LINKS_FLAGS} -role-name ops -role-id {OPS[:8]}"
            f" {IDENTITY_FLAGS} -accessor {uuid(1)} -secret {uuid(2)} -meta"
        ),
        "PUT",
        "token",
        {
            "AccessorID": uuid(1),
            "SecretID": uuid(2),
            "Description": "d",
            "Local": True,
            "ExpirationTTL": "2m",
            "Policies": LINKS,
            "Roles": [{"Name": "ops"}, {"ID": OPS}],
            **IDENTITIES,
        },
    ),
    (
        "token create -policy-name web -secret @secret",
        "PUT",
        "token",
        {"SecretID": uuid(3), "Policies": [{"Name": "web"}]},
    ),
    (f"token update -accessor-id {TOKEN}", "PUT", f"token/{TOKEN}", TOKEN_THERE),
    (f"token update -id {TOKEN[:8]} -description=", "PUT", f"token/{TOKEN}", TOKEN_THERE | {"Description": ""}),
    (
        (
            f"token update -accessor-id {TOKEN} -description d {LINKS_FLAGS} -role-name ops -role-id {OPS[:8]}"
            f" {IDENTITY_FLAGS} -meta"
        ),
        "PUT",
        f"token/{TOKEN}",
        TOKEN_THERE | {"Description": "d", "Policies": LINKS, "Roles": [{"Name": "ops"}, {"ID": OPS}], **IDENTITIES},
    ),
    (
        (
            f"token update -accessor-id {TOKEN} -append-policy-name other -append-policy-id {WEB[:8]}"
            f" -append-role-name ops -append-role-id {OPS[:8]}"
            " -append-service-identity web -append-service-identity b:dc2 -append-node-identity m:dc2"
        ),
        "PUT",
        f"token/{TOKEN}",
        TOKEN_THERE
        | {
            "Policies": [{"ID": WEB, "Name": "web"}, {"Name": "other"}, {"ID": WEB}],
            "Roles": [{"ID": OPS, "Name": "ops"}, {"Name": "ops"}, {"ID": OPS}],
            "ServiceIdentities": [{"ServiceName": "web"}, {"ServiceName": "b", "Datacenters": ["dc2"]}],
            "NodeIdentities": [{"NodeName": "n1", "Datacenter": "dc1"}, {"NodeName": "m", "Datacenter": "dc2"}],
        },
    ),
    (
        (
            f"token update -accessor-id {TOKEN} -policy-name other -merge-policies -role-name ops -merge-roles"
            " -service-identity b:dc2 -merge-service-identities -node-identity m:dc2 -merge-node-identities"
        ),
        "PUT",
        f"token/{TOKEN}",
        TOKEN_THERE
        | {
            "Policies": [{"ID": WEB, "Name": "web"}, {"Name": "other"}],
            "Roles": [{"ID": OPS, "Name": "ops"}, {"Name": "ops"}],
            "ServiceIdentities": [
                {"ServiceName": "web", "Datacenters": ["dc1"]},
                {"ServiceName": "b", "Datacenters": ["dc2"]},
            ],
            "NodeIdentities": [{"NodeName": "n1", "Datacenter": "dc1"}, {"NodeName": "m", "Datacenter": "dc2"}],
        },
    ),
    (f"token update -accessor-id {TOKEN} -merge-policies", "PUT", f"token/{TOKEN}", TOKEN_THERE),
    (f"token read -accessor-id {TOKEN[:8]} -meta", "GET", f"token/{TOKEN}", None),
    (f"token read -id {TOKEN} -expanded", "GET", f"token/{TOKEN}?expanded=true", None),
    ("token read -self", "GET", "token/self", None),
    ("token read -self -expanded -meta", "GET", "token/self?expanded=true", None),
    ("token list -meta", "GET", "tokens", None),
    (f"token list -policy-id {WEB[:8]}", "GET", f"tokens?policy={WEB}", None),
    ("token list -policy-name web", "GET", f"tokens?policy={WEB}", None),
    (f"token list -role-id {OPS}", "GET", f"tokens?role={OPS}", None),
    ("token list -role-name ops", "GET", f"tokens?role={OPS}", None),
    ("token list -service-identity web", "GET", "tokens?servicename=web", None),
    ("token list -method kube", "GET", "tokens?authmethod=kube", None),
    (f"token clone -accessor-id {TOKEN[:8]}", "PUT", f"token/{TOKEN}/clone", {"Description": ""}),
    (f"token clone -id {TOKEN} -description d", "PUT", f"token/{TOKEN}/clone", {"Description": "d"}),
    (f"token delete -accessor-id {TOKEN[:8]}", "DELETE", f"token/{TOKEN}", None),
    (f"token delete -id {TOKEN}", "DELETE", f"token/{TOKEN}", None),
    # -- auth methods
    (
        (
            "auth-method create -type jwt -name x -display-name d -description e -max-token-ttl 5m -meta"
            " -token-locality global -config @config"
        ),
        "PUT",
        "auth-method",
        {
            "Name": "x",
            "Type": "jwt",
            "DisplayName": "d",
            "Description": "e",
            "MaxTokenTTL": "5m",
            "TokenLocality": "global",
            "Config": {"BoundIssuer": "y"},
        },
    ),
    ('auth-method create -type tls -name x -config {"A":[1]}', "PUT", "auth-method", {"Config": {"A": [1]}}),
    (
        "auth-method create -type tls -name x -tls-not-before web=2027-01-31T12:00:00Z -tls-not-before *=2026",
        "PUT",
        "auth-method",
        {"Config": {"NotBefore": {"web": "2027-01-31T12:00:00Z", "*": "2026"}}},
    ),
    (
        "auth-method update -name kube -tls-not-before web=2027",
        "PUT",
        "auth-method/kube",
        METHOD_THERE | {"Config": METHOD_THERE["Config"] | {"NotBefore": {"web": "2027"}}},
    ),
    ("auth-method create -type jwt -name x -config -", "PUT", "auth-method", {"Config": {"typed": True}}),
    (
        (
            "auth-method create -type kubernetes -name x -kubernetes-host https://k -kubernetes-ca-cert @pem"
            " -kubernetes-service-account-jwt @secret"
        ),
        "PUT",
        "auth-method",
        {
            "Name": "x",
            "Type": "kubernetes",
            "Config": {"Host": "https://k", "CACert": "pem\n", "ServiceAccountJWT": uuid(3)},
        },
    ),
    ("auth-method update -name kube", "PUT", "auth-method/kube", METHOD_THERE),
    (
        (
            "auth-method update -name kube -description d -display-name e -max-token-ttl 9m -token-locality local -meta"
            " -kubernetes-host https://new"
        ),
        "PUT",
        "auth-method/kube",
        METHOD_THERE
        | {"Description": "d", "DisplayName": "e", "MaxTokenTTL": "9m", "TokenLocality": "local"}
        | {"Config": METHOD_THERE["Config"] | {"Host": "https://new"}},
    ),
    (
        "auth-method update -name kube -kubernetes-ca-cert certs -kubernetes-service-account-jwt jwt",
        "PUT",
        "auth-method/kube",
        METHOD_THERE | {"Config": {"Host": "https://old", "CACert": "certs", "ServiceAccountJWT": "jwt"}},
    ),
    (
        "auth-method update -name kube -no-merge -config @config",
        "PUT",
        "auth-method/kube",
        {"Name": "kube", "Type": "kubernetes", "Config": {"BoundIssuer": "y"}},
    ),
    ("auth-method update -name kube -type jwt", "PUT", "auth-method/kube", METHOD_THERE | {"Type": "jwt"}),
    ("auth-method read -name kube -meta", "GET", "auth-method/kube", None),
    ("auth-method list -meta", "GET", "auth-methods", None),
    ("auth-method delete -name kube", "DELETE", "auth-method/kube", None),
    # -- binding rules
    (
        "binding-rule create -method kube -bind-name x",
        "PUT",
        "binding-rule",
        {"AuthMethod": "kube", "BindType": "service", "BindName": "x"},
    ),
    (
        (
            "binding-rule create -method kube -bind-type node -bind-name ${value.x} -selector value.x==y -description d"
            " -meta"
        ),
        "PUT",
        "binding-rule",
        {
            "AuthMethod": "kube",
            "BindType": "node",
            "BindName": "${value.x}",
            "Selector": "value.x==y",
            "Description": "d",
        },
    ),
    (f"binding-rule update -id {RULE}", "PUT", f"binding-rule/{RULE}", RULE_THERE),
    (
        f"binding-rule update -id {RULE[:8]} -bind-type policy -bind-name p -selector= -description d -meta",
        "PUT",
        f"binding-rule/{RULE}",
        {"ID": RULE, "AuthMethod": "kube", "Description": "d", "BindType": "policy", "BindName": "p"},
    ),
    (
        f"binding-rule update -id {RULE} -bind-type service -bind-name s -no-merge",
        "PUT",
        f"binding-rule/{RULE}",
        {"ID": RULE, "AuthMethod": "kube", "BindType": "service", "BindName": "s"},
    ),
    (f"binding-rule update -id {RULE} -method x", "PUT", f"binding-rule/{RULE}", RULE_THERE | {"AuthMethod": "x"}),
    (f"binding-rule read -id {RULE[:8]} -meta", "GET", f"binding-rule/{RULE}", None),
    ("binding-rule list -meta", "GET", "binding-rules", None),
    ("binding-rule list -method kube", "GET", "binding-rules?authmethod=kube", None),
    (f"binding-rule delete -id {RULE[:8]}", "DELETE", f"binding-rule/{RULE}", None),
    # -- tokens of nodes
    (f"set-agent-token agent {uuid(2)}", "PUT", "/agent/token/agent", {"Token": uuid(2)}),
    ("set-agent-token recovery @secret", "PUT", "/agent/token/agent_recovery", {"Token": uuid(3)}),
    *(
        (f"set-agent-token {name} s", "PUT", f"/agent/token/{name}", {"Token": "s"})
        for name in ("default", "agent_recovery", "replication", "config_file_service_registration", "dns")
    ),
]
COMMANDS = [words for words, *_ in SENT]


@pytest.fixture
def there(api: FakeAclApi, tmp_path: Path) -> FakeAclApi:
    for kind, items in THERE.items():
        for item in items:
            api.tables[kind][item.get("ID") or item.get("AccessorID") or item["Name"]] = {**item, **META}
    files = {"rules": "in a file\n", "secret": f"{uuid(3)}\n", "config": '{"BoundIssuer": "y"}', "pem": "pem\n"}
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    return api


def type_in(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(text.encode())))


@pytest.mark.parametrize(("words", "method", "path", "body"), SENT, ids=COMMANDS)
@pytest.mark.parametrize("style", ["-flag value", "--flag value", "-flag=value"])
def test_what_is_sent(
    there: FakeAclApi,
    run: Run,
    monkeypatch: pytest.MonkeyPatch,
    words: str,
    method: str,
    path: str,
    body: Any,
    style: str,
) -> None:
    if words == "bootstrap" or words.startswith("bootstrap "):
        there.is_bootstrapped = False
    type_in('{"typed": true}' if "-config" in words else "typed\n", monkeypatch)
    argv = words.split()
    if style == "--flag value":
        argv = [re.sub(r"^-(?=[a-z])", "--", word) for word in argv]
    elif style == "-flag=value":
        argv = re.sub(r"(?<= )(-[a-z-]+) (?=-$|[^- ])", r"\1=", words).split()
    result = run("acl", *argv)
    assert (result.err, result.code) == ("", 0)
    where, _, query = path.partition("?")
    sent = there.last
    assert (sent.method, sent.path) == (method, f"/v1{where}" if where.startswith("/") else f"/v1/acl/{where}")
    assert sent.query == dict([query.split("=")] if query else [])
    if isinstance(body, dict) and set(body) == {"Config"}:  # the rest of it is said elsewhere
        assert sent.body["Config"] == body["Config"]
    else:
        assert sent.body == body
    assert {request.token for request in there.requests} == {ROOT}
    # A secret is never in a URL.
    assert not any(ROOT in f"{request.path}{request.query}" for request in there.requests)


def test_every_flag_of_every_command_is_in_the_table() -> None:
    general = {
        *("--help", "-h", "--http-addr", "--token", "--token-file", "--allow-cleartext-token", "--ca-file"),
        *("--client-cert", "--client-key", "--tls-server-name", "--datacenter", "--stale", "--format"),
    }

    def commands(parser: argparse.ArgumentParser, name: str) -> list[tuple[str, argparse.ArgumentParser]]:
        below = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
        if not below:
            return [(name, parser)]
        return [
            found
            for action in below
            for word, child in action.choices.items()
            for found in commands(child, f"{name} {word}".strip())
        ]

    flags = {
        (name.removeprefix("acl "), flag)
        for name, parser in commands(build_parser(["acl"]), "")
        if name.startswith("acl ")
        for action in parser._actions
        for flag in action.option_strings
        if flag not in general
    }
    missing = {
        (name, flag)
        for name, flag in flags
        if not any(words.startswith(name) and re.search(rf" {flag[1:]}(?:[ =]|$)", words) for words in COMMANDS)
    }
    assert len(flags) > 100
    assert missing == set()


@pytest.mark.parametrize("words", [words for words in COMMANDS if not words.startswith("bootstrap")])
def test_json_is_the_objects_of_the_api_indented_by_four(
    there: FakeAclApi, run: Run, monkeypatch: pytest.MonkeyPatch, words: str
) -> None:
    type_in('{"typed": true}' if "-config" in words else "typed\n", monkeypatch)
    result = run("acl", *words.split(), "-format", "json")
    assert (result.err, result.code) == ("", 0)
    if "delete" in words or "set-agent" in words:
        assert result.out == '{\n\t"Success": true\n}\n'
        return
    answer = json.loads(result.out)
    assert result.out == json.dumps(answer, indent=4) + "\n"
    assert isinstance(answer, list) == (" list" in words)
