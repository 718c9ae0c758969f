"""Consul's Go client works against every node. The tests themselves are in Go, in goclient/."""

from pathlib import Path

import pytest

from tests.interop.go import build_tests, download, needs_go, run
from tests.kit.real_cluster import LocalCluster

pytestmark = [pytest.mark.slow, needs_go]

_RUN_SECONDS = 90.0


async def test_go_client_on_every_node(tmp_path: Path, cluster: LocalCluster) -> None:
    await download()
    program = tmp_path / "client.test"
    await build_tests(program, ".")
    nodes = ",".join(node.local.http for node in cluster.nodes)
    code, output = await run(_RUN_SECONDS, str(program), "-test.v", "-test.timeout=60s", QUORUMCA_NODES=nodes)
    print(output)
    assert code == 0, output
    # What was skipped has shown nothing.
    assert "--- SKIP" not in output
    assert output.count("--- PASS: TestBlockingQueriesWakeOnEveryNode") == 1
