"""A snapshot for keeping: one file that holds the CA and the record of issued certificates, and can be restored into a
new cluster. Private keys in it are sealed: without the seal key it opens nothing.

A gzip tar (archive.py) of `meta.json` (for people and `inspect`), `state.bin` (the data) and `SHA256SUMS` over both.
`state.bin` is a sequence of msgpack values: the format, the state (as in Raft's own snapshots), then lists of ledger
rows.

`SHA256SUMS` ends in a line with a MAC over the lines before it, and so over both members. Its key is derived from the
data key that the state holds wrapped: only who has the cluster's seal key can make one, and so nobody who merely gets
hold of a backup can put a root into it. The line is a comment to `sha256sum -c` and to releases that know no MAC.
Nothing of a file is trusted before its MAC has been compared but what it takes to do that.
"""

import hashlib
import hmac
import json
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from io import BytesIO
from pathlib import Path
from typing import Any, Final

import msgpack
import msgspec

from cluster.api.backups import Meta
from cluster.backup import archive
from cluster.backup.archive import Member, Rule, SnapshotInvalid
from cluster.base.bounds import check_value
from cluster.base.errors import Refused
from fsm.codec import CodecError, OutOfBounds, check_command, check_leaf, dump_state, load_state
from fsm.leaves import MAX_REQUESTER, LeafRecord, RecordLeaves
from fsm.ledger import ROW_FIELDS
from fsm.nodes import Nodes
from fsm.state import State

FORMAT: Final = 1
PAGE_ROWS: Final = 1000
MAX_FILE_BYTES: Final = 1 << 30
_META: Final = "meta.json"
_STATE: Final = "state.bin"
_SUMS: Final = "SHA256SUMS"
_MEMBERS: Final = (Rule(_META, 64 << 10), Rule(_STATE, 4 << 30), Rule(_SUMS, 1 << 10))
#: The state is restored by one command, which may be half as large (cluster/raft/node.py).
_MAX_STATE_BYTES: Final = 1 << 20
_MAX_STATE_VALUES: Final = 100_000
_MAX_DEPTH: Final = 16
_MAX_TEXT_BYTES: Final = 1 << 20
#: How many times larger than the file its content may be.
_MAX_RATIO: Final = 64
#: Of rows, kept at a time; their number is PAGE_ROWS at most.
_MAX_PAGE_BYTES: Final = 4 << 20
_MAX_SECONDS: Final = 253_402_300_799  # the end of year 9999, the last that a date can show
_SUM_LINES: Final = re.compile(
    rf"([0-9a-f]{{64}}  {re.escape(_META)}\n[0-9a-f]{{64}}  {re.escape(_STATE)}\n)"
    r"(?:# HMAC-SHA256 quorumca-snapshot-1 ([0-9a-f]{64})\n)?"
)
_MAC_LINE: Final = "# HMAC-SHA256 quorumca-snapshot-1 {}\n"

#: Makes the MAC of a snapshot's sums, with the key of its cluster (`NodeSealer.mac`, `Sealer.mac`).
Mac = Callable[[bytes], bytes]

__all__ = ["FORMAT", "MAX_FILE_BYTES", "PAGE_ROWS", "Row", "Saved", "SnapshotInvalid", "is_right_mac", "read", "write"]


@dataclass(frozen=True, slots=True)
class Row:
    """One issued certificate, as it is restored."""

    issuer_key_id: bytes
    record: LeafRecord


@dataclass(frozen=True, slots=True)
class Saved:
    """What a file holds. It is sound; whether it is what a cluster has saved, only `is_authentic` says."""

    meta: Meta
    state: State
    sums: bytes  # the lines that the MAC is over
    mac: str  # empty where there is none
    _path: Path

    @property
    def has_mac(self) -> bool:
        return bool(self.mac)

    def is_authentic(self, mac: Mac) -> bool:
        """Whether who wrote the file had the key that this makes MACs with; never without a MAC."""
        return is_right_mac(mac, self.sums, self.mac)

    def check_rows(self) -> None:
        """Read the record of certificates to its end. Raises: SnapshotInvalid, OSError."""
        count = sum(len(page) for page in self.pages())
        if count != self.meta.certificates:
            raise SnapshotInvalid(
                f"the snapshot holds {count} certificates, its description says {self.meta.certificates}"
            )

    def pages(self) -> Iterator[list[Row]]:
        """The record of certificates, read from the file again. Raises: SnapshotInvalid, OSError."""
        with _as_invalid():
            for name, member in archive.members(self._path, _rules(self._path)):
                if name == _STATE:
                    values = _values(member)
                    _state(values)
                    yield from _pages(values, member.size)


def is_right_mac(mac: Mac, sums: bytes, given: str) -> bool:
    """Never an empty one."""
    return bool(given) and hmac.compare_digest(mac(sums).hex().encode(), given.encode())


Pages = Callable[[int], list[tuple[Any, ...]]]  # ledger rows after an id, oldest first; empty at the end


def write(path: Path, meta: Meta, state: State, mac: Mac, pages: Pages) -> Meta:
    """Write the file; returns its description, with the certificates counted, and why it can be read and yet not be
    restored, if so.

    Raises: Refused for a state that no file can hold; OSError.
    """
    data_path = path.with_suffix(".data")
    try:
        digest, size, count, problem = _write_data(data_path, state, pages)
        meta = replace(meta, certificates=count, not_restorable=problem)
        meta_bytes = json.dumps(_shown(meta), indent=2).encode()
        sums = _sums_of(meta_bytes, digest)
        sums += _MAC_LINE.format(mac(sums).hex()).encode()
        for compression in (archive.COMPRESSION, 0):
            with data_path.open("rb") as data:
                parts = (
                    (_META, len(meta_bytes), BytesIO(meta_bytes)),
                    (_STATE, size, data),
                    (_SUMS, len(sums), BytesIO(sums)),
                )
                archive.write(path, parts, meta.created_at, compression)
            if size <= _room(path):
                break  # else it shrank by so much that a reader would take it for a bomb
    finally:
        data_path.unlink(missing_ok=True)
    return replace(meta, not_restorable=problem or _too_large(path, size))


def _shown(meta: Meta) -> dict[str, Any]:
    """What is not said of a good file is left out, as the release before left it out."""
    return {name: value for name, value in asdict(meta).items() if name != "not_restorable" or value}


def _too_large(path: Path, state_size: int) -> str:
    size, most = path.stat().st_size, _MEMBERS[1].max_bytes
    if size > MAX_FILE_BYTES:
        return f"the file has {size} bytes: at most {MAX_FILE_BYTES} are restored"
    return f"{_STATE} has {state_size} bytes: at most {most} are restored" if state_size > most else ""


def _sums_of(meta: bytes, state_digest: str) -> bytes:
    return f"{hashlib.sha256(meta).hexdigest()}  {_META}\n{state_digest}  {_STATE}\n".encode()


def _write_data(path: Path, state: State, pages: Pages) -> tuple[str, int, int, str]:
    """Checksum, size in bytes, number of certificates, and what is wrong with those that no restore takes."""
    digest, size, count = hashlib.sha256(), 0, 0
    problems = _Problems()

    with path.open("wb") as file:

        def put(value: object) -> None:
            nonlocal size
            packed: bytes = msgpack.packb(value)
            digest.update(packed)
            file.write(packed)
            size += len(packed)

        put(FORMAT)
        # How servers come to their certificates is of no use to another cluster, and is not taken back by this one.
        put(_dumped(replace(state, nodes_index=0, nodes=Nodes())))
        after = 0
        while rows := pages(after):
            put([list(row) for row in rows])
            problems.look_at(rows)
            count += len(rows)
            after = rows[-1][0]
    return digest.hexdigest(), size, count, problems.text()


def _dumped(state: State) -> bytes:
    """Raises: Refused for what `_state` would not take again."""
    data = dump_state(state)
    try:
        if len(data) > _MAX_STATE_BYTES:
            raise ValueError(f"it has {len(data)} bytes, allowed are {_MAX_STATE_BYTES}")
        check_value(data, max_items=_MAX_STATE_VALUES, max_depth=_MAX_DEPTH)
    except ValueError as error:
        raise Refused(f"the state cannot be saved, for no snapshot of it could be read: {error}") from error
    return data


class _Problems:
    """Of rows that are saved, and that a restore will refuse: the first by name, and how many there are."""

    def __init__(self) -> None:
        self._first = ""
        self._count = 0

    def look_at(self, rows: Sequence[Sequence[Any]]) -> None:
        for row in rows:
            try:
                _restored(row)
            except ValueError as error:
                self._count += 1
                self._first = self._first or str(error)

    def text(self) -> str:
        return self._first if self._count < 2 else f"{self._first}; {self._count - 1} more are out of bounds"


# -- reading


def read(path: Path) -> Saved:
    """What the file holds. Sums and all but the rows are checked before this returns; `Saved.check_rows` does the rest,
    once the MAC has been compared: there may be millions of them. Raises: SnapshotInvalid, OSError.
    """
    with _as_invalid():
        contents = archive.members(path, _rules(path))
        meta_bytes = next(contents)[1].whole()
        meta = _meta(meta_bytes)
        hashing = _Hashing(next(contents)[1])
        state = _state(_values(hashing))
        found = _sums_of(meta_bytes, hashing.hexdigest())
        sums, mac = _parsed_sums(next(contents)[1].whole())
        if next(contents, None) is not None:
            raise AssertionError("the archive has the members that were asked for")
    for name, own, written in zip((_META, _STATE), found.splitlines(), sums.splitlines(), strict=True):
        if own != written:
            raise SnapshotInvalid(f"the snapshot is damaged: {name} does not have the checksum in {_SUMS}")
    return Saved(meta, state, sums, mac or "", path)


def _rules(path: Path) -> tuple[Rule, ...]:
    """Records of certificates are mostly hashes and hardly ever shrink by much: what does is a bomb."""
    room = _room(path)
    return tuple(Rule(rule.name, min(rule.max_bytes, room)) for rule in _MEMBERS)


def _room(path: Path) -> int:
    """For the content of this file, of which `write` makes no more."""
    return _MAX_RATIO * path.stat().st_size + _MAX_STATE_BYTES


@contextmanager
def _as_invalid() -> Iterator[None]:
    """What the decoders make of damaged bytes: errors of msgpack and of what is built from its values."""
    try:
        yield
    except (OSError, SnapshotInvalid):
        raise
    except Exception as error:
        raise SnapshotInvalid(f"the snapshot is damaged, or none: {error}") from error


class _Hashing:
    """A member that is hashed as it is read."""

    def __init__(self, member: Member) -> None:
        self._member = member
        self._digest = hashlib.sha256()

    def read(self, size: int) -> bytes:
        data = self._member.read(size)
        self._digest.update(data)
        return data

    def hexdigest(self) -> str:
        """Of all of it."""
        while self.read(archive.READ_BYTES):
            pass
        return self._digest.hexdigest()


def _values(content: Any) -> msgpack.Unpacker:
    """A reader of single values, none of which is a list: those are read as their length, then one by one."""
    return msgpack.Unpacker(
        content,
        read_size=archive.READ_BYTES,
        max_buffer_size=2 * _MAX_STATE_BYTES,
        max_bin_len=_MAX_STATE_BYTES,
        max_str_len=_MAX_TEXT_BYTES,
        max_array_len=0,
        max_map_len=0,
        max_ext_len=0,
    )


def _state(values: msgpack.Unpacker) -> State:
    found = _next(values)
    if type(found) is not int or found != FORMAT:
        raise SnapshotInvalid(f"the snapshot has format {found!r:.20}, this version knows {FORMAT}")
    data = _next(values)
    try:
        if type(data) is not bytes:
            raise TypeError(f"it is {type(data).__name__}, not bytes")
        check_value(data, max_items=_MAX_STATE_VALUES, max_depth=_MAX_DEPTH)
        return load_state(data)
    except (CodecError, TypeError, ValueError) as error:
        raise SnapshotInvalid(f"the snapshot's state cannot be read: {error}") from error


def _next(values: msgpack.Unpacker) -> Any:
    try:
        return values.unpack()
    except msgpack.OutOfData:
        raise SnapshotInvalid(f"the snapshot is damaged: its {_STATE} ends early") from None


def _pages(values: msgpack.Unpacker, size: int) -> Iterator[list[Row]]:
    """Rows, in pieces of a bounded number of rows and bytes."""
    try:
        page: list[Row] = []
        began = values.tell()
        while values.tell() < size:
            count = values.read_array_header()
            if not count:
                raise ValueError("a list of no rows")
            for _ in range(count):
                page.append(_row(values))
                if len(page) >= PAGE_ROWS or values.tell() - began >= _MAX_PAGE_BYTES:
                    yield page
                    page, began = [], values.tell()
        if page:
            yield page
    except (msgpack.OutOfData, msgpack.UnpackException, TypeError, ValueError) as error:
        reason = "it ends early" if isinstance(error, msgpack.OutOfData) else error
        raise SnapshotInvalid(f"the snapshot's record of certificates cannot be read: {reason}") from error


def _row(values: msgpack.Unpacker) -> Row:
    if (found := values.read_array_header()) != ROW_FIELDS:
        raise ValueError(f"a row of {found} fields")
    return _restored([values.unpack() for _ in range(ROW_FIELDS)])


@lru_cache(maxsize=64)
def _check_issuer(key_id: bytes) -> None:
    """There are few, and a row for each leaf. Raises: OutOfBounds."""
    check_command(RecordLeaves(key_id, ()))


def _restored(row: Sequence[Any]) -> Row:
    """Of one in the order of `fsm.ledger.LedgerReader.export_rows`. Raises: ValueError for what may not be proposed."""
    row_id, serial, kind, name, spiffe_id, issuer, fingerprint, not_before, not_after, by, request_id, _ = row
    texts, blobs, numbers = (name, spiffe_id, by), (serial, issuer, fingerprint), (kind, not_before, not_after)
    if not (
        all(type(text) is str for text in texts)
        and all(type(blob) is bytes for blob in blobs)
        and all(type(number) is int for number in numbers)
        and (request_id is None or type(request_id) is bytes)
    ):
        raise ValueError("fields of a wrong type")
    # Cut short: an older release has recorded requesters of any length, and lost with them no restore should be.
    by = by[:MAX_REQUESTER]
    record = LeafRecord(serial, kind, name, spiffe_id, fingerprint, not_before, not_after, by, request_id or b"")
    try:
        check_leaf(record)
        _check_issuer(issuer)
    except OutOfBounds as error:
        raise ValueError(f"certificate {row_id!r:.40}: {error}") from error
    return Row(issuer, record)


def _meta(data: bytes) -> Meta:
    try:
        meta = msgspec.json.decode(data, type=Meta)
        for name, value in asdict(meta).items():
            if not value.isprintable() if isinstance(value, str) else not 0 <= value < 1 << 63:
                raise ValueError(f"{name} is {value!r:.60}")
        if meta.created_at > _MAX_SECONDS:
            raise ValueError(f"created_at is {meta.created_at}, and no date")
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise SnapshotInvalid(f"the snapshot's {_META} cannot be read: {error}") from error
    return meta


def _parsed_sums(data: bytes) -> tuple[bytes, str | None]:
    """The lines that the MAC is over, and the MAC if there is one. Raises: SnapshotInvalid."""
    found = _SUM_LINES.fullmatch(data.decode("ascii", errors="replace"))
    if found is None:
        raise SnapshotInvalid(
            f"the snapshot is damaged: {_SUMS} must hold a line for {_META}, one for {_STATE}, and perhaps one with a"
            " MAC"
        )
    return found[1].encode(), found[2]
