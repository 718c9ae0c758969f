"""The first token from a file, on real nodes: it is there by itself, once, and outlives the file and every leader."""

import asyncio
import uuid
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from tests.kit.real_cluster import LocalCluster, Node
from tests.kit.wait import eventually

pytestmark = [pytest.mark.slow, pytest.mark.asyncio(loop_scope="module")]

SECRET = str(uuid.uuid4())


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def cluster(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[LocalCluster]:
    root = tmp_path_factory.mktemp("first")
    file = root / "management.token"
    file.write_text(SECRET + "\n")
    file.chmod(0o600)
    acl = {"default_policy": "deny", "initial_management_file": str(file), "agent_token_file": str(file)}
    async with LocalCluster(root, settings={"acl": acl, "limits": {"signing_workers": 1}}) as made:
        await made.start_all()
        # Whoever tries to be faster than the cluster itself is refused all the time.
        answers: list[int] = []
        while not answers or answers[-1] in (0, 503):
            answers.append(await bootstrap(made, made.nodes[len(answers) % 3]))
            await asyncio.sleep(0.02)
        assert set(answers) <= {0, 403, 503}
        await made.wait_ready()
        await eventually("the first token is there", lambda: is_good(made, made.nodes[0]))
        yield made


async def bootstrap(cluster: LocalCluster, node: Node) -> int:
    """The status; 0 without an answer."""
    try:
        return (await cluster.ask(node, "PUT", "/v1/acl/bootstrap")).status
    except OSError:
        return 0


async def is_good(cluster: LocalCluster, node: Node) -> bool:
    headers = {"X-Consul-Token": SECRET}
    answer = await cluster.ask(node, "GET", "/v1/acl/tokens", headers=headers)
    if answer.status != 200:
        return False
    made = [token for token in answer.json() if token["Description"] == "Initial Management Token"]
    assert len(made) == 1
    return True


async def test_it_is_good_on_every_node_and_nobody_makes_another(cluster: LocalCluster) -> None:
    for node in cluster.nodes:
        assert await is_good(cluster, node)
        assert (await cluster.ask(node, "GET", "/v1/acl/tokens")).status == 403
        refused = await cluster.ask(node, "PUT", "/v1/acl/bootstrap", {"BootstrapSecret": str(uuid.uuid4())})
        assert refused.status == 403
        assert "ACL bootstrap no longer allowed (reset index: " in refused.text


async def test_it_outlives_its_file_and_every_leader(cluster: LocalCluster) -> None:
    leader = await cluster.leader()
    await cluster.kill(leader)
    assert await eventually("another leads", lambda: is_good(cluster, next(n for n in cluster.nodes if n.is_running)))
    config = leader.local.config
    file = Path(config.read_text().split('initial_management_file = "')[1].split('"')[0])
    for node in cluster.nodes:
        text = node.local.config.read_text()
        node.local.config.write_text("".join(line for line in text.splitlines(True) if "agent_token_file" not in line))
    file.unlink()
    for node in cluster.nodes:
        await cluster.restart(node)
        await cluster.wait_ready()
    for node in cluster.nodes:
        assert await is_good(cluster, node)
        log = node.local.log.read_text()
        assert "acl.initial_management_failed" not in log
        assert SECRET not in log


async def test_its_secret_is_in_no_other_file(cluster: LocalCluster) -> None:
    for node in cluster.nodes:
        for path in node.local.directory.rglob("*"):
            assert not path.is_file() or SECRET.encode() not in path.read_bytes(), path
