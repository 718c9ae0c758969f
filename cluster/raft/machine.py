"""The replicated state machine that Raft drives: `fsm`'s pure State together with this node's ledger.

Used on the Raft thread only, except where a method says otherwise. `state` is what readers see: always a whole. Who
reads the ledger beside it calls `flush_ledger` first.
"""

import contextlib
import errno
import os
import sqlite3
from collections.abc import Callable
from typing import Any, Final

import msgpack

from cluster.base.bounds import check_value
from cluster.raft.codec import MAX_COMMAND_BYTES, EntryUnknown, MessageInvalid
from fsm import codec
from fsm.apply import apply
from fsm.codec import CodecError, Malformed
from fsm.commands import Applied, Command, Rejected
from fsm.leaves import RecordLeaves, TidyLedger
from fsm.ledger import (
    PART_BYTES,
    ROW_FIELDS,
    Ledger,
    LedgerDamaged,
    LedgerReader,
    LedgerSummary,
    check_row,
    checkpoint,
)
from fsm.state import State

#: Of a part, which may be fewer: it is no larger than PART_BYTES and one log entry, or a single row.
_BULK_ROWS: Final = 1000
#: A part ends with a log entry, and a certificate takes up more than this of its entry.
_MAX_PART_ROWS: Final = _BULK_ROWS + MAX_COMMAND_BYTES // 16
_MAX_DETAIL: Final = 200
#: Of the CA 100,000 are possible (fsm/ca.py: 256 roots with 64 intermediates of six fields each), of access control as
#: many as there is room for (cluster/access/room.py).
_MAX_STATE_VALUES: Final = 600_000
_MAX_STATE_DEPTH: Final = 16
#: While rows arrive in bulk, the write-ahead log is copied into the ledger's file after this many parts.
_PARTS_PER_CHECKPOINT: Final = 16
#: Few enough to be copied on the Raft thread; and how often the other thread tries to get there.
_FEW_PAGES: Final = 2000
_CHECKPOINT_PASSES: Final = 4
#: A write-ahead log of this size is copied into the ledger's file, to start again from its beginning.
_LONG_LOG_BYTES: Final = 64 << 20
#: What is lacking for the moment, and not damaged. SQLite says the same of a file that it has no descriptor for as of
#: one that is not there; this one is there.
_SHORTAGES: Final = {
    sqlite3.SQLITE_FULL: errno.ENOSPC,
    sqlite3.SQLITE_CANTOPEN: errno.EMFILE,
    sqlite3.SQLITE_NOMEM: errno.ENOMEM,
}
#: Of a row of a part: it was recorded by one entry, of which it is a part, with its index and that of the entry added.
_MAX_ROW_BYTES: Final = MAX_COMMAND_BYTES + 64
#: Of commands that were checked and are not applied yet: more than is ever on its way to a node that keeps up.
_MAX_CHECKED_BYTES: Final = 4 << 20


class ReplicatedMachine:
    """Raises, at start: LedgerDamaged, sqlite3.Error. Later only for what must stop the process."""

    def __init__(self, ledger_path: str, on_change: Callable[[State], None], *, rows_per_commit: int = 1) -> None:
        """`rows_per_commit`: how many rows may wait for `flush_ledger` before they are committed without it."""
        self._ledger_path = ledger_path
        self._rows_per_commit = rows_per_commit
        self._waiting_rows = 0
        self._synced_bytes = 0  # of the write-ahead log, as far as the other thread has come
        self._ledger = Ledger(ledger_path)
        self._on_change = on_change
        self._state = State()
        self.state = self._state
        self._can_start_log_again = False  # set by the thread that encodes
        self._parts = 0
        self._copied: tuple[bytes, int] | None = None
        self._checked: dict[bytes, Command] = {}
        self._checked_bytes = 0
        self._log_index = self._ledger.applied_log_index

    def check(self, command: bytes) -> None:
        """What it has decoded is kept until the command is applied: it is decoded once.

        Types only: what is out of bounds was taken by releases without bounds, and all nodes reject or apply it alike.
        """
        if command in self._checked:
            return
        try:
            loaded = codec.load_command(command)
        except Malformed as error:
            raise MessageInvalid(f"malformed command: {error}"[:_MAX_DETAIL]) from None
        except CodecError as error:
            raise EntryUnknown(str(error)[:_MAX_DETAIL]) from None
        if self._checked_bytes > _MAX_CHECKED_BYTES:
            # This node lags, or another leader has replaced them: they are decoded again, if they are applied.
            self._checked.clear()
            self._checked_bytes = 0
        self._checked[command] = loaded
        self._checked_bytes += len(command)

    def _load(self, data: bytes) -> Command:
        """Raises: CodecError."""
        known = self._checked.pop(data, None)
        if known is None:
            return codec.load_command(data)
        self._checked_bytes -= len(data)
        return known

    def apply(self, log_index: int, commands: list[bytes]) -> list[Applied | Rejected]:
        """Raises: CodecError for a command of a newer version: this node must stop rather than skip it."""
        return [self._apply(log_index, command) for command in commands]

    def _apply(self, log_index: int, data: bytes) -> Applied | Rejected:
        try:
            command = self._load(data)
        except Malformed as error:
            # No release would apply it, so all of them agree, and no node need end.
            return Rejected("malformed", str(error)[:_MAX_DETAIL])
        self._drop_unfinished_copy(log_index)
        first_id = self._state.index + 1
        self._state, result = apply(self._state, command)
        match command:
            # A ledger ahead of the log (replay after a restart) has the records already.
            case RecordLeaves() if isinstance(result, Applied) and not self._is_recorded(log_index):
                duplicates = self._ledger.add(log_index, first_id, command.issuer_key_id, command.records)
                self._waiting_rows += len(command.records)
                # The ledger never holds what the latest tidying would drop: a node that copies the ledger, or replays
                # that tidying over a ledger which is ahead, could not tell the row from one that was dropped.
                if any(record.not_after < self._state.tidied_before for record in command.records):
                    self._ledger.tidy(self._state.tidied_before)
                return Applied(result.index, duplicates)
            case TidyLedger() if isinstance(result, Applied):
                self._ledger.tidy(command.expired_before)
                self._waiting_rows += self._rows_per_commit
        return result

    def _is_recorded(self, log_index: int) -> bool:
        """Whether the ledger has the certificates of the entry that the state has just taken. It says so itself, and
        its last row must reach them: both were written in one transaction.
        """
        return log_index <= self._ledger.applied_log_index and self._state.leaf_index <= self._ledger.last_id

    def _drop_unfinished_copy(self, log_index: int) -> None:
        """Before an entry that the ledger does not have: the log goes on, so the copy will not be finished. Its rows
        would stand where those of this entry belong, and are only what another node has said.
        """
        if log_index > self._ledger.applied_log_index and self._ledger.last_id > self._state.leaf_index:
            self._ledger.cut_to(self._state.leaf_index, self._ledger.applied_log_index)
            self._waiting_rows += self._rows_per_commit

    def commit(self, log_index: int) -> None:
        self._log_index = log_index
        if not self._waiting_rows or self._waiting_rows >= self._rows_per_commit:
            self.flush_ledger()
        if self._state is not self.state:
            self.state = self._state
            self._on_change(self.state)

    @property
    def is_ledger_behind(self) -> bool:
        """Whether readers of the ledger do not see everything that is applied."""
        return self._waiting_rows > 0

    def flush_ledger(self) -> None:
        """Have readers of the ledger see everything that is visible in the state.

        A commit costs as much as a hundred rows, and durable the rows are by the log alone: so while nobody reads,
        several entries share one.
        """
        self._ledger.commit(self._log_index)
        self._waiting_rows = 0
        if self._can_start_log_again:
            self._can_start_log_again = False
            self._ledger.start_log_again()
            self._synced_bytes = 0

    def unsynced_bytes(self) -> int:
        """About how much of the ledger's write-ahead log a compaction would have to sync."""
        try:
            size = os.stat(f"{self._ledger_path}-wal").st_size
        except FileNotFoundError:
            size = 0
        if size < self._synced_bytes:
            self._synced_bytes = 0
        return size - self._synced_bytes

    def sync_ledger(self) -> None:
        """In another thread, now and then: so that a compaction finds little to sync, and the log starts again."""
        size = os.stat(f"{self._ledger_path}-wal").st_size
        if size < _LONG_LOG_BYTES:
            _sync_log(self._ledger_path)
        elif _make_durable(self._ledger_path) <= _FEW_PAGES:
            self._can_start_log_again = True
        self._synced_bytes = size

    def capture(self) -> Callable[[], bytes]:
        self.flush_ledger()
        state = self.state

        def encode() -> bytes:
            for _ in range(_CHECKPOINT_PASSES):
                # Meanwhile more is written, less and less with each pass.
                if _make_durable(self._ledger_path) <= _FEW_PAGES:
                    self._can_start_log_again = True
                    break
            return codec.dump_state(state)

        return encode

    def load(self, state: bytes) -> None:
        self._state = codec.load_state(state)
        if self._ledger.last_id < self._state.leaf_index:
            raise LedgerDamaged(
                f"{self._ledger_path}: ends at certificate {self._ledger.last_id}, but the snapshot"
                f" stands on certificate {self._state.leaf_index}"
            )
        self.state = self._state
        self._on_change(self.state)

    def install(self, log_index: int, state: bytes) -> None:
        installed = _received_state(state)
        if installed.leaf_index > installed.index:
            # Certificates that come later would have lower numbers: the next start would miss what is above them.
            raise Malformed(f"State.leaf_index is {installed.leaf_index}: must be at most {installed.index}, its index")
        self._state = installed
        self._log_index = log_index
        self._waiting_rows, self._copied = 0, None
        self._ledger.cut_to(installed.leaf_index, log_index)
        self._ledger.tidy(installed.tidied_before)
        self._ledger.commit(log_index)
        _make_durable(self._ledger_path)
        self.state = self._state
        self._on_change(self.state)

    # -- bulk data

    def bulk_position(self) -> int:
        return self._ledger.last_id

    def bulk_read(self, after: int, state: bytes) -> tuple[bytes, bool]:
        """In any thread."""
        reader = LedgerReader(self._ledger_path)
        try:
            rows = reader.export_rows(after, codec.load_state(state).leaf_index, _BULK_ROWS)
        finally:
            reader.close()
        part: bytes = msgpack.packb(rows)
        return part, len(rows) < _BULK_ROWS and len(part) < PART_BYTES

    def bulk_begin(self, log_index: int, state: bytes) -> None:
        if self._ledger.last_id > self._leaf_index_of(state):
            self.bulk_restart(log_index)

    def bulk_restart(self, log_index: int) -> None:
        if self._ledger.last_id <= self._state.leaf_index and self._ledger.applied_log_index <= log_index:
            return
        self.flush_ledger()
        self._log_index = log_index
        self._ledger.cut_to(self._state.leaf_index, log_index)
        self._ledger.commit(log_index)

    def bulk_write(self, part: bytes, log_index: int, state: bytes) -> None:
        rows = _checked_rows(part)
        if not rows:
            return
        self._check_place(rows, log_index, self._leaf_index_of(state))
        self.flush_ledger()  # what is taken back below is only what came with this part
        try:
            self._ledger.import_rows(rows)
        except ValueError:
            self._ledger.rollback()
            raise
        # Not as of the rows' own entries: what another node says of them must not have this one pass over its log.
        self._ledger.commit(self._ledger.applied_log_index)
        self._parts += 1
        if self._parts % _PARTS_PER_CHECKPOINT == 0:
            self._ledger.start_log_again()

    def _leaf_index_of(self, state: bytes) -> int:
        """Parts of one snapshot come one after another: it is decoded with the first."""
        if self._copied is None or self._copied[0] is not state:
            self._copied = state, _received_state(state).leaf_index
        return self._copied[1]

    def _check_place(self, rows: list[list[Any]], log_index: int, leaf_index: int) -> None:
        """That they are of entries after those in the ledger, in order, and that the snapshot stands on them.

        Raises: ValueError.
        """
        before = self._ledger.applied_log_index + 1
        for row in rows:
            if row[0] > leaf_index:
                raise ValueError(f"ledger row {row[0]}: the snapshot stands on row {leaf_index} and those before it")
            if not before <= row[11] <= log_index:
                raise ValueError(f"ledger row {row[0]} has log index {row[11]}: must be from {before} to {log_index}")
            before = row[11]

    @property
    def ledger_summary(self) -> LedgerSummary:
        """As of the last commit. Its log index is this node's own business: entries without records do not move it."""
        return self._ledger.summary

    def close(self) -> None:
        self._ledger.close()


def _make_durable(ledger_path: str) -> int:
    """Sync every row that is committed; returns the pages left in the write-ahead log. In any thread. Raises: OSError.

    Synced here because a checkpoint leaves the log as it is when a reader is in its way.
    """
    try:
        _sync_log(ledger_path)
        return checkpoint(ledger_path)
    except sqlite3.Error as error:
        code = _SHORTAGES.get(error.sqlite_errorcode & 0xFF, errno.EIO)
        raise OSError(code, str(error), ledger_path) from error


def _sync_log(ledger_path: str) -> None:
    # No log: the file has had everything since it was closed last.
    with contextlib.suppress(FileNotFoundError), open(f"{ledger_path}-wal", "rb") as file:
        os.fsync(file.fileno())


def _checked_rows(part: bytes) -> list[list[Any]]:
    """One by one, so that the first that is none ends it: a part has room for millions of small objects.

    Raises: ValueError.
    """
    values = msgpack.Unpacker(max_buffer_size=len(part) or 1, max_array_len=0, max_map_len=0, max_ext_len=0)
    values.feed(part)
    try:
        count = values.read_array_header()
        if count > _MAX_PART_ROWS:
            raise ValueError(f"{count} ledger rows in a part: there may be {_MAX_PART_ROWS}")
        rows = [_checked_row(values) for _ in range(count)]
    except (ValueError, TypeError, ArithmeticError, RecursionError, msgpack.UnpackException) as error:
        raise ValueError(f"bad part of ledger rows: {error!r:.200}") from error
    if values.tell() != len(part):
        raise ValueError(f"bad part of ledger rows: {len(part) - values.tell()} bytes follow them")
    return rows


def _checked_row(values: msgpack.Unpacker) -> list[Any]:
    if (found := values.read_array_header()) != ROW_FIELDS:
        raise ValueError(f"ledger row of {found} fields: must have {ROW_FIELDS}")
    began = values.tell()
    row = [values.unpack() for _ in range(ROW_FIELDS)]
    check_row(row)
    if (size := values.tell() - began) > _MAX_ROW_BYTES:
        raise ValueError(f"ledger row {row[0]} has {size} bytes: there may be {_MAX_ROW_BYTES}")
    return row


def _received_state(data: bytes) -> State:
    """Of another node: looked at before it is decoded. Raises: CodecError."""
    try:
        check_value(data, max_items=_MAX_STATE_VALUES, max_depth=_MAX_STATE_DEPTH)
    except ValueError as error:
        raise Malformed(f"state: {error}") from error
    return codec.load_state(data)
