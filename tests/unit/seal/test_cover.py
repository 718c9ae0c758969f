"""The cover that is on secrets while the main process carries them."""

import socket

import pytest

from cluster.seal.cover import COVER_KEY_BYTES, NOTHING, Cover, CoverError, hand_over, take_over
from cluster.seal.keeper import new_cover_key

KEY = bytes(range(COVER_KEY_BYTES))


def test_what_is_covered_comes_back_and_cannot_be_read() -> None:
    cover, secret = Cover(KEY), b"a private key, and more of it"
    covered = cover.cover(secret)
    assert cover.uncover(covered) == secret
    assert not any(secret[at : at + 4] in covered for at in range(len(secret) - 3))
    assert Cover(KEY).cover(secret) == covered


def test_nothing_is_nothing_to_cover() -> None:
    cover = Cover(KEY)
    assert cover.cover(b"") == cover.uncover(b"") == NOTHING
    assert cover.cover_values({"Token": ""}) == {"Token": NOTHING}
    assert cover.uncover_values({"Token": NOTHING}) == {"Token": ""}


@pytest.mark.parametrize("at", [0, 15, 16, -1])
def test_changed_value_is_refused(at: int) -> None:
    covered = bytearray(Cover(KEY).cover(b"secret"))
    covered[at] ^= 1
    with pytest.raises(CoverError):
        Cover(KEY).uncover(bytes(covered))


@pytest.mark.parametrize("value", [b"s", b"secret", b"a secret in the clear"])
def test_value_that_is_not_covered_or_of_another_node_is_refused(value: bytes) -> None:
    with pytest.raises(CoverError):
        Cover(KEY).uncover(value)
    with pytest.raises(CoverError):
        Cover(KEY).uncover(Cover(new_cover_key()).cover(value))


@pytest.mark.parametrize("value", ["ü\n", 1 << 80, -1.5, True, None, {"a": [1, {"b": "c"}]}, [], {}], ids=str)
def test_any_json_comes_back(value: object) -> None:
    cover = Cover(KEY)
    assert cover.uncover_values(cover.cover_values({"AuthMethod": value})) == {"AuthMethod": value}


def test_equal_values_are_equal_and_others_are_not() -> None:
    cover = Cover(KEY)
    one, other, third = ({"x": 1, "y": 2}, {"y": 2, "x": 1}, {"x": 1, "y": 3})
    assert cover.cover_values({"m": one}) == cover.cover_values({"m": other}) != cover.cover_values({"m": third})


def test_key_is_handed_over_whole_or_not_at_all() -> None:
    ours, theirs = socket.socketpair()
    hand_over(KEY, ours)
    assert take_over(theirs) == KEY
    ours, theirs = socket.socketpair()
    ours.sendall(KEY[:-1])
    ours.close()
    with pytest.raises(CoverError, match="no key"):
        take_over(theirs)
