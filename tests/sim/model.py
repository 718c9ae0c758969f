"""The CA as it must be: `fsm.apply` over the one history, and a ledger that has nothing to do with fsm/ledger.py."""

import shutil
import tempfile
from pathlib import Path
from typing import Any, Final

from fsm import codec
from fsm.apply import apply
from fsm.ca_rules import broken_invariant
from fsm.commands import Applied, Rejected
from fsm.leaves import RecordLeaves, TidyLedger
from fsm.state import State
from tests.sim.ledger import MemoryStore, Row, SqliteStore, Table, row_of
from tests.sim.world import InvariantViolated, Mark, SimStore

_MEMORY_DISK: Final = Path("/dev/shm")


class CAModel:
    """Implements `tests.sim.world.Model`."""

    def __init__(self) -> None:
        self.state = State()
        self._table = Table()
        self.rejected = 0
        self.repeated = 0
        #: Serials that were ever recorded: once for all time, tidied or not.
        self._serials: set[bytes] = set()
        self.rotations = 0

    def apply(self, log_index: int, command: bytes) -> Applied | Rejected:
        decoded = codec.load_command(command)
        before = self.state
        self.state, result = apply(before, decoded)
        if isinstance(result, Rejected):
            self.rejected += 1
            if self.state != before:
                raise InvariantViolated(f"{result} changed the state")
            return result
        self._check_step(before, self.state)
        if isinstance(decoded, RecordLeaves):
            result = Applied(result.index, self._record(log_index, before.index + 1, decoded))
        if isinstance(decoded, RecordLeaves | TidyLedger):
            for row in self._table.expired(self.state.tidied_before):
                self._table.delete(row)
        return result

    def _record(self, log_index: int, first_id: int, command: RecordLeaves) -> tuple[int, ...]:
        duplicates = []
        for position, record in enumerate(command.records):
            if not self._table.insert(row_of(first_id + position, record, command.issuer_key_id, log_index)):
                duplicates.append(position)
                self.repeated += 1
            elif record.serial in self._serials:
                raise InvariantViolated(f"serial {record.serial.hex()} is recorded a second time")
            self._serials.add(record.serial)
        return tuple(duplicates)

    def _check_step(self, before: State, after: State) -> None:
        broken = broken_invariant(after)
        if broken is not None:
            raise InvariantViolated(f"{broken}: {after}")
        if after.index <= before.index or not before.ca_index <= after.ca_index <= after.index:
            raise InvariantViolated(
                f"the indexes {before.index}, {before.ca_index} became {after.index}, {after.ca_index}"
            )
        if before.seal not in (None, after.seal) or (before.config and before.trust_domain != after.trust_domain):
            raise InvariantViolated(f"seal or trust domain changed: {before}, then {after}")
        if before.roots and not after.roots:
            raise InvariantViolated(f"no root is left of {before}")
        if before.rotation is not None and after.rotation is None:
            self.rotations += 1

    def mark(self) -> Mark:
        return Mark(self.state, self._table.bulk)

    def rows(self) -> list[Row]:
        return list(self._table.rows.values())


class CAWorld:
    """Real `fsm` state and machine; ledgers in memory, or real ones in a temporary directory."""

    def __init__(self, *, is_sqlite: bool = False, rows_per_commit: int = 1) -> None:
        self._rows_per_commit = rows_per_commit
        # In memory where there is such a directory: nothing of it needs to last.
        where = str(_MEMORY_DISK) if _MEMORY_DISK.is_dir() else None
        self._directory = Path(tempfile.mkdtemp(prefix="sim-", dir=where)) if is_sqlite else None
        self._stores: list[SqliteStore] = []
        self.made = CAModel()

    def model(self) -> CAModel:
        return self.made

    def store(self, node_id: str) -> SimStore:
        if self._directory is None:
            return MemoryStore(self._rows_per_commit)
        store = SqliteStore(self._directory / node_id, self._rows_per_commit)
        self._stores.append(store)
        return store

    def close(self) -> None:
        for store in self._stores:
            store.close()
        if self._directory is not None:
            shutil.rmtree(self._directory)


def config_value(state: Any) -> int:
    """The register that clients read and write: a number in the CA's configuration; 0 before there is any."""
    return int(state.config.config_json) if state.config is not None else 0
