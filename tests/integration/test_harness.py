"""The harness that other tests rely on does what it says."""

import signal
from pathlib import Path

import psutil
import pytest
from cryptography import x509

from cluster.client.errors import CommandError
from tests.kit.real_cluster import LocalCluster, make_csr

pytestmark = pytest.mark.slow


async def test_cluster_signs_survives_its_leader_and_agrees(cluster: LocalCluster) -> None:
    csr_pem, _ = make_csr(await cluster.service_uri("api"))
    first = await cluster.sign(cluster.nodes[2], csr_pem)
    leader = await cluster.leader()
    assert await cluster.kill(leader) == -signal.SIGKILL
    successor = await cluster.leader()
    assert successor is not leader
    second = await cluster.sign(successor, csr_pem)
    for issued in (first, second):
        (uri,) = (
            x509.load_pem_x509_certificate(issued["CertPEM"].encode())
            .extensions.get_extension_for_class(x509.SubjectAlternativeName)
            .value.get_values_for_type(x509.UniformResourceIdentifier)
        )
        assert uri == await cluster.service_uri("api")
    await cluster.restart(leader)
    await cluster.wait_ready()
    digest = await cluster.wait_same_digest()
    assert digest["LedgerCount"] >= 2
    roots = [await cluster.roots(node) for node in cluster.nodes]
    assert len({answer["ActiveRootID"] for answer in roots}) == 1


async def test_nothing_is_left_running_and_settings_are_used(tmp_path: Path) -> None:
    async with LocalCluster(tmp_path, nodes=1, settings={"limits": {"signing_workers": 2}}) as cluster:
        (node,) = cluster.nodes
        await cluster.start_all()
        await cluster.wait_ready()
        processes = [psutil.Process(node.pid), *psutil.Process(node.pid).children(recursive=True)]
        assert len(processes) == 2 + 2
    _, alive = psutil.wait_procs(processes, timeout=5)
    assert alive == []


async def test_node_that_cannot_start_is_explained(tmp_path: Path) -> None:
    async with LocalCluster(tmp_path, nodes=1) as cluster:
        (node,) = cluster.nodes
        (node.data_dir / "seal.key").unlink()
        await cluster.start_all()
        with pytest.raises(
            CommandError, match=r"node-1 has ended \(exit code 1\): quorumca: the seal key .* is missing"
        ):
            await cluster.wait_ready(20.0)


async def test_orderly_stop_is_exit_code_0(tmp_path: Path) -> None:
    async with LocalCluster(tmp_path, nodes=1) as cluster:
        await cluster.start_all()
        await cluster.wait_ready()
        assert await cluster.stop(cluster.nodes[0]) == 0
