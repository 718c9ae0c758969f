"""How each command about servers' certificates changes the state."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Final

from fsm.acl import Acl
from fsm.commands import Rejected
from fsm.nodes import MAX_JOIN_TOKENS, AddJoinToken, JoinToken, Nodes, SetAgentCA, TakeJoinToken
from fsm.rule import Rule
from fsm.state import Area, State

STALE_SEAL: Final = "stale_seal"
NO_AGENT_CA: Final = "no_agent_ca"
NO_TOKEN: Final = "no_token"  # noqa: S105 - a code
FULL: Final = "full"


def _set_agent_ca(state: State, cmd: SetAgentCA) -> State | Rejected:
    if cmd.ca_index != state.ca_index:
        return Rejected(STALE_SEAL, f"sealed at index {cmd.ca_index}, now {state.ca_index}")
    # Tokens were printed with the fingerprint of the CA before.
    return replace(state, nodes=Nodes(cmd.agent_ca))


def _add_join_token(state: State, cmd: AddJoinToken) -> State | Rejected:
    if state.nodes.agent_ca is None:
        return Rejected(NO_AGENT_CA, "there is no agent CA")
    kept = [
        token
        for token in state.nodes.join_tokens
        if token.name != cmd.token.name and token.public_key != cmd.token.public_key and not token.is_expired(cmd.now)
    ]
    if len(kept) >= MAX_JOIN_TOKENS:
        return Rejected(FULL, f"there are {MAX_JOIN_TOKENS} already")
    tokens = sorted([*kept, cmd.token], key=lambda token: token.name)
    return replace(state, nodes=replace(state.nodes, join_tokens=tuple(tokens)))


def _take_join_token(state: State, cmd: TakeJoinToken) -> State | Rejected:
    found = find_join_token(state, cmd.name, cmd.now)
    if found is None or found.public_key != cmd.public_key:
        return Rejected(NO_TOKEN, f"there is no such token for {cmd.name}")
    kept = tuple(token for token in state.nodes.join_tokens if token != found)
    return replace(state, nodes=replace(state.nodes, join_tokens=kept))


def find_join_token(state: State, name: str, now: float) -> JoinToken | None:
    """The one for this name that is good at this time."""
    for token in state.nodes.join_tokens:
        if token.name == name and not token.is_expired(now) and _has_maker(state.acl, token, now):
            return token
    return None


def _has_maker(acl: Acl, token: JoinToken, now: float) -> bool:
    """Whether it may have been made still: what was made without a token ends with the first one."""
    if token.made_by is None:
        return not acl.bootstrap_index
    return any(made_by.accessor_id == token.made_by and not made_by.is_expired(now) for made_by in acl.tokens)


RULES: Final[Mapping[type, Rule]] = {
    SetAgentCA: Rule(_set_agent_ca, Area.NODES),
    AddJoinToken: Rule(_add_join_token, Area.NODES),
    TakeJoinToken: Rule(_take_join_token, Area.NODES),
}
