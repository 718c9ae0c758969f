"""Whole nodes in the sandbox of deploy/quorumca.service: they sign, rotate, save, start again, and hand over.

The filter of system calls is applied as systemd would apply it (tests/kit/unit_file.py), so a unit that forbids what a
node needs is found here, and not by whoever installs it.
"""

import json
import shutil
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import aiohttp
import psutil
import pytest

from tests.kit import seccomp
from tests.kit.real_cluster import LocalCluster, Node, make_csr
from tests.kit.wait import eventually, until

UNIT = Path(__file__).parents[2] / "deploy" / "quorumca.service"
LAUNCHER = "tests.kit.in_unit"
SETTINGS: dict[str, dict[str, Any]] = {
    "limits": {"signing_workers": 1},
    "raft": {"compact_bytes": 65536, "keep_bytes": 1024},
}

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(seccomp.unavailable() != "", reason=seccomp.unavailable() or "there is one"),
]


def events(node: Node) -> Iterator[dict[str, Any]]:
    for line in node.local.log.read_text().splitlines():
        if line.startswith("{"):
            yield json.loads(line)


@pytest.fixture
async def cluster(tmp_path: Path) -> AsyncIterator[LocalCluster]:
    async with LocalCluster(tmp_path, settings=SETTINGS) as made:
        for node in made.nodes:
            made.start_through(node, LAUNCHER, UNIT)
        await made.wait_ready()
        yield made


async def test_cluster_does_all_its_work_in_the_sandbox_of_the_unit(cluster: LocalCluster) -> None:
    csr_pem, _ = make_csr(await cluster.service_uri())
    for node in cluster.nodes:
        assert Path(f"/proc/{node.pid}/status").read_text().split("Seccomp:")[1].split()[0] == "2"
        await cluster.sign(node, csr_pem)
    before = await cluster.roots(cluster.nodes[0])
    rotated = await cluster.ask(cluster.nodes[1], "PUT", "/v1/connect/ca/rotation", {"Action": "rotate"})
    assert rotated.status == 200, rotated
    for node in cluster.nodes:
        await cluster.sign(node, csr_pem)
        assert (await cluster.ask(node, "GET", "/v1/agent/connect/ca/leaf/web")).status == 200
        assert (await cluster.roots(node))["ActiveRootID"] != before["ActiveRootID"]
    async with aiohttp.ClientSession() as session, session.get(f"{cluster.nodes[2].url}/v1/snapshot?stale") as answer:
        assert (answer.status, (await answer.read())[:2]) == (200, b"\x1f\x8b")
    leader = await cluster.leader()
    moved = await cluster.ask(leader, "PUT", "/v1/operator/raft/transfer-leader")
    assert moved.status == 200, moved
    await until(lambda: (leader.local.log.read_text().count("leader.lost")) > 0, "the leader knows")
    for node in cluster.nodes:
        assert await cluster.stop(node) == 0
        cluster.start_through(node, LAUNCHER, UNIT)
        await cluster.wait_ready()
    for node in cluster.nodes:
        await cluster.sign(node, csr_pem)
    await cluster.wait_same_digest()
    for node in cluster.nodes:
        names = [event["event"] for event in events(node)]
        assert not {"worker.lost", "worker.unprotected", "keeper.unprotected", "node.unprotected", "node.failed"} & set(
            names
        )
        assert (node.data_dir / "wal").stat().st_mode & 0o077 == 0


async def test_node_signs_although_its_processes_may_not_lower_their_priority(tmp_path: Path) -> None:
    """Whoever wrote another unit: the node says once what is refused to it, and works."""
    stricter = tmp_path / "stricter.service"
    stricter.write_text(UNIT.read_text().replace(" setpriority\n", "\n"))
    (tmp_path / "cluster").mkdir()
    async with LocalCluster(tmp_path / "cluster", nodes=1, settings=SETTINGS) as cluster:
        (node,) = cluster.nodes
        cluster.start_through(node, LAUNCHER, stricter)
        await cluster.wait_ready()
        csr_pem, _ = make_csr(await cluster.service_uri())
        await cluster.sign(node, csr_pem)
        family = psutil.Process(node.pid).children(recursive=True)
        (worker,) = [process for process in family if "cluster.signing.worker" in process.cmdline()]
        worker.kill()

        async def signs() -> bool:
            return bool(await cluster.sign(node, csr_pem))

        await eventually("another process signs", signs)
        refused = [event["reason"] for event in events(node) if event["event"] == "worker.unprotected"]
        assert refused == ["the priority cannot be lowered: [Errno 1] Operation not permitted"]
        assert [event["event"] for event in events(node)].count("worker.lost") == 1


async def test_unit_names_what_the_node_can_use(tmp_path: Path) -> None:
    """The seal key comes as one of the service manager's credentials, apart from the data."""
    credentials = tmp_path / "credentials"
    credentials.mkdir(mode=0o700)
    (tmp_path / "cluster").mkdir()
    settings: dict[str, dict[str, Any]] = {**SETTINGS, "seal": {"key_file": str(credentials / "seal.key")}}
    async with LocalCluster(tmp_path / "cluster", nodes=1, settings=settings) as cluster:
        (node,) = cluster.nodes
        shutil.move(node.data_dir / "seal.key", credentials / "seal.key")
        cluster.start_through(node, LAUNCHER, UNIT)
        await cluster.wait_ready()
        csr_pem, _ = make_csr(await cluster.service_uri())
        await cluster.sign(node, csr_pem)
