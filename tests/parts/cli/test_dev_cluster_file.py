import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from cluster.cli.dev import cluster_file
from cluster.cli.dev.cluster_file import ClusterFile, Entry, note_pid, runs_node
from cluster.cli.locks import LockHeld, locked
from cluster.client.errors import CommandError

WAITS = "import sys; print(flush=True); sys.stdin.read()"


def entry(root: Path, name: str = "node-1", pid: int = 7) -> Entry:
    directory = root / name
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "config.toml").touch()
    return Entry(
        name, pid, "127.0.0.1:1", "127.0.0.1:2", "127.0.0.1:3", str(directory / "data"), str(directory / "config.toml")
    )


@contextmanager
def process(*arguments: str, cwd: Path) -> Iterator[int]:
    """A process with these arguments."""
    with subprocess.Popen(
        [sys.executable, "-c", WAITS, *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=cwd
    ) as started:
        assert started.stdin is not None
        assert started.stdout is not None
        started.stdout.readline()  # it runs: its arguments are there
        try:
            yield started.pid
        finally:
            started.stdin.close()


def test_file_has_the_keys_of_the_design(tmp_path: Path) -> None:
    one = entry(tmp_path)
    ClusterFile(tmp_path).put(one)
    assert json.loads((tmp_path / "cluster.json").read_text()) == {
        "nodes": [
            {
                "name": "node-1",
                "pid": 7,
                "http": "127.0.0.1:1",
                "rpc": "127.0.0.1:2",
                "raft": "127.0.0.1:3",
                "data_dir": one.data_dir,
                "config": one.config,
            }
        ]
    }


def test_put_adds_and_replaces_in_place(tmp_path: Path) -> None:
    file = ClusterFile(tmp_path)
    assert file.read() == ()
    one, two = entry(tmp_path), entry(tmp_path, "node-2")
    file.put(one, two)
    newer = replace(one, pid=8)
    file.put(newer)
    assert file.read() == (newer, two)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"nodes": [{"name": "a"}]}', '{"nodes": [7]}'])
def test_strange_file_is_refused_and_kept(tmp_path: Path, text: str) -> None:
    (tmp_path / "cluster.json").write_text(text)
    with pytest.raises(CommandError, match="is not what quorumca dev writes"):
        ClusterFile(tmp_path).put(entry(tmp_path))
    assert (tmp_path / "cluster.json").read_text() == text


def test_wrong_type_is_refused(tmp_path: Path) -> None:
    node = {"name": "a", "pid": "7", "http": "", "rpc": "", "raft": "", "data_dir": "", "config": ""}
    (tmp_path / "cluster.json").write_text(json.dumps({"nodes": [node]}))
    with pytest.raises(CommandError, match="pid must be a number"):
        ClusterFile(tmp_path).read()


def test_note_pid_finds_the_file_above_the_configuration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one, two = entry(tmp_path), entry(tmp_path, "node-2")
    file = ClusterFile(tmp_path)
    file.put(one, two)
    note_pid(Path(two.config), 99)
    assert file.read() == (one, replace(two, pid=99))
    monkeypatch.chdir(tmp_path / "node-1")
    note_pid(Path("config.toml"), 98)
    assert file.read()[0].pid == 98


def test_note_pid_without_a_file_that_names_the_configuration(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    note_pid(tmp_path / "config.toml", 1)
    one = entry(tmp_path)
    ClusterFile(tmp_path).put(one)
    note_pid(tmp_path / "node-1" / "other.toml", 1)
    note_pid(tmp_path / "node-1" / "too" / "deep" / "config.toml", 1)
    assert ClusterFile(tmp_path).read() == (one,)
    assert capsys.readouterr().err == ""


def test_note_pid_never_fails(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    one = entry(tmp_path)
    ClusterFile(tmp_path).put(one)
    monkeypatch.setattr(cluster_file, "_LOCK_SECONDS", 0.0)
    with locked(tmp_path / ".cluster.json.lock"):
        note_pid(Path(one.config), 8)
    assert f"another process ({os.getpid()})" in capsys.readouterr().err
    (tmp_path / "cluster.json").write_text("{")
    note_pid(Path(one.config), 8)
    assert "the process id is not noted: " in capsys.readouterr().err


def test_process_is_known_by_its_arguments(tmp_path: Path) -> None:
    directory = tmp_path / "with space"
    one = entry(directory)
    for arguments in (
        ("agent", "--config", one.config),
        ("agent", f"-config={one.config}"),
        ("agent", "-config", "node-1/config.toml"),
    ):
        with process(*arguments, cwd=directory) as pid:
            assert runs_node(pid, one.config)
        assert not runs_node(pid, one.config)
    for arguments in (("edit", one.config), ("agent", "--config", str(directory / "other.toml"))):
        with process(*arguments, cwd=directory) as pid:
            assert not runs_node(pid, one.config)


def test_note_pid_keeps_the_process_that_runs_the_node(tmp_path: Path) -> None:
    one = entry(tmp_path)
    file = ClusterFile(tmp_path)
    with process("agent", "--config", one.config, cwd=tmp_path) as pid:
        file.put(replace(one, pid=pid))
        note_pid(Path(one.config), 99)
        assert file.read()[0].pid == pid
    note_pid(Path(one.config), 99)
    assert file.read()[0].pid == 99


def test_lock_is_one_process_at_a_time(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with locked(path), pytest.raises(LockHeld, match=str(os.getpid())), locked(path, timeout=0.05):
        pass
    with locked(path):
        pass
