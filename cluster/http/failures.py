"""Log lines of requests that failed: a few of each client, and how many there were besides.

A client on one connection can have thousands of requests refused in a second. Metrics count all of them.
"""

import asyncio
from typing import Final

from cluster.base.log import Log
from cluster.base.seats import source_of

#: In a second; what is beyond is counted, and said when the second is over.
MAX_LINES: Final = 50
MAX_LINES_PER_SOURCE: Final = 10
_SECOND: Final = 1.0
#: Of what is only counted, so many kinds are told apart.
_MAX_KINDS: Final = 16
_OTHERS: Final = ("", 0)


class Failures:
    """Of one listener. For its event loop only."""

    def __init__(self, log: Log) -> None:
        self._log = log
        self._lines = 0
        self._by_source: dict[str, int] = {}
        self._left_out: dict[tuple[str, int], int] = {}
        self._timer: asyncio.TimerHandle | None = None

    def say(self, status: int, remote: str, **fields: object) -> None:
        """One request that failed."""
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(_SECOND, self.end_second)
        source = source_of((remote,))
        said = self._by_source.get(source, 0)
        if said < MAX_LINES_PER_SOURCE and self._lines < MAX_LINES:
            self._by_source[source] = said + 1
            self._lines += 1
            self._log("http.request", **fields, status=status, remote=remote)
            return
        kind = (source, status)
        if kind not in self._left_out and len(self._left_out) >= _MAX_KINDS:
            kind = _OTHERS
        self._left_out[kind] = self._left_out.get(kind, 0) + 1

    def end_second(self) -> None:
        """Say what has had no line, and begin anew."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        left_out, self._left_out = self._left_out, {}
        self._lines = 0
        self._by_source.clear()
        for (source, status), count in left_out.items():
            self._log("http.more_requests", count=count, status=status, source=source)
