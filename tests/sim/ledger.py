"""`cluster.raft.machine` over a ledger in memory: the very code of it, with another ledger under it.

A store has what SQLite's file and write-ahead log would have: commits, of which a power cut keeps those that were
synced and any number of the ones behind them. A process that ends leaves every commit, and nothing else.
"""

import bisect
import hashlib
import importlib.util
import random
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any, Final

import msgpack

from cluster.raft.machine import ReplicatedMachine
from fsm.leaves import LeafRecord
from fsm.ledger import PART_BYTES, LedgerReader, LedgerSummary
from fsm.state import State

Row = tuple[Any, ...]
_MODULUS: Final = 1 << 256


def row_hash(row: Sequence[Any]) -> int:
    return int.from_bytes(hashlib.sha256(msgpack.packb(list(row[:11]))).digest(), "big")


def row_of(row_id: int, record: LeafRecord, issuer_key_id: bytes, log_index: int) -> Row:
    """As the ledger's columns."""
    who = (row_id, record.serial, record.kind, record.name, record.spiffe_id, issuer_key_id)
    return (
        *who,
        record.public_key_sha256,
        record.not_before,
        record.not_after,
        record.requested_by,
        record.request_id or None,
        log_index,
    )


@dataclass(slots=True)
class Table:
    """Rows by id, each serial and request once."""

    rows: dict[int, Row] = field(default_factory=dict)
    serials: set[bytes] = field(default_factory=set)
    requests: set[bytes] = field(default_factory=set)
    digest: int = 0

    def insert(self, row: Row) -> bool:
        """False, and nothing done, if it is there already in any sense."""
        if row[0] in self.rows or row[1] in self.serials or row[10] in self.requests:
            return False
        self.rows[row[0]] = row
        self.serials.add(row[1])
        if row[10] is not None:
            self.requests.add(row[10])
        self.digest = (self.digest + row_hash(row)) % _MODULUS
        return True

    def delete(self, row: Row) -> None:
        del self.rows[row[0]]
        self.serials.remove(row[1])
        self.requests.discard(row[10])
        self.digest = (self.digest - row_hash(row)) % _MODULUS

    def expired(self, before: int) -> list[Row]:
        return [row for row in self.rows.values() if row[8] < before]

    @property
    def bulk(self) -> tuple[int, str]:
        return len(self.rows), f"{self.digest:064x}"


@dataclass(frozen=True, slots=True)
class _Commit:
    applied_log_index: int
    last_id: int
    changes: tuple[tuple[bool, Row], ...]  # inserted or deleted, in order


@dataclass(slots=True)
class MemoryStore:
    """What a node has on disk in place of `ledger.db`. Stands for its path, too: `MemoryLedger(store)` opens it."""

    rows_per_commit: int = 1
    table: Table = field(default_factory=Table)
    commits: list[_Commit] = field(default_factory=list)
    durable: int = 0  # so many commits
    pending: list[tuple[bool, Row]] = field(default_factory=list)

    def open(self) -> "LedgerMachine":
        return LedgerMachine(_MEMORY.ReplicatedMachine, self, self.rows_per_commit)

    def kill(self) -> None:
        self.undo_pending()

    def cut_power(self, rng: random.Random) -> None:
        self.undo_pending()
        kept = rng.randint(self.durable, len(self.commits))
        for commit in reversed(self.commits[kept:]):
            self._undo(commit.changes)
        del self.commits[kept:]
        self.durable = kept

    def wipe(self) -> None:
        self.table, self.commits, self.durable, self.pending = Table(), [], 0, []

    def undo_pending(self) -> None:
        self._undo(self.pending)
        self.pending = []

    def _undo(self, changes: Sequence[tuple[bool, Row]]) -> None:
        for is_inserted, row in reversed(changes):
            if is_inserted:
                self.table.delete(row)
            else:
                self.table.insert(row)

    def committed_rows(self) -> list[Row]:
        """What another connection sees, oldest first."""
        rows = dict(self.table.rows)
        for is_inserted, row in reversed(self.pending):
            if is_inserted:
                del rows[row[0]]
            else:
                rows[row[0]] = row
        return [rows[row_id] for row_id in sorted(rows)]


class MemoryLedger:
    """`fsm.ledger.Ledger`, as far as `cluster.raft.machine` uses it."""

    def __init__(self, store: MemoryStore) -> None:
        self._store = store
        self.rollback()

    def rollback(self) -> None:
        self._store.undo_pending()
        last = self._store.commits[-1] if self._store.commits else _Commit(0, 0, ())
        self._applied_log_index, self._last_id = last.applied_log_index, last.last_id
        self._is_changed = False

    @property
    def applied_log_index(self) -> int:
        return self._applied_log_index

    @property
    def last_id(self) -> int:
        return self._last_id

    @property
    def summary(self) -> LedgerSummary:
        return LedgerSummary(self._applied_log_index, *self._store.table.bulk)

    def add(
        self, log_index: int, first_id: int, issuer_key_id: bytes, records: Sequence[LeafRecord]
    ) -> tuple[int, ...]:
        self._is_changed = True
        duplicates = []
        for position, record in enumerate(records):
            if not self._insert(row_of(first_id + position, record, issuer_key_id, log_index)):
                duplicates.append(position)
        self._last_id = first_id + len(records) - 1
        return tuple(duplicates)

    def _insert(self, row: Row) -> bool:
        if not self._store.table.insert(row):
            return False
        self._store.pending.append((True, row))
        return True

    def tidy(self, expired_before: int) -> int:
        self._is_changed = True
        rows = self._store.table.expired(expired_before)
        for row in rows:
            self._store.table.delete(row)
            self._store.pending.append((False, row))
        return len(rows)

    def commit(self, applied_log_index: int) -> None:
        self._applied_log_index = max(self._applied_log_index, applied_log_index)
        if self._is_changed:
            store = self._store
            store.commits.append(_Commit(self._applied_log_index, self._last_id, tuple(store.pending)))
            store.pending = []
            self._is_changed = False

    def import_rows(self, rows: Iterable[Sequence[Any]]) -> None:
        self._is_changed = True
        for row in rows:
            if row[0] <= self._last_id or not self._insert(tuple(row)):
                raise ValueError(f"ledger row {row[0]} does not follow row {self._last_id}")
            self._last_id = row[0]

    def cut_to(self, last_id: int, applied_log_index: int) -> None:
        self._is_changed = True
        for row in [row for row_id, row in self._store.table.rows.items() if row_id > last_id]:
            self._store.table.delete(row)
            self._store.pending.append((False, row))
        self._last_id, self._applied_log_index = last_id, applied_log_index

    def start_log_again(self) -> None: ...
    def close(self) -> None: ...


class _MemoryReader:
    """`fsm.ledger.LedgerReader`, as far as `cluster.raft.machine` uses it."""

    def __init__(self, store: MemoryStore) -> None:
        self._rows = store.committed_rows()

    def export_rows(self, after: int, up_to: int, at_least: int, part_bytes: int = PART_BYTES) -> list[Row]:
        """The rows of a simulation are small: they fill no part."""
        del part_bytes
        start = bisect.bisect_right(self._rows, after, key=lambda row: row[0])
        rows = [row for row in self._rows[start:] if row[0] <= up_to]
        end = min(at_least, len(rows))
        while 0 < end < len(rows) and rows[end][11] == rows[end - 1][11]:
            end += 1
        return rows[:end]

    def close(self) -> None: ...


def _make_durable(store: MemoryStore) -> int:
    store.durable = len(store.commits)
    return 0


def _over_memory() -> ModuleType:
    """A second copy of the module, so that the one which everybody else uses is left alone."""
    spec = importlib.util.find_spec("cluster.raft.machine")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    replaced = {"Ledger": MemoryLedger, "LedgerReader": _MemoryReader, "_make_durable": _make_durable}
    for name, value in {**replaced, "_BULK_ROWS": 20}.items():
        assert hasattr(module, name), name
        setattr(module, name, value)
    return module


_MEMORY: Final = _over_memory()


class LedgerMachine:
    """A ReplicatedMachine, over one ledger or the other, with what there is to judge (SimMachine)."""

    def __init__(self, kind: Any, path: "MemoryStore | str", rows_per_commit: int) -> None:
        self._path = path
        self.replicated: ReplicatedMachine = kind(path, lambda _state: None, rows_per_commit=rows_per_commit)
        machine = self.replicated
        self.apply, self.commit, self.capture = machine.apply, machine.commit, machine.capture
        self.check, self.load, self.install = machine.check, machine.load, machine.install
        self.bulk_position, self.bulk_read = machine.bulk_position, machine.bulk_read
        self.bulk_begin, self.bulk_write, self.bulk_restart = (
            machine.bulk_begin,
            machine.bulk_write,
            machine.bulk_restart,
        )

    @property
    def state(self) -> State:
        return self.replicated.state

    def bulk(self) -> tuple[int, str]:
        self.replicated.flush_ledger()
        summary = self.replicated.ledger_summary
        return summary.count, summary.digest

    def rows(self) -> list[Row]:
        self.replicated.flush_ledger()
        path = self._path
        reader = LedgerReader(path) if isinstance(path, str) else _MemoryReader(path)
        try:
            return reader.export_rows(0, 1 << 62, 1 << 31, 1 << 40)
        finally:
            reader.close()


class SqliteStore:
    """The real ledger, in files. What a process that ends leaves is copied, as closing would tidy it up.

    A power cut leaves everything that was written: how the files of SQLite end there is for tests/crash.
    """

    def __init__(self, directory: Path, rows_per_commit: int) -> None:
        self._directory = directory
        self._rows_per_commit = rows_per_commit
        self._life = 0
        self._machine: LedgerMachine | None = None
        directory.mkdir()

    @property
    def _path(self) -> Path:
        return self._directory / f"ledger-{self._life}.db"

    def open(self) -> LedgerMachine:
        self._machine = LedgerMachine(ReplicatedMachine, str(self._path), self._rows_per_commit)
        return self._machine

    def kill(self) -> None:
        before = self._path
        self._life += 1
        for suffix in ("", "-wal"):
            file = before.with_name(before.name + suffix)
            if file.exists():
                shutil.copy(file, self._path.with_name(self._path.name + suffix))
        self.close()
        for file in self._directory.glob(f"{before.name}*"):
            file.unlink()

    def cut_power(self, _rng: random.Random) -> None:
        self.kill()

    def wipe(self) -> None:
        self.close()
        for file in self._directory.glob("ledger-*"):
            file.unlink()

    def close(self) -> None:
        if self._machine is not None:
            self._machine.replicated.close()
            self._machine = None
