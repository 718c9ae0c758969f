"""What commands write is private whatever the caller's umask is, unless it is there to be handed out: certificates."""

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from cluster.cli.dev.local_cluster import make_directory, make_node, make_shared, node_at
from cluster.cli.files import keep_private
from tests.parts.cli.conftest import Run


@pytest.fixture(autouse=True)
def _careless() -> Iterator[None]:
    before = os.umask(0)
    yield
    os.umask(before)


def modes(directory: Path) -> dict[str, str]:
    return {str(path.relative_to(directory)): f"{stat.S_IMODE(path.stat().st_mode):o}" for path in directory.rglob("*")}


def test_keys_are_private_and_certificates_can_be_read_and_not_changed(run: Run, tmp_path: Path) -> None:
    for command in (
        "tls ca create",
        "tls cert create -server -node a",
        "tls cert create -client",
        "tls cert create -cli",
    ):
        assert run(command).code == 0
    found = modes(tmp_path)
    assert len(found) == 8
    assert found == {name: "600" if name.endswith("-key.pem") else "644" for name in found}


def test_seal_key_is_private(run: Run, tmp_path: Path) -> None:
    assert run("seal init").code == 0
    assert modes(tmp_path) == {"seal.key": "600"}


def test_all_of_a_local_cluster_is_private(tmp_path: Path) -> None:
    keep_private()  # as `dev` and `dev add-node` do at first
    root = tmp_path / "root"
    make_directory(root)
    make_shared(root)
    node = node_at(root, 1, 0)
    make_node(root, node, [node])
    found = modes(tmp_path)
    assert found["root/node-1/data/seal.key"] == "600"
    assert set(found.values()) == {"600", "700"}


@pytest.mark.parametrize("command", ["agent", "dev", "dev add-node", "seal init", "snapshot save"])
def test_commands_that_write_secrets_begin_with_it(run: Run, tmp_path: Path, command: str) -> None:
    """Also where they fail afterwards: what has been written by then is private."""
    (tmp_path / "node.toml").write_text("")
    (tmp_path / "seal.key").touch()
    arguments = {
        "agent": "--config node.toml",
        "dev": "--nodes 1 --data-dir node.toml",
        "dev add-node": "--data-dir node.toml",
        "seal init": "",
        "snapshot save": "-http-addr 127.0.0.1:1 file",
    }
    assert run(f"{command} {arguments[command]}").code != 0
    assert os.umask(0) == 0o077
