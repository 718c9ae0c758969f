"""Texts that somebody else has chosen (a backend, a file, an add-on), made fit for a log line, an answer and a command.

Whatever a backend says ends up in all three, and more than once: so it is cut where it comes in.
"""

from typing import Final

MAX_DETAIL: Final = 400
#: Of a whole error text, whose lines may be a list of mistakes.
MAX_TEXT: Final = 4000


def one_line(text: object, limit: int = MAX_DETAIL) -> str:
    """On one line, without control characters, and cut; how much has been cut is said."""
    whole = str(text)
    # Looked at only as far as it is shown: it may have megabytes.
    shown = "".join(map(_visible, " ".join(whole[: 2 * limit].split())))
    return shown if len(whole) <= 2 * limit and len(shown) <= limit else f"{shown[:limit]}... ({len(whole)} characters)"


def bounded(text: object, limit: int = MAX_TEXT) -> str:
    """As `one_line`, but of several lines."""
    whole = str(text)
    shown = "".join(char if char == "\n" else _visible(char) for char in whole[:limit])
    return shown if len(whole) <= limit else f"{shown}... ({len(whole)} characters)"


def _visible(char: str) -> str:
    return char if char.isprintable() else char.encode("unicode_escape").decode()
