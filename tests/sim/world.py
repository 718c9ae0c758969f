"""What simulated nodes replicate: a state machine with what it keeps on disk, and a model of it to judge them by."""

import random
from dataclasses import dataclass
from typing import Any, Protocol

from cluster.raft.node import Machine


@dataclass(frozen=True, slots=True)
class Mark:
    """What every node must have at one point of the history."""

    state: object
    bulk: object  # stands for all of the bulk data


class SimMachine(Machine, Protocol):
    """As Raft drives it, and what there is to judge."""

    @property
    def state(self) -> Any:
        """What readers see."""
        ...

    def bulk(self) -> object:
        """As `Mark.bulk`, for what readers see of the bulk data along with `state`."""
        ...

    def rows(self) -> list[Any]:
        """All of the bulk data, as the model's `rows` has it."""
        ...


class SimStore(Protocol):
    """What one node's machine has on disk besides log and snapshot."""

    def open(self) -> SimMachine:
        """The process starts."""
        ...

    def kill(self) -> None: ...
    def cut_power(self, rng: random.Random) -> None: ...
    def wipe(self) -> None: ...


class Model(Protocol):
    """The one history that all nodes must follow, applied apart from them."""

    def apply(self, log_index: int, command: bytes) -> Any:
        """What whoever proposed the command must be told. Raises: InvariantViolated."""
        ...

    def mark(self) -> Mark: ...
    def rows(self) -> list[Any]: ...


class World(Protocol):
    """Makes the parts that belong together."""

    def model(self) -> Model: ...
    def store(self, node_id: str) -> SimStore: ...
    def close(self) -> None: ...


class InvariantViolated(AssertionError):
    """The cluster did what it must never do."""
