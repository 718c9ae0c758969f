"""The ledger: every issued certificate, in this node's own SQLite file. The only I/O in fsm is sqlite3.

Part of the state machine: written only by applying log entries, and by copying from another node what a snapshot stands
for. The Raft log is the source of durability, so a commit here need not be durable; SQLite keeps the file consistent
(WAL mode, synchronous=NORMAL) and `applied_log_index`, stored in the same transaction, makes replay idempotent.

Rows are the same on every node: `id` is the state index that the record took. The digest is a sum of row hashes, so it
does not depend on the order of inserts and stays right when expired rows are dropped.
"""

import hashlib
import heapq
import sqlite3
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, Final

import msgpack

from fsm.fields import MAX_INT64, MIN_INT64
from fsm.leaves import LeafKind, LeafRecord

FORMAT_VERSION: Final = 1

_SCHEMA: Final = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value NOT NULL) WITHOUT ROWID;
CREATE TABLE issuer (id INTEGER PRIMARY KEY, key_id BLOB NOT NULL UNIQUE);
CREATE TABLE identity (
  id INTEGER PRIMARY KEY, spiffe_id TEXT NOT NULL, kind INTEGER NOT NULL, name TEXT NOT NULL,
  UNIQUE (spiffe_id, kind, name));
CREATE INDEX identity_by_name ON identity (name);
CREATE TABLE cert (
  id INTEGER PRIMARY KEY,
  serial BLOB NOT NULL UNIQUE,
  identity INTEGER NOT NULL,
  issuer INTEGER NOT NULL,
  public_key_sha256 BLOB NOT NULL,
  not_before INTEGER NOT NULL,
  not_after INTEGER NOT NULL,
  requested_by TEXT NOT NULL,
  request_id BLOB,
  log_index INTEGER NOT NULL);
CREATE INDEX cert_by_identity ON cert (identity, id);
CREATE INDEX cert_by_expiry ON cert (not_after, id);
CREATE UNIQUE INDEX cert_by_request ON cert (request_id) WHERE request_id IS NOT NULL;
"""
#: What follows it is joined from constants; values are bound.
_SELECT_ROWS: Final = (
    "SELECT cert.id, serial, identity.kind, identity.name, identity.spiffe_id, issuer.key_id, public_key_sha256,"
    " not_before, not_after, requested_by, request_id, log_index"
    " FROM cert JOIN identity ON identity.id = cert.identity JOIN issuer ON issuer.id = cert.issuer"
)
_DIGEST_MODULUS: Final = 1 << 256
#: Ids held at a time, while rows go.
_ROWS_PER_CUT: Final = 1000
#: Rows that are read together take no more than this, or are a single one: most have a few hundred bytes, but there may
#: be some of half a mebibyte.
PART_BYTES: Final = 1 << 20
#: In parts: where a log entry is divided whose rows, each with the issuer's name, are much larger than it was.
_MOST_PARTS: Final = 8
#: In `meta` while a copy is under way: the log index of its last row.
_COPIED: Final = "copied_log_index"
_CACHED_IDS: Final = 4096
_KEPT_LOG_BYTES: Final = 64 << 20
#: Serials are random: each new one changes a page of its own, all of which is written, so small pages write less.
_PAGE_BYTES: Final = 1024
#: As random, what is read comes from the system's cache anyway: more here costs memory and saves no CPU.
_WRITER_CACHE_KIB: Final = 1024
_READER_CACHE_KIB: Final = 512
#: After every character of a name.
_LAST: Final = "\U0010ffff"

#: The columns, and the type of what each holds. What a command may bring has narrower bounds (`fsm.leaves.LeafRecord`),
#: but an earlier release had none, and what it has recorded stays on record, is copied and saved: see `check_row`.
_ROW: Final[tuple[tuple[str, tuple[type, ...]], ...]] = (
    ("id", (int,)),
    ("serial", (bytes,)),
    ("kind", (int,)),
    ("name", (str,)),
    ("spiffe_id", (str,)),
    ("issuer_key_id", (bytes,)),
    ("public_key_sha256", (bytes,)),
    ("not_before", (int,)),
    ("not_after", (int,)),
    ("requested_by", (str,)),
    ("request_id", (bytes, type(None))),
    ("log_index", (int,)),
)
ROW_FIELDS: Final = len(_ROW)
#: These count; any other number is whatever SQLite can hold.
_COUNTS: Final = frozenset({"id", "log_index"})

#: What reading a damaged file may raise: SQLite's own, and ours for a value in `meta` that is none of what we wrote.
_UNREADABLE: Final = (sqlite3.DatabaseError, KeyError, TypeError, ValueError)


class LedgerDamaged(Exception):
    """The file is not a sound ledger of a format this node knows."""


@dataclass(frozen=True, slots=True)
class LedgerRow:
    """One issued certificate as the ledger holds it."""

    index: int  # state index: CreateIndex
    record: LeafRecord
    issuer_key_id: bytes
    log_index: int


@dataclass(frozen=True, slots=True)
class LedgerSummary:
    applied_log_index: int
    count: int
    digest: str  # hex


@dataclass(frozen=True, slots=True)
class LedgerQuery:
    """Filters are joined by AND; rows come in the order they were issued.

    `services` costs what these services have, and nothing that others have. It goes with `spiffe_id` alone.
    """

    service: str | None = None
    spiffe_id: str | None = None
    kind: LeafKind | None = None
    issuer_key_id: bytes | None = None
    expires_before: int | None = None
    after: int = 0  # id of the last row of the page before
    limit: int = 100
    services: tuple[str, ...] = ()  # empty: whatever it is of
    #: What `requested_by` begins with.
    requested_by: str | None = None


def check_row(row: Sequence[Any]) -> None:
    """Whether this can be a row of a ledger of any release, of which a node must be able to make a copy.

    Raises: ValueError, which names the field.
    """
    if len(row) != ROW_FIELDS:
        raise ValueError(f"ledger row of {len(row)} fields: must have {ROW_FIELDS}")
    for (name, kinds), value in zip(_ROW, row, strict=True):
        if type(value) not in kinds:  # exactly: SQLite gives a bool back as a number
            raise ValueError(
                f"ledger row {row[0]!r:.40} with fields of a wrong type: {name} is {type(value).__name__}, must be"
                f" {' or '.join(kind.__name__ for kind in kinds)}"
            )
        least = 0 if name in _COUNTS else MIN_INT64
        if type(value) is int and not least <= value <= MAX_INT64:
            raise ValueError(f"ledger row {row[0]!r:.40}: {name} is {value}, must be from {least} to {MAX_INT64}")


def _row_hash(row: Sequence[Any]) -> int:
    """Over everything but the log index, which a restore into a new cluster would change."""
    return int.from_bytes(hashlib.sha256(msgpack.packb(list(row[:11]))).digest(), "big")


class Ledger:
    """The writing side; one per node, used from one thread at a time. Opens or creates the file at `path`.

    Writes become visible to readers, and are counted as applied, at `commit`.
    Raises: LedgerDamaged; sqlite3.Error when the disk fails, after which the process must stop.
    """

    def __init__(self, path: str) -> None:
        try:
            self._db = _open(path, _WRITER_CACHE_KIB)
            self._prepare()
        except _UNREADABLE as error:
            raise LedgerDamaged(f"{path}: {error!r}") from error
        self._is_open_transaction = False
        self._issuers: dict[bytes, int] = {}
        self._identities: dict[tuple[str, int, str], int] = {}

    def _prepare(self) -> None:
        if not self._db.execute("SELECT 1 FROM sqlite_master WHERE name = 'meta'").fetchone():
            # One transaction: a process killed in between must find either nothing or a whole ledger.
            self._db.executescript(f"BEGIN;{_SCHEMA}")
            self._write_meta(format=FORMAT_VERSION, applied_log_index=0, last_id=0, count=0, digest="0" * 64)
            self._db.execute("COMMIT")
        meta = dict(self._db.execute("SELECT key, value FROM meta"))
        if meta.get("format") != FORMAT_VERSION:
            raise sqlite3.DatabaseError(f"ledger format {meta.get('format')!r} is not known")
        # A damaged header may make it read-only: found now, and not when the first certificate is to be recorded.
        self._db.executescript("BEGIN; UPDATE meta SET value = value WHERE key = 'format'; ROLLBACK")
        self._applied_log_index = int(meta["applied_log_index"])
        self._last_id = int(meta["last_id"])
        self._count = int(meta["count"])
        self._digest = int(meta["digest"], 16)

    def _write_meta(self, **values: int | str) -> None:
        self._db.executemany("INSERT OR REPLACE INTO meta VALUES (?, ?)", values.items())

    # -- applying log entries

    @property
    def applied_log_index(self) -> int:
        """Entries up to here are in the ledger; applying one of them again is refused by the caller. Rows that are
        being copied from another node do not move it: they count once the copy is whole (`cut_to`).
        """
        return self._applied_log_index

    @property
    def last_id(self) -> int:
        """Highest row id there ever was."""
        return self._last_id

    def add(
        self, log_index: int, first_id: int, issuer_key_id: bytes, records: Sequence[LeafRecord]
    ) -> tuple[int, ...]:
        """Record certificates; returns the positions of those refused because serial or request is known already."""
        self._begin()
        issuer = self._issuer(issuer_key_id)
        duplicates = []
        for position, record in enumerate(records):
            row = _row_of(LedgerRow(first_id + position, record, issuer_key_id, log_index))
            if not self._insert(row, issuer):
                duplicates.append(position)
        self._last_id = first_id + len(records) - 1
        return tuple(duplicates)

    def tidy(self, expired_before: int) -> int:
        """Drop records of certificates that expired before this time; returns how many.

        Any time: that of a restored state was not always looked at.
        """
        self._begin()
        expired_before = max(MIN_INT64, min(expired_before, MAX_INT64))
        rows = self._db.execute(f"{_SELECT_ROWS} WHERE not_after < ?", (expired_before,))
        return self._delete(rows)

    def _delete(self, rows: Iterable[Sequence[Any]]) -> int:
        """One row is held at a time, whatever they hold; returns how many there were."""
        ids = []
        for row in rows:
            self._digest = (self._digest - _row_hash(row)) % _DIGEST_MODULUS
            ids.append((row[0],))
        self._count -= len(ids)
        self._db.executemany("DELETE FROM cert WHERE id = ?", ids)
        return len(ids)

    def commit(self, applied_log_index: int) -> None:
        """Make everything since the last commit visible. Durable once the write-ahead log is synced."""
        self._applied_log_index = max(self._applied_log_index, applied_log_index)
        if not self._is_open_transaction:
            return  # entries without records: remembered with the next ones, for applying them again changes nothing
        self._write_meta(
            applied_log_index=self._applied_log_index,
            last_id=self._last_id,
            count=self._count,
            digest=f"{self._digest:064x}",
        )
        self._db.execute("COMMIT")
        self._is_open_transaction = False

    def start_log_again(self) -> None:
        """Copy the few pages that a `checkpoint` beside this writer left, so that the next commit starts a new log.

        Without it the write-ahead log of a ledger that is always written to would grow without end.
        """
        if not self._is_open_transaction:
            _checkpoint(self._db)

    def _begin(self) -> None:
        if not self._is_open_transaction:
            self._db.execute("BEGIN IMMEDIATE")
            self._is_open_transaction = True

    def _insert(self, row: Sequence[Any], issuer: int) -> bool:
        identity = self._identity(row[4], row[2], row[3])
        cursor = self._db.execute(
            "INSERT OR IGNORE INTO cert VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (row[0], row[1], identity, issuer, *row[6:]),
        )
        if cursor.rowcount != 1:
            return False
        self._count += 1
        self._digest = (self._digest + _row_hash(row)) % _DIGEST_MODULUS
        return True

    def _issuer(self, key_id: bytes) -> int:
        found = self._issuers.get(key_id)
        if found is None:
            self._db.execute("INSERT OR IGNORE INTO issuer (key_id) VALUES (?)", (key_id,))
            found = self._issuers[key_id] = self._one("SELECT id FROM issuer WHERE key_id = ?", key_id)
        return found

    def _identity(self, spiffe_id: str, kind: int, name: str) -> int:
        identity = (spiffe_id, kind, name)
        found = self._identities.get(identity)
        if found is None:
            self._db.execute("INSERT OR IGNORE INTO identity (spiffe_id, kind, name) VALUES (?, ?, ?)", identity)
            found = self._one("SELECT id FROM identity WHERE spiffe_id = ? AND kind = ? AND name = ?", *identity)
            if len(self._identities) >= _CACHED_IDS:
                self._identities.clear()
            self._identities[identity] = found
        return found

    def _one(self, sql: str, *parameters: object) -> int:
        return int(self._db.execute(sql, parameters).fetchone()[0])

    # -- copying from another node

    def import_rows(self, rows: Iterable[Sequence[Any]]) -> None:
        """Add rows that another node's `LedgerReader.export_rows` gave, after `last_id`. Then `commit`, as of the entry
        before: until `cut_to` they are of a copy that is under way.

        Raises: ValueError when they do not follow what is here: nothing may be committed then.
        """
        self._begin()
        log_index = 0
        for row in rows:
            if row[0] <= self._last_id or not self._insert(row, self._issuer(row[5])):
                raise ValueError(f"ledger row {row[0]} does not follow row {self._last_id}")
            self._last_id, log_index = row[0], row[11]
        self._write_meta(**{_COPIED: log_index})

    def cut_to(self, last_id: int, applied_log_index: int) -> None:
        """Be what a ledger is after this log entry, when `last_id` was the highest there had been. Then `commit`.

        Rows above it go: they are of a copy that did not get to its end. Those missing below were dropped as expired.
        """
        self._begin()
        while self._delete(self._rows_above(last_id)):
            pass
        self._db.execute("DELETE FROM meta WHERE key = ?", (_COPIED,))
        self._last_id, self._applied_log_index = last_id, applied_log_index

    def _rows_above(self, last_id: int) -> Iterable[Sequence[Any]]:
        sql = f"{_SELECT_ROWS} WHERE cert.id > ? ORDER BY cert.id DESC LIMIT {_ROWS_PER_CUT}"
        return self._db.execute(sql, (last_id,))

    def rollback(self) -> None:
        """Forget what was not committed."""
        if self._is_open_transaction:
            self._db.execute("ROLLBACK")
            self._is_open_transaction = False
        self._issuers.clear()
        self._identities.clear()
        self._prepare()

    @property
    def summary(self) -> LedgerSummary:
        """As of the last commit."""
        return LedgerSummary(self._applied_log_index, self._count, f"{self._digest:064x}")

    def close(self) -> None:
        self._db.close()


def checkpoint(path: str) -> int:
    """Copy the write-ahead log of the ledger at `path` into the file and sync it; returns the pages left to copy.

    For any thread: it stops neither the writer nor readers, who may each keep pages from being copied. So it makes
    nothing durable for certain; the write-ahead log has to be synced for that.
    """
    db = _open(path, _READER_CACHE_KIB)
    try:
        return _checkpoint(db)
    finally:
        db.close()


def _checkpoint(db: sqlite3.Connection) -> int:
    is_busy, in_log, copied = db.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
    return 1 << 30 if is_busy else int(in_log - copied)


class LedgerReader:
    """A reading side, for one thread; sees what was committed when each call began."""

    def __init__(self, path: str) -> None:
        self._db = _open(path, _READER_CACHE_KIB)
        self._db.execute("PRAGMA query_only = ON")

    def summary(self) -> LedgerSummary:
        meta = dict(self._db.execute("SELECT key, value FROM meta"))
        return LedgerSummary(int(meta["applied_log_index"]), int(meta["count"]), str(meta["digest"]))

    def identities(self, valid_at: int, since: int) -> tuple[int, int]:
        """SPIFFE IDs with a certificate valid at this time, and how many of them got one after the index `since`."""
        sql = "SELECT count(DISTINCT identity) FROM cert WHERE not_after >= ?"
        (held,) = self._db.execute(sql, (valid_at,)).fetchone()
        (renewed,) = self._db.execute(f"{sql} AND id > ?", (valid_at, since)).fetchone()
        return int(held), int(renewed)

    def valid_count(self, valid_at: int, issuer_key_id: bytes) -> int:
        """Certificates by this key that have not expired at this time."""
        sql = (
            "SELECT count(*) FROM cert JOIN issuer ON issuer.id = cert.issuer"
            " WHERE cert.not_after >= ? AND issuer.key_id = ?"
        )
        (count,) = self._db.execute(sql, (valid_at, issuer_key_id)).fetchone()
        return int(count)

    def damage(self) -> str:
        """What is wrong with the file; empty if nothing. Reads all of it.

        SQLite has no checksums: it finds a broken structure, but not a byte that changed in a row. The digest does.
        """
        try:
            self._db.execute("BEGIN")  # one moment for all three
            try:
                (found,) = self._db.execute("PRAGMA integrity_check(1)").fetchone()
                return self._wrong_rows() if found == "ok" else str(found)
            finally:
                self._db.execute("ROLLBACK")
        except _UNREADABLE as error:
            return repr(error)

    def _wrong_rows(self) -> str:
        count = total = log_index = 0
        written = self.summary()
        copied = self._db.execute("SELECT value FROM meta WHERE key = ?", (_COPIED,)).fetchone()
        last = max(written.applied_log_index, int(copied[0]) if copied else 0)
        for row in self._db.execute(f"{_SELECT_ROWS} ORDER BY cert.id"):
            count += 1
            total += _row_hash(row)
            # Not in the digest, but it grows with the id: nodes that copy a row with a wrong one refuse it.
            if not log_index <= row[11] <= last:
                return f"certificate {row[0]} has log index {row[11]}, between {log_index} and the last one applied"
            log_index = row[11]
        read = count, f"{total % _DIGEST_MODULUS:064x}"
        if (written.count, written.digest) == read:
            return ""
        return (
            f"holds {count} certificates with digest {read[1]}, but {written.count} with {written.digest} were written"
        )

    def find(self, serial: bytes) -> LedgerRow | None:
        row = self._db.execute(f"{_SELECT_ROWS} WHERE serial = ?", (serial,)).fetchone()
        return _ledger_row(row) if row else None

    def find_request(self, request_id: bytes) -> LedgerRow | None:
        """What is on record for a request; the serial is the id of one that has no other."""
        row = self._db.execute(f"{_SELECT_ROWS} WHERE request_id = ?", (request_id,)).fetchone()
        return _ledger_row(row) if row else self.find(request_id)

    def newest(self, spiffe_id: str) -> tuple[int, int] | None:
        """The validity of the certificate of this SPIFFE ID that was issued last. One look-up, however many it has."""
        row = self._db.execute(
            "SELECT not_before, not_after FROM cert"
            " WHERE identity = (SELECT max(id) FROM identity WHERE spiffe_id = ?) ORDER BY id DESC LIMIT 1",
            (spiffe_id,),
        ).fetchone()
        return (int(row[0]), int(row[1])) if row else None

    def search(self, query: LedgerQuery) -> list[LedgerRow]:
        """At most `limit` rows after `after`, and fewer where that many would be more than a page (`fills_page`)."""
        if query.services:
            return self._search_services(query)
        conditions = ["cert.id > ?"]
        parameters: list[object] = [query.after]
        for condition, value in (
            ("identity.name = ?", query.service),
            ("identity.kind = ?", LeafKind.SERVICE if query.service is not None else None),
            ("identity.spiffe_id = ?", query.spiffe_id),
            ("identity.kind = ?", query.kind),
            ("issuer.key_id = ?", query.issuer_key_id),
            ("not_after < ?", query.expires_before),
            ("instr(requested_by, ?) = 1", query.requested_by),
        ):
            if value is not None:
                conditions.append(condition)
                parameters.append(value)
        sql = f"{_SELECT_ROWS} WHERE {' AND '.join(conditions)} ORDER BY cert.id LIMIT ?"
        rows: list[LedgerRow] = []
        size = 0
        found = self._db.execute(sql, (*parameters, query.limit))
        for row in found:
            rows.append(_ledger_row(row))
            size += _bytes_of(row)
            if size >= PART_BYTES:
                break
        found.close()
        return rows

    def _search_services(self, query: LedgerQuery) -> list[LedgerRow]:
        """Merges what the index has of each identity, where a join would look through the rows of all."""
        marks = ",".join("?" * len(query.services))
        sql = f"SELECT id FROM identity WHERE name IN ({marks}) AND kind = ?"  # nosec B608 # noqa: S608 - question marks
        parameters: list[object] = [*query.services, LeafKind.SERVICE]
        if query.spiffe_id is not None:
            sql += " AND spiffe_id = ?"
            parameters.append(query.spiffe_id)
        of_one = "SELECT id FROM cert WHERE identity = ? AND id > ? ORDER BY id LIMIT ?"
        rows: list[LedgerRow] = []
        size = 0
        self._db.execute("BEGIN")  # one moment for all of them
        try:
            identities = self._db.execute(sql, parameters).fetchall()
            found = [self._db.execute(of_one, (identity, query.after, query.limit)) for (identity,) in identities]
            for (row_id,) in islice(heapq.merge(*found), query.limit):
                row = self._db.execute(f"{_SELECT_ROWS} WHERE cert.id = ?", (row_id,)).fetchone()
                rows.append(_ledger_row(row))
                size += _bytes_of(row)
                if size >= PART_BYTES:
                    break
            for cursor in found:
                cursor.close()
        finally:
            self._db.execute("ROLLBACK")
        return rows

    def service_names(self, prefixes: Iterable[str], at_most: int) -> list[str]:
        """Of services on record that begin so, each once; no more are looked at than `at_most`, and one."""
        sql = "SELECT DISTINCT name FROM identity WHERE name >= ? AND name < ? AND kind = ? ORDER BY name LIMIT ?"
        names: dict[str, None] = {}
        for prefix in prefixes:
            found = self._db.execute(sql, (prefix, prefix + _LAST, LeafKind.SERVICE, at_most + 1))
            names.update((name, None) for (name,) in found)
            if len(names) > at_most:
                break
        return list(names)

    def tidy_time(self, expired_before: int, at_most: int) -> int:
        """The latest time up to `expired_before` before which about `at_most` certificates have expired."""
        row = self._db.execute(
            "SELECT not_after FROM cert WHERE not_after < ? ORDER BY not_after, id LIMIT 1 OFFSET ?",
            (expired_before, at_most),
        ).fetchone()
        return int(row[0]) + 1 if row else expired_before

    def export_rows(self, after: int, up_to: int, at_least: int, part_bytes: int = PART_BYTES) -> list[tuple[Any, ...]]:
        """Rows with after < id <= up_to, oldest first; none only if there are none.

        They end with the log entry that makes them `at_least` many, or `part_bytes` large. Only an entry whose rows are
        larger than any of this release is divided.
        """
        sql = f"{_SELECT_ROWS} WHERE cert.id > ? AND cert.id <= ? ORDER BY cert.id"
        rows: list[tuple[Any, ...]] = []
        size = 0
        found = self._db.execute(sql, (after, up_to))
        for row in found:
            if len(rows) >= at_least or size >= part_bytes:
                is_too_large = size + _bytes_of(row) > _MOST_PARTS * part_bytes
                if row[11] != rows[-1][11] or is_too_large:
                    break
            rows.append(row)
            size += _bytes_of(row)
        found.close()
        return rows

    def close(self) -> None:
        self._db.close()


def fills_page(rows: Iterable[LedgerRow]) -> bool:
    """Whether there may be more after these, however few they are."""
    return sum(_bytes_of(_row_of(row)) for row in rows) >= PART_BYTES


def _bytes_of(row: Sequence[Any]) -> int:
    """Of its texts and bytes, as they are written."""
    size = 0
    for value in row:
        if type(value) is str:
            size += len(value) if value.isascii() else len(value.encode())
        elif type(value) is bytes:
            size += len(value)
    return size


def _open(path: str, cache_kib: int) -> sqlite3.Connection:
    # Threads are kept apart by the owners; the check of sqlite3 itself would forbid closing from another one.
    db = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=10)
    db.execute(f"PRAGMA page_size = {_PAGE_BYTES}")  # of a new file
    db.execute("PRAGMA journal_mode = WAL")
    db.execute("PRAGMA synchronous = NORMAL")
    # Checkpoints sync, so they are for other threads and never for the apply path.
    db.execute("PRAGMA wal_autocheckpoint = 0")
    db.execute(f"PRAGMA journal_size_limit = {_KEPT_LOG_BYTES}")
    db.execute(f"PRAGMA cache_size = -{cache_kib}")
    return db


def _row_of(row: LedgerRow) -> tuple[Any, ...]:
    record = row.record
    return (
        row.index,
        record.serial,
        record.kind,
        record.name,
        record.spiffe_id,
        row.issuer_key_id,
        record.public_key_sha256,
        record.not_before,
        record.not_after,
        record.requested_by,
        record.request_id or None,
        row.log_index,
    )


def _ledger_row(row: Sequence[Any]) -> LedgerRow:
    record = LeafRecord(row[1], row[2], row[3], row[4], row[6], row[7], row[8], row[9], row[10] or b"")
    return LedgerRow(row[0], record, row[5], row[11])
