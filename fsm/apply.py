"""`apply`: the state machine's one step. What differs between commands is in their rules.

Never raises for a domain reason: a refusal is a value. (PySyncObj retries an entry whose application raises, for ever,
on every node.) Invariants are checked on the result, not on the request.
"""

from collections.abc import Mapping
from typing import Final

from fsm import acl_rules, ca_rules, leaf_rules, nodes_rules
from fsm.commands import Applied, Command, Rejected
from fsm.rule import Invariants, Rule
from fsm.state import Area, State

STALE_INDEX: Final = "stale_index"

RULES: Final[Mapping[type, Rule]] = {**ca_rules.RULES, **leaf_rules.RULES, **acl_rules.RULES, **nodes_rules.RULES}
#: By area, so that no command of it can leave them out. There are none of leaves, which are applied by the thousand.
_INVARIANTS: Final[Mapping[Area, Invariants]] = {Area.CA: ca_rules.INVARIANTS}


def apply(state: State, command: Command) -> tuple[State, Applied | Rejected]:
    """The state after `command`, and what became of it; the state is unchanged when it was rejected."""
    rule = RULES[type(command)]
    current = state.area_index(rule.area)
    expected = getattr(command, "expected_index", current)
    if expected != current:
        return state, Rejected(STALE_INDEX, f"made from index {expected}, now {current}")
    outcome = rule.handler(state, command)
    if isinstance(outcome, Rejected):
        return state, outcome
    index = state.index + rule.takes(command)
    after = outcome.moved_to(index, rule.area if rule.moves_area else None)
    if broken := _broken(rule, state, after):
        return state, Rejected("invariant", broken)
    return after, Applied(index)


def _broken(rule: Rule, before: State, after: State) -> str | None:
    invariants = _INVARIANTS.get(rule.area)
    if invariants is None:
        return None
    return invariants.of_state(after) or (invariants.of_transition(before, after) if rule.checks_transition else None)
