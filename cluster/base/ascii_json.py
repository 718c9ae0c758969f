"""JSON as `json.dumps` writes it, compact and in ASCII, in a quarter of the time: each certificate makes three such
texts, its answer and two lines of the log.
"""

import json
from collections.abc import Callable
from types import NoneType
from typing import Any, Final

import msgspec

_DEL: Final = b"\x7f"
_SCALARS: Final = frozenset({str, int, float, bool, NoneType})


class AsciiJson:
    """`default`: what to write for a value that JSON does not know."""

    def __init__(self, default: Callable[[Any], Any] | None = None) -> None:
        self._fast = msgspec.json.Encoder().encode
        self._exact = json.JSONEncoder(separators=(",", ":"), default=default).encode

    def encode(self, value: object) -> bytes:
        """Raises: TypeError for what JSON does not know, if there is no `default`."""
        # msgspec knows more than JSON does: it would write out a dataclass, with fields that its `repr` keeps back.
        if _is_plain(value):
            try:
                text = self._fast(value)
            except UnicodeEncodeError:
                pass  # half of a surrogate pair, which only an escape can carry
            else:
                # In UTF-8 there are characters that move the cursor of a terminal; escaped, there are none. msgspec
                # escapes what JSON demands, which is not DEL.
                if text.isascii() and _DEL not in text:
                    return text
        return self._exact(value).encode("ascii")


def _is_plain(value: object) -> bool:
    if type(value) is dict:
        for name, member in value.items():
            if type(name) is not str or (type(member) not in _SCALARS and not _is_plain(member)):
                return False
        return True
    if type(value) is list or type(value) is tuple:
        return all(map(_is_plain, value))
    return type(value) in _SCALARS
