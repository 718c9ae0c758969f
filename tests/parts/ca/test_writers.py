"""Operators who write at the same time take turns in the order of their arrival. Whoever gave a ModifyIndex and is not
first is told that it is stale; nobody is told of states that the CA is in.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, Final

import pytest

from cluster.api.ca import RotateRequest, Steering
from cluster.base.errors import ChangeUnderWay, CommitUnknown, LostRace, NotFound, NotLeader, Refused, StaleIndex
from cluster.ca.attempts import Attempt
from fsm.ca import FinishRotation, SetConfig
from fsm.commands import Command
from fsm.state import State
from tests.kit.fake_cluster import FakeCluster, Fate, Node, bootstrapped, put, running, stored_config, update
from tests.kit.wait import until

WRITERS: Final = 8
#: Writes that differ, each of which changes something: the same root, or another.
KINDS: Final[dict[str, Callable[[int], dict[str, object]]]] = {
    "same root": lambda number: {"LeafCertTTL": f"{number + 2}h"},
    "another root": lambda number: {"PrivateKeyBits": (384, 521, 256)[number % 3], "LeafCertTTL": f"{number + 2}h"},
}


@pytest.fixture(autouse=True)
def _short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cluster.ca.leader._FIRST_PAUSE_SECONDS", 0.001)


@pytest.fixture
async def nodes(cluster: FakeCluster) -> AsyncIterator[list[Node]]:
    nodes = [Node(cluster, name) for name in "abc"]
    async with running(*nodes):
        await bootstrapped(nodes[0])
        yield nodes


@pytest.fixture
def node(nodes: list[Node]) -> Node:
    return nodes[0]


async def write(node: Node, number: int, config: dict[str, object], **changes: Any) -> None:
    """As the API does, until it is in force."""
    rotation_id = await put(node, update(config, **changes), request_id=b"writer %d" % number)
    if rotation_id:
        await node.reconfigurer.wait_for_rotation(rotation_id)


def modify_index(state: State) -> int:
    assert state.config is not None
    return state.config.modify_index


@pytest.mark.parametrize("kind", KINDS)
async def test_of_writers_with_the_same_index_one_wins_and_the_others_get_the_current_one(
    node: Node, kind: str
) -> None:
    index = modify_index(node.cluster.state)
    writes = [write(node, number, KINDS[kind](number), modify_index=index) for number in range(WRITERS)]
    outcomes = await asyncio.gather(*writes, return_exceptions=True)
    assert [outcome for outcome in outcomes if outcome is None] == [None]
    lost = [outcome for outcome in outcomes if outcome is not None]
    assert {type(outcome) for outcome in lost} == {StaleIndex}
    assert {outcome.http_status for outcome in lost if isinstance(outcome, StaleIndex)} == {409}
    current = modify_index(node.cluster.state)
    assert all(str(outcome).endswith(f"the configuration is at {current}") for outcome in lost)
    assert stored_config(node.cluster.state)["LeafCertTTL"] == f"{outcomes.index(None) + 2}h"


@pytest.mark.parametrize("kind", KINDS)
async def test_writers_without_an_index_take_turns_in_the_order_of_their_arrival(node: Node, kind: str) -> None:
    done: list[int] = []
    writers = WRITERS if kind == "same root" else 6  # as many links as a chain has room for

    async def one(number: int) -> None:
        await put(node, update(KINDS[kind](number)), request_id=b"writer %d" % number)
        done.append(number)

    tasks = []
    for number in range(writers):
        tasks.append(asyncio.ensure_future(one(number)))
        await asyncio.sleep(0)
    await asyncio.gather(*tasks)
    assert done == list(range(writers))
    await until(lambda: node.cluster.state.rotation is None)
    assert stored_config(node.cluster.state)["LeafCertTTL"] == f"{writers + 1}h"


async def test_writer_that_comes_as_a_rotation_ends_does_not_overtake_one_that_has_waited_for_it(node: Node) -> None:
    late: list[asyncio.Task[None]] = []

    def on_propose(command: Command) -> Fate:
        if isinstance(command, FinishRotation):
            late.append(asyncio.ensure_future(write(node, 3, {"LeafCertTTL": "4h", "PrivateKeyBits": 384})))
        return Fate.COMMITTED

    node.cluster.on_propose = on_propose
    node.worker.held.add("generate_root")
    first = asyncio.ensure_future(write(node, 1, {"PrivateKeyBits": 384}))
    await until(lambda: "generate_root" in node.worker.calls)
    second = asyncio.ensure_future(write(node, 2, {"LeafCertTTL": "3h", "PrivateKeyBits": 384}))
    await asyncio.sleep(0.01)
    node.worker.held.clear()
    node.worker.gate.set()
    await asyncio.gather(first, second)
    await asyncio.gather(*late)
    assert stored_config(node.cluster.state)["LeafCertTTL"] == "4h"


async def test_behind_a_published_rotation_nobody_waits_and_a_stale_index_is_still_told(node: Node) -> None:
    """It may wait for weeks: for its clients, or for an operator, whose steering must not queue behind a writer."""
    stale = modify_index(node.cluster.state)
    await write(node, 0, {"LeafCertTTL": "2h"})
    index = modify_index(node.cluster.state)
    await write(node, 1, {"PrivateKeyBits": 384}, is_staged=True, wait_seconds=600)
    before = node.cluster.state
    for config in ({"LeafCertTTL": "3h"}, {"PrivateKeyBits": 521}):
        for given in (0, index):
            with pytest.raises(ChangeUnderWay, match="a rotation is under way, see /v1/connect/ca/rotation") as busy:
                await write(node, 2, dict(config), modify_index=given)
            assert busy.value.http_status == 503
        with pytest.raises(StaleIndex):
            await write(node, 3, dict(config), modify_index=stale)
    with pytest.raises(ChangeUnderWay):
        await rotate(node, b"r")
    assert node.cluster.state is before
    await node.operator_rotation.steer(Steering.ABORT)


async def test_steering_does_not_queue_behind_writers(node: Node) -> None:
    node.worker.held.add("generate_root")
    first = asyncio.ensure_future(write(node, 1, {"PrivateKeyBits": 384}))
    await until(lambda: "generate_root" in node.worker.calls)
    second = asyncio.ensure_future(write(node, 2, {"LeafCertTTL": "3h"}))
    await asyncio.sleep(0.01)
    steering = asyncio.ensure_future(node.operator_rotation.steer(Steering.ABORT))
    await asyncio.sleep(0.01)
    assert not second.done()
    node.worker.held.clear()
    node.worker.gate.set()
    await asyncio.gather(first, second, steering, return_exceptions=True)
    assert second.exception() is None
    assert stored_config(node.cluster.state)["LeafCertTTL"] == "3h"


async def test_more_writers_than_can_get_their_turn_are_refused_at_once(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cluster.ca.changes._MAX_WAITING", 3)
    async with node.changes.turn("RECONFIGURING", is_duty=True):
        waiting = [asyncio.ensure_future(write(node, number, {"LeafCertTTL": "2h"})) for number in range(4)]
        await asyncio.sleep(0.01)
        refused = [task for task in waiting if task.done()]
        assert [type(task.exception()) for task in refused] == [ChangeUnderWay]
    await asyncio.gather(*waiting, return_exceptions=True)
    assert len([task for task in waiting if task.exception() is None]) == 3


async def rotate(node: Node, request_id: bytes) -> None:
    attempt = Attempt(request_id, node.cluster.state.ca_index, is_repeat=False)
    rotation_id = await node.operator_rotation.rotate(RotateRequest(), attempt)
    await node.reconfigurer.wait_for_rotation(rotation_id)


@pytest.mark.parametrize("what", ["rotate", "distrust", "steer"])
async def test_other_writes_at_the_same_time_end_in_turn_or_are_told_to_come_again(node: Node, what: str) -> None:
    await rotate(node, b"first")
    retired = next(root.root_id for root in node.cluster.state.roots if root.is_retired)
    if what == "steer":
        await write(node, 99, {"PrivateKeyBits": 384}, is_staged=True, wait_seconds=600)
    ways: dict[str, Callable[[int], Awaitable[None]]] = {
        "rotate": lambda number: rotate(node, b"%d" % number),
        "distrust": lambda _number: node.operator_rotation.distrust(retired),
        "steer": lambda _number: node.operator_rotation.steer(Steering.ABORT),
    }
    outcomes = await asyncio.gather(*(ways[what](number) for number in range(WRITERS)), return_exceptions=True)
    assert None in outcomes
    told = {"rotate": ChangeUnderWay, "distrust": NotFound, "steer": Refused}[what]
    assert all(isinstance(outcome, told) for outcome in outcomes if outcome is not None)


async def test_write_that_waited_while_the_leader_changed_is_for_the_next_leader(nodes: list[Node]) -> None:
    """This node may lead again by then, and the write have been done elsewhere meanwhile."""
    node = nodes[0]
    async with node.changes.turn("RECONFIGURING", is_duty=True):
        waiting = asyncio.ensure_future(write(node, 1, {"LeafCertTTL": "2h"}))
        await asyncio.sleep(0.01)
        node.cluster.elect("b")
        node.cluster.elect("a")
        await until(lambda: node.authority.is_ready)  # so that nothing else stops it
    with pytest.raises(NotLeader):
        await waiting
    assert not [command for command in node.cluster.proposed if isinstance(command, SetConfig)]


async def test_request_that_arrives_behind_its_own_repetition_is_not_done_twice(node: Node) -> None:
    attempt = Attempt(b"1", node.cluster.state.ca_index, is_repeat=True)
    async with node.changes.turn("RECONFIGURING", is_duty=True):
        repetition = asyncio.ensure_future(node.reconfigurer.apply(update({"LeafCertTTL": "2h"}), attempt))
        await asyncio.sleep(0.01)
        other = asyncio.ensure_future(write(node, 2, {"LeafCertTTL": "3h"}))
        with pytest.raises(CommitUnknown):
            await put(node, update({"LeafCertTTL": "2h"}), request_id=b"1", ca_index=attempt.ca_index)
    await asyncio.gather(repetition, other)
    assert stored_config(node.cluster.state)["LeafCertTTL"] == "3h"
    with pytest.raises(LostRace):
        await put(node, update({"LeafCertTTL": "2h"}), request_id=b"1", ca_index=attempt.ca_index)
