"""A sample of each command about servers' certificates, and of what they set."""

from typing import Any, Final

from fsm.nodes import AddJoinToken, AgentCA, JoinToken, NodesCommand, SetAgentCA, TakeJoinToken
from fsm.state import State

NOW: Final = 1_800_000_000
HASH: Final = bytes(range(32))


def agent_ca(**changes: Any) -> AgentCA:
    return AgentCA(
        **{
            "cert_pem": "-----BEGIN CERTIFICATE-----\nAA\n-----END CERTIFICATE-----\n",
            "sealed": b"a sealed key",
            "cert_ttl_seconds": 259_200,
            "set_at": NOW,
            **changes,
        }
    )


def join_token(**changes: Any) -> JoinToken:
    return JoinToken(
        **{
            "secret_hash": HASH,
            "name": "node-4",
            "raft_address": "10.0.0.4:8300",
            "rpc_address": "10.0.0.4:8400",
            "is_rejoin": True,
            "expires_at": NOW + 600,
            **changes,
        }
    )


#: One of each kind, every field set to something that is not its default.
COMMANDS: dict[str, NodesCommand] = {
    "set_agent_ca": SetAgentCA(7, agent_ca()),
    "add_join_token": AddJoinToken(join_token(), NOW),
    "take_join_token": TakeJoinToken(HASH, "node-4", NOW + 1),
}


def fitting(state: State, kind: type) -> NodesCommand:
    """Of this kind, such that it is applied; or else of the kind that has to come before."""
    if kind is SetAgentCA or state.nodes.agent_ca is None:
        return SetAgentCA(state.ca_index, agent_ca(set_at=NOW + state.index % 1000))
    if kind is AddJoinToken or not state.nodes.join_tokens:
        return AddJoinToken(join_token(), NOW)
    return TakeJoinToken(HASH, "node-4", NOW)
