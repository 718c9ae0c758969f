"""Texts of others on their way into logs, answers and commands."""

import pytest

from providers.texts import MAX_DETAIL, MAX_TEXT, bounded, one_line


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain", "plain"),
        (" two\n lines\t ", "two lines"),
        ("\x1b[31mred\x00", "\\x1b[31mred\\x00"),
        ("ü \N{BLACK STAR} \u202e", "ü \N{BLACK STAR} \\u202e"),
        ("\ud800", "\\ud800"),
        ("", ""),
    ],
)
def test_text_is_on_one_line_and_obeys_no_terminal(text: str, shown: str) -> None:
    assert one_line(text) == shown


@pytest.mark.parametrize("size", [MAX_DETAIL + 1, 2 * MAX_DETAIL + 1, 700_000])
@pytest.mark.parametrize("char", ["x", "\x1b", " ", "\n"])
def test_long_text_is_cut_and_says_so(size: int, char: str) -> None:
    shown = one_line("a" + char * size)
    assert len(shown) <= MAX_DETAIL + 40
    if not char.isspace() or size > 2 * MAX_DETAIL:
        assert shown.endswith(f"({size + 1} characters)")


def test_list_of_mistakes_keeps_its_lines() -> None:
    assert bounded("2 error(s):\n\n* one\n* \x07two") == "2 error(s):\n\n* one\n* \\x07two"
    assert len(bounded("x" * 700_000)) <= MAX_TEXT + 40
