"""Is a history of one register linearizable? Whole histories, operations of unknown outcome included.

The search of Wing and Gong, with Lowe's memoisation of configurations ("Testing for linearizability", 2017): take one
operation after another whose call precedes every return that is still open, and go back where that leads nowhere.
Three rules keep it small, and lose no solution because every value is written by one operation only:

* An operation that changes nothing (a read, a swap that found another value) is taken as soon as it fits.
* An operation of unknown outcome is taken only right before one that needs it. Anywhere else it could move behind the
  next operation or, when nobody ever saw its value, be left out.
* What definitely had no effect is not taken at all: whoever saw its value saw something that never was.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from tests.chaos.history import Kind, Operation, Outcome


@dataclass(frozen=True, slots=True)
class _Position:
    """How far a search has come. Operations before `base` are taken, and those whose bits are in `taken`."""

    value: int
    base: int = 0
    taken: int = 0  # bit k: operation base + k
    used: frozenset[int] = frozenset()  # the values of unknown operations that are taken

    def has(self, number: int) -> bool:
        return number < self.base or bool(self.taken >> (number - self.base) & 1)

    def take(self, number: int, value: int) -> "_Position":
        taken, base = self.taken | 1 << (number - self.base), self.base
        while taken & 1:
            taken >>= 1
            base += 1
        return replace(self, value=value, base=base, taken=taken)

    def use(self, *operations: Operation) -> "_Position":
        values = {operation.value for operation in operations}
        return replace(self, value=operations[-1].value, used=self.used | values)


def violation_of(operations: Iterable[Operation], initial: int) -> str | None:
    """None if the history is linearizable, else what could not be explained. Raises: ValueError if a value is written
    twice.
    """
    history = _History(operations, initial)
    if (operation := history.impossible()) is not None:
        return f"nothing that may have taken effect wrote what was seen: {operation}"
    start = _Position(initial)
    seen, stack, farthest = {start}, [start], start
    while stack:
        position = history.settled(stack.pop())
        if position.base == len(history.finished):
            return None
        if position.base > farthest.base:
            farthest = position
        for following in history.following(position):
            if following not in seen:
                seen.add(following)
                stack.append(following)
    open_ones = [str(history.finished[number]) for number in history.candidates(farthest)]
    return f"with value {farthest.value} none of these can be next:\n  " + "\n  ".join(open_ones)


class _History:
    """The operations that count, and which of them may come next."""

    def __init__(self, operations: Iterable[Operation], initial: int) -> None:
        counted = [
            operation
            for operation in operations
            if operation.outcome is not Outcome.NOT_DONE
            and not (operation.kind is Kind.READ and operation.outcome is Outcome.UNKNOWN)
        ]
        self.finished: Sequence[Operation] = sorted(
            (operation for operation in counted if operation.outcome is not Outcome.UNKNOWN),
            key=lambda operation: operation.invoked,
        )
        self._initial = initial
        self._writers: dict[int, Operation] = {}
        for operation in counted:
            if operation.kind is Kind.READ or operation.outcome is Outcome.MISMATCH:
                continue
            if operation.value == initial or operation.value in self._writers:
                raise ValueError(f"value {operation.value} is written twice: {operation}")
            self._writers[operation.value] = operation
        self._unknown = {
            value: operation for value, operation in self._writers.items() if operation.outcome is Outcome.UNKNOWN
        }

    def impossible(self) -> Operation | None:
        """The first operation that saw a value which nothing that counts wrote."""
        for operation in self.finished:
            needed = _needed(operation)
            if needed is not None and needed != self._initial and needed not in self._writers:
                return operation
        return None

    def candidates(self, position: _Position) -> list[int]:
        """Finished operations that may be taken next: none that is open has returned before their call."""
        found: list[int] = []
        deadline = float("inf")
        for number in range(position.base, len(self.finished)):
            operation = self.finished[number]
            if operation.invoked > deadline:
                break
            if not position.has(number):
                found.append(number)
                deadline = min(deadline, operation.returned)
        return [number for number in found if self.finished[number].invoked <= deadline]

    def settled(self, position: _Position) -> _Position:
        """Behind everything that fits now and changes nothing."""
        while True:
            fitting = [number for number in self.candidates(position) if self._fits_idly(number, position.value)]
            if not fitting:
                return position
            for number in fitting:
                position = position.take(number, position.value)

    def _fits_idly(self, number: int, value: int) -> bool:
        operation = self.finished[number]
        if operation.outcome is Outcome.MISMATCH:
            return operation.expected != value
        return operation.kind is Kind.READ and operation.value == value

    def following(self, position: _Position) -> Iterator[_Position]:
        """The positions to try from a settled one."""
        candidates = self.candidates(position)
        deadline = min(self.finished[number].returned for number in candidates)
        for number in candidates:
            operation = self.finished[number]
            needed = _needed(operation)
            if operation.outcome is Outcome.MISMATCH:
                yield from self._displacing(position, deadline)
            elif needed is None or needed == position.value:
                yield position.take(number, operation.value)
            elif (chain := self._producing(needed, position, deadline)) is not None:
                yield position.use(*chain)

    def _displacing(self, position: _Position, deadline: float) -> Iterator[_Position]:
        """Any unknown operation that puts another value in the place of this one."""
        for value, operation in self._unknown.items():
            if self._is_open(operation, position, deadline) and _needed(operation) in (None, position.value):
                assert value != position.value
                yield position.use(operation)

    def _producing(self, value: int, position: _Position, deadline: float) -> list[Operation] | None:
        """Unknown operations which, one after another, lead from this value to that one."""
        chain: list[Operation] = []
        while True:
            operation = self._unknown.get(value)
            if operation is None or operation in chain or not self._is_open(operation, position, deadline):
                return None
            chain.append(operation)
            needed = _needed(operation)
            if needed is None or needed == position.value:
                return chain[::-1]
            value = needed

    def _is_open(self, operation: Operation, position: _Position, deadline: float) -> bool:
        return operation.invoked <= deadline and operation.value not in position.used


def _needed(operation: Operation) -> int | None:
    """The value that must be there when the operation takes effect; None: any."""
    if operation.kind is Kind.READ:
        return operation.value
    return operation.expected if operation.kind is Kind.SWAP and operation.outcome is not Outcome.MISMATCH else None


def versions_violation_of(operations: Iterable[Operation]) -> str | None:
    """None if every value was seen under one version only: a write that took effect twice would have two."""
    versions: dict[int, Operation] = {}
    for operation in operations:
        if operation.kind is Kind.READ and operation.outcome is Outcome.OK:
            first = versions.setdefault(operation.value, operation)
            if first.version != operation.version:
                return f"value {operation.value} was seen under version {first.version} and under {operation.version}"
    return None
