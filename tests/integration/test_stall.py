"""Leaders whose API stands still, and what is done to their terminals: leadership moves on, and they can be ended.

Nothing in the node is replaced for this. Its API is held up by what holds up a real one: a TLS key whose reader waits,
as on a network that is gone, and a terminal that is stopped with Ctrl-S.
"""

import asyncio
import os
import signal
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.integration.terminal import INTERRUPT, START_OUTPUT, STOP_OUTPUT, Terminal, started_in_terminal
from tests.kit.real_cluster import LocalCluster, Node, make_csr
from tests.kit.tls_files import ENCRYPTED_FORMS, encrypted
from tests.kit.wait import eventually

pytestmark = [pytest.mark.slow, pytest.mark.alone]

MOVE_SECONDS = 3.0
DEADLINE_SECONDS = 30.0
#: Several times as long as anybody waits before an election.
_QUIET_SECONDS = 4.0
_JSON_LOG = {"log": {"format": "json"}}


class HeldFile:
    """A file that whoever reads it waits for."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._content = path.read_bytes()
        path.unlink()
        os.mkfifo(path)

    def release(self) -> None:
        """It is as it was, and whoever waits reads nothing more."""
        writer = os.open(self._path, os.O_RDWR)
        replace(self._path, self._content)
        os.close(writer)


@contextmanager
def api_held_up(cluster: LocalCluster, node: Node) -> Iterator[None]:
    """It takes its TLS files again, and waits for one of them."""
    held = HeldFile(key_of(node))
    cluster.send(node, signal.SIGHUP)
    try:
        yield
    finally:
        held.release()


def key_of(node: Node) -> Path:
    return node.local.directory / "key.pem"


def replace(path: Path, content: bytes) -> None:
    draft = path.with_name("draft")
    draft.write_bytes(content)
    draft.chmod(0o600)
    os.replace(draft, path)


async def logged(node: Node, text: str, seconds: float = DEADLINE_SECONDS) -> None:
    async def look() -> bool | None:
        return text in node.log_tail(1000) or None

    await eventually(f"{node.name} logs {text}", look, seconds)


async def leader_among(cluster: LocalCluster, nodes: Sequence[Node], seconds: float = DEADLINE_SECONDS) -> Node:
    """The one of these that all of them take for the leader."""

    async def agreed() -> Node | None:
        addresses = {(await cluster.ask(node, "GET", "/v1/status/leader")).json() for node in nodes}
        return next((node for node in nodes if {node.local.raft} == addresses), None)

    return await eventually("these agree on a leader among them", agreed, seconds)


async def assert_signs(cluster: LocalCluster, nodes: Sequence[Node], csr_pem: str) -> None:
    for cert in await asyncio.gather(*(cluster.sign(node, csr_pem) for node in nodes)):
        assert cert["CertPEM"]


async def has_ended(cluster: LocalCluster, node: Node) -> int:
    """The exit code."""

    async def look() -> bool | None:
        return not node.is_running or None

    await eventually(f"{node.name} ends", look, DEADLINE_SECONDS)
    assert node.started is not None
    return int(node.started.process.returncode)


async def lead(cluster: LocalCluster, node: Node) -> None:
    if await cluster.leader() is node:
        return
    moved = await cluster.ask(node, "POST", "/v1/operator/raft/transfer-leader", query={"id": node.name})
    assert moved.status == 200, moved.text
    assert await cluster.leader() is node


async def test_leader_whose_api_stalls_is_replaced_and_follows_until_it_is_well(tmp_path: Path) -> None:
    async with LocalCluster(tmp_path, settings=_JSON_LOG) as cluster:
        await cluster.start_all()
        await cluster.wait_ready()
        csr_pem, _ = make_csr(await cluster.service_uri())
        leader = await cluster.leader()
        others = [node for node in cluster.nodes if node is not leader]
        with api_held_up(cluster, leader):
            begin = time.monotonic()
            await assert_signs(cluster, others, csr_pem)
            assert time.monotonic() - begin < MOVE_SECONDS
            second = await leader_among(cluster, others)
            await logged(leader, "leader.gives_way")
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(_QUIET_SECONDS):
                    await cluster.ask(leader, "GET", "/v1/status/leader")
            assert await leader_among(cluster, others) is second
            # Its vote, and its copy of what is signed, are needed now, and it gives them.
            assert await cluster.stop(second) == 0
            third = next(node for node in others if node is not second)
            await assert_signs(cluster, [third], csr_pem)
            cluster.start(second)
            await cluster.wait_ready(nodes=others)
        await logged(leader, "api.turns_again")
        await cluster.wait_ready()
        metrics = await cluster.ask(leader, "GET", "/v1/agent/metrics", query={"format": "prometheus"})
        assert "quorumca_api_stalls 1.0" in metrics.text.splitlines()
        assert await cluster.leader() is third
        await assert_signs(cluster, cluster.nodes, csr_pem)
        await cluster.wait_same_digest()
        await lead(cluster, leader)
        await assert_signs(cluster, cluster.nodes, csr_pem)
        assert await cluster.stop(leader) == 0


async def test_stalled_node_that_is_asked_to_end_does(tmp_path: Path) -> None:
    async with LocalCluster(tmp_path, settings=_JSON_LOG) as cluster:
        await cluster.start_all()
        await cluster.wait_ready()
        leader = await cluster.leader()
        with api_held_up(cluster, leader):
            await logged(leader, "api.stalled")
            assert await cluster.stop(leader) == 1
        assert "asked to end by SIGTERM, and the API has stood still for" in leader.log_tail()
        cluster.start(leader)
        await cluster.wait_ready()
        await cluster.wait_same_digest()


async def test_nodes_whose_start_does_not_come_to_an_end_do_not_lead(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They wait for a key of the API, and would campaign long before the one that has started."""
    async with LocalCluster(tmp_path, settings=_JSON_LOG) as cluster:
        well, *waiting = cluster.nodes
        for node in waiting:
            cert, key = node.local.directory / "cert.pem", node.local.directory / "http.key"
            os.mkfifo(key)
            config = node.local.config
            config.write_text(config.read_text().replace("[http]", f'[http]\ntls_cert = "{cert}"\ntls_key = "{key}"'))
            cluster.start(node)
        monkeypatch.setenv("QUORUMCA_RAFT__ELECTION_TIMEOUT_MIN_MS", "2000")
        monkeypatch.setenv("QUORUMCA_RAFT__ELECTION_TIMEOUT_MAX_MS", "3000")
        cluster.start(well)
        await cluster.wait_ready(nodes=[well])
        await assert_signs(cluster, [well], make_csr(await cluster.service_uri())[0])
        for node in waiting:
            assert await cluster.stop(node) == 1


# -- in a terminal


@contextmanager
def in_terminal(cluster: LocalCluster, node: Node) -> Iterator[Terminal]:
    """It runs in one, the others without."""
    with started_in_terminal(node) as terminal:
        for other in cluster.nodes:
            if other is not node:
                cluster.start(other)
        yield terminal


async def test_key_under_a_passphrase_is_refused_and_nobody_is_asked_for_it(tmp_path: Path) -> None:
    async with LocalCluster(tmp_path, settings=_JSON_LOG) as cluster:
        node = cluster.nodes[0]
        with in_terminal(cluster, node) as terminal:
            await cluster.wait_ready()
            csr_pem, _ = make_csr(await cluster.service_uri())
            await lead(cluster, node)
            key = key_of(node)
            plain = key.read_bytes()
            for count, form in enumerate(ENCRYPTED_FORMS, 1):
                replace(key, encrypted(plain, form))
                cluster.send(node, signal.SIGHUP)
                await eventually("it is refused", shown(terminal, "tls.reload_failed", count), DEADLINE_SECONDS)
                assert terminal.text.count(f"tls.key_file {key} is encrypted") == count
                await assert_signs(cluster, cluster.nodes, csr_pem)
            assert await cluster.leader() is node
            replace(key, plain)
            cluster.send(node, signal.SIGHUP)
            await eventually("it is taken", shown(terminal, "tls.reloaded"), DEADLINE_SECONDS)
            await assert_signs(cluster, cluster.nodes, csr_pem)
            assert await cluster.stop(node) == 0
            assert "pass phrase" not in terminal.text, "OpenSSL has asked for it"
            assert "api.stalled" not in terminal.text


async def test_node_does_not_start_with_a_key_under_a_passphrase_and_says_so(tmp_path: Path) -> None:
    async with LocalCluster(tmp_path, nodes=1) as cluster:
        (node,) = cluster.nodes
        key = key_of(node)
        replace(key, encrypted(key.read_bytes(), "pkcs8"))
        with started_in_terminal(node) as terminal:
            assert await has_ended(cluster, node) == 1
            terminal.join()
            assert f"quorumca: tls.key_file {key} is encrypted: Quorum CA takes keys without" in terminal.text
            assert "pass phrase" not in terminal.text, "OpenSSL has asked for it"


async def test_leader_in_a_terminal_that_is_stopped_is_replaced_and_can_be_ended(tmp_path: Path) -> None:
    """It waits at the next thing it has to say, and its Raft, too, as soon as that has something to say."""
    async with LocalCluster(tmp_path, settings=_JSON_LOG) as cluster:
        node, *others = cluster.nodes
        with in_terminal(cluster, node) as terminal:
            await cluster.wait_ready()
            csr_pem, _ = make_csr(await cluster.service_uri())
            await lead(cluster, node)
            terminal.press(STOP_OUTPUT)
            begin = time.monotonic()
            await assert_signs(cluster, others, csr_pem)
            assert time.monotonic() - begin < MOVE_SECONDS
            await leader_among(cluster, others)
            terminal.press(START_OUTPUT)
            await cluster.wait_ready()
            await cluster.wait_same_digest()
            await assert_signs(cluster, cluster.nodes, csr_pem)
            await lead(cluster, node)
            terminal.press(STOP_OUTPUT)
            await assert_signs(cluster, others, csr_pem)
            assert await cluster.stop(node) == 1


async def test_ctrl_c_at_the_terminal_ends_a_leader_in_order(tmp_path: Path) -> None:
    async with LocalCluster(tmp_path, settings=_JSON_LOG) as cluster:
        node, *others = cluster.nodes
        with in_terminal(cluster, node) as terminal:
            await cluster.wait_ready()
            csr_pem, _ = make_csr(await cluster.service_uri())
            await lead(cluster, node)
            terminal.press(INTERRUPT)
            begin = time.monotonic()
            await assert_signs(cluster, others, csr_pem)
            assert time.monotonic() - begin < MOVE_SECONDS
            assert await has_ended(cluster, node) == 0
            terminal.join()
            assert "node.stopped" in terminal.text


def shown(terminal: Terminal, text: str, count: int = 1) -> Callable[[], Awaitable[bool | None]]:
    async def look() -> bool | None:
        return terminal.text.count(text) >= count or None

    return look
