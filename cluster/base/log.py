"""Where notable events go, as every part of the program sees it."""

from typing import Protocol


class Log(Protocol):
    """Where notable events go: name and fields."""

    def __call__(self, event: str, /, **fields: object) -> None: ...
