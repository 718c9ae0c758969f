"""Consul's Go client and access control: all of `ACL()`, logins with signed tokens, and what tokens allow elsewhere.

Against one node on which nothing is allowed by default. The tests themselves are in Go, in goclient/acl/.
"""

import re
from pathlib import Path
from typing import Final

import pytest

from tests.interop.go import MODULE, build_tests, download, needs_go, run
from tests.kit.real_cluster import LocalCluster, Settings

pytestmark = [pytest.mark.slow, needs_go]

DENY: Final[Settings] = {"acl": {"default_policy": "deny"}, "limits": {"signing_workers": 1}}
_RUN_SECONDS: Final = 150.0


async def test_go_client_and_access_control(tmp_path: Path) -> None:
    await download()
    program = tmp_path / "acl.test"
    await build_tests(program, "./acl")
    async with LocalCluster(tmp_path, nodes=1, settings=DENY) as cluster:
        await cluster.start_all()
        await cluster.wait_ready()
        address = cluster.nodes[0].local.http
        code, output = await run(_RUN_SECONDS, str(program), "-test.v", "-test.timeout=120s", QUORUMCA_ACL_NODE=address)
    print(output)
    assert code == 0, output
    sources = "\n".join(path.read_text() for path in (MODULE / "acl").glob("*_test.go"))
    names = re.findall(r"^func (Test\w+)\(", sources, re.MULTILINE)
    # What was skipped has shown nothing.
    assert sorted(re.findall(r"^--- PASS: (\w+) ", output, re.MULTILINE)) == sorted(names)
    assert len(names) > 10
