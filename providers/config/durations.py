"""Durations in Go's text form, which operators write and Consul's clients send; values are whole nanoseconds.

Owns the syntax and the canonical printing of Go's `time.Duration`, nothing else: whether a configuration value may
also be a number is for providers/config/decode.py.
"""

import json
import re

NANOSECOND = 1
MICROSECOND = 1_000 * NANOSECOND
MILLISECOND = 1_000 * MICROSECOND
SECOND = 1_000 * MILLISECOND
MINUTE = 60 * SECOND
HOUR = 60 * MINUTE

# Go keeps a duration in an int64: about 292 years either way.
MAX_NS = 2**63 - 1
MIN_NS = -(2**63)

_UNITS = {
    "ns": NANOSECOND,
    "us": MICROSECOND,
    "µs": MICROSECOND,  # U+00B5, micro sign
    "μs": MICROSECOND,  # U+03BC, Greek mu; Go takes both
    "ms": MILLISECOND,
    "s": SECOND,
    "m": MINUTE,
    "h": HOUR,
}
# What fits an int64; it also keeps `int` away from texts of unbounded length.
_MAX_DIGITS = 19

# A unit is, as in Go, everything up to the next digit or dot. ASCII digits only: `\d` would take other scripts too.
_PART = re.compile(r"([0-9]*)(?:(\.)([0-9]*))?([^0-9.]*)")


def parse_duration(text: str) -> int:
    """Nanoseconds of a text such as `1h30m`, `-1.5s` or `0`.

    Raises: ValueError with the text that Go's `time.ParseDuration` gives.
    """
    invalid = f"time: invalid duration {json.dumps(text, ensure_ascii=False)}"
    negative = text.startswith("-")
    rest = text[1:] if text[:1] in ("+", "-") else text
    if rest == "0":
        return 0
    if not rest:
        raise ValueError(invalid)
    total = 0
    while rest:
        part = _PART.match(rest)
        assert part is not None  # every group may be empty, so it matches anything
        whole, _, fraction, unit = part.groups()
        if not whole and not fraction:
            raise ValueError(invalid)
        rest = rest[part.end() :]
        if not unit:
            raise ValueError(invalid.replace("invalid duration", "missing unit in duration", 1))
        if unit not in _UNITS:
            quoted = json.dumps(unit, ensure_ascii=False)
            raise ValueError(invalid.replace("invalid duration", f"unknown unit {quoted} in duration", 1))
        scale = _UNITS[unit]
        if len(whole.lstrip("0")) > _MAX_DIGITS:
            raise ValueError(invalid)
        total += int(whole.lstrip("0") or "0") * scale
        total += _fraction_ns(fraction or "", scale)
        if total > MAX_NS + (1 if negative else 0):
            raise ValueError(invalid)
    return -total if negative else total


def format_duration(ns: int) -> str:
    """The text Go's `Duration.String` prints: `8760h0m0s`, `1.5s`, `250ms`, `0s`."""
    if ns == 0:
        return "0s"
    sign, ns = ("-", -ns) if ns < 0 else ("", ns)
    if ns < SECOND:
        unit, scale = next((u, s) for u, s in (("ms", MILLISECOND), ("µs", MICROSECOND), ("ns", 1)) if ns >= s)
        return f"{sign}{_decimal(ns, scale)}{unit}"
    hours, rest = divmod(ns, HOUR)
    minutes, rest = divmod(rest, MINUTE)
    text = f"{_decimal(rest, SECOND)}s"
    if hours or minutes:
        text = f"{minutes}m{text}"
    if hours:
        text = f"{hours}h{text}"
    return sign + text


def to_seconds(ns: int) -> int:
    """Whole seconds, rounded up: a certificate knows no fractions, and must not live shorter than was asked for."""
    return -(-ns // SECOND)


def _fraction_ns(digits: str, scale: int) -> int:
    """Go multiplies the fraction as a floating-point number, after as many digits as an int64 holds; and so do we,
    because `0.3333333333333333333h` shall be twenty minutes here too."""
    if int(digits[:_MAX_DIGITS] or "0") > MAX_NS:
        digits = digits[: _MAX_DIGITS - 1]
    digits = digits[:_MAX_DIGITS]
    return int(float(int(digits or "0")) * (scale / 10 ** len(digits)))


def _decimal(value: int, scale: int) -> str:
    whole, rest = divmod(value, scale)
    if not rest:
        return str(whole)
    digits = f"{rest:0{len(str(scale)) - 1}d}".rstrip("0")
    return f"{whole}.{digits}"
