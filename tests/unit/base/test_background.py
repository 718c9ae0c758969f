"""What a node does by itself outlives every exception, with pauses, a log line and a count."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from cluster.base import background
from cluster.base.background import attempt, describe, keep_running, report_callbacks
from cluster.base.telemetry import Metrics
from tests.kit.log import EventLog


class PanicException(BaseException):
    """What a defect of a Rust library raises."""


_ERRORS = [
    PanicException(),
    ValueError("x" * 10_000),
    KeyError("k"),
    AssertionError(),
    RecursionError(),
    MemoryError(),
    OSError(24, "files"),
]


class _Enough(Exception):
    """Ends a test."""


def _work(*errors: BaseException | None) -> Callable[[], Awaitable[None]]:
    """Raises them in turn, and then what the test waits for."""
    left = list(errors)

    async def work() -> None:
        error = left.pop(0) if left else _Enough()
        if error is not None:
            raise error

    return work


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    found: list[float] = []

    async def sleep(seconds: float) -> None:
        found.append(seconds)

    monkeypatch.setattr(asyncio, "sleep", sleep)
    return found


async def test_work_begins_again_whatever_it_raises(pauses: list[float]) -> None:
    log, metrics = EventLog(), Metrics()
    with pytest.raises(_Enough):
        await keep_running("watch", _work(*_ERRORS, None), log, metrics, ends_with=(_Enough,))
    assert [name for name, _ in log.events] == ["background.failed"] * len(_ERRORS)
    assert metrics.registry.get_sample_value("quorumca_background_failures_total", {"work": "watch"}) == len(_ERRORS)
    assert all(len(str(fields["reason"])) <= 300 for _, fields in log.events)


async def test_pauses_grow_and_are_bounded(pauses: list[float]) -> None:
    with pytest.raises(_Enough):
        await keep_running("w", _work(*[ValueError()] * 12), EventLog(), Metrics(), ends_with=(_Enough,))
    assert pauses == sorted(pauses)
    assert (pauses[0], pauses[-1]) == (background._FIRST_PAUSE_SECONDS, background._LONGEST_PAUSE_SECONDS)


async def test_being_cancelled_ends_it() -> None:
    task = asyncio.ensure_future(keep_running("w", asyncio.Event().wait, EventLog(), Metrics()))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


def test_one_of_several_that_fails_is_said_and_passed_over() -> None:
    log, metrics = EventLog(), Metrics()

    def fails() -> None:
        raise OSError(5, "disk")

    attempt("disk space", fails, log, metrics)
    [(name, fields)] = log.events
    assert (name, fields["work"]) == ("background.failed", "disk space")


def test_description_says_kind_and_place() -> None:
    with pytest.raises(ValueError, match="invalid literal") as found:
        int("not a number")
    assert describe(found.value).startswith(f"ValueError at {__name__}:")


async def test_exceptions_of_callbacks_are_lines_of_the_log_and_few() -> None:
    log, now = EventLog(), [0.0]
    loop = asyncio.get_running_loop()
    report_callbacks(loop, log, lambda: now[0])

    def fail() -> None:
        raise ValueError("of a callback\n" + "x" * 10_000)

    async def failing() -> None:
        raise KeyError("of a task")

    for _ in range(100):
        loop.call_soon(fail)
    await asyncio.sleep(0.01)
    now[0] = 2.0
    task = loop.create_task(failing())
    await asyncio.sleep(0)
    del task  # and nobody has looked what came of it
    now[0] = 4.0
    loop.call_exception_handler({"message": "something is wrong"})
    (first, one), (second, others), (third, last) = log.events
    assert first == second == third == "loop.failed"
    assert (one["count"], others["count"], last) == (1, 100, {"count": 1, "reason": "something is wrong"})
    assert str(one["reason"]).startswith("ValueError at tests.unit.base.test_background:")
    assert len(str(one["reason"])) <= 300
    assert str(others["reason"]).startswith("KeyError at ")
