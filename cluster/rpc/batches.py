"""Requests for one operation, many to a message: a message costs much more than one more request in it.

Nothing waits for company: what comes in while all batches are under way goes out together with the next one.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Final

from cluster.base.errors import ClusterError
from cluster.raft.membership import Member
from cluster.rpc.envelope import Asked
from cluster.rpc.peers import Lost, Unsent

#: Requests in one batch, and batches under way at the same time.
_BATCH_ITEMS: Final = 64
_BATCHES: Final = 4

Send = Callable[[Member, list[Asked[Any]], float], Awaitable[list[Any]]]


@dataclass(slots=True)
class _Item:
    ask: Asked[Any]
    seconds: float
    done: "asyncio.Future[Any]"


class Batches:
    """`send` takes requests and gives an outcome for each."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self._waiting: dict[Member, deque[_Item]] = {}
        self._under_way = 0
        self._tasks: set[asyncio.Task[None]] = set()

    def close(self) -> None:
        for task in self._tasks:
            task.cancel()

    async def add(self, leader: Member, ask: Asked[Any], seconds: float) -> Any:
        """The outcome: an answer, or an error. Raises: Unsent, Lost."""
        item = _Item(ask, seconds, asyncio.get_running_loop().create_future())
        self._waiting.setdefault(leader, deque()).append(item)
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

    async def _run(self, leader: Member, batch: list[_Item]) -> None:
        error: BaseException = Lost()
        outcomes: list[Any] = []
        try:
            outcomes = await self._send(leader, [item.ask for item in batch], max(item.seconds for item in batch))
        except (Unsent, Lost, ClusterError) as failure:
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
