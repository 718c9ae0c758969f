"""Saving and restoring a CA: whole, checked first, and useless without the seal key."""

import gzip
import io
import tarfile
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from cluster.backup import file as backup
from cluster.backup.file import SnapshotInvalid
from cluster.backup.restore import Snapshots
from cluster.base.errors import Refused
from cluster.rpc.operation import A, Operation, Q
from cluster.signing.serials import new_serial
from providers.pki.serials import serial_bytes
from tests.kit.wait import until
from tests.unit.cluster_core.fake_cluster import FakeCluster, Node, bootstrapped, running


class LocalForwarder:
    """The leader is this node: its operations are run here."""

    def __init__(self, node: Node) -> None:
        self._node = node

    async def call(self, operation: Operation[Q, A], request: Q) -> A:
        return await self._node.operations.run(operation, request)


def snapshots(node: Node) -> Snapshots:
    forwarder: Any = LocalForwarder(node)
    return Snapshots(node.replica.real, forwarder, node.sealer, node.cluster.ledger_path, node.name, "dc1", node.clock)


async def sign(node: Node, service: str) -> bytes:
    csr_pem, _ = await node.pool.make_csr(
        f"spiffe://{node.cluster.state.trust_domain}/ns/default/dc/dc1/svc/{service}", (), ()
    )
    await until(lambda: node.authority.is_ready and not node.authority.is_behind(node.cluster.state))
    serial = serial_bytes(new_serial())
    await node.authority.sign(csr_pem, serial, "test")
    return serial


@pytest.fixture
async def two(tmp_path: Path) -> AsyncIterator[tuple[Node, Node]]:
    """Two clusters of one node, with the same seal key; both have a CA."""
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    one = FakeCluster(tmp_path / "one")
    (tmp_path / "two" / "seal.key").write_bytes((tmp_path / "one" / "seal.key").read_bytes())
    two = FakeCluster(tmp_path / "two")
    nodes = Node(one, "a"), Node(two, "a")
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(running(*nodes))
        for node in nodes:
            await bootstrapped(node)
        yield nodes
    one.close()
    two.close()


async def test_restored_cluster_has_root_keys_and_record_and_signs_on(two: tuple[Node, Node], tmp_path: Path) -> None:
    source, target = two
    serials = [await sign(source, f"s{number}") for number in range(5)]
    path = tmp_path / "saved.tgz"
    meta = await snapshots(source).save(path)
    assert (meta.certificates, meta.trust_domain) == (5, source.cluster.state.trust_domain)
    await sign(target, "own")
    before = target.cluster.state
    await snapshots(target).restore(path)
    after = target.cluster.state
    assert after.trust_domain == source.cluster.state.trust_domain
    assert [root.root_id for root in after.roots] == [root.root_id for root in source.cluster.state.roots]
    assert after.index > before.index
    for serial in serials:
        assert await target.ledger.call(lambda reader, s=serial: reader.find(s)) is not None  # type: ignore[misc]
    serial = await sign(target, "later")
    row = await target.ledger.call(lambda reader: reader.find(serial))
    assert row is not None
    assert after.active_root is not None
    assert row.issuer_key_id.hex(":") == after.active_root.signing_key_id


async def test_restoring_twice_is_restoring_once(two: tuple[Node, Node], tmp_path: Path) -> None:
    source, target = two
    await sign(source, "s")
    await snapshots(source).save(tmp_path / "f")
    await snapshots(target).restore(tmp_path / "f")
    count = target.cluster.machine.ledger_summary.count
    await snapshots(target).restore(tmp_path / "f")
    assert target.cluster.machine.ledger_summary.count == count


async def test_another_seal_key_is_refused_and_nothing_changes(two: tuple[Node, Node], tmp_path: Path) -> None:
    source, _ = two
    await snapshots(source).save(tmp_path / "f")
    (tmp_path / "three").mkdir()
    other = FakeCluster(tmp_path / "three")
    node = Node(other, "a")
    async with running(node):
        await bootstrapped(node)
        before = other.state
        with pytest.raises(Refused, match="another seal key"):
            await snapshots(node).restore(tmp_path / "f")
        assert other.state is before
    other.close()


async def test_before_there_is_a_ca_there_is_nothing_to_save(cluster: FakeCluster, tmp_path: Path) -> None:
    node = Node(cluster, "a")
    with pytest.raises(Refused, match="no CA to save"):
        await snapshots(node).save(tmp_path / "f")
    node.ledger.close()


@pytest.fixture
async def saved(two: tuple[Node, Node], tmp_path: Path) -> Path:
    await sign(two[0], "s")
    path = tmp_path / "saved.tgz"
    await snapshots(two[0]).save(path)
    return path


async def test_file_is_a_tar_of_three_and_shows_no_key(saved: Path) -> None:
    with tarfile.open(saved) as tar:
        assert tar.getnames() == ["meta.json", "state.bin", "SHA256SUMS"]
    assert backup.read(saved)[0].certificates == 1
    assert b"PRIVATE KEY" not in gzip.decompress(saved.read_bytes())


async def test_damage_anywhere_is_refused(saved: Path) -> None:
    """But for the few bits up to the next whole byte at the end of the compressed data and before what is stored in it
    as it is (RFC 1951 3.2.4), which mean nothing: what is read then is the same.
    """
    data, sound, unnoticed = saved.read_bytes(), backup.read(saved)[:2], 0
    offsets = range(10, len(data), max(1, len(data) // 150))
    for offset in offsets:
        damaged = bytearray(data)
        damaged[offset] ^= 0x20
        saved.write_bytes(bytes(damaged))
        try:
            assert backup.read(saved)[:2] == sound
        except SnapshotInvalid:
            continue
        unnoticed += 1
    assert unnoticed <= len(offsets) // 20


async def test_damage_inside_the_compression_is_refused(saved: Path) -> None:
    """Whoever packs it again hides nothing: the sums are checked too."""
    plain, tried = gzip.decompress(saved.read_bytes()), 0
    for offset in range(512, len(plain) - 1024, max(1, len(plain) // 100)):
        damaged = bytearray(plain)
        damaged[offset] ^= 0x01
        if bytes(damaged[offset - offset % 512 :][:512]).strip(b"\0") == b"" or _is_padding(plain, offset):
            continue
        saved.write_bytes(gzip.compress(bytes(damaged), 1))
        with pytest.raises(SnapshotInvalid):
            backup.read(saved)
        tried += 1
    assert tried > 20


def _is_padding(plain: bytes, offset: int) -> bool:
    """Behind the end of a file within the tar, or a part of a header that means nothing to us."""
    with tarfile.open(fileobj=io.BytesIO(plain)) as tar:
        return not any(member.offset_data <= offset < member.offset_data + member.size for member in tar)


@pytest.mark.parametrize(
    "content",
    [b"", b"no gzip", gzip.compress(b"no tar", mtime=0), gzip.compress(bytes(1024), mtime=0)],
    ids=["empty", "no gzip", "no tar", "empty tar"],
)
def test_what_is_no_snapshot_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "f"
    path.write_bytes(content)
    with pytest.raises(SnapshotInvalid):
        backup.read(path)
