"""Each contract about imports fails when it is broken: a rule that cannot fail would protect nothing."""

import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Final

import pytest

ROOT: Final = Path(__file__).parents[2]
CONTRACTS: Final = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
LINT: Final = "from importlinter.cli import lint_imports_command; lint_imports_command()"

#: Name of the contract: a file, and an import in it that must not be.
BREACHES: Final = {
    "no import runs upward": ("fsm/state.py", "import cluster.base.clock"),
    "every room has a layer": ("cluster/attic/__init__.py", ""),
    "the API's frame and routes know what a node offers, and nothing of how it does it": (
        "cluster/http/render.py",
        "import cluster.ca.roots",
    ),
    "doctor looks from outside, and is no command": ("cluster/doctor/look.py", "import cluster.cli.output"),
    "signing knows neither the log nor what a rotation is": ("cluster/signing/pool.py", "import cluster.raft.disk"),
    "a host's services know neither the log nor the CA": ("cluster/agent/leaves.py", "import cluster.ca.roots"),
    "what a node offers is values and Protocols": ("cluster/api/reads.py", "import cluster.rpc.messages"),
    "base imports no other room": ("cluster/base/names.py", "import cluster.tls.contexts"),
    "fsm is pure: no I/O, clock or randomness": ("fsm/duties.py", "import time"),
    "providers know nothing of Raft or HTTP serving": ("providers/registry.py", "import aiohttp"),
    "pysyncobj is imported in cluster.raft only": ("cluster/ca/leader.py", "import pysyncobj"),
    "aiohttp serves in cluster.http and cluster.rpc.server only": ("cluster/rpc/client.py", "import aiohttp"),
    "nothing unpickles": ("cluster/backup/file.py", "import pickle"),
}


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("copy")
    for package in ("cluster", "fsm", "providers"):
        shutil.copytree(ROOT / package, directory / package, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", directory)
    return directory


def _lint(directory: Path) -> str:
    """What import-linter says, its lines joined."""
    done = subprocess.run(
        [sys.executable, "-P", "-c", LINT],
        cwd=directory,
        env={"PYTHONPATH": str(directory), "COLUMNS": "400"},
        capture_output=True,
        text=True,
        check=False,
    )
    return " ".join((done.stdout + done.stderr).split())


def test_every_contract_has_a_breach_and_all_are_kept(copy: Path) -> None:
    assert [contract["name"] for contract in CONTRACTS] == list(BREACHES)
    assert f"{len(CONTRACTS)} kept, 0 broken" in _lint(copy)


@pytest.mark.slow
@pytest.mark.parametrize("name", BREACHES)
def test_breach_is_found(copy: Path, name: str) -> None:
    file, line = BREACHES[name]
    path = copy / file
    before = path.read_text() if path.exists() else None
    path.parent.mkdir(exist_ok=True)
    path.write_text(f"{before or ''}\n{line}\n")
    try:
        assert f"{name} BROKEN" in _lint(copy)
    finally:
        if before is None:
            shutil.rmtree(path.parent)
        else:
            path.write_text(before)
