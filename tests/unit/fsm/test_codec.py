"""The codec reads back what it wrote, and refuses everything else with the one declared error."""

import dataclasses
from typing import Any

import msgpack
import pytest

from fsm import codec
from fsm.codec import CodecError
from fsm.commands import Command
from fsm.leaves import RecordLeaves
from fsm.state import State
from tests.kit import samples

NAMES = sorted(samples.COMMANDS)


@pytest.mark.parametrize("name", NAMES)
def test_command_survives_the_log(name: str) -> None:
    command = samples.COMMANDS[name]
    assert codec.load_command(codec.dump_command(command)) == command


def test_samples_cover_every_kind_of_command() -> None:
    assert {type(command) for command in samples.COMMANDS.values()} == set(Command.__args__)


@pytest.mark.parametrize(
    "state",
    [State(), samples.configured(), samples.ready(), samples.full_state()],
    ids=["new", "config", "root", "full"],
)
def test_state_survives_a_snapshot(state: State) -> None:
    assert codec.load_state(codec.dump_state(state)) == state


def test_equal_states_have_equal_bytes() -> None:
    """What the state digest stands on: the way to a state leaves no trace in its encoding."""
    loaded = codec.load_state(codec.dump_state(samples.full_state()))
    assert codec.dump_state(loaded) == codec.dump_state(samples.full_state())


@pytest.mark.parametrize("version", [0, codec.FORMAT_VERSION + 1, -1, "1", None])
def test_other_format_version_is_refused(version: Any) -> None:
    _, code, fields = msgpack.unpackb(codec.dump_command(samples.COMMANDS["tidy_ledger"]))
    with pytest.raises(CodecError, match="format"):
        codec.load_command(msgpack.packb([version, code, fields]))
    with pytest.raises(CodecError, match="format"):
        codec.load_state(msgpack.packb([version, msgpack.unpackb(codec.dump_state(State()))[1]]))


@pytest.mark.parametrize("code", [0, 15, 99, -1, True, "1", None, [1]])
def test_unknown_command_code_is_refused(code: Any) -> None:
    with pytest.raises(CodecError, match="not known"):
        codec.load_command(msgpack.packb([codec.FORMAT_VERSION, code, [1]]))


@pytest.mark.parametrize("name", NAMES)
def test_command_cut_anywhere_is_refused(name: str) -> None:
    data = codec.dump_command(samples.COMMANDS[name])
    for end in range(len(data)):
        with pytest.raises(CodecError):
            codec.load_command(data[:end])


def test_state_cut_anywhere_is_refused() -> None:
    data = codec.dump_state(samples.full_state())
    for end in range(len(data)):
        with pytest.raises(CodecError):
            codec.load_state(data[:end])


@pytest.mark.parametrize("tail", [b"\0", b"\xc0", b"\x93\x01\x01\x90"])
def test_bytes_behind_the_end_are_refused(tail: bytes) -> None:
    with pytest.raises(CodecError):
        codec.load_command(codec.dump_command(samples.COMMANDS["tidy_ledger"]) + tail)
    with pytest.raises(CodecError):
        codec.load_state(codec.dump_state(State()) + tail)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"garbage",
        b"\x80\x04\x95K\x05.",  # pickle
        b"\x91" * 2000,  # nested deeper than any reader follows
        b"\xdd\xff\xff\xff\xff",  # an array of 2**32-1 items
        b"\xc6\xff\xff\xff\xff",  # 4 GiB of bytes
        b"\xc7\x01\x05x",  # extension type
        b"\xd6\xff\0\0\0\0",  # timestamp
        b"\xc1",  # never used by msgpack
        b"\x81\x90\x01",  # a map whose key is a list
        msgpack.packb({"version": 1}),
        msgpack.packb(1),
        msgpack.packb([1]),
        msgpack.packb([1, 1, [], 0]),
    ],
)
def test_garbage_is_refused(data: bytes) -> None:
    with pytest.raises(CodecError):
        codec.load_command(data)
    with pytest.raises(CodecError):
        codec.load_state(data)


@pytest.mark.parametrize(
    "fields",
    [
        ["1"],  # text for a number
        [1.0],
        [True],  # a bool is no int
        [None],
        [[1]],
        [],  # a field is missing
        [1, 2],  # one too many
        {"expired_before": 1},
        1,
    ],
)
def test_field_of_a_wrong_type_is_refused(fields: Any) -> None:
    with pytest.raises(CodecError):
        codec.load_command(msgpack.packb([codec.FORMAT_VERSION, 7, fields]))


@pytest.mark.parametrize("pair", [["only one"], ["one", "two", "three"], "ab", [1, 2], None])
def test_pair_that_is_none_is_refused(pair: Any) -> None:
    version, fields = msgpack.unpackb(codec.dump_state(samples.ready()))
    config = [field.name for field in dataclasses.fields(State)].index("config")
    fields[config][4] = [pair]
    with pytest.raises(CodecError):
        codec.load_state(msgpack.packb([version, fields]))


def test_text_and_bytes_are_not_mixed_up() -> None:
    version, code, fields = msgpack.unpackb(codec.dump_command(samples.COMMANDS["record_leaves"]))
    fields[0] = fields[0].decode()
    with pytest.raises(CodecError, match="expected bytes, found str"):
        codec.load_command(msgpack.packb([version, code, fields]))


def test_entry_made_before_a_field_with_a_default_was_added_still_loads() -> None:
    """Formats grow at the end: here `request_id` of a record is left out, as an older node would."""
    command = RecordLeaves(samples.ISSUER, (samples.record(1),))
    version, code, fields = msgpack.unpackb(codec.dump_command(command))
    fields[1] = [record[:8] for record in fields[1]]
    assert codec.load_command(msgpack.packb([version, code, fields])) == command
