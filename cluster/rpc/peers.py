"""Asking one other server, leader or not: what was certainly not sent is told apart from what may have been done."""

import asyncio
import contextlib
from collections.abc import Iterator, Sequence
from typing import Any, Final

from cluster.base.errors import NoLeader
from cluster.raft.membership import Member
from cluster.raft.replica import Replica
from cluster.rpc.client import MAX_CONNECTIONS, RpcClient, Unanswered, Unreached
from cluster.rpc.envelope import Asked, pack_requests, unpack_outcomes
from cluster.rpc.operation import A, NotUnderstood, Operation, Q
from cluster.rpc.tokens import pack_tokens
from cluster.tls.contexts import NodeTls

#: A server needs a moment to answer after its own deadline.
_ANSWER_SLACK_SECONDS: Final = 0.5
#: How long a deposed leader may still send the answers that it has. One that is stopped or cut off never answers.
_OLD_LEADER_SECONDS: Final = 0.1


class Unsent(Exception):
    """The server was not reached: definitely not done."""


class Lost(Exception):
    """The request was sent and no answer came."""


class Peers:
    """The other servers, as this node reaches them."""

    def __init__(self, replica: Replica, tls: NodeTls, max_connections: int = MAX_CONNECTIONS) -> None:
        self._replica = replica
        self._client = RpcClient(tls, lambda peer, key: replica.admission.dial_refusal(peer, key), max_connections)
        self._awaited: set[tuple[str, asyncio.Timeout]] = set()  # answers that may be asked for again, by peer
        self._watch: asyncio.Task[None] | None = None
        self._judging: asyncio.Task[None] | None = None

    async def close(self) -> None:
        for task in (self._watch, self._judging):
            if task is not None:
                task.cancel()
        self._client.close()

    async def ask(self, member: Member, operation: Operation[Q, A], request: Q, seconds: float) -> A:
        """Raises: as the operation; NoLeader when there is no answer."""
        try:
            [outcome] = await self.send(member, operation, [Asked(request)], seconds, is_repeatable=False)
        except (Unsent, Lost):
            raise NoLeader(f"no answer from {member.id}") from None
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    async def version_of(self, member: Member, operation: Operation[Any, Any], request: Any, seconds: float) -> int:
        """Which version of the wire a server speaks, up to this node's; asked by an operation of any release.

        Raises: NoLeader when there is no answer.
        """
        try:
            async with asyncio.timeout(seconds):
                answer = await self._client.post(
                    member.id,
                    member.rpc_address,
                    operation.name,
                    lambda version: pack_requests(operation, [Asked(request)], seconds, version),
                )
        except (Unreached, Unanswered, TimeoutError):
            raise NoLeader(f"no answer from {member.id}") from None
        return answer.speaks

    async def send(
        self,
        member: Member,
        operation: Operation[Q, A],
        asks: Sequence[Asked[Q]],
        seconds: float,
        *,
        is_repeatable: bool = True,
    ) -> list[A | Exception]:
        """With `is_repeatable`, waiting ends shortly after another node leads, and the caller asks again. Without it,
        waiting goes on: the answer may be what takes time, as that of a transfer of leadership.

        Raises: Unsent, Lost.
        """
        if is_repeatable and self._replica.leadership.leader_id not in (None, member.id):
            # Somebody else leads by now: this request waited in the queue for a leader that is gone.
            raise Unsent
        if self._watch is None or self._watch.done():
            self._watch = asyncio.get_running_loop().create_task(self._watch_leadership())
        try:
            async with asyncio.timeout(seconds + _ANSWER_SLACK_SECONDS) as limit:
                self._judge_kept()
                with self._awaiting(member.id, limit, is_repeatable=is_repeatable):
                    answer = await self._client.post(
                        member.id,
                        member.rpc_address,
                        operation.name,
                        lambda version: pack_requests(operation, asks, seconds, version),
                        pack_tokens([(ask.secret_id, ask.asked_from) for ask in asks]),
                    )
        except Unreached:
            raise Unsent from None
        except (Unanswered, TimeoutError):
            raise Lost from None
        if answer.status >= 500:
            raise Lost  # something was done, and there was no way to say what
        if answer.status != 200:
            raise Unsent  # refused at the door
        try:
            return unpack_outcomes(operation, answer.body, len(asks), answer.version)
        except NotUnderstood:
            raise Lost from None  # no answer of this protocol

    def _judge_kept(self) -> None:
        if self._judging is None or self._judging.done():
            self._judging = asyncio.get_running_loop().create_task(self._judge())

    async def _judge(self) -> None:
        """Connections are kept, and servers are removed."""
        while True:
            await self._replica.admission_changed.wait()
            self._client.drop_refused()

    @contextlib.contextmanager
    def _awaiting(self, peer: str, limit: asyncio.Timeout, *, is_repeatable: bool) -> Iterator[None]:
        entry: tuple[str, Any] = (peer, limit)
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
