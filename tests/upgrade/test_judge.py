"""The judge of the leaves can say no."""

import time
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from tests.integration.test_rotation import rotate
from tests.kit.real_cluster import LocalCluster, make_csr
from tests.upgrade.judge import Judge

pytestmark = pytest.mark.slow


async def test_leaf_of_a_former_root_or_without_its_chain_is_wrong(tmp_path: Path) -> None:
    async with LocalCluster(tmp_path, nodes=1) as cluster:
        await cluster.start_all()
        await cluster.wait_ready()
        (node,) = cluster.nodes
        csr_pem, _ = make_csr(await cluster.service_uri())
        before = await cluster.sign(node, csr_pem)
        judge = Judge(cluster)
        async with judge.watching():
            judge.take(time.monotonic(), before)
        await rotate(cluster, node)
        after = await cluster.sign(node, csr_pem)
        async with judge.watching():
            judge.take(time.monotonic(), after)
        with pytest.raises(AssertionError, match=r"1 of 3 leaves are wrong.* was active already"):
            async with judge.watching():
                judge.take(time.monotonic(), before)
        judge.wrong.clear()
        leaf, *_ = x509.load_pem_x509_certificates(after["CertPEM"].encode())
        with pytest.raises(AssertionError, match=r"1 of 4 leaves are wrong.*is not good for who trusts"):
            async with judge.watching():
                judge.take(time.monotonic(), {**after, "CertPEM": leaf.public_bytes(Encoding.PEM).decode()})
        assert judge.judged == 4
