"""Tokens beside a message between nodes: whatever a client has sent, and nothing that a header could be broken by."""

import random

import pytest

from cluster.api.access import MAX_SECRET_ID
from cluster.rpc import batches
from cluster.rpc.operation import NotUnderstood
from cluster.rpc.tokens import pack_tokens, unpack_tokens

UUID = "0b5a33bd-2a5c-4c3c-8d5a-111111111111"


def test_nothing_is_sent_for_nobody() -> None:
    assert pack_tokens(["", "", ""]) == pack_tokens([]) == ""
    assert unpack_tokens("", 3) == ["", "", ""]


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
def test_each_request_keeps_its_own(secret_ids: list[str]) -> None:
    packed = pack_tokens(secret_ids)
    assert packed.isascii()
    assert not {*packed} & {*"\r\n \0"}
    assert unpack_tokens(packed, len(secret_ids)) == secret_ids


@pytest.mark.parametrize(
    ("text", "count"),
    [
        (pack_tokens([UUID]), 2),
        (pack_tokens([UUID, UUID]), 1),
        (pack_tokens([UUID, UUID, UUID]), 2),
        ("?", 1),
        ("a", 1),
        ("YQ==", 1),
        ("gICA", 1),  # bytes that are no UTF-8
        (pack_tokens(["x" * (MAX_SECRET_ID + 1)]), 1),
        ("A" * 10_000, 1),
        (",", 1),
        ("x", 0),
    ],
)
def test_other_headers_are_refused_whole(text: str, count: int) -> None:
    with pytest.raises(NotUnderstood):
        unpack_tokens(text, count)


@pytest.mark.parametrize("seed", range(20))
def test_no_header_raises_anything_else(seed: int) -> None:
    rng = random.Random(seed)
    for _ in range(200):
        text = "".join(rng.choice("AZaz09-_=,+/ \u00e9") for _ in range(rng.randrange(40)))
        try:
            found = unpack_tokens(text, rng.randrange(4))
        except NotUnderstood:
            continue
        assert all(len(one) <= MAX_SECRET_ID for one in found)


def test_tokens_of_a_whole_batch_fit_into_one_header() -> None:
    """Of aiohttp, which serves the port: it refuses the request with a longer one."""
    of_tokens = pack_tokens([UUID] * batches._BATCH_ITEMS)
    assert len(of_tokens) < 8190 / 2
