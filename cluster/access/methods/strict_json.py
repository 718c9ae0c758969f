"""JSON from outside that decides who somebody is: bounded before it is parsed, and read in one way only.

RFC 8259 leaves open what a name given twice means, and readers differ: one would check what another one uses.
"""

import json
import re
from typing import Any, Final

MAX_DEPTH: Final = 16
MAX_VALUES: Final = 4096
#: Digits and sign of a number. A time in seconds has 10, an int64 has 19.
_MAX_NUMBER: Final = 32

#: A text, also one that never ends, so that no quote is looked at twice; or what makes the value deeper or longer.
_SHAPE: Final = re.compile(r'"(?:[^"\\]|\\.)*(?:"|\\?\Z)|[\[{]|[\]}]|,', re.DOTALL)
_OPENS: Final = frozenset("[{")
_CLOSES: Final = frozenset("]}")


class JsonRefused(ValueError):
    """The bytes are no JSON, or more than is allowed."""


def read_object(data: bytes, *, max_bytes: int) -> dict[str, Any]:
    """Raises: JsonRefused."""
    if len(data) > max_bytes:
        raise JsonRefused(f"{len(data)} bytes: at most {max_bytes} are allowed")
    try:
        text = data.decode()
    except UnicodeDecodeError:
        raise JsonRefused("it is not UTF-8") from None
    _check_shape(text)
    try:
        value = json.loads(
            text, object_pairs_hook=_object, parse_constant=_no_constant, parse_int=_integer, parse_float=_number
        )
    except JsonRefused:
        raise
    except (ValueError, RecursionError):
        raise JsonRefused("it is not JSON") from None
    if not isinstance(value, dict):
        raise JsonRefused("it is no JSON object")
    return value


def is_clean(text: str) -> bool:
    """Whether it can be kept, shown and compared everywhere: without NUL, and without half of a surrogate pair."""
    if text.isascii():
        return "\0" not in text
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return "\0" not in text


def _check_shape(text: str) -> None:
    depth = values = 0
    for found in _SHAPE.finditer(text):
        sign = found[0]
        if sign in _OPENS:
            depth += 1
            values += 1
        elif sign in _CLOSES:
            depth -= 1
        elif sign == ",":
            values += 1
        if depth > MAX_DEPTH:
            raise JsonRefused(f"nested deeper than {MAX_DEPTH}")
        if values > MAX_VALUES:
            raise JsonRefused(f"more than {MAX_VALUES} values")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise JsonRefused("a name is given twice")
    return found


def _no_constant(_text: str) -> Any:
    raise JsonRefused("NaN and Infinity are no JSON")


def _integer(text: str) -> int:
    if len(text) > _MAX_NUMBER:
        raise JsonRefused(f"a number has more than {_MAX_NUMBER} digits")
    return int(text)


def _number(text: str) -> float:
    if len(text) > _MAX_NUMBER:
        raise JsonRefused(f"a number has more than {_MAX_NUMBER} digits")
    return float(text)
