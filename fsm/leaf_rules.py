"""How the commands about issued certificates change the state. The records themselves go to the ledger."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any, Final

from fsm.commands import Rejected
from fsm.leaves import RecordLeaves, TidyLedger
from fsm.state import State


def _record_leaves(state: State, cmd: RecordLeaves) -> State | Rejected:
    # The records themselves go to the ledger. One index for each keeps CreateIndex unique and increasing.
    index = state.index + len(cmd.records)
    return replace(state, index=index, leaf_index=index)


def _tidy_ledger(state: State, cmd: TidyLedger) -> State | Rejected:
    return replace(state, tidied_before=max(state.tidied_before, cmd.expired_before))


HANDLERS: Final[dict[type, Callable[[State, Any], State | Rejected]]] = {
    RecordLeaves: _record_leaves,
    TidyLedger: _tidy_ledger,
}
