"""`apply`: the state machine's one step, a table of pure functions.

Never raises for a domain reason: a refusal is a value. (PySyncObj retries an entry whose application raises, for ever,
on every node.) Invariants are checked on the result, not on the request.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any, Final

from fsm.commands import (
    Applied,
    Command,
    InitConfig,
    InitSeal,
    RecordLeaves,
    Rejected,
    SetConfig,
    SetProviderState,
    SetRootsConfig,
    TidyLedger,
)
from fsm.state import CAConfig, CARoot, ProviderState, State

STALE_INDEX: Final = "stale_index"


class InvariantError(Exception):
    """The state itself is impossible. The process that holds it must stop rather than spread it."""


def _init_seal(state: State, cmd: InitSeal) -> State | Rejected:
    if state.seal is not None:
        return Rejected("already_initialised", "the data key exists already")
    return replace(state, seal=cmd.seal)


def _init_config(state: State, cmd: InitConfig) -> State | Rejected:
    if state.config is not None:
        return Rejected("already_initialised", "the CA has a configuration already")
    config = _stamped(cmd.config, None, state.index + 1)
    return replace(state, config=config, providers=_with_provider(state, cmd.provider_state))


def _set_provider_state(state: State, cmd: SetProviderState) -> State | Rejected:
    if state.active_root is not None:
        return Rejected("already_initialised", "the CA has a root already")
    return replace(state, providers=_with_provider(state, cmd.state))


def _set_roots_config(state: State, cmd: SetRootsConfig) -> State | Rejected:
    index = state.index + 1
    known = {root.root_id: root.create_index for root in state.roots}
    roots = tuple(
        replace(root, create_index=known.get(root.root_id, index), modify_index=index)
        for root in sorted(cmd.roots, key=lambda root: root.root_id)
    )
    providers = tuple(replace(record, modify_index=index) for record in cmd.providers)
    config = _stamped(cmd.config, state.config, index)
    return replace(state, roots=roots, roots_index=index, config=config, providers=providers)


def _set_config(state: State, cmd: SetConfig) -> State | Rejected:
    if state.config is None:
        return Rejected("not_initialised", "the CA has no configuration yet")
    config = _stamped(cmd.config, state.config, state.index + 1)
    if state.roots:
        return replace(state, config=config, providers=_with_provider(state, cmd.provider_state))
    # Without a root nothing hangs on the provider tried before: a repaired configuration starts afresh.
    record = replace(cmd.provider_state, modify_index=state.index + 1)
    return replace(state, config=config, providers=(record,))


def _record_leaves(state: State, cmd: RecordLeaves) -> State | Rejected:
    # The records themselves go to the ledger. One index for each keeps CreateIndex unique and increasing.
    index = state.index + len(cmd.records)
    return replace(state, index=index, leaf_index=index)


def _tidy_ledger(state: State, cmd: TidyLedger) -> State | Rejected:
    return replace(state, tidied_before=max(state.tidied_before, cmd.expired_before))


def _stamped(config: CAConfig, old: CAConfig | None, index: int) -> CAConfig:
    return replace(config, create_index=old.create_index if old else index, modify_index=index)


def _with_provider(state: State, record: ProviderState) -> tuple[ProviderState, ...]:
    others = (other for other in state.providers if other.provider_id != record.provider_id)
    return (*others, replace(record, modify_index=state.index + 1))


_HANDLERS: Final[dict[type, Callable[[State, Any], State | Rejected]]] = {
    InitSeal: _init_seal,
    InitConfig: _init_config,
    SetProviderState: _set_provider_state,
    SetRootsConfig: _set_roots_config,
    SetConfig: _set_config,
    RecordLeaves: _record_leaves,
    TidyLedger: _tidy_ledger,
}


def apply(state: State, command: Command) -> tuple[State, Applied | Rejected]:
    """The state after `command`, and what became of it; the state is unchanged when it was rejected."""
    if isinstance(command, SetProviderState | SetRootsConfig | SetConfig) and command.expected_index != state.ca_index:
        return state, Rejected(STALE_INDEX, f"made from index {command.expected_index}, now {state.ca_index}")
    outcome = _HANDLERS[type(command)](state, command)
    if isinstance(outcome, Rejected):
        return state, outcome
    if isinstance(command, RecordLeaves):
        return outcome, Applied(outcome.index)
    index = state.index + 1
    if isinstance(command, TidyLedger):
        return replace(outcome, index=index), Applied(index)
    outcome = replace(outcome, index=index, ca_index=index)
    broken = broken_invariant(outcome) or _broken_transition(state, outcome)
    if broken:
        return state, Rejected("invariant", broken)
    return outcome, Applied(index)


def broken_invariant(state: State) -> str | None:
    """What is impossible about this state, or None."""
    ids = [root.root_id for root in state.roots]
    if len(set(ids)) != len(ids) or "" in ids:
        return "root ids must be unique and not empty"
    if state.roots and sum(root.is_active for root in state.roots) != 1:
        return "there must be exactly one active CA"
    if state.roots and state.config is None:
        return "there are roots without a configuration"
    if state.config is not None and state.provider_state(state.config.provider_id) is None:
        return f"the state of provider {state.config.provider_id} is missing"
    if len({record.provider_id for record in state.providers}) != len(state.providers):
        return "provider ids must be unique"
    return _broken_chain(state.roots)


def _broken_chain(roots: tuple[CARoot, ...]) -> str | None:
    root_keys = {root.key_id for root in roots}
    for root in roots:
        keys = {intermediate.key_id for intermediate in root.intermediates}
        # Grown from the roots, link by link: certificates that lead to each other only never get in.
        linked = set(root_keys)
        while new := {link.key_id for link in root.intermediates if link.issuer_key_id in linked} - linked:
            linked |= new
        for intermediate in root.intermediates:
            if intermediate.issuer_key_id not in linked:
                return f"intermediate {intermediate.key_id} of root {root.root_id} does not lead to a listed root"
        if root.signing_key_id != root.key_id and root.signing_key_id not in keys:
            return f"signing key {root.signing_key_id} of root {root.root_id} has no certificate"
    return None


def _broken_transition(before: State, after: State) -> str | None:
    if before.config is None or after.config is None:
        return None
    if before.roots and before.config.cluster_id != after.config.cluster_id:
        return f"the trust domain cannot change from {before.trust_domain} to {after.trust_domain}"
    return None
