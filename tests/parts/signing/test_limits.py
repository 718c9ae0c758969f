"""CSRMaxPerSecond and CSRMaxConcurrent: how many are signed, how long the others wait, and who comes first."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from cluster.base.clock import SystemClock
from cluster.base.errors import RateLimitReached
from cluster.signing.limits import SigningLimiter
from cluster.signing.line import Rank
from tests.kit.clock import FakeClock
from tests.kit.wait import until


async def first() -> Rank:
    return Rank.FIRST


def always(rank: Rank) -> Callable[[], Awaitable[Rank]]:
    async def rank_of() -> Rank:
        return rank

    return rank_of


async def turn(limiter: SigningLimiter, rank: Rank = Rank.FIRST) -> None:
    async with limiter.turn(always(rank)):
        pass


async def test_rate_limit_lets_one_through_and_the_rest_wait_their_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cluster.signing.limits._LIMIT_WAIT_SECONDS", 0.05)
    limiter = SigningLimiter(40, 0, FakeClock())
    await turn(limiter)
    await turn(limiter)  # in 25 ms
    await turn(limiter)  # in 50 ms
    with pytest.raises(RateLimitReached, match=r"^Rate limit reached, try again later$") as refused:
        await turn(limiter)
    assert refused.value.retry_after_seconds == pytest.approx(0.075)


async def test_refused_requests_take_no_token_and_time_brings_new_ones() -> None:
    clock = FakeClock()
    limiter = SigningLimiter(1, 0, clock)
    await turn(limiter)
    for _ in range(3):
        with pytest.raises(RateLimitReached):
            await turn(limiter)
    clock.advance(1)
    await turn(limiter)
    clock.advance(100)  # burst 1: an idle time saves nothing up
    await turn(limiter)
    with pytest.raises(RateLimitReached):
        await turn(limiter)


async def test_nobody_is_asked_for_a_rank_while_nobody_has_to_wait() -> None:
    async def never() -> Rank:
        raise AssertionError("the record was read for nothing")

    clock = FakeClock()
    limiter = SigningLimiter(50, 0, clock)
    for _ in range(3):
        async with limiter.turn(never):
            clock.advance(0.02)
    async with SigningLimiter(0, 1, clock).turn(never):
        pass
    async with SigningLimiter(0, 0, clock).turn(never):
        pass


async def test_renewals_overtake_whoever_waits_and_nobody_is_lost() -> None:
    limiter = SigningLimiter(100, 0, SystemClock())
    await turn(limiter)
    order: list[Rank] = []

    async def ask(rank: Rank) -> None:
        await turn(limiter, rank)
        order.append(rank)

    asked = [Rank.REISSUE] * 5 + [Rank.FIRST] * 5 + [Rank.RENEWAL] * 5
    await asyncio.gather(*map(ask, asked))
    assert sorted(order) == sorted(asked)
    assert order[:2] == [Rank.RENEWAL] * 2
    assert order[:8].count(Rank.RENEWAL) == 5
    assert order[-3:] == [Rank.REISSUE] * 3


async def test_flood_of_second_certificates_refuses_itself_and_no_renewal() -> None:
    limiter = SigningLimiter(40, 0, SystemClock())
    await turn(limiter)
    flood = [asyncio.ensure_future(turn(limiter, Rank.REISSUE)) for _ in range(500)]
    await until(lambda: sum(one.done() for one in flood) >= 400)
    renewals = [asyncio.ensure_future(turn(limiter, Rank.RENEWAL)) for _ in range(10)]
    newcomers = [asyncio.ensure_future(turn(limiter, Rank.FIRST)) for _ in range(2)]
    await asyncio.gather(*renewals, *newcomers)
    outcomes = await asyncio.gather(*flood, return_exceptions=True)
    refused = [outcome for outcome in outcomes if outcome is not None]
    assert all(isinstance(outcome, RateLimitReached) for outcome in refused)
    assert 2 <= len(outcomes) - len(refused) <= 22
    assert not limiter._line


async def test_turns_that_came_while_the_loop_was_held_up_are_not_lost() -> None:
    clock = FakeClock()
    limiter = SigningLimiter(20, 0, clock)
    await turn(limiter)
    waiting = [asyncio.ensure_future(turn(limiter)) for _ in range(9)]
    await until(lambda: len(limiter._line) > 7)
    clock.advance(0.5)
    async with asyncio.timeout(0.3):  # and not nine twentieths more
        await asyncio.gather(*waiting)


async def test_newcomers_overtake_nobody() -> None:
    clock = FakeClock()
    limiter = SigningLimiter(3, 0, clock)
    await turn(limiter)
    order: list[str] = []

    async def ask(name: str) -> None:
        await turn(limiter)
        order.append(name)

    waiting = asyncio.ensure_future(ask("waits"))
    await until(lambda: len(limiter._line) == 1)
    clock.advance(0.4)  # its turn has come, and nobody has told it
    await asyncio.gather(ask("newcomer"), waiting)
    assert order == ["waits", "newcomer"]


async def test_who_goes_away_leaves_the_line_in_order() -> None:
    limiter = SigningLimiter(4, 0, FakeClock())
    await turn(limiter)
    gone = asyncio.ensure_future(turn(limiter))
    there = asyncio.ensure_future(turn(limiter))
    await until(lambda: len(limiter._line) == 2)
    gone.cancel()
    await there
    assert gone.cancelled()
    assert not limiter._line
    assert limiter._timer is None


async def test_concurrency_limit_counts_only_without_a_rate(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cluster.signing.limits._LIMIT_WAIT_SECONDS", 0.01)
    limiter = SigningLimiter(0, 2, FakeClock())
    async with limiter.turn(first), limiter.turn(first):
        with pytest.raises(RateLimitReached):
            await turn(limiter)
    await turn(limiter)
    assert SigningLimiter(1000, 2, FakeClock()).concurrent == 0


async def test_slot_is_handed_to_a_renewal_first() -> None:
    limiter = SigningLimiter(0, 1, FakeClock())
    order: list[Rank] = []

    async def ask(rank: Rank) -> None:
        async with limiter.turn(always(rank)):
            order.append(rank)
            await asyncio.sleep(0)

    async with limiter.turn(first):
        tasks = [asyncio.ensure_future(ask(rank)) for rank in (Rank.REISSUE, Rank.FIRST, Rank.RENEWAL)]
        await until(lambda: len(limiter._line) == 3)
    await asyncio.gather(*tasks)
    assert order == [Rank.RENEWAL, Rank.FIRST, Rank.REISSUE]
    assert limiter._under_way == 0


async def test_slot_is_free_again_behind_an_error_and_whoever_gave_up() -> None:
    limiter = SigningLimiter(0, 1, FakeClock())
    with pytest.raises(ZeroDivisionError):
        async with limiter.turn(first):
            raise ZeroDivisionError
    async with limiter.turn(first):
        gone = asyncio.ensure_future(turn(limiter))
        last = asyncio.ensure_future(turn(limiter))
        await until(lambda: len(limiter._line) == 2)
        gone.cancel()
    await last
    assert limiter._under_way == 0


async def test_slot_that_comes_in_the_moment_of_giving_up_is_not_lost() -> None:
    limiter = SigningLimiter(0, 1, FakeClock())
    async with limiter.turn(first):
        gone = asyncio.ensure_future(turn(limiter))
        await until(lambda: len(limiter._line) == 1)
    gone.cancel()  # it has the slot, and does not know yet
    with pytest.raises(asyncio.CancelledError):
        await gone
    assert limiter._under_way == 0
    await turn(limiter)


def test_zero_and_zero_is_no_limit() -> None:
    assert SigningLimiter(0, 0, FakeClock()).is_off
    assert not SigningLimiter(50, 0, FakeClock()).is_off
    assert not SigningLimiter(0, 1, FakeClock()).is_off


def test_limits_are_compared_as_they_count() -> None:
    assert SigningLimiter(50, 3, FakeClock()).has(50, 9)
    assert SigningLimiter(0, 3, FakeClock()).has(0, 3)
    assert not SigningLimiter(0, 3, FakeClock()).has(0, 4)
    assert not SigningLimiter(50, 0, FakeClock()).has(51, 0)
