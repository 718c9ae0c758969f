"""What the commands of `quorumca acl` print, refuse and never tell."""

import json
from pathlib import Path

import pytest

from cluster.client.errors import Exit
from tests.kit.fake_acl_api import ANONYMOUS, MANAGEMENT, ROOT, FakeAclApi, secret, uuid
from tests.parts.cli.conftest import Run

CREATED = "2020-05-22 18:52:31 +0000 UTC"


def test_bootstrap_shows_the_secret_once(api: FakeAclApi, run: Run) -> None:
    api.is_bootstrapped = False
    result = run("acl bootstrap")
    assert (result.code, result.err) == (0, "")
    assert result.out == (
        f"AccessorID:       {uuid(3)}\nSecretID:         {secret(3)}\n"
        "Description:      Bootstrap Token (Global Management)\nLocal:            false\n"
        f"Create Time:      {CREATED}\nPolicies:\n   {MANAGEMENT} - global-management\n"
    )
    again = run("acl bootstrap")
    assert (again.code, again.out) == (1, "")
    assert again.err == (
        "Failed ACL bootstrapping: Unexpected response code: 403 (Permission denied: ACL bootstrap no longer allowed"
        " (reset index: 7))\n"
    )


@pytest.mark.parametrize("given", ["-", "@file", "file", uuid(9)])
def test_bootstrap_with_a_secret_of_ones_own(
    api: FakeAclApi, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: str
) -> None:
    api.is_bootstrapped = False
    (tmp_path / "file").write_text(f"{uuid(9)}\n")
    with (tmp_path / "file").open() as stdin:
        monkeypatch.setattr("sys.stdin", stdin)
        result = run("acl bootstrap", given)
    assert (result.code, api.last.body) == (0, {"BootstrapSecret": uuid(9)})
    assert f"SecretID:         {uuid(9)}\n" in result.out


def test_token_from_creation_to_deletion(api: FakeAclApi, run: Run) -> None:
    run("acl policy create -name web")
    created = run("acl token create -policy-name web -service-identity web:dc1 -expires-ttl 2h -description", "for web")
    accessor = uuid(4)
    shown = (
        f"AccessorID:       {accessor}\nSecretID:         {{}}\nDescription:      for web\nLocal:            false\n"
        f"Create Time:      {CREATED}\nExpiration Time:  2020-05-22 20:52:31.5 +0000 UTC\n"
        f"Policies:\n   {uuid(3)} - web\nService Identities:\n   web (Datacenters: dc1)\n"
    )
    assert created.out == shown.format(secret(4))
    assert run("acl token read -accessor-id", accessor[:8]).out == shown.format("<hidden>")
    listed = run("acl token list").out
    assert listed.endswith(f"\n\n{shown.format('<hidden>')}")
    assert listed.count("AccessorID:") == 3
    updated = run("acl token update -append-node-identity n1:dc1 -accessor-id", accessor)
    assert updated.out == f"{shown.format('<hidden>')}Node Identities:\n   n1 (Datacenter: dc1)\n"
    deleted = run("acl token delete -accessor-id", accessor[:8])
    assert deleted.out == f'Token "{accessor}" deleted successfully\n'
    gone = run("acl token read -accessor-id", accessor)
    assert (gone.code, gone.out) == (1, "")
    assert gone.err == (
        f'Error reading token "{accessor}": Unexpected response code: 403 (token does not exist: ACL not found)\n'
    )


def test_deletions_name_the_kind_and_the_key(api: FakeAclApi, run: Run) -> None:
    policy = api.make("policy", Name="web")["ID"]
    role = api.make("role", Name="ops", Policies=[{"ID": policy}])["ID"]
    api.make("auth-method", Name="ci", Type="jwt")
    rule = api.make("binding-rule", AuthMethod="ci", BindType="role", BindName="ops")["ID"]
    for words, text in (
        (f"binding-rule delete -id {rule}", f'Binding rule "{rule}" deleted successfully\n'),
        ("auth-method delete -name ci", 'Auth method "ci" deleted successfully\n'),
        ("role delete -name ops", f'Role "{role}" deleted successfully\n'),
        (f"policy delete -id {policy[:8]}", f'Policy "{policy}" deleted successfully\n'),
    ):
        result = run(f"acl {words}")
        assert (result.code, result.out, result.err) == (0, text, "")


def test_self_is_the_token_of_the_command_and_its_secret_is_not_repeated(
    api: FakeAclApi, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server may say it: it is the caller's own."""
    answer = {"AccessorID": uuid(1), "SecretID": ROOT, "CreateTime": "2020-05-22T18:52:31Z"}
    api.answer("GET", "/v1/acl/token/self", answer)
    for words in ("", " -format json", " -expanded", " -expanded -format json"):
        result = run(f"acl token read -self{words}")
        assert result.code == 0
        assert ROOT not in result.out
        assert "<hidden>" in result.out


def test_anonymous_stands_for_its_id(api: FakeAclApi, run: Run) -> None:
    assert f"AccessorID:       {ANONYMOUS}\n" in run("acl token read -accessor-id anonymous").out


@pytest.mark.parametrize(
    ("kind", "flag", "name"),
    [
        ("token", "-accessor-id", "token"),
        ("policy", "-id", "policy"),
        ("role", "-id", "role"),
        ("binding-rule", "-id", "binding rule"),
    ],
)
@pytest.mark.parametrize("verb", ["read", "delete", "update"])
def test_beginnings_of_ids(api: FakeAclApi, run: Run, kind: str, flag: str, name: str, verb: str) -> None:
    for number in (0xABC1, 0xABC2):
        key = {"AccessorID" if kind == "token" else "ID": uuid(number), "Description": "d"}
        api.tables[kind][uuid(number)] = {**key, "CreateIndex": 1, "CreateTime": "2020-05-22T18:52:31Z"}
    before = json.dumps(api.tables)
    several = run(f"acl {kind} {verb} {flag} 0000abc")
    assert (several.code, several.out) == (1, "")
    assert several.err == f"Error determining {name} ID: Partial {name} ID is not unique\n"
    none = run(f"acl {kind} {verb} {flag} ffff")
    assert none.err == f"Error determining {name} ID: No such {name} ID with prefix: ffff\n"
    assert json.dumps(api.tables) == before
    assert {request.method for request in api.requests} == {"GET"}
    assert run(f"acl {kind} {verb} {flag} 0000abc2").code == 0


def test_ids_of_links_are_found_by_their_beginning_or_refused(api: FakeAclApi, run: Run) -> None:
    result = run("acl token create -policy-id ffff")
    assert result.err == 'Error resolving policy ID "ffff": No such policy ID with prefix: ffff\n'
    result = run("acl role create -name x -policy-id 0")
    assert result.code == 0, "the only one that begins so"
    assert not run("acl token create -role-id ffff").out


@pytest.mark.parametrize("kind", ["policy", "role"])
def test_names_that_are_not_there(api: FakeAclApi, run: Run, kind: str) -> None:
    title = kind.capitalize()
    assert run(f"acl {kind} read -name x").err == f'{title} not found with name "x"\n'
    assert run(f"acl {kind} delete -name x").err == f"Error determining {kind} ID: No such {kind} with name x\n"
    assert run(f"acl {kind} read -id", uuid(1)).err == f'{title} not found with ID "{uuid(1)}"\n'


def test_names_and_ids_are_one_part_of_a_path(api: FakeAclApi, run: Run) -> None:
    api.tables["policy"][uuid(1)] = {"ID": uuid(1), "Name": "builtin/global-read-only"}
    assert "Name:         builtin/global-read-only\n" in run("acl policy read -name builtin/global-read-only").out
    for name in ("../token/self", "a?dc=x", "a b", "%2F"):
        assert run("acl auth-method delete -name", name).code == 1
        assert api.last.path.removeprefix("/v1/acl/auth-method/").count("/") == 0
        assert api.last.query == {}


FAILURES = {
    "acl bootstrap": "Failed ACL bootstrapping",
    "acl policy create -name x": "Failed to create new policy",
    "acl policy list": "Failed to retrieve the policy list",
    "acl policy delete -id ID": 'Error deleting policy "ID"',
    "acl policy read -id ID": 'Error reading policy "ID"',
    "acl policy update -no-merge -id ID": 'Error updating policy "ID"',
    "acl role create -name x -policy-name y": "Failed to create new role",
    "acl role list": "Failed to retrieve the role list",
    "acl role update -id ID": 'Error reading role "ID"',
    "acl token create -policy-name x": "Failed to create new token",
    "acl token list": "Failed to retrieve the token list",
    "acl token read -self": "Error reading token",
    "acl token clone -accessor-id ID": "Error cloning token",
    "acl token update -accessor-id ID": "Error when retrieving current token",
    "acl token delete -accessor-id ID": 'Error deleting token "ID"',
    "acl auth-method create -name x -type jwt": "Failed to create new auth method",
    "acl auth-method list": "Failed to retrieve the auth method list",
    "acl auth-method update -name x": 'Error reading auth method "x"',
    "acl binding-rule create -method x -bind-name y": "Failed to create new binding rule",
    "acl binding-rule list": "Failed to retrieve the binding rule list",
    "acl binding-rule delete -id ID": 'Error deleting binding rule "ID"',
    "acl set-agent-token agent s": 'Failed to set ACL token "agent"',
    "logout": "Error destroying token",
}


@pytest.mark.parametrize("words", FAILURES)
def test_refusals_of_the_server_in_consuls_words(
    api: FakeAclApi, run: Run, monkeypatch: pytest.MonkeyPatch, words: str
) -> None:
    monkeypatch.setenv("QUORUMCA_HTTP_TOKEN", "unknown-token")
    before = json.dumps(api.tables)
    result = run(words.replace("ID", uuid(1)))
    assert (result.code, result.out) == (1, "")
    refused = "ACL not found" if words != "acl bootstrap" else "Permission denied: ACL bootstrap no longer allowed"
    assert result.err.startswith(
        f"{FAILURES[words].replace('ID', uuid(1), 1) if words.endswith('ID') else FAILURES[words]}:"
        f" Unexpected response code: 403 ({refused}"
    )
    assert json.dumps(api.tables) == before


BAD_INPUT = {
    "acl token create": "Cannot create a token without specifying -policy-name, -policy-id, -role-name, -role-id,"
    " -service-identity, or -node-identity at least once",
    "acl token create -policy-name x -expires-ttl soon": "argument --expires-ttl: 'soon' is not allowed: must be a"
    " duration as in 10m",
    "acl token create -service-identity web:": "argument --service-identity: 'web:' is not allowed: must be NAME or"
    " NAME:DC,DC",
    "acl token create -service-identity :dc1": "':dc1' is not allowed: must be NAME or NAME:DC,DC",
    "acl token create -service-identity a:b,": "'a:b,' is not allowed: must be NAME or NAME:DC,DC",
    "acl token create -service-identity a:b:c": "'a:b:c' is not allowed: must be NAME or NAME:DC,DC",
    "acl role create -name x -node-identity n1": "argument --node-identity: 'n1' is not allowed: must be NAME:DC",
    "acl role create -name x -node-identity n1:": "'n1:' is not allowed: must be NAME:DC",
    "acl role create -name x -node-identity n1:a:b": "'n1:a:b' is not allowed: must be NAME:DC",
    "acl token create -policy-name x -secret @missing": "--secret: missing: No such file or directory",
    "acl token create -policy-name x -secret \xe9": "--secret: the ACL token is not allowed: must be printable ASCII",
    "acl token read": "Must specify the -accessor-id parameter",
    "acl token read -self -accessor-id x": "--self and --accessor-id cannot be given together",
    "acl token update": "Cannot update a token without specifying the -accessor-id parameter",
    "acl token update -id x -policy-id a -append-policy-name b": "Cannot combine the use of policy-id/policy-name flags"
    " with append- variants. To set or overwrite existing policies, use -policy-id or -policy-name. To append to"
    " existing policies, use -append-policy-id or -append-policy-name.",
    "acl token update -id x -role-name a -append-role-id b": "Cannot combine the use of role-id/role-name flags",
    "acl token update -id x -service-identity a -append-service-identity b": "use of service-identity flag with",
    "acl token update -id x -node-identity a:b -append-node-identity c:d": "use of node-identity flag with",
    "acl token clone": "Must specify the -accessor-id parameter",
    "acl token delete": "Must specify the -accessor-id parameter",
    "acl token list -policy-name a -role-name b": "argument --role-name: not allowed with argument --policy-name",
    "acl policy create": "Missing required '-name' flag",
    "acl policy create -name x -rules @missing": "--rules: missing: No such file or directory",
    "acl policy create -name x -rules /etc/web": "--rules: '/etc/web' looks like the name of a file: give @FILE",
    "acl policy create -name x -rules ../web": "--rules: '../web' looks like the name of a file: give @FILE",
    "acl policy create -name x -rules rules/web.hcl": "--rules: 'rules/web.hcl' looks like the name of a file",
    "acl policy update -name x -rules ~/web": "--rules: '~/web' looks like the name of a file: give @FILE",
    "acl auth-method create -type kubernetes -name x -kubernetes-host h -kubernetes-service-account-jwt s"
    " -kubernetes-ca-cert ca.crt": "--kubernetes-ca-cert: 'ca.crt' looks like the name of a file: give @FILE",
    "acl policy update": "Must specify either the -id or -name parameters",
    "acl policy read": "Must specify either the -id or -name parameters",
    "acl policy delete -id=": "Must specify either the -id or -name parameters",
    "acl policy delete -id a -name b": "argument --name: not allowed with argument --id",
    "acl role create": "Missing required '-name' flag",
    "acl role create -name x": "Cannot create a role without specifying -policy-name, -policy-id, -service-identity,",
    "acl role update -name x": "Cannot update a role without specifying the -id parameter",
    "acl auth-method create -name x": "Missing required '-type' flag",
    "acl auth-method create -type jwt": "Missing required '-name' flag",
    "acl auth-method create -type oidc -name x": "argument --type: invalid choice: 'oidc' (choose from",
    "acl auth-method create -type jwt -name x -config @missing": "--config: missing: No such file or directory",
    "acl auth-method create -type jwt -name x -config [1]": "--config: must be a JSON object",
    "acl auth-method create -type jwt -name x -config {": "--config: Expecting property name",
    "acl auth-method create -type jwt -name x -kubernetes-host h": "--kubernetes-host is not allowed with --type jwt:"
    " must be kubernetes",
    "acl auth-method create -type kubernetes -name x": "Missing required '-kubernetes-host' flag",
    "acl auth-method create -type kubernetes -name x -kubernetes-host h": "Missing required '-kubernetes-ca-cert' flag",
    "acl auth-method create -type jwt -name x -tls-not-before a=b": "--tls-not-before is not allowed with --type jwt:"
    " must be tls",
    "acl auth-method create -type tls -name x -tls-not-before web": "'web' is not allowed: must be NAME=MOMENT",
    "acl auth-method update -name x -config {} -tls-not-before a=b": "Cannot use '-tls-not-before' flag with '-config'",
    "acl auth-method update -name x -config {} -kubernetes-host h": "Cannot use '-kubernetes-host' flag with '-config'",
    "acl auth-method update": "Cannot update an auth method without specifying the -name parameter",
    "acl auth-method read": "Must specify the -name parameter",
    "acl auth-method create -type jwt -name x -token-locality far": "argument --token-locality: invalid choice: 'far'",
    "acl auth-method create -type jwt -name x -max-token-ttl 1": "'1' is not allowed: must be a duration",
    "acl binding-rule create -bind-name x": "Missing required '-method' flag",
    "acl binding-rule create -method x": "Missing required '-bind-name' flag",
    "acl binding-rule create -method x -bind-name y -bind-type z": "argument --bind-type: invalid choice: 'z'",
    "acl binding-rule update": "Cannot update a binding rule without specifying the -id parameter",
    "acl binding-rule update -id x -no-merge": "Missing required '-bind-type' flag",
    "acl binding-rule delete": "Must specify the -id parameter",
    "acl set-agent-token other s": "argument TYPE: 'other' is not allowed: must be one of default, agent,",
    f"acl set-agent-token {uuid(7)} agent": "argument TYPE: <hidden> is not allowed: must be one of default,",
    "acl set-agent-token agent": "the following arguments are required: SECRET",
    "acl set-agent-token agent @missing": "SECRET: missing: No such file or directory",
    "acl bootstrap missing": "Error reading provided token: SECRET: missing: No such file or directory",
    "acl bootstrap a b": "unrecognized arguments: b",
    "acl": "required: COMMAND",
    "acl token": "required: COMMAND",
    "login": "Missing required '-method' flag",
    "login -method x": "Missing required '-token-sink-file' flag",
    "login -method x -token-sink-file s": "Missing required '-bearer-token-file' flag",
    "login -method x -token-sink-file s -bearer-token-file f -meta a": "argument --meta: 'a' is not allowed: must be"
    " KEY=VALUE",
    "login -method x -token-sink-file s -bearer-token-file missing": "--bearer-token-file: missing: No such file",
}


@pytest.mark.parametrize("words", BAD_INPUT)
def test_bad_input_is_refused_before_anything_is_asked(api: FakeAclApi, run: Run, tmp_path: Path, words: str) -> None:
    result = run(words)
    assert result.out == ""
    assert BAD_INPUT[words] in result.err
    assert result.code == (Exit.FAILED if "No such file" in result.err or "--config: " in result.err else Exit.USAGE)
    assert api.requests == []
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("words", "flag"),
    [
        ("acl set-agent-token agent", "SECRET"),
        ("acl set-agent-token recovery", "SECRET"),
        ("acl token create -policy-name x -secret", "--secret"),
    ],
)
def test_secret_that_is_the_name_of_a_file_is_refused(
    api: FakeAclApi, run: Run, tmp_path: Path, words: str, flag: str
) -> None:
    (tmp_path / "file").write_text(uuid(9))
    result = run(f"{words} file")
    assert f"{flag}: 'file' is the name of a file: give @FILE for its text" in result.err
    assert (result.code, api.requests) == (Exit.USAGE, [])


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (b"top-secret\nmore", "file: holds more than one line"),
        (b"", "file: holds no token"),
        (b"top-secret x", "file: holds what is no token"),
        (b"top-secret" * 10_000, "file: is larger than"),
    ],
)
@pytest.mark.parametrize(
    "words",
    [
        "acl bootstrap file",
        "acl token create -policy-name x -secret @file",
        "acl set-agent-token agent @file",
        (
            "acl auth-method create -type kubernetes -name x -kubernetes-host h -kubernetes-ca-cert c"
            " -kubernetes-service-account-jwt @file"
        ),
        "login -method x -token-sink-file sink -bearer-token-file file",
        "acl token list -token-file file",
    ],
)
def test_files_with_secrets_that_are_refused_are_not_repeated(
    api: FakeAclApi, run: Run, tmp_path: Path, content: bytes, text: str, words: str
) -> None:
    (tmp_path / "file").write_bytes(content)
    result = run(words)
    assert (result.out, result.code in (Exit.FAILED, Exit.USAGE), api.requests) == ("", True, [])
    assert text in result.err
    assert "top-secret" not in result.err


def test_name_of_a_file_is_no_text(api: FakeAclApi, run: Run, tmp_path: Path) -> None:
    (tmp_path / "rules").write_text("acl = 1")
    result = run("acl policy create -name x -rules rules")
    assert (result.code, result.out, api.requests) == (Exit.USAGE, "", [])
    assert result.err == "--rules: 'rules' looks like the name of a file: give @FILE for its text\n"


@pytest.mark.parametrize(
    "rules",
    [
        "// of web\nacl = 1",
        "/* of web */ acl = 1",
        "# /etc/web",
        'service "a.json" { policy = "read" }',
        '{"acl":"read"}',
        "acl=1",
        "",
        "./rules\n",
        "\0",
        "x" * 5000,
    ],
)
def test_rules_are_no_name_of_a_file(api: FakeAclApi, run: Run, rules: str) -> None:
    assert run("acl policy create -name x -rules", rules).code == 0
    assert (api.last.body or {}).get("Rules", "") == rules


def test_bootstrap_secret_must_be_a_uuid(api: FakeAclApi, run: Run, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("top-secret")
    result = run("acl bootstrap file")
    assert (result.code, api.requests) == (Exit.USAGE, [])
    assert result.err == "SECRET: the file holds what is not allowed: must be a UUID\n"


@pytest.mark.parametrize(
    ("words", "path"),
    [
        ("acl bootstrap @file", "/v1/acl/bootstrap"),
        ("acl token create -policy-name global-management -secret @file", "/v1/acl/token"),
        ("acl set-agent-token agent @file", "/v1/agent/token/agent"),
    ],
)
def test_secrets_that_a_server_quotes_are_not_repeated(
    api: FakeAclApi, run: Run, tmp_path: Path, words: str, path: str
) -> None:
    (tmp_path / "file").write_text(uuid(9))
    api.answer("PUT", path, f"{uuid(9)} is not good, {ROOT}", status=500)
    result = run(words)
    assert result.code == 1
    assert "500 (<hidden> is not good, <hidden>)" in result.err


@pytest.mark.parametrize("form", ["", " -format json"])
def test_secrets_that_a_server_shows_to_whoever_may_write_are_hidden(api: FakeAclApi, run: Run, form: str) -> None:
    """As a server of Consul's does; and those in the configuration of an auth method."""
    token = {"AccessorID": uuid(1), "SecretID": "s3cr3t", "Description": "d"}
    method = {"Name": "k", "Type": "kubernetes", "Config": {"Host": "h", "ServiceAccountJWT": "s3cr3t"}}
    api.answer("GET", f"/v1/acl/token/{uuid(1)}", token)
    api.answer("PUT", f"/v1/acl/token/{uuid(1)}", token)
    api.answer("GET", "/v1/acl/tokens", [token])
    api.answer("GET", "/v1/acl/auth-method/k", method)
    api.answer("PUT", "/v1/acl/auth-method", method)
    for words in (
        f"token read -accessor-id {uuid(1)}",
        f"token read -expanded -accessor-id {uuid(1)}",
        f"token update -accessor-id {uuid(1)}",
        "token list",
        "auth-method read -name k",
        "auth-method create -type jwt -name k",
    ):
        result = run(f"acl {words}{form}")
        assert result.code == 0, result.err
        assert "s3cr3t" not in result.out
        assert "<hidden>" in result.out


def test_moment_of_one_name_leaves_those_of_others(api: FakeAclApi, run: Run) -> None:
    config = {"Kinds": ["agent"], "NotBefore": {"api": "2026", "web": "2026"}}
    api.make("auth-method", Name="mesh", Type="tls", Config=config)
    result = run("acl auth-method update -name mesh -tls-not-before web=2027")
    assert result.code == 0, result.err
    assert api.last.body["Config"] == {"Kinds": ["agent"], "NotBefore": {"api": "2026", "web": "2027"}}


def test_a_new_token_is_not_asked_for_in_clear_over_the_network(
    api: FakeAclApi, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("QUORUMCA_HTTP_TOKEN")
    for words in ("bootstrap", "token create -policy-name x", "token clone -id x", "set-agent-token agent s"):
        result = run(f"acl {words} -http-addr http://10.255.255.1:8500")
        assert result.code == Exit.USAGE
        assert "http://10.255.255.1:8500 is not allowed: a secret would be sent in clear" in result.err
        assert "--allow-cleartext-token" in result.err


def test_what_a_server_answers_cannot_command_the_terminal(api: FakeAclApi, run: Run) -> None:
    api.answer("GET", "/v1/acl/policies", [{"ID": "ab\x1b[2J", "Name": "a\x1b]0;x\x07\nb:"}])
    assert run("acl policy list").out.startswith("a\ufffd]0;x\ufffd b::\n   ID:           ab\ufffd[2J\n")
    api.answer("DELETE", "/v1/acl/policy/ab%1B%5B2J", "true")
    assert run("acl policy delete -id ab").out == 'Policy "ab\ufffd[2J" deleted successfully\n'
    assert "\x1b" not in run("acl policy read -id ab").err


@pytest.mark.parametrize("body", ["", "not json", "[]", "7", '{"Policies": 7}'])
def test_answers_that_are_not_understood(api: FakeAclApi, run: Run, body: str) -> None:
    api.answer("GET", f"/v1/acl/token/{uuid(1)}", body)
    result = run("acl token read -accessor-id", uuid(1))
    assert (result.code, result.out) == (1, "")
    assert "Traceback" not in result.err
    assert "is not understood" in result.err or "did not answer with a JSON object" in result.err
