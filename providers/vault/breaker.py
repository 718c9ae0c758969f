"""A circuit breaker: after some failures in a row nobody waits for the backend, until one try has succeeded."""

import threading
from collections.abc import Callable
from typing import Final

from providers.errors import ProviderUnavailable

_FAILURES: Final = 3
_FIRST_PAUSE_SECONDS: Final = 1.0
#: Also the longest time that the recovery of the backend goes unnoticed.
_LONGEST_PAUSE_SECONDS: Final = 15.0


class Breaker:
    """Shared by the threads of one process."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._failures = 0
        self._pause_seconds = 0.0
        self._closed_at = 0.0  # when the next try may be made
        self._reason = ""

    @property
    def is_open(self) -> bool:
        with self._lock:
            return self._failures >= _FAILURES

    def enter(self) -> bool:
        """Before a call; whether it is the one that finds out if the backend is back.

        Raises: ProviderUnavailable, at once, while the backend is left alone.
        """
        with self._lock:
            if self._failures < _FAILURES:
                return False
            now = self._clock()
            if now < self._closed_at:
                raise ProviderUnavailable(self._reason, self._closed_at - now)
            # Whoever comes first tries; the others go on being refused until that has an outcome, or is overdue.
            self._closed_at = now + self._pause_seconds
            return True

    @property
    def pause_seconds(self) -> float:
        """How long it is still left alone; 0 when a call would be let through."""
        with self._lock:
            return max(0.0, self._closed_at - self._clock()) if self._failures >= _FAILURES else 0.0

    @property
    def reason(self) -> str:
        """Why the backend is left alone; empty when it is not."""
        with self._lock:
            return self._reason if self._failures >= _FAILURES else ""

    def succeeded(self) -> None:
        with self._lock:
            self._failures, self._pause_seconds, self._reason = 0, 0.0, ""

    def failed(self, reason: str, *, was_try: bool) -> None:
        """Only tries lengthen the pause: of many calls that fail at once, the others say nothing new."""
        with self._lock:
            self._failures += 1
            self._reason = reason
            if self._failures == _FAILURES:
                self._pause_seconds = _FIRST_PAUSE_SECONDS
            elif was_try:
                self._pause_seconds = min(2 * self._pause_seconds, _LONGEST_PAUSE_SECONDS)
            else:
                return
            self._closed_at = self._clock() + self._pause_seconds
