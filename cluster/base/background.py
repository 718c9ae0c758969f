"""Work that a node does for as long as it lives.

An exception in it is said and counted, and ends nothing else: it begins again after a pause. What must end the process
says so by its kind.
"""

import asyncio
import math
import time
from collections.abc import Awaitable, Callable
from typing import Any, Final, NoReturn

from cluster.base.log import Log
from cluster.base.telemetry import Metrics

_FIRST_PAUSE_SECONDS: Final = 0.5
_LONGEST_PAUSE_SECONDS: Final = 60.0
#: Work that went well for so long has got over what was wrong.
_WELL_SECONDS: Final = 120.0
_MAX_REASON: Final = 300
_LOOP_PAUSE_SECONDS: Final = 1.0


def describe(error: BaseException) -> str:
    """What failed and where, on one line of bounded length: enough to find it, without the values that a traceback
    would show.
    """
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    place = f" at {trace.tb_frame.f_globals.get('__name__', '?')}:{trace.tb_lineno}" if trace is not None else ""
    return f"{type(error).__name__}{place}: {error}"[:_MAX_REASON]


def is_outlived(error: BaseException) -> bool:
    """Not being cancelled, and not what ends a process. A defect of a Rust library is a PanicException, which derives
    from BaseException and has no importable name.
    """
    return isinstance(error, Exception) or type(error).__name__ == "PanicException"


async def keep_running(
    name: str,
    work: Callable[[], Awaitable[object]],
    log: Log,
    metrics: Metrics,
    *,
    ends_with: tuple[type[Exception], ...] = (),
) -> NoReturn:
    """For ever, whatever `work` raises; pauses get longer while it keeps failing.

    Raises: what is listed in `ends_with`, for which the process has to end.
    """
    pause = _FIRST_PAUSE_SECONDS
    while True:
        started = time.monotonic()
        try:
            await work()
        except ends_with:
            raise
        except BaseException as error:
            if not is_outlived(error):
                raise
            if time.monotonic() - started > _WELL_SECONDS:
                pause = _FIRST_PAUSE_SECONDS
            say_failed(name, error, log, metrics, again_in_seconds=pause)
        await asyncio.sleep(pause)
        pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)


def attempt(name: str, work: Callable[[], object], log: Log, metrics: Metrics) -> None:
    """One of several things that are looked at in turn: that it fails is no reason to leave out the others."""
    try:
        work()
    except Exception as error:
        say_failed(name, error, log, metrics)


def report_callbacks(loop: asyncio.AbstractEventLoop, log: Log, clock: Callable[[], float] = time.monotonic) -> None:
    """Exceptions that nobody waits for, of callbacks and of tasks, become lines of the log: one a second at most, with
    the number of those since the last, for what a client repeats may fill no disk. By itself the loop would write
    tracebacks of many lines to stderr.
    """
    count, next_line = 0, -math.inf

    def handle(_loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        nonlocal count, next_line
        count += 1
        if (now := clock()) >= next_line:
            error = context.get("exception")
            reason = str(context.get("message", ""))[:_MAX_REASON] if error is None else describe(error)
            log("loop.failed", count=count, reason=reason)
            count, next_line = 0, now + _LOOP_PAUSE_SECONDS

    loop.set_exception_handler(handle)


def say_failed(name: str, error: BaseException, log: Log, metrics: Metrics, **fields: object) -> None:
    metrics.background_failures.labels(name).inc()
    log("background.failed", work=name, reason=describe(error), **fields)
