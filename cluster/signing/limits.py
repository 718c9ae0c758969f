"""How many CSRs are signed: CSRMaxPerSecond and CSRMaxConcurrent, as in Consul; and who is signed for first."""

import asyncio
import math
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Final

from cluster.base.clock import Clock
from cluster.base.errors import RateLimitReached
from cluster.signing.line import Line, Rank, Turn

#: Consul's: how long a CSR waits for the rate or concurrency limit.
_LIMIT_WAIT_SECONDS: Final = 0.5
#: Of CSRs that wait for others to be signed.
_MAX_WAITING: Final = 4096
#: Nobody knows how long those take who are signed for.
_RETRY_SECONDS: Final = 1.0

#: Of whoever has to wait; not asked of anybody else.
RankOf = Callable[[], Awaitable[Rank]]


class SigningLimiter:
    """CSRMaxPerSecond (one token, refilled at that rate) or, if that is off, CSRMaxConcurrent.

    Of those who have to wait, as many may as will be signed for within 500 ms, and of each rank one at least, which
    may take two turns more.
    """

    def __init__(self, per_second: float, concurrent: int, clock: Clock) -> None:
        self.per_second = per_second
        self.concurrent = concurrent if per_second == 0 else 0
        self._clock = clock
        self._next_free = clock.monotonic()
        self._timer: asyncio.TimerHandle | None = None
        self._under_way = 0
        self._line = Line()

    def has(self, per_second: float, concurrent: int) -> bool:
        """Whether these are its limits."""
        return (self.per_second, self.concurrent) == (per_second, concurrent if per_second == 0 else 0)

    @property
    def is_off(self) -> bool:
        return not self.per_second and not self.concurrent

    @asynccontextmanager
    async def turn(self, rank_of: RankOf) -> AsyncIterator[None]:
        """Raises: RateLimitReached, when it does not come, or somebody else must come first."""
        if self.per_second:
            await self._token(rank_of)
            yield
        elif self.concurrent:
            await self._slot(rank_of)
            try:
                yield
            finally:
                self._leave_slot()
        else:
            yield

    # -- so many in a second

    async def _token(self, rank_of: RankOf) -> None:
        if self._take_free():
            return
        rank = await rank_of()
        if self._take_free():
            return
        turn = self._line.join(rank, self._places())
        if turn is None:
            raise self._refusal()
        if self._timer is None:
            self._wait_for_next()
        await self._have(turn)

    async def _have(self, turn: Turn) -> None:
        """Raises: RateLimitReached."""
        try:
            has_come = await turn
        except BaseException:
            self._line.leave(turn)
            raise
        if not has_come:
            raise self._refusal()

    def _take_free(self) -> bool:
        now = self._clock.monotonic()
        if self._timer is not None or now < self._next_free:
            return False
        self._next_free = now + 1 / self.per_second
        return True

    @property
    def _until_next(self) -> float:
        return max(0.0, self._next_free - self._clock.monotonic())

    def _places(self) -> int:
        left = _LIMIT_WAIT_SECONDS - self._until_next
        return 1 + math.floor(left * self.per_second) if left >= 0 else 0

    def _refusal(self) -> RateLimitReached:
        wait = self._until_next + len(self._line) / self.per_second if self.per_second else _RETRY_SECONDS
        return RateLimitReached(_LIMIT_TEXT, retry_after_seconds=wait)

    def _wait_for_next(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(self._until_next, self._next)

    def _next(self) -> None:
        self._timer = None
        if self._line.call():
            # Not from now on: the loop may have been held up, and what came meanwhile is not lost.
            self._next_free += 1 / self.per_second
        if self._line:
            self._wait_for_next()

    # -- so many at a time

    async def _slot(self, rank_of: RankOf) -> None:
        if self._take_slot():
            return
        rank = await rank_of()
        if self._take_slot():
            return
        turn = self._line.join(rank, _MAX_WAITING)
        if turn is None:
            raise self._refusal()
        try:
            async with asyncio.timeout(_LIMIT_WAIT_SECONDS):
                await self._have(turn)
        except TimeoutError:
            if _has_come(turn):
                return
            raise self._refusal() from None
        except asyncio.CancelledError:
            if _has_come(turn):
                self._leave_slot()
            raise

    def _take_slot(self) -> bool:
        if self._under_way >= self.concurrent:
            return False
        self._under_way += 1
        return True

    def _leave_slot(self) -> None:
        """To whoever is next."""
        if not self._line.call():
            self._under_way -= 1


def _has_come(turn: Turn) -> bool:
    """In the same moment in which it was given up."""
    return turn.done() and not turn.cancelled() and turn.result()


_LIMIT_TEXT: Final = "Rate limit reached, try again later"
