"""Whoever waits gets what was waited for, or is told what did not come."""

import re
from collections.abc import Callable

import pytest

from tests.kit.wait import eventually, until, wait_until


def from_the_third_on(answer: str, error: Exception | None = None) -> Callable[[], str]:
    looks = [0]

    def look() -> str:
        looks[0] += 1
        if looks[0] < 3:
            if error:
                raise error
            return ""
        return answer

    return look


def test_first_answer_that_is_something_is_given_back() -> None:
    assert wait_until("a word", from_the_third_on("word"), pause=0.0) == "word"
    assert wait_until("a word", from_the_third_on("word", KeyError("k")), pause=0.0, trouble=(KeyError,)) == "word"


async def test_so_it_is_for_looks_that_take_a_while() -> None:
    look = from_the_third_on("word", TimeoutError())

    async def slow_look() -> str | None:
        return look() or None

    assert await eventually("a word", slow_look, pause=0.0) == "word"
    await until(from_the_third_on("word"))


def test_what_does_not_come_is_said_with_the_last_trouble() -> None:
    def look() -> bool:
        raise KeyError("k")

    with pytest.raises(AssertionError, match=re.escape("not within 0.01 s: a word; the last error: KeyError('k')")):
        wait_until("a word", look, 0.01, 0.0, trouble=(KeyError,))
    with pytest.raises(KeyError):
        wait_until("a word", look, 0.01, 0.0)


async def test_so_it_is_when_the_look_is_only_false() -> None:
    async def look() -> bool | None:
        return False

    with pytest.raises(AssertionError, match=re.escape("not within 0.01 s: a word") + "$"):
        await eventually("a word", look, 0.01, 0.0)
    with pytest.raises(AssertionError, match=re.escape("not within 0.01 s: a word")):
        await until(list, "a word", 0.01)


async def test_condition_without_a_name_is_shown() -> None:
    numbers: list[int] = []
    with pytest.raises(AssertionError, match=re.escape("numbers.count(7) == 1")):
        await until(
            lambda: numbers.count(7) == 1,
            seconds=0.01,
        )
