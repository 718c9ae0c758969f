"""Changes to the servers of a real cluster, as an operator makes them, and what can be seen of them."""

import asyncio
import json
import os
import shutil
import sys
import time
from collections.abc import Mapping
from typing import Any

from tests.kit.real_cluster import Answer, LocalCluster, Node
from tests.kit.wait import eventually

PEER = "/v1/operator/raft/peer"
#: From the start of an empty node to its vote, on a machine that is busy.
JOIN_SECONDS = 60.0
_CONFIGURATION = "/v1/operator/raft/configuration"
_SEAL_KEY = "seal.key"
_SAMPLE_SECONDS = 0.1


def peer_of(node: Node) -> dict[str, str]:
    """The body that adds it."""
    return {"ID": node.name, "Address": node.local.raft, "RPC": node.local.rpc}


async def add_peer(cluster: LocalCluster, via: Node, node: Node) -> Answer:
    return await cluster.ask(via, "PUT", PEER, peer_of(node))


async def remove_peer(cluster: LocalCluster, via: Node, node: Node) -> Answer:
    return await cluster.ask(via, "DELETE", PEER, query={"id": node.name})


async def operator_raft(via: Node, *arguments: str) -> str:
    """`quorumca operator raft` with these arguments, which must succeed; what it says."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-P", "-m", "cluster", "operator", "raft", *arguments),
        env={**os.environ, "QUORUMCA_HTTP_ADDR": via.local.http},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    said, _ = await process.communicate()
    assert process.returncode == 0, said.decode()
    return said.decode()


async def voters(cluster: LocalCluster, via: Node) -> dict[str, bool]:
    """Every server, and whether it votes, as the leader says."""
    servers = (await cluster.ask(via, "GET", _CONFIGURATION)).json()["Servers"]
    return {server["ID"]: server["Voter"] for server in servers}


async def wait_until_voting(cluster: LocalCluster, via: Node, node: Node) -> None:
    async def votes() -> bool | None:
        return (await voters(cluster, via)).get(node.name) or None

    await eventually(f"{node.name} votes", votes, JOIN_SECONDS)
    await cluster.wait_ready(JOIN_SECONDS, [node])


async def join(cluster: LocalCluster, via: Node) -> Node:
    """One more node, which votes and serves."""
    node = cluster.add()
    assert (await add_peer(cluster, via, node)).status == 200
    cluster.start(node)
    await wait_until_voting(cluster, via, node)
    return node


async def term_of(cluster: LocalCluster, node: Node) -> int:
    stats = (await cluster.ask(node, "GET", "/v1/agent/self")).json()["Stats"]
    return int(stats["raft"]["term"])


async def assert_undisturbed(cluster: LocalCluster, seconds: float) -> None:
    """All that time each server has the same leader in the same term."""
    leader = await cluster.leader()
    term = await term_of(cluster, leader)
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        for node in cluster.nodes:
            seen = (await cluster.ask(node, "GET", "/v1/status/leader")).json()
            assert (seen, await term_of(cluster, node)) == (leader.local.raft, term), f"{node.name} had an election"
        await asyncio.sleep(_SAMPLE_SECONDS)


async def assert_out_of_it(cluster: LocalCluster, node: Node, csr_pem: str) -> None:
    """A former server signs nothing, and does not pass off what it remembers as what is."""

    async def is_up() -> bool | None:
        return (await cluster.ask(node, "GET", "/v1/agent/self")).status == 200 or None

    await eventually(f"{node.name} is up", is_up, JOIN_SECONDS)
    paths = ("/v1/connect/ca/roots", "/v1/connect/ca/configuration", _CONFIGURATION)
    answers = await asyncio.gather(
        cluster.ask(node, "PUT", "/v1/connect/ca/sign", {"CSR": csr_pem}),
        *(cluster.ask(node, "GET", path) for path in paths),
        *(cluster.ask(node, "GET", path, query={"consistent": ""}) for path in paths),
    )
    for answer in answers:
        assert answer.status in (500, 503), answer
        assert "No cluster leader" in answer.text, answer


def wipe(node: Node) -> None:
    """As a disk that was replaced, except for the key that every node is given."""
    for path in node.data_dir.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        elif path.name != _SEAL_KEY:
            path.unlink()


def events(node: Node, name: str) -> list[Mapping[str, Any]]:
    """What it has logged under this name, of all its runs."""
    lines = node.local.log.read_text(errors="replace").splitlines()
    found = (json.loads(line) for line in lines if line.startswith("{") and line.endswith("}"))
    return [event for event in found if event["event"] == name]
