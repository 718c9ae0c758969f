"""From any node to the leader, one hop: who leads does the work itself, everybody else asks the leader over mutual TLS.

A request that meets an election waits for the new leader. Every answer is one of three: done, definitely not done
(sent again by itself while there is time), or unknown. What is unknown is sent again only if the operation recognises
its own repetition; else the client is told so.
"""

import asyncio
import contextlib
from typing import Any, Final, cast

from cluster.api.access import Caller
from cluster.base.clock import Clock
from cluster.base.errors import AnswerLost, CommitUnknown, InternalError, NoLeader, NotLeader, NotReady
from cluster.base.requester import recorded
from cluster.base.telemetry import Metrics
from cluster.raft.replica import Replica
from cluster.rpc.batches import Batches
from cluster.rpc.envelope import Asked
from cluster.rpc.operation import A, Operation, Q
from cluster.rpc.operations import NOT_KNOWN, Operations
from cluster.rpc.peers import Lost, Peers, Unsent

_RETRY_SECONDS: Final = 0.02


class Forwarder:
    """Brings a request from this node to the leader, and sends it again while that is safe and there is time."""

    def __init__(
        self,
        replica: Replica,
        operations: Operations,
        peers: Peers,
        node_name: str,
        clock: Clock,
        metrics: Metrics,
        wait_seconds: float,
    ) -> None:
        self._replica = replica
        self._operations = operations
        self._peers = peers
        self._node_name = node_name
        self._clock = clock
        self._metrics = metrics
        self._wait_seconds = wait_seconds
        self._batches: dict[str, Batches] = {}

    async def close(self) -> None:
        for batches in self._batches.values():
            batches.close()

    async def call(
        self,
        operation: Operation[Q, A],
        request: Q,
        repetition: Q | None = None,
        *,
        caller: Caller | None = None,
        asked_from: str = "",
        leader_wait_seconds: float | None = None,
    ) -> A:
        """Done by whoever leads, which judges the `caller` each time. `asked_from`: the address of one who is not known
        yet. `repetition` is sent instead once the request may have been done. `leader_wait_seconds`: what is left for
        whom a part of the wait for a leader is over. It is tried once at least, and a leader that has the request gets
        as long as ever: cut short, what it has done would not be known.

        Raises: as the operation; NoLeader (not done); CommitUnknown.
        """
        started = self._clock.monotonic()
        done_by = started + (operation.seconds or self._wait_seconds)
        leader_by = started + (self._wait_seconds if leader_wait_seconds is None else leader_wait_seconds)
        secret_id = caller.secret_id if caller is not None else ""
        if caller is not None and not operation.is_batched:  # what goes together says it in its requests
            asked_from = caller.asked_from
        is_lost, term, unknown = False, self._replica.leadership.term, None
        while True:
            try:
                ask = Asked(repetition if is_lost and repetition else request, secret_id, asked_from)
                return await self._attempt(operation, ask, done_by)
            except Lost:
                is_lost = True
                if not operation.is_repeatable:
                    break
            except (Unsent, NotLeader, NoLeader):
                pass
            except AnswerLost:
                raise
            except CommitUnknown as error:
                # The leader is there, and says itself what it does not know.
                is_lost, unknown = True, error
                if not operation.is_repeatable:
                    raise
            # What may be done already is asked about for longer than a leader is waited for.
            if not await self._worth_another(done_by if is_lost else leader_by):
                break
        if is_lost:
            raise unknown or self._unknown(term)
        raise NoLeader("No cluster leader")

    def _unknown(self, term: int) -> CommitUnknown:
        """What is said of a request that was sent in this term, and never answered."""
        is_same = self._replica.leadership.term == term
        what = "the leader gave no answer" if is_same else "the leader was lost while the request was under way"
        return CommitUnknown(f"{what}; it may have taken effect")

    async def _attempt(self, operation: Operation[Q, A], ask: Asked[Q], deadline: float) -> A:
        leadership = self._replica.leadership
        if leadership.is_ready:
            return await self._operations.run(operation, ask.request, ask.secret_id, recorded(ask.asked_from))
        leader = self._replica.members.get(leadership.leader_id or "")
        if leader is None or leader.id == self._node_name:
            raise Unsent
        self._metrics.forwarded.labels(operation.name).inc()
        seconds = max(0.0, deadline - self._clock.monotonic())
        if operation.is_batched:
            outcome = await self._batches_of(operation).add(leader, ask, seconds)
        else:
            [outcome] = await self._peers.send(leader, operation, [ask], seconds, is_repeatable=operation.is_repeatable)
        if isinstance(outcome, InternalError) and operation.name.startswith("acl_") and NOT_KNOWN in str(outcome):
            raise NotReady("an older release leads; upgrade it first")
        if isinstance(outcome, Exception):
            raise outcome
        return cast(A, outcome)

    def _batches_of(self, operation: Operation[Any, Any]) -> Batches:
        batches = self._batches.get(operation.name)
        if batches is None:
            batches = self._batches[operation.name] = Batches(
                lambda leader, asks, seconds: self._peers.send(leader, operation, asks, seconds)
            )
        return batches

    async def _worth_another(self, deadline: float) -> bool:
        """Wait for a change of leadership, or a moment; False when the time is over."""
        left = deadline - self._clock.monotonic()
        if left <= 0:
            return False
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(min(left, _RETRY_SECONDS)):
                await self._replica.leadership_changed.wait()
        return True
