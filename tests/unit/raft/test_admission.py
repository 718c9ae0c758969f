"""Whom a node listens to, by name and key."""

from dataclasses import replace
from typing import Any

import pytest

from cluster.raft.admission import Admission, Introductions, Standing, Word
from cluster.raft.codec import Message
from cluster.raft.membership import Members, learner
from tests.kit.clock import FakeClock
from tests.kit.log import EventLog
from tests.sim.cluster import member, members_of

KEY, OLD_KEY, OTHER_KEY = b"k" * 72, b"o" * 72, b"x" * 72


def pinned(*names: str) -> Members:
    return {name: replace(known, keys=(KEY,)) for name, known in members_of(*names).items()}


def word(key: bytes) -> Word:
    return Word((key,), by="a", by_keys=(KEY,))


UNPINNED = Admission(members_of("a", "b"))
PINNED = Admission({**pinned("a", "b"), "f": member("f"), "l": learner(member("l"))}, frozenset({"gone"}))
EXCHANGING = Admission({"a": replace(member("a"), keys=(OLD_KEY, KEY))})
OLD_CA, NEW_CA = b"1" * 32, b"2" * 32
#: When the certificates expire, and what it is now.
END, NOW = 1000, 999
END_BYTES = END.to_bytes(8, "big")
OF_OLD_CA, OF_NEW_CA = b"a" * 32 + OLD_CA + END_BYTES, b"b" * 32 + NEW_CA + END_BYTES
TRUSTING = {
    anchors: Admission(
        {"a": replace(member("a"), keys=(OF_OLD_CA,))}, frozenset({"gone"}), {}, frozenset(anchors), lambda: NOW
    )
    for anchors in ((OLD_CA,), (OLD_CA, NEW_CA), (NEW_CA,))
}
EXPIRED = replace(TRUSTING[OLD_CA,], now=lambda: END)
VOUCHED = Admission(pinned("a"), frozenset(), {"new": word(KEY)})


@pytest.mark.parametrize(
    ("admission", "name", "key", "standing"),
    [
        (UNPINNED, "b", OTHER_KEY, Standing.MEMBER),
        (UNPINNED, "x", OTHER_KEY, Standing.GUEST),
        (PINNED, "b", KEY, Standing.MEMBER),
        (PINNED, "b", OTHER_KEY, Standing.REFUSED),
        (PINNED, "b", b"", Standing.REFUSED),
        (PINNED, "gone", KEY, Standing.REFUSED),
        (PINNED, "x", KEY, Standing.STRANGER),
        (PINNED, "f", OTHER_KEY, Standing.MEMBER),  # a founder whose turn has not come
        (PINNED, "l", OTHER_KEY, Standing.UNPINNED),
        (EXCHANGING, "a", KEY, Standing.MEMBER),
        (EXCHANGING, "a", OLD_KEY, Standing.MEMBER),
        (EXCHANGING, "a", OTHER_KEY, Standing.REFUSED),
        (TRUSTING[OLD_CA,], "a", OF_OLD_CA, Standing.MEMBER),
        (TRUSTING[OLD_CA, NEW_CA], "a", OF_OLD_CA[:32] + NEW_CA + END_BYTES, Standing.MEMBER),  # renewed, the key kept
        (TRUSTING[OLD_CA, NEW_CA], "a", OF_NEW_CA, Standing.REFUSED),  # the old CA may still have made others
        (TRUSTING[NEW_CA,], "a", OF_NEW_CA, Standing.MEMBER),  # all certificates are of the new CA now
        (TRUSTING[NEW_CA,], "gone", OF_NEW_CA, Standing.REFUSED),
        (TRUSTING[NEW_CA,], "x", OF_NEW_CA, Standing.STRANGER),
        (TRUSTING[OLD_CA,], "a", b"x" * 32 + OLD_CA + END_BYTES, Standing.REFUSED),
        (EXPIRED, "a", b"x" * 32 + OLD_CA + END_BYTES, Standing.MEMBER),  # who could prove its key any more?
        (EXPIRED, "gone", OF_OLD_CA, Standing.REFUSED),
        (EXPIRED, "x", OF_OLD_CA, Standing.STRANGER),
        (replace(PINNED, vouched={"l": word(KEY)}), "l", KEY, Standing.MEMBER),
        (replace(PINNED, vouched={"l": word(KEY)}), "l", OTHER_KEY, Standing.UNPINNED),
        (replace(PINNED, vouched={"b": word(OTHER_KEY)}), "b", OTHER_KEY, Standing.MEMBER),
        (replace(PINNED, vouched={"b": word(OTHER_KEY)}), "b", KEY, Standing.MEMBER),
        (VOUCHED, "new", KEY, Standing.GUEST),
        (VOUCHED, "new", OTHER_KEY, Standing.STRANGER),
    ],
)
def test_standing(admission: Admission, name: str, key: bytes, standing: Standing) -> None:
    assert admission.standing(name, key) is standing
    assert (admission.refusal(name, key) is None) == (standing is Standing.MEMBER)
    refused = (Standing.REFUSED, Standing.STRANGER)
    assert (admission.dial_refusal(name, key) is None) == (standing not in refused)


def test_refusal_says_why_and_what_to_do() -> None:
    assert "add the server again" in str(PINNED.refusal("b", OTHER_KEY))
    assert PINNED.refusal("gone", KEY) == "gone was removed from this cluster"
    assert PINNED.refusal("x", KEY) == "no server of this cluster"
    assert "has not seen its key" in str(PINNED.refusal("l", KEY))


class _Core:
    def __init__(self, members: Members, removed: frozenset[str] = frozenset()) -> None:
        self.members, self.removed = members, removed


class Asking:
    def __init__(self, members: Members, removed: frozenset[str] = frozenset()) -> None:
        self.clock = FakeClock()
        self.sent: list[tuple[str, Message]] = []
        self.vouched: dict[str, tuple[tuple[bytes, ...], str]] = {}
        core: Any = _Core(members, removed)
        self.log = EventLog()
        self.introductions = Introductions(core, self._send, self.clock, self._vouched, self.log)

    def _vouched(self, name: str, keys: tuple[bytes, ...], by: str) -> None:
        self.vouched[name] = (keys, by)

    def _send(self, peer: str, message: Message) -> bool:
        self.sent.append((peer, message))
        return True


def said(name: str, key: bytes = KEY) -> Message:
    return {"type": "is_server", "name": name, "keys": (key,)}


def test_servers_with_a_key_are_asked_about_a_stranger_and_not_too_often() -> None:
    asking = Asking({**pinned("b", "c"), "f": member("f")})
    asking.introductions.ask_about("new")
    asking.introductions.ask_about("new")
    assert asking.sent == [(peer, {"type": "who_is", "name": "new"}) for peer in ("b", "c")]
    asking.clock.advance(1.0)
    asking.introductions.ask_about("new")
    assert len(asking.sent) == 4


def test_many_strangers_are_not_all_asked_about() -> None:
    asking = Asking(pinned("b"))
    for number in range(100):
        asking.introductions.ask_about(f"n{number}")
    assert len(asking.sent) < 20


def test_word_that_a_server_repeats_is_told_once_a_second() -> None:
    asking = Asking(pinned("b", "c"))
    for second in range(1, 4):
        asking.introductions.ask_about("new")
        for number in range(50):
            asking.introductions.incoming("b", said("new", bytes([number]) * 72))
        assert asking.log.names() == ["raft.server_vouched"] * second
        asking.clock.advance(1.0)
    asking.introductions.incoming("c", said("new"))
    assert [fields["by"] for _, fields in asking.log.events] == ["b", "b", "b", "c"]


def test_only_who_was_asked_about_is_vouched_for() -> None:
    asking = Asking({**pinned("b", "c"), "l": learner(member("l"))}, removed=frozenset({"gone"}))
    for name in ("new", "gone", "c", "l"):
        asking.introductions.incoming("b", said(name, OTHER_KEY))
    assert not asking.vouched
    for name in ("new", "gone", "b", "c", "l"):
        asking.introductions.ask_about(name)
        asking.introductions.incoming("b", said(name, OTHER_KEY))
    # Neither a removed server, nor the one that speaks.
    assert asking.vouched == dict.fromkeys(("new", "c", "l"), ((OTHER_KEY,), "b"))


def test_what_is_known_is_no_news() -> None:
    asking = Asking(pinned("b", "c"))
    asking.introductions.ask_about("c")
    asking.introductions.incoming("b", said("c"))
    assert not asking.vouched


def test_server_vouches_for_members_with_a_key_only() -> None:
    asking = Asking({**pinned("b"), "f": member("f")})
    for name in ("b", "f", "x"):
        asking.introductions.incoming("b", {"type": "who_is", "name": name})
    assert asking.sent == [("b", said("b"))]
