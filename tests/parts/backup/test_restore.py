"""Saving and restoring a CA: whole, checked first, and useless without the seal key."""

import contextlib
import gzip
import hashlib
import io
import itertools
import tarfile
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cluster.api.backups import Meta
from cluster.backup import file as backup
from cluster.backup.file import SnapshotInvalid
from cluster.base.errors import Refused
from cluster.rpc.messages import RESTORE_JUDGED
from fsm.nodes import AddJoinToken, SetAgentCA
from tests.kit import nodes_samples, samples
from tests.kit.backups import facts_of, mac_of, request_of, restore, sign, snapshots
from tests.kit.fake_cluster import FakeCluster, Node
from tests.kit.macs import mac_with


async def test_restored_cluster_has_root_keys_and_record_and_signs_on(two: tuple[Node, Node], tmp_path: Path) -> None:
    source, target = two
    serials = [await sign(source, f"s{number}") for number in range(5)]
    path = tmp_path / "saved.tgz"
    meta = await snapshots(source).save(path)
    assert (meta.certificates, meta.trust_domain) == (5, source.cluster.state.trust_domain)
    await sign(target, "own")
    before = target.cluster.state
    await restore(target, path)
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


async def test_how_servers_come_to_their_certificates_is_in_no_snapshot_and_stays(
    two: tuple[Node, Node], tmp_path: Path
) -> None:
    for node in two:
        node.cluster.commit(SetAgentCA(node.cluster.state.ca_index, nodes_samples.agent_ca()))
        node.cluster.commit(AddJoinToken(nodes_samples.join_token(name=f"of-{node.name}"), nodes_samples.NOW))
    source, target = two
    await snapshots(source).save(tmp_path / "f")
    assert nodes_samples.PUBLIC_KEY not in gzip.decompress((tmp_path / "f").read_bytes())
    before = target.cluster.state.nodes
    await restore(target, tmp_path / "f")
    assert target.cluster.state.nodes == before


async def test_restoring_twice_is_restoring_once(two: tuple[Node, Node], tmp_path: Path) -> None:
    source, target = two
    await sign(source, "s")
    await snapshots(source).save(tmp_path / "f")
    await restore(target, tmp_path / "f")
    count = target.cluster.machine.ledger_summary.count
    await restore(target, tmp_path / "f")
    assert target.cluster.machine.ledger_summary.count == count


async def test_another_seal_key_is_refused_and_nothing_changes(
    two: tuple[Node, Node], stranger: Node, tmp_path: Path
) -> None:
    """Not even the record of certificates, which comes before the CA."""
    source, _ = two
    await sign(source, "s")
    await snapshots(source).save(tmp_path / "f")
    before, log_index = stranger.cluster.state, stranger.cluster.log_index
    with pytest.raises(Refused, match="another seal key"):
        await restore(stranger, tmp_path / "f")
    assert (stranger.cluster.state, stranger.cluster.log_index) == (before, log_index)
    assert stranger.cluster.machine.ledger_summary.count == 0


async def test_leader_looks_at_the_seal_itself(two: tuple[Node, Node], stranger: Node, tmp_path: Path) -> None:
    """The node that was asked may have another key than the leader."""
    source, _ = two
    await snapshots(source).save(tmp_path / "f")
    before = stranger.cluster.state
    with pytest.raises(Refused, match="another seal key"):
        await stranger.operations.run(RESTORE_JUDGED, request_of(stranger, source.cluster.state))
    assert stranger.cluster.state is before
    with pytest.raises(Refused, match="does not have the data key"):
        await snapshots(stranger, source.sealer).restore(tmp_path / "f", is_forced=False)
    assert stranger.cluster.state is before


async def test_secret_that_does_not_open_is_refused_though_the_seal_does(
    two: tuple[Node, Node], tmp_path: Path
) -> None:
    source, target = two
    meta = await snapshots(source).save(tmp_path / "f")
    [record] = source.cluster.state.providers
    damaged = replace(record, sealed=record.sealed[:-1] + bytes([record.sealed[-1] ^ 1]))
    changed = replace(source.cluster.state, providers=(damaged,))
    backup.write(tmp_path / "g", replace(meta, certificates=0), changed, mac_of(source), lambda _: [])
    before = target.cluster.state
    with pytest.raises(Refused, match="does not open"):
        await restore(target, tmp_path / "g")
    assert target.cluster.state is before


async def test_before_there_is_a_ca_there_is_nothing_to_save(cluster: FakeCluster, tmp_path: Path) -> None:
    node = Node(cluster, "a")
    with pytest.raises(Refused, match="no CA to save"):
        await snapshots(node).save(tmp_path / "f")
    node.ledger.close()


async def test_file_is_a_tar_of_three_and_shows_no_key(saved: Path) -> None:
    with tarfile.open(saved) as tar:
        assert tar.getnames() == ["meta.json", "state.bin", "SHA256SUMS"]
    assert backup.read(saved).meta.certificates == 1
    assert b"PRIVATE KEY" not in gzip.decompress(saved.read_bytes())


async def test_damage_anywhere_is_refused(saved: Path) -> None:
    """But for the few bits up to the next whole byte at the end of the compressed data and before what is stored in it
    as it is (RFC 1951 3.2.4), which mean nothing: what is read then is the same.
    """
    data, sound, unnoticed = saved.read_bytes(), facts_of(saved), 0
    offsets = range(10, len(data), max(1, len(data) // 150))
    for offset in offsets:
        damaged = bytearray(data)
        damaged[offset] ^= 0x20
        saved.write_bytes(bytes(damaged))
        try:
            assert facts_of(saved) == sound
        except SnapshotInvalid:
            continue
        unnoticed += 1
    assert unnoticed <= len(offsets) // 20


async def test_damage_inside_the_compression_is_refused(two: tuple[Node, Node], saved: Path) -> None:
    """Whoever packs it again hides nothing: the sums and the MAC are checked too."""
    mac = mac_of(two[0])
    plain, tried = gzip.decompress(saved.read_bytes()), 0
    for offset in range(512, len(plain) - 1024, max(1, len(plain) // 100)):
        damaged = bytearray(plain)
        damaged[offset] ^= 0x01
        if bytes(damaged[offset - offset % 512 :][:512]).strip(b"\0") == b"" or _is_padding(plain, offset):
            continue
        saved.write_bytes(gzip.compress(bytes(damaged), 1))
        with contextlib.suppress(SnapshotInvalid):
            assert not backup.read(saved).is_authentic(mac)
        tried += 1
    assert tried > 20


def _is_padding(plain: bytes, offset: int) -> bool:
    """Behind the end of a file within the tar, or a part of a header that means nothing to us."""
    with tarfile.open(fileobj=io.BytesIO(plain)) as tar:
        return not any(member.offset_data <= offset < member.offset_data + member.size for member in tar)


# -- files that are packed well, and hold something else

META = Meta(1, 5, 9, samples.NOW, "dc1", "a", "x.consul", "aa", 1, 0, "file", "0123456789abcdef")
MAC = mac_with(b"m" * 32)
ROW = (7, b"\x01", 1, "web", "spiffe://x", b"k" * 20, b"h" * 32, 1 << 30, 1 << 31, "me", b"r" * 16, 7)


def written(path: Path, *rows: tuple[Any, ...]) -> dict[str, bytes]:
    """A file without fault, and what it holds."""
    backup.write(path, META, samples.full_state(), MAC, lambda after: [row for row in rows if row[0] > after])
    facts_of(path)
    with tarfile.open(path) as tar:
        return {member.name: _content(tar, member) for member in tar}


def _content(tar: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    file = tar.extractfile(member)
    assert file is not None
    return file.read()


def pack(path: Path, members: Iterable[tuple[str, bytes]], *, tail: bytes = b"") -> None:
    """With sums that are right, if there are any."""
    members = list(members)
    digests: dict[str, str] = {}
    for name, data in members:
        digests.setdefault(name, hashlib.sha256(data).hexdigest())
    sums = "".join(f"{digests[name]}  {name}\n" for name in ("meta.json", "state.bin") if name in digests)
    plain = io.BytesIO()
    with tarfile.open(fileobj=plain, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for name, data in members:
            content = sums.encode() if name == "SHA256SUMS" else data
            member = tarfile.TarInfo(name)
            member.size, member.mode = len(content), 0o600
            tar.addfile(member, io.BytesIO(content))
    path.write_bytes(gzip.compress(plain.getvalue() + tail))


def refusal(path: Path) -> str:
    with pytest.raises(SnapshotInvalid) as refused:
        facts_of(path)
    return str(refused.value)


def test_what_a_file_holds_comes_back(tmp_path: Path) -> None:
    parts = written(tmp_path / "f", ROW)
    pack(tmp_path / "g", parts.items())
    meta, state, rows = facts_of(tmp_path / "g")
    assert (meta, state) == (replace(META, certificates=1), samples.full_state())
    assert [row.record.serial for row in rows] == [b"\x01"]


def test_other_orders_of_the_parts_are_refused(tmp_path: Path) -> None:
    """Nobody writes them, and what is read first must not depend on who packed the file."""
    parts = written(tmp_path / "f", ROW)
    _, *others = itertools.permutations(parts.items())
    for order in others:
        pack(tmp_path / "g", order)
        assert "must hold meta.json, state.bin and SHA256SUMS in this order and nothing else" in refusal(tmp_path / "g")


@pytest.mark.parametrize("missing", ["meta.json", "state.bin", "SHA256SUMS"])
def test_file_with_a_part_missing_is_refused(tmp_path: Path, missing: str) -> None:
    parts = written(tmp_path / "f")
    pack(tmp_path / "g", [(name, data) for name, data in parts.items() if name != missing])
    text = "this is no snapshot: it must hold meta.json, state.bin and SHA256SUMS in this order and nothing else"
    assert refusal(tmp_path / "g").startswith(text)


@pytest.mark.parametrize("name", ["meta.json", "state.bin", "SHA256SUMS", "../seal.key", "other"])
def test_file_with_a_part_twice_or_one_more_is_refused(tmp_path: Path, name: str) -> None:
    """Which of two counts would be left to chance: one was checked, and another is taken."""
    parts = written(tmp_path / "f")
    pack(tmp_path / "g", [*parts.items(), (name, parts.get(name, b"x"))])
    assert refusal(tmp_path / "g") == "the snapshot is damaged: there is more after its end"


def test_sums_that_leave_a_part_out_are_refused(tmp_path: Path) -> None:
    parts = written(tmp_path / "f")
    sums = parts["SHA256SUMS"].splitlines(keepends=True)
    plain = io.BytesIO()
    with tarfile.open(fileobj=plain, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for name, data in {**parts, "SHA256SUMS": sums[0]}.items():
            member = tarfile.TarInfo(name)
            member.size, member.mode = len(data), 0o600
            tar.addfile(member, io.BytesIO(data))
    (tmp_path / "g").write_bytes(gzip.compress(plain.getvalue()))
    assert "SHA256SUMS must hold a line for meta.json, one for state.bin" in refusal(tmp_path / "g")


def test_parts_that_are_too_large_and_what_follows_the_end_are_refused(tmp_path: Path) -> None:
    parts = written(tmp_path / "f")
    pack(tmp_path / "g", {**parts, "meta.json": b" " * (64 << 10) + parts["meta.json"]}.items())
    assert "meta.json is too large" in refusal(tmp_path / "g")
    pack(tmp_path / "g", parts.items(), tail=bytes(100_000))
    assert "there is more after its end" in refusal(tmp_path / "g")


def test_file_of_another_format_is_refused_and_not_guessed_at(tmp_path: Path) -> None:
    parts = written(tmp_path / "f")
    assert parts["state.bin"][0] == backup.FORMAT
    pack(tmp_path / "g", {**parts, "state.bin": b"\x02" + parts["state.bin"][1:]}.items())
    assert refusal(tmp_path / "g") == "the snapshot has format 2, this version knows 1"


def test_another_number_of_certificates_than_the_description_says_is_refused(tmp_path: Path) -> None:
    parts = written(tmp_path / "f", ROW)
    pack(tmp_path / "g", {**parts, "state.bin": written(tmp_path / "h")["state.bin"]}.items())
    assert refusal(tmp_path / "g") == "the snapshot holds 0 certificates, its description says 1"


@pytest.mark.parametrize("position", range(1, len(ROW) - 1))
def test_certificate_with_a_field_of_another_type_is_refused(tmp_path: Path, position: int) -> None:
    """It would end the node when it is applied."""
    row = (*ROW[:position], 1.5, *ROW[position + 1 :])
    backup.write(tmp_path / "f", META, samples.full_state(), MAC, lambda after: [row] if after == 0 else [])
    assert "record of certificates cannot be read: fields of a wrong type" in refusal(tmp_path / "f")


@pytest.mark.parametrize("length", [0, 100, 4000, 300_000])
@pytest.mark.parametrize("size", [0, 100_000, 3 << 20, 12 << 20])
def test_what_is_saved_is_read_again_however_well_it_packs(tmp_path: Path, size: int, length: int) -> None:
    """A reader takes what shrinks to nothing for a bomb."""
    one = (*ROW[2:3], "x" * length, "y" * length, b"k" * 20, b"\0" * 32, *ROW[7:10], None)
    count = min(size // (2 * length + 100), 20_000)
    rows = [(number, number.to_bytes(16, "big").lstrip(b"\0"), *one, 7) for number in range(1, count + 1)]
    meta = backup.write(tmp_path / "f", META, samples.full_state(), MAC, lambda after: rows[after : after + 500])
    saved = backup.read(tmp_path / "f")
    assert saved.meta == meta
    if length <= 4096:
        saved.check_rows()
        assert meta.not_restorable == ""
    elif rows:
        others = f"; {count - 1} more are out of bounds" if count > 1 else ""
        assert meta.not_restorable == (
            f"certificate 1: record.name has {length} characters: must have from 0 to 4096{others}"
        )
    assert sorted(path.name for path in tmp_path.iterdir()) == ["f"]


@pytest.mark.parametrize(
    ("bound", "most", "why"),
    [
        ("_MAX_STATE_BYTES", 100, r"it has \d+ bytes, allowed are 100"),
        ("_MAX_STATE_VALUES", 10, "it holds more than 10 values"),
        ("_MAX_DEPTH", 2, "it is nested more than 2 deep"),
    ],
)
def test_state_that_no_reader_takes_is_not_saved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bound: str, most: int, why: str
) -> None:
    monkeypatch.setattr(backup, bound, most)
    with pytest.raises(Refused, match=f"the state cannot be saved, for no snapshot of it could be read: {why}"):
        backup.write(tmp_path / "f", META, samples.full_state(), MAC, lambda _: [])
    assert list(tmp_path.iterdir()) == []


def test_file_larger_than_a_restore_takes_is_saved_with_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backup, "MAX_FILE_BYTES", 500)
    meta = backup.write(tmp_path / "f", META, samples.full_state(), MAC, lambda _: [])
    assert meta.not_restorable == f"the file has {(tmp_path / 'f').stat().st_size} bytes: at most 500 are restored"


@pytest.mark.parametrize(
    "content",
    [b"", b"no gzip", gzip.compress(b"no tar", mtime=0), gzip.compress(bytes(1024), mtime=0)],
    ids=["empty", "no gzip", "no tar", "empty tar"],
)
def test_what_is_no_snapshot_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "f"
    path.write_bytes(content)
    with pytest.raises(SnapshotInvalid):
        facts_of(path)
