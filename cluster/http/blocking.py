"""Queries as Consul has them: index and wait, consistency, cache control, and the headers of the answer.

Also ends blocking queries when the client leaves, when its connection has to give way, or when the node stops.
"""

import asyncio
import random
import re
from collections.abc import Callable, Coroutine
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, TypeVar

from aiohttp import web
from prometheus_client import Gauge

from cluster.api.reads import ReadLevel, ReadPoint
from cluster.base.errors import BadRequest
from cluster.http.connection import Connection
from cluster.http.errors import ShuttingDown
from cluster.http.gate import require_standing
from cluster.http.query import Query, shown
from providers.config.durations import MILLISECOND, SECOND, parse_duration

DEFAULT_WAIT_SECONDS: Final = 300.0
MAX_WAIT_SECONDS: Final = 600.0
#: Up to this part of the wait is added at random, so that clients which came together do not come back together.
_JITTER: Final = 1 / 16
_MAX_INDEX: Final = (1 << 64) - 1
_INDEX: Final = re.compile(r"[0-9]{1,20}")
_NUMBER: Final = re.compile(r"[+-]?[0-9]{1,18}")

_JUDGE_SECONDS: Final = 0.5

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class QueryOptions:
    """How current the answer must be, and whether it may wait for news."""

    level: ReadLevel
    consistency: str  # X-Consul-Effective-Consistency
    is_cached: bool
    max_stale_ms: int | None
    index: int  # 0: does not wait
    wait_seconds: float  # 0: the endpoint's default

    def timeout(self, rng: random.Random, default: float = DEFAULT_WAIT_SECONDS) -> float:
        seconds = min(self.wait_seconds or default, MAX_WAIT_SECONDS)
        return seconds * (1 + rng.random() * _JITTER)


def query_options(query: Query) -> QueryOptions:
    """Raises: BadRequest with Consul's texts."""
    if not query:
        return _PLAIN
    max_stale_ms = _max_stale(query.get("max_stale", ""))
    is_stale = "stale" in query or bool(max_stale_ms)
    is_cached = "cached" in query
    if "consistent" in query and (is_stale or is_cached):
        other = "stale" if is_stale else "cached"
        raise BadRequest(f"Cannot specify ?{other} with ?consistent, conflicting semantics.")
    return QueryOptions(
        level=ReadLevel.STALE if is_stale else ReadLevel.LINEARIZABLE,
        consistency="stale" if is_stale else "consistent" if "consistent" in query else "leader",
        is_cached=is_cached,
        max_stale_ms=max_stale_ms,
        index=_index(query.get("index", "")),
        wait_seconds=_wait(query.get("wait", "")),
    )


_PLAIN: Final = QueryOptions(ReadLevel.LINEARIZABLE, "leader", False, None, 0, 0.0)


def _index(text: str) -> int:
    if not text:
        return 0
    if not _INDEX.fullmatch(text) or int(text) > _MAX_INDEX:
        raise BadRequest("Invalid index")
    return int(text)


def _wait(text: str) -> float:
    if not text:
        return 0.0
    try:
        return max(0, parse_duration(text)) / SECOND
    except ValueError:
        raise BadRequest("Invalid wait time") from None


def _max_stale(text: str) -> int | None:
    if not text:
        return None
    try:
        return max(0, parse_duration(text)) // MILLISECOND
    except ValueError:
        raise BadRequest(f"Invalid max_stale value {shown(text)}") from None


def check_cache_control(request: web.Request) -> None:
    """Cached endpoints answer from applied state, which is never old, so the directives are only checked.

    Raises: BadRequest.
    """
    for directive in request.headers.get("Cache-Control", "").lower().split(","):
        name, _, value = directive.strip(" \t").partition("=")
        if name in ("max-age", "stale-if-error") and not _NUMBER.fullmatch(value):
            raise BadRequest("Invalid Cache-Control header.")


class Waiters:
    """The blocking queries that wait on this node.

    Whoever may not ask any more is told so within a second, and not when there is news: all of them are judged again
    twice a second, together, because thousands may wait.
    """

    def __init__(self, gauge: Gauge) -> None:
        self._gauge = gauge
        self._tasks: dict[asyncio.Task[Any], Callable[[], None]] = {}
        self._refused: dict[asyncio.Task[Any], Exception] = {}
        self._judging: asyncio.Task[None] | None = None
        self._is_stopping = False

    async def wait(
        self,
        request: web.Request,
        start: Callable[[], Coroutine[Any, Any, _T]],
    ) -> _T:
        """The result of `start()`. Raises: TooManyWaiting, ShuttingDown; PermissionDenied."""
        if self._is_stopping:
            raise ShuttingDown("this node is shutting down")
        connection = request.protocol
        loop = asyncio.get_running_loop()
        task, judge = loop.create_task(start()), partial(require_standing, request)
        self._tasks[task] = judge
        self._gauge.set(len(self._tasks))
        if self._judging is None or self._judging.done():
            self._judging = loop.create_task(self._judge_again())
        try:
            with connection.waiting(task) if isinstance(connection, Connection) else nullcontext():
                found = await task
            judge()
            return found
        except asyncio.CancelledError:
            if (refused := self._refused.get(task)) is not None:
                raise refused from None
            if self._is_ended(request):
                raise ShuttingDown("this node is shutting down") from None
            raise
        finally:
            task.cancel()
            self._tasks.pop(task, None)
            self._refused.pop(task, None)
            self._gauge.set(len(self._tasks))

    async def _judge_again(self) -> None:
        """For as long as anybody waits."""
        while self._tasks:
            await asyncio.sleep(_JUDGE_SECONDS)
            for task, judge in [*self._tasks.items()]:
                try:
                    judge()
                except Exception as error:  # whoever cannot be judged has no standing, and takes none along
                    self._refused[task] = error
                    task.cancel()

    def _is_ended(self, request: web.Request) -> bool:
        """Whether it was `stop` that cancelled it, and not that the client left."""
        return self._is_stopping and request.transport is not None

    def stop(self) -> None:
        """End all of them, and let no new one begin."""
        self._is_stopping = True
        for task in self._tasks:
            task.cancel()


def query_headers(index: int, consistency: str, *, has_leader: bool, last_contact_ms: int) -> dict[str, str]:
    """An index of 0 would make clients spin, so it is never sent."""
    return {
        "X-Consul-Effective-Consistency": consistency,
        "X-Consul-Index": str(max(1, index)),
        "X-Consul-KnownLeader": "true" if has_leader else "false",
        "X-Consul-LastContact": str(max(0, int(last_contact_ms))),
        "X-Consul-Query-Backend": "blocking-query",
    }


def point_headers(point: ReadPoint, index: int, options: QueryOptions) -> dict[str, str]:
    return query_headers(index, options.consistency, has_leader=point.has_leader, last_contact_ms=point.last_contact_ms)
