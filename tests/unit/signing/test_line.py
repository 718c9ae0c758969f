"""Who is signed for first where certificates have to wait."""

import asyncio
import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.signing.line import Line, Rank, Turn, rank_of

NOW = 1_800_000_000.0
RENEWAL, FIRST, REISSUE = Rank


@pytest.mark.parametrize(
    ("newest", "rank"),
    [
        (None, FIRST),
        ((NOW - 1, NOW + 99), REISSUE),
        ((NOW - 49, NOW + 51), REISSUE),
        ((NOW - 50, NOW + 50), RENEWAL),
        ((NOW - 99, NOW + 1), RENEWAL),
        ((NOW - 200, NOW - 100), RENEWAL),  # its service is without one now
        ((NOW + 5, NOW + 100), REISSUE),
    ],
)
def test_rank_follows_from_what_is_left_of_the_newest_certificate(
    newest: tuple[float, float] | None, rank: Rank
) -> None:
    whole = None if newest is None else (int(newest[0]), int(newest[1]))
    assert rank_of(whole, NOW) is rank


def joined(line: Line, rank: Rank, places: int = 1000) -> Turn:
    turn = line.join(rank, places)
    assert turn is not None
    return turn


async def test_renewals_come_first_then_first_certificates_and_each_in_order() -> None:
    line = Line()
    ranks = [REISSUE, FIRST, RENEWAL, FIRST, RENEWAL, RENEWAL]
    turns = [joined(line, rank) for rank in ranks]
    order = []
    while line.call():
        order.append(next(n for n, turn in enumerate(turns) if turn.done() and n not in order))
    assert order[:2] == [2, 4]
    assert order[2] == 1  # the turn that is kept for this rank
    assert order[3:] == [5, 3, 0]
    assert all(turn.result() for turn in turns)
    assert not line


async def test_no_rank_waits_for_ever_however_many_come_before_it() -> None:
    line = Line()
    waiting = {rank: joined(line, rank) for rank in (FIRST, REISSUE)}
    taken: dict[Rank, int] = {}
    for turn in range(1, 17):
        joined(line, RENEWAL)
        assert line.call()
        for rank, its in waiting.items():
            if its.done():
                taken.setdefault(rank, turn)
    assert taken == {FIRST: 3, REISSUE: 7}


async def test_each_rank_has_its_share_of_turns_where_all_wait() -> None:
    line = Line()
    turns = {rank: [joined(line, rank) for _ in range(100)] for rank in Rank}
    for _ in range(80):
        assert line.call()
    assert {rank: sum(turn.done() for turn in its) for rank, its in turns.items()} == {
        RENEWAL: 60,
        FIRST: 10,
        REISSUE: 10,
    }


async def test_full_line_gives_the_place_of_the_last_of_a_later_rank() -> None:
    line = Line()
    later = [joined(line, REISSUE, 4) for _ in range(4)]
    assert line.join(REISSUE, 4) is None
    first = joined(line, FIRST, 4)  # by its share
    renewals = [joined(line, RENEWAL, 4)]
    renewals += [joined(line, RENEWAL, 4), joined(line, RENEWAL, 4), joined(line, RENEWAL, 4)]
    assert [turn.done() for turn in later] == [False, True, True, True]  # one is its share
    assert [turn.result() for turn in later[1:]] == [False] * 3
    assert line.join(RENEWAL, 4) is None
    assert not first.done()
    assert len(line) == 6  # no more than the places and a share of two ranks


async def test_without_places_nobody_joins() -> None:
    line = Line()
    assert [line.join(rank, 0) for rank in Rank] == [None] * 3


async def test_who_has_gone_away_has_no_turn() -> None:
    line = Line()
    gone, left, there = joined(line, RENEWAL), joined(line, RENEWAL), joined(line, REISSUE)
    gone.cancel()
    line.leave(left)
    line.leave(left)
    assert line.call()
    assert there.result()
    assert not left.done()
    assert not line.call()


@given(
    moves=st.lists(st.sampled_from([*Rank, None]), max_size=200),
    places=st.integers(0, 20),
)
def test_whatever_comes_the_line_is_bounded_and_everybody_is_told(moves: list[Rank | None], places: int) -> None:
    async def run() -> None:
        line, turns, refused = Line(), list[Turn](), 0
        for move in moves:
            if move is None:
                line.call()
            elif (turn := line.join(move, places)) is None:
                refused += 1
            else:
                turns.append(turn)
            share = max(1, places // 8) if places else 0
            assert len(line) <= places + 2 * share
        for _ in itertools.count():
            if not line.call():
                break
        assert all(turn.done() for turn in turns)
        assert refused == 0 or len(moves) > places

    asyncio.run(run())
