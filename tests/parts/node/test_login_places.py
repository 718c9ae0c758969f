"""Logins need no right: whoever holds them up, however many, holds up nothing but logins of the same method."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from cluster.access.methods.prove import REFUSED_AFTER_SECONDS
from cluster.base.errors import ClusterError, NoLeader, Overloaded, PermissionDenied
from cluster.node import acl as acl_module
from cluster.node.acl import LOGINS_AT_ONCE, LOGINS_OF_A_METHOD, NodeAcl
from cluster.node.acl_work import _LOGINS_OF_A_METHOD, AclWork
from cluster.rpc.client import MAX_CONNECTIONS
from cluster.rpc.messages import ACL_LOGIN, AclKeyAnswer, AclLoginRequest
from cluster.rpc.operations import Operations, served
from tests.kit.callers import ANYBODY
from tests.kit.clock import FakeClock
from tests.kit.fake_cluster import FakeCluster
from tests.kit.rpc_nodes import Ask, RpcNode, Told, operation, rpc_nodes
from tests.kit.wait import until
from tests.unit.node.test_acl_login import REQUEST, Node

OTHER = operation()


class Reads:
    async def catch_up(self) -> None:
        pass


class Leader:
    """Whose logins at `hanging` never come to an end, and at others at once."""

    def __init__(self) -> None:
        self.under_way = 0
        self.most = 0
        self.refuses = False

    async def login(self, request: AclLoginRequest) -> AclKeyAnswer:
        self.under_way += 1
        self.most = max(self.most, self.under_way)
        try:
            if request.method.startswith("hanging"):
                await asyncio.sleep(60)
            if self.refuses:
                raise PermissionDenied("Permission denied")
            return AclKeyAnswer("key")
        finally:
            self.under_way -= 1


@pytest.fixture
async def leader() -> Leader:
    return Leader()


@pytest.fixture
async def nodes(rpc_cluster: FakeCluster, tls_directory: Path, leader: Leader) -> AsyncIterator[dict[str, RpcNode]]:
    async def other(_request: Ask) -> Told:
        return Told("done")

    table = Operations(lambda *_: ANYBODY, served(ACL_LOGIN, leader.login), served(OTHER, other))
    async with rpc_nodes(rpc_cluster, tls_directory, {"a": table, "b": table}, wait_seconds=60) as found:
        rpc_cluster.elect("a")
        yield found


def acl_of(node: RpcNode) -> NodeAcl:
    reads: Any = Reads()
    return NodeAcl(reads, node.forwarder, FakeClock())


async def ended(tasks: list[asyncio.Task[Any]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


@pytest.mark.parametrize("name", ["a", "b"])
async def test_logins_that_hang_hold_up_no_other_work_and_no_other_method(
    nodes: dict[str, RpcNode], leader: Leader, name: str
) -> None:
    acl = acl_of(nodes[name])
    hanging = [asyncio.create_task(acl.login("hanging", "t", {}, "10.0.0.7")) for _ in range(220)]
    await until(lambda: leader.under_way == LOGINS_OF_A_METHOD)
    began = time.monotonic()
    answers = [await nodes[name].forwarder.call(OTHER, Ask()) for _ in range(20)]
    logins = [await acl.login("good", "t", {}, "10.0.0.7") for _ in range(20)]
    assert time.monotonic() - began < 5
    assert ([answer.value for answer in answers], len(logins)) == (["done"] * 20, 20)
    await ended(hanging)


async def test_logins_of_all_methods_leave_connections_to_others(nodes: dict[str, RpcNode], leader: Leader) -> None:
    acl = acl_of(nodes["b"])
    hanging = [asyncio.create_task(acl.login(f"hanging{k % 20}", "t", {}, "10.0.0.7")) for k in range(220)]
    await until(lambda: leader.under_way >= LOGINS_AT_ONCE)
    await asyncio.sleep(0.2)
    assert leader.most == LOGINS_AT_ONCE <= MAX_CONNECTIONS // 2
    assert (await nodes["b"].forwarder.call(OTHER, Ask())).value == "done"
    await ended(hanging)
    assert (await acl.login("good", "t", {}, "10.0.0.7")).key == "key"
    assert (len(acl._logins), acl._logins._of_keys) == (0, {})


async def test_who_waits_for_a_place_is_told_in_time_and_whoever_is_too_many_at_once(
    nodes: dict[str, RpcNode], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(acl_module, "_WAIT_SECONDS", 1.0)
    acl = acl_of(nodes["b"])
    began = time.monotonic()
    hanging = [asyncio.create_task(acl.login("hanging", "t", {}, "10.0.0.7")) for _ in range(1000)]
    done, _ = await asyncio.wait(hanging, timeout=0.2)
    assert 800 <= len(done) < 900
    done, pending = await asyncio.wait(hanging, timeout=2)
    assert (len(pending), time.monotonic() - began < 5) == (LOGINS_OF_A_METHOD, True)
    for task in done:
        error = task.exception()
        assert isinstance(error, Overloaded)
        assert str(error) == ("too many logins of one method are under way, try again later: 8 at once, and 32 in all")
    await ended(hanging)


@pytest.mark.parametrize("name", ["a", "b"])
async def test_refusal_is_held_back_where_nothing_waits_for_it(
    nodes: dict[str, RpcNode], leader: Leader, name: str
) -> None:
    """The leader has answered, no place is taken; and all come at the same moment."""
    leader.refuses = True
    acl = acl_of(nodes[name])
    began = time.monotonic()
    logins = [asyncio.create_task(acl.login("good", "t", {}, "10.0.0.7")) for _ in range(100)]
    await asyncio.sleep(0.8 * REFUSED_AFTER_SECONDS)
    assert (leader.under_way, len(acl._logins), any(task.done() for task in logins)) == (0, 0, False)
    for outcome in await asyncio.gather(*logins, return_exceptions=True):
        assert isinstance(outcome, PermissionDenied)
    assert time.monotonic() - began >= REFUSED_AFTER_SECONDS


async def test_what_is_no_refusal_is_not_held_back() -> None:
    class NoForwarder:
        async def call(self, *_: object, **_more: object) -> Any:
            raise NoLeader("No cluster leader")

    reads: Any = Reads()
    forwarder: Any = NoForwarder()
    with pytest.raises(NoLeader):
        async with asyncio.timeout(0.2):
            await NodeAcl(reads, forwarder, FakeClock()).login("good", "t", {}, "10.0.0.7")


async def test_leader_judges_so_many_logins_of_a_method_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where other servers let more of them through, and a client that has gone away leaves its login behind."""
    monkeypatch.setattr("cluster.node.acl_work._LOGIN_WAIT_SECONDS", 0.2)
    node = Node(lambda state: state)
    proved, under_way = node.judge.proved, 0

    async def hangs(*_: Any) -> Any:
        nonlocal under_way
        under_way += 1
        await asyncio.sleep(60)

    monkeypatch.setattr(node.judge, "proved", hangs)
    logins = [asyncio.create_task(node.work.login(REQUEST)) for _ in range(500)]
    await asyncio.sleep(0.4)
    assert under_way == _LOGINS_OF_A_METHOD
    refused = [task for task in logins if task.done() and isinstance(task.exception(), Overloaded)]
    assert len(refused) == len(logins) - _LOGINS_OF_A_METHOD
    await ended(logins)
    monkeypatch.setattr(node.judge, "proved", proved)
    with suppress(ClusterError):
        await node.work.login(REQUEST)
    assert len(node.judge.asked) == 1
    work: AclWork = node.work
    assert len(work._login_places) == 0
