"""The CA's private key is nowhere but sealed; and without the right seal key a node does not run."""

import asyncio
import gzip
import signal
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import aiohttp
import psutil
import pytest

from cluster.seal.sources import write_key_file
from providers.pki import keys
from tests.integration.key_search import KeySearch, stored_keys
from tests.kit import pki
from tests.kit.real_cluster import LocalCluster, Node, make_csr
from tests.kit.wait import eventually

pytestmark = pytest.mark.slow

REFUSED_SECONDS = 20.0
ORPHAN_SECONDS = 5.0
_SIGNATURES = 300
#: Small, so that there are snapshots and more than one part of the log.
_SETTINGS: Mapping[str, Mapping[str, Any]] = {
    "raft": {"compact_bytes": 64 << 10, "keep_bytes": 0},
    "log": {"level": "debug"},
}


def ca_config(supplied: pki.PrivateKey | None) -> dict[str, Any]:
    """For the node file; with an operator's own key and root, if there is one."""
    if supplied is None:
        return {"csr_max_per_second": 0}
    now = int(time.time())
    root = pki.root_certificate(supplied, not_before=now - 60, not_after=now + pki.YEAR * 10)
    return {
        "csr_max_per_second": 0,
        "cluster_id": pki.CLUSTER_ID,
        "private_key": pki.key_pem(supplied),
        "root_cert": pki.pem(root),
    }


@pytest.mark.parametrize("supplied", [None, pki.key("rsa", 2048)], ids=["generated", "supplied"])
async def test_private_key_is_nowhere_in_clear(tmp_path: Path, supplied: pki.PrivateKey | None) -> None:
    refused = pki.key(number=9)
    settings = {**_SETTINGS, "connect": {"ca_config": ca_config(supplied)}}
    async with LocalCluster(tmp_path, settings=settings) as cluster:
        await cluster.start_all()
        await cluster.wait_ready()
        root_pem = (await cluster.roots(cluster.nodes[0]))["Roots"][0]["RootCert"]
        await _use(cluster, supplied, refused)
        seen = [(f"answer of {path}", body) async for path, body in _answers(cluster)]
        seen += list(_process_facts(cluster))
        # Not stopped in order: what a power failure leaves is what a thief finds.
        for node in cluster.nodes:
            await cluster.kill(node)
        files = [path for path in tmp_path.rglob("*") if path.is_file()]
        # Operators keep what they wrote themselves.
        files = [path for path in files if path.name != "config.toml"]
        assert {node.data_dir / "snapshot" for node in cluster.nodes} <= set(files)
        found = [key for node in cluster.nodes for key in stored_keys(node.data_dir)]
        # These are the real ones, or nothing would be shown by what follows.
        public = {pki.spki(key.public_key()) for key in found}
        assert public == {pki.spki(pki.load(root_pem).public_key())}
        if supplied is not None:
            assert public == {pki.spki(supplied.public_key())}
        searches = [KeySearch.of("the CA's key", found[0]), KeySearch.of("the refused key", refused)]
        for search in searches:
            assert search.found_in_files(files) == []
            assert [(what, forms) for what, data in seen if (forms := search.found_in(data))] == []
        # The search can find something, there too.
        planted = cluster.nodes[1].data_dir / "wal" / "planted"
        planted.write_bytes(b"x" * 99 + keys.to_der(found[0]))
        assert searches[0].found_in_files([*files, planted]) != []


async def _use(cluster: LocalCluster, supplied: pki.PrivateKey | None, refused: pki.PrivateKey) -> None:
    """Everything that has to do with the key: signing, configuring, refusing, another leader, a restart."""
    csr_pem, _ = make_csr(await cluster.service_uri())

    async def sign_through(node: Node) -> None:
        for _ in range(_SIGNATURES // len(cluster.nodes)):
            await cluster.sign(node, csr_pem)

    await asyncio.gather(*(sign_through(node) for node in cluster.nodes))
    kept: dict[str, Any] = {"LeafCertTTL": "71h", "CSRMaxPerSecond": 0}
    updates = [kept, {**kept, "LeafCertTTL": "70h"}]
    if supplied is not None:
        updates.append({**kept, "PrivateKey": pki.key_pem(supplied), "LeafCertTTL": "69h"})
    for config in updates:
        answer = await _configure(cluster, config)
        assert answer[0] == 200, answer
    for key_pem in (pki.key_pem(refused) + "broken", pki.key_pem(refused).replace("PRIVATE", "SECRET")):
        status, _ = await _configure(cluster, {**kept, "PrivateKey": key_pem, "PrivateKeyType": "none"})
        assert status in (400, 500)
    leader = await cluster.leader()
    successor = next(node for node in cluster.nodes if node is not leader)
    moved = await cluster.ask(leader, "POST", "/v1/operator/raft/transfer-leader", query={"id": successor.name})
    assert moved.status == 200
    await cluster.restart(leader)
    await cluster.wait_ready()
    await cluster.sign(successor, csr_pem)


async def _configure(cluster: LocalCluster, config: Mapping[str, object]) -> tuple[int, str]:
    body = {"Provider": "consul", "Config": config}
    answer = await cluster.ask(cluster.nodes[2], "PUT", "/v1/connect/ca/configuration", body)
    return answer.status, answer.text


async def _answers(cluster: LocalCluster) -> AsyncIterator[tuple[str, bytes]]:
    """Of every node, to every GET that the API's own description knows, in every form."""
    paths = (await cluster.ask(cluster.nodes[0], "GET", "/v1/openapi.json")).json()["paths"]
    certs = (await cluster.ask(cluster.nodes[0], "GET", "/v1/connect/ca/certs", query={"limit": "1"})).json()["Certs"]
    known = {"{serial}": certs[0]["SerialNumber"], "{service}": "web"}
    getters = [path for path, operations in paths.items() if "get" in operations]
    assert "/v1/agent/metrics" in getters
    async with aiohttp.ClientSession(trust_env=False) as session:
        for node in cluster.nodes:
            for path in getters:
                filled = path
                for name, value in known.items():
                    filled = filled.replace(name, value)
                for query in ("", "?pretty", "?stale", "?format=prometheus", "?pem=1"):
                    async with session.get(f"{node.url}{filled}{query}") as response:
                        body = await response.read()
                    yield f"{path}{query} of {node.name}", body
                    if body.startswith(b"\x1f\x8b"):
                        yield f"{path}{query} of {node.name}, unpacked", gzip.decompress(body)


def _process_facts(cluster: LocalCluster) -> Iterator[tuple[str, bytes]]:
    """What every user of the machine, or the same one, can read of a process."""
    for node in cluster.nodes:
        for process in (psutil.Process(node.pid), *psutil.Process(node.pid).children(recursive=True)):
            for name in ("cmdline", "environ"):
                # Workers may have made themselves unreadable, which is as good.
                with suppress(PermissionError):
                    yield f"{name} of {process.pid}", Path(f"/proc/{process.pid}/{name}").read_bytes()


# -- seal keys


async def _fails_to_run(cluster: LocalCluster, node: Node) -> str:
    """What it says when it ends by itself, with an error."""
    if not node.is_running:
        cluster.start(node)
    return await _ends(node)


async def _ends(node: Node) -> str:
    """By itself, with an error: what it says."""

    async def has_ended() -> bool | None:
        return not node.is_running or None

    await eventually(f"{node.name} ends", has_ended, REFUSED_SECONDS)
    assert node.started is not None
    assert node.started.process.returncode not in (0, None, -signal.SIGKILL)
    return node.started.last_words()


def _replace_seal_key(node: Node) -> None:
    (node.data_dir / "seal.key").unlink()
    write_key_file(node.data_dir / "seal.key")


async def test_node_without_the_right_seal_key_does_not_run(cluster: LocalCluster) -> None:
    """Neither with data that was sealed with another key, nor new; and the others go on."""
    kept, missing, other = cluster.nodes
    before = await cluster.roots(kept)
    right = (missing.data_dir / "seal.key").read_bytes()
    await cluster.stop(missing)
    (missing.data_dir / "seal.key").unlink()
    words = await _fails_to_run(cluster, missing)
    assert "seal key" in words
    assert "is missing" in words
    write_key_file(missing.data_dir / "seal.key")
    words = await _fails_to_run(cluster, missing)
    assert "wrong seal key" in words
    (missing.data_dir / "seal.key").write_text("no key at all")
    assert "is not a seal key" in await _fails_to_run(cluster, missing)
    (missing.data_dir / "seal.key").write_bytes(right)
    cluster.start(missing)
    await cluster.wait_ready()
    # A new node knows nothing of the cluster's seal before it has joined.
    newcomer = cluster.add()
    _replace_seal_key(newcomer)
    cluster.start(newcomer)
    peer = {"ID": newcomer.name, "Address": newcomer.local.raft, "RPC": newcomer.local.rpc}
    added = await cluster.ask(kept, "PUT", "/v1/operator/raft/peer", peer)
    assert added.status == 200, added
    words = await _fails_to_run(cluster, newcomer)
    assert "seal key" in words
    assert "is needed, and is not here" in words
    csr_pem, _ = make_csr(await cluster.service_uri())
    for node in (kept, missing, other):
        await cluster.sign(node, csr_pem)
        assert (await cluster.roots(node))["Roots"] == before["Roots"]


async def test_processes_of_a_killed_node_end(tmp_path: Path) -> None:
    async with LocalCluster(tmp_path, nodes=1, settings={"limits": {"signing_workers": 2}}) as cluster:
        await cluster.start_all()
        await cluster.wait_ready()
        (node,) = cluster.nodes
        processes = psutil.Process(node.pid).children(recursive=True)
        assert len(processes) == 1 + 2
        await cluster.kill(node)
        _, alive = psutil.wait_procs(processes, timeout=ORPHAN_SECONDS)
        assert alive == []


async def test_node_whose_keeper_ends_says_so_and_ends_too(cluster: LocalCluster) -> None:
    """Without it nothing can be opened any more, and the passphrase may have been nowhere else: the node's supervisor
    starts both again.
    """
    node, *others = cluster.nodes
    leader = await cluster.leader()
    (keeper,) = [
        process
        for process in psutil.Process(node.pid).children(recursive=True)
        if "cluster.seal.keeper_process" in process.cmdline()
    ]
    keeper.kill()
    words = await _ends(node)
    assert "the process that keeps the seal key has ended with status -9: start the node again" in words
    csr_pem, _ = make_csr(await cluster.service_uri())
    for other in others:
        await cluster.sign(other, csr_pem)
    cluster.start(node)
    await cluster.wait_ready()
    for each in (node, leader):
        await cluster.sign(each, csr_pem)


async def test_key_in_a_node_file_is_not_shown_when_the_file_is_wrong(tmp_path: Path) -> None:
    key = pki.key()
    settings: dict[str, dict[str, Any]] = {
        "connect": {"ca_config": {"private_key": pki.key_pem(key)}},
        "raft": {"heartbeat_ms": -1},
    }
    async with LocalCluster(tmp_path, nodes=1, settings=settings) as cluster:
        (node,) = cluster.nodes
        assert "heartbeat_ms" in await _fails_to_run(cluster, node)
        assert KeySearch.of("key", key).found_in(node.local.log.read_bytes()) == []
