"""What blocking queries wait for, against whatever the log holds."""

from collections import Counter

from hypothesis import given

from cluster.api.reads import WATCHED, Watch
from fsm.apply import apply
from fsm.state import State
from tests.property.fsm.strategies import Author
from tests.property.fsm.test_sequences import history, long_sequences, thorough


def test_every_watch_has_a_meaning() -> None:
    assert set(WATCHED) == set(Watch)


def test_what_a_watch_waits_for_moves_with_its_area_alone_and_never_back() -> None:
    """Its waiters listen to the signal of that area: another change of its index would go by unnoticed."""
    moved: Counter[Watch] = Counter()

    @thorough
    @given(long_sequences)
    def check(sequence: list[Author]) -> None:
        state = State()
        for command in history(sequence):
            before, (state, _) = state, apply(state, command)
            for watch, watched in WATCHED.items():
                was, now = watched.index_of(before), watched.index_of(state)
                assert was <= now <= state.index
                if was != now:
                    moved[watch] += 1
                    assert before.area_index(watched.area) != state.area_index(watched.area)

    check()
    assert set(moved) == set(Watch), "a watch was never woken"
