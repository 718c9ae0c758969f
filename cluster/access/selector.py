"""Selectors of binding rules: which logins a rule is for, such as `serviceaccount.namespace == default and not
"canary" in list.groups`.

The language is go-bexpr's as far as identities need it (https://github.com/hashicorp/go-bexpr,
docs/consul-compat.md 12.8). Words that compare texts by their parts (`contains`, `in` and `matches` on a single value)
are refused where they would be taken for a check of identity: `"web" in value.service` holds of `webadmin`, too.
Everything is decided by what the login has proved, nothing is evaluated but the selector itself, and its cost is
bounded by its length.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol

from providers.texts import one_line

MAX_SELECTOR: Final = 4096
MAX_DEPTH: Final = 32
_MAX_PATTERN: Final = 256

_TOKEN: Final = re.compile(
    r"""[ \t\r\n]*(?:
      (?P<quoted>"(?:[^"\\\n]|\\["\\nt])*"|`[^`]*`)
    | (?P<sign>==|!=|\(|\))
    | (?P<word>[A-Za-z0-9_./@:-]+(?:\[(?:"[^"\\\n]*"|`[^`]*`)\])*)
    | (?P<end>\Z)
    )""",
    re.VERBOSE,
)
_INDEXED: Final = re.compile(r'\[(?:"([^"\\\n]*)"|`([^`]*)`)\]')
_ESCAPE: Final = re.compile(r"\\(.)")
_ESCAPED: Final = {"n": "\n", "t": "\t"}
_KEYWORDS: Final = frozenset({"and", "or", "not", "in", "is", "empty", "contains", "matches"})


class SelectorRefused(ValueError):
    """The text is no selector, or one that could not decide anything."""


@dataclass(frozen=True, slots=True)
class Fields:
    """What logins through a method can be asked about: these, and nothing else."""

    #: `serviceaccount.name`, `value.x`.
    names: frozenset[str] = frozenset()
    #: `list.x`.
    lists: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Proved:
    """What one login has proved: `serviceaccount.name` -> text, `value.x` -> text, `list.x` -> texts.

    A selector takes what is missing for empty; a bind name does not take it at all.
    """

    texts: Mapping[str, str] = field(default_factory=dict)
    lists: Mapping[str, Sequence[str]] = field(default_factory=dict)

    def shown(self, limit: int) -> str:
        """For the log, and no longer than that."""
        listed = ((name, ",".join(texts)) for name, texts in self.lists.items())
        return one_line(" ".join(f"{name}={text!r}" for name, text in (*self.texts.items(), *listed)), limit)


class Selector(Protocol):
    def holds(self, login: Proved) -> bool: ...


@dataclass(frozen=True, slots=True)
class _Everything:
    def holds(self, login: Proved) -> bool:
        return True


@dataclass(frozen=True, slots=True)
class _Not:
    inner: Selector

    def holds(self, login: Proved) -> bool:
        return not self.inner.holds(login)


@dataclass(frozen=True, slots=True)
class _All:
    parts: tuple[Selector, ...]

    def holds(self, login: Proved) -> bool:
        return all(part.holds(login) for part in self.parts)


@dataclass(frozen=True, slots=True)
class _Any:
    parts: tuple[Selector, ...]

    def holds(self, login: Proved) -> bool:
        return any(part.holds(login) for part in self.parts)


@dataclass(frozen=True, slots=True)
class _Equals:
    """A value that the login did not bring is "", as in Consul: `value.x != ""` must not hold of it."""

    name: str
    value: str

    def holds(self, login: Proved) -> bool:
        return login.texts.get(self.name, "") == self.value


@dataclass(frozen=True, slots=True)
class _Contains:
    name: str
    value: str

    def holds(self, login: Proved) -> bool:
        return self.value in login.lists.get(self.name, ())


@dataclass(frozen=True, slots=True)
class _IsEmpty:
    name: str

    def holds(self, login: Proved) -> bool:
        return not login.lists.get(self.name)


EVERY_LOGIN: Final[Selector] = _Everything()


def parse_selector(text: str, fields: Fields) -> Selector:
    """Empty text holds of every login. Raises: SelectorRefused."""
    if len(text) > MAX_SELECTOR:
        raise SelectorRefused(f"{len(text)} characters: at most {MAX_SELECTOR} are allowed")
    if not text.strip():
        return EVERY_LOGIN
    return _Parser(_words(text), fields).whole()


@dataclass(frozen=True, slots=True)
class _Word:
    text: str
    is_quoted: bool
    at: int

    @property
    def is_end(self) -> bool:
        return not self.text and not self.is_quoted

    def is_(self, *keywords: str) -> bool:
        return not self.is_quoted and self.text in keywords


def _words(text: str) -> list[_Word]:
    words: list[_Word] = []
    at = 0
    while True:
        found = _TOKEN.match(text, at)
        if found is None:
            raise SelectorRefused(f"at {at + 1}: {text[at : at + 20]!a} is not understood")
        at = found.end()
        if (quoted := found["quoted"]) is not None:
            words.append(_Word(_unquoted(quoted), is_quoted=True, at=found.start("quoted") + 1))
        elif found["end"] is not None:
            words.append(_Word("", is_quoted=False, at=len(text) + 1))
            return words
        else:
            kind = "sign" if found["sign"] is not None else "word"
            words.append(_Word(found[kind], is_quoted=False, at=found.start(kind) + 1))


def _unquoted(text: str) -> str:
    if text[0] == "`":
        return text[1:-1]
    return _ESCAPE.sub(lambda found: _ESCAPED.get(found[1], found[1]), text[1:-1])


class _Parser:
    """`not` binds tightest, then `and`, then `or`."""

    def __init__(self, words: list[_Word], fields: Fields) -> None:
        self._words = words
        self._fields = fields
        self._at = 0

    def whole(self) -> Selector:
        found = self._any(0)
        if not self._next.is_end:
            raise self._refused("expected and, or, or the end")
        return found

    @property
    def _next(self) -> _Word:
        return self._words[self._at]

    def _take(self) -> _Word:
        word = self._next
        self._at += not word.is_end
        return word

    def _takes(self, *keywords: str) -> bool:
        if self._next.is_(*keywords):
            self._at += 1
            return True
        return False

    def _any(self, depth: int) -> Selector:
        parts = [self._all(depth)]
        while self._takes("or"):
            parts.append(self._all(depth))
        return parts[0] if len(parts) == 1 else _Any(tuple(parts))

    def _all(self, depth: int) -> Selector:
        parts = [self._one(depth)]
        while self._takes("and"):
            parts.append(self._one(depth))
        return parts[0] if len(parts) == 1 else _All(tuple(parts))

    def _one(self, depth: int) -> Selector:
        if depth > MAX_DEPTH:
            raise self._refused(f"nested deeper than {MAX_DEPTH}")
        if self._takes("not"):
            return _Not(self._one(depth + 1))
        if self._takes("("):
            inner = self._any(depth + 1)
            if not self._takes(")"):
                raise self._refused("expected )")
            return inner
        return self._comparison()

    def _comparison(self) -> Selector:
        left = self._take()
        if not left.text or left.is_("==", "!=", ")", *_KEYWORDS):
            raise self._refused("expected a field", left)
        if self._takes("=="):
            return self._equals(left)
        if self._takes("!="):
            return _Not(self._equals(left))
        if self._takes("is"):
            is_not = self._takes("not")
            if not self._takes("empty"):
                raise self._refused("expected empty")
            return self._negated(_IsEmpty(self._list_field(left, "is empty")), is_not)
        is_not = self._takes("not")
        if self._takes("in"):
            return self._negated(_Contains(self._list_field(self._take(), "in"), left.text), is_not)
        if self._takes("contains"):
            return self._negated(_Contains(self._list_field(left, "contains"), self._value()), is_not)
        if self._takes("matches"):
            raise self._refused("matches is not taken: part of a text is no identity", left)
        raise self._refused("expected ==, !=, in, not in, contains, not contains, is empty, or is not empty")

    @staticmethod
    def _negated(found: Selector, is_not: bool) -> Selector:
        return _Not(found) if is_not else found

    def _equals(self, left: _Word) -> Selector:
        name, is_list = self._field(left)
        if is_list:
            raise self._refused(f"{name} is a list: use contains", left)
        return _Equals(name, self._value())

    def _list_field(self, word: _Word, operator: str) -> str:
        name, is_list = self._field(word)
        if not is_list:
            raise self._refused(
                f"{name} is a single value: {operator} is for lists, a part of a text is no identity", word
            )
        return name

    def _value(self) -> str:
        word = self._take()
        if not word.is_quoted and (not word.text or word.is_("==", "!=", "(", ")")):
            raise self._refused("expected a value", word)
        return word.text

    def _field(self, word: _Word) -> tuple[str, bool]:
        """Its name, with dots only, and whether it is a list."""
        if word.is_quoted or not word.text:
            raise self._refused("expected a field", word)
        name = _INDEXED.sub(lambda found: "." + (found[1] if found[1] is not None else found[2]), word.text)
        if name in self._fields.names:
            return name, False
        if name in self._fields.lists:
            return name, True
        names = ", ".join([*sorted(self._fields.names), *sorted(self._fields.lists)])
        known = f"known are {names}" if names else "the method has none"
        raise self._refused(f"{ascii(name)[:60]} is no field here: {known}", word)

    def _refused(self, what: str, word: _Word | None = None) -> SelectorRefused:
        return SelectorRefused(f"at {(word or self._next).at}: {what}")
