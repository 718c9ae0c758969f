"""A sample of each command about servers' certificates, and of what they set."""

from typing import Any, Final

from fsm.nodes import AddJoinToken, AgentCA, JoinToken, NodesCommand, SetAgentCA, TakeJoinToken
from fsm.nodes_rules import find_join_token
from fsm.state import State
from tests.kit.acl_samples import uuid

NOW: Final = 1_800_000_000
PUBLIC_KEY: Final = bytes(range(32))


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
            "public_key": PUBLIC_KEY,
            "name": "node-4",
            "raft_address": "10.0.0.4:8300",
            "rpc_address": "10.0.0.4:8400",
            "is_rejoin": True,
            "is_forced": True,
            "expires_at": NOW + 600,
            "made_by": None,
            **changes,
        }
    )


#: One of each kind, every field set to something that is not its default.
COMMANDS: dict[str, NodesCommand] = {
    "set_agent_ca": SetAgentCA(7, agent_ca()),
    "add_join_token": AddJoinToken(join_token(made_by=uuid(1)), NOW),
    "take_join_token": TakeJoinToken(PUBLIC_KEY, "node-4", NOW + 1),
}


def fitting(state: State, kind: type) -> NodesCommand:
    """Of this kind, such that it is applied; or else of the kind that has to come before."""
    if kind is SetAgentCA or state.nodes.agent_ca is None:
        return SetAgentCA(state.ca_index, agent_ca(set_at=NOW + state.index % 1000))
    if kind is AddJoinToken or find_join_token(state, "node-4", NOW) is None:
        makers = [token.accessor_id for token in state.acl.tokens if not token.is_expired(NOW)]
        return AddJoinToken(join_token(made_by=makers[0] if makers else None), NOW)
    return TakeJoinToken(PUBLIC_KEY, "node-4", NOW)
