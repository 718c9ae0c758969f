"""Go's duration syntax. Values and texts are those of Go's `time.ParseDuration` and `Duration.String`."""

import pytest

from providers.config.durations import MAX_NS, MIN_NS, format_duration, parse_duration, to_seconds

HOUR = 3_600_000_000_000


@pytest.mark.parametrize(
    ("text", "ns"),
    [
        ("0", 0),
        ("-0", 0),
        ("0s", 0),
        ("72h", 72 * HOUR),
        ("8760h0m0s", 8760 * HOUR),
        ("1h30m", HOUR * 3 // 2),
        ("1.5h", HOUR * 3 // 2),
        (".5s", 500_000_000),
        ("5.s", 5_000_000_000),
        ("+5s", 5_000_000_000),
        ("-5s", -5_000_000_000),
        ("500ms", 500_000_000),
        ("12us", 12_000),
        ("12µs", 12_000),
        ("12μs", 12_000),
        ("7ns", 7),
        ("1h1h", 2 * HOUR),
        ("0.000000001s", 1),
        ("0.3333333333333333333h", HOUR // 3),
        ("0.100000000000000000000h", HOUR // 10),
        ("0.9223372036854775807h", 3_320_413_933_267),
        ("0.9223372036854775808h", 3_320_413_933_267),
        ("000000000000000000000001s", 1_000_000_000),
        ("9223372036854775807ns", MAX_NS),
        ("-9223372036854775808ns", MIN_NS),
    ],
)
def test_valid_text_gives_nanoseconds(text: str, ns: int) -> None:
    assert parse_duration(text) == ns


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("", 'time: invalid duration ""'),
        ("-", 'time: invalid duration "-"'),
        ("x", 'time: invalid duration "x"'),
        (".", 'time: invalid duration "."'),
        (".s", 'time: invalid duration ".s"'),
        ("s", 'time: invalid duration "s"'),
        ("--5s", 'time: invalid duration "--5s"'),
        (" 5s", 'time: invalid duration " 5s"'),
        ("٣s", 'time: invalid duration "٣s"'),
        ('5"', 'time: unknown unit "\\"" in duration "5\\""'),
        ("3", 'time: missing unit in duration "3"'),
        ("1h30", 'time: missing unit in duration "1h30"'),
        ("30d", 'time: unknown unit "d" in duration "30d"'),
        ("5s ", 'time: unknown unit "s " in duration "5s "'),
        ("1H", 'time: unknown unit "H" in duration "1H"'),
        ("9223372036854775808ns", 'time: invalid duration "9223372036854775808ns"'),
        ("9" * 5000 + "h", f'time: invalid duration "{"9" * 5000}h"'),
    ],
)
def test_invalid_text_is_refused_in_gos_words(text: str, error: str) -> None:
    with pytest.raises(ValueError, match=r"^time: ") as caught:
        parse_duration(text)
    assert str(caught.value) == error


@pytest.mark.parametrize(
    ("ns", "text"),
    [
        (0, "0s"),
        (1, "1ns"),
        (1_100, "1.1µs"),
        (2_200_000, "2.2ms"),
        (999_999_999, "999.999999ms"),
        (1_500_000_000, "1.5s"),
        (60_000_000_000, "1m0s"),
        (HOUR, "1h0m0s"),
        (216 * HOUR, "216h0m0s"),
        (8760 * HOUR, "8760h0m0s"),
        (HOUR + 1, "1h0m0.000000001s"),
        (-HOUR - 90_500_000_000, "-1h1m30.5s"),
        (MAX_NS, "2562047h47m16.854775807s"),
        (MIN_NS, "-2562047h47m16.854775808s"),
    ],
)
def test_printing_is_canonical(ns: int, text: str) -> None:
    assert format_duration(ns) == text


def test_seconds_are_rounded_up() -> None:
    assert [to_seconds(ns) for ns in (0, 1, 999_999_999, 1_000_000_000, 1_000_000_001)] == [0, 1, 1, 1, 2]
