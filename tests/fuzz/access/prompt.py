"""A bound for what everybody else waits for: while it runs, a node answers nobody."""

import contextlib
import time
import tracemalloc
from collections.abc import Callable
from typing import Final, TypeVar

T = TypeVar("T")

#: CPU time: generous, but not for what grows faster than the input.
_SECONDS: Final = 0.05
_SECONDS_PER_BYTE: Final = 3e-6


class TooSlow(AssertionError):
    """Twice: once may be the garbage of what was before."""


def promptly(size: int, work: Callable[[], T]) -> T:
    """What it gives, for an input of this size. Raises: as `work`; TooSlow."""
    start = time.process_time()
    try:
        return work()
    finally:
        if _is_slow(start, size) and not tracemalloc.is_tracing():  # tracing slows everything down
            start = time.process_time()
            with contextlib.suppress(Exception):
                work()
            if _is_slow(start, size):
                raise TooSlow(f"takes more than {_limit(size):.3f} s of CPU time for {size} bytes")


def _is_slow(start: float, size: int) -> bool:
    return time.process_time() - start > _limit(size)


def _limit(size: int) -> float:
    return _SECONDS + _SECONDS_PER_BYTE * size
