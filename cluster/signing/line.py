"""Who is next where more certificates are wanted than the CA may sign in a second.

Renewals whose certificate has half of its life over come first: without one their service will be without. Then those
that have no certificate yet, and at last those whose certificate is still young, who want a second one: a fleet that is
rolled out again, or a script that asks in a loop. But no rank waits for ever: of eight turns the second and the third
rank have one each, if any of them waits (and those who come first have what nobody wants).
"""

import asyncio
from collections import deque
from enum import IntEnum
from typing import Final

#: Of a certificate's life: after it, another one is a renewal. Agents renew after 0.6 to 0.9 of it.
_YOUNG_PART: Final = 0.5
#: Of the places in a line, one in so many is kept for each rank.
_SHARE: Final = 8


class Rank(IntEnum):
    """Lower comes first."""

    RENEWAL = 0
    FIRST = 1
    REISSUE = 2


_IN_ORDER: Final = (Rank.RENEWAL, Rank.FIRST, Rank.REISSUE)
#: The ranks as they are asked at a turn; at all others in order.
_KEPT_TURNS: Final = {3: (Rank.FIRST, Rank.RENEWAL, Rank.REISSUE), 7: (Rank.REISSUE, Rank.RENEWAL, Rank.FIRST)}
_TURNS: Final = 8

#: True when it has come, False when it had to give way to somebody of another rank.
Turn = asyncio.Future[bool]


def rank_of(newest: tuple[int, int] | None, now: float) -> Rank:
    """`newest`: the validity of the identity's newest certificate, if there is one on record. Many hosts may have the
    same identity, which are not told apart: then it is the one that was renewed last.
    """
    if newest is None:
        return Rank.FIRST
    not_before, not_after = newest
    return Rank.REISSUE if now < not_before + (not_after - not_before) * _YOUNG_PART else Rank.RENEWAL


class Line:
    """Of those who wait, by rank, each in the order in which they came."""

    def __init__(self) -> None:
        self._waiting: dict[Rank, deque[Turn]] = {rank: deque() for rank in _IN_ORDER}
        self._turn = 0

    def __len__(self) -> int:
        return sum(map(len, self._waiting.values()))

    def join(self, rank: Rank, places: int) -> Turn | None:
        """`places`: for all that may wait. None if there is none for this rank.

        A rank that has less than its share always gets one; else it is taken from those whose rank comes later, from
        the last one first.
        """
        if places <= 0:
            return None
        share = max(1, places // _SHARE)
        if len(self) >= places and len(self._waiting[rank]) >= share and not self._displace(rank, share):
            return None
        turn: Turn = asyncio.get_running_loop().create_future()
        self._waiting[rank].append(turn)
        return turn

    def _displace(self, rank: Rank, share: int) -> bool:
        for other in reversed(_IN_ORDER):
            if other > rank and len(self._waiting[other]) > share:
                turn = self._waiting[other].pop()
                if not turn.done():  # else it has gone away
                    turn.set_result(False)
                return True
        return False

    def call(self) -> bool:
        """The next one's turn has come; False if nobody waits."""
        self._turn = (self._turn + 1) % _TURNS
        for rank in _KEPT_TURNS.get(self._turn, _IN_ORDER):
            waiting = self._waiting[rank]
            while waiting:
                turn = waiting.popleft()
                if not turn.done():  # else it has gone away
                    turn.set_result(True)
                    return True
        return False

    def leave(self, turn: Turn) -> None:
        """Without having had its turn. Again is all right."""
        for waiting in self._waiting.values():
            if turn in waiting:
                waiting.remove(turn)
