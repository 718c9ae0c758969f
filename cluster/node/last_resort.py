"""A process that was asked to end does end, even if its event loop cannot be reached.

The loop handles SIGTERM and SIGINT (main.py), and stops everything in order. A callback that blocks it, in a system
call that goes on after a signal, blocks them too; without this, only SIGKILL would end such a node. Raft's thread could
not do it either: what holds up the one may hold up the other, as a log that cannot be written does. So what Python's
own handler writes for every signal (`signal.set_wakeup_fd`) passes through a thread that has nothing else to do. It
hands the numbers on to the loop, and looks from then on whether the loop turns.
"""

import asyncio
import contextlib
import os
import select
import signal
import threading
import time
from collections.abc import Callable, Iterator
from typing import Final, NoReturn

from cluster.raft.stall import LoopWatch

#: Nothing that stops in order blocks the loop for as long, and whoever sends SIGKILL next waits longer: ten seconds is
#: what container engines give.
_PATIENCE_SECONDS: Final = 5.0
_REPORT_SECONDS: Final = 1.0
_EXIT_FAILED: Final = 1
_ENDING: Final = frozenset((signal.SIGTERM, signal.SIGINT))


@contextlib.contextmanager
def last_resort(
    loop: asyncio.AbstractEventLoop, report: Callable[[str], None], patience_seconds: float = _PATIENCE_SECONDS
) -> Iterator[None]:
    """Used by the main thread while it runs `loop`, which must have set its own wake-up already, as uvloop does when it
    starts. `report` is told why the process ends.
    """
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    loops_own = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    watch = LoopWatch(patience_seconds, time.monotonic, loop.call_soon_threadsafe)
    thread = threading.Thread(
        target=_stand_by, args=(reader, loops_own, watch, report), name="last-resort", daemon=True
    )
    thread.start()
    try:
        yield
    finally:
        signal.set_wakeup_fd(loops_own, warn_on_full_buffer=False)
        os.close(writer)
        thread.join()
        os.close(reader)


def _stand_by(reader: int, loops_own: int, watch: LoopWatch, report: Callable[[str], None]) -> None:
    asked_by: int | None = None
    while True:
        readable, _, _ = select.select([reader], [], [], None if asked_by is None else watch.interval)
        if readable:
            numbers = os.read(reader, select.PIPE_BUF)
            if not numbers:
                return
            with contextlib.suppress(BlockingIOError):  # full: the loop has been woken, and sees by itself what came
                os.write(loops_own, numbers)
            asked_by = next((number for number in numbers if number in _ENDING), asked_by)
        if asked_by is None:
            continue
        watch.look()
        if watch.is_stalled:
            name = signal.Signals(asked_by).name
            _end(report, f"asked to end by {name}, and the API has stood still for {watch.silent_seconds:.0f} s since")


def _end(report: Callable[[str], None], reason: str) -> NoReturn:
    """As after SIGKILL, which a node survives at any moment. The report may wait for what the loop waits for."""
    reporter = threading.Thread(target=report, args=(reason,), daemon=True)
    reporter.start()
    reporter.join(_REPORT_SECONDS)
    os._exit(_EXIT_FAILED)
