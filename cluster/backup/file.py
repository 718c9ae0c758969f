"""A snapshot for keeping: one file that holds the CA and the record of issued certificates, and can be restored into a
new cluster. Private keys in it are sealed: without the seal key it opens nothing.

A gzip tar of `meta.json` (for people and `inspect`), `state.bin` (the data) and `SHA256SUMS` over both. `state.bin`
is a sequence of msgpack values: the format, the state (as in Raft's own snapshots), then lists of ledger rows.
"""

import gzip
import hashlib
import io
import json
import tarfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import IO, Any, Final

import msgpack

from cluster.api.backups import Meta
from cluster.base.errors import Refused
from fsm.codec import CodecError, check_command, check_leaf, dump_state, load_state
from fsm.leaves import MAX_REQUESTER, LeafRecord, RecordLeaves
from fsm.state import State

FORMAT: Final = 1
PAGE_ROWS: Final = 1000
MAX_FILE_BYTES: Final = 1 << 30
_META: Final = "meta.json"
_STATE: Final = "state.bin"
_SUMS: Final = "SHA256SUMS"
_MAX_META_BYTES: Final = 64 << 10
_MAX_DATA_BYTES: Final = 4 << 30
_MAX_VALUE_BYTES: Final = 32 << 20
_COMPRESSION: Final = 1  # certificates' records are mostly hashes: more effort saves little
_READ_BYTES: Final = 256 << 10


class SnapshotInvalid(Refused):
    """The file is no snapshot, or a damaged one; nothing was changed."""


@dataclass(frozen=True, slots=True)
class Row:
    """One issued certificate, as it is restored."""

    issuer_key_id: bytes
    record: LeafRecord


Pages = Callable[[int], list[tuple[Any, ...]]]  # ledger rows after an id, oldest first; empty at the end


def write(path: Path, meta: Meta, state: State, pages: Pages) -> Meta:
    """Write the file; returns its description, with the certificates counted. Raises: OSError."""
    data_path = path.with_suffix(".data")
    try:
        digest, size, count = _write_data(data_path, state, pages)
        meta = replace(meta, certificates=count)
        meta_bytes = json.dumps(asdict(meta), indent=2).encode()
        sums = f"{hashlib.sha256(meta_bytes).hexdigest()}  {_META}\n{digest}  {_STATE}\n".encode()
        with (
            path.open("wb") as raw,
            gzip.GzipFile(
                fileobj=raw, mode="wb", compresslevel=_COMPRESSION, mtime=meta.created_at, filename=""
            ) as zipped,
            tarfile.open(fileobj=zipped, mode="w", format=tarfile.USTAR_FORMAT) as tar,
        ):
            _add(tar, _META, len(meta_bytes), io.BytesIO(meta_bytes), meta.created_at)
            with data_path.open("rb") as data:
                _add(tar, _STATE, size, data, meta.created_at)
            _add(tar, _SUMS, len(sums), io.BytesIO(sums), meta.created_at)
    finally:
        data_path.unlink(missing_ok=True)
    return meta


def _write_data(path: Path, state: State, pages: Pages) -> tuple[str, int, int]:
    """Checksum, size in bytes, number of certificates."""
    digest, size, count = hashlib.sha256(), 0, 0

    with path.open("wb") as file:

        def put(value: object) -> None:
            nonlocal size
            packed: bytes = msgpack.packb(value)
            digest.update(packed)
            file.write(packed)
            size += len(packed)

        put(FORMAT)
        put(dump_state(state))
        after = 0
        while rows := pages(after):
            put([list(row) for row in rows])
            count += len(rows)
            after = rows[-1][0]
    return digest.hexdigest(), size, count


def _add(tar: tarfile.TarFile, name: str, size: int, content: IO[bytes], mtime: int) -> None:
    member = tarfile.TarInfo(name)
    member.size, member.mtime, member.mode = size, mtime, 0o600
    tar.addfile(member, content)


def read(path: Path) -> tuple[Meta, State, Iterator[list[Row]]]:
    """What the file holds; everything is checked before this returns. Raises: SnapshotInvalid, OSError."""
    with _as_invalid():
        meta, state, count = _read_through(path)
    if count != meta.certificates:
        raise SnapshotInvalid(f"the snapshot holds {count} certificates, its description says {meta.certificates}")
    return meta, state, _rows(path)


def _read_through(path: Path) -> tuple[Meta, State, int]:
    """Checks sums and every value on the way."""
    sums: dict[str, str] = {}
    written: dict[str, str] = {}
    meta: Meta | None = None
    state: State | None = None
    count = 0
    for name, content in _members(path):
        if name == _META:
            data = content.read(_MAX_META_BYTES + 1)
            sums[name] = hashlib.sha256(data).hexdigest()
            meta = _meta(data)
        elif name == _STATE:
            hashing = _Hashing(content)
            values = _values(hashing)
            state = _state(values)
            count = sum(len(_page(page)) for page in values)
            sums[name] = hashing.hexdigest()
        else:
            written = _parsed_sums(content.read(_MAX_META_BYTES + 1))
    if meta is None or state is None or not written:
        raise SnapshotInvalid(f"this is no snapshot: it must hold {_META}, {_STATE} and {_SUMS}")
    for name, digest in sums.items():
        if written.get(name) != digest:
            raise SnapshotInvalid(f"the snapshot is damaged: {name} does not have the checksum in {_SUMS}")
    return meta, state, count


def _rows(path: Path) -> Iterator[list[Row]]:
    with _as_invalid():
        for name, content in _members(path):
            if name == _STATE:
                values = _values(content)
                _state(values)
                for page in values:
                    yield _page(page)


def _members(path: Path) -> Iterator[tuple[str, IO[bytes]]]:
    with gzip.open(path) as zipped, tarfile.open(fileobj=zipped, mode="r|") as tar:
        seen: set[str] = set()
        for member in tar:
            content = tar.extractfile(member)
            if content is None or member.name not in (_META, _STATE, _SUMS) or member.name in seen:
                raise SnapshotInvalid(f"this is no snapshot: it holds {member.name!r:.100}")
            if member.size > (_MAX_DATA_BYTES if member.name == _STATE else _MAX_META_BYTES):
                raise SnapshotInvalid(f"the snapshot's {member.name} is too large: {member.size} bytes")
            seen.add(member.name)
            yield member.name, content
        # What follows is padding, but gzip's own checksum comes after it.
        rest = sum(len(data) for data in iter(lambda: zipped.read(_READ_BYTES), b""))
        if rest > _MAX_META_BYTES:
            raise SnapshotInvalid("the snapshot is damaged: there is more behind its end")


@contextmanager
def _as_invalid() -> Iterator[None]:
    """What the decoders make of damaged bytes: errors of tarfile, gzip, zlib and msgpack, which have no common base."""
    try:
        yield
    except (OSError, Refused) as error:
        if isinstance(error, gzip.BadGzipFile):
            raise SnapshotInvalid(f"the snapshot is damaged, or none: {error}") from error
        raise
    except Exception as error:
        raise SnapshotInvalid(f"the snapshot is damaged, or none: {error}") from error


class _Hashing:
    """A stream that is hashed as it is read."""

    def __init__(self, content: IO[bytes]) -> None:
        self._content = content
        self._digest = hashlib.sha256()

    def read(self, size: int) -> bytes:
        data = self._content.read(size)
        self._digest.update(data)
        return data

    def hexdigest(self) -> str:
        while self.read(_READ_BYTES):
            pass
        return self._digest.hexdigest()


def _values(content: Any) -> Iterator[Any]:
    unpacker = msgpack.Unpacker(max_buffer_size=_MAX_VALUE_BYTES)
    while data := content.read(_READ_BYTES):
        unpacker.feed(data)
        yield from unpacker


def _state(values: Iterator[Any]) -> State:
    found = next(values, None)
    if found != FORMAT:
        raise SnapshotInvalid(f"the snapshot has format {found!r:.20}, this version knows {FORMAT}")
    try:
        return load_state(next(values, b""))
    except (CodecError, TypeError) as error:
        raise SnapshotInvalid(f"the snapshot's state cannot be read: {error}") from error


def _page(page: Any) -> list[Row]:
    try:
        return [_row(row) for row in page]
    except (TypeError, ValueError, IndexError) as error:
        raise SnapshotInvalid(f"the snapshot's record of certificates cannot be read: {error}") from error


def _row(row: Any) -> Row:
    """In the order of `fsm.ledger.LedgerReader.export_rows`."""
    _, serial, kind, name, spiffe_id, issuer, fingerprint, not_before, not_after, by, request_id, _ = row
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
    check_leaf(record)
    check_command(RecordLeaves(issuer, ()))
    return Row(issuer, record)


def _meta(data: bytes) -> Meta:
    try:
        return Meta(**json.loads(data))
    except (ValueError, TypeError) as error:
        raise SnapshotInvalid(f"the snapshot's {_META} cannot be read: {error}") from error


def _parsed_sums(data: bytes) -> dict[str, str]:
    lines = [line.split() for line in data.decode("ascii", errors="replace").splitlines()]
    return {line[1]: line[0] for line in lines if len(line) == 2}
