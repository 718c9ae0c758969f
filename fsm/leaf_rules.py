"""How the commands about issued certificates change the state. The records themselves go to the ledger."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Final

from fsm.commands import Rejected
from fsm.fields import MAX_INT64, MIN_INT64
from fsm.leaves import RecordLeaves, TidyLedger
from fsm.rule import Rule
from fsm.state import Area, State


def _record_leaves(state: State, cmd: RecordLeaves) -> State | Rejected:
    for record in cmd.records:
        for number in (record.kind, record.not_before, record.not_after):
            # The ledger could not hold it. An older release ended at such an entry, so none has gone on behind one.
            if not MIN_INT64 <= number <= MAX_INT64:
                return Rejected("out_of_range", f"the ledger cannot hold {number}")
    return state


def _one_for_each_record(cmd: RecordLeaves) -> int:
    """So that a certificate's CreateIndex is its own, and its row id in the ledger."""
    return len(cmd.records)


def _tidy_ledger(state: State, cmd: TidyLedger) -> State | Rejected:
    if not MIN_INT64 <= cmd.expired_before <= MAX_INT64:
        return Rejected("out_of_range", f"the ledger cannot hold {cmd.expired_before}")
    return replace(state, tidied_before=max(state.tidied_before, cmd.expired_before))


RULES: Final[Mapping[type, Rule]] = {
    RecordLeaves: Rule(_record_leaves, Area.LEAVES, takes=_one_for_each_record),
    # `leaf_index` is the row id of the last certificate: a snapshot is checked by it against the ledger below it.
    TidyLedger: Rule(_tidy_ledger, Area.LEAVES, moves_area=False),
}
