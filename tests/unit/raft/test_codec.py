"""Frames and entries: what a node writes is read back; what no node writes is refused before it gets anywhere."""

import contextlib
import pickle
import tracemalloc
from dataclasses import replace
from typing import Any, ClassVar

import msgpack
import pysyncobj.journal
import pysyncobj.pickle
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cluster.base.names import MAX_ADDRESS_LENGTH, is_address
from cluster.raft import codec
from cluster.raft.codec import FRAME_HEADER, MAX_COMMAND_BYTES, Message, MessageInvalid, pack_frame, unpack_message
from cluster.raft.membership import MAX_NAME_LENGTH, ChangeKind, Member, MembershipChange
from cluster.tls.keys import KEY_BYTES

ENTRY = (b"\x01", 7, 3)
KEY, NEXT_KEY = b"k" * KEY_BYTES, b"n" * KEY_BYTES
MESSAGES: list[Message] = [
    {"type": "hello", "ct": 0, "address": "127.0.0.1:8300"},
    {
        "type": "append_entries",
        "ct": 3,
        "term": 3,
        "commit_index": 6,
        "prevLogIdx": 6,
        "prevLogTerm": 2,
        "entries": (ENTRY, (b"\0command", 8, 3)),
        "epoch": 1,
    },
    {"type": "offer_snapshot", "ct": 3, "term": 3, "log_index": None, "epoch": 0},
    {"type": "offer_snapshot", "ct": 3, "term": 3, "log_index": 12, "epoch": 0},
    {"type": "next_node_idx", "ct": 3, "next_node_idx": 9, "reset": False, "success": True, "epoch": 1},
    {"type": "request_vote", "ct": 4, "term": 4, "last_log_index": 8, "last_log_term": 3},
    {"type": "response_vote", "ct": 4, "term": 4, "is_fresh": False},
    {"type": "timeout_now", "ct": 4, "term": 4},
    {"type": "term_notice", "ct": 4, "term": 4},
    {"type": "pre_vote", "ct": 3, "term": 4, "last_log_index": 8, "last_log_term": 3, "round": 2},
    {"type": "pre_vote_granted", "ct": 3, "round": 2, "is_fresh": True},
    {"type": "confirm_leader", "ct": 3, "round": 1, "term": 3},
    {"type": "leader_confirmed", "ct": 3, "round": 1, "term": 3},
    {"type": "read_index", "ct": 3, "request": 5},
    {"type": "read_index_reply", "ct": 3, "request": 5, "log_index": None},
    {"type": "who_is", "ct": 3, "name": "node-4"},
    {"type": "is_server", "ct": 3, "name": "node-4", "keys": (KEY,)},
    {"type": "pull_snapshot", "ct": 3, "log_index": 12, "offset": 0},
    {"type": "snapshot_part", "ct": 3, "log_index": 12, "offset": 0, "total": 4, "data": b"data"},
    {"type": "pull_bulk", "ct": 3, "log_index": 12, "after": 0},
    {"type": "bulk_part", "ct": 3, "log_index": 12, "after": 0, "data": b"data", "is_last": True},
]
ids = [message["type"] for message in MESSAGES]


_MIB = 1 << 20
FILLED = {
    "empty maps": b"\x80",
    "lists of one": b"\x91\xc0",
    "short texts": b"\xa2ab",
    "numbers": b"\xca\x3f\x80\x00\x01",
    "maps of one": b"\x81\xa0\xc0",
    "maps of sixteen maps": b"\x8f" + b"\xa0\x80" * 15,
}


@pytest.mark.parametrize("what", FILLED)
@pytest.mark.parametrize("is_in_message", [False, True])
def test_largest_frame_takes_up_little_more_than_itself_whatever_is_in_it(what: str, is_in_message: bool) -> None:
    """One frame must not fill the memory of the node that gets it."""
    piece = FILLED[what]
    pieces = (codec.MAX_FRAME_BYTES - 100) // len(piece)
    value = b"\xdd" + pieces.to_bytes(4, "big") + piece * pieces
    data = b"\x82\xa4type\xa8read_index\xa7entries" + value if is_in_message else value
    tracemalloc.start()
    try:
        with pytest.raises(MessageInvalid):
            unpack_message(data)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 2 * _MIB


@pytest.mark.parametrize("size", [60 << 10, 1 * _MIB, codec.MAX_FRAME_BYTES])
@pytest.mark.parametrize("entry", [b"\xa8%08x\xc0", b"\xc4\x08%08x\x00"], ids=["texts", "bytes"])
def test_one_map_as_wide_as_the_frame_is_refused_before_it_is_made(entry: bytes, size: int) -> None:
    pieces = (size - 100) // len(entry % 0)
    data = b"\xdf" + pieces.to_bytes(4, "big") + b"".join(entry % number for number in range(pieces))
    tracemalloc.start()
    try:
        with pytest.raises(MessageInvalid, match="max_map_len"):
            unpack_message(data)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 100 << 10


def test_maps_in_a_frame_that_may_have_lists_are_refused_at_the_second_one() -> None:
    pieces = 3 * _MIB
    data = b"\xdd" + pieces.to_bytes(4, "big") + b"\x80" * pieces
    with pytest.raises(MessageInvalid, match="more than one map"):
        unpack_message(data)


def test_largest_messages_are_understood() -> None:
    rows: Message = {
        "type": "bulk_part",
        "ct": 3,
        "log_index": 1,
        "after": 0,
        "data": bytes(12 * _MIB),
        "is_last": True,
    }
    entries = tuple((bytes([codec.REGULAR]) + bytes(99), index, 3) for index in range(2 * _MIB // 100))
    append: Message = {**MESSAGES[1], "entries": entries}
    for message in (rows, append):
        assert unpack_message(pack_frame(message)[FRAME_HEADER.size :]) == message


def packed(message: Any) -> bytes:
    data: bytes = msgpack.packb(message)
    return data


# -- messages


def test_samples_cover_every_message_type() -> None:
    assert {message["type"] for message in MESSAGES} == set(codec._SCHEMA)


@pytest.mark.parametrize("message", MESSAGES, ids=ids)
def test_message_survives_the_wire(message: Message) -> None:
    frame = pack_frame(message)
    assert FRAME_HEADER.unpack_from(frame)[0] == len(frame) - FRAME_HEADER.size
    assert unpack_message(frame[FRAME_HEADER.size :]) == message


@pytest.mark.parametrize("message", MESSAGES, ids=ids)
def test_message_with_a_field_missing_or_added_is_refused(message: Message) -> None:
    for name in message:
        with pytest.raises(MessageInvalid):
            unpack_message(packed({key: value for key, value in message.items() if key != name}))
    with pytest.raises(MessageInvalid):
        unpack_message(packed({**message, "more": 1}))


@pytest.mark.parametrize("message", MESSAGES, ids=ids)
def test_field_of_a_wrong_type_is_refused(message: Message) -> None:
    wrongs: list[Any] = [-1, 1 << 63, 1.5, "x" * 256, [], {}, b"", [1]]
    for name in message:
        for wrong in [*wrongs, True] if type(message[name]) is not bool else wrongs:
            if type(wrong) is type(message[name]) is bytes or (name == "entries" and wrong == []):
                continue
            with pytest.raises(MessageInvalid):
                unpack_message(packed({**message, name: wrong}))


@pytest.mark.parametrize(
    "entry",
    [
        (b"", 7, 3),
        (b"x" * (MAX_COMMAND_BYTES + 1), 7, 3),
        ("text", 7, 3),
        (b"x", -1, 3),
        (b"x", 7, True),
        (b"x", 7),
        (b"x", 7, 3, 1),
        b"x",
        None,
    ],
)
def test_entry_of_a_wrong_form_is_refused(entry: Any) -> None:
    with pytest.raises(MessageInvalid, match="entries"):
        unpack_message(packed({**MESSAGES[1], "entries": [ENTRY, entry]}))


def test_largest_entry_is_accepted() -> None:
    message = {**MESSAGES[1], "entries": ((b"x" * MAX_COMMAND_BYTES, 7, 3),)}
    assert unpack_message(packed(message)) == message


@pytest.mark.parametrize("kind", ["apply_command", "apply_command_response", "", "HELLO", 1, None, b"hello", ["hello"]])
def test_unknown_message_type_is_refused(kind: Any) -> None:
    """PySyncObj's own forwarding among them."""
    with pytest.raises(MessageInvalid):
        unpack_message(packed({"type": kind, "ct": 0, "address": "a"}))


class Harmful:
    """What unpickling this does shows in `victims`."""

    victims: ClassVar[list[str]] = []

    def __reduce__(self) -> tuple[Any, ...]:
        return Harmful.victims.append, ("executed",)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xc1",
        b"garbage that is no msgpack",
        packed(MESSAGES[0])[:-1],
        packed(MESSAGES[0]) + b"\0",
        packed([1, 2]),
        packed("hello"),
        b"\x91" * 5000,
        b"\xdf\xff\xff\xff\xff",  # a map of 2**32-1 items
        b"\xc6\xff\xff\xff\xff",  # 4 GiB of bytes
        b"\x81\x91\x01\x01",  # a key that is no text
        packed({1: 2}),
        packed({"type": "hello", "ct": 0, "address": msgpack.Timestamp(1)}),
        packed({"type": "hello", "ct": 0, "address": msgpack.ExtType(5, b"x")}),
    ],
)
def test_garbage_is_refused(data: bytes) -> None:
    with pytest.raises(MessageInvalid):
        unpack_message(data)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_pickle_is_refused_and_not_executed(protocol: int) -> None:
    data = pickle.dumps(Harmful(), protocol)
    for load in (unpack_message, codec.unpack_batch, lambda data: codec.unpack_batch(b"\0" + data)):
        with pytest.raises(MessageInvalid):
            load(data)
    with pytest.raises(MessageInvalid):
        codec.unpack_change(bytes([codec.MEMBERSHIP]) + data)
    assert Harmful.victims == []


def test_no_pickle_function_of_the_library_works() -> None:
    for module in (pysyncobj.pickle, pysyncobj.journal):
        for name in ("dumps", "loads", "dump", "load"):
            if hasattr(module, name):
                with pytest.raises(RuntimeError, match="pickle is disabled"):
                    getattr(module, name)(b"x")


@settings(deadline=None, max_examples=200, derandomize=True)
@given(st.sampled_from(MESSAGES), st.data())
def test_any_flipped_byte_gives_a_message_of_the_schema_or_is_refused(message: Message, data: st.DataObject) -> None:
    encoded = bytearray(packed(message))
    encoded[data.draw(st.integers(0, len(encoded) - 1))] ^= data.draw(st.integers(1, 255))
    try:
        found = unpack_message(bytes(encoded))
    except MessageInvalid:
        return
    assert found.keys() == {"type", "ct", *codec._SCHEMA[found["type"]]}


@settings(deadline=None, max_examples=200, derandomize=True)
@given(st.binary(max_size=100))
def test_any_bytes_are_refused_by_the_declared_error_only(data: bytes) -> None:
    for load in (unpack_message, codec.unpack_batch, codec.unpack_change):
        with contextlib.suppress(MessageInvalid):
            load(data)


# -- entries


def test_batch_survives_the_log() -> None:
    command = codec.pack_batch(1 << 62, 7, [b"one", b"", b"three"])
    assert command[0] == codec.REGULAR
    assert codec.unpack_batch(command) == (1 << 62, 7, [b"one", b"", b"three"])


@pytest.mark.parametrize(
    "value", [[2, 1, 1, []], [1, 1, 1], [1, "1", 1, []], [1, 1, True, []], [1, 1, 1, ["x"]], 1, {}]
)
def test_batch_of_an_unknown_form_is_refused(value: Any) -> None:
    with pytest.raises(MessageInvalid):
        codec.unpack_batch(b"\0" + packed(value))


MEMBER = Member("node-1", "127.0.0.1:8300", "127.0.0.1:8400", is_voter=False)


@pytest.mark.parametrize("kind", list(ChangeKind))
def test_membership_change_survives_the_log(kind: ChangeKind) -> None:
    change = MembershipChange(kind, MEMBER)
    assert codec.unpack_change(bytes([codec.MEMBERSHIP]) + codec.pack_change(change)) == change


@pytest.mark.parametrize("kind", list(ChangeKind))
@pytest.mark.parametrize(
    ("keys", "keys_before", "was_removed"),
    [((KEY,), (), False), ((KEY, NEXT_KEY), (KEY,), False), ((), (KEY,), False), ((), (), True)],
)
def test_keys_survive_the_log(
    kind: ChangeKind, keys: tuple[bytes, ...], keys_before: tuple[bytes, ...], was_removed: bool
) -> None:
    change = MembershipChange(kind, replace(MEMBER, keys=keys), keys_before, was_removed)
    assert codec.unpack_change(bytes([codec.MEMBERSHIP]) + codec.pack_change(change)) == change


def test_change_without_keys_is_written_as_the_release_before_reads_it() -> None:
    packed_change = codec.pack_change(MembershipChange(ChangeKind.LEARN, MEMBER))
    assert msgpack.unpackb(packed_change) == [1, "learn", "node-1", "127.0.0.1:8300", "127.0.0.1:8400", False]


@pytest.mark.parametrize(
    ("keys", "keys_before", "was_removed"),
    [
        ([b"short"], [], False),
        (["k" * KEY_BYTES], [], False),
        (3 * [KEY], [], False),
        ([], [b""], False),
        ([], [], 1),
        (KEY, [], False),
    ],
)
def test_keys_of_a_wrong_form_are_refused(keys: Any, keys_before: Any, was_removed: Any) -> None:
    value = [2, "pin", "a", "a:1", "a:2", True, keys, keys_before, was_removed]
    with pytest.raises(MessageInvalid, match="keys"):
        codec.unpack_change(bytes([codec.MEMBERSHIP]) + packed(value))


def test_address_that_a_configuration_may_have_is_taken_from_the_log_and_from_peers() -> None:
    longest = "h" * (MAX_ADDRESS_LENGTH - 5) + ":8300"
    assert is_address(longest)
    change = MembershipChange(ChangeKind.LEARN, Member("a", longest, longest))
    assert codec.unpack_change(bytes([codec.MEMBERSHIP]) + codec.pack_change(change)) == change
    hello = {"type": "hello", "ct": 0, "address": longest}
    assert unpack_message(pack_frame(hello)[FRAME_HEADER.size :]) == hello


@pytest.mark.parametrize("command", [codec.NO_OP_COMMAND, codec.pack_batch(1, 1, [b"x"]), b""])
def test_other_entries_are_no_membership_changes(command: bytes) -> None:
    assert codec.unpack_change(command) is None


@pytest.mark.parametrize(
    "value",
    [
        [2, "learn", "a", "a:1", "a:2", True],
        [1, "explode", "a", "a:1", "a:2", True],
        [1, "learn", "", "a:1", "a:2", True],
        [1, "learn", "a" * (MAX_NAME_LENGTH + 1), "a:1", "a:2", True],
        [1, "learn", "a", "a" * 256, "a:2", True],
        [1, "learn", "a", "a:1", "a:2", 1],
        [1, "learn", "a", "a:1", "a:2"],
        [1, ["learn"], "a", "a:1", "a:2", True],
        [1, {}, "a", "a:1", "a:2", True],
        [1, "learn", b"a", "a:1", "a:2", True],
        "learn",
    ],
)
def test_membership_change_of_an_unknown_form_is_refused(value: Any) -> None:
    with pytest.raises(MessageInvalid):
        codec.unpack_change(bytes([codec.MEMBERSHIP]) + packed(value))
