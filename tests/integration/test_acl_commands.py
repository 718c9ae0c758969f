"""Every command of `quorumca acl`, login and logout, at least once, against a real node.

What they print is compared as a whole: as Consul's commands print it, with ids, times and indexes replaced.
"""

import argparse
import asyncio
import contextlib
import io
import json
import os
import re
import stat
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio

from cluster.cli.main import build_parser, main
from tests.kit.real_cluster import LocalCluster, Settings
from tests.kit.tokens import public_pem, signer, token_of

pytestmark = pytest.mark.slow

DENY: Settings = {"acl": {"default_policy": "deny"}, "limits": {"signing_workers": 1}}
SECRET = "5ca1ab1e-0000-4000-8000-00000000b003"
ANONYMOUS = "00000000-0000-0000-0000-000000000002"
MANAGEMENT = "00000000-0000-0000-0000-000000000001"
RULES = 'service "web" { policy = "write" }'

_UUID = re.compile(r"\b(?!0{8}-)[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}\b")
_TIME = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d(\.\d+)? \+0000 UTC")
_HASH = re.compile(r"\b[0-9a-f]{64}\b")
_INDEX = re.compile(r"( Index: +)\d+")


class Terminal:
    """One node, and the commands that were typed at it."""

    def __init__(self, directory: Path, monkeypatch: pytest.MonkeyPatch, address: str) -> None:
        self.directory = directory
        self.used: set[tuple[str, ...]] = set()
        self._monkeypatch = monkeypatch
        for name in os.environ:
            if name.startswith(("QUORUMCA_", "CONSUL_")):
                monkeypatch.delenv(name)
        monkeypatch.setenv("QUORUMCA_HTTP_ADDR", address)
        monkeypatch.chdir(directory)

    def use(self, token: str) -> None:
        self._monkeypatch.setenv("QUORUMCA_HTTP_TOKEN", token)

    def run(self, words: str, *more: str, code: int = 0) -> str:
        """Its output, or what it says of a failure; `more` are words with spaces in them."""
        arguments = [*words.split(), *more]
        self.used.add(next(name for name in COMMANDS if tuple(arguments[: len(name)]) == name))
        out, err = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            found = main(arguments)
        said, other = (out, err) if code == 0 else (err, out)
        assert (found, other.getvalue()) == (code, ""), (arguments, said.getvalue())
        return said.getvalue()

    def shape(self, words: str, *more: str, code: int = 0) -> str:
        return shape(self.run(words, *more, code=code))


def shape(text: str) -> str:
    """What does not change from one run to the next."""
    for pattern, name in ((_UUID, "ID"), (_TIME, "TIME"), (_HASH, "HASH")):
        text = pattern.sub(f"<{name}>", text)
    return _INDEX.sub(r"\1<N>", text)


def leaves(parser: argparse.ArgumentParser, words: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """The names of all commands that a parser knows."""
    groups = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
    if not groups:
        yield words
    for group in groups:
        for name, inner in group.choices.items():
            yield from leaves(inner, (*words, name))


COMMANDS = {
    words for start in ("acl", "login", "logout") for words in leaves(build_parser([start])) if words[0] == start
}


@pytest_asyncio.fixture
async def terminal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Terminal]:
    async with LocalCluster(tmp_path, nodes=1, settings=DENY) as cluster:
        await cluster.start_all()
        await cluster.wait_ready()
        yield Terminal(tmp_path, monkeypatch, cluster.nodes[0].local.http)


async def test_every_command(terminal: Terminal) -> None:
    await asyncio.to_thread(_everything, terminal)
    assert terminal.used == COMMANDS


def _everything(terminal: Terminal) -> None:
    _bootstrapped(terminal)
    policy = _policies(terminal)
    _roles(terminal)
    _tokens(terminal, policy)
    _logins(terminal)
    _agent_tokens(terminal)
    terminal.use("")
    for words in ("acl token list", "acl policy list -format json", "acl role read -name crew"):
        assert "Unexpected response code: 403 (Permission denied: anonymous token lacks permission 'acl:read'." in (
            terminal.run(words, code=1)
        )


def _bootstrapped(terminal: Terminal) -> None:
    output = terminal.run("acl bootstrap")
    assert shape(output) == (
        "AccessorID:       <ID>\nSecretID:         <ID>\nDescription:      Bootstrap Token (Global Management)\n"
        f"Local:            false\nCreate Time:      <TIME>\nPolicies:\n   {MANAGEMENT} - global-management\n"
    )
    assert re.fullmatch(
        r"Failed ACL bootstrapping: Unexpected response code: 403 \(Permission denied: ACL bootstrap no longer allowed"
        r" \(reset index: (\d+)\): to allow another, write \1 into the file acl-bootstrap-reset"
        r" in the leader's data directory \(the leader is node-\d\)\)\n",
        terminal.run("acl bootstrap", code=1),
    )
    terminal.use(_field(output, "SecretID"))


def _policies(terminal: Terminal) -> str:
    (terminal.directory / "rules.hcl").write_text(RULES + "\n")
    made = terminal.run("acl policy create -name web -rules @rules.hcl -valid-datacenter dc1 -description", "for web")
    whole = f"ID:           <ID>\nName:         web\nDescription:  for web\nDatacenters:  dc1\nRules:\n{RULES}\n"
    assert shape(made) == whole
    policy = _field(made, "ID")
    assert terminal.run("acl policy read -name web") == made
    assert terminal.shape(f"acl policy read -meta -id {policy[:13]}") == whole.replace(
        "dc1\n", "dc1\nHash:         <HASH>\nCreate Index: <N>\nModify Index: <N>\n"
    )
    assert terminal.run("acl policy list") == (
        f"global-management:\n   ID:           {MANAGEMENT}\n"
        "   Description:  Builtin Policy that grants unlimited access\n   Datacenters:  \n"
        f"builtin/global-read-only:\n   ID:           {ANONYMOUS}\n"
        "   Description:  Builtin Policy that grants unlimited read-only access to all resources\n   Datacenters:  \n"
        f"web:\n   ID:           {policy}\n   Description:  for web\n   Datacenters:  dc1\n"
    )
    renamed = terminal.shape(f"acl policy update -id {policy} -name web-2")
    assert renamed == whole.replace("Name:         web\n", "Name:         web-2\n")
    terminal.run("acl policy create -name gone")
    assert terminal.shape("acl policy delete -name gone") == 'Policy "<ID>" deleted successfully\n'
    assert terminal.run("acl policy delete -name gone", code=1) == (
        "Error determining policy ID: No such policy with name gone\n"
    )
    assert terminal.run("acl policy create -name x -rules", 'service "web" {', code=1).startswith(
        "Failed to create new policy: Unexpected response code: 400 (Failed to parse ACL rules: "
    )
    return policy


def _roles(terminal: Terminal) -> None:
    made = terminal.run("acl role create -name crew -policy-name web-2 -service-identity api:dc1 -node-identity n1:dc1")
    whole = (
        "ID:           <ID>\nName:         crew\nDescription:  \nPolicies:\n   <ID> - web-2\n"
        "Service Identities:\n   api (Datacenters: dc1)\nNode Identities:\n   n1 (Datacenter: dc1)\n"
    )
    assert shape(made) == whole
    role = _field(made, "ID")
    assert terminal.run("acl role read -name crew") == terminal.run(f"acl role read -id {role}") == made
    updated = terminal.shape(f"acl role update -id {role[:13]} -service-identity db -description more")
    assert updated == whole.replace("Description:  ", "Description:  more").replace(
        "(Datacenters: dc1)\n", "(Datacenters: dc1)\n   db (Datacenters: all)\n"
    )
    assert terminal.shape("acl role list").startswith("crew:\n   ID:           <ID>\n   Description:  more\n")
    terminal.run("acl role create -name gone -policy-name web-2")
    assert terminal.shape("acl role delete -name gone") == 'Role "<ID>" deleted successfully\n'


def _tokens(terminal: Terminal, policy: str) -> None:
    made = terminal.run(
        f"acl token create -policy-id {policy[:13]} -role-name crew -node-identity n1:dc1 -expires-ttl 8h -secret",
        SECRET,
        "-description",
        "for web",
    )
    whole = (
        "AccessorID:       <ID>\nSecretID:         {}\nDescription:      for web\nLocal:            false\n"
        "Create Time:      <TIME>\nExpiration Time:  <TIME>\nPolicies:\n   <ID> - web-2\nRoles:\n   <ID> - crew\n"
        "Node Identities:\n   n1 (Datacenter: dc1)\n"
    )
    assert shape(made) == whole.format("<ID>")
    assert f"SecretID:         {SECRET}\n" in made
    accessor = _field(made, "AccessorID")
    assert terminal.shape(f"acl token read -accessor-id {accessor[:13]}") == whole.format("<hidden>")
    expanded = terminal.run(f"acl token read -expanded -accessor-id {accessor}")
    defaults = ("Default Policy: deny", "Down Policy: deny", 'Resolved By Agent: "node-1"')
    for part in (f"      {RULES}", "Role Name: crew", *defaults):
        assert part in expanded
    own = json.loads(terminal.run("acl token read -self -format json"))
    assert [link["ID"] for link in own["Policies"]] == [MANAGEMENT]
    listed = terminal.run("acl token list")
    assert listed.count("AccessorID: ") == 3
    assert listed.count("SecretID:         <hidden>\n") == 3
    updated = terminal.shape(f"acl token update -accessor-id {accessor} -append-service-identity db -description less")
    assert updated == whole.format("<hidden>").replace("for web", "less").replace(
        "Node Identities", "Service Identities:\n   db (Datacenters: all)\nNode Identities"
    )
    cloned = terminal.run(f"acl token clone -accessor-id {accessor} -description another")
    assert _field(cloned, "SecretID") != SECRET
    assert _field(cloned, "Description") == "another"
    assert terminal.run(f"acl token delete -accessor-id {accessor}") == f'Token "{accessor}" deleted successfully\n'
    assert terminal.run(f"acl token read -accessor-id {accessor}", code=1) == (
        f'Error reading token "{accessor}": Unexpected response code: 403 (token does not exist: ACL not found)\n'
    )
    assert terminal.run("acl token delete -accessor-id anonymous", code=1) == (
        f'Error deleting token "{ANONYMOUS}": Unexpected response code: 400'
        " (Delete operation not permitted on the anonymous token)\n"
    )


def _logins(terminal: Terminal) -> None:
    config = {
        "JWTValidationPubKeys": [public_pem(signer("ES256"))],
        "JWTSupportedAlgs": ["ES256"],
        "ClaimMappings": {"name": "name"},
    }
    (terminal.directory / "config.json").write_text(json.dumps(config))
    made = terminal.run("acl auth-method create -name ci -type jwt -max-token-ttl 10m -config @config.json")
    head = (
        "Name:          ci\nType:          jwt\nDescription:   \nMaxTokenTTL:   10m0s\nTokenLocality: local\nConfig:\n"
    )
    assert made.startswith(head)
    assert json.loads(made.removeprefix(head))["ClaimMappings"] == {"name": "name"}
    assert terminal.run("acl auth-method read -name ci") == made
    assert terminal.run("acl auth-method update -name ci -description builds").startswith(
        head.replace("Description:   ", "Description:   builds")
    )
    assert terminal.run("acl auth-method list") == ("ci:\n   Type:         jwt\n   Description:  builds\n")
    rule = terminal.run(
        "acl binding-rule create -method ci -bind-type role -bind-name ${value.name} -selector", "value.name != root"
    )
    whole = (
        "ID:           <ID>\nAuthMethod:   ci\nDescription:  \nBindType:     role\nBindName:     ${value.name}\n"
        "Selector:     value.name != root\n"
    )
    assert shape(rule) == whole
    rule_id = _field(rule, "ID")
    assert terminal.run(f"acl binding-rule read -id {rule_id[:13]}") == rule
    assert terminal.shape(f"acl binding-rule update -id {rule_id} -description crews") == whole.replace(
        "Description:  ", "Description:  crews"
    )
    assert terminal.shape("acl binding-rule list -method ci").startswith("<ID>:\n   AuthMethod:   ci\n")

    bearer = terminal.directory / "bearer"
    bearer.touch(0o600)
    bearer.write_text(token_of({"name": "crew", "iat": int(time.time())}, algorithm="ES256"))
    assert terminal.run("login -method ci -bearer-token-file bearer -token-sink-file token -meta pod=p1") == ""
    sink = terminal.directory / "token"
    assert stat.S_IMODE(sink.stat().st_mode) == 0o600
    seen = terminal.shape("acl token read -self -token-file token")
    assert 'Description:      token created via login: {"pod":"p1"}\n' in seen
    assert "Auth Method:      ci\n" in seen
    assert seen.endswith("Roles:\n   <ID> - crew\n")
    assert terminal.run("logout -token-file token") == ""
    assert terminal.run("logout -token-file token", code=1) == (
        "Error destroying token: Unexpected response code: 403 (ACL not found)\n"
    )
    bearer.write_text(token_of({"name": "root", "iat": int(time.time())}, algorithm="ES256"))
    assert terminal.run("login -method ci -bearer-token-file bearer -token-sink-file other", code=1) == (
        "Error logging in: Unexpected response code: 403 (Permission denied)\n"
    )
    assert not (terminal.directory / "other").exists()

    assert terminal.shape(f"acl binding-rule delete -id {rule_id}") == 'Binding rule "<ID>" deleted successfully\n'
    assert terminal.run("acl auth-method delete -name ci") == 'Auth method "ci" deleted successfully\n'


def _agent_tokens(terminal: Terminal) -> None:
    for kind in ("default", "agent", "agent_recovery", "recovery", "replication"):
        assert terminal.run(f"acl set-agent-token {kind} {SECRET}") == f'ACL token "{kind}" set successfully\n'
    assert terminal.run(f"acl set-agent-token nosuch {SECRET}", code=2)
    # The recovery token knows this node, and nothing of access control.
    assert terminal.run(f"acl policy list -token {SECRET}", code=1)


def _field(output: str, name: str) -> str:
    found = re.search(rf"^{name}: +(.*)$", output, re.MULTILINE)
    assert found is not None, output
    return found[1]
