"""`quorumca dev` with real nodes: what it prints works when pasted, Ctrl-C leaves nothing behind, and it resumes."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization

from cluster.cli.dev.cluster_file import ClusterFile
from cluster.client.api import Api, Origin
from cluster.client.errors import CommandError
from tests.kit.ports import free_port_offset
from tests.kit.wait import wait_until

pytestmark = pytest.mark.slow

QUORUMCA = [sys.executable, "-P", "-m", "cluster"]
#: How the lines begin that `quorumca dev` prints to be pasted where nothing is allowed without a token.
COMMANDS = ("test ", "export ", "curl ", "printf ", sys.executable)
READY_SECONDS = 90.0
STOP_SECONDS = 30.0


def is_gone(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


class Dev:
    """One `quorumca dev`, in a session of its own as at a terminal."""

    def __init__(self, root: Path, *argv: str) -> None:
        self.root = root
        self._output = root.with_name(f"output-{time.monotonic_ns()}")
        with open(self._output, "wb") as output:
            self.process = subprocess.Popen(
                [*QUORUMCA, "dev", "--data-dir", str(root), *argv],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    @property
    def output(self) -> str:
        return self._output.read_text()

    def wait_ready(self) -> None:
        wait_until("dev says what to do next", self._is_ready_or_ended, READY_SECONDS)
        assert self.process.poll() is None, self.output

    def _is_ready_or_ended(self) -> bool:
        return "Ctrl-C stops all nodes" in self.output or self.process.poll() is not None

    def nodes(self) -> list[dict[str, Any]]:
        return list(json.loads((self.root / "cluster.json").read_text())["nodes"])

    def api(self, number: int) -> Api:
        host, port = self.nodes()[number]["http"].split(":")
        return Api(Origin("http", host, int(port)))

    def family(self) -> list[int]:
        """dev, the nodes and their workers."""
        pids = [self.process.pid, *(node["pid"] for node in self.nodes())]
        workers = [child.pid for pid in pids for child in psutil.Process(pid).children(recursive=True)]
        return [*{*pids, *workers}]

    def interrupt(self, number: signal.Signals = signal.SIGINT) -> int:
        """As Ctrl-C does: to the terminal's whole foreground group."""
        os.killpg(self.process.pid, number)
        return self.process.wait(STOP_SECONDS)


@contextmanager
def dev(root: Path, *argv: str) -> Iterator[Dev]:
    started = Dev(root, *argv)
    try:
        started.wait_ready()
        yield started
    finally:
        started.process.kill()
        started.process.wait()
        for entry in ClusterFile(root).read():
            if entry.is_running:
                with suppress(ProcessLookupError):
                    os.kill(entry.pid, signal.SIGKILL)


def run(argv: Sequence[str], cwd: Path) -> str:
    done = subprocess.run(argv, cwd=cwd, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def printed_command(output: str, start: str) -> str:
    (line,) = [line for line in output.splitlines() if line.startswith(start)]
    return line


def assert_is_served_chain(directory: Path, cert_pem: str, roots: dict[str, Any]) -> None:
    """OpenSSL accepts it with nothing but the active root as trust, and the leaf is for the key in web.key."""
    leaf, *rest = re.findall("-----BEGIN.*?-----END CERTIFICATE-----\n", cert_pem, re.DOTALL)
    (active,) = [root for root in roots["Roots"] if root["Active"]]
    for name, text in (("leaf", leaf), ("rest", "".join(rest)), ("root", active["RootCert"])):
        (directory / f"{name}.pem").write_text(text)
    untrusted = ["-untrusted", "rest.pem"] if rest else []
    verified = run(["openssl", "verify", "-x509_strict", "-CAfile", "root.pem", *untrusted, "leaf.pem"], directory)
    assert verified == "leaf.pem: OK\n"
    key = serialization.load_pem_private_key((directory / "web.key").read_bytes(), password=None)
    assert x509.load_pem_x509_certificate(leaf.encode()).public_key() == key.public_key()


def test_printed_commands_ctrl_c_and_resume(tmp_path: Path) -> None:
    root, work = tmp_path / "my data", tmp_path / "my work"
    work.mkdir()
    offset = free_port_offset(3)
    with dev(root, "--nodes", "3", "--port-offset", str(offset)) as first:
        nodes = first.nodes()
        assert [node["http"] for node in nodes] == [f"127.0.0.1:{8500 + offset + k}" for k in range(3)]
        roots = first.api(0).json("GET", "/v1/connect/ca/roots")
        serials = set()
        for node in nodes:
            command = printed_command(first.output, "openssl").replace(nodes[0]["http"], node["http"])
            issued = json.loads(run(["bash", "-c", command], work))
            assert issued["Service"] == "web"
            assert_is_served_chain(work, issued["CertPEM"], roots)
            serials.add(issued["SerialNumber"])
        assert len(serials) == 3
        for command in [line for line in first.output.splitlines() if line.startswith("curl")]:
            assert json.loads(run(["bash", "-c", command], work))
        family = first.family()
        assert len(family) >= 1 + 3 + 3
        assert first.interrupt() == 0
        assert first.output.endswith("All nodes have stopped.\n")
        wait_until("every process is gone", lambda: all(map(is_gone, family)), 5.0)
    configs = [Path(node["config"]).read_bytes() for node in nodes]
    with dev(root, "--nodes", "3", "--port-offset", str(offset)) as second:
        again = second.api(2).json("GET", "/v1/connect/ca/roots")
        assert again["ActiveRootID"] == roots["ActiveRootID"]
        assert again["TrustDomain"] == roots["TrustDomain"]
        assert serials <= {cert["SerialNumber"] for cert in second.api(1).json("GET", "/v1/connect/ca/certs")["Certs"]}
        assert [Path(node["config"]).read_bytes() for node in nodes] == configs
        assert second.interrupt(signal.SIGTERM) == 0


def test_dead_node_is_reported_and_brought_back_by_hand(tmp_path: Path) -> None:
    with dev(tmp_path / "data", "--port-offset", str(free_port_offset(3))) as cluster:
        victim = cluster.nodes()[1]
        workers = [child.pid for child in psutil.Process(victim["pid"]).children(recursive=True)]
        assert workers
        os.kill(victim["pid"], signal.SIGKILL)
        wait_until(
            "the death is reported",
            lambda: f"node-2 (pid {victim['pid']}) has ended: killed by SIGKILL" in cluster.output,
            5.0,
        )
        wait_until("its workers have ended", lambda: all(map(is_gone, workers)), 5.0)
        by_hand = subprocess.Popen([*QUORUMCA, "agent", "-config", victim["config"]], stdout=subprocess.DEVNULL)
        try:
            wait_until(
                "its return is reported", lambda: f"node-2 runs again (pid {by_hand.pid})" in cluster.output, 10.0
            )
            assert cluster.nodes()[1]["pid"] == by_hand.pid
            wait_until("it serves", lambda: answers_roots(cluster.api(1)), READY_SECONDS)
            assert cluster.interrupt() == 0
            assert by_hand.wait(STOP_SECONDS) == 0
        finally:
            by_hand.kill()


def test_killed_dev_leaves_the_nodes_and_they_are_named(tmp_path: Path) -> None:
    root = tmp_path / "data"
    with dev(root, "--nodes", "1", "--port-offset", str(free_port_offset(1))) as cluster:
        (pid,) = [node["pid"] for node in cluster.nodes()]
        cluster.process.kill()
        cluster.process.wait(STOP_SECONDS)
        assert answers_roots(cluster.api(0))
        again = subprocess.run([*QUORUMCA, "dev", "--data-dir", str(root)], capture_output=True, text=True, check=False)
        assert (again.returncode, again.stdout) == (1, "")
        assert f"node-1 (pid {pid})" in again.stderr


def test_added_nodes_vote_and_resume(tmp_path: Path) -> None:
    root, argv = tmp_path / "my data", ["--nodes", "1", "--port-offset", str(free_port_offset(3))]
    with dev(root, *argv) as cluster:
        for name in ("node-2", "node-3"):
            done = subprocess.run(
                [*QUORUMCA, "dev", "add-node", "-data-dir", str(root)], capture_output=True, text=True, check=False
            )
            assert done.returncode == 0, done.stderr
            assert name in done.stdout
        nodes = cluster.nodes()
        assert [node["name"] for node in nodes] == ["node-1", "node-2", "node-3"]
        servers = cluster.api(2).json("GET", "/v1/operator/raft/configuration")["Servers"]
        assert {server["ID"]: server["Voter"] for server in servers} == {node["name"]: True for node in nodes}
        assert [server["Address"] for server in servers] == [node["raft"] for node in nodes]
        wait_until(
            "all nodes have applied the same",
            lambda: (
                len({cluster.api(k).text("GET", "/v1/operator/digest", query={"stale": ""}) for k in range(3)}) == 1
            ),
            10.0,
        )
        wait_until("the additions are reported", lambda: "node-3 has joined" in cluster.output, 5.0)
        active = cluster.api(0).json("GET", "/v1/connect/ca/roots")["ActiveRootID"]
        family = cluster.family()
        assert cluster.interrupt() == 0
        wait_until("every process is gone", lambda: all(map(is_gone, family)), 5.0)
    with dev(root, *argv) as resumed:
        assert [node["name"] for node in resumed.nodes()] == ["node-1", "node-2", "node-3"]
        for k in range(3):
            assert resumed.api(k).json("GET", "/v1/connect/ca/roots")["ActiveRootID"] == active
        resumed.api(0).text("DELETE", "/v1/operator/raft/peer", query={"id": "node-3"})
        assert resumed.interrupt() == 0
    with dev(root, *argv) as without:
        assert "node-3 is no server of this cluster" in without.output
        assert answers_roots(without.api(1))
        assert without.interrupt() == 0


def test_nothing_goes_without_a_token_where_that_was_asked_for(tmp_path: Path) -> None:
    """What it prints works when pasted; a server is added by whoever may."""
    root, work = tmp_path / "my data", tmp_path / "my work"
    work.mkdir()
    file = root / "management.token"
    argv = ["--nodes", "1", "--port-offset", str(free_port_offset(2))]
    add_node = [*QUORUMCA, "dev", "add-node", "-data-dir", str(root)]
    with dev(root, *argv, "--acl-default-policy", "deny") as first:
        commands = [line for line in first.output.splitlines() if line.startswith(COMMANDS)]
        # From the address, for its ports are not the usual ones, to the list of tokens.
        assert len(commands) == 7
        for _ in range(2):  # the second time the first token is kept
            run(["bash", "-euo", "pipefail", "-c", "rm -f web.key web.pem\n" + "\n".join(commands)], work)
        assert (work / "web.pem").read_text().count("BEGIN CERTIFICATE") >= 1
        assert file.stat().st_mode & 0o777 == 0o600
        for token in ({}, {"QUORUMCA_HTTP_TOKEN": "x" * 36}):
            refused = subprocess.run(
                add_node, capture_output=True, text=True, check=False, env={**os.environ, **token}, timeout=60
            )
            assert (refused.returncode, refused.stdout) == (1, "")
            assert re.search("node-1 did not add node-2: .*(Permission denied|ACL not found)", refused.stderr)
            assert [node["name"] for node in first.nodes()] == ["node-1"]
        run([*add_node, "--token-file", str(file)], work)
        assert [node["name"] for node in first.nodes()] == ["node-1", "node-2"]
        assert first.interrupt() == 0
    environment = {"QUORUMCA_HTTP_TOKEN_FILE": str(file)}
    with dev(root, *argv) as again:
        script = [line for line in again.output.splitlines() if line.startswith(("printf", "export"))]
        for number, said in ((0, 403), (1, 403)):
            with pytest.raises(CommandError, match=f"response code: {said} "):
                again.api(number).text("GET", "/v1/operator/raft/configuration")
        servers = json.loads(run(["bash", "-euo", "pipefail", "-c", "\n".join(script)], work))["Servers"]
        assert [server["ID"] for server in servers] == ["node-1", "node-2"]
        run([*QUORUMCA, "operator", "raft", "remove-peer", "-id", "node-2", *api_flags(again, file)], work)
        assert again.interrupt() == 0
    with pytest.MonkeyPatch.context() as patch:
        for name, value in environment.items():
            patch.setenv(name, value)
        with dev(root, *argv) as last:
            assert "node-2 is no server of this cluster" in last.output
            assert last.interrupt() == 0


def api_flags(cluster: Dev, file: Path) -> list[str]:
    return ["-http-addr", str(cluster.nodes()[0]["http"]), "-token-file", str(file)]


def digest(api: Api) -> str:
    return api.text("GET", "/v1/operator/digest", query={"stale": ""})


def answers_roots(api: Api) -> bool:
    try:
        return bool(api.json("GET", "/v1/connect/ca/roots")["ActiveRootID"])
    except Exception:
        return False
