"""How many CSRs are signed: CSRMaxPerSecond and CSRMaxConcurrent, as in Consul."""

import asyncio
from typing import Final

from cluster.base.clock import Clock
from cluster.base.errors import RateLimitReached

#: Consul's: how long a CSR waits for the rate or concurrency limit.
_LIMIT_WAIT_SECONDS: Final = 0.5


class SigningLimiter:
    """CSRMaxPerSecond (one token, refilled at that rate) or, if that is off, CSRMaxConcurrent. Waits 500 ms at most."""

    def __init__(self, per_second: float, concurrent: int, clock: Clock) -> None:
        self.per_second = per_second
        self.concurrent = concurrent if per_second == 0 else 0
        self._clock = clock
        self._next_free = clock.monotonic()
        self._slots = asyncio.Semaphore(self.concurrent) if self.concurrent else None

    def has(self, per_second: float, concurrent: int) -> bool:
        """Whether these are its limits."""
        return (self.per_second, self.concurrent) == (per_second, concurrent if per_second == 0 else 0)

    @property
    def is_off(self) -> bool:
        return not self.per_second and self._slots is None

    async def __aenter__(self) -> None:
        """Raises: RateLimitReached."""
        if self.per_second:
            now = self._clock.monotonic()
            wait = max(0.0, self._next_free - now)
            if wait > _LIMIT_WAIT_SECONDS:
                raise RateLimitReached(_LIMIT_TEXT, retry_after_seconds=wait)
            self._next_free = max(now, self._next_free) + 1 / self.per_second
            if wait:
                await asyncio.sleep(wait)
        elif self._slots is not None:
            try:
                async with asyncio.timeout(_LIMIT_WAIT_SECONDS):
                    await self._slots.acquire()
            except TimeoutError:
                raise RateLimitReached(_LIMIT_TEXT) from None

    async def __aexit__(self, *_: object) -> None:
        if self._slots is not None:
            self._slots.release()


_LIMIT_TEXT: Final = "Rate limit reached, try again later"
