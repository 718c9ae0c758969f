"""What must hold behind every step of every node, however the network and the disks behave.

election safety      at most one leader in a term (Raft 5.2)
log matching         an index and a term stand for one entry and one history (Raft 5.3)
leader completeness  whoever is elected has every entry that was applied in an earlier term (Raft 5.4)
state machine safety what one node applied at an index, every node applies there, for ever; states are equal (Raft 5.4)
durability           an acknowledged command is in that history, with that result; a refused one is nowhere
at most once         no command is in it twice
linearizability      operations take effect between their call and their answer
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from cluster.raft import codec
from cluster.raft.node import Outcome
from tests.sim.world import InvariantViolated, Mark, Model

if TYPE_CHECKING:
    from tests.sim.cluster import SimNode

__all__ = ["History", "InvariantViolated", "Invariants", "Operation"]


@dataclass(slots=True)
class Operation:
    """A command on its way; `floor` is how much of the history was known when it was made."""

    command: bytes
    floor: int
    outcome: Any = None
    is_refused: bool = False

    @property
    def is_acknowledged(self) -> bool:
        return self.outcome is not None and not isinstance(self.outcome, Outcome)


@dataclass(slots=True)
class History:
    """What clients know of the one history there is: how long it is at least, by the answers they have."""

    floor: int = 0
    operations: dict[bytes, Operation] = field(default_factory=dict)
    acknowledged: int = 0
    refused: int = 0
    unknown: int = 0
    reads: int = 0

    def invoke(self, command: bytes) -> Operation:
        if command in self.operations:
            raise AssertionError(f"{command!r} is proposed twice: a client must tell its attempts apart")
        operation = self.operations[command] = Operation(command, self.floor)
        return operation


class Invariants:
    """What has been seen of the whole cluster so far."""

    def __init__(self, history: History, model: Model) -> None:
        #: How often a step was looked at.
        self.checks = 0
        self._history = history
        self._model = model
        self._leaders: dict[int, str] = {}
        #: Of an entry that is in some log: its term before, and its command.
        self._entries: dict[tuple[int, int], tuple[int, bytes]] = {}
        #: Term and command of each applied entry.
        self._applied: dict[int, tuple[int, bytes]] = {}
        self._last_applied = 1
        #: By the term of a node that was the first to apply something: how far the history was then.
        self._applied_by: dict[int, int] = {}
        #: How many commands there were behind each applied entry, and what that makes of the state.
        self._marks: dict[int, tuple[int, Mark]] = {1: (0, model.mark())}
        self._commands: list[bytes] = []
        #: Position and result of every applied command.
        self._results: dict[bytes, tuple[int, Any]] = {}
        self._seen: dict[str, _Seen] = {}

    @property
    def applied_commands(self) -> list[bytes]:
        """Every command that any node ever applied, in order."""
        return self._commands

    @property
    def terms(self) -> int:
        """How many terms had a leader."""
        return len(self._leaders)

    # -- nodes

    def check(self, node: "SimNode") -> None:
        """Look at what a step of `node` may have changed."""
        self.checks += 1
        core, entries = node.raft.core, node.raft.journal.entries
        last, visible = entries[-1], node.raft.visible_index
        now = (core.term, core.is_leader, core.applied_index, core.commit_index, visible, last, node.life)
        seen = self._seen.get(node.id)
        if seen is not None and seen.now == now:
            return
        if seen is None or seen.life != node.life:
            # A term that was never synced may be forgotten: nothing that depended on it has left the node.
            seen = self._seen[node.id] = _Seen(node.life, core.applied_index, self._last_applied)
        if core.term < seen.term:
            raise InvariantViolated(f"{node.id} went back from term {seen.term} to {core.term}")
        if seen.now is None or last != seen.now[5]:
            self._check_log(node, seen)
        seen.now, seen.term = now, core.term
        if core.is_leader:
            self._check_leader(node)
        if core.applied_index > seen.applied:
            self._check_applied(node, seen)
        if visible != seen.visible:
            seen.visible = visible
            state, expected = node.machine.state, self._mark(node, visible)[1].state
            if state is not expected and state != expected:
                raise InvariantViolated(f"{node.id} has another state at entry {visible}: {state}, not {expected}")
        if core.commit_index > last.log_index:
            raise InvariantViolated(f"{node.id} has committed {core.commit_index} of {last.log_index} entries")

    def _check_leader(self, node: "SimNode") -> None:
        term = node.raft.core.term
        leader = self._leaders.get(term)
        if leader == node.id:
            return
        if leader is not None:
            raise InvariantViolated(f"{node.id} and {leader} both lead in term {term}")
        self._leaders[term] = node.id
        # What is committed in this term or a later one is not what it was elected with.
        entries = node.raft.journal.entries
        applied = max((index for before, index in self._applied_by.items() if before < term), default=1)
        position = applied - entries[0].log_index
        if position >= len(entries) or (position > 0 and entries[position].term != self._applied[applied][0]):
            raise InvariantViolated(f"{node.id} leads in term {term} without entry {applied}, which was applied")

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
        entries, applied = node.raft.journal.entries, node.raft.core.applied_index
        first = entries[0].log_index
        if first > seen.applied:
            seen.is_exact_from = self._last_applied
        for log_index in range(max(seen.applied, first) + 1, applied + 1):
            entry = entries[log_index - first]
            known = self._applied.get(log_index)
            if known is None:
                self._extend(node, log_index, entry.term, entry.command)
            elif known != (entry.term, entry.command):
                raise InvariantViolated(f"{node.id} applied {entry} where {known} was applied before")
        seen.applied = applied

    def _extend(self, node: "SimNode", log_index: int, term: int, command: bytes) -> None:
        """An entry that was never applied before: it goes on the one history there is."""
        if log_index - 1 != self._last_applied:
            raise InvariantViolated(f"{node.id} applied entry {log_index}, but nobody the one before")
        position, mark = self._marks[log_index - 1]
        if command[0] == codec.REGULAR:
            for item in codec.unpack_batch(command)[2]:
                position += 1
                self._check_command(item, log_index, position)
            mark = self._model.mark()
        self._applied[log_index] = (term, command)
        self._marks[log_index] = (position, mark)
        self._last_applied = self._applied_by[node.raft.core.term] = log_index

    def _check_command(self, command: bytes, log_index: int, position: int) -> None:
        if command in self._results:
            raise InvariantViolated(f"{command!r} is applied at {self._results[command][0]} and at {position}")
        operation = self._history.operations.get(command)
        if operation is None:
            raise InvariantViolated(f"nobody ever proposed {command!r}")
        if operation.is_refused:
            raise InvariantViolated(f"{command!r} is applied, but its client was told {operation.outcome}")
        self._results[command] = position, self._model.apply(log_index, command)
        self._commands.append(command)

    def _mark(self, node: "SimNode", log_index: int) -> tuple[int, Mark]:
        mark = self._marks.get(log_index)
        if mark is None:
            raise InvariantViolated(f"{node.id} shows the state at entry {log_index}, which nobody applied")
        return mark

    # -- clients

    def finish(self, operation: Operation, outcome: Any) -> None:
        """A client has the answer to a command: its result, or an Outcome."""
        history = self._history
        operation.outcome = outcome
        if outcome is Outcome.UNKNOWN:
            history.unknown += 1
        elif isinstance(outcome, Outcome):
            operation.is_refused = True
            history.refused += 1
        else:
            history.acknowledged += 1
        self._check_answer(operation)
        if operation.is_acknowledged:
            position = self._results[operation.command][0]
            if position <= operation.floor:
                raise InvariantViolated(f"{operation.command!r} got position {position}, behind {operation.floor}")
            history.floor = max(history.floor, position)

    def finish_read(self, node: "SimNode", floor: int, log_index: int, bulk: object) -> int:
        """A client has what a node showed at `log_index`; returns how many commands that saw."""
        position, mark = self._mark(node, log_index)
        if position < floor:
            raise InvariantViolated(f"a read saw {position} commands, but {floor} were known when it was made")
        if bulk is not None and bulk != mark.bulk and log_index >= self._seen[node.id].is_exact_from:
            raise InvariantViolated(f"{node.id} has other bulk data at entry {log_index}: {bulk}, not {mark.bulk}")
        self._history.floor = max(self._history.floor, position)
        self._history.reads += 1
        return position

    def _check_answer(self, operation: Operation) -> None:
        """The history bears an answer out."""
        if operation.is_acknowledged:
            applied = self._results.get(operation.command)
            if applied is None or applied[1] != operation.outcome:
                raise InvariantViolated(f"{operation.command!r} was answered by {operation.outcome}, but is {applied}")
        elif operation.is_refused and operation.command in self._results:
            raise InvariantViolated(f"{operation.command!r} is applied, but refused by {operation.outcome}")

    def check_settled(self, nodes: Iterable["SimNode"]) -> None:
        """At the end: everybody has everything."""
        for operation in self._history.operations.values():
            self._check_answer(operation)
        expected = self._model.rows()
        for node in nodes:
            rows = node.machine.rows()
            if rows != expected:
                raise InvariantViolated(f"{node.id} has {len(rows)} rows, not the {len(expected)} applied ones")


class _Seen:
    """What was already checked of one life of one node."""

    __slots__ = ("applied", "is_exact_from", "life", "now", "term", "terms", "visible")

    def __init__(self, life: int, applied: int, last_applied: int) -> None:
        self.life = life
        #: Bulk data may be ahead of the state after a restart and after a snapshot, by entries that were applied then.
        self.is_exact_from = last_applied
        self.applied = 0 if applied == 1 else applied - 1  # the entry of its snapshot is checked too
        self.visible = 0
        self.term = 0
        self.terms: dict[int, int] = {}
        self.now: tuple[Any, ...] | None = None
