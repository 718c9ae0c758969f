"""Time as an argument, so that tests can bring their own."""

import time
from datetime import UTC, datetime
from typing import Final, Protocol


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


#: The years 1 and 9999: what can be written with four digits.
_FIRST_SECOND: Final = -62_135_596_800
_LAST_SECOND: Final = 253_402_300_799


def rfc3339(seconds: int) -> str:
    """How a time is shown: `2027-01-31T12:00:00Z`; one that has no such form as the nearest that has."""
    seconds = max(_FIRST_SECOND, min(seconds, _LAST_SECOND))
    return datetime.fromtimestamp(seconds, UTC).isoformat()[:-6] + "Z"
