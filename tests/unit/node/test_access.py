"""What a node says of a token once it has heard from nobody for too long to know whether it still counts."""

import pytest

from cluster.access.agent_tokens import AgentTokens
from cluster.base.errors import NoLeader, TokenUnknown
from cluster.node.access import NodeAccess
from fsm.acl import ANONYMOUS, BootstrapAcl, DeleteTokens, SetPolicy
from tests.kit.acl_samples import NOW, policy, token, uuid
from tests.kit.clock import FakeClock
from tests.kit.log import EventLog
from tests.unit.access.test_directory import Cluster

STALE_SECONDS = 30
RECOVERY = "0b5a33bd-2a5c-4c3c-8d5a-111111111111"


class Nobody:
    """Reads that no leader confirms."""

    async def read(self, _level: object) -> None:
        raise NoLeader("No cluster leader")


class Cut:
    """A node that heard from its leader when the clock was made."""

    def __init__(self, *, allows_by_default: bool) -> None:
        self.cluster = Cluster(allows_by_default=allows_by_default)
        self.clock = FakeClock()
        self.heard_at = self.clock.monotonic()
        self.log = EventLog()
        self.tokens = AgentTokens("n1")
        self.access = NodeAccess(
            self.cluster.directory,
            self.tokens,
            Nobody(),  # type: ignore[arg-type]
            lambda: self.clock.monotonic() - self.heard_at,
            STALE_SECONDS,
            self.log,
        )


@pytest.mark.parametrize("allows_by_default", [False, True])
async def test_token_counts_no_longer_than_it_can_be_known_to(allows_by_default: bool) -> None:
    cut = Cut(allows_by_default=allows_by_default)
    cut.cluster.give("mine")
    cut.cluster.do(BootstrapAcl(token(9)))
    callers = [await cut.access.caller("mine"), cut.access.caller_here("mine"), cut.access.caller_here("")]
    cut.clock.advance(STALE_SECONDS)
    for caller in callers:
        assert cut.access.judged_again(caller) is caller
    cut.clock.advance(1)
    said = "this node has not heard from a leader for 31 s, and cannot know whether the token still counts"
    for secret_id in ("mine", "nobody's", ""):
        with pytest.raises(NoLeader, match=said):
            cut.access.caller_here(secret_id)
        with pytest.raises(NoLeader, match=said):
            await cut.access.caller(secret_id)
    for caller in callers:
        with pytest.raises(NoLeader, match=said):
            cut.access.judged_again(caller)
    cut.heard_at = cut.clock.monotonic()
    assert cut.access.judged_again(callers[0]) is callers[0]
    with pytest.raises(TokenUnknown):
        cut.access.caller_here("nobody's")


async def test_open_cluster_has_no_tokens_to_doubt() -> None:
    cut = Cut(allows_by_default=True)
    cut.clock.advance(10 * STALE_SECONDS)
    caller = await cut.access.caller("whatever")
    assert (caller.accessor_id, cut.access.judged_again(caller).is_of_open_cluster) == (ANONYMOUS, True)
    closed = Cut(allows_by_default=False)
    closed.clock.advance(10 * STALE_SECONDS)
    with pytest.raises(NoLeader):
        closed.access.caller_here("")


@pytest.mark.parametrize("end", ["deleted", "expired", "weaker"])
async def test_recovery_token_is_for_just_that_and_ends_with_who_has_given_it(end: str) -> None:
    cut = Cut(allows_by_default=False)
    cut.cluster.do(SetPolicy(policy(1, rules='agent "n1" { policy = "write" }')))
    setter = cut.cluster.give("setter", policies=(uuid(1),), expires_at=NOW + 3600)
    given = cut.access.caller_here("setter")
    cut.access.put_agent_token("agent_recovery", RECOVERY, given)
    assert cut.log.events == [
        ("agent.token_set", {"kind": "agent_recovery", "accessor": setter.accessor_id, "is_set": True})
    ]
    cut.clock.advance(10 * STALE_SECONDS)
    caller = await cut.access.caller(RECOVERY)
    assert cut.access.judged_again(caller).accessor_id == caller.accessor_id
    cut.heard_at = cut.clock.monotonic()
    # With it nobody gets another one that lasts longer.
    cut.access.put_agent_token("agent_recovery", RECOVERY, caller)
    assert _counts(cut)
    match end:
        case "deleted":
            cut.cluster.do(DeleteTokens((setter.accessor_id,)))
        case "expired":
            cut.cluster.clock.advance(3600)
        case _:
            cut.cluster.do(SetPolicy(policy(1, rules='agent "n1" { policy = "read" }'), _policy_index(cut)))
    assert not _counts(cut)
    with pytest.raises(TokenUnknown):
        cut.access.caller_here(RECOVERY)
    with pytest.raises(TokenUnknown):
        cut.access.judged_again(caller)


def _counts(cut: Cut) -> bool:
    return cut.access.has_recovery_token


def _policy_index(cut: Cut) -> int:
    return max(one.modify_index for one in cut.cluster.state.acl.policies if one.policy_id == uuid(1))


async def test_recovery_token_that_anybody_could_give_ends_when_a_cluster_is_open_no_more() -> None:
    cut = Cut(allows_by_default=True)
    cut.access.put_agent_token("agent_recovery", RECOVERY, cut.access.caller_here(""))
    assert _counts(cut)
    cut.cluster.do(BootstrapAcl(token(9)))
    assert not _counts(cut)
    with pytest.raises(TokenUnknown):
        cut.access.caller_here(RECOVERY)
