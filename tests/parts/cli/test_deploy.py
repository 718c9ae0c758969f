"""What is in deploy/: the files fit the code, and each other. (node.example.toml is in test_dev_example.py.)"""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from cluster.base.config import load_config
from cluster.base.telemetry import Metrics
from cluster.cli.main import GROUPS
from cluster.doctor.findings import is_well
from cluster.doctor.tls_files import check_tls
from tests.parts.doctor.test_node import HOUR, NOW

DEPLOY = Path(__file__).parents[3] / "deploy"
ALERTS = (DEPLOY / "alerts.yml").read_text()
RUNBOOK = (DEPLOY / "RUNBOOK.md").read_text()


def anchors(markdown: str) -> set[str]:
    headings = re.findall(r"^#+ (.*)$", markdown, re.MULTILINE)
    return {re.sub(r"[^a-z0-9 -]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_alerts_use_metrics_that_there_are() -> None:
    published = {sample.name for family in Metrics().registry.collect() for sample in family.samples} | {
        f"{family.name}{suffix}" for family in Metrics().registry.collect() for suffix in ("_total", "_bucket", "")
    }
    used = set(re.findall(r"\bquorumca_[a-z_]+", ALERTS))
    assert used
    assert used <= published


def test_every_alert_has_its_page() -> None:
    alerts = re.findall(r"^ +- alert: (\w+)$", ALERTS, re.MULTILINE)
    links = re.findall(r'runbook: "deploy/RUNBOOK\.md#([a-z-]+)"', ALERTS)
    assert [alert.lower() for alert in alerts] == links
    assert len(set(links)) == len(links) > 10
    assert set(links) <= anchors(RUNBOOK)


def test_links_of_the_runbook_lead_somewhere() -> None:
    docs = DEPLOY.parent / "docs"
    for text, source in ((RUNBOOK, DEPLOY), ((docs / "recovery.md").read_text(), docs)):
        for path, anchor in re.findall(r"\]\((?!https?:)([^)#]*)(?:#([^)]*))?\)", text):
            target = (source / path).resolve() if path else None
            assert target is None or target.is_file(), path
            if anchor:
                assert anchor in anchors(target.read_text() if target else text), anchor


@pytest.mark.parametrize("document", ["deploy/RUNBOOK.md", "docs/recovery.md", "cluster/doctor"])
def test_commands_that_are_recommended_exist(document: str) -> None:
    path = DEPLOY.parent / document
    text = "".join(file.read_text() for file in path.glob("*.py")) if path.is_dir() else path.read_text()
    named = set(re.findall(r"\bquorumca ([a-z]+)\b", text)) - {"quorumca"}
    assert named
    assert named <= set(GROUPS)


@pytest.mark.slow
def test_setup_of_the_containers_makes_nodes_that_start(tmp_path: Path) -> None:
    """But for their host names."""
    program = tmp_path / "bin" / "quorumca"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -P -m cluster "$@"\n')
    program.chmod(0o755)
    material = tmp_path / "material"
    material.mkdir()
    environment = {**os.environ, "PATH": f"{program.parent}:{os.environ['PATH']}"}
    command = ["sh", str(DEPLOY / "compose-setup.sh"), str(material)]
    subprocess.run(command, env=environment, check=True, capture_output=True, timeout=60)
    made = {path: path.read_bytes() for path in material.rglob("*") if path.is_file()}
    for name in ("ca-1", "ca-2", "ca-3"):
        config = load_config(material / name / "node.toml", {})
        assert (config.node_name, config.raft_address, config.rpc_address) == (name, f"{name}:8300", f"{name}:8400")
        assert [server.name for server in config.servers] == ["ca-1", "ca-2", "ca-3"]
        assert is_well(check_tls(config, NOW + HOUR))
    subprocess.run(command, env=environment, check=True, capture_output=True, timeout=60)
    assert {path: path.read_bytes() for path in material.rglob("*") if path.is_file()} == made
