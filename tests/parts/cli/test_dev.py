"""`quorumca dev` up to where processes start: what is refused, and what is printed."""

import json
import os
import re
import shlex
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography import x509

from cluster.cli.dev import command as dev
from cluster.cli.dev.cluster_file import ClusterFile, Entry
from cluster.cli.dev.local_cluster import MAX_PORT_OFFSET, acl_settings, make_node, make_shared, node_at
from cluster.cli.locks import locked
from tests.kit.ports import free_port_offset
from tests.parts.cli.conftest import Run
from tests.parts.cli.test_dev_cluster_file import process


def make(root: Path, nodes: int, offset: int) -> list[Entry]:
    """A local cluster that has run before."""
    made = [node_at(root, k + 1, offset) for k in range(nodes)]
    make_shared(root)
    for node in made:
        make_node(root, node, made)
    entries = [node.entry(pid=1 << 22) for node in made]
    ClusterFile(root).put(*entries)
    return entries


@pytest.mark.parametrize(
    ("argv", "text"),
    [
        ("--nodes 0", "'0' is not allowed: must be a whole number from 1 to 5"),
        ("--nodes 6", "'6' is not allowed: must be a whole number from 1 to 5"),
        ("--port-offset -1", "--port-offset"),
        (f"--port-offset {MAX_PORT_OFFSET + 1}", f"must be a whole number from 0 to {MAX_PORT_OFFSET}"),
        ("--nodes 3 add-node", "are of no use to add-node"),
        ("--acl-default-policy deny add-node", "are of no use to add-node"),
        ("--acl-default-policy ask", "argument --acl-default-policy: invalid choice: 'ask'"),
        ("add-node --token x --token-file y", "--token-file: not allowed with argument --token"),
        ("remove-node", "invalid choice: 'remove-node'"),
    ],
)
def test_usage_errors(run: Run, tmp_path: Path, argv: str, text: str) -> None:
    result = run(f"dev {argv}")
    assert (result.code, result.out) == (2, "")
    assert text in result.err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("argv", "texts"),
    [
        ("--nodes 3", ("made with --nodes 2", "--nodes 3 does not")),
        ("--port-offset 5", ("made with --port-offset {offset}", "--port-offset 5 does not")),
    ],
)
def test_other_shape_than_the_directory_was_made_with(
    run: Run, tmp_path: Path, argv: str, texts: tuple[str, ...]
) -> None:
    offset = free_port_offset(2)
    make(tmp_path, 2, offset)
    result = run(f"dev --data-dir . {argv}")
    assert (result.code, result.out) == (1, "")
    for text in texts:
        assert text.format(offset=offset) in result.err


def test_directory_that_another_dev_uses(run: Run, tmp_path: Path) -> None:
    with locked(tmp_path / ".dev.lock"):
        result = run("dev --data-dir .")
    assert (result.code, result.out) == (1, "")
    assert result.err == f"{tmp_path} is in use by another quorumca dev (pid {os.getpid()}); stop that one first\n"


def test_nodes_that_outlived_their_dev(run: Run, tmp_path: Path) -> None:
    one, two = make(tmp_path, 2, free_port_offset(2))
    with process("agent", "--config", two.config, cwd=tmp_path) as pid:
        ClusterFile(tmp_path).put(replace(two, pid=pid))
        result = run("dev --data-dir .")
    assert (result.code, result.out) == (1, "")
    assert f"run already: node-2 (pid {pid}); stop them first, as with: kill {pid}\n" in result.err
    assert one.name not in result.err


@pytest.mark.parametrize("is_new", [True, False])
def test_port_in_use(run: Run, tmp_path: Path, is_new: bool) -> None:
    offset = free_port_offset(3)
    if not is_new:
        make(tmp_path, 3, offset)
    port = 8401 + offset
    with socket.create_server(("127.0.0.1", port)):
        result = run(f"dev --data-dir . --port-offset {offset}")
    assert (result.code, result.out) == (1, "")
    assert result.err.startswith(f"port {port} is in use (127.0.0.1:{port}, wanted for the RPC of node-2)")
    assert ("--port-offset" if is_new else "--data-dir") in result.err
    if is_new:
        # Another offset can be chosen now.
        assert [path.name for path in tmp_path.iterdir()] == [".dev.lock"]


def test_sign_command_sends_a_csr_as_json(tmp_path: Path) -> None:
    """Everything up to curl, which here keeps what it is given."""
    command = dev.sign_command("http://127.0.0.1:8500", "11-22.consul")
    assert "\n" not in command
    curl = tmp_path / "curl"
    curl.write_text('#!/bin/sh\nprintf "%s\\n" "$@" > arguments\ncat > body\n')
    curl.chmod(0o755)
    path = f"{tmp_path}:{os.environ['PATH']}"
    subprocess.run(["bash", "-c", command], check=True, cwd=tmp_path, env={"PATH": path, "HOME": str(tmp_path)})
    assert (tmp_path / "arguments").read_text().splitlines()[-1] == "http://127.0.0.1:8500/v1/connect/ca/sign"
    assert "PUT" in (tmp_path / "arguments").read_text()
    body = json.loads((tmp_path / "body").read_text())
    assert list(body) == ["CSR"]
    csr = x509.load_pem_x509_csr(body["CSR"].encode())
    names = csr.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.UniformResourceIdentifier) == [
        "spiffe://11-22.consul/ns/default/dc/dc1/svc/web"
    ]
    assert (tmp_path / "web.key").exists()


def test_table_and_commands_in_a_pipe(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    entries = [node_at(tmp_path / "my data", k, 0).entry(pid=40 + k) for k in (1, 2)]
    dev._show(entries, "11.consul")
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["Node", "HTTP", "RPC", "Raft", "PID", "Data", "Log"]
    assert re.split(" {2,}", lines[2]) == [
        "node-2",
        "http://127.0.0.1:8501",
        "127.0.0.1:8401",
        "127.0.0.1:8301",
        "42",
        "my data/node-2/data",
        "my data/node-2/log",
    ]
    commands = [shlex.split(line) for line in lines[3:] if line.startswith(("curl", "openssl"))]
    assert len(commands) == 4
    assert ["curl", "-s", "http://127.0.0.1:8500/v1/agent/connect/ca/leaf/web?pretty"] in commands


@pytest.mark.parametrize("is_denied", [True, False])
def test_where_a_cluster_on_other_ports_is_asked_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], is_denied: bool
) -> None:
    for offset, expected in ((0, []), (100, ["export QUORUMCA_HTTP_ADDR=127.0.0.1:8600"])):
        dev._show([node_at(tmp_path, 1, offset).entry(pid=41)], "11.consul", is_denied=is_denied)
        lines = capsys.readouterr().out.splitlines()
        assert [line for line in lines if "QUORUMCA_HTTP_ADDR" in line] == expected


def test_commands_where_nothing_is_allowed_without_a_token(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    entry = node_at(tmp_path / "my data", 1, 0).entry(pid=41)
    dev._show([entry], "11.consul", is_denied=True)
    lines = capsys.readouterr().out.splitlines()
    file = f"'{tmp_path}/my data/management.token'"
    [bootstrap] = [line for line in lines if " acl bootstrap " in line]
    assert bootstrap.startswith(f"test -s {file} || (umask 077; ")  # what it would replace cannot be had again
    assert f"export QUORUMCA_HTTP_TOKEN_FILE={file}" in lines
    commands = [line for line in lines if line.startswith((sys.executable, "curl", "printf", "test"))]
    assert len(commands) == 5
    assert not [line for line in commands if "-token " in line or "--token " in line or "X-Consul-Token: $" in line]


@pytest.mark.parametrize(("made", "wanted"), [("deny", "allow"), ("allow", "deny"), (None, "deny")])
def test_default_policy_is_what_the_directory_was_made_with(
    run: Run, tmp_path: Path, made: str | None, wanted: str
) -> None:
    node = node_at(tmp_path, 1, 0)
    make_shared(tmp_path)
    make_node(tmp_path, node, [node], acl_settings(made))
    before = node.config.read_bytes()
    result = run(f"dev --data-dir . --acl-default-policy {wanted}")
    assert (result.code, result.out) == (1, "")
    assert (
        f"made with --acl-default-policy {made or 'allow'}, which --acl-default-policy {wanted} does not" in result.err
    )
    assert node.config.read_bytes() == before


@pytest.mark.parametrize("argv", ["--data-dir cluster add-node", "add-node --data-dir cluster"])
def test_add_node_needs_a_cluster(run: Run, tmp_path: Path, argv: str) -> None:
    result = run(f"dev {argv}")
    assert (result.code, result.out) == (1, "")
    assert f"there is no local cluster in {tmp_path}/cluster" in result.err


def test_add_node_to_a_cluster_that_does_not_run(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from cluster.cli.dev import supervisor as dev_supervisor

    monkeypatch.setattr(dev_supervisor, "agent_command", lambda _config: ["sleep", "60"])
    make(tmp_path, 1, free_port_offset(2))
    result = run("dev add-node --data-dir .")
    assert (result.code, result.out) == (3, "")
    assert "no node of the cluster answers: is it running?" in result.err
    assert [entry.name for entry in ClusterFile(tmp_path).read()] == ["node-1"]
