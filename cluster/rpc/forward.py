"""From any node to the leader, one hop: who leads does the work itself, everybody else asks the leader over mutual TLS.

A request that meets an election waits for the new leader. Every answer is one of three: done, definitely not done
(sent again by itself while there is time), or unknown. What is unknown is sent again only if the operation recognises
its own repetition; else the client is told so.
"""

import asyncio
import contextlib
from collections import deque
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

import msgpack

from cluster.base.clock import Clock
from cluster.base.errors import AnswerLost, ClusterError, CommitUnknown, InternalError, NoLeader, NotLeader
from cluster.base.telemetry import Metrics
from cluster.base.wire import pack_error, unpack_error
from cluster.raft.membership import Member
from cluster.raft.replica import Replica
from cluster.rpc.client import RpcClient, Unanswered, Unreached
from cluster.tls.contexts import NodeTls

MAX_RPC_BYTES: Final = 4 << 20

#: Requests in one batch, and batches under way at the same time.
_BATCH_ITEMS: Final = 64
_BATCHES: Final = 4
_RETRY_SECONDS: Final = 0.02
#: The leader needs a moment to answer behind its own deadline.
_ANSWER_SLACK_SECONDS: Final = 0.5
#: And this long to send the answers it has, once somebody else leads. One that is stopped or cut off never answers.
_OLD_LEADER_SECONDS: Final = 0.1

Operation = Callable[[Any], Awaitable[Any]]


@dataclass(frozen=True, slots=True)
class Call:
    """One thing that only the leader can do. `argument(is_repeat)` gives what it takes, as msgpack values."""

    operation: str
    argument: Callable[[bool], Any]
    #: The leader recognises a repetition, so a lost answer is no reason to stop.
    is_repeatable: bool = False
    is_batched: bool = False
    #: How long it may take in all, where that is longer than a leader is waited for.
    seconds: float | None = None


class _Unsent(Exception):
    """The leader was not reached: definitely not done."""


class _Lost(Exception):
    """The request was sent and no answer came."""


class Operations:
    """What the leader does for itself and for others, by name."""

    def __init__(self, operations: Mapping[str, Operation], anywhere: Mapping[str, Operation] | None = None) -> None:
        """`anywhere`: what a node answers whether it leads or not."""
        self._anywhere = frozenset(anywhere or ())
        self._operations = {**operations, **(anywhere or {})}

    def needs_leader(self, operation: str) -> bool:
        return operation not in self._anywhere

    async def run(self, operation: str, argument: Any) -> Any:
        """Raises: as the operation; InternalError for one that this version does not know."""
        function = self._operations.get(operation)
        if function is None:
            raise InternalError(f"operation {operation!r:.50} is not known to this node: is it of an older version?")
        return await function(argument)

    async def run_all(self, operation: str, arguments: list[Any]) -> list[list[Any]]:
        """Each with its own outcome: [error or nil, result]."""
        outcomes = await asyncio.gather(
            *(self.run(operation, argument) for argument in arguments), return_exceptions=True
        )
        return [
            [pack_error(outcome, "on the leader"), None] if isinstance(outcome, BaseException) else [None, outcome]
            for outcome in outcomes
        ]


class Forwarder:
    """One for each node."""

    def __init__(
        self,
        replica: Replica,
        operations: Operations,
        tls: NodeTls,
        node_name: str,
        clock: Clock,
        metrics: Metrics,
        wait_seconds: float,
    ) -> None:
        self._replica = replica
        self._operations = operations
        self._client = RpcClient(tls)
        self._node_name = node_name
        self._clock = clock
        self._metrics = metrics
        self._wait_seconds = wait_seconds
        self._batches: dict[str, _Batches] = {}
        self._awaited: set[tuple[str, asyncio.Timeout]] = set()  # answers that may be asked for again, by peer
        self._watch: asyncio.Task[None] | None = None

    async def close(self) -> None:
        if self._watch is not None:
            self._watch.cancel()
        for batches in self._batches.values():
            batches.close()
        self._client.close()

    async def call(self, call: Call) -> Any:
        """Done by whoever leads.

        Raises: as the operation; NoLeader (not done); CommitUnknown.
        """
        started = self._clock.monotonic()
        done_by = started + (call.seconds or self._wait_seconds)
        is_lost = False
        while True:
            try:
                return await self._attempt(call, done_by, is_repeat=is_lost)
            except _Lost:
                is_lost = True
                if not call.is_repeatable:
                    break
            except (_Unsent, NotLeader, NoLeader):
                pass
            except AnswerLost:
                raise
            except CommitUnknown:
                is_lost = True
                if not call.is_repeatable:
                    raise
            # What may be done already is asked about for longer than a leader is waited for.
            if not await self._worth_another(done_by if is_lost else started + self._wait_seconds):
                break
        if is_lost:
            raise CommitUnknown("the leader was lost while the request was under way; it may have taken effect")
        raise NoLeader("No cluster leader")

    async def _attempt(self, call: Call, deadline: float, *, is_repeat: bool) -> Any:
        leadership = self._replica.leadership
        argument = call.argument(is_repeat)
        if leadership.is_ready:
            return await self._operations.run(call.operation, argument)
        leader = self._replica.members.get(leadership.leader_id or "")
        if leader is None or leader.id == self._node_name:
            raise _Unsent
        self._metrics.forwarded.labels(call.operation).inc()
        seconds = max(0.0, deadline - self._clock.monotonic())
        if call.is_batched:
            batches = self._batches.get(call.operation)
            if batches is None:
                batches = self._batches[call.operation] = _Batches(self._send, call.operation)
            error, result = await batches.add(leader.id, leader.rpc_address, argument, seconds)
        else:
            [[error, result]] = await self._send(
                leader.id, leader.rpc_address, call.operation, [argument], seconds, is_repeatable=call.is_repeatable
            )
        if error is not None:
            raise unpack_error(error)
        return result

    async def ask(self, peer: Member, operation: str, argument: Any, seconds: float) -> Any:
        """One server, leader or not. Raises: as the operation; NoLeader when there is no answer."""
        try:
            [[error, result]] = await self._send(
                peer.id, peer.rpc_address, operation, [argument], seconds, is_repeatable=False
            )
        except (_Unsent, _Lost):
            raise NoLeader(f"no answer from {peer.id}") from None
        if error is not None:
            raise unpack_error(error)
        return result

    async def _worth_another(self, deadline: float) -> bool:
        """Wait for a change of leadership, or a moment; False when the time is over."""
        left = deadline - self._clock.monotonic()
        if left <= 0:
            return False
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(min(left, _RETRY_SECONDS)):
                await self._replica.leadership_changed.wait()
        return True

    async def _send(
        self,
        peer: str,
        address: str,
        operation: str,
        arguments: list[Any],
        seconds: float,
        *,
        is_repeatable: bool = True,
    ) -> list[list[Any]]:
        """What is repeatable is given up, and then asked for again, soon after somebody else leads; the rest is not:
        its answer may be what takes time, as that of a transfer of leadership.

        Raises: _Unsent, _Lost.
        """
        if is_repeatable and self._replica.leadership.leader_id not in (None, peer):
            raise _Unsent  # it has waited too long behind others
        if self._watch is None:
            self._watch = asyncio.get_running_loop().create_task(self._watch_leadership())
        body = msgpack.packb([int(1000 * seconds), arguments])
        try:
            async with asyncio.timeout(seconds + _ANSWER_SLACK_SECONDS) as limit:
                with self._awaiting(peer, limit, is_repeatable=is_repeatable):
                    answer = await self._client.post(peer, address, operation, body)
        except Unreached:
            raise _Unsent from None
        except (Unanswered, TimeoutError):
            raise _Lost from None
        if answer.status >= 500:
            raise _Lost  # something was done, and there was no way to say what
        if answer.status != 200:
            raise _Unsent  # refused at the door
        return _outcomes(answer.body, len(arguments))

    @contextlib.contextmanager
    def _awaiting(self, peer: str, limit: asyncio.Timeout, *, is_repeatable: bool) -> Iterator[None]:
        entry = peer, limit
        if is_repeatable:
            self._awaited.add(entry)
        try:
            yield
        finally:
            self._awaited.discard(entry)

    async def _watch_leadership(self) -> None:
        while True:
            await self._replica.leadership_changed.wait()
            leader_id = self._replica.leadership.leader_id
            soon = asyncio.get_running_loop().time() + _OLD_LEADER_SECONDS
            for peer, limit in self._awaited:
                end = limit.when()
                if leader_id not in (None, peer) and not limit.expired() and end is not None and end > soon:
                    limit.reschedule(soon)


def _outcomes(body: bytes, count: int) -> list[list[Any]]:
    """One for each argument. Raises: _Lost for what is no answer of this protocol."""
    try:
        outcomes = msgpack.unpackb(body)
    except (ValueError, msgpack.UnpackException):
        raise _Lost from None
    if type(outcomes) is not list or len(outcomes) != count:
        raise _Lost
    if any(type(outcome) is not list or len(outcome) != 2 for outcome in outcomes):
        raise _Lost
    return outcomes


@dataclass(slots=True)
class _Item:
    argument: Any
    seconds: float
    done: "asyncio.Future[list[Any]]"


Send = Callable[[str, str, str, list[Any], float], Awaitable[list[list[Any]]]]


class _Batches:
    """Requests for one operation, many to a message: a message costs much more than one more request in it.

    Nothing waits for company: what comes in while all batches are under way goes out together with the next one.
    """

    def __init__(self, send: Send, operation: str) -> None:
        self._send = send
        self._operation = operation
        self._waiting: dict[tuple[str, str], deque[_Item]] = {}
        self._under_way = 0
        self._tasks: set[asyncio.Task[None]] = set()

    def close(self) -> None:
        for task in self._tasks:
            task.cancel()

    async def add(self, peer: str, address: str, argument: Any, seconds: float) -> list[Any]:
        """[error or nil, result]. Raises: _Unsent, _Lost."""
        item = _Item(argument, seconds, asyncio.get_running_loop().create_future())
        self._waiting.setdefault((peer, address), deque()).append(item)
        self._start()
        return await item.done

    def _start(self) -> None:
        while self._under_way < _BATCHES and self._waiting:
            leader = next(iter(self._waiting))
            queue = self._waiting[leader]
            batch = [queue.popleft() for _ in range(min(len(queue), _BATCH_ITEMS))]
            if not queue:
                del self._waiting[leader]
            self._under_way += 1
            task = asyncio.get_running_loop().create_task(self._run(leader, batch))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _run(self, leader: tuple[str, str], batch: list[_Item]) -> None:
        error: BaseException = _Lost()
        outcomes: list[list[Any]] = []
        try:
            outcomes = await self._send(
                *leader, self._operation, [item.argument for item in batch], max(item.seconds for item in batch)
            )
        except (_Unsent, _Lost, ClusterError) as failure:
            error = failure
        finally:
            self._under_way -= 1
            for position, item in enumerate(batch):
                if item.done.done():
                    continue
                if position < len(outcomes):
                    item.done.set_result(outcomes[position])
                else:
                    item.done.set_exception(error)
            self._start()
