from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from tests.kit.backups import sign, snapshots
from tests.kit.fake_cluster import FakeCluster, Node, bootstrapped, running


def _copy_key(key: Path, directory: Path) -> None:
    (directory / "seal.key").touch(0o600)
    (directory / "seal.key").write_bytes(key.read_bytes())


@pytest.fixture
async def two(tmp_path: Path) -> AsyncIterator[tuple[Node, Node]]:
    """Two clusters of one node, with the same seal key; both have a CA."""
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    one = FakeCluster(tmp_path / "one")
    _copy_key(tmp_path / "one" / "seal.key", tmp_path / "two")
    two = FakeCluster(tmp_path / "two")
    nodes = Node(one, "a"), Node(two, "a")
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(running(*nodes))
        for node in nodes:
            await bootstrapped(node)
        yield nodes
    one.close()
    two.close()


@pytest.fixture
async def stranger(tmp_path: Path) -> AsyncIterator[Node]:
    """Of another cluster, with another seal key."""
    (tmp_path / "three").mkdir()
    other = FakeCluster(tmp_path / "three")
    node = Node(other, "a")
    async with running(node):
        await bootstrapped(node)
        yield node
    other.close()


@pytest.fixture
async def saved(two: tuple[Node, Node], tmp_path: Path) -> Path:
    await sign(two[0], "s")
    path = tmp_path / "saved.tgz"
    await snapshots(two[0]).save(path)
    return path


@pytest.fixture
async def heir(tmp_path: Path) -> AsyncIterator[Node]:
    """Of a new cluster, with the seal key of one that the release before has run."""
    (tmp_path / "heir").mkdir()
    _copy_key(Path(__file__).parent / "golden" / "seal.key", tmp_path / "heir")
    cluster = FakeCluster(tmp_path / "heir")
    node = Node(cluster, "a")
    async with running(node):
        await bootstrapped(node)
        yield node
    cluster.close()
