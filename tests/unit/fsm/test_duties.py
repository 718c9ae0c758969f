"""What the leader finds to do in each stage of a CA's life; the same state always asks for the same duty."""

from dataclasses import replace

import pytest

from fsm.ca import InitSeal, SetProviderState
from fsm.duties import TIDY_INTERVAL_SECONDS, Duty, DutyPolicy, next_duty, tidy_time
from fsm.leaves import TidyLedger
from fsm.state import State
from tests.kit import samples
from tests.kit.samples import applied, provider_state

POLICY = DutyPolicy(keep_expired_seconds=1000)


def unprepared() -> State:
    state = samples.configured()
    return applied(state, SetProviderState(state.ca_index, provider_state(is_prepared=False)))


@pytest.mark.parametrize(
    ("state", "duty"),
    [
        (State(), Duty.INIT_SEAL),
        (applied(State(), InitSeal(samples.SEAL)), Duty.INIT_CONFIG),
        (unprepared(), Duty.PREPARE_ROOT),
        (samples.configured(), Duty.GENERATE_ROOT),
        (samples.ready(), Duty.TIDY_LEDGER),
        (applied(samples.ready(), TidyLedger(samples.NOW - 1000)), None),
    ],
    ids=["new", "sealed", "configured", "prepared", "never tidied", "nothing to do"],
)
def test_each_stage_has_its_duty(state: State, duty: Duty | None) -> None:
    assert next_duty(state, samples.NOW, POLICY) is duty


def test_provider_that_lost_its_state_is_prepared_again() -> None:
    assert next_duty(replace(samples.configured(), providers=()), samples.NOW, POLICY) is Duty.PREPARE_ROOT


@pytest.mark.parametrize(("late", "duty"), [(-1, None), (0, Duty.TIDY_LEDGER), (1, Duty.TIDY_LEDGER)])
def test_ledger_is_tidied_once_in_an_interval(late: int, duty: Duty | None) -> None:
    state = applied(samples.ready(), TidyLedger(tidy_time(samples.NOW, POLICY)))
    assert next_duty(state, samples.NOW + TIDY_INTERVAL_SECONDS + late, POLICY) is duty


def test_clock_that_went_back_finds_nothing_to_tidy() -> None:
    state = applied(samples.ready(), TidyLedger(tidy_time(samples.NOW, POLICY)))
    assert next_duty(state, samples.NOW - 365 * samples.DAY, POLICY) is None


def test_records_are_kept_for_the_time_of_the_policy() -> None:
    assert tidy_time(samples.NOW, POLICY) == samples.NOW - 1000
