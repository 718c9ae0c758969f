"""Keys in the log: when they get there, what counts of them, and that they outlive restarts and snapshots."""

from dataclasses import replace
from typing import Any

import pytest

from cluster.raft import codec
from cluster.raft.admission import Standing
from cluster.raft.journal import Entry
from cluster.raft.membership import ChangeKind, Member, MembershipChange
from tests.kit.solo import TIMING, Solo
from tests.sim.cluster import member, members_of

KEYS = {name: name.encode() * 72 for name in "abcd"}
OTHER_KEY = b"x" * 72
#: When certificates expire: not in this test.
FAR, FARTHER = (seconds.to_bytes(8, "big") for seconds in (1 << 40, 1 << 41))


def keyed(name: str, *keys: bytes) -> Member:
    return replace(member(name), keys=keys or (KEYS[name],))


def leader(*, is_pinned: bool = True) -> Solo:
    """Of b and c, which are connected; everybody's key is in the log, or nobody's."""
    solo = Solo()
    solo.keys = {name: KEYS[name] for name in "abc"}
    solo.elect()
    if is_pinned:
        solo.node.may_pin = True
        settle(solo)
    return solo


def settle(solo: Solo) -> None:
    """Until nothing more is proposed, and all is committed."""
    while True:
        last = solo.last.log_index
        solo.node.pump()
        solo.confirm("b", "c")
        solo.node.pump()
        if solo.last.log_index == last:
            return


def pass_time(solo: Solo) -> None:
    """Longer than the leader looks away from keys; it hears from the others meanwhile."""
    for _ in range(30):
        solo.advance(TIMING.heartbeat)
        settle(solo)


def change(solo: Solo, change: MembershipChange) -> list[Any]:
    result: list[Any] = []
    solo.node.change_membership(change, result.append)
    solo.node.pump()
    return result


def standing(solo: Solo, name: str, key: bytes | None = None) -> Standing:
    return solo.admission.standing(name, key or KEYS[name])


# -- how they get there


def test_leader_pins_everybody_once_it_may() -> None:
    solo = leader(is_pinned=False)
    settle(solo)
    assert solo.node.core.members == members_of("a", "b", "c")
    solo.node.may_pin = True
    settle(solo)
    assert solo.node.core.members == {name: keyed(name) for name in "abc"}


def test_server_that_cannot_be_reached_is_pinned_when_it_can() -> None:
    solo = leader(is_pinned=False)
    del solo.keys["c"]
    solo.node.may_pin = True
    settle(solo)
    assert not solo.node.core.members["c"].keys
    # It is a founder, and may be needed for a majority.
    assert standing(solo, "c") is Standing.MEMBER
    solo.keys["c"] = KEYS["c"]
    settle(solo)
    assert solo.node.core.members["c"] == keyed("c")


def test_next_leader_goes_on_without_being_told() -> None:
    solo = leader(is_pinned=False)
    del solo.keys["c"]
    solo.node.may_pin = True
    settle(solo)
    solo.restart()
    solo.keys["c"] = KEYS["c"]
    solo.elect()
    assert not solo.node.may_pin
    settle(solo)
    assert solo.node.core.members["c"] == keyed("c")


def test_learner_gets_its_vote_only_with_its_key() -> None:
    solo = leader()
    change(solo, MembershipChange(ChangeKind.LEARN, member("d")))
    settle(solo)
    assert standing(solo, "d") is Standing.UNPINNED
    solo.answer("d", solo.last.log_index + 1)
    settle(solo)
    assert not solo.node.core.members["d"].is_voter
    solo.keys["d"] = KEYS["d"]
    settle(solo)
    solo.answer("d", solo.last.log_index + 1)
    settle(solo)
    assert solo.node.core.members["d"] == keyed("d")


def test_founding_is_told_by_the_empty_log() -> None:
    solo = leader(is_pinned=False)
    assert solo.node.is_founding
    solo.propose(b"command")
    solo.node.pump()
    solo.confirm("b", "c")
    solo.restart()
    solo.elect()
    assert not solo.node.is_founding


def test_keys_of_an_agent_ca_that_was_replaced_are_pinned_anew() -> None:
    solo = leader()
    assert {member.keys for member in solo.node.core.members.values()} == {(KEYS[name],) for name in "abc"}
    new = {name: KEYS[name][:32] + b"2" * 32 + FAR for name in "abc"} | {"b": b"y" * 32 + b"2" * 32 + FAR}
    solo.keys, solo.trusted = new, frozenset({b"2" * 32})
    solo.restart()
    assert standing(solo, "b", new["b"]) is Standing.MEMBER
    solo.elect()
    settle(solo)
    assert {name: member.keys for name, member in solo.node.core.members.items()} == {n: (new[n],) for n in "abc"}
    assert standing(solo, "b", b"x" * 32 + b"2" * 32 + FAR) is Standing.REFUSED


def test_renewed_certificate_of_the_same_key_is_noticed() -> None:
    """Or the key would not count any more once the first one has expired."""
    solo = leader()
    before, renewed = KEYS["b"][:64] + FAR, KEYS["b"][:64] + FARTHER
    b = solo.node.core.members["b"]
    change(solo, MembershipChange(ChangeKind.PIN, replace(b, keys=(before,)), keys_before=b.keys))
    for seen, known in ((renewed, renewed), (before, renewed), (OTHER_KEY, renewed)):
        solo.keys["b"] = seen
        pass_time(solo)
        assert solo.node.core.members["b"].keys == (known,)
    two = (renewed, OTHER_KEY)
    b = solo.node.core.members["b"]
    change(solo, MembershipChange(ChangeKind.PIN, replace(b, keys=two), keys_before=b.keys))
    for seen, keys in ((renewed, two), (OTHER_KEY, (OTHER_KEY,))):  # announced, and then used
        solo.keys["b"] = seen
        pass_time(solo)
        assert solo.node.core.members["b"].keys == keys


# -- what they are good for


def test_removed_server_and_former_key_are_refused_and_so_behind_a_restart() -> None:
    solo = leader()
    b, c = solo.node.core.members["b"], solo.node.core.members["c"]
    change(solo, MembershipChange(ChangeKind.REMOVE, c))
    settle(solo)
    change(solo, MembershipChange(ChangeKind.PIN, replace(b, keys=(OTHER_KEY,)), keys_before=b.keys))
    settle(solo)
    for _ in range(2):
        assert standing(solo, "c") is Standing.REFUSED
        assert standing(solo, "b") is Standing.REFUSED
        assert standing(solo, "b", OTHER_KEY) is Standing.MEMBER
        # Whether what is in the log is committed is not known behind a restart, but what is in the snapshot is.
        solo.run_background()
        solo.node.pump()
        solo.run_background()
        solo.restart()


def test_who_is_not_removed_for_certain_is_heard() -> None:
    """The entry may be taken back by the very server that it would remove; nobody else might be able to lead."""
    solo = leader()
    b, c = solo.node.core.members["b"], solo.node.core.members["c"]
    change(solo, MembershipChange(ChangeKind.REMOVE, c))
    assert solo.node.core.members.keys() == {"a", "b"}
    assert standing(solo, "c") is Standing.MEMBER
    solo.confirm("b")
    solo.node.pump()
    assert standing(solo, "c") is Standing.REFUSED
    change(solo, MembershipChange(ChangeKind.PIN, replace(b, keys=(OTHER_KEY,)), keys_before=b.keys))
    assert [standing(solo, "b", key) for key in (KEYS["b"], OTHER_KEY)] == 2 * [Standing.MEMBER]
    solo.confirm("b")
    solo.node.pump()
    assert [standing(solo, "b", key) for key in (KEYS["b"], OTHER_KEY)] == [Standing.REFUSED, Standing.MEMBER]


def test_removal_that_is_taken_back_leaves_everything_as_it_was() -> None:
    solo = leader()
    before = solo.admission
    change(solo, MembershipChange(ChangeKind.REMOVE, solo.node.core.members["c"]))
    removal = solo.last.log_index
    term = solo.node.core.term + 1
    previous = solo.entries[-2]
    solo.advance(TIMING.election_max)  # without its quorum it does not lead any more
    other = Entry(codec.NO_OP_COMMAND, removal, term)
    solo.append("c", term, (previous.log_index, previous.term), other, commit=previous.log_index)
    assert solo.node.core.leader_id == "c"
    assert (solo.node.core.members, solo.node.core.removed) == (before.members, before.removed)
    assert solo.admission == before


def test_removed_name_comes_back_with_the_key_that_it_has_then() -> None:
    solo = leader()
    change(solo, MembershipChange(ChangeKind.REMOVE, solo.node.core.members["c"]))
    settle(solo)
    assert solo.node.core.removed == {"c"}
    solo.keys["c"] = OTHER_KEY
    change(solo, MembershipChange(ChangeKind.LEARN, replace(member("c"), is_voter=False)))
    assert solo.node.core.removed == frozenset()
    settle(solo)
    assert standing(solo, "c", OTHER_KEY) is Standing.MEMBER
    assert standing(solo, "c") is Standing.REFUSED


def test_snapshot_has_keys_and_removed_names() -> None:
    solo = leader()
    change(solo, MembershipChange(ChangeKind.REMOVE, solo.node.core.members["c"]))
    settle(solo)
    solo.node.compact()
    solo.run_background()
    known = solo.node.core.members, solo.node.core.removed
    solo.restart()
    assert (solo.node.core.members, solo.node.core.removed) == known == ({n: keyed(n) for n in "ab"}, frozenset("c"))


def test_change_of_a_key_that_is_not_the_present_one_is_refused() -> None:
    solo = leader()
    b = solo.node.core.members["b"]
    refused = change(solo, MembershipChange(ChangeKind.PIN, replace(b, keys=(OTHER_KEY,)), keys_before=(OTHER_KEY,)))
    settle(solo)
    assert refused[0] is not None
    assert solo.node.core.members["b"] == b


@pytest.mark.parametrize("kind", ["who_is", "is_server"])
def test_only_members_speak_of_others(kind: str) -> None:
    solo = leader()
    solo.take()
    fields = {"name": "b"} if kind == "who_is" else {"name": "x", "keys": (OTHER_KEY,)}
    solo.node.stranger("x")
    solo.feed("x", kind, **fields)
    assert solo.take("x") == []
    assert standing(solo, "x", OTHER_KEY) is Standing.STRANGER
    solo.feed("b", kind, **fields)
    assert bool(solo.take("b", "is_server")) == (kind == "who_is")
    assert (standing(solo, "x", OTHER_KEY) is Standing.GUEST) == (kind == "is_server")


def vouched_by(solo: Solo, by: str, name: str, key: bytes) -> None:
    solo.node.stranger(name)
    solo.feed(by, "is_server", name=name, keys=(key,))


def removed_or_exchanged(solo: Solo, name: str, *, is_exchange: bool) -> None:
    known = solo.node.core.members[name]
    if is_exchange:
        exchange = MembershipChange(ChangeKind.PIN, replace(known, keys=(KEYS["d"],)), keys_before=known.keys)
        change(solo, exchange)
    else:
        change(solo, MembershipChange(ChangeKind.REMOVE, known))
    settle(solo)


@pytest.mark.parametrize("is_exchange", [False, True])
def test_word_of_a_server_counts_no_longer_than_the_server(is_exchange: bool) -> None:
    """Whoever had its key may have brought friends in before it was taken away."""
    solo = leader()
    vouched_by(solo, "b", "new", OTHER_KEY)
    vouched_by(solo, "b", "c", OTHER_KEY)
    vouched_by(solo, "c", "newer", OTHER_KEY)  # by the friend, perhaps
    assert standing(solo, "new", OTHER_KEY) is standing(solo, "newer", OTHER_KEY) is Standing.GUEST
    assert standing(solo, "c", OTHER_KEY) is Standing.MEMBER
    removed_or_exchanged(solo, "b", is_exchange=is_exchange)
    assert standing(solo, "new", OTHER_KEY) is standing(solo, "newer", OTHER_KEY) is Standing.STRANGER
    assert standing(solo, "c", OTHER_KEY) is Standing.REFUSED
    assert standing(solo, "c", KEYS["c"]) is Standing.MEMBER


@pytest.mark.parametrize("is_exchange", [False, True])
def test_word_of_a_server_counts_when_another_one_goes_or_its_own_certificate_is_renewed(is_exchange: bool) -> None:
    solo = leader()
    vouched_by(solo, "b", "new", OTHER_KEY)
    removed_or_exchanged(solo, "c", is_exchange=is_exchange)
    b = solo.node.core.members["b"]
    renewed = replace(b, keys=(b.keys[0][:-8] + FAR,))
    change(solo, MembershipChange(ChangeKind.PIN, renewed, keys_before=b.keys))
    settle(solo)
    assert standing(solo, "new", OTHER_KEY) is Standing.GUEST


def test_word_of_others_ends_where_the_log_begins() -> None:
    """A key that was vouched for and taken away later must not count any longer."""
    solo = leader()
    solo.node.stranger("c")
    solo.feed("b", "is_server", name="c", keys=(OTHER_KEY,))
    assert standing(solo, "c", OTHER_KEY) is Standing.MEMBER
    c = solo.node.core.members["c"]
    change(solo, MembershipChange(ChangeKind.PIN, replace(c, keys=(KEYS["d"],)), keys_before=c.keys))
    settle(solo)
    assert standing(solo, "c", OTHER_KEY) is Standing.REFUSED
    assert standing(solo, "c", KEYS["d"]) is Standing.MEMBER
