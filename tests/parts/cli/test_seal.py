import stat
from pathlib import Path

import pytest

from cluster.seal.sources import FileKey
from tests.parts.cli.conftest import Run


@pytest.mark.parametrize(("argv", "name"), [([], "seal.key"), (["-key-file", "other.key"], "other.key")])
def test_init_makes_a_key_that_a_node_takes(run: Run, tmp_path: Path, argv: list[str], name: str) -> None:
    result = run("seal", "init", *argv)
    path = tmp_path / name
    assert (result.code, result.err) == (0, "")
    assert result.out.startswith(f"==> Saved {name}\n")
    for advice in ("every node", "backup", "seal.key_file"):
        assert advice in result.out
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert len(FileKey(path).key(b"")) == 32


def test_init_never_replaces_a_key(run: Run, tmp_path: Path) -> None:
    (tmp_path / "seal.key").write_text("old")
    result = run("seal init")
    assert (result.code, result.out) == (1, "")
    assert result.err.startswith("seal.key already exists. It is not replaced")
    assert (tmp_path / "seal.key").read_text() == "old"


def test_init_where_nothing_can_be_written(run: Run) -> None:
    result = run("seal init -key-file no/seal.key")
    assert (result.code, result.err) == (1, "no/seal.key: No such file or directory\n")
