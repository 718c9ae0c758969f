"""The table of rules: it has every command, and what the rules say holds together."""

import dataclasses

import msgpack
import pytest

from fsm import codec
from fsm.apply import RULES, apply
from fsm.commands import Applied, Command
from fsm.leaves import RecordLeaves, TidyLedger
from fsm.state import Area, State
from tests.kit import samples

COMMANDS = set(Command.__args__)


def fields(kind: type) -> set[str]:
    return {field.name for field in dataclasses.fields(kind)}


def test_every_command_has_a_rule_and_nothing_else_has() -> None:
    assert set(RULES) == COMMANDS


def test_every_command_has_a_number_of_its_own_in_the_log() -> None:
    """A number that was given twice would turn entries of one kind into another."""
    numbers = {type(command): msgpack.unpackb(codec.dump_command(command))[1] for command in samples.COMMANDS.values()}
    assert set(numbers) == COMMANDS
    assert len(set(numbers.values())) == len(COMMANDS)


@pytest.mark.parametrize("area", Area)
def test_every_area_is_counted_by_a_field_of_the_state(area: Area) -> None:
    assert area.value in fields(State)
    assert State().area_index(area) == 0
    moved = State().moved_to(7, area)
    assert {field for field in fields(State) if getattr(moved, field) == 7} == {"index", area.value}


def test_command_that_is_guarded_by_an_index_moves_it() -> None:
    """Otherwise two commands made from the same state would both be applied."""
    for kind in COMMANDS:
        if "expected_index" in fields(kind):
            assert RULES[kind].moves_area, kind


def test_ca_and_leaves_are_apart() -> None:
    assert {kind for kind in COMMANDS if RULES[kind].area is Area.LEAVES} == {RecordLeaves, TidyLedger}


@pytest.mark.parametrize("count", [0, 1, 3])
def test_recording_takes_an_index_for_each_certificate(count: int) -> None:
    state = samples.ready()
    command = RecordLeaves(samples.ISSUER, tuple(samples.record(number) for number in range(count)))
    after, result = apply(state, command)
    assert result == Applied(state.index + count)
    assert after == dataclasses.replace(state, index=state.index + count, leaf_index=state.index + count)


def test_tidying_is_no_new_certificate() -> None:
    """A snapshot is refused over a ledger that ends before its `leaf_index`."""
    state = samples.ready()
    after = samples.applied(samples.applied(state, RecordLeaves(samples.ISSUER, (samples.record(1),))), TidyLedger(5))
    assert (after.index, after.leaf_index) == (state.index + 2, state.index + 1)
