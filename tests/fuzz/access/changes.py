"""Changes of text that break readers of languages: words in the wrong place, brackets that do not fit, nesting, the
same thing often; and of JSON: another value somewhere in it.
"""

import json
import random
import re
from collections.abc import Callable, Sequence
from typing import Any, Final

from tests.fuzz.mutate import mutated

Mutate = Callable[[Sequence[bytes], Sequence[bytes], random.Random], bytes]

_MAX_BYTES: Final = 1 << 16
_WORD: Final = re.compile(rb'"(?:[^"\\]|\\.)*"|[\w.*-]+|\s+|.', re.DOTALL)
#: What has broken readers of text before: what ends a line or a text, is more than one character in another form, or
#: is none.
_ODD: Final = (
    *(b"", b" ", b"\n", b"\r", b"\t", b"\0", b"\\", b'"', b"'", b"`", b"$", b"${", b"$${", b"}", b"{", b"(", b")"),
    *(b"[", b"]", b",", b"=", b"==", b"!=", b"#", b"//", b"/*", b"*/", b"*", b"+", b"/", b".", b"..", b"-", b"%", b"<"),
    *(b"\\u0000", b"\\ud800", b"\\U00110000", b"\xed\xa0\x80", b"\xff", b"\xc3\xa9", b"\xe2\x80\xa8", b"\xef\xbb\xbf"),
    *(b"0", b"-1", b"1e999", b"9" * 40, b"9" * 5000, b"true", b"null", b"NaN", b"x" * 300, b"a" * 5000, b"\xd9\xa3"),
)
#: Values that JSON may have where another one is expected.
WILD: Final[tuple[Any, ...]] = (
    *(None, True, False, 0, -1, 1, 0.5, 1e308, 2**53, 2**63, -(2**63), 2**64, 10**30, 10**400),
    *("", " ", "x", "0", "-1", "1h", "9" * 400, "\0", "\ud800", "\u202e", "a" * 300, "a" * 70_000, "<hidden>", "*"),
    *("00000000-0000-0000-0000-000000000001", "../../etc", "https://127.0.0.1/", "2027-01-31T12:00:00Z", "${value.x}"),
    *([], [[]], {}, {"": None}, [None] * 300, ["a"] * 300, {"a": {"b": {"c": {"d": {"e": {"f": {"g": {"h": {}}}}}}}}}),
)
_NESTED: Final = 0.5
_JSON_AS_JSON: Final = 0.75


def of_text(words: Sequence[bytes]) -> Mutate:
    """`words`: of the language."""

    def mutate(seeds: Sequence[bytes], kept: Sequence[bytes], rng: random.Random) -> bytes:
        if rng.random() < 0.1:
            return mutated(seeds, kept, rng)
        parts = _WORD.findall(rng.choice([*seeds, *kept]))
        if rng.random() < 0.2:
            other = _WORD.findall(rng.choice([*seeds, *kept]))
            parts = parts[: rng.randrange(len(parts) + 1)] + other[rng.randrange(len(other) + 1) :]
        for _ in range(rng.choice((1, 1, 2, 3, 8))):
            _change(parts, words, rng)
        return b"".join(parts)[:_MAX_BYTES]

    return mutate


def _change(parts: list[bytes], words: Sequence[bytes], rng: random.Random) -> None:
    at = rng.randrange(len(parts) + 1)
    word = rng.choice(words if rng.random() < 0.7 else _ODD)
    match rng.randrange(6):
        case 0:
            del parts[at : at + rng.choice((1, 1, 2, 5))]
        case 1:
            parts[at:at] = [word]
        case 2:
            parts[at : at + 1] = [word]
        case 3:
            piece = parts[at : at + rng.randrange(1, 12)]
            parts[at:at] = piece * rng.choice((1, 2, 40, 4000))
        case 4 if len(parts) > 1:
            other = rng.randrange(len(parts))
            at = min(at, len(parts) - 1)
            parts[at], parts[other] = parts[other], parts[at]
        case _:
            parts[at:at] = [word] * rng.choice((2, 50, 30_000))
    del parts[_MAX_BYTES:]


def of_json(words: Sequence[bytes] = ()) -> Mutate:
    """Mostly of its values, else of its text. The first byte is kept: it says what the rest is for."""
    of_bytes = of_text(words or _ODD)

    def mutate(seeds: Sequence[bytes], kept: Sequence[bytes], rng: random.Random) -> bytes:
        data = rng.choice([*seeds, *kept])
        head, text = data[:1], data[1:]
        if rng.random() > _JSON_AS_JSON:
            others = [other[1:] for other in [*seeds, *kept] if len(other) > 1]
            return head + of_bytes([text or b"{}"], others, rng)
        try:
            value = json.loads(text)
        except (ValueError, RecursionError):
            return head + of_bytes([text or b"{}"], (), rng)
        for _ in range(rng.choice((1, 1, 2, 3))):
            value = changed(value, rng)
        return head + json.dumps(value).encode()

    return mutate


def changed(value: Any, rng: random.Random) -> Any:
    """One place somewhere in it is something else, or missing, or there twice, or under another name."""
    if isinstance(value, dict) and value and rng.random() < 0.9:
        name = rng.choice(list(value))
        rest = {key: inner for key, inner in value.items() if key != name}
        match rng.randrange(12):
            case 0:
                return rest
            case 1:
                return {**rest, rng.choice((name.upper(), name.lower(), name[:-1], f"{name}_", "x")): value[name]}
            case 2:
                return {**value, name.swapcase(): value[name]}
            case _:
                return {**value, name: changed(value[name], rng)}
    if isinstance(value, list) and value and rng.random() < 0.8:
        at = rng.randrange(len(value))
        match rng.randrange(8):
            case 0:
                return [*value[:at], *value[at + 1 :]]
            case 1:
                return [*value[:at], *[value[at]] * rng.choice((2, 300)), *value[at + 1 :]]
            case _:
                return [*value[:at], changed(value[at], rng), *value[at + 1 :]]
    if isinstance(value, str) and value and rng.random() < _NESTED:
        at = rng.randrange(len(value) + 1)
        odd = rng.choice(_ODD).decode("utf-8", "surrogateescape")
        return value[:at] + odd + value[at + rng.choice((0, 0, 1, 5)) :]
    return rng.choice(WILD)
