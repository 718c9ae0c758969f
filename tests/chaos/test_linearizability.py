"""The judge is judged: histories with a known verdict, and small ones against a search that takes no shortcut."""

import random
from itertools import permutations
from pathlib import Path

import pytest

from tests.chaos.history import Kind, Operation, Outcome, read_history, write_history
from tests.chaos.linearizability import versions_violation_of, violation_of

READ, WRITE, SWAP = Kind.READ, Kind.WRITE, Kind.SWAP
OK, MISMATCH, NOT_DONE, UNKNOWN = Outcome.OK, Outcome.MISMATCH, Outcome.NOT_DONE, Outcome.UNKNOWN


def op(
    invoked: float, returned: float, kind: Kind, value: int, outcome: Outcome = OK, *, over: int = 0, version: int = 0
) -> Operation:
    return Operation("c", kind, outcome, value, invoked, returned, over, version)


def test_empty_and_sequential_histories_are_accepted() -> None:
    assert violation_of([], 0) is None
    assert violation_of([op(0, 1, READ, 0), op(2, 3, WRITE, 1), op(4, 5, READ, 1)], 0) is None


def test_overlapping_operations_may_take_effect_in_either_order() -> None:
    assert violation_of([op(0, 9, WRITE, 1), op(1, 2, READ, 0), op(3, 4, READ, 1)], 0) is None
    assert violation_of([op(0, 9, WRITE, 1), op(0, 9, WRITE, 2), op(10, 11, READ, 1)], 0) is None


def test_stale_read_is_rejected() -> None:
    found = violation_of([op(0, 1, WRITE, 1), op(2, 3, READ, 0)], 0)
    assert found is not None
    assert "read 0" in found


def test_value_that_comes_back_is_rejected() -> None:
    """Two reads one after the other must not see new, then old, even while the write is under way."""
    assert violation_of([op(0, 9, WRITE, 1), op(1, 2, READ, 1), op(3, 4, READ, 0)], 0) is not None


def test_lost_write_is_rejected() -> None:
    assert violation_of([op(0, 1, WRITE, 1), op(2, 3, WRITE, 2), op(4, 5, READ, 1)], 0) is not None


def test_readers_that_disagree_about_the_order_of_two_writes_are_rejected() -> None:
    writes = [op(0, 9, WRITE, 1), op(0, 9, WRITE, 2)]
    assert violation_of([*writes, op(10, 11, READ, 1), op(12, 13, READ, 2)], 0) is not None


def test_read_of_what_was_definitely_not_done_is_rejected() -> None:
    assert violation_of([op(0, 1, WRITE, 1, NOT_DONE), op(2, 3, READ, 1)], 0) is not None
    assert violation_of([op(0, 1, WRITE, 1, NOT_DONE), op(2, 3, READ, 0)], 0) is None


def test_unknown_write_may_take_effect_late_or_never_but_not_before_its_call() -> None:
    unknown = op(2, 3, WRITE, 1, UNKNOWN)
    assert violation_of([unknown, op(4, 5, READ, 0)], 0) is None
    assert violation_of([unknown, op(4, 5, READ, 0), op(6, 7, READ, 1)], 0) is None
    assert violation_of([op(0, 1, READ, 1), unknown], 0) is not None


def test_unknown_write_takes_effect_once_only() -> None:
    history = [op(0, 1, WRITE, 1, UNKNOWN), op(2, 3, READ, 1), op(4, 5, WRITE, 2), op(6, 7, READ, 1)]
    assert violation_of(history, 0) is not None


def test_two_swaps_over_the_same_value_are_rejected() -> None:
    assert violation_of([op(0, 9, SWAP, 1, over=0), op(0, 9, SWAP, 2, over=0)], 0) is not None
    assert violation_of([op(0, 9, SWAP, 1, over=0), op(0, 9, SWAP, 2, over=1)], 0) is None


def test_swap_that_failed_needs_another_value_to_have_been_there() -> None:
    failed = op(2, 3, SWAP, 9, MISMATCH, over=0)
    assert violation_of([failed], 0) is not None
    assert violation_of([op(0, 1, WRITE, 1), failed], 0) is None
    assert violation_of([op(0, 1, WRITE, 1, UNKNOWN), failed, op(4, 5, READ, 1)], 0) is None
    assert violation_of([op(0, 1, WRITE, 1, UNKNOWN), failed, op(4, 5, READ, 0)], 0) is not None


def test_chain_of_unknown_swaps_explains_what_is_read() -> None:
    chain = [op(0, 1, SWAP, 1, UNKNOWN, over=0), op(0, 1, SWAP, 2, UNKNOWN, over=1), op(0, 1, SWAP, 3, UNKNOWN, over=2)]
    assert violation_of([*chain, op(2, 3, READ, 3)], 0) is None
    assert violation_of([*chain, op(2, 3, READ, 3), op(4, 5, READ, 2)], 0) is not None


def test_swaps_that_wait_for_each_other_are_rejected() -> None:
    circle = [op(0, 1, SWAP, 1, UNKNOWN, over=2), op(0, 1, SWAP, 2, UNKNOWN, over=1)]
    assert violation_of([*circle, op(2, 3, READ, 2)], 0) is not None


def test_value_that_is_written_twice_cannot_be_judged() -> None:
    with pytest.raises(ValueError, match="written twice"):
        violation_of([op(0, 1, WRITE, 1), op(2, 3, WRITE, 1)], 0)


def test_write_that_took_effect_twice_shows_in_its_versions() -> None:
    reads = [op(0, 1, READ, 1, version=7), op(2, 3, READ, 1, version=8)]
    assert versions_violation_of(reads) is not None
    assert versions_violation_of([reads[0], reads[0]]) is None


def test_long_history_with_many_unknown_writes_is_judged_quickly() -> None:
    """The plain search would try every subset of the unknown writes."""
    history = [op(k, k + 0.5, WRITE, 1000 + k, UNKNOWN) for k in range(60)]
    history += [op(100 + k, 100.5 + k, READ, 1000 + 2 * (k // 60)) for k in range(2000)][:1800]
    history.append(op(9000, 9001, SWAP, 5, MISMATCH, over=1058))
    assert violation_of(history, 0) is None
    assert violation_of([*history, op(9002, 9003, READ, 1000)], 0) is not None


def test_history_survives_the_disk(tmp_path: Path) -> None:
    history = [op(0.25, 1.5, SWAP, 1, over=3, version=2), op(2, 3, WRITE, 4, UNKNOWN)]
    write_history(tmp_path / "h.jsonl", 3, history)
    assert read_history(tmp_path / "h.jsonl") == (3, history)


@pytest.mark.parametrize("seed", range(4))
def test_verdicts_are_those_of_a_search_without_shortcuts(seed: int) -> None:
    rng = random.Random(seed)
    verdicts = [0, 0]
    for _ in range(700):
        history = _random_history(rng)
        expected = _is_linearizable(history, 0)
        assert (violation_of(history, 0) is None) is expected, "\n".join(map(str, history))
        verdicts[expected] += 1
    assert min(verdicts) > 100  # both verdicts were tried


def _random_history(rng: random.Random) -> list[Operation]:
    history: list[Operation] = []
    values = [0]
    for number in range(1, rng.randint(2, 6)):
        invoked = rng.uniform(0, 4)
        times = invoked, invoked + rng.choice((0.2, 1.0, 3.0))
        kind = rng.choice([READ, WRITE, SWAP])
        if kind is READ:
            history.append(op(*times, READ, rng.choice([*values, number])))
            continue
        outcome = rng.choice([OK, OK, UNKNOWN, NOT_DONE] if kind is WRITE else [OK, UNKNOWN, UNKNOWN, MISMATCH])
        over = rng.choice([value for value in (*values, number + 1) if value != number]) if kind is SWAP else 0
        history.append(op(*times, kind, number, outcome, over=over))
        values.append(number)
    return history


def _is_linearizable(history: list[Operation], initial: int) -> bool:
    """Every order of every choice of unknown operations."""
    finished = [operation for operation in history if operation.outcome in (OK, MISMATCH)]
    unknown = [operation for operation in history if operation.outcome is UNKNOWN]
    for choice in range(1 << len(unknown)):
        chosen = [operation for k, operation in enumerate(unknown) if choice >> k & 1]
        if any(_is_explained(order, initial) for order in permutations([*finished, *chosen])):
            return True
    return False


def _is_explained(order: tuple[Operation, ...], initial: int) -> bool:
    for k, operation in enumerate(order):
        if any(later.outcome is not UNKNOWN and later.returned < operation.invoked for later in order[k + 1 :]):
            return False
    value = initial
    for operation in order:
        if operation.kind is READ and operation.value != value:
            return False
        if operation.kind is SWAP and (operation.expected == value) is (operation.outcome is MISMATCH):
            return False
        if operation.kind is not READ and operation.outcome is not MISMATCH:
            value = operation.value
    return True
