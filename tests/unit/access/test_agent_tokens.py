"""Tokens of a node itself, and what the recovery token is good for."""

import pytest

from cluster.access.agent_tokens import AgentTokens
from cluster.api.access import ACL_READ, AGENT_READ, AGENT_WRITE, OPERATOR_READ, Level, Resource, Right
from cluster.base.errors import NotFound

RECOVERY = "0b5a33bd-2a5c-4c3c-8d5a-111111111111"


def test_recovery_token_is_good_for_this_node_alone() -> None:
    tokens = AgentTokens("n1")
    assert tokens.recovery_caller("") is None
    tokens.put("agent_recovery", RECOVERY)
    caller = tokens.recovery_caller(RECOVERY)
    assert caller is not None
    assert caller.may(AGENT_WRITE, "n1")
    assert caller.may(AGENT_READ, "n1")
    assert caller.may(Right(Resource.NODE, Level.READ), "n2")
    for right in (AGENT_READ, Right(Resource.NODE, Level.WRITE)):
        assert not caller.may(right, "n2")
    assert not caller.may(OPERATOR_READ)
    assert not caller.may(ACL_READ)
    for other in ("", RECOVERY[:-1], RECOVERY.upper() + "x", "\ud800"):
        assert tokens.recovery_caller(other) is None
    tokens.put("agent_master", "")
    assert tokens.recovery_caller(RECOVERY) is None


@pytest.mark.parametrize("kind", ["", "x", "Agent", "agent recovery", "a" * 1000])
def test_other_kinds_are_unknown(kind: str) -> None:
    with pytest.raises(NotFound, match="is unknown"):
        AgentTokens("n1").put(kind, "x")


def test_tokens_are_not_shown() -> None:
    tokens = AgentTokens("n1")
    tokens.put("agent_recovery", RECOVERY)
    assert RECOVERY not in repr(tokens)
    assert RECOVERY not in repr(tokens.recovery_caller(RECOVERY))
