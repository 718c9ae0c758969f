"""Waiting for one of several signals without missing any."""

import asyncio
from collections.abc import Callable

from cluster.raft.replica import Signal


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
