"""How long a leaf for a local service waits for a leader: all its steps together as long as one request may."""

import asyncio
from dataclasses import replace
from typing import Any, Final

import pytest

from cluster.base.errors import NoLeader
from cluster.base.telemetry import Metrics
from cluster.ca.health import HealthBoard
from cluster.ca.uptake import Watchers
from cluster.node.leaves import NodeLeaves
from cluster.node.reads import NodeReads
from cluster.raft.replica import Leadership
from cluster.rpc.forward import Forwarder
from cluster.rpc.operations import Operations
from fsm.state import State
from tests.kit import samples
from tests.kit.callers import ANYBODY, FakeAccess
from tests.kit.clock import FakeClock
from tests.kit.log import EventLog

WAIT_SECONDS: Final = 7.0
_LOOK_SECONDS: Final = 0.5  # what each look for a leader takes


class Leaderless:
    """A replica that finds no leader: whoever waits for one moves the clock."""

    def __init__(self, state: State) -> None:
        self.clock = FakeClock()
        self.state = state
        self.leadership = Leadership()
        self.leadership_changed = self
        self.members: dict[str, Any] = {}
        self.leader_contact_seconds = 60.0
        self.admission = FakeAdmission()

    async def wait(self) -> None:
        await asyncio.sleep(0)
        self.clock.advance(_LOOK_SECONDS)

    async def read_barrier(self, *, timeout: float) -> int:
        await asyncio.sleep(0)
        self.clock.advance(timeout)
        raise NoLeader("No cluster leader")


class FakeAdmission:
    is_pinned = False


class Keys:
    """Makes none."""

    async def make_csr(self, *_: object) -> tuple[str, str]:
        return "csr", "key"


def leaves_of(replica: Any) -> NodeLeaves:
    pool: Any = Keys()
    peers: Any = None
    metrics = Metrics()
    reads = NodeReads(replica, Watchers(), "a", WAIT_SECONDS)
    forwarder = Forwarder(
        replica, Operations(lambda _secret_id, _before: ANYBODY), peers, "a", replica.clock, metrics, WAIT_SECONDS
    )
    return NodeLeaves(reads, forwarder, pool, HealthBoard(), "dc1", replica.clock, metrics, FakeAccess(), EventLog())


@pytest.mark.parametrize("has_root", [True, False])
async def test_leaf_without_a_leader_is_refused_after_one_wait(has_root: bool) -> None:
    """A node that does not know a root yet asks once more, before it says so."""
    state = samples.full_state()
    replica = Leaderless(state if has_root else replace(state, roots=()))
    begin = replica.clock.monotonic()
    with pytest.raises(NoLeader):
        await leaves_of(replica).leaf(ANYBODY, "web", "me")
    assert replica.clock.monotonic() - begin == WAIT_SECONDS


async def test_csr_waits_for_a_leader_as_long() -> None:
    replica = Leaderless(samples.full_state())
    begin = replica.clock.monotonic()
    with pytest.raises(NoLeader):
        await leaves_of(replica).sign(ANYBODY, "csr", "me")
    assert replica.clock.monotonic() - begin == WAIT_SECONDS
