"""Whoever holds a server's key can send what no server sends. It costs the connection at most: log, commit index,
members and term stay, and the node goes on.
"""

import random
from typing import Any, Final

import pytest

from cluster.raft.codec import MessageInvalid, unpack_message
from tests.kit.hostile_frames import CONTRADICTIONS, PUSHES, REFUSED, TERMS, Frames, Known, split
from tests.kit.solo import Solo, batch

CASES: Final = 60
LATER: Final = {**CONTRADICTIONS, **TERMS}


def follower() -> Solo:
    """Of the leader b in term 3."""
    solo = Solo()
    solo.append("b", 3, (1, 0), *(batch(index, 3) for index in range(2, 12)), commit=11)
    return solo


def leader() -> Solo:
    solo = Solo()
    solo.elect()
    for _ in range(12):
        solo.propose(b"command")
        solo.advance(0)
        solo.confirm("b")
    return solo


ROLES: Final = {"follower": follower, "leader": leader}


def hurt(solo: Solo, frames: Frames, number: int) -> bool:
    """By c; whether that cost the connection."""
    core = solo.node.core
    known = Known(core.term, core.applied_index, "c", "b")
    for body in split(frames(known, random.Random(number))):
        try:
            solo.node.receive("c", unpack_message(body))
        except MessageInvalid:
            return True
        finally:
            solo.node.pump()
    return False


def facts(solo: Solo) -> tuple[Any, ...]:
    core = solo.node.core
    ends = [core.match_index(peer) <= solo.last.log_index for peer in ("b", "c")]
    return core.term, core.is_leader, core.commit_index, core.members, solo.node.admission.vouched, solo.entries, ends


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("kind", LATER)
def test_what_cannot_be_true_changes_nothing(kind: str, role: str) -> None:
    for number in range(CASES):
        solo = ROLES[role]()
        before = facts(solo)
        hurt(solo, LATER[kind], number)
        assert facts(solo) == before, number


@pytest.mark.parametrize("role", ROLES)
def test_a_newer_term_costs_an_election_and_no_entry(role: str) -> None:
    for number in range(CASES):
        solo = ROLES[role]()
        before = solo.entries, solo.commit, solo.node.core.members
        hurt(solo, PUSHES["newer term"], number)
        assert (solo.entries, solo.commit, solo.node.core.members) == before
        assert solo.node.core.term < 100


@pytest.mark.parametrize("kind", [kind for kind in REFUSED if kind not in ("too long", "garbage", "second hello")])
def test_what_no_server_sends_is_no_message(kind: str) -> None:
    """The others are refused before, by the links."""
    known = Known(3, 11, "c", "b")
    for number in range(20 * CASES):
        [body] = split(REFUSED[kind](known, random.Random(number)))
        with pytest.raises(MessageInvalid):
            unpack_message(body)
