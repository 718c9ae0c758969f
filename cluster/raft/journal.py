"""The Raft log on disk: entries, term and vote in one stream of checked records, made durable in groups.

Owns the directory `wal/`. Nothing is durable before `sync` returns; whoever sends a message that depends on a record,
or counts this node towards a majority, calls `sync` first (Raft 5.1: stable storage before responding).

On disk: `manifest` names the newest segment; `<seq>.wal` are the segments. A segment is a sequence of records

    length u32 | type u8 | crc32(payload) u32 | crc32(seq, offset, the 9 bytes before) u32 | payload   (little endian)

The header check is keyed by segment and offset, so that a record which turns up at another place is refused too.
Every synced group ends in a SYNC record. What recovery finds after the last SYNC was never acknowledged; if it is
incomplete it is cut off as a torn write, but only if a torn write can explain the bytes: the file ends early, or a
sector was never written and reads as zeros. Anything else is damage, and the node refuses to start: a silently
shortened log could forget a vote or an acknowledged entry.

With a key (macs.py) the payload of a SYNC record begins with `M`, the MAC of the group before and that of this group;
without one it is filling only, which is all that the release before reads in it. Then a group counts as a whole, once
its MAC was compared: what follows the last SYNC is cut off even where it is whole, because anybody could have put it
there. A torn write and a changed file stay apart: the first leaves no SYNC record that is sound behind it, the second
needs one.
"""

import os
import struct
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from enum import IntEnum
from typing import Final, NamedTuple

from cluster.base.words import plain
from cluster.raft.disk import AppendFile, Disk, write_atomically
from cluster.raft.macs import MAC_BYTES, NO_MAC, REMEDY, FileMacs, is_same

_HEADER: Final = struct.Struct("<IBII")
_HEADER_HEAD: Final = struct.Struct("<IBI")
_PLACE: Final = struct.Struct("<QQ")
_SEGMENT_PAYLOAD: Final = struct.Struct("<HQ")
_INDEX_TERM: Final = struct.Struct("<QQ")
_U32: Final = struct.Struct("<I")
_U64: Final = struct.Struct("<Q")
_MANIFEST: Final = struct.Struct("<8sQI")

_FORMAT_VERSION: Final = 1
_MANIFEST_MAGIC: Final = b"QCAWAL1\n"
_SECTOR_BYTES: Final = 512
# A group neither starts in the last nor ends in the first so many bytes of a sector. So a sector that was not
# written shows as at least so many zeros, and one damaged byte can never look like an unwritten sector.
_SECTOR_MARGIN_BYTES: Final = 8

_MAC_TAG: Final = b"M"
_PREVIOUS: Final = slice(1, 1 + MAC_BYTES)
_MAC: Final = slice(1 + MAC_BYTES, 1 + 2 * MAC_BYTES)

MAX_RECORD_BYTES: Final = 16 << 20


class _Kind(IntEnum):
    """Record types. The numbers are on disk: never reuse one."""

    SEGMENT = 1
    ENTRY = 2
    TRUNCATE = 3
    STATE = 4
    BASE = 5
    RESET = 6
    SYNC = 7
    COPY_START = 8
    COPY = 9
    COPY_END = 10


class JournalDamaged(Exception):
    """The files hold something that no crash of ours can have left: the node must not start from them."""


class JournalFailed(Exception):
    """Writing or syncing failed. What is on disk is unknown, so the process must stop (fsync is not retried)."""


class Entry(NamedTuple):
    """One log entry: a plain tuple underneath, in the order that PySyncObj expects."""

    command: bytes
    log_index: int
    term: int


class SegmentPart(NamedTuple):
    """A segment up to `end`, or the whole file."""

    path: str
    seq: int
    end: int | None


def check_part(disk: Disk, part: SegmentPart) -> None:
    """Read a part again, as it is on the disk, and check every record. For any thread.

    Raises: JournalDamaged, naming file and offset; FileNotFoundError when a compaction has removed it.
    """
    data = disk.read(part.path)
    end = len(data) if part.end is None else part.end
    offset = 0
    while offset < end:
        record = _read_record(data, offset, part.seq)
        if record is None:
            raise JournalDamaged(f"{part.path}: damaged record at offset {offset}")
        offset = record[2]


class _Segment:
    __slots__ = ("last_index", "path", "seq")

    def __init__(self, seq: int, path: str) -> None:
        self.seq = seq
        self.path = path
        self.last_index = 0  # highest entry index that was in the log while this segment was the newest


class _Replayed(NamedTuple):
    good_end: int  # after the last sound record
    synced_end: int  # after the last SYNC record
    groups: int  # number of SYNC records


class Journal:
    """Opens or creates the journal in `directory`. `was_there`: it is not created, because what is beside it says that
    there was one.

    Raises: JournalDamaged when the files cannot be trusted; the text names the file and the offset.
    """

    def __init__(
        self,
        disk: Disk,
        directory: str,
        *,
        segment_bytes: int = 4 << 20,
        macs: FileMacs | None = None,
        was_there: bool = False,
    ) -> None:
        self._disk = disk
        self._macs = macs
        self._last_mac: bytes | None = None  # of the last group; None before one is known
        self.lacks_macs = False  # whether a group without one was read
        self._directory = directory
        self._segment_bytes = segment_bytes
        self._entries: list[Entry] = []
        # While reading: of a `rewrite`, as far as it has got, and the position of the segment it starts in.
        self._copy: list[Entry] | None = None
        self._copy_start = 0
        self._retained_bytes = 0
        self._term = 0
        self._vote: str | None = None
        self._segments: list[_Segment] = []
        self._pending: list[bytes] = []
        self._end = 0  # offset in the newest segment after everything written or pending
        self.cut_off_bytes = 0  # of a torn tail, at start
        self.syncs = 0
        disk.make_directory(directory)
        disk.sync_directory(os.path.dirname(directory))
        self._file = self._recover(was_there)

    # -- reading

    @property
    def entries(self) -> Sequence[Entry]:
        """All entries held, oldest first. Not to be modified."""
        return self._entries

    @property
    def term(self) -> int:
        return self._term

    @property
    def vote(self) -> str | None:
        """Whom this node voted for in `term`."""
        return self._vote

    @property
    def is_dirty(self) -> bool:
        """Whether something was added that `sync` has not made durable yet."""
        return bool(self._pending)

    @property
    def retained_bytes(self) -> int:
        """Size of the commands held, in memory and on disk: what compaction brings down."""
        return self._retained_bytes

    def synced_parts(self) -> list["SegmentPart"]:
        """What is on disk and durable now: what a scrub can check."""
        older = [SegmentPart(segment.path, segment.seq, None) for segment in self._segments[:-1]]
        newest = self._segments[-1]
        return older if self._pending else [*older, SegmentPart(newest.path, newest.seq, self._end)]

    # -- writing: durable after the next `sync`

    def append(self, command: bytes, log_index: int, term: int) -> None:
        if self._entries and log_index != self._entries[-1].log_index + 1:
            raise JournalFailed(f"entry {log_index} does not follow entry {self._entries[-1].log_index}")
        self._entries.append(Entry(command, log_index, term))
        self._retained_bytes += len(command)
        self._add(_Kind.ENTRY, _INDEX_TERM.pack(log_index, term) + command)

    def truncate_from(self, log_index: int) -> None:
        """Drop entry `log_index` and all after it (Raft 5.3: conflicting entries of a deposed leader)."""
        if self._entries and log_index <= self._entries[-1].log_index:
            self._drop_from(log_index)
            self._add(_Kind.TRUNCATE, _U64.pack(log_index))

    def reset(self, base: Entry) -> None:
        """Forget every entry; the log goes on after `base`, which a durable snapshot covers."""
        self._entries = [base]
        self._retained_bytes = len(base.command)
        self._add(_Kind.RESET, _INDEX_TERM.pack(base.log_index, base.term) + base.command)

    def set_term(self, term: int, vote: str | None) -> None:
        if (term, vote) != (self._term, self._vote):
            self._term, self._vote = term, vote
            self._add(_Kind.STATE, self._state_payload())

    def sync(self) -> None:
        """Write and sync everything added so far: one fdatasync, however many records there are.

        Raises: JournalFailed, after which the process must stop.
        """
        if not self._pending:
            return
        with _stop_on_error(self._segments[-1].path):
            self._write_group(self._file)
        if self._entries:
            segment = self._segments[-1]
            segment.last_index = max(segment.last_index, self._entries[-1].log_index)
        if self._end >= self._segment_bytes:
            self._roll()

    def compact_to(self, log_index: int) -> None:
        """Drop the entries before `log_index`, which a durable snapshot covers, and free whole segments. Syncs."""
        if not self._entries or log_index <= self._entries[0].log_index:
            return
        self._drop_before(log_index)
        base = self._entries[0].log_index
        self._add(_Kind.BASE, _U64.pack(base))
        self.sync()
        with _stop_on_error(self._directory):
            while len(self._segments) > 1 and self._segments[0].last_index < base:
                self._remove_oldest()

    def rewrite(self) -> None:
        """Put everything held into new segments and remove the old ones, which were found damaged. Syncs."""
        self.sync()
        self._roll()
        first_new = self._segments[-1].seq
        # Beside the old records until its end is durable, and only then in their place: a crash before finds all of
        # the old ones, and half a copy that counts for nothing.
        self._add(_Kind.COPY_START, b"")
        for entry in self._entries:
            self._add(_Kind.COPY, _INDEX_TERM.pack(entry.log_index, entry.term) + entry.command)
            if self._end >= self._segment_bytes:
                self.sync()
        self._add(_Kind.COPY_END, b"")
        self.sync()
        with _stop_on_error(self._directory):
            while self._segments[0].seq < first_new:
                self._remove_oldest()

    def close(self) -> None:
        self.sync()
        self._file.close()

    # -- records and groups

    def _add(self, kind: int, payload: bytes) -> None:
        head = _HEADER_HEAD.pack(len(payload), kind, zlib.crc32(payload))
        check = zlib.crc32(_PLACE.pack(self._segments[-1].seq, self._end) + head)
        data = b"".join((head, _U32.pack(check), payload))
        self._pending.append(data)
        self._end += len(data)

    def _write_group(self, file: AppendFile) -> None:
        self._add(_Kind.SYNC, self._sync_payload())
        data = b"".join(self._pending)
        self._pending.clear()
        file.write(data)
        file.sync()
        self.syncs += 1

    def _sync_payload(self) -> bytes:
        """The MAC of what is pending, if there is a key, and filling, so that the group ends where _SECTOR_MARGIN_BYTES
        demands.
        """
        macs = b""
        if self._macs is not None:
            previous = self._last_mac or NO_MAC
            self._last_mac = self._macs.group(previous, self._segments[-1].seq, self._pending)
            macs = _MAC_TAG + previous + self._last_mac
        size = len(macs) + _SECTOR_MARGIN_BYTES
        remainder = (self._end + _HEADER.size + size) % _SECTOR_BYTES
        if 0 < remainder < _SECTOR_MARGIN_BYTES:
            size += _SECTOR_MARGIN_BYTES - remainder
        elif remainder > _SECTOR_BYTES - _SECTOR_MARGIN_BYTES:
            size += _SECTOR_BYTES - remainder
        return macs + b"\xa5" * (size - len(macs))

    def _state_payload(self) -> bytes:
        return _U64.pack(self._term) + (self._vote or "").encode()

    # -- entries in memory

    def _drop_from(self, log_index: int) -> None:
        if not self._entries or log_index > self._entries[-1].log_index:
            return
        keep = max(0, log_index - self._entries[0].log_index)
        self._retained_bytes -= sum(len(entry.command) for entry in self._entries[keep:])
        del self._entries[keep:]

    def _drop_before(self, log_index: int) -> None:
        count = min(log_index - self._entries[0].log_index, len(self._entries) - 1)
        self._retained_bytes -= sum(len(entry.command) for entry in self._entries[:count])
        del self._entries[:count]

    # -- segments

    def _path(self, seq: int) -> str:
        return os.path.join(self._directory, f"{seq:016d}.wal")

    @property
    def _manifest_path(self) -> str:
        return os.path.join(self._directory, "manifest")

    def _remove_oldest(self) -> None:
        self._disk.unlink(self._segments.pop(0).path)
        # One by one: a power cut must not leave a gap, and file systems may reorder removals.
        self._disk.sync_directory(self._directory)

    def _roll(self) -> None:
        with _stop_on_error(self._directory):
            self._file.close()
            self._file = self._new_segment(self._segments[-1].seq + 1)

    def _new_segment(self, seq: int) -> AppendFile:
        self._segments.append(_Segment(seq, self._path(seq)))
        file = self._disk.create(self._path(seq))
        self._write_head(file)
        self._disk.sync_directory(self._directory)
        # From here on the loss of this file as a whole is noticed.
        self._write_manifest(seq)
        return file

    def _write_head(self, file: AppendFile) -> None:
        """Start a segment so that the ones before it can go: it carries term, vote and base over."""
        segment = self._segments[-1]
        self._end = 0
        self._add(_Kind.SEGMENT, _SEGMENT_PAYLOAD.pack(_FORMAT_VERSION, segment.seq))
        self._add(_Kind.STATE, self._state_payload())
        if self._entries:
            self._add(_Kind.BASE, _U64.pack(self._entries[0].log_index))
            segment.last_index = self._entries[-1].log_index
        self._write_group(file)

    def _write_manifest(self, seq: int) -> None:
        body = _MANIFEST_MAGIC + _U64.pack(seq)
        write_atomically(self._disk, self._manifest_path, body + _U32.pack(zlib.crc32(body)))

    # -- recovery

    def _recover(self, was_there: bool) -> AppendFile:
        names = self._disk.list(self._directory)
        seqs = sorted(int(name.removesuffix(".wal")) for name in names if name.endswith(".wal"))
        newest = self._read_manifest() if "manifest" in names else None
        if not seqs and newest is None:
            if was_there:
                raise JournalDamaged(
                    f"{self._directory}: the log is missing beside the snapshot: with a new one this node would forget"
                    " what it has promised; put all of the directory back, or remove this server and add a new one"
                )
            return self._new_segment(1)
        self._check_complete(seqs, newest)
        for seq in seqs:
            segment = _Segment(seq, self._path(seq))
            data = self._disk.read(segment.path)
            self._segments.append(segment)
            replayed = self._replay(segment, data, is_newest=seq == seqs[-1])
        self._check_named(segment, replayed, newest)
        self.cut_off_bytes = len(data) - replayed.good_end
        if replayed.groups == 0:
            # Crashed while making this segment: nothing was acknowledged from it.
            self._disk.truncate(segment.path, 0)
            file = self._disk.append(segment.path)
            self._write_head(file)
        else:
            if self.cut_off_bytes:
                self._disk.truncate(segment.path, replayed.good_end)
            self._end = replayed.good_end
            file = self._disk.append(segment.path)
            if replayed.good_end != replayed.synced_end:
                # Whole records after the last SYNC: written, never acknowledged, good to keep. Close the group.
                self._write_group(file)
        # What was read may be in the page cache only: the process before may have been killed between write and sync.
        file.sync()
        self._disk.sync_directory(self._directory)
        if newest != seqs[-1]:
            self._write_manifest(seqs[-1])
        return file

    def _read_manifest(self) -> int:
        data = self._disk.read(self._manifest_path)
        if len(data) == _MANIFEST.size:
            magic, seq, check = _MANIFEST.unpack(data)
            if magic == _MANIFEST_MAGIC and check == zlib.crc32(data[:-4]):
                return int(seq)
        raise JournalDamaged(f"{self._manifest_path}: bad manifest")

    def _check_complete(self, seqs: list[int], newest: int | None) -> None:
        if newest is None and seqs != [1]:
            raise JournalDamaged(f"{self._manifest_path}: manifest is missing beside segments {seqs}")
        # A crash can leave one segment that the manifest does not name yet, never the other way round.
        if newest is not None and (not seqs or not newest <= seqs[-1] <= newest + 1):
            raise JournalDamaged(f"{self._path(newest)}: newest segment is missing, found {seqs}")
        if seqs != list(range(seqs[0], seqs[0] + len(seqs))):
            raise JournalDamaged(f"{self._directory}: a segment is missing, found {seqs}")

    def _check_named(self, segment: _Segment, replayed: "_Replayed", newest: int | None) -> None:
        """A segment is named in the manifest once its head is durable and before anything else is added to it."""
        if newest == segment.seq and replayed.groups == 0:
            raise JournalDamaged(f"{segment.path}: damaged record at offset {replayed.good_end}")
        if newest != segment.seq and replayed.groups > 1:
            raise JournalDamaged(f"{self._manifest_path}: manifest is older than segment {segment.seq}")

    def _replay(self, segment: _Segment, data: bytes, *, is_newest: bool) -> "_Replayed":
        """Apply the records of one segment, a group at a time; without a key also those after the last group."""
        offset = synced_end = groups = 0
        waiting: list[tuple[int, int, bytes]] = []
        while offset < len(data):
            record = _read_record(data, offset, segment.seq)
            if record is None:
                if is_newest and _can_be_torn(data, offset, segment.seq, synced_end):
                    break
                raise JournalDamaged(f"{segment.path}: damaged record at offset {offset}")
            kind, payload, end = record
            if (kind == _Kind.SEGMENT) != (offset == 0):
                raise JournalDamaged(f"{segment.path}: misplaced record at offset {offset}")
            if kind == _Kind.SYNC:
                self._check_mac(segment, memoryview(data)[synced_end:offset], synced_end, payload)
                self._apply_all(waiting, segment)
                synced_end = end
                groups += 1
            else:
                waiting.append((offset, kind, payload))
            offset = end
        if self._macs is None:
            self._apply_all(waiting, segment)
        elif is_newest:
            offset = synced_end
        if not is_newest and synced_end != len(data):
            raise JournalDamaged(f"{segment.path}: segment ends early at offset {offset}")
        return _Replayed(offset, synced_end, groups)

    def _check_mac(self, segment: _Segment, records: memoryview, offset: int, payload: bytes) -> None:
        """Of the group that begins at `offset`. Raises: JournalDamaged."""
        if self._macs is None:
            return
        if payload[:1] != _MAC_TAG or len(payload) < _MAC.stop:
            if self._macs.is_required:
                raise JournalDamaged(
                    f"{segment.path}: the records from offset {offset} on have no MAC: they were not written by this"
                    f" release; {REMEDY}"
                )
            self.lacks_macs, self._last_mac = True, NO_MAC
            return
        previous, mac = payload[_PREVIOUS], payload[_MAC]
        # What came before the first group that is left was compacted away.
        follows = self._last_mac is None or is_same(previous, self._last_mac)
        if not follows or not is_same(mac, self._macs.group(previous, segment.seq, (records,))):
            raise JournalDamaged(
                f"{segment.path}: the MAC of the records from offset {offset} on is wrong: they were changed, moved or"
                " left out by somebody who does not have this node's key"
            )
        self._last_mac = mac

    def _apply_all(self, records: list[tuple[int, int, bytes]], segment: _Segment) -> None:
        """Raises: JournalDamaged."""
        for offset, kind, payload in records:
            try:
                self._apply(kind, payload, segment.seq)
            except (ValueError, struct.error) as error:
                raise JournalDamaged(f"{segment.path}: {error} at offset {offset}") from error
            if self._entries:
                segment.last_index = max(segment.last_index, self._entries[-1].log_index)
        records.clear()

    def _apply(self, kind: int, payload: bytes, seq: int) -> None:
        match kind:
            case _Kind.SEGMENT:
                if _SEGMENT_PAYLOAD.unpack(payload) != (_FORMAT_VERSION, seq):
                    raise ValueError("segment of another format or place")
            case _Kind.ENTRY:
                log_index, term = _INDEX_TERM.unpack_from(payload)
                if self._entries and log_index != self._entries[-1].log_index + 1:
                    raise ValueError(f"entry {log_index} follows entry {self._entries[-1].log_index}")
                command = payload[_INDEX_TERM.size :]
                self._entries.append(Entry(command, log_index, term))
                self._retained_bytes += len(command)
            case _Kind.TRUNCATE:
                self._drop_from(_U64.unpack(payload)[0])
            case _Kind.STATE:
                self._term = _U64.unpack_from(payload)[0]
                self._vote = payload[_U64.size :].decode() or None
            case _Kind.BASE:
                base = _U64.unpack(payload)[0]
                if self._entries and base > self._entries[0].log_index:
                    self._drop_before(base)
            case _Kind.RESET:
                log_index, term = _INDEX_TERM.unpack_from(payload)
                self._entries = [Entry(payload[_INDEX_TERM.size :], log_index, term)]
                self._retained_bytes = len(self._entries[0].command)
            case _Kind.COPY_START:
                self._copy, self._copy_start = [], len(self._segments) - 1
            case _Kind.COPY:
                # Without a start: it went with a segment all of whose entries were compacted away.
                if self._copy is not None:
                    log_index, term = _INDEX_TERM.unpack_from(payload)
                    if self._copy and log_index != self._copy[-1].log_index + 1:
                        raise ValueError(f"copied entry {log_index} follows entry {self._copy[-1].log_index}")
                    self._copy.append(Entry(payload[_INDEX_TERM.size :], log_index, term))
            case _Kind.COPY_END:
                if self._copy:
                    self._entries, self._copy = self._copy, None
                    self._retained_bytes = sum(len(entry.command) for entry in self._entries)
                    for segment in self._segments[self._copy_start :]:  # all or none of them are needed
                        segment.last_index = max(segment.last_index, self._entries[-1].log_index)
            case _:
                raise ValueError(f"record of unknown type {kind}")


def _read_record(data: bytes, offset: int, seq: int) -> tuple[int, bytes, int] | None:
    """Type, payload and end of the record at `offset`, or None if there is no whole and sound one."""
    if offset + _HEADER.size > len(data):
        return None
    length, kind, payload_check, header_check = _HEADER.unpack_from(data, offset)
    head = data[offset : offset + _HEADER_HEAD.size]
    if zlib.crc32(_PLACE.pack(seq, offset) + head) != header_check or length > MAX_RECORD_BYTES:
        return None
    start = offset + _HEADER.size
    payload = data[start : start + length]
    if len(payload) < length or zlib.crc32(payload) != payload_check:
        return None
    return kind, payload, start + length


def _can_be_torn(data: bytes, offset: int, seq: int, group_start: int) -> bool:
    """Whether a write of the last group that stopped half-way can have left the bad record at `offset`."""
    if offset + _HEADER.size > len(data):
        return True
    length, _, _, header_check = _HEADER.unpack_from(data, offset)
    head = data[offset : offset + _HEADER_HEAD.size]
    if zlib.crc32(_PLACE.pack(seq, offset) + head) == header_check and (offset + _HEADER.size + length > len(data)):
        return True
    first_sector = group_start - group_start % _SECTOR_BYTES
    return any(
        not any(data[max(sector, group_start) : sector + _SECTOR_BYTES])
        for sector in range(first_sector, len(data), _SECTOR_BYTES)
    )


@contextmanager
def _stop_on_error(what: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise JournalFailed(f"{what}: {plain(error)}") from error
