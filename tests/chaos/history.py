"""What clients did to a register and what they were told, as values; a whole history is kept as JSON lines."""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path


class Kind(StrEnum):
    READ = "read"
    WRITE = "write"
    SWAP = "swap"  # a write that takes effect only over `expected`


class Outcome(StrEnum):
    OK = "ok"
    MISMATCH = "mismatch"  # of a swap: another value than `expected` was there; no effect
    NOT_DONE = "not-done"  # definitely no effect
    UNKNOWN = "unknown"  # may take effect at any time from its call on, or never


@dataclass(frozen=True, slots=True)
class Operation:
    """One call. `returned` matters for OK and MISMATCH only: an unknown operation has no end.

    `value` is what was read or is written; `version` is the register's own number for the value read.
    """

    client: str
    kind: Kind
    outcome: Outcome
    value: int
    invoked: float
    returned: float
    expected: int = 0
    version: int = 0

    def __str__(self) -> str:
        over = f" over {self.expected}" if self.kind is Kind.SWAP else ""
        return (
            f"{self.client}: {self.kind} {self.value}{over} -> {self.outcome} [{self.invoked:.4f}, {self.returned:.4f}]"
        )


_FIELDS = ("client", "kind", "outcome", "value", "invoked", "returned", "expected", "version")


def write_history(path: Path, initial: int, operations: Iterable[Operation]) -> None:
    """The initial value and the names of the columns in the first line, then a line for each operation."""
    with path.open("w", encoding="ascii") as file:
        file.write(json.dumps({"initial": initial, "fields": _FIELDS}) + "\n")
        for operation in operations:
            row = [getattr(operation, name) for name in _FIELDS]
            file.write(json.dumps([round(x, 6) if isinstance(x, float) else x for x in row], separators=(",", ":")))
            file.write("\n")


def read_history(path: Path) -> tuple[int, list[Operation]]:
    with path.open(encoding="ascii") as file:
        initial = int(json.loads(file.readline())["initial"])
        rows = [json.loads(line) for line in file]
    return initial, [Operation(row[0], Kind(row[1]), Outcome(row[2]), *row[3:]) for row in rows]
