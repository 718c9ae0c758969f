"""The circuit breaker on a clock that is moved by hand."""

import pytest

from providers.errors import ProviderUnavailable
from providers.vault.breaker import Breaker
from tests.kit.clock import FakeClock


def is_let_through(breaker: Breaker) -> bool:
    try:
        breaker.enter()
    except ProviderUnavailable:
        return False
    return True


def fail(breaker: Breaker, times: int) -> None:
    for _ in range(times):
        breaker.failed("Vault is away", was_try=breaker.enter())


def test_single_failures_do_not_open_it() -> None:
    breaker = Breaker(FakeClock())
    for _ in range(5):
        fail(breaker, 2)
        breaker.succeeded()
    assert is_let_through(breaker)
    assert not breaker.is_open


def test_failures_in_a_row_do_and_the_reason_is_given_at_once() -> None:
    breaker = Breaker(FakeClock())
    fail(breaker, 3)
    with pytest.raises(ProviderUnavailable, match=r"^Vault is away$") as refused:
        breaker.enter()
    assert refused.value.retry_after_seconds == breaker.pause_seconds == 1.0


def test_one_call_tries_after_the_pause_and_the_others_wait_for_it() -> None:
    clock = FakeClock()
    breaker = Breaker(clock)
    fail(breaker, 3)
    clock.advance(1.0)
    assert [is_let_through(breaker) for _ in range(3)] == [True, False, False]
    breaker.succeeded()
    assert [is_let_through(breaker) for _ in range(3)] == [True, True, True]


def test_many_calls_that_fail_at_once_do_not_lengthen_the_pause() -> None:
    clock = FakeClock()
    breaker = Breaker(clock)
    for is_try in [breaker.enter() for _ in range(8)]:
        breaker.failed("Vault is away", was_try=is_try)
    clock.advance(1.0)
    assert is_let_through(breaker)


def test_pause_doubles_up_to_a_limit() -> None:
    clock = FakeClock()
    breaker = Breaker(clock)
    fail(breaker, 3)
    pauses = []
    for _ in range(7):
        start = clock()
        while not is_let_through(breaker):
            clock.advance(0.5)
        pauses.append(clock() - start)
        breaker.failed("Vault is away", was_try=True)
    assert pauses == [1.0, 2.0, 4.0, 8.0, 15.0, 15.0, 15.0]


def test_try_that_never_ends_does_not_block_the_next_one() -> None:
    clock = FakeClock()
    breaker = Breaker(clock)
    fail(breaker, 3)
    clock.advance(1.0)
    assert is_let_through(breaker)
    clock.advance(1.0)
    assert is_let_through(breaker)
