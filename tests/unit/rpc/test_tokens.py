"""Tokens beside a message between nodes: whatever a client has sent, and nothing that a header could be broken by."""

import random

import pytest

from cluster.api.access import MAX_SECRET_ID
from cluster.rpc import batches
from cluster.rpc.operation import NotUnderstood
from cluster.rpc.tokens import pack_tokens, unpack_tokens

UUID = "0b5a33bd-2a5c-4c3c-8d5a-111111111111"
ONE = (UUID, "")
NOBODY = ("", "")


def test_nothing_is_sent_for_nobody() -> None:
    assert pack_tokens([NOBODY] * 3) == pack_tokens([]) == ""
    assert unpack_tokens("", 3) == [NOBODY] * 3


@pytest.mark.parametrize(
    "secret_ids",
    [
        [UUID],
        ["", UUID, ""],
        [UUID, "", "x"],
        ["a,b\r\nX-Evil: 1", "\0", " ", "ä€😀", "\ud800"],
        ["x" * MAX_SECRET_ID, "😀" * MAX_SECRET_ID],
    ],
)
@pytest.mark.parametrize("address", ["", "10.0.0.7", "fe80::1%eth0", "\r\nX-Evil: 1, .", "x" * 64])
def test_each_request_keeps_its_own(secret_ids: list[str], address: str) -> None:
    asks = [(secret_id, address if number % 2 else "") for number, secret_id in enumerate(secret_ids)]
    packed = pack_tokens(asks)
    assert packed.isascii()
    assert not {*packed} & {*"\r\n \0"}
    assert unpack_tokens(packed, len(asks)) == asks


@pytest.mark.parametrize(
    ("text", "count"),
    [
        (pack_tokens([ONE]), 2),
        (pack_tokens([ONE, ONE]), 1),
        (pack_tokens([ONE, ONE, ONE]), 2),
        ("?", 1),
        ("a", 1),
        ("YQ==", 1),
        ("gICA", 1),  # bytes that are no UTF-8
        (pack_tokens([("x" * (MAX_SECRET_ID + 1), "")]), 1),
        ("A" * 10_000, 1),
        (",", 1),
        ("x", 0),
        (f"{pack_tokens([ONE])}.", 1),
        (f"{pack_tokens([ONE])}.YQ.YQ", 1),
        (f".{pack_tokens([('x' * 66, '')])}", 1),
        (".gICA", 1),
    ],
)
def test_other_headers_are_refused_whole(text: str, count: int) -> None:
    with pytest.raises(NotUnderstood):
        unpack_tokens(text, count)


@pytest.mark.parametrize("seed", range(20))
def test_no_header_raises_anything_else(seed: int) -> None:
    rng = random.Random(seed)
    for _ in range(200):
        text = "".join(rng.choice("AZaz09-_=,.+/ \u00e9") for _ in range(rng.randrange(40)))
        try:
            found = unpack_tokens(text, rng.randrange(4))
        except NotUnderstood:
            continue
        assert all(len(one.secret_id) <= MAX_SECRET_ID and len(one.asked_from) <= 64 for one in found)


def test_address_of_any_length_is_cut_before_it_is_sent() -> None:
    [one] = unpack_tokens(pack_tokens([("", "y" * 5000)]), 1)
    assert one == ("", "y" * 64)


def test_tokens_of_a_whole_batch_fit_into_one_header() -> None:
    """Of aiohttp, which serves the port: it refuses the request with a longer one."""
    of_tokens = pack_tokens([ONE] * batches._BATCH_ITEMS)
    assert len(of_tokens) < 8190 / 2
