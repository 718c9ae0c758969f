"""Writes TOML: values of strings, numbers, booleans and lists, tables, and lists of tables. (Python only reads it.)"""

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

_BARE_KEY: Final = re.compile(r"[A-Za-z0-9_-]+")


def dump_toml(values: Mapping[str, Any]) -> str:
    """Raises: TypeError for what is none of the above."""
    return "\n".join(_lines(values, ())) + "\n"


def _lines(values: Mapping[str, Any], path: tuple[str, ...]) -> Iterator[str]:
    # Plain values first: after a table's header they would belong to that table.
    for key, value in values.items():
        if not isinstance(value, Mapping) and not _is_tables(value):
            yield f"{_key(key)} = {_value(value)}"
    for key, value in values.items():
        name = ".".join(map(_key, (*path, key)))
        if isinstance(value, Mapping):
            yield f"\n[{name}]"
            yield from _lines(value, (*path, key))
        elif _is_tables(value):
            for table in value:
                yield f"\n[[{name}]]"
                yield from _lines(table, (*path, key))


def _is_tables(value: object) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(item, Mapping) for item in value)


def _key(key: str) -> str:
    return key if _BARE_KEY.fullmatch(key) else _string(key)


def _value(value: object) -> str:
    match value:
        case bool():
            return "true" if value else "false"
        case int() | float():
            return repr(value)
        case str():
            return _string(value)
        case list() | tuple():
            return f"[{', '.join(map(_value, value))}]"
        case _:
            raise TypeError(f"{type(value).__name__} has no form in TOML here")


def _string(text: str) -> str:
    # A TOML string is a JSON string but for surrogate pairs, hence ensure_ascii, and DEL (TOML 1.0, basic-unescaped).
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007F")
