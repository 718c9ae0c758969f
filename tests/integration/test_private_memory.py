"""What is in the memory and the environment of real processes: root looks, who sees what the node's user must not."""

import base64
import os
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from tests.integration.key_search import KeySearch, stored_keys, stored_states
from tests.integration.memory import holds, keeper_of, workers_of
from tests.kit import pki
from tests.kit.real_cluster import LocalCluster, make_csr
from tests.kit.wait import eventually

pytestmark = pytest.mark.slow

PASSPHRASE = "correct horse battery staple, and more of it"
VARIABLE = "QUORUMCA_SEAL_PASSPHRASE"
SETTINGS: dict[str, dict[str, Any]] = {"limits": {"signing_workers": 1}}


def needles_of(search: KeySearch) -> list[bytes]:
    """Secret numbers as files have them, and as OpenSSL keeps them."""
    numbers = [number.to_bytes(size, "big") for number, size in search.numbers]
    return [*numbers, *(number[::-1] for number in numbers)]


def keys_that_open(data_dir: Path) -> list[bytes]:
    """The seal key, as it is and as its file has it, and the data key of the newest state."""
    text = (data_dir / "seal.key").read_text().strip().rpartition(":")[2]
    kek = base64.b64decode(text)
    *_, state = stored_states(data_dir)
    assert state.seal is not None
    wrapped = state.seal.wrapped_key
    return [kek, text.encode(), AESGCM(kek).decrypt(wrapped[:12], wrapped[12:], b"quorumca data key 1")]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can read the memory of these processes")
async def test_keys_are_in_the_processes_that_need_them_and_in_no_other(tmp_path: Path) -> None:
    async with LocalCluster(tmp_path, settings=SETTINGS) as cluster:
        await cluster.start_all()
        await cluster.wait_ready()
        leader = await cluster.leader()
        csr_pem, _ = make_csr(await cluster.service_uri())
        await cluster.sign(leader, csr_pem)
        # From the files of one that does not run: what to look for.
        stopped = next(node for node in cluster.nodes if node is not leader)
        await cluster.stop(stopped)
        (key,) = stored_keys(stopped.data_dir)
        needles = needles_of(KeySearch.of("the CA's key", key))
        *_, data_key = opening = keys_that_open(stopped.data_dir)
        cluster.start(stopped)
        await cluster.wait_ready()
        await cluster.sign(leader, csr_pem)
        (signing,) = workers_of(leader)
        assert holds(signing, needles), "the search would not find it where it is"
        assert not holds(signing, opening)
        others = [node for node in cluster.nodes if node is not leader]
        for node in others:
            assert (await cluster.ask(node, "GET", "/v1/agent/connect/ca/leaf/web")).status == 200
            assert not any(holds(pid, needles) for pid in (node.pid, keeper_of(node), *workers_of(node))), node.name
        for node in cluster.nodes:
            # The process with the ports, also the leader's, which has made the CA and leads it.
            assert not holds(node.pid, [*needles, *opening]), node.name
            assert holds(keeper_of(node), [data_key]), "the search would not find it where it is"
        moved = await cluster.ask(leader, "PUT", "/v1/operator/raft/transfer-leader", query={"id": others[0].name})
        assert moved.status == 200, moved
        await cluster.sign(leader, csr_pem)

        async def replaced() -> bool:
            return signing not in workers_of(leader) and len(workers_of(leader)) == 1

        await eventually("the processes that signed have ended", replaced)
        # Its keeper may have it in free memory: there nothing new is to be had by whoever has the data key.
        assert not any(holds(pid, needles) for pid in (leader.pid, *workers_of(leader)))
        (now_signing,) = workers_of(others[0])
        assert holds(now_signing, needles)
        assert not any(holds(pid, needles) for pid in (others[1].pid, *workers_of(others[1])))


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can read the memory of these processes")
async def test_passphrase_is_in_the_memory_of_the_keeper_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, PASSPHRASE)
    async with LocalCluster(tmp_path, nodes=1, settings={**SETTINGS, "seal": {"source": "passphrase"}}) as cluster:
        await cluster.start_all()
        await cluster.wait_ready()
        (node,) = cluster.nodes
        csr_pem, _ = make_csr(await cluster.service_uri())
        await cluster.sign(node, csr_pem)
        assert holds(keeper_of(node), [PASSPHRASE.encode()]), "the search would not find it where it is"
        assert not any(holds(pid, [PASSPHRASE.encode()]) for pid in (node.pid, *workers_of(node)))


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can read the memory of these processes")
async def test_key_in_a_nodes_file_is_not_kept_by_the_process_with_the_ports(tmp_path: Path) -> None:
    """Every node has the file, also those that never lead, and where it has no effect any more."""
    key = pki.key()
    pem = pki.key_pem(key)
    settings = {**SETTINGS, "connect": {"ca_config": {"private_key": pem}}}
    lines = [line.encode() for line in pem.splitlines() if not line.startswith("-")]
    async with LocalCluster(tmp_path, settings=settings) as cluster:
        await cluster.start_all()
        await cluster.wait_ready()
        csr_pem, _ = make_csr(await cluster.service_uri())
        for node in cluster.nodes:
            await cluster.sign(node, csr_pem)
        needles = [*needles_of(KeySearch.of("the CA's key", key)), *lines]

        async def forgotten() -> bool:  # what was read of the file is free, and used again at some time
            return not any(holds(node.pid, needles) for node in cluster.nodes)

        await eventually("no node's main process has it", forgotten)


async def test_passphrase_is_in_the_environment_of_no_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, PASSPHRASE)
    settings = {**SETTINGS, "seal": {"source": "passphrase"}}
    before = os.umask(0)
    try:
        async with LocalCluster(tmp_path, nodes=1, settings=settings) as cluster:
            await cluster.start_all()
            await cluster.wait_ready()
            (node,) = cluster.nodes
            csr_pem, _ = make_csr(await cluster.service_uri())
            await cluster.sign(node, csr_pem)
            for pid in (node.pid, keeper_of(node), *workers_of(node)):
                environment = Path(f"/proc/{pid}/environ").read_bytes()
                assert b"PATH=" in environment
                assert PASSPHRASE.encode() not in environment
            # And whatever the umask of who has started it: its files are for its user alone.
            for path in (node.data_dir, *node.data_dir.rglob("*")):
                assert path.stat().st_mode & 0o077 == 0, path
            await cluster.restart(node)
            await cluster.wait_ready()
            await cluster.sign(node, csr_pem)
    finally:
        os.umask(before)
