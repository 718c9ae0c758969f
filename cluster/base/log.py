"""Where notable events go, as every part of the program sees it."""

from typing import Final, Protocol

from providers.texts import one_line

SAME: Final = "as before"


class Log(Protocol):
    """Where notable events go: name and fields."""

    def __call__(self, event: str, /, **fields: object) -> None: ...


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
