"""So many at once of each key, and of all keys: what somebody else holds up takes no more than its own places.

A place is waited for shortly, and so many wait at once: whoever comes when that is full is refused at once. The places
of the key come before those of all, so that whoever waits for a key that stands still has nothing that others need.
"""

import asyncio
from collections.abc import AsyncIterator, Hashable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Final

from cluster.base.errors import Overloaded

#: Who waits for one place of a key, or of all: as many as take it, and this many times as many.
_WAITING: Final = 16


class KeyedPlaces:
    """For one event loop."""

    def __init__(self, what: str, *, of_a_key: int, in_all: int, wait_seconds: float) -> None:
        """`what` has places, for whoever is refused: "logins of one method"."""
        self._what = what
        self._of_a_key = of_a_key
        self._in_all = in_all
        self._wait_seconds = wait_seconds
        self._all = _Places(in_all)
        self._of_keys: dict[Hashable, _Places] = {}

    def __len__(self) -> int:
        """Who has a place, or waits for one."""
        return self._all.users

    @asynccontextmanager
    async def place(self, key: Hashable) -> AsyncIterator[None]:
        """Raises: Overloaded."""
        places = self._of_keys.get(key) or _Places(self._of_a_key)
        if places.is_full or self._all.is_full:
            raise self._refusal()
        self._of_keys[key] = places
        async with AsyncExitStack() as held:
            held.callback(self._left, key, places)
            places.users += 1
            self._all.users += 1
            try:
                async with asyncio.timeout(self._wait_seconds):
                    await held.enter_async_context(places.free)
                    await held.enter_async_context(self._all.free)
            except TimeoutError:
                raise self._refusal() from None
            yield

    def _left(self, key: Hashable, places: "_Places") -> None:
        self._all.users -= 1
        places.users -= 1
        if not places.users:
            del self._of_keys[key]

    def _refusal(self) -> Overloaded:
        return Overloaded(
            f"too many {self._what} are under way, try again later: {self._of_a_key} at once, and {self._in_all} in all"
        )


class _Places:
    """`users`: who waits for one, or has one. Remembered while there are any."""

    def __init__(self, count: int) -> None:
        self.free = asyncio.Semaphore(count)
        self.users = 0
        self._most = count * (1 + _WAITING)

    @property
    def is_full(self) -> bool:
        return self.users >= self._most
