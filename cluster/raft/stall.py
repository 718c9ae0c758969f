"""Whether an event loop turns, as another thread sees it.

A node serves its API on one loop, and Raft on another in a thread of its own. That is what keeps heartbeats going
whatever the API does; and it is what would keep a node in the lead whose API stands still for good, with a cluster that
has a leader and signs nothing. Anything may hold up a loop: a file on a network that is gone, a terminal that is
stopped with Ctrl-S. So the Raft thread looks, and `RaftNode` gives leadership away.
"""

from collections.abc import Callable
from typing import Final

#: Looks for each limit. The loop has to miss all of them.
_LOOKS: Final = 8
#: A loop has work that takes hundreds of milliseconds on a slow machine; Raft's thread, which the election time-outs
#: are made for, has none.
_MIN_LIMIT_SECONDS: Final = 1.0


def stall_limit(election_max: float) -> float:
    """Seconds without a turn after which a leader's API counts as stalled.

    The longest election time-out, because a leader that cannot be asked anything is as good as dead, and may take as
    long to be noticed as one that is. The shortest would be stricter with it than with a dead one, and a needless
    election costs more than the half second saved.
    """
    return max(election_max, _MIN_LIMIT_SECONDS)


class LoopWatch:
    """Sends a beat through the loop and looks whether it has come back. Every method but `_came_back` is for the thread
    that watches.

    Only time in which that thread itself ran counts. One look adds `interval` at most, however late it comes, so a
    process that was paused, a machine that slept or a collection of garbage adds next to nothing; and on a machine with
    too much to do, the loop has to miss many looks of a thread that runs beside it.
    """

    def __init__(self, limit: float, clock: Callable[[], float], post: Callable[[Callable[[], None]], object]) -> None:
        """`post` runs a function on the loop soon: its `call_soon_threadsafe`."""
        self.interval = limit / _LOOKS
        self.is_stalled = False
        self._limit = limit
        self._clock = clock
        self._post = post
        self._is_out = False
        self._looked_at = self._sent_at = clock()
        self._missed_seconds = 0.0

    @property
    def silent_seconds(self) -> float:
        """Since the beat was sent that is still out; 0.0 when none is."""
        return self._clock() - self._sent_at if self._is_out else 0.0

    def look(self) -> None:
        """Once in every `interval`."""
        now = self._clock()
        self._missed_seconds += min(now - self._looked_at, self.interval)
        self._looked_at = now
        if not self._is_out:
            self._missed_seconds = 0.0
            self._is_out, self._sent_at = True, now
            self._post(self._came_back)
        self.is_stalled = self._missed_seconds >= self._limit

    def _came_back(self) -> None:
        self._is_out = False
