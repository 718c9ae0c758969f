"""Nothing that arrives stops a cluster: what ended every node once is sent to real ones.

And the way out, should there be an entry after all that no node can apply.
"""

import asyncio
import json
import subprocess
import sys
import urllib.request
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import aiohttp
import msgpack
import pytest

from cluster.api.backups import Meta
from cluster.backup import file as backup
from cluster.raft import codec
from cluster.raft.disk import RealDisk
from cluster.raft.inspection import read_entries
from cluster.raft.journal import Journal
from cluster.raft.macs import FileMacs
from cluster.rpc.operation import VERSION_HEADER
from cluster.seal.disk_key import DiskKeyFile
from cluster.seal.sealer import Sealer
from cluster.seal.sources import FileKey
from cluster.tls.contexts import NodeTls, TlsFiles
from fsm.codec import dump_state
from fsm.fields import LAST_SECOND
from fsm.state import State
from tests.kit import samples
from tests.kit.macs import mac_with
from tests.kit.real_cluster import LocalCluster, Node, make_csr
from tests.kit.wait import until

pytestmark = [pytest.mark.slow, pytest.mark.asyncio]

SERIAL = (1 << 127).to_bytes(16, "big")
ROW = [SERIAL, 1, "web", "spiffe://x", b"h" * 32, 0, 1, "me", b""]


def _row(position: int, value: object) -> list[object]:
    return [*ROW[:position], value, *ROW[position + 1 :]]


class Member:
    """Somebody who has the certificate and key of a server, and sends the leader what no server sends."""

    def __init__(self, cluster: LocalCluster, leader: Node) -> None:
        own = next(node for node in cluster.nodes if node is not leader)
        files = TlsFiles(*(str(path) for path in _tls_files(cluster, own)))
        self._tls = NodeTls(files, "dc1", "consul")
        self._leader = leader

    async def post(self, operation: str, *requests: object, version: int = 2) -> list[Any]:
        """The outcomes: an error or a result for each."""
        body = msgpack.packb([5000, list(requests)], unicode_errors="surrogatepass")
        connector = aiohttp.TCPConnector(ssl=self._tls.client_context, force_close=True)
        async with (
            aiohttp.ClientSession(connector=connector) as session,
            session.post(
                f"https://{self._leader.local.rpc}/rpc/{operation}",
                data=body,
                headers={VERSION_HEADER: str(version)},
                server_hostname=self._tls.server_name(self._leader.name),
            ) as response,
        ):
            assert response.status == 200, await response.text()
            return list(msgpack.unpackb(await response.read()))


def _tls_files(cluster: LocalCluster, node: Node) -> Iterable[Path]:
    return (
        cluster.root / "tls" / "consul-agent-ca.pem",
        node.local.directory / "cert.pem",
        node.local.directory / "key.pem",
    )


async def _signs(cluster: LocalCluster, node: Node) -> None:
    csr_pem, _ = make_csr(await cluster.service_uri())
    assert (await cluster.sign(node, csr_pem))["SerialNumber"]


async def _is_well(cluster: LocalCluster, pids: dict[str, int], leader: Node) -> None:
    assert {node.name: node.pid for node in cluster.nodes if node.is_running} == pids
    assert await cluster.leader() is leader
    for node in cluster.nodes:
        await _signs(cluster, node)
        listed = await cluster.ask(node, "GET", "/v1/connect/ca/certs", query={"limit": "1000"})
        assert listed.status == 200, listed.text
    for node in cluster.nodes:
        log = node.local.log.read_text()
        assert "Traceback" not in log
        assert "node.failed" not in log


def _snapshot(path: Path, state: State, *rows: tuple[Any, ...]) -> bytes:
    meta = Meta(1, 5, 9, samples.NOW, "dc1", "a", "x.consul", "aa", 1, 0, "file", "0123456789abcdef")
    backup.write(path, meta, state, mac_with(b"m" * 32), lambda after: [row for row in rows if row[0] > after])
    return path.read_bytes()


async def _refuses_to_restore(member: Member, leader: Node, directory: Path) -> None:
    """In either form, by force or not, with whatever somebody may put in the place of the proof."""
    path = directory / "own.tgz"
    path.write_bytes(await asyncio.to_thread(_saved_by, leader))
    saved = backup.read(path)
    state = dump_state(saved.state)
    [[error, _]] = await member.post("restore_ca", [state])
    assert "through a node of this release" in error[1]
    for is_forced in (False, True):
        for proof in (b"", bytes(32), bytes.fromhex(saved.mac)):
            for operation in ("restore_checked", "restore_judged"):
                [[error, _]] = await member.post(operation, [state, saved.sums, saved.mac, is_forced, 1, proof])
                assert "does not prove" in error[1]
    # Rows without fault, for the CA as it is.
    [[error, _]] = await member.post("restore_rows", [b"k" * 20, [ROW]])
    assert "through a node of this release" in error[1]
    for proof in (b"", bytes(32)):
        request = [b"k" * 20, [ROW], saved.state.trust_domain, saved.state.ca_index, proof]
        [[error, _]] = await member.post("restore_proven_rows", request)
        assert "does not prove" in error[1]


def _saved_by(node: Node) -> bytes:
    with urllib.request.urlopen(f"{node.url}/v1/snapshot", timeout=20) as answer:
        return bytes(answer.read())


async def test_what_ended_every_node_ends_none(cluster: LocalCluster, tmp_path: Path) -> None:
    leader = await cluster.leader()
    pids = {node.name: node.pid for node in cluster.nodes}
    member = Member(cluster, leader)
    csr_pem, _ = make_csr(await cluster.service_uri())
    csr: Any = csr_pem
    roots_before = await cluster.roots(leader)

    # A number as requester, a serial of one byte, a requester of 300 KB, text that is none.
    for requests in (
        [csr, SERIAL, 7],
        [csr, b"\x01", "me"],
        [csr, SERIAL, "x" * 300_000],
        [csr, SERIAL, "\ud800"],
        [7, SERIAL, "me"],
    ):
        for version in (1, 2):
            [[error, result]] = await member.post("sign", requests, version=version)
            assert error is not None
            assert result is None

    # Rows that SQLite, datetime or a reader of kinds cannot take.
    for bad in (
        *(_row(6, number) for number in (1 << 63, (1 << 64) - 1, LAST_SECOND + 1, -(1 << 63))),
        *(_row(1, number) for number in (99, 0, 1 << 62)),
        *(_row(7, text) for text in ("x" * 300_000, 7)),
        _row(0, b""),
    ):
        for operation, rest in (("restore_rows", []), ("restore_proven_rows", ["x.consul", 1, bytes(32)])):
            [[error, _]] = await member.post(operation, [b"k" * 20, [ROW, bad], *rest])
            assert error is not None

    # States: a configuration that is none, numbers out of range, certificates that are none.
    full = samples.full_state()
    assert full.config is not None
    for state in (
        b"",
        b"\xc1",
        b"\x91" * 4000,
        dump_state(replace(full, config=replace(full.config, config_json="{"))),
        dump_state(replace(full, tidied_before=1 << 63)),
        dump_state(replace(full, seal=None)),
        dump_state(State()),
    ):
        [[error, _]] = await member.post("restore_ca", [state])
        assert error is not None
    # One that is sound and of this cluster, as somebody sends it who has a server's TLS key and no more.
    await _refuses_to_restore(member, leader, tmp_path)
    for config in ("{", "[" * 20_000, '{"LeafCertTTL":"\\ud800"}', '{"LeafCertTTL":1e999}'):
        [[error, _]] = await member.post("configure", ["consul", config, None, False, 0, False, 0, b"r" * 16, 0, False])
        assert error is not None

    # The same by way of PUT snapshot, to every node.
    good = (1, SERIAL, 1, "web", "spiffe://x", b"k" * 20, b"h" * 32, 0, 1, "me", None, 1)
    for number, (saved, row) in enumerate(
        (
            (full, (*good[:8], 1 << 63, *good[9:])),
            (full, (*good[:2], 99, *good[3:])),
            (replace(full, config=replace(full.config, config_json="{")), good),
        )
    ):
        data = _snapshot(tmp_path / f"{number}.tgz", saved, row)
        for node in cluster.nodes:
            answer = await cluster.ask(node, "PUT", "/v1/snapshot", data)
            assert 400 <= answer.status < 500, answer.text

    await _is_well(cluster, pids, leader)
    assert await cluster.roots(leader) == roots_before
    digest = await cluster.wait_same_digest()
    for node in cluster.nodes:
        await cluster.restart(node)
        await cluster.wait_ready()
    assert (await cluster.wait_same_digest())["LedgerDigest"] == digest["LedgerDigest"]


# -- an entry that no node of this release can apply


def _append(node: Node, command: bytes) -> int:
    """To the log of a node that does not run, as the node itself would write it; the entry's index."""
    last = read_entries(node.data_dir)[-1]
    key = DiskKeyFile(node.data_dir, node.name, Sealer(FileKey(node.data_dir / "seal.key"))).open().key
    journal = Journal(RealDisk(), str(node.data_dir / "wal"), macs=FileMacs(key))
    journal.append(codec.pack_batch(1, 1, [command]), last.log_index + 1, last.term)
    journal.sync()
    journal.close()
    return last.log_index + 1


def _skip(node: Node, index: int) -> subprocess.CompletedProcess[str]:
    command = ["operator", "raft", "skip-entry", "-data-dir", str(node.data_dir), "-index", str(index)]
    return subprocess.run(
        [sys.executable, "-P", "-m", "cluster", *command], capture_output=True, text=True, timeout=60, check=False
    )


async def test_entry_that_ends_every_node_is_skipped_by_the_operator(cluster: LocalCluster) -> None:
    await cluster.wait_settled()
    for node in cluster.nodes:
        await _signs(cluster, node)
    await cluster.wait_same_digest()
    refused = await asyncio.to_thread(_skip, cluster.nodes[0], 5)
    assert (refused.returncode, "a node runs on" in refused.stderr) == (1, True)
    for node in cluster.nodes:
        await cluster.kill(node)
    indexes = {_append(node, msgpack.packb([99, 7, []])) for node in cluster.nodes}
    [index] = indexes  # all had the same log

    for node in cluster.nodes:
        cluster.start(node)
    # Two of three elect a leader, which ends them; the third may be left waiting.
    await until(lambda: sum(not node.is_running for node in cluster.nodes) >= 2, "the entry ends the nodes", 60)
    for node in cluster.nodes:
        if node.is_running:
            await cluster.kill(node)
    logs = [node.local.log.read_text() for node in cluster.nodes]
    assert sum("is of a newer release" in log for log in logs) >= 2
    assert sum('"event":"entry.failed"' in log and f'"log_index":{index},' in log for log in logs) >= 2

    marks = []
    for node in cluster.nodes:
        done = await asyncio.to_thread(_skip, node, index)
        assert done.returncode == 0, done.stderr
        marks.append(json.loads((node.data_dir / "skipped-entries.json").read_text())["entries"])
    assert marks[0] == marks[1] == marks[2]
    for node in cluster.nodes:
        cluster.start(node)
    await cluster.wait_ready()
    for node in cluster.nodes:
        await _signs(cluster, node)
    before = await cluster.wait_same_digest()
    for node in cluster.nodes:  # and once more: it is passed over at each start
        await cluster.restart(node)
        await cluster.wait_ready()
    assert (await cluster.wait_same_digest())["StateDigest"] == before["StateDigest"]
