"""HCL 1, as far as ACL rules need it: https://github.com/hashicorp/hcl/tree/hcl1.

A body is a list of items. An item is an argument, `policy = "read"`, or a block, `service "web" { ... }`, whose labels
may stand without quotes. Commas between items, and comments (`#`, `//`, `/* */`), are passed over. JSON says the same
with objects: a value that is an object is a block for each of its keys (https://developer.hashicorp.com/consul/docs/security/acl/acl-rules).

Kept libraries do not read this: python-hcl2 reads HCL 2, which knows no commas and no second argument on a line, and
both it and pyhcl join what is given twice, which here must be refused. So it is read by hand: one pass, bounded by the
length of the text and the depth of its blocks, and nothing is evaluated.
"""

import json
import re
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final, NoReturn

MAX_TEXT_BYTES: Final = 64 << 10
#: A rule is a block with arguments, some of which are lists; nothing needs more.
MAX_DEPTH: Final = 4
_MAX_SHOWN: Final = 60

_SPACE: Final = re.compile(r"(?:[ \t\r\n,]+|#[^\n]*|//[^\n]*|/\*.*?\*/)+", re.DOTALL)
_BARE: Final = re.compile(r"[^\W\d][\w.-]*")
_QUOTED: Final = re.compile(r'"((?:[^"\\\n]|\\.)*)"')
_NUMBER: Final = re.compile(r"-?[0-9]+(?:\.[0-9]+)?")
_ESCAPE: Final = re.compile(r"\\(u[0-9A-Fa-f]{4}|U[0-9A-Fa-f]{8}|.)", re.DOTALL)
_ESCAPED: Final = {"n": "\n", "t": "\t", "r": "\r", '"': '"', "\\": "\\"}


class SyntaxRefused(ValueError):
    """The text is not HCL, or more of it than is read. The message says where."""


#: Strings, numbers and truth values, and lists of them.
Value = str | int | float | bool | tuple[str | int | float | bool, ...]


@dataclass(frozen=True, slots=True)
class Argument:
    name: str
    value: Value
    where: str


@dataclass(frozen=True, slots=True)
class Block:
    """`name "label" { body }`."""

    name: str
    labels: tuple[str, ...]
    body: "Body"
    where: str


Body = tuple[Argument | Block, ...]


def parse(text: str) -> Body:
    """HCL, or JSON where the text begins with a brace. Raises: SyntaxRefused."""
    size = len(text.encode("utf-8", "surrogatepass"))
    if size > MAX_TEXT_BYTES:
        raise SyntaxRefused(f"{size} bytes: at most {MAX_TEXT_BYTES} are allowed")
    if text.lstrip()[:1] == "{":
        return _from_json(text)
    return _Reader(text).whole()


class _Reader:
    """Of one text; `_at` is how far it was read."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self._lines = [0, *(found.end() for found in re.finditer("\n", text))]  # where each begins

    def whole(self) -> Body:
        return tuple(self._items(0))

    def _items(self, depth: int) -> Iterator[Argument | Block]:
        """To the end of the text, or to the brace that ends the block."""
        while True:
            self._pass_over()
            if self._at == len(self._text):
                if depth:
                    raise self._refused("the text ends inside a block: expected '}'")
                return
            if self._text[self._at] == "}":
                if not depth:
                    raise self._refused("unexpected '}'")
                self._at += 1
                return
            yield self._item(depth)

    def _item(self, depth: int) -> Argument | Block:
        where = self._where()
        name = self._word("a name")
        labels: list[str] = []
        while True:
            self._pass_over(commas=False)
            sign = self._text[self._at : self._at + 1]
            if sign == "=":
                if labels:
                    raise self._refused("a block has no '='")
                self._at += 1
                self._pass_over(commas=False)
                return Argument(name, self._value(), where)
            if sign == "{":
                if depth + 1 > MAX_DEPTH:
                    raise self._refused(f"blocks are nested deeper than {MAX_DEPTH}")
                self._at += 1
                return Block(name, tuple(labels), tuple(self._items(depth + 1)), where)
            labels.append(self._word("'=', a label, or '{'"))

    def _word(self, expected: str) -> str:
        if self._text[self._at : self._at + 1] == '"':
            return self._string()
        if found := _BARE.match(self._text, self._at):
            self._at = found.end()
            return found[0]
        raise self._refused(f"expected {expected}")

    def _value(self) -> Value:
        sign = self._text[self._at : self._at + 1]
        if sign == "[":
            return self._list()
        return self._scalar()

    def _list(self) -> Value:
        self._at += 1
        values: list[str | int | float | bool] = []
        while True:
            self._pass_over()
            if self._text[self._at : self._at + 1] == "]":
                self._at += 1
                return tuple(values)
            values.append(self._scalar())

    def _scalar(self) -> str | int | float | bool:
        if self._text[self._at : self._at + 1] == '"':
            return self._string()
        if found := _NUMBER.match(self._text, self._at):
            self._at = found.end()
            return float(found[0]) if "." in found[0] else int(found[0][:20])
        found = _BARE.match(self._text, self._at)
        if found and found[0] in ("true", "false"):
            self._at = found.end()
            return found[0] == "true"
        raise self._refused("expected a value in quotes, a number, true, false, or a list of those")

    def _string(self) -> str:
        found = _QUOTED.match(self._text, self._at)
        if found is None:
            raise self._refused("a quoted text does not end on its line")
        try:
            text = _ESCAPE.sub(_unescaped, found[1])
        except KeyError as error:
            raise self._refused(f"unknown escape \\{error.args[0]}") from None
        self._at = found.end()
        return text

    def _pass_over(self, *, commas: bool = True) -> None:
        found = _SPACE.match(self._text, self._at)
        if found is None:
            return
        if not commas and "," in re.sub(r"#[^\n]*|//[^\n]*|/\*.*?\*/", "", found[0], flags=re.DOTALL):
            raise self._refused("unexpected ','")
        self._at = found.end()

    def _where(self) -> str:
        line = bisect_right(self._lines, self._at)
        return f"{line}:{self._at - self._lines[line - 1] + 1}"

    def _refused(self, what: str) -> SyntaxRefused:
        rest = self._text[self._at : self._at + _MAX_SHOWN].split("\n")[0]
        found = f", found {rest!a}" if rest else ""
        return SyntaxRefused(f"at {self._where()}: {what}{found}")


def _unescaped(found: "re.Match[str]") -> str:
    code = found[1]
    if code[0] in "uU" and len(code) > 1:
        number = int(code[1:], 16)
        if number > 0x10FFFF or 0xD800 <= number < 0xE000:
            raise KeyError(code)
        return chr(number)
    return _ESCAPED[code]


# -- JSON


def _from_json(text: str) -> Body:
    try:
        value = json.loads(text, object_pairs_hook=_Pairs, parse_constant=_no_constant)
    except RecursionError:
        raise SyntaxRefused("JSON is nested too deeply") from None
    except ValueError as error:
        raise SyntaxRefused(str(error)) from None
    return tuple(_items_of(value))


class _Pairs(list[tuple[str, Any]]):
    """A JSON object with what it says twice."""


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON")


def _items_of(top: Any) -> Iterator[Argument | Block]:
    """`{"acl": "read", "service": {"web": {"policy": "write"}}}`: below the resource come labels, then arguments."""
    if not isinstance(top, _Pairs):
        raise SyntaxRefused("expected a JSON object")
    for name, value in top:
        if isinstance(value, _Pairs | list) and _is_of_objects(value):
            for labelled in _objects(value):
                for label, bodies in labelled:
                    for body in _objects(bodies) if _is_of_objects(bodies) else ():
                        yield Block(name, (label,), tuple(_arguments(body, name)), name)
                    if not _is_of_objects(bodies):
                        raise SyntaxRefused(f"{name} {ascii(label)[:_MAX_SHOWN]} must be an object")
        else:
            yield Argument(name, _json_value(value, name), name)


def _is_of_objects(value: Any) -> bool:
    return isinstance(value, _Pairs) or (
        isinstance(value, list) and bool(value) and all(isinstance(item, _Pairs) for item in value)
    )


def _objects(value: Any) -> Sequence[_Pairs]:
    return (value,) if isinstance(value, _Pairs) else value


def _arguments(body: _Pairs, name: str) -> Iterator[Argument]:
    for key, value in body:
        yield Argument(key, _json_value(value, f"{name}.{key}"), name)


def _json_value(value: Any, where: str) -> Value:
    if isinstance(value, str | int | float | bool):
        return value
    if (
        isinstance(value, list)
        and not isinstance(value, _Pairs)
        and all(isinstance(item, str | int | float | bool) for item in value)
    ):
        return tuple(value)
    raise SyntaxRefused(f"{ascii(where)[:_MAX_SHOWN]} must be a text, a number, a truth value, or a list of those")
