"""How the commands about issued certificates change the state. The records themselves go to the ledger."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Final

from fsm.leaves import RecordLeaves, TidyLedger
from fsm.rule import Rule
from fsm.state import Area, State


def _record_leaves(state: State, _cmd: RecordLeaves) -> State:
    return state


def _one_for_each_record(cmd: RecordLeaves) -> int:
    """So that a certificate's CreateIndex is its own, and its row id in the ledger."""
    return len(cmd.records)


def _tidy_ledger(state: State, cmd: TidyLedger) -> State:
    return replace(state, tidied_before=max(state.tidied_before, cmd.expired_before))


RULES: Final[Mapping[type, Rule]] = {
    RecordLeaves: Rule(_record_leaves, Area.LEAVES, takes=_one_for_each_record),
    # `leaf_index` is the row id of the last certificate: a snapshot is checked by it against the ledger below it.
    TidyLedger: Rule(_tidy_ledger, Area.LEAVES, moves_area=False),
}
