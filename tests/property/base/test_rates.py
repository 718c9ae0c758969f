"""What holds of a limit by key, whoever asks when: its memory, its rate, and what it says of when to come again."""

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from cluster.base.errors import RateLimitReached
from cluster.base.rates import KeyedLimit
from tests.kit.clock import FakeClock

#: Small ones, too, where a bucket holds one only.
RATES = st.one_of(st.sampled_from([0.02, 0.1]), st.sampled_from([0.3, 1.0, 50.0]), st.floats(0.01, 1000))
PAUSES = st.one_of(st.just(0.0), st.floats(0, 0.01), st.floats(0, 60))
#: Who asks, and how long after the one before.
ASKED = st.lists(st.tuples(st.integers(0, 9), PAUSES), max_size=300)


def takes(limit: KeyedLimit, key: int) -> float:
    """0.0: it had one; else how long it has to wait."""
    try:
        limit.take(key)
    except RateLimitReached as error:
        return error.retry_after_seconds
    return 0.0


@given(per_second=RATES, asked=ASKED)
def test_no_key_has_more_than_its_rate_in_any_window(per_second: float, asked: list[tuple[int, float]]) -> None:
    clock = FakeClock()
    limit = KeyedLimit(per_second, "x", clock.monotonic)
    taken: dict[int, list[float]] = {}
    for key, pause in asked:
        clock.advance(pause)
        if not takes(limit, key):
            taken.setdefault(key, []).append(clock.monotonic())
    for times in taken.values():
        for first, start in enumerate(times):
            for last in range(first, len(times)):
                most = limit.burst + per_second * (times[last] - start + 1e-5)
                assert last - first + 1 <= most


@given(per_second=RATES, asked=ASKED)
def test_who_comes_when_it_was_told_to_has_one(per_second: float, asked: list[tuple[int, float]]) -> None:
    clock = FakeClock()
    limit = KeyedLimit(per_second, "x", clock.monotonic)
    for key, pause in asked:
        clock.advance(pause)
        if wait := takes(limit, key):
            assert 0 < wait <= 1 / per_second + 1e-5
            clock.advance(wait / 2)
            assert takes(limit, key) or wait / 2 < 1e-5  # and not before
            clock.advance(wait / 2)
            assert not takes(limit, key)


@given(per_second=RATES, keys=st.integers(1, 5), asked=st.lists(st.tuples(st.integers(0, 50), PAUSES), max_size=300))
def test_memory_is_bounded_and_what_is_forgotten_for_it_too(
    per_second: float, keys: int, asked: list[tuple[int, float]]
) -> None:
    clock = FakeClock()
    limit = KeyedLimit(per_second, "x", clock.monotonic, keys=keys)
    taken: Counter[int] = Counter()
    start = clock.monotonic()
    for key, pause in asked:
        clock.advance(pause)
        taken[key] += not takes(limit, key)
        assert len(limit) <= keys
    for count in taken.values():
        bursts = 1 + taken.total() // keys
        assert count <= bursts * limit.burst + per_second * (clock.monotonic() - start + 1e-5)


@given(asked=ASKED)
def test_what_is_given_back_was_never_taken(asked: list[tuple[int, float]]) -> None:
    clock = FakeClock()
    one, other = KeyedLimit(3, "x", clock.monotonic), KeyedLimit(3, "x", clock.monotonic)
    for key, pause in asked:
        clock.advance(pause)
        if not (wait := takes(one, key)):
            one.give_back(key)
            wait = takes(one, key)
        assert abs(wait - takes(other, key)) < 1e-5
