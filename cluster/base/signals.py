"""Signals say that something changed, never what; and waiting for one of several without missing any."""

import asyncio
from collections.abc import Callable


class Signal:
    """Wakes everyone who waits for the next change of something."""

    def __init__(self) -> None:
        self._future: asyncio.Future[None] | None = None

    def fire(self) -> None:
        future, self._future = self._future, None
        if future is not None and not future.done():
            future.set_result(None)

    async def wait(self) -> None:
        if self._future is None:
            self._future = asyncio.get_running_loop().create_future()
        await asyncio.shield(self._future)


async def wait_any(signals: tuple[Signal, ...], is_same: Callable[[], bool]) -> None:
    """Until one of them fires; not at all once `is_same()` does not hold any more."""
    waits = [asyncio.ensure_future(signal.wait()) for signal in signals]
    try:
        # They listen only once they run: what was signalled until then shows in `is_same`.
        await asyncio.sleep(0)
        if is_same():
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for wait in waits:
            wait.cancel()
