"""The container of snapshots: what is not exactly ours is refused, soon, and without taking up what it announces."""

import gzip
import hashlib
import json
import subprocess
import sys
import tarfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Final, Literal

import msgpack
import pytest

from cluster.api.backups import Meta
from cluster.backup import archive
from cluster.backup import file as backup
from cluster.backup.archive import SnapshotInvalid
from cluster.base.bounds import check_value
from tests.kit import samples
from tests.kit.macs import mac_with

META: Final = Meta(1, 5, 9, samples.NOW, "dc1", "a", "x.consul", "aa", 1, 0, "file", "0123456789abcdef")
MAC: Final = mac_with(b"m" * 32)
NAMES: Final = ("meta.json", "state.bin", "SHA256SUMS")
#: What reading may take up beyond what the process has anyway: parts of 64 KiB, the state and one page of rows.
MAX_GROWTH_KIB: Final = 12 << 10

Describe = Callable[[tarfile.TarInfo], None]


@pytest.fixture
def parts(tmp_path: Path) -> dict[str, bytes]:
    backup.write(tmp_path / "sound", META, samples.full_state(), MAC, lambda _: [])
    with tarfile.open(tmp_path / "sound") as tar:
        return {member.name: _content(tar, member) for member in tar}


def _content(tar: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    file = tar.extractfile(member)
    assert file is not None
    return file.read()


def block(
    name: str,
    size: int = 0,
    kind: bytes = tarfile.REGTYPE,
    form: Literal[0, 1, 2] = tarfile.USTAR_FORMAT,
    **fields: object,
) -> bytes:
    member = tarfile.TarInfo(name)
    member.size, member.mode, member.type = size, 0o600, kind
    for field, value in fields.items():
        setattr(member, field, value)
    return member.tobuf(form)


def tarred(parts: dict[str, bytes], before: bytes = b"", **changed: bytes) -> bytes:
    """A tar as ours; `before` stands in front, and a member may have another header: `state=...`."""
    plain = before
    for name, data in parts.items():
        plain += changed.get(name.partition(".")[0], block(name, len(data))) + data + bytes(-len(data) % 512)
    plain += bytes(1024)
    return plain + bytes(-len(plain) % 10_240)


def refused(path: Path, packed: bytes) -> str:
    path.write_bytes(packed)
    with pytest.raises(SnapshotInvalid) as refusal:
        backup.read(path).check_rows()
    return str(refusal.value)


def test_what_is_ours_is_taken(parts: dict[str, bytes], tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(gzip.compress(tarred(parts), mtime=0))
    assert backup.read(tmp_path / "f").has_mac


OTHERS: Final[dict[str, bytes]] = {
    "pax header": block("state.bin", 0, form=tarfile.PAX_FORMAT, pax_headers={"comment": "x"}),
    "pax size": block("state.bin", 0, form=tarfile.PAX_FORMAT, pax_headers={"size": "5"}),
    "global pax header": block("x", 0, tarfile.XGLTYPE),
    "long name of GNU": block("s" * 200, 0, form=tarfile.GNU_FORMAT),
    "long name in a prefix": block("p" * 90 + "/" + "n" * 90),
    "magic of GNU": block("state.bin", 0, form=tarfile.GNU_FORMAT),
    "hard link": block("state.bin", 0, tarfile.LNKTYPE, linkname="meta.json"),
    "symbolic link": block("state.bin", 0, tarfile.SYMTYPE, linkname="/etc/passwd"),
    "directory": block("state.bin", 0, tarfile.DIRTYPE),
    "fifo": block("state.bin", 0, tarfile.FIFOTYPE),
    "device": block("state.bin", 0, tarfile.CHRTYPE, devmajor=1, devminor=3),
    "sparse file": block("state.bin", 0, tarfile.GNUTYPE_SPARSE),
    "continued file": block("state.bin", 0, tarfile.CONTTYPE),
    "old form": block("state.bin", 0, tarfile.AREGTYPE),
    "unknown type": block("state.bin", 0, b"Z"),
    "size of 9 GiB": block("state.bin", 9 << 30, form=tarfile.GNU_FORMAT),
    "negative size": block("state.bin", -5, form=tarfile.GNU_FORMAT),
    "path": block("./state.bin"),
    "absolute path": block("/state.bin"),
    "other case": block("STATE.BIN"),
    "owner": block("state.bin", 0, uname="root"),
    "mode": block("state.bin", 0, mode=0o4755),
    "nothing": bytes(512),
    "noise": b"\xa5" * 512,
}


@pytest.mark.parametrize("what", OTHERS)
def test_other_headers_are_refused(parts: dict[str, bytes], tmp_path: Path, what: str) -> None:
    """In the place of a member's header, and in front of it."""
    assert refused(tmp_path / "f", gzip.compress(tarred(parts, state=OTHERS[what])))
    assert refused(tmp_path / "g", gzip.compress(tarred(parts, before=OTHERS[what])))


def test_each_bit_of_a_header_counts(parts: dict[str, bytes], tmp_path: Path) -> None:
    """With a checksum that fits; the time is the only thing that may be another."""
    sound = block("state.bin", len(parts["state.bin"]))
    for offset in (*range(148), *range(156, 512)):
        if 136 <= offset < 147:
            continue
        changed = bytearray(sound)
        changed[offset] ^= 0x01
        total = sum(changed) - sum(changed[148:156]) + 8 * 32
        changed[148:156] = b"%06o\0 " % total
        assert refused(tmp_path / "f", gzip.compress(tarred(parts, state=bytes(changed)), 1)), offset


def test_wrong_checksum_of_a_header_is_refused(parts: dict[str, bytes], tmp_path: Path) -> None:
    changed = bytearray(block("state.bin", len(parts["state.bin"])))
    changed[150] ^= 0x01
    assert refused(tmp_path / "f", gzip.compress(tarred(parts, state=bytes(changed))))


@pytest.mark.parametrize("at", [0, 100, 511])
def test_what_hides_in_padding_is_refused(parts: dict[str, bytes], tmp_path: Path, at: int) -> None:
    plain = bytearray(tarred(parts))
    plain[-1024 + at] = 1
    assert "more after its end" in refused(tmp_path / "f", gzip.compress(bytes(plain)))
    plain = bytearray(tarred(parts))
    plain[512 + len(parts["meta.json"])] = 1
    assert "between its members" in refused(tmp_path / "g", gzip.compress(bytes(plain)))


@pytest.mark.parametrize("more", [b"\0", b"x", bytes(512), bytes(10_240), block("more") + bytes(1024)])
def test_what_follows_the_end_is_refused(parts: dict[str, bytes], tmp_path: Path, more: bytes) -> None:
    """Inside the compression, behind it as another part of gzip, and behind it as it is."""
    plain = tarred(parts)
    for packed in (
        gzip.compress(plain + more),
        gzip.compress(plain) + gzip.compress(more),
        gzip.compress(plain) + more,
    ):
        assert "more after its end" in refused(tmp_path / "f", packed)


def test_what_follows_the_end_is_refused_before_it_is_inflated(parts: dict[str, bytes], tmp_path: Path) -> None:
    """Whatever comes there, one byte of it is enough: the rest, which cannot even be inflated, is never looked at."""
    packer = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    body = packer.compress(tarred(parts) + bytes(1024)) + packer.flush(zlib.Z_SYNC_FLUSH)
    packed = b"\x1f\x8b\x08\0\0\0\0\0\0\xff" + body + b"\xff" * 100_000
    assert refused(tmp_path / "f", packed) == "the snapshot is damaged: there is more after its end"


def test_every_cut_is_refused(parts: dict[str, bytes], tmp_path: Path) -> None:
    packed = gzip.compress(tarred(parts))
    for size in range(0, len(packed), 7):
        assert refused(tmp_path / "f", packed[:size])


def test_optional_fields_of_gzip_are_refused(parts: dict[str, bytes], tmp_path: Path) -> None:
    packed = gzip.compress(tarred(parts))
    named = packed[:3] + b"\x08" + packed[4:10] + b"name\0" + packed[10:]
    assert gzip.decompress(named) == tarred(parts)
    assert "gzip file of ours" in refused(tmp_path / "f", named)


def test_wrong_checksum_of_gzip_is_refused(parts: dict[str, bytes], tmp_path: Path) -> None:
    packed = bytearray(gzip.compress(tarred(parts)))
    packed[-5] ^= 1
    assert "gzip's checksum" in refused(tmp_path / "f", bytes(packed))


# -- bounds


def snapshot_of(data: bytes) -> bytes:
    """All sums of it fit, but it has no MAC."""
    meta = json.dumps({field: getattr(META, field) for field in META.__slots__}).encode()
    sums = "".join(
        f"{hashlib.sha256(content).hexdigest()}  {name}\n" for name, content in zip(NAMES, (meta, data), strict=False)
    )
    return gzip.compress(tarred(dict(zip(NAMES, (meta, data, sums.encode()), strict=True))), 1)


NESTED: Final = b"\xdd\x01\xff\xff\xff" * 800  # 4 KB: lists of 33 million, one in the other
#: Lists of less than a million, so that more bytes follow than each of them has items: 7 GB of room.
FITTING: Final = b"\xdd\x00\x0e\x00\x00" * 1000 + bytes(0xF0000)
WIDE: Final = b"\xdd\x00\x0f\xff\xf0" + b"\x90" * 0xFFFF0  # a million of empty lists
STATE: Final = b"\x01" + msgpack.packb(b"\x92\x01\x90")


def _packed(head: bytes, size: int) -> bytes:
    """Many zeros behind a header, with little memory."""
    packer = zlib.compressobj(9, wbits=31)
    packed = [packer.compress(head)]
    packed += [packer.compress(bytes(1 << 20)) for _ in range(size >> 20)]
    return b"".join((*packed, packer.flush()))


def _bombs() -> dict[str, bytes]:
    large = 64 << 20
    return {
        "pax header": _packed(block("x", large, tarfile.XHDTYPE), large),
        "global pax header": _packed(block("x", large, tarfile.XGLTYPE), large),
        "long name": _packed(block("x", large, tarfile.GNUTYPE_LONGNAME), large),
        "meta.json": _packed(block("meta.json", large), large),
        "meta.json of the largest size": _packed(block("meta.json", 64 << 10), large),
        "no tar at all": _packed(b"", large),
        "zeros after the end": zlib.compressobj(wbits=31).compress(b"") + _packed(tarred({}), large),
        "comment of gzip": b"\x1f\x8b\x08\x10\0\0\0\0\0\xff" + b"c" * (32 << 20),
        "nested state": snapshot_of(b"\x01" + msgpack.packb(NESTED)),
        "nested state of lists that fit": snapshot_of(b"\x01" + msgpack.packb(FITTING)),
        "wide state": snapshot_of(b"\x01" + msgpack.packb(WIDE)),
        "state of 4 GB": snapshot_of(b"\x01\xc6\xff\xff\xff\xff" + bytes(1 << 20)),
        "state that is a list": snapshot_of(b"\x01" + NESTED),
        "state that is a map": snapshot_of(b"\x01\xdf\xff\xff\xff\xff" + bytes(1 << 20)),
        "deep description": gzip.compress(tarred({"meta.json": b"[" * 60_000})),
    }


def _row_bombs() -> dict[str, bytes]:
    """Behind a state that is sound: what is read only once the MAC was compared, or force was given."""
    with_state = b"\x01" + msgpack.packb(samples_state())
    return {
        "nested rows": with_state + NESTED,
        "wide rows": with_state + WIDE,
        "row of lists": with_state + b"\x91\x9c" + NESTED,
        "row of lists that fit": with_state + b"\x91\x9c" + FITTING,
        "text of 4 GB": with_state + b"\x91\x9c\x07\xdb\xff\xff\xff\xff" + bytes(1 << 20),
        "bytes of 4 GB": with_state + b"\x91\x9c\x07\xc6\xff\xff\xff\xff" + bytes(1 << 20),
        "lists of nothing": with_state + b"\x90" * (8 << 20),
        "long texts": with_state + b"\xdc\x03\xe8" + _long_rows(),
    }


def samples_state() -> bytes:
    from fsm.codec import dump_state

    return dump_state(samples.full_state())


def _long_rows() -> bytes:
    """All that is wrong with them is their size: 200 MB of text, which pack well."""
    row = (7, b"\x01", 1, "w" * 200_000, "spiffe://x", b"k" * 20, b"h" * 32, 1 << 40, 1 << 41, "me", b"r" * 16, 7)
    return b"".join(msgpack.packb(row) for _ in range(1000))


_MEASURE: Final = """
import json, resource, sys, tracemalloc
from pathlib import Path
from cluster.backup import file as backup
for name in sys.argv[2:]:
    backup.read(Path(sys.argv[1])).check_rows()  # what every reader needs is loaded now
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    tracemalloc.start()
    try:
        saved = backup.read(Path(name))
        for page in saved.pages():
            del page
        saved.check_rows()
        refusal = ""
    except backup.SnapshotInvalid as error:
        refusal = str(error)
    # Room that was made and never used does not show in the resident set.
    asked_for = tracemalloc.get_traced_memory()[1] >> 10
    tracemalloc.stop()
    resident = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    print(json.dumps([name, refusal, max(resident, asked_for)]), flush=True)
"""


def test_nothing_takes_up_what_it_announces(parts: dict[str, bytes], tmp_path: Path) -> None:
    """Peak memory of a process of its own, for a bomb of each kind."""
    bombs = _bombs() | {name: snapshot_of(data) for name, data in _row_bombs().items()}
    for name, packed in bombs.items():
        (tmp_path / name).write_bytes(packed)
    done = subprocess.run(
        [sys.executable, "-c", _MEASURE, str(tmp_path / "sound"), *(str(tmp_path / name) for name in bombs)],
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    measured = [json.loads(line) for line in done.stdout.splitlines()]
    assert [Path(name).name for name, _, _ in measured] == [*bombs]
    print([(Path(name).name, growth) for name, _, growth in measured])
    for name, refusal, growth in measured:
        assert refusal, name
        assert growth < MAX_GROWTH_KIB, (name, growth)


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "ends early"),
        (b"\xdc\x00", "ends early"),
        (b"\xc4\x05ab", "ends early"),
        (NESTED, "longer than the bytes that follow"),
        (b"\x91" * 40 + b"\x01", "nested more than 8 deep"),
        (b"\x9f" + b"\x01" * 15 + b"\x02", "1 bytes follow"),
        (b"\x81\x01\x02", "type 0x81"),
        (b"\xd4\x01\x02", "type 0xd4"),
        (b"\xc1", "type 0xc1"),
        (b"\xdc\x00\x20" + b"\x01" * 32, "more than 32 values"),
    ],
)
def test_value_that_is_not_modest_is_refused(data: bytes, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        check_value(data, max_items=32, max_depth=8)


@pytest.mark.parametrize(
    "value", [5, -5, 1 << 40, -(1 << 40), 1.5, None, True, "x" * 300, b"y" * 70_000, [[], [1, "a", [b"b"]]]]
)
def test_modest_value_is_taken(value: object) -> None:
    check_value(msgpack.packb(value), max_items=32, max_depth=8)


def test_members_are_streams_that_end(parts: dict[str, bytes], tmp_path: Path) -> None:
    rules = [archive.Rule(name, 1 << 20) for name in NAMES]
    found = {name: member.whole() for name, member in archive.members(tmp_path / "sound", rules)}
    assert found == parts
