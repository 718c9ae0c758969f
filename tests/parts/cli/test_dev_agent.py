import os
import sys
from pathlib import Path
from types import ModuleType

import pytest

from cluster.base.config import NodeConfig
from cluster.cli.dev.cluster_file import ClusterFile
from cluster.cli.dev.local_cluster import LocalNode, make_node, make_shared, node_at
from tests.parts.cli.conftest import Run


@pytest.fixture
def node(tmp_path: Path) -> LocalNode:
    made = node_at(tmp_path, 1, 0)
    make_shared(tmp_path)
    make_node(tmp_path, made, [made])
    return made


def test_agent_runs_the_node_and_notes_its_pid(run: Run, node: LocalNode, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[NodeConfig] = []

    def run_node(config: NodeConfig, *, accepts_files_without_mac: bool, passphrase: int | None) -> int:
        assert not accepts_files_without_mac
        assert passphrase is None
        seen.append(config)
        return 7

    fake = ModuleType("cluster.main")
    fake.run = run_node  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "cluster.main", fake)
    file = ClusterFile(node.directory.parent)
    file.put(node.entry(pid=1 << 22))
    result = run("agent", "-config", str(node.config))
    assert (result.code, result.out, result.err) == (7, "", "")
    assert [config.node_name for config in seen] == ["node-1"]
    assert file.read() == (node.entry(os.getpid()),)


def test_agent_reports_every_mistake_and_does_not_start(run: Run, node: LocalNode) -> None:
    text = node.config.read_text()
    node.config.write_text(text.replace("node-1", "Node 1", 1) + "\n[log]\nlevel = 'loud'\n")
    result = run("agent", "--config", str(node.config))
    assert (result.code, result.out) == (1, "")
    lines = result.err.splitlines()
    assert len(lines) == 2
    assert "node_name = 'Node 1': must be a DNS label" in lines[0]
    assert "log.level = 'loud'" in lines[1]


def test_agent_without_its_file(run: Run) -> None:
    assert run("agent --config no.toml").err == "no.toml: No such file or directory\n"
    assert run("agent").code == 2
