"""A node on a data directory that the release before has left, and on one whose files somebody has changed."""

import shutil
import signal
import struct
import tarfile
import zlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Final

import pytest

from cluster.raft.snapshot import decode
from tests.kit.real_cluster import LocalCluster, Node
from tests.kit.wait import eventually

pytestmark = pytest.mark.slow

GOLDEN: Final = Path(__file__).parents[1] / "unit" / "raft" / "golden" / "previous-data.tar.xz"
CERTIFICATES: Final = 225
LEDGER_DIGEST: Final = "259be95c50380de72778244d2287e32648ebf8abc313257b7708d7372b813528"
REFUSED_SECONDS: Final = 20.0


def unpack(node: Node) -> None:
    with tarfile.open(GOLDEN) as tar:
        tar.extractall(node.data_dir, filter="data")
    (node.data_dir / "seal.key").chmod(0o600)


@pytest.fixture
async def previous(tmp_path: Path) -> AsyncIterator[LocalCluster]:
    """One node, whose data directory the release before has left."""
    async with LocalCluster(tmp_path, nodes=1) as cluster:
        shutil.rmtree(cluster.nodes[0].data_dir)
        unpack(cluster.nodes[0])
        yield cluster


async def served(cluster: LocalCluster) -> tuple[dict[str, Any], dict[str, Any]]:
    """Roots and digest, once it serves; then it is stopped."""
    [node] = cluster.nodes
    await cluster.wait_ready()
    roots, digest = await cluster.roots(node), await cluster.digest(node)
    assert await cluster.stop(node) == 0
    return roots, digest


async def last_words(node: Node) -> str:
    async def has_ended() -> bool | None:
        return not node.is_running or None

    await eventually(f"{node.name} ends", has_ended, REFUSED_SECONDS)
    assert node.started is not None
    assert node.started.process.returncode not in (0, None, -signal.SIGKILL)
    return node.started.last_words()


def changed(node: Node) -> None:
    """Another name for the root in the snapshot, and a checksum that fits."""
    path = node.data_dir / "snapshot"
    data = path.read_bytes()
    body = data[:-4].replace(b"Consul CA", b"Conmen CA")
    path.write_bytes(body + struct.pack("<I", zlib.crc32(body)))
    assert decode(path.read_bytes()) != decode(data)


async def test_directory_of_the_release_before_is_taken_once_and_guarded_from_then_on(previous: LocalCluster) -> None:
    [node] = previous.nodes
    previous.start(node)
    roots, digest = await served(previous)
    assert (digest["LedgerCount"], digest["LedgerDigest"]) == (CERTIFICATES, LEDGER_DIGEST)
    assert "files.authenticated" in node.log_tail(1000)

    previous.start(node)
    again, _ = await served(previous)
    assert [root["RootCert"] for root in again["Roots"]] == [root["RootCert"] for root in roots["Roots"]]

    changed(node)
    previous.start(node)
    assert f"{node.data_dir}/snapshot: its MAC" in await last_words(node)


async def test_files_put_back_as_they_were_before_macs_are_taken_only_when_that_is_said(previous: LocalCluster) -> None:
    """As after the release before has run on it again."""
    [node] = previous.nodes
    previous.start(node)
    await served(previous)
    for path in (*(node.data_dir / "wal").iterdir(), node.data_dir / "snapshot.mac"):
        path.unlink()
    unpack(node)
    previous.start(node)
    words = await last_words(node)
    assert "no MAC" in words
    assert "quorumca agent --accept-files-without-mac" in words
    previous.start_with(node, "-accept-files-without-mac")
    _, digest = await served(previous)
    assert (digest["LedgerCount"], digest["LedgerDigest"]) == (CERTIFICATES, LEDGER_DIGEST)
    previous.start(node)
    await served(previous)
