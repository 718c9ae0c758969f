"""The kinds of harm, one function each: do it, wait for what must happen meanwhile, and leave the healing to the stage.

A function raises AssertionError when the cluster does not do what it must: go on with a majority, acknowledge nothing
without one, keep its leader through a flood, stop a node whose disk fails.
"""

import asyncio
import contextlib
import errno
import os
import re
import shutil
import signal
import subprocess
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

import aiohttp

from cluster.tls.certificates import Identity, load_ca, new_cert
from tests.chaos.hostile import hostile_member, hostile_stranger, poisoned_snapshot
from tests.chaos.launcher import Hurt
from tests.chaos.scene import HOLD_SECONDS, Fault, Scene
from tests.chaos.stage import Stage
from tests.chaos.unharmed import unharmed
from tests.kit.hoard import hoarding
from tests.kit.hostile_vault import MODES, HostileVault, hostile_vault
from tests.kit.real_cluster import Answer, Node, make_csr
from tests.kit.wait import eventually

_HOUR_SECONDS: Final = 3600.0
_BLOWS: Final = 12
_SMALL_DISK_BYTES: Final = 24 << 20
#: As the system says it, or SQLite.
_DISK_FULL: Final = "No space left on device|database or disk is full"
_FEW_FILES: Final = 256
_FLOOD_CONNECTIONS: Final = 300
_FLOOD_SECONDS: Final = 4.0
_FLOOD_CSR_RATE: Final = 50
_FLOOD_STATUSES: Final = frozenset((200, 429, 503))
_CONFIGURATION: Final = "/v1/connect/ca/configuration"
_HOSTILE_MODES: Final = 4
_HOSTILE_SECONDS: Final = 30.0
#: A write of the configuration waits for its turn, and then for its rotation; and giving that up waits for a backend.
_CHANGE_SECONDS: Final = 60.0
_HOSTILE_TEXT: Final = 5000


# -- processes that end


async def kill_leader(scene: Scene) -> None:
    leader = await scene.stage.leader()
    await scene.stage.kill([leader])
    await scene.workload.progress(scene.stage.others(leader))


async def kill_follower(scene: Scene) -> None:
    victim = await scene.follower()
    await scene.stage.kill([victim])
    await scene.workload.progress(scene.stage.others(victim))


async def kill_majority(scene: Scene) -> None:
    survivor = scene.rng.choice(scene.stage.nodes)
    await scene.stage.kill(scene.stage.others(survivor))
    await scene.nobody_signs()


async def kill_all(scene: Scene) -> None:
    await scene.stage.kill(scene.stage.nodes)


async def rolling_restart(scene: Scene) -> None:
    """In order, one after another: every node ends with exit code 0, and the others serve meanwhile."""
    stage = scene.stage
    for node in stage.nodes:
        stage.cluster.send(node, signal.SIGTERM)
        code = await stage.ended(node)
        assert code == 0, f"{node.name} ended with {code}"
        await scene.workload.progress(stage.others(node))
        stage.start(node)
        await stage.cluster.wait_ready()


# -- processes that stand still


async def pause_leader(scene: Scene) -> None:
    """Longer than the election time-out: a successor is there when the old leader goes on, still believing."""
    leader = await scene.stage.leader()
    others = scene.stage.others(leader)
    scene.stage.pause(leader)
    await scene.stage.leader_among(others)
    await scene.workload.progress(others)
    scene.stage.resume(leader)
    await scene.workload.progress(scene.stage.nodes)


async def pause_follower(scene: Scene) -> None:
    victim = await scene.follower()
    scene.stage.pause(victim)
    await asyncio.sleep(HOLD_SECONDS)
    await scene.workload.progress(scene.stage.others(victim))
    scene.stage.resume(victim)
    await scene.workload.progress(scene.stage.nodes)


# -- the network


async def partition_leader(scene: Scene) -> None:
    """The leader alone on one side, the majority on the other."""
    leader = await scene.stage.leader()
    others = scene.stage.others(leader)
    scene.stage.network.partition([leader.name], [node.name for node in others])
    await scene.stage.leader_among(others)
    await scene.workload.progress(others)
    await asyncio.sleep(HOLD_SECONDS)


async def partition_follower(scene: Scene) -> None:
    """A follower that was away does not depose the leader when it comes back (PreVote)."""
    stage = scene.stage
    leader = await stage.leader()
    victim = scene.rng.choice(stage.others(leader))
    term = await stage.term(leader)
    stage.network.partition([victim.name], [node.name for node in stage.others(victim)])
    await asyncio.sleep(HOLD_SECONDS)
    await scene.workload.progress(stage.others(victim))
    stage.network.heal()
    await scene.workload.progress(stage.nodes)
    assert await stage.term(leader) == term, f"{victim.name} has disturbed the term {term} of {leader.name}"


async def partition_all(scene: Scene) -> None:
    names = [node.name for node in scene.stage.nodes]
    for name in names:
        scene.stage.network.partition([name], [other for other in names if other != name])
    await asyncio.sleep(1.0)  # requests under way may still be answered by a leader that has heard a majority before
    await scene.nobody_signs()


async def one_way_from_leader(scene: Scene) -> None:
    """The leader hears everybody and reaches nobody."""
    leader = await scene.stage.leader()
    others = scene.stage.others(leader)
    for node in others:
        scene.stage.network.block(leader.name, node.name)
    await scene.stage.leader_among(others)
    await scene.workload.progress(others)


async def one_way_to_leader(scene: Scene) -> None:
    """The leader reaches everybody and hears nobody: it has to give up by itself."""
    leader = await scene.stage.leader()
    others = scene.stage.others(leader)
    for node in others:
        scene.stage.network.block(node.name, leader.name)
    await scene.stage.leader_among(others)
    await scene.workload.progress(others)


async def one_link(scene: Scene) -> None:
    """Two nodes do not reach each other, one of them the leader; the third reaches both. Somebody leads."""
    stage = scene.stage
    leader = await stage.leader()
    victim = scene.rng.choice(stage.others(leader))
    stage.network.partition([leader.name], [victim.name])
    await asyncio.sleep(HOLD_SECONDS)
    (middle,) = stage.others(leader, victim)
    await scene.workload.progress([middle])


async def slow_network(scene: Scene) -> None:
    scene.stage.network.spoil(delay=(0.02, 0.08))
    await asyncio.sleep(HOLD_SECONDS)
    await scene.workload.progress(scene.stage.nodes, 30.0)


async def lossy_network(scene: Scene) -> None:
    """Pieces arrive late, all the time, and connections end."""
    scene.stage.network.spoil(delay=(0.0, 0.01), loss=0.01, reset=0.002)
    await asyncio.sleep(2 * HOLD_SECONDS)
    await scene.workload.progress(scene.stage.nodes, 30.0)


# -- disks


async def full_disk(scene: Scene) -> None:
    """A node that cannot write its log ends; with room again it comes back. The others go on."""
    stage = scene.stage
    victim = scene.rng.choice(stage.nodes)
    async with _small_disk(scene, victim) as fill:
        fill()
        code = await stage.ended(victim, 60.0)
        assert code == 1, f"{victim.name} ended with {code}"
        _assert_logged(victim, _DISK_FULL)
        await scene.workload.progress(stage.others(victim))


@asynccontextmanager
async def _small_disk(scene: Scene, node: Node) -> AsyncIterator[Callable[[], None]]:
    """The node runs on a file system of its own, if this may be mounted; else its syncs fail as on a full one. Behind
    it the node is stopped, and its files are where they were.
    """
    stage, data = scene.stage, node.data_dir
    if not _can_mount(data):
        scene.notes["disk"] = "simulated"
        yield lambda: stage.hurt(node, Hurt(sync_errno=errno.ENOSPC))
        return
    scene.notes["disk"] = "tmpfs"
    kept = data.with_name("kept")
    stage.cluster.send(node, signal.SIGTERM)
    await stage.ended(node)
    shutil.copytree(data, kept)
    _mount(data)
    try:
        shutil.copytree(kept, data, dirs_exist_ok=True)
        stage.start(node)
        await stage.cluster.wait_ready()
        yield lambda: _fill(data / "ballast")
        (data / "ballast").unlink()
        stage.start(node)
        await stage.cluster.wait_ready()
        stage.cluster.send(node, signal.SIGTERM)
        assert await stage.ended(node) == 0
        shutil.rmtree(kept)
        shutil.copytree(data, kept)
    finally:
        if node.is_running:
            await stage.kill([node])
        subprocess.run(["umount", "--lazy", str(data)], check=True)
        shutil.rmtree(data)
        kept.rename(data)


def _can_mount(data: Path) -> bool:
    if os.geteuid() != 0 or shutil.which("mount") is None:
        return False
    probe = data.with_name("probe")
    probe.mkdir()
    try:
        _mount(probe)
        subprocess.run(["umount", str(probe)], check=True)
    except subprocess.CalledProcessError:
        return False
    finally:
        probe.rmdir()
    return True


def _mount(path: Path) -> None:
    options = f"size={_SMALL_DISK_BYTES},mode=0700"
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(path)], check=True, capture_output=True)


def _fill(path: Path) -> None:
    with contextlib.suppress(OSError), path.open("wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))


async def disk_error(scene: Scene) -> None:
    """What was not synced is not on the disk: the node ends rather than acknowledge it, or try again."""
    stage = scene.stage
    victim = await stage.leader() if scene.rng.random() < 0.5 else await scene.follower()
    stage.hurt(victim, Hurt(sync_errno=errno.EIO))
    code = await stage.ended(victim)
    assert code == 1, f"{victim.name} ended with {code}"
    _assert_logged(victim, "Input/output error")
    await scene.workload.progress(stage.others(victim))


async def slow_disk(scene: Scene) -> None:
    """Of one node. A leader with such a disk may stay or go; certificates are signed either way."""
    victim = scene.rng.choice(scene.stage.nodes)
    scene.stage.hurt(victim, Hurt(sync_seconds=0.3))
    await asyncio.sleep(HOLD_SECONDS)
    await scene.workload.progress(scene.stage.nodes, 30.0)


# -- clocks


async def clock_ahead(scene: Scene) -> None:
    await _wrong_clock(scene, await scene.stage.leader(), _HOUR_SECONDS)


async def clock_behind(scene: Scene) -> None:
    await _wrong_clock(scene, await scene.stage.leader(), -_HOUR_SECONDS)


async def clock_of_follower(scene: Scene) -> None:
    await _wrong_clock(scene, await scene.follower(), scene.rng.choice([-1, 1]) * _HOUR_SECONDS)


async def _wrong_clock(scene: Scene, node: Node, seconds: float) -> None:
    """Leadership and time-outs do not depend on the time of day: nobody is elected because of it."""
    term = await scene.stage.term(node)
    scene.stage.hurt(node, Hurt(clock_seconds=seconds))
    await asyncio.sleep(HOLD_SECONDS)
    await scene.workload.progress(scene.stage.nodes)
    assert await scene.stage.term(node) == term, f"the clock of {node.name} has ended term {term}"


# -- certificates of nodes


async def expired_certificate(scene: Scene) -> None:
    """A node whose certificate has expired gets nowhere, the others say why, and go on."""
    stage = scene.stage
    victim = scene.rng.choice(stage.nodes)
    stage.cluster.send(victim, signal.SIGTERM)
    await stage.ended(victim)
    others = stage.others(victim)
    starts = {node: node.local.log.stat().st_size for node in others}
    with _expired(stage.cluster.root, victim):
        stage.start(victim)

        async def reported() -> bool | None:
            logs = [node.local.log.read_bytes()[starts[node] :] for node in others]
            return all(b"certificate has expired" in log for log in logs) or None

        await eventually(f"the others report the certificate of {victim.name}", reported, 15.0)
        since = time.monotonic()
        await scene.workload.progress(others)
        await asyncio.sleep(1.0)
        signed = [one for one in scene.workload.record.signed if one.node == victim.name and one.invoked > since]
        assert not signed, f"{victim.name} got certificates with an expired certificate of its own"
        await stage.kill([victim])


@contextlib.contextmanager
def _expired(root: Path, node: Node) -> Iterator[None]:
    """The node has a certificate of yesterday's, and afterwards its own again."""
    ca_pem, ca_key_pem = (
        (root / "tls" / name).read_text() for name in ("consul-agent-ca.pem", "consul-agent-ca-key.pem")
    )
    now = datetime.now(UTC).replace(microsecond=0)
    issuer = load_ca(ca_pem, ca_key_pem, now)
    pair = new_cert(issuer, Identity("server", node=node.name), now - timedelta(days=2), 1)
    files = {node.local.directory / "cert.pem": pair.cert_pem, node.local.directory / "key.pem": pair.key_pem}
    valid = {path: path.read_text() for path in files}
    for path, text in files.items():
        path.write_text(text)
    try:
        yield
    finally:
        for path, text in valid.items():
            path.write_text(text)


# -- everything at once


async def storm(scene: Scene) -> None:
    """One blow upon the other, without healing in between; nothing is expected but that nothing goes wrong."""
    stage, rng = scene.stage, scene.rng
    for _ in range(_BLOWS):
        node, other = rng.sample(stage.nodes, 2)
        match rng.choice(["kill", "start", "pause", "resume", "block", "cut", "heal", "disk", "clock"]):
            case "kill" if node.is_running:
                await stage.kill([node])
            case "start" if not node.is_running:
                stage.start(node)
            case "pause" if node.is_running:
                stage.pause(node)
            case "resume" if node.is_running:
                stage.resume(node)
            case "block":
                stage.network.block(node.name, other.name)
            case "cut":
                stage.network.partition([node.name], [other.name])
            case "heal":
                stage.network.heal()
            case "disk":
                stage.hurt(node, Hurt(sync_seconds=rng.uniform(0.0, 0.2)))
            case "clock":
                stage.hurt(node, Hurt(clock_seconds=rng.uniform(-_HOUR_SECONDS, _HOUR_SECONDS)))
        await asyncio.sleep(rng.uniform(0.0, 1.2))


# -- clients


async def csr_flood(scene: Scene) -> None:
    """Hundreds of clients at once: nothing breaks, and leadership does not wander. Nodes, clients and whatever else
    runs share this machine's cores, so one election is excused, and noted.
    """
    stage = scene.stage
    leader = await stage.leader()
    term = await stage.term(leader)
    scene.workload.csr_rate = scene.rng.choice([0, _FLOOD_CSR_RATE])
    csr_pem, _ = make_csr(await stage.cluster.service_uri("flood"))
    statuses: Counter[int] = Counter()
    deadline = time.monotonic() + _FLOOD_SECONDS

    async def client(node: Node) -> None:
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=1), trust_env=False) as session:
            while time.monotonic() < deadline:
                async with session.put(f"{node.url}/v1/connect/ca/sign", json={"CSR": csr_pem}) as response:
                    await response.read()
                    statuses[response.status] += 1

    nodes = stage.nodes
    await asyncio.gather(*(client(nodes[k % len(nodes)]) for k in range(_FLOOD_CONNECTIONS)))
    scene.workload.csr_rate = 0
    scene.notes["flood"] = {str(status): count for status, count in sorted(statuses.items())}
    assert statuses[200], "nobody was served in the flood"
    scene.notes["elections"] = elections = await stage.term(leader) - term
    assert elections <= 1, f"{elections} elections in the flood"
    # Whom a leader is lost to while a request is under way gets to know that its outcome is not known.
    allowed = _FLOOD_STATUSES | {504} if elections else _FLOOD_STATUSES
    assert statuses.keys() <= allowed, f"the flood was answered with {dict(statuses)}"
    await scene.workload.progress(nodes)


async def hostile_backend(scene: Scene) -> None:
    """The CA is to move to a Vault that answers garbage, floods, drips, hangs or sends elsewhere: it is refused, or
    given up when an operator says so, in few words each time, and whoever signs goes on.
    """
    stage = scene.stage
    with hostile_vault() as vault:
        async with unharmed(scene):
            for number, mode in enumerate(scene.rng.sample(MODES, _HOSTILE_MODES)):
                vault.mode, vault.is_far = mode, scene.rng.random() < 0.5
                await _move_to(scene, vault, number)
                await scene.workload.progress(stage.nodes)
        scene.notes["hostile"] = dict(sorted(vault.answered.items()))
        assert vault.trapped == 0, "a token was sent to where a redirect pointed"
    for node in stage.nodes:
        lines = node.log_tail(2000).splitlines()
        assert max(map(len, lines)) < 2 * _HOSTILE_TEXT, f"{node.name} logs {max(map(len, lines))} characters"


async def _move_to(scene: Scene, vault: HostileVault, number: int) -> None:
    """Until it was asked for something: other changes are under way as well."""
    stage, mode = scene.stage, vault.mode
    config = {"Address": vault.address, "Token": "t", "RootPKIPath": f"r{number}", "IntermediatePKIPath": "i"}
    body = {"Provider": "vault", "Config": {**config, "CSRMaxPerSecond": 0}}
    node, deadline = scene.rng.choice(stage.nodes), time.monotonic() + _HOSTILE_SECONDS
    while not vault.answered[mode]:
        assert time.monotonic() < deadline, f"{mode}: nothing was asked of the Vault"
        answer = await _given_up(stage, node, body)
        assert answer.status >= 400, f"{mode}: {answer.status}"
        assert len(answer.text) < _HOSTILE_TEXT, f"{mode}: {answer.text[:2000]}"


async def _given_up(stage: Stage, node: Node, body: object) -> Answer:
    """The answer to this change of the CA, which is given up again and again until there is one."""
    asked = asyncio.ensure_future(stage.cluster.ask(node, "PUT", _CONFIGURATION, body, seconds=_CHANGE_SECONDS))
    while not asked.done():
        await asyncio.wait({asked}, timeout=1.0)
        if not asked.done():
            await stage.cluster.ask(
                node, "PUT", "/v1/connect/ca/rotation", {"Action": "abort"}, seconds=_CHANGE_SECONDS
            )
    return asked.result()


async def descriptor_exhaustion(scene: Scene) -> None:
    """Somebody holds hundreds of connections to each port of nodes that may have few files open: nobody ends or gives
    leadership away, and clients are served.
    """
    stage = scene.stage
    await _restart_all(stage, _FEW_FILES)
    leader = await stage.leader()
    term = await stage.term(leader)
    async with unharmed(scene), hoarding(stage.nodes, "127.0.0.1", persistent=False):
        await scene.workload.progress(stage.nodes, 30.0)
        await asyncio.sleep(HOLD_SECONDS)
        await scene.workload.progress(stage.nodes, 30.0)
        assert await stage.term(leader) == term, f"idle connections have ended term {term}"
    for node in stage.nodes:
        metrics = (await stage.local(node, "/v1/agent/metrics?format=prometheus")).text
        gave_way = re.findall(r'^quorumca_connections_gave_way_total{port="(\w+)"} [1-9]', metrics, re.MULTILINE)
        assert set(gave_way) == {"http", "raft", "rpc"}, f"{node.name} had room for all: {gave_way}"
    await _restart_all(stage)


async def _restart_all(stage: Stage, open_files: int | None = None) -> None:
    """In order, one after another."""
    for node in stage.nodes:
        stage.cluster.send(node, signal.SIGTERM)
        await stage.ended(node)
        stage.start(node, open_files)
        await stage.cluster.wait_ready()


def _assert_logged(node: Node, pattern: str) -> None:
    assert re.search(pattern, node.log_tail(200)), f"{node.name} does not say {pattern!r}:\n{node.log_tail(10)}"


FAULTS: Final[Mapping[str, Fault]] = {
    fault.__name__: fault
    for fault in (
        kill_leader,
        kill_follower,
        kill_majority,
        kill_all,
        rolling_restart,
        pause_leader,
        pause_follower,
        partition_leader,
        partition_follower,
        partition_all,
        one_way_from_leader,
        one_way_to_leader,
        one_link,
        slow_network,
        lossy_network,
        full_disk,
        disk_error,
        slow_disk,
        clock_ahead,
        clock_behind,
        clock_of_follower,
        expired_certificate,
        storm,
        csr_flood,
        hostile_backend,
        descriptor_exhaustion,
        hostile_member,
        hostile_stranger,
        poisoned_snapshot,
    )
}
