"""The processes of a local cluster, with fake nodes (fake_node.py)."""

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest

from cluster.cli.dev import supervisor as dev_supervisor
from cluster.cli.dev.cluster_file import ClusterFile
from cluster.cli.dev.local_cluster import LocalNode, make_node, make_shared
from cluster.cli.dev.supervisor import (
    NodeProcess,
    NotServing,
    Stopped,
    StopSignals,
    Watch,
    agent_command,
    start_node,
    stop_all,
    trust_domain_of,
    wait_until_serving,
)
from cluster.client.errors import CommandError
from tests.kit.fake_api import FakeApi
from tests.kit.ports import free_port_offset, free_ports
from tests.parts.cli.conftest import Run

pytestmark = pytest.mark.slow
DEADLINE = 20.0
FAKE_NODE = str(Path(__file__).with_name("fake_node.py"))


def fake_command(config: Path) -> list[str]:
    return [sys.executable, FAKE_NODE, "agent", "--config", str(config)]


@pytest.fixture(autouse=True)
def _fake_nodes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dev_supervisor, "agent_command", fake_command)


@pytest.fixture
def nodes(tmp_path: Path) -> list[LocalNode]:
    made = []
    for k in (1, 2):
        http, rpc, raft = (f"127.0.0.1:{port}" for port in free_ports(3))
        made.append(LocalNode(f"node-{k}", tmp_path / f"node-{k}", http, rpc, raft))
    make_shared(tmp_path)
    for node in made:
        make_node(tmp_path, node, made)
    return made


@pytest.fixture
def started(nodes: list[LocalNode]) -> Iterator[list[NodeProcess]]:
    processes: list[NodeProcess] = []
    try:
        processes.extend(map(start_node, nodes))
        yield processes
    finally:
        for one in processes:
            one.process.kill()
            one.process.wait()


def wait_for_end(one: NodeProcess) -> None:
    one.process.wait(DEADLINE)


def test_nodes_serve_and_stop_in_order(started: list[NodeProcess]) -> None:
    said: list[str] = []
    signals = StopSignals()
    assert wait_until_serving(started, signals, DEADLINE) == "11.consul"
    assert all(os.getpgid(one.process.pid) == one.process.pid for one in started)
    assert stop_all(started, [], signals, said.append)
    assert [one.process.returncode for one in started] == [0, 0]
    assert said == []


def test_node_that_ends_early_is_reported_with_its_last_words(nodes: list[LocalNode]) -> None:
    nodes[1].log.write_text("of an earlier run\n")
    (nodes[1].directory / "broken").write_text("the seal key is missing")
    processes = [start_node(node) for node in nodes]
    try:
        with pytest.raises(CommandError, match=r"node-2 has ended \(exit code 1\): the seal key is missing\n.*log"):
            wait_until_serving(processes, StopSignals(), DEADLINE)
    finally:
        stop_all(processes, [], StopSignals(), print)
    assert nodes[1].log.read_text().startswith("of an earlier run\n")
    assert processes[1].log_tail(9) == ['{"event":"node.started"}', "the seal key is missing"]


def test_node_without_a_root_is_named_at_the_deadline(nodes: list[LocalNode], started: list[NodeProcess]) -> None:
    (nodes[1].directory / "rootless").touch()
    nodes[1].log.write_text("one\ntwo\n")
    with pytest.raises(CommandError) as failed:
        wait_until_serving(started, StopSignals(), 3.0)
    lines = str(failed.value).splitlines()
    assert lines[0] == "the cluster did not get ready within 3 s:"
    assert lines[1].startswith(f"  node-2: {nodes[1].http} has no active root")
    assert lines[2:] == ["    one", "    two"]


def test_node_that_was_removed_is_not_waited_for(nodes: list[LocalNode], started: list[NodeProcess]) -> None:
    (nodes[1].directory / "rootless").touch()
    (nodes[0].directory / "servers").write_text("node-1")
    said: list[str] = []
    assert wait_until_serving(started, StopSignals(), DEADLINE, said.append) == "11.consul"
    assert said == ["node-2 is no server of this cluster: it waits until it is added (operator raft add-peer)"]


def test_waiting_ends_when_somebody_asks(started: list[NodeProcess], nodes: list[LocalNode]) -> None:
    (nodes[0].directory / "rootless").touch()
    with StopSignals() as signals:
        threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGTERM)).start()
        with pytest.raises(Stopped):
            wait_until_serving(started, signals, DEADLINE)
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_deaf_node_is_killed(nodes: list[LocalNode], started: list[NodeProcess]) -> None:
    wait_until_serving(started, StopSignals(), DEADLINE)
    (nodes[0].directory / "deaf").touch()
    said: list[str] = []
    assert not stop_all(started, [], StopSignals(), said.append, seconds=1.0)
    assert [one.process.returncode for one in started] == [-signal.SIGKILL, 0]
    assert said == ["node-1 did not end in time: killed"]


def test_second_signal_does_not_wait(nodes: list[LocalNode], started: list[NodeProcess]) -> None:
    wait_until_serving(started, StopSignals(), DEADLINE)
    (nodes[0].directory / "deaf").touch()
    begin = time.monotonic()
    with StopSignals() as signals:
        threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT)).start()
        assert not stop_all(started, [], signals, lambda _text: None, seconds=DEADLINE)
    assert time.monotonic() - begin < DEADLINE


def test_watch_reports_ends_returns_and_additions(tmp_path: Path, started: list[NodeProcess]) -> None:
    file, said = ClusterFile(tmp_path), list[str]()
    file.put(*(one.node.entry(one.process.pid) for one in started))
    wait_until_serving(started, StopSignals(), DEADLINE)
    watch = Watch(file, started, said.append)
    watch.look()
    assert said == []

    dead = started[0]
    dead.process.kill()
    wait_for_end(dead)
    watch.look()
    watch.look()
    (text,) = said
    assert text.startswith(f"node-1 (pid {dead.process.pid}) has ended: killed by SIGKILL")
    assert f"agent --config {dead.node.config}" in text

    again = start_node(dead.node)
    started.append(again)
    wait_until_serving([again], StopSignals(), DEADLINE)
    added = replace(again.node.entry(again.process.pid), name="node-3")
    file.put(again.node.entry(again.process.pid), added)
    watch.look()
    assert said[1:] == [
        f"node-1 runs again (pid {again.process.pid})",
        f"node-3 has joined (pid {again.process.pid})",
    ]


def test_nodes_of_other_processes_are_stopped_too(tmp_path: Path, started: list[NodeProcess]) -> None:
    wait_until_serving(started, StopSignals(), DEADLINE)
    own, other = started
    reaper = threading.Thread(target=wait_for_end, args=(other,))
    reaper.start()
    assert stop_all([own], [other.node.entry(other.process.pid)], StopSignals(), print)
    reaper.join(DEADLINE)
    assert other.process.returncode == 0


def test_questions_to_nodes_that_do_not_serve(api: FakeApi) -> None:
    with pytest.raises(NotServing, match=r"answers 404: no such path"):
        trust_domain_of(api.address)
    api.answer("GET", "/v1/connect/ca/roots", {"ActiveRootID": ""})
    with pytest.raises(NotServing, match="has no active root"):
        trust_domain_of(api.address)
    api.answer("GET", "/v1/connect/ca/roots", "nonsense")
    with pytest.raises(NotServing, match="does not answer with a JSON object"):
        trust_domain_of(api.address)
    (port,) = free_ports(1)
    with pytest.raises(NotServing, match=f"no answer on 127.0.0.1:{port}: Connection refused"):
        trust_domain_of(f"127.0.0.1:{port}")


def test_agent_command_runs_the_installed_program_from_anywhere(tmp_path: Path) -> None:
    (tmp_path / "cluster.py").write_text("raise SystemExit('the wrong one')")
    done = subprocess.run(
        agent_command(tmp_path / "no such.toml"), capture_output=True, text=True, cwd=tmp_path, check=False
    )
    assert (done.returncode, done.stderr) == (1, f"{tmp_path}/no such.toml: No such file or directory\n")


DEV = """
import sys
from cluster.cli.dev import supervisor as dev_supervisor
from cluster.cli.main import main
dev_supervisor.agent_command = lambda config: [sys.executable, {fake!r}, "agent", "--config", str(config)]
sys.exit(main())
"""


class Dev:
    """`quorumca dev` with fake nodes, as a process."""

    def __init__(self, root: Path, *argv: str) -> None:
        script = DEV.format(fake=FAKE_NODE)
        self.process = subprocess.Popen(
            [sys.executable, "-c", script, "dev", "--data-dir", str(root), *argv],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.root = root

    def wait_ready(self) -> None:
        assert self.process.stdout is not None
        line = ""
        while "raft/configuration" not in line:
            line = self.process.stdout.readline()
            assert line, self.process.communicate()[1]

    def pids(self) -> list[int]:
        return [node["pid"] for node in json.loads((self.root / "cluster.json").read_text())["nodes"]]

    def end(self, number: signal.Signals) -> tuple[int, str]:
        self.process.send_signal(number)
        return self.process.wait(DEADLINE), self.process.communicate()[1]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_dev_runs_until_it_is_told_to_stop_and_goes_on_later(tmp_path: Path, number: signal.Signals) -> None:
    root, offset = tmp_path / "my data", free_port_offset(3)
    first = Dev(root, "--nodes", "3", "--port-offset", str(offset))
    try:
        first.wait_ready()
        pids = first.pids()
        configs = [(root / f"node-{k}" / "config.toml").read_bytes() for k in (1, 2, 3)]
        assert first.end(number) == (
            0,
            "Ctrl-C stops all nodes; run again, the cluster goes on.\nAll nodes have stopped.\n",
        )
    finally:
        first.process.kill()
    assert len(set(pids)) == 3
    assert not any(Path(f"/proc/{pid}").exists() for pid in pids)
    second = Dev(root)
    try:
        second.wait_ready()
        assert not set(second.pids()) & set(pids)
        assert [(root / f"node-{k}" / "config.toml").read_bytes() for k in (1, 2, 3)] == configs
        assert second.end(number)[0] == 0
    finally:
        second.process.kill()


def test_dev_that_is_killed_leaves_its_nodes_and_the_next_one_names_them(run: Run, tmp_path: Path) -> None:
    dev = Dev(tmp_path, "--nodes", "2", "--port-offset", str(free_port_offset(2)))
    pids: list[int] = []
    try:
        dev.wait_ready()
        pids = dev.pids()
        busy = run("dev --data-dir .")
        assert f"is in use by another quorumca dev (pid {dev.process.pid})" in busy.err
        dev.end(signal.SIGKILL)
        result = run("dev --data-dir .")
        assert result.code == 1
        assert re.search(f"kill {pids[0]} {pids[1]}$", result.err.strip())
    finally:
        dev.process.kill()
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def test_dev_whose_node_fails_stops_the_others(tmp_path: Path) -> None:
    root, offset = tmp_path / "data", free_port_offset(2)
    dev = Dev(root, "--nodes", "2", "--port-offset", str(offset))
    try:
        dev.wait_ready()
        dev.end(signal.SIGINT)
        (root / "node-2" / "broken").write_text("wrong seal key")
        dev = Dev(root)
        assert dev.process.wait(DEADLINE) == 1
        assert "node-2 has ended (exit code 1): wrong seal key" in dev.process.communicate()[1]
        assert not any(Path(f"/proc/{pid}").exists() for pid in dev.pids())
    finally:
        dev.process.kill()
