"""How a command ends: exit codes, and the error that ends one with a text for whoever typed it."""

from collections.abc import Iterator
from contextlib import contextmanager
from enum import IntEnum


class Exit(IntEnum):
    """Exit codes; scripts rely on them."""

    OK = 0
    FAILED = 1
    USAGE = 2  # argparse's own
    UNREACHABLE = 3
    UNHEALTHY = 4
    INTERRUPTED = 130  # what a shell reports for SIGINT

    @property
    def meaning(self) -> str:
        return _MEANINGS[self]


_MEANINGS = {
    Exit.OK: "done",
    Exit.FAILED: "the command failed: the API answered with an error, a file was refused, ...",
    Exit.USAGE: "usage error: unknown command or flag, a value that is not allowed",
    Exit.UNREACHABLE: "the server could not be reached, or did not answer",
    Exit.UNHEALTHY: "doctor: something is wrong",
    Exit.INTERRUPTED: "interrupted from the keyboard",
}


class CommandError(Exception):
    """Ends the command. `main` prints the text to stderr and returns the code."""

    def __init__(self, text: str, code: Exit = Exit.FAILED) -> None:
        super().__init__(text)
        self.code = code


class Answered(CommandError):
    """The server has answered with this status, which was not asked for."""

    def __init__(self, text: str, status: int) -> None:
        super().__init__(text)
        self.status = status


@contextmanager
def failing_as(what: str) -> Iterator[None]:
    """Puts what was attempted before the text of a CommandError, as Consul's commands do."""
    try:
        yield
    except CommandError as error:
        raise CommandError(f"{what}: {error}", error.code) from error
