"""From any node to the leader: what is sent again, what is not, and what the client is told."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cluster.api.ca import Steering
from cluster.base.errors import (
    AnswerLost,
    CommitUnknown,
    InternalError,
    NoLeader,
    NotLeader,
    NotReady,
    Overloaded,
    RateLimitReached,
)
from cluster.raft.membership import Member
from cluster.rpc.batches import Batches
from cluster.rpc.envelope import Asked
from cluster.rpc.messages import (
    ACL_LOGOUT,
    CONFIGURE,
    DISTRUST_ROOT,
    DONE,
    ROTATE,
    STEER_ROTATION,
    ConfigureRequest,
    DistrustRequest,
    Nothing,
    RotationRequest,
    SteerRequest,
)
from cluster.rpc.operation import Operation
from cluster.rpc.operations import Operations, served
from cluster.rpc.peers import Lost, Unsent
from cluster.rpc.server import RpcServer
from providers.errors import CSRRejected
from tests.kit.callers import ANYBODY
from tests.kit.clock import FakeClock
from tests.kit.fake_cluster import FakeCluster
from tests.kit.rpc_nodes import Ask, Told, asked, operation, rpc_nodes
from tests.kit.wait import until


class Recorder:
    """An operation that keeps its arguments and does what the test's script says, last line for ever."""

    def __init__(self, *script: object) -> None:
        self.script = list(script)
        self.arguments: list[Any] = []
        self.before: Callable[[], None] = lambda: None

    async def __call__(self, argument: Any) -> Any:
        self.arguments.append(argument)
        self.before()
        outcome = self.script.pop(0) if len(self.script) > 1 else self.script[0]
        if isinstance(outcome, BaseException):
            raise outcome
        if isinstance(outcome, asyncio.Event):
            await outcome.wait()
            return "late"
        return outcome


def abort_connections(server: RpcServer) -> None:
    runner = server._runner
    assert runner is not None
    assert runner.server is not None
    for connection in list(runner.server.connections):
        assert connection.transport is not None
        connection.transport.abort()


REPEATABLE = operation(is_repeatable=True)
ONCE = operation()
BATCHED = operation(is_repeatable=True, is_batched=True)


@pytest.mark.parametrize("call", [REPEATABLE, ONCE, BATCHED], ids=["repeatable", "once", "batched"])
async def test_request_is_done_by_the_leader_wherever_it_is_made(
    rpc_cluster: FakeCluster, tls_directory: Path, call: Operation[Ask, Told]
) -> None:
    work = {name: Recorder(name) for name in "ab"}
    async with rpc_nodes(rpc_cluster, tls_directory, {name: {"do": work[name]} for name in "ab"}) as nodes:
        rpc_cluster.elect("a")
        assert await asked(nodes["a"].forwarder, call) == "a"
        assert await asked(nodes["b"].forwarder, call) == "a"
        rpc_cluster.elect("b")
        assert await asked(nodes["a"].forwarder, call) == "b"
    assert [work[name].arguments for name in "ab"] == [[False, False], [False]]


@pytest.mark.parametrize(
    "error",
    [
        CSRRejected("no"),
        InternalError("no"),
        Overloaded("no"),
        RateLimitReached("no", 3.5),
        AnswerLost("no"),
    ],
    ids=lambda error: type(error).__name__,
)
@pytest.mark.parametrize("name", ["a", "b"])
async def test_refusal_comes_back_as_it_is_and_is_final(
    rpc_cluster: FakeCluster, tls_directory: Path, error: Exception, name: str
) -> None:
    work = Recorder(error)
    async with rpc_nodes(rpc_cluster, tls_directory, {"a": {"do": work}, "b": {}}) as nodes:
        rpc_cluster.elect("a")
        with pytest.raises(type(error), match=r"^no$") as caught:
            await asked(nodes[name].forwarder, REPEATABLE)
    assert getattr(caught.value, "retry_after_seconds", None) == getattr(error, "retry_after_seconds", None)
    assert len(work.arguments) == 1


async def test_unexpected_error_of_the_leader_keeps_its_text_to_itself(
    rpc_cluster: FakeCluster, tls_directory: Path
) -> None:
    async with rpc_nodes(rpc_cluster, tls_directory, {"a": {"do": Recorder(ValueError("secret"))}, "b": {}}) as nodes:
        rpc_cluster.elect("a")
        with pytest.raises(InternalError, match=r"^ValueError on the leader$"):
            await asked(nodes["b"].forwarder, REPEATABLE)


@pytest.mark.parametrize("name", ["a", "b"])
async def test_operation_of_another_version_is_refused(
    rpc_cluster: FakeCluster, tls_directory: Path, name: str
) -> None:
    async with rpc_nodes(rpc_cluster, tls_directory, {"a": {}, "b": {}}) as nodes:
        rpc_cluster.elect("a")
        with pytest.raises(InternalError, match="operation 'do' is not known to this node"):
            await asked(nodes[name].forwarder, REPEATABLE)


async def test_operation_of_access_control_waits_for_the_upgrade_of_the_leader(
    rpc_cluster: FakeCluster, tls_directory: Path
) -> None:
    async with rpc_nodes(rpc_cluster, tls_directory, {"a": {}, "b": {}}) as nodes:
        rpc_cluster.elect("a")
        with pytest.raises(NotReady, match="an older release leads; upgrade it first"):
            await nodes["b"].forwarder.call(ACL_LOGOUT, Nothing())


@pytest.mark.parametrize("call", [REPEATABLE, ONCE, BATCHED], ids=["repeatable", "once", "batched"])
async def test_leader_that_cannot_be_reached_means_not_sent_and_the_next_one_does_it(
    rpc_cluster: FakeCluster, tls_directory: Path, call: Operation[Ask, Told]
) -> None:
    work = Recorder("done")
    async with rpc_nodes(rpc_cluster, tls_directory, {"a": {"do": work}, "b": {}}, wait_seconds=60) as nodes:
        rpc_cluster.elect("c")  # nobody listens there
        request = asyncio.ensure_future(asked(nodes["b"].forwarder, call))
        await until(lambda: nodes["b"].metrics.forwarded.labels("do")._value.get() >= 2)
        rpc_cluster.elect("a")
        assert await request == "done"
    assert work.arguments == [False]


@pytest.mark.parametrize("call", [REPEATABLE, ONCE], ids=["repeatable", "once"])
async def test_election_is_waited_for(
    rpc_cluster: FakeCluster, tls_directory: Path, call: Operation[Ask, Told]
) -> None:
    work = Recorder(NotLeader("not here"), NoLeader("No cluster leader"), "done")
    async with rpc_nodes(rpc_cluster, tls_directory, {"a": {"do": work}, "b": {}}, wait_seconds=60) as nodes:
        request = asyncio.ensure_future(asked(nodes["b"].forwarder, call))
        clock = nodes["b"].clock
        later = FakeClock.monotonic(clock) + 0.1
        await until(lambda: request.done() or FakeClock.monotonic(clock) > later)  # it has looked several times
        assert not request.done()
        rpc_cluster.elect("a")
        assert await request == "done"
    # What was refused as not done is no repetition.
    assert work.arguments == [False, False, False]


@pytest.mark.parametrize("call", [REPEATABLE, ONCE, BATCHED], ids=["repeatable", "once", "batched"])
async def test_without_a_leader_the_deadline_ends_it_as_not_done(
    rpc_cluster: FakeCluster, tls_directory: Path, call: Operation[Ask, Told]
) -> None:
    async with rpc_nodes(rpc_cluster, tls_directory, {"b": {}}, wait_seconds=0.1) as nodes:
        with pytest.raises(NoLeader, match=r"^No cluster leader$"):
            await asked(nodes["b"].forwarder, call)
        rpc_cluster.elect("c")  # known, but not there
        with pytest.raises(NoLeader):
            await asked(nodes["b"].forwarder, call)


async def test_unknown_outcome_is_told_when_the_operation_cannot_recognise_itself(
    rpc_cluster: FakeCluster, tls_directory: Path
) -> None:
    work = Recorder(CommitUnknown("it may have taken effect"), "done")
    async with rpc_nodes(rpc_cluster, tls_directory, {"a": {"do": work}, "b": {}}) as nodes:
        rpc_cluster.elect("a")
        with pytest.raises(CommitUnknown):
            await asked(nodes["b"].forwarder, ONCE)
    assert work.arguments == [False]


@pytest.mark.parametrize("name", ["a", "b"])
async def test_unknown_outcome_is_asked_for_again_as_a_repetition(
    rpc_cluster: FakeCluster, tls_directory: Path, name: str
) -> None:
    work = Recorder(CommitUnknown("it may have taken effect"), NotLeader("not here"), "done")
    async with rpc_nodes(rpc_cluster, tls_directory, {"a": {"do": work}, "b": {}}, wait_seconds=60) as nodes:
        rpc_cluster.elect("a")
        assert await asked(nodes[name].forwarder, REPEATABLE) == "done"
    assert work.arguments == [False, True, True]  # once unknown, always unknown


async def test_unknown_outcome_stays_unknown_when_no_leader_comes(
    rpc_cluster: FakeCluster, tls_directory: Path
) -> None:
    work = Recorder(CommitUnknown("it may have taken effect"))
    work.before = lambda: rpc_cluster.elect(None)
    async with rpc_nodes(rpc_cluster, tls_directory, {"a": {"do": work}, "b": {}}, wait_seconds=0.3) as nodes:
        rpc_cluster.elect("a")
        with pytest.raises(CommitUnknown):
            await asked(nodes["b"].forwarder, REPEATABLE)


@pytest.mark.parametrize(
    ("call", "outcome"), [(REPEATABLE, "done"), (BATCHED, "done"), (ONCE, None)], ids=["repeatable", "batched", "once"]
)
async def test_connection_lost_under_way_is_an_unknown_outcome(
    rpc_cluster: FakeCluster, tls_directory: Path, call: Operation[Ask, Told], outcome: object
) -> None:
    never = asyncio.Event()
    hung, next_one = Recorder(never), Recorder("done")
    tables = {"a": {"do": hung}, "b": {}, "c": {"do": next_one}}
    async with rpc_nodes(rpc_cluster, tls_directory, tables, wait_seconds=60) as nodes:
        rpc_cluster.elect("a")
        request = asyncio.ensure_future(asked(nodes["b"].forwarder, call))
        await until(lambda: hung.arguments)
        abort_connections(nodes["a"].server)
        rpc_cluster.elect("c")
        if outcome is None:
            with pytest.raises(CommitUnknown, match="the leader was lost while the request was under way"):
                await request
            assert next_one.arguments == []
        else:
            assert await request == outcome
            assert next_one.arguments == [True]
        never.set()


async def test_answer_that_no_version_understands_is_an_unknown_outcome(
    rpc_cluster: FakeCluster, tls_directory: Path
) -> None:
    """The leader did it, and could not put the result into words: that is not "refused at the door"."""
    work = Recorder(1 << 70)
    async with rpc_nodes(rpc_cluster, tls_directory, {"a": {"do": work}, "b": {}}) as nodes:
        rpc_cluster.elect("a")
        with pytest.raises(CommitUnknown):
            await asked(nodes["b"].forwarder, ONCE)
    assert work.arguments == [False]


async def test_failure_of_the_server_is_an_unknown_outcome(
    rpc_cluster: FakeCluster, tls_directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may have come after the work, as here."""

    def fail(_outcomes: object) -> bytes:
        raise RuntimeError("no memory")

    work = Recorder("done")
    async with rpc_nodes(rpc_cluster, tls_directory, {"a": {"do": work}, "b": {}}) as nodes:
        rpc_cluster.elect("a")
        with monkeypatch.context() as patch:
            patch.setattr("cluster.rpc.server.pack_outcomes", fail)
            with pytest.raises(CommitUnknown):
                await asked(nodes["b"].forwarder, ONCE)
    assert work.arguments == [False]


async def test_node_that_does_not_lead_says_so_and_does_nothing(rpc_cluster: FakeCluster, tls_directory: Path) -> None:
    """One that led a moment ago would judge from an old state."""
    work = Recorder("done")
    async with rpc_nodes(rpc_cluster, tls_directory, {"a": {"do": work}, "b": {}}, wait_seconds=60) as nodes:
        rpc_cluster.elect("a")
        rpc_cluster.replicas["a"].leadership = rpc_cluster.replicas["c"].leadership
        request = asyncio.ensure_future(asked(nodes["b"].forwarder, ONCE))
        await until(lambda: nodes["b"].metrics.forwarded.labels("do")._value.get() >= 3)
        assert work.arguments == []
        rpc_cluster.elect("a")
        assert await request == "done"


async def test_what_takes_too_long_on_the_leader_is_an_unknown_outcome(
    rpc_cluster: FakeCluster, tls_directory: Path
) -> None:
    never = asyncio.Event()
    async with rpc_nodes(rpc_cluster, tls_directory, {"a": {"do": Recorder(never)}, "b": {}}, 0.05) as nodes:
        rpc_cluster.elect("a")
        with pytest.raises(CommitUnknown):
            await asked(nodes["b"].forwarder, ONCE)
        never.set()


#: Changes of the CA that wait for a backend, or for others, with a request of each.
SLOW: list[tuple[Operation[Any, Any], Any]] = [
    (CONFIGURE, ConfigureRequest("consul", "{}", None, False, 0, False, 0, bytes(16), 0, False)),
    (ROTATE, RotationRequest(None, None, False, False, 0, bytes(16), 0, False)),
    (STEER_ROTATION, SteerRequest(Steering.ABORT)),
    (DISTRUST_ROOT, DistrustRequest("aa:bb")),
]


@pytest.mark.parametrize(("slow", "request_"), SLOW, ids=[slow.name for slow, _ in SLOW])
async def test_change_that_waits_for_a_backend_is_waited_for_through_a_follower(
    rpc_cluster: FakeCluster, tls_directory: Path, slow: Operation[Any, Any], request_: Any
) -> None:
    """Not given up when the ordinary time is over, here or at the leader: it would never be done."""
    backend, seen = asyncio.Event(), []

    async def change(request: Any) -> Nothing:
        seen.append(request)
        await backend.wait()
        seen.append("done")
        return DONE

    async def hang(_request: Ask) -> Told:
        await backend.wait()
        return Told()

    leaders = Operations(lambda _secret_id, _before: ANYBODY, served(slow, change), served(ONCE, hang))
    async with rpc_nodes(rpc_cluster, tls_directory, {"a": leaders, "b": {}}, wait_seconds=0.05) as nodes:
        rpc_cluster.elect("a")
        call = asyncio.ensure_future(nodes["b"].forwarder.call(slow, request_))
        await until(lambda: seen)
        with pytest.raises(CommitUnknown):  # something else, that was asked for later
            await asked(nodes["b"].forwarder, ONCE)
        assert not call.done()
        backend.set()
        assert await call == DONE
    assert seen == [request_, "done"]


@pytest.mark.parametrize("name", ["a", "b"])
async def test_unknown_outcome_is_told_in_the_words_of_who_does_not_know_it(
    rpc_cluster: FakeCluster, tls_directory: Path, name: str
) -> None:
    """A leader that is there has not been lost."""
    work = Recorder(CommitUnknown("the rotation is still under way"))
    async with rpc_nodes(rpc_cluster, tls_directory, {"a": {"do": work}, "b": {}}, wait_seconds=0.3) as nodes:
        rpc_cluster.elect("a")
        with pytest.raises(CommitUnknown, match=r"^the rotation is still under way$"):
            await asked(nodes[name].forwarder, REPEATABLE)


async def test_leader_that_gives_no_answer_is_not_called_lost(rpc_cluster: FakeCluster, tls_directory: Path) -> None:
    never = asyncio.Event()
    hung = Recorder(never)
    async with rpc_nodes(rpc_cluster, tls_directory, {"a": {"do": hung}, "b": {}}, wait_seconds=60) as nodes:
        rpc_cluster.elect("a")
        request = asyncio.ensure_future(asked(nodes["b"].forwarder, ONCE))
        await until(lambda: hung.arguments)
        abort_connections(nodes["a"].server)
        with pytest.raises(CommitUnknown, match=r"^the leader gave no answer; it may have taken effect$"):
            await request
        never.set()


# -- batches


class Wire:
    """A `Send` whose messages wait to be answered."""

    def __init__(self) -> None:
        self.sent: list[list[Any]] = []
        self.seconds: list[float] = []
        self.gate = asyncio.Event()
        self.error: Exception | None = None
        self.short_by = 0

    async def __call__(self, leader: Member, requests: list[Any], seconds: float) -> list[Any]:
        assert leader == _member(leader.id)
        arguments = [asked.request.argument for asked in requests]
        self.sent.append(arguments)
        self.seconds.append(seconds)
        await self.gate.wait()
        if self.error is not None:
            raise self.error
        return [-argument for argument in arguments[: len(arguments) - self.short_by]]


def _member(name: str) -> Member:
    return Member(name, f"{name}:1", f"{name}:2")


async def _added(batches: Batches, arguments: range, peer: str = "a") -> list[asyncio.Task[Any]]:
    tasks = [asyncio.create_task(batches.add(_member(peer), Asked(Ask(n)), 1.0 + n)) for n in arguments]
    await asyncio.sleep(0)
    return tasks


async def test_batches_split_and_each_request_gets_its_own_answer() -> None:
    wire = Wire()
    batches = Batches(wire)
    tasks = await _added(batches, range(1, 201))
    await asyncio.sleep(0)
    assert [len(arguments) for arguments in wire.sent] == [1, 1, 1, 1]  # nothing waits for company
    wire.gate.set()
    assert await asyncio.gather(*tasks) == [-n for n in range(1, 201)]
    assert [len(arguments) for arguments in wire.sent[4:]] == [64, 64, 64, 4]
    assert wire.seconds[4] == max(1.0 + n for n in wire.sent[4])


@pytest.mark.parametrize("error", [Unsent(), Lost()], ids=["unsent", "lost"])
async def test_failure_of_a_message_is_that_of_each_request_in_it(error: Exception) -> None:
    wire = Wire()
    wire.error = error
    batches = Batches(wire)
    tasks = await _added(batches, range(1, 10))
    wire.gate.set()
    outcomes = await asyncio.gather(*tasks, return_exceptions=True)
    assert {type(outcome) for outcome in outcomes} == {type(error)}
    wire.error = None
    assert await batches.add(_member("a"), Asked(Ask(7)), 1.0) == -7


async def test_request_that_an_answer_leaves_out_is_lost() -> None:
    wire = Wire()
    wire.short_by = 1
    batches = Batches(wire)
    tasks = await _added(batches, range(1, 7))
    wire.gate.set()
    outcomes = await asyncio.gather(*tasks, return_exceptions=True)
    # Four alone, whose answers are empty; the last two together, of which one is answered.
    assert [type(outcome) for outcome in outcomes] == [Lost, Lost, Lost, Lost, int, Lost]


async def test_requests_for_two_leaders_never_share_a_message() -> None:
    wire = Wire()
    batches = Batches(wire)
    fillers = await _added(batches, range(1, 5))
    tasks = [*await _added(batches, range(10, 12), "a"), *await _added(batches, range(20, 22), "b")]
    wire.gate.set()
    await asyncio.gather(*fillers, *tasks)
    assert wire.sent[4:] == [[10, 11], [20, 21]]


async def test_request_given_up_while_it_waits_disturbs_nobody() -> None:
    wire = Wire()
    batches = Batches(wire)
    tasks = await _added(batches, range(1, 8))
    tasks[0].cancel()
    tasks[5].cancel()
    wire.gate.set()
    async with asyncio.timeout(5):
        outcomes = await asyncio.gather(*tasks, return_exceptions=True)
    assert outcomes[1:5] == [-n for n in range(2, 6)]
    assert outcomes[6] == -7  # in the same message, after the one that was given up


async def test_end_of_the_node_ends_its_messages() -> None:
    wire = Wire()
    batches = Batches(wire)
    tasks = await _added(batches, range(1, 3))
    await until(lambda: len(wire.sent) == 2)
    batches.close()
    outcomes = await asyncio.gather(*tasks, return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [Lost, Lost]


async def test_all_requests_of_a_message_run_beside_each_other(rpc_cluster: FakeCluster, tls_directory: Path) -> None:
    meeting = asyncio.Barrier(2)

    async def meet(argument: int) -> int:
        async with asyncio.timeout(5):
            await meeting.wait()
        return argument

    async with rpc_nodes(rpc_cluster, tls_directory, {"a": {"meet": meet}, "b": {}}) as nodes:
        rpc_cluster.elect("a")
        leader = rpc_cluster.members["a"]
        outcomes = await nodes["b"].peers.send(leader, operation("meet"), [Asked(Ask(1)), Asked(Ask(2))], 5.0)
    assert outcomes == [Told(1), Told(2)]
