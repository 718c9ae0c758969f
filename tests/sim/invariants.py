"""What must hold behind every step of every node, however the network and the disks behave.

election safety      at most one leader in a term (Raft 5.2)
log matching         an index and a term stand for one entry and one history (Raft 5.3)
state machine safety what one node applied at an index, every node applies there, for ever (Raft 5.4)
durability           an acknowledged command is at its position in that history; a refused one is nowhere
at most once         no command is in it twice
linearizability      operations on the list take effect between their call and their answer
"""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from cluster.raft import codec
from cluster.raft.node import Outcome

if TYPE_CHECKING:
    from tests.sim.cluster import SimNode


class InvariantViolated(AssertionError):
    """The cluster did what it must never do."""


@dataclass(slots=True)
class Operation:
    """A command on its way; `floor` is how long the list was known to be when it was made."""

    command: bytes
    floor: int
    outcome: Any = None
    is_refused: bool = False


@dataclass(slots=True)
class History:
    """What clients know: of the only object there is, a list that commands are appended to."""

    #: The longest the list is known to have been, by an answer that some client has.
    floor: int = 0
    operations: dict[bytes, Operation] = field(default_factory=dict)
    acknowledged: int = 0
    refused: int = 0
    unknown: int = 0
    reads: int = 0

    def invoke(self, command: bytes) -> Operation:
        operation = self.operations[command] = Operation(command, self.floor)
        return operation

    def finish(self, operation: Operation, outcome: Any) -> None:
        """The answer to a command: its position, or an Outcome."""
        if isinstance(outcome, int):
            if outcome <= operation.floor:
                raise InvariantViolated(f"{operation.command!r} got position {outcome}, behind {operation.floor}")
            self.floor = max(self.floor, outcome)
            self.acknowledged += 1
        elif outcome is Outcome.UNKNOWN:
            self.unknown += 1
        else:
            operation.is_refused = True
            self.refused += 1
        operation.outcome = outcome

    def finish_read(self, floor: int, position: int) -> None:
        if position < floor:
            raise InvariantViolated(f"a read saw {position} commands, but {floor} were known when it was made")
        self.floor = max(self.floor, position)
        self.reads += 1


class Invariants:
    """What has been seen of the whole cluster so far."""

    def __init__(self, history: History) -> None:
        self._history = history
        self._leaders: dict[int, str] = {}
        #: Of an entry that is in some log: its term before, and its command.
        self._entries: dict[tuple[int, int], tuple[int, bytes]] = {}
        #: Term and command of each applied entry.
        self._applied: dict[int, tuple[int, bytes]] = {}
        #: How many commands there were behind each applied entry, and their digest.
        self._states: dict[int, tuple[int, bytes]] = {1: (0, b"")}
        self._commands: list[bytes] = []
        self._positions: dict[bytes, int] = {}
        self._seen: dict[str, _Seen] = {}

    @property
    def applied_commands(self) -> list[bytes]:
        """Every command that any node ever applied, in order."""
        return self._commands

    def check(self, node: "SimNode") -> None:
        """Look at what a step of `node` may have changed."""
        raft = node.raft
        core = raft.core
        seen = self._seen.get(node.id)
        if seen is None or seen.life != node.life:
            # A term that was never synced may be forgotten: nothing that depended on it has left the node.
            seen = self._seen[node.id] = _Seen(node.life, core.applied_index)
        if core.term < seen.term:
            raise InvariantViolated(f"{node.id} went back from term {seen.term} to {core.term}")
        seen.term = core.term
        if core.is_leader and self._leaders.setdefault(core.term, node.id) != node.id:
            raise InvariantViolated(f"{node.id} and {self._leaders[core.term]} both lead in term {core.term}")
        entries = raft.journal.entries
        last = entries[-1]
        if seen.last != (last.log_index, last.term):
            self._check_log(node, seen)
            seen.last = (last.log_index, last.term)
        if core.applied_index > seen.applied:
            self._check_applied(node, seen)
        if core.commit_index > last.log_index:
            raise InvariantViolated(f"{node.id} has committed {core.commit_index} of {last.log_index} entries")

    def _check_log(self, node: "SimNode", seen: "_Seen") -> None:
        entries = node.raft.journal.entries
        for position in range(len(entries) - 1, 0, -1):
            command, log_index, term = entries[position]
            if seen.terms.get(log_index) == term:
                break
            seen.terms[log_index] = term
            before = entries[position - 1].term
            known = self._entries.setdefault((log_index, term), (before, command))
            if known != (before, command):
                raise InvariantViolated(f"{node.id} has another entry {log_index} of term {term}: {entries[position]}")
            applied = self._applied.get(log_index)
            if applied is not None and applied[0] > term and node.raft.core.applied_index >= log_index:
                raise InvariantViolated(f"{node.id} replaced applied entry {log_index}")

    def _check_applied(self, node: "SimNode", seen: "_Seen") -> None:
        raft = node.raft
        entries, applied = raft.journal.entries, raft.core.applied_index
        first = entries[0].log_index
        for log_index in range(max(seen.applied, first) + 1, applied + 1):
            entry = entries[log_index - first]
            known = self._applied.get(log_index)
            if known is None:
                self._extend(node, log_index, entry.term, entry.command)
            elif known != (entry.term, entry.command):
                raise InvariantViolated(f"{node.id} applied {entry} where {known} was applied before")
        seen.applied = applied
        state = node.machine.state
        if raft.status().applied_index == applied and (state.position, state.digest) != self._states[applied]:
            raise InvariantViolated(f"{node.id} has another state at entry {applied}: {state}")

    def _extend(self, node: "SimNode", log_index: int, term: int, command: bytes) -> None:
        """An entry that was never applied before: it goes on the one history there is."""
        if log_index - 1 not in self._states:
            raise InvariantViolated(f"{node.id} applied entry {log_index}, but nobody the one before")
        position, digest = self._states[log_index - 1]
        if command[0] == codec.REGULAR:
            for item in codec.unpack_batch(command)[2]:
                position += 1
                digest = hashlib.sha256(digest + item).digest()[:16]
                self._check_command(item, position)
        self._applied[log_index] = (term, command)
        self._states[log_index] = (position, digest)

    def _check_command(self, command: bytes, position: int) -> None:
        if command in self._positions:
            raise InvariantViolated(f"{command!r} is applied at {self._positions[command]} and at {position}")
        operation = self._history.operations.get(command)
        if operation is None:
            raise InvariantViolated(f"nobody ever proposed {command!r}")
        if operation.is_refused:
            raise InvariantViolated(f"{command!r} is applied, but its client was told {operation.outcome}")
        self._positions[command] = position
        self._commands.append(command)

    def check_answer(self, operation: Operation) -> None:
        """Behind every answer to a client: the history bears it out."""
        if isinstance(operation.outcome, int):
            if self._positions.get(operation.command) != operation.outcome:
                raise InvariantViolated(f"{operation.command!r} was acknowledged but is not at {operation.outcome}")
        elif operation.is_refused and operation.command in self._positions:
            raise InvariantViolated(f"{operation.command!r} is applied, but refused by {operation.outcome}")

    def check_settled(self, nodes: Iterable["SimNode"]) -> None:
        """At the end: everybody has everything."""
        for operation in self._history.operations.values():
            self.check_answer(operation)
        for node in nodes:
            rows = [row.command for row in node.store.rows]
            if rows != self._commands:
                raise InvariantViolated(f"{node.id} has {len(rows)} rows, not the {len(self._commands)} applied ones")


class _Seen:
    """What was already checked of one life of one node."""

    __slots__ = ("applied", "last", "life", "term", "terms")

    def __init__(self, life: int, applied: int) -> None:
        self.life = life
        self.applied = 0 if applied == 1 else applied - 1  # the entry of its snapshot is checked too
        self.last: tuple[int, int] | None = None
        self.term = 0
        self.terms: dict[int, int] = {}
