"""The state machine of simulated nodes: a list of commands, kept like `cluster.raft.machine` keeps state and ledger.

The state is how many commands there were and a hash over all of them; the commands themselves are the bulk data, in a
store that outlives the process, is committed entry by entry, and is durable only once it was asked to be.
"""

import hashlib
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

import msgpack

from tests.sim.world import Mark

_ROWS_PER_PART = 20


class ListState(NamedTuple):
    """`position` commands were applied; `digest` covers them and their order."""

    position: int = 0
    digest: bytes = b""

    def after(self, command: bytes) -> "ListState":
        return ListState(self.position + 1, hashlib.sha256(self.digest + command).digest()[:16])


class Row(NamedTuple):
    log_index: int
    command: bytes


@dataclass(slots=True)
class Store:
    """What a node has on disk besides log and snapshot."""

    rows: list[Row] = field(default_factory=list)
    commits: list[tuple[int, int]] = field(default_factory=list)  # number of rows, applied log index
    durable: int = 0  # so many commits

    @property
    def applied_log_index(self) -> int:
        return self.commits[-1][1] if self.commits else 0

    def commit(self, rows: list[Row], log_index: int) -> None:
        self.rows += rows
        self.commits.append((len(self.rows), log_index))

    def open(self) -> "ListMachine":
        return ListMachine(self)

    def kill(self) -> None: ...

    def wipe(self) -> None:
        self.rows, self.commits, self.durable = [], [], 0

    def cut_power(self, rng: random.Random) -> None:
        del self.commits[rng.randint(self.durable, len(self.commits)) :]
        del self.rows[self.commits[-1][0] if self.commits else 0 :]
        self.durable = len(self.commits)


class StoreTooShort(Exception):
    """The snapshot stands on bulk data that is not there."""


class ListMachine:
    """Implements `cluster.raft.node.Machine`; results are the positions that commands got."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._state = ListState()
        self._rows: list[Row] = []
        self.state = self._state  # visible

    def check(self, command: bytes) -> None: ...

    def apply(self, log_index: int, commands: list[bytes]) -> list[int]:
        results = []
        for command in commands:
            self._state = self._state.after(command)
            results.append(self._state.position)
            if log_index > self._store.applied_log_index:
                self._rows.append(Row(log_index, command))
        return results

    def commit(self, log_index: int) -> None:
        if self._rows:
            self._store.commit(self._rows, log_index)
            self._rows = []
        self.state = self._state

    def capture(self) -> Callable[[], bytes]:
        state, store = self.state, self._store

        def encode() -> bytes:
            store.durable = len(store.commits)
            return encoded(state)

        return encode

    def load(self, state: bytes) -> None:
        self._state = self.state = decoded(state)
        if len(self._store.rows) < self._state.position:
            raise StoreTooShort(f"{len(self._store.rows)} rows, snapshot stands on {self._state.position}")

    def install(self, _log_index: int, state: bytes) -> None:
        self.load(state)
        self._store.durable = len(self._store.commits)

    def bulk(self) -> int:
        return self.state.position

    def rows(self) -> list[bytes]:
        return [row.command for row in self._store.rows]

    # -- bulk data

    def bulk_position(self) -> int:
        return len(self._store.rows)

    def bulk_read(self, after: int, state: bytes) -> tuple[bytes, bool]:
        rows = self._store.rows[: decoded(state).position]
        part = rows[after : after + _ROWS_PER_PART]
        is_last = len(part) < _ROWS_PER_PART
        while part and (rest := rows[after + len(part) :]) and rest[0].log_index == part[-1].log_index:
            part.append(rest[0])
        packed: bytes = msgpack.packb([after, part])
        return packed, is_last

    def bulk_begin(self, _log_index: int, _state: bytes) -> None: ...

    def bulk_restart(self, _log_index: int) -> None:
        """Its servers do not lie: what one has sent is what another would."""

    def bulk_write(self, part: bytes, _log_index: int, _state: bytes) -> None:
        after, rows = msgpack.unpackb(part)
        if after != len(self._store.rows):
            raise ValueError(f"rows behind {after} do not follow row {len(self._store.rows)}")
        if rows:
            self._store.commit([Row(*row) for row in rows], rows[-1][0])


class ListModel:
    """The list as it must be."""

    def __init__(self) -> None:
        self._state = ListState()
        self._rows: list[bytes] = []

    def apply(self, _log_index: int, command: bytes) -> int:
        self._state = self._state.after(command)
        self._rows.append(command)
        return self._state.position

    def mark(self) -> Mark:
        return Mark(self._state, self._state.position)

    def rows(self) -> list[bytes]:
        return self._rows


class ListWorld:
    """Lists of commands: small, and easy to read in a scene."""

    def model(self) -> ListModel:
        return ListModel()

    def store(self, _node_id: str) -> Store:
        return Store()

    def close(self) -> None: ...


def encoded(state: ListState) -> bytes:
    packed: bytes = msgpack.packb(list(state))
    return packed


def decoded(data: bytes) -> ListState:
    return ListState(*msgpack.unpackb(data))
