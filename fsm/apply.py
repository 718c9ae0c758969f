"""`apply`: the state machine's one step, a table of pure functions.

Never raises for a domain reason: a refusal is a value. (PySyncObj retries an entry whose application raises, for ever,
on every node.) Invariants are checked on the result, not on the request.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any, Final

from fsm import ca_rules, leaf_rules
from fsm.ca_rules import broken_invariant, broken_transition
from fsm.commands import Applied, Command, Rejected, RestoreCA
from fsm.leaves import RecordLeaves, TidyLedger
from fsm.state import State

STALE_INDEX: Final = "stale_index"

_HANDLERS: Final[dict[type, Callable[[State, Any], State | Rejected]]] = {**ca_rules.HANDLERS, **leaf_rules.HANDLERS}


def apply(state: State, command: Command) -> tuple[State, Applied | Rejected]:
    """The state after `command`, and what became of it; the state is unchanged when it was rejected."""
    expected = getattr(command, "expected_index", state.ca_index)
    if expected != state.ca_index:
        return state, Rejected(STALE_INDEX, f"made from index {expected}, now {state.ca_index}")
    outcome = _HANDLERS[type(command)](state, command)
    if isinstance(outcome, Rejected):
        return state, outcome
    if isinstance(command, RecordLeaves):
        return outcome, Applied(outcome.index)
    index = state.index + 1
    if isinstance(command, TidyLedger):
        return replace(outcome, index=index), Applied(index)
    outcome = replace(outcome, index=index, ca_index=index)
    broken = broken_invariant(outcome)
    if broken is None and not isinstance(command, RestoreCA):
        broken = broken_transition(state, outcome)
    if broken:
        return state, Rejected("invariant", broken)
    return outcome, Applied(index)
