"""Weak typing of the raw CA configuration map, as the decoder in Consul (mapstructure) does it.

Owns how a JSON value becomes a duration, number, flag or text; what values are allowed is for the profile that reads
them. Keys match without regard to case. All mistakes of one map are reported together, and no value is repeated in a
text when it might be a secret.
"""

import json
import math
from collections.abc import Callable, Collection, Mapping
from typing import TypeVar

from providers.config import durations
from providers.errors import ConfigInvalid

T = TypeVar("T")

_TRUE = frozenset({"1", "t", "T", "TRUE", "true", "True"})
_FALSE = frozenset({"", "0", "f", "F", "FALSE", "false", "False"})
#: Of the keys that nobody knows: how many are named, and how many characters of each.
_MAX_SHOWN = 64
_GO_TYPES = {dict: "map[string]interface {}", list: "[]interface {}", str: "string", float: "float64"}


class Fields:
    """One configuration map, read field by field; call `finish` after the last one."""

    def __init__(self, raw: Mapping[str, object]) -> None:
        self._raw = raw
        self._folded: dict[str, object] = {}
        # Sorted, so that two spellings of one key give the same result on every node.
        for key in sorted(raw, reverse=True):
            self._folded[key.lower()] = raw[key]
        self._mistakes: list[str] = []

    def get(self, name: str) -> object:
        """The raw value; None when the key is absent or null."""
        if name in self._raw:
            return self._raw[name]
        return self._folded.get(name.lower())

    def duration_ns(self, name: str, default: int) -> int:
        """A Go duration; a bare number counts nanoseconds, which is how Go's own clients send one."""
        return self._read(name, default, _duration)

    def integer(self, name: str, default: int) -> int:
        return self._read(name, default, _integer)

    def number(self, name: str, default: float) -> float:
        return self._read(name, default, _number)

    def flag(self, name: str, default: bool) -> bool:
        return self._read(name, default, _flag)

    def text(self, name: str, default: str = "") -> str:
        return self._read(name, default, _text)

    def text_map(self, name: str) -> dict[str, str]:
        return self._read(name, {}, _text_map)

    def text_list(self, name: str) -> list[str]:
        """Texts; one by itself is a list of one."""
        return self._read(name, [], _text_list)

    def allow_only(self, names: Collection[str]) -> None:
        """Any other key is a mistake, and so is one that is given in two spellings."""
        known = {name.lower() for name in names}
        if strange := sorted(key[:_MAX_SHOWN] for key in self._raw if key.lower() not in known):
            self._mistakes.append(f"'' has invalid keys: {', '.join(strange[:_MAX_SHOWN])}")
        if len(self._folded) != len(self._raw):
            spellings = [key.lower() for key in self._raw]
            twice = sorted({name for name in names if spellings.count(name.lower()) > 1})
            self._mistakes += [f"'{name}' is given more than once" for name in twice]

    def finish(self) -> None:
        """Raises: ConfigInvalid when any field read so far could not be decoded."""
        if self._mistakes:
            points = "\n".join(f"* {mistake}" for mistake in sorted(self._mistakes))
            raise ConfigInvalid(f"error decoding config: {len(self._mistakes)} error(s) decoding:\n\n{points}")

    def _read(self, name: str, default: T, convert: Callable[[str, object], T]) -> T:
        value = self.get(name)
        if value is None:
            return default
        try:
            return convert(name, value)
        except ValueError as error:
            self._mistakes.append(str(error))
            return default


def _unconvertible(name: str, wanted: str, value: object) -> ValueError:
    found = _GO_TYPES.get(type(value), type(value).__name__)
    return ValueError(f"'{name}' expected type '{wanted}', got unconvertible type '{found}'")


def _duration(name: str, value: object) -> int:
    if isinstance(value, str):
        try:
            return durations.parse_duration(value)
        except ValueError as error:
            raise ValueError(f"error decoding '{name}': {error}") from error
    if isinstance(value, int | float):
        return _integer(name, value)
    raise _unconvertible(name, "time.Duration", value)


def _integer(name: str, value: object) -> int:
    if isinstance(value, str):
        try:
            # Base 0, as in Go: "0x800" is a number; "" counts as zero.
            number = int(value or "0", 0) if value.isascii() and value == value.strip() else None
        except ValueError:
            number = None
        if number is None:
            raise ValueError(
                f"cannot parse '{name}' as int: strconv.ParseInt: parsing {json.dumps(value)}: invalid syntax"
            )
    elif isinstance(value, float):
        if not math.isfinite(value):
            raise ValueError(f"cannot parse '{name}' as int: {value} is not a number")
        number = int(value)
    elif isinstance(value, int):
        number = int(value)
    else:
        raise _unconvertible(name, "int", value)
    if not durations.MIN_NS <= number <= durations.MAX_NS:
        raise ValueError(f"cannot parse '{name}' as int: value out of range")
    return number


def _number(name: str, value: object) -> float:
    if isinstance(value, str):
        try:
            number = float(value or "0")
        except ValueError:
            raise ValueError(
                f"cannot parse '{name}' as float: strconv.ParseFloat: parsing {json.dumps(value)}: invalid syntax"
            ) from None
    elif isinstance(value, int | float):
        try:
            number = float(value)
        except OverflowError:
            number = math.inf
    else:
        raise _unconvertible(name, "float32", value)
    if not math.isfinite(number):
        raise ValueError(f"cannot parse '{name}' as float: value out of range")
    return number


def _flag(name: str, value: object) -> bool:
    if isinstance(value, bool | int | float):
        return value != 0
    if not isinstance(value, str):
        raise _unconvertible(name, "bool", value)
    if value not in _TRUE | _FALSE:
        raise ValueError(
            f"cannot parse '{name}' as bool: strconv.ParseBool: parsing {json.dumps(value)}: invalid syntax"
        )
    return value in _TRUE


def _text(name: str, value: object) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "1" if value else "0"
    if isinstance(value, int | float):
        return format(value, "g") if isinstance(value, float) else str(value)
    raise _unconvertible(name, "string", value)


def _text_map(name: str, value: object) -> dict[str, str]:
    if not isinstance(value, Mapping):
        raise _unconvertible(name, "map[string]string", value)
    return {str(key): _text(f"{name}[{key}]", item) for key, item in value.items()}


def _text_list(name: str, value: object) -> list[str]:
    if not isinstance(value, list | tuple):
        return [_text(f"{name}[0]", value)]
    return [_text(f"{name}[{number}]", item) for number, item in enumerate(value)]
