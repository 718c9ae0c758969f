"""A limit for each of many keys."""

import tracemalloc

import pytest

from cluster.base.errors import RateLimitReached
from cluster.base.rates import MAX_KEYS, KeyedLimit
from tests.kit.clock import FakeClock


def test_a_burst_is_ten_seconds_worth_and_then_it_is_one_by_one() -> None:
    clock = FakeClock()
    limit = KeyedLimit(2, "certificates for one token", clock.monotonic)
    for _ in range(20):
        limit.take("a")
    with pytest.raises(RateLimitReached) as refused:
        limit.take("a")
    assert str(refused.value) == (
        "Rate limit reached, try again later: at most 2 certificates for one token in a second"
    )
    assert refused.value.retry_after_seconds == pytest.approx(0.5)
    limit.take("b")
    clock.advance(0.5)
    limit.take("a")
    with pytest.raises(RateLimitReached):
        limit.take("a")


def test_an_idle_time_saves_up_no_more_than_a_burst() -> None:
    clock = FakeClock()
    limit = KeyedLimit(1, "x", clock.monotonic)
    limit.take("a")
    clock.advance(86_400)
    for _ in range(10):
        limit.take("a")
    with pytest.raises(RateLimitReached):
        limit.take("a")


def test_below_a_tenth_in_a_second_there_is_one_at_least() -> None:
    limit = KeyedLimit(0.01, "x", FakeClock().monotonic)
    limit.take("a")
    with pytest.raises(RateLimitReached) as refused:
        limit.take("a")
    assert refused.value.retry_after_seconds == pytest.approx(100)


def test_what_is_only_asked_for_takes_nothing() -> None:
    clock = FakeClock()
    limit = KeyedLimit(1, "x", clock.monotonic)
    for _ in range(3):
        limit.require("a")
    assert len(limit) == 0
    limit.take("a")
    for _ in range(100):
        limit.require("a")
    for _ in range(9):
        limit.take("a")
    with pytest.raises(RateLimitReached):
        limit.require("a")
    limit.require("b")
    clock.advance(1)
    for _ in range(3):
        limit.require("a")
    limit.take("a")


def test_zero_is_no_limit_and_remembers_nobody() -> None:
    limit = KeyedLimit(0, "x", FakeClock().monotonic)
    for number in range(1000):
        limit.take("a")
        limit.take(number)
        limit.give_back("a")
    assert limit.is_off
    assert len(limit) == 0


def test_who_was_not_seen_for_longest_is_forgotten_first() -> None:
    limit = KeyedLimit(0.1, "x", FakeClock().monotonic, keys=2)
    for key in ("a", "b"):
        limit.take(key)
    with pytest.raises(RateLimitReached):
        limit.take("a")
    limit.take("c")  # "a" has taken none since "b" did
    for key in ("b", "c"):
        with pytest.raises(RateLimitReached):
            limit.take(key)
    limit.take("a")
    limit.give_back("forgotten")
    assert len(limit) == 2


def test_refusals_are_counted() -> None:
    refused: list[int] = []
    limit = KeyedLimit(0.1, "x", FakeClock().monotonic, lambda: refused.append(1))
    limit.take("a")
    for _ in range(3):
        with pytest.raises(RateLimitReached):
            limit.take("a")
    assert len(refused) == 3


def test_full_table_has_a_few_megabytes() -> None:
    limit = KeyedLimit(50, "x", FakeClock().monotonic)
    tracemalloc.start()
    for number in range(2 * MAX_KEYS):
        limit.take(f"2001:db8:{number:x}::/64")
    size, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(limit) == MAX_KEYS
    assert size < 300 * MAX_KEYS
