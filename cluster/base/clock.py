"""Time as an argument, so that tests can bring their own."""

import time
from datetime import UTC, datetime
from typing import Protocol


class Clock(Protocol):
    def now(self) -> float:
        """Unix seconds (UTC): for validity and everything that is shown."""
        ...

    def monotonic(self) -> float:
        """Seconds that never jump: for waiting and measuring."""
        ...


class SystemClock:
    def now(self) -> float:
        return time.time()

    def monotonic(self) -> float:
        return time.monotonic()


def rfc3339(seconds: int) -> str:
    """How a time is shown: `2027-01-31T12:00:00Z`."""
    return datetime.fromtimestamp(seconds, UTC).isoformat()[:-6] + "Z"
