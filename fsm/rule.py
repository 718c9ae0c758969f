"""What an area says about each of its commands; `fsm.apply` does the same for all of them."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from fsm.commands import Rejected
from fsm.state import Area, State


def _one(_command: Any) -> int:
    return 1


@dataclass(frozen=True, slots=True)
class Rule:
    """How commands of one kind are applied."""

    #: The state as the command changes it; indexes of the whole and of the area are set afterwards.
    handler: Callable[[State, Any], State | Rejected]
    #: The command's `expected_index` is compared with this area's index, and the command moves no other area's.
    area: Area
    #: How many indexes of the state the command takes.
    takes: Callable[[Any], int] = _one
    #: False for a change that nobody waits for: only `State.index` counts it.
    moves_area: bool = True
    #: False for a command that may lead to a state which could not follow the one before it.
    checks_transition: bool = True


@dataclass(frozen=True, slots=True)
class Invariants:
    """What holds of an area whatever its commands are. Each function says what is impossible, or None."""

    of_state: Callable[[State], str | None]
    of_transition: Callable[[State, State], str | None]
