"""Where notable events go, as every part of the program sees it."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final, Protocol

from cluster.base.errors import ClusterError, NotLeader
from providers.errors import ProviderError
from providers.texts import one_line

SAME: Final = "as before"
#: One line for each signature that failed, however large what was refused is.
_MAX_REASON: Final = 300
_PAUSE_SECONDS: Final = 1.0


class Log(Protocol):
    """Where notable events go: name and fields."""

    def __call__(self, event: str, /, **fields: object) -> None: ...


class Seldom:
    """Passes each event on at most once a second for each cause: what a peer repeats fills no disk."""

    def __init__(self, log: Log, clock: Callable[[], float]) -> None:
        self._pass_on = log
        self._clock = clock
        self._said: dict[tuple[str, str], float] = {}

    def __call__(self, event: str, cause: str, **fields: object) -> None:
        """`cause` is one of a bounded number: the name of a server."""
        now = self._clock()
        if now - self._said.get((event, cause), -_PAUSE_SECONDS) >= _PAUSE_SECONDS:
            self._said[event, cause] = now
            self._pass_on(event, **fields)


class Reports:
    """What was said last of each thing that is tried again until somebody mends it: the same trouble is told once."""

    def __init__(self) -> None:
        self._said: dict[str, str] = {}

    def reason(self, name: str, error: BaseException) -> str:
        """Why this failed, fit for a log line; only that it is as before, if that was said last."""
        text = one_line(error)
        if self._said.get(name) == text:
            return SAME
        self._said[name] = text
        return text

    def forget(self, name: str) -> None:
        """It is over, and will be told anew."""
        self._said.pop(name, None)


@contextmanager
def audited_signature(log: Log, **fields: object) -> Iterator[None]:
    """Whoever reads `ca.signing` finds out what came of it: `ca.signed` is for the caller to say, a failure is here.

    A node that does not lead has not failed: the next leader gets the request, with the same serial.
    """
    try:
        yield
    except NotLeader:
        raise
    except (ClusterError, ProviderError) as error:
        log("ca.sign_failed", **fields, reason=str(error)[:_MAX_REASON])
        raise
