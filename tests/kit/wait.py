"""Waiting in tests: for a condition and with a deadline, never for a time that should be enough.

What does not come in time is an AssertionError that says what it was. A look is repeated as long as it gives nothing:
None, False, 0, or what is empty.
"""

import asyncio
import inspect
import time
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

import aiohttp

T = TypeVar("T")
Trouble = tuple[type[Exception], ...]

PATIENCE_SECONDS: Final = 30.0
_PAUSE_SECONDS: Final = 0.05
_SHORT_PAUSE_SECONDS: Final = 0.002
#: Of a node that is asked over the network: it may be on its way up, or answer what holds for a moment only.
_UNREADY: Final[Trouble] = (aiohttp.ClientError, TimeoutError, AssertionError)


def wait_until(
    what: str,
    look: Callable[[], T | None],
    seconds: float = PATIENCE_SECONDS,
    pause: float = _PAUSE_SECONDS,
    trouble: Trouble = (),
) -> T:
    """What `look` gives at last. An error that is listed in `trouble` counts as nothing."""
    deadline = _Deadline(seconds)
    while True:
        error: Exception | None = None
        try:
            if found := look():
                return found
        except trouble as raised:
            error = raised
        if deadline.is_over:
            raise deadline.missed(what, error)
        time.sleep(pause)


async def eventually(
    what: str,
    look: Callable[[], Awaitable[T | None]],
    seconds: float = PATIENCE_SECONDS,
    pause: float = _PAUSE_SECONDS,
    trouble: Trouble = _UNREADY,
) -> T:
    """As `wait_until`, for looks that take a while themselves."""
    deadline = _Deadline(seconds)
    while True:
        error: Exception | None = None
        try:
            if found := await look():
                return found
        except trouble as raised:
            error = raised
        if deadline.is_over:
            raise deadline.missed(what, error)
        await asyncio.sleep(pause)


async def until(
    condition: Callable[[], object],
    what: str = "",
    seconds: float = PATIENCE_SECONDS,
    pause: float = _SHORT_PAUSE_SECONDS,
) -> None:
    """Let the event loop go on until the condition holds; without a `what` it is named by its own source."""
    deadline = _Deadline(seconds)
    while not condition():
        if deadline.is_over:
            raise deadline.missed(what or _source_of(condition))
        await asyncio.sleep(pause)


class _Deadline:
    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._end = time.monotonic() + seconds

    @property
    def is_over(self) -> bool:
        return time.monotonic() > self._end

    def missed(self, what: str, error: Exception | None = None) -> AssertionError:
        last = f"; the last error: {error!r}" if error else ""
        return AssertionError(f"not within {self._seconds:g} s: {what}{last}")


def _source_of(condition: Callable[[], object]) -> str:
    try:
        lines = inspect.getsource(condition).split()
    except (OSError, TypeError):
        return repr(condition)
    return " ".join(lines)
