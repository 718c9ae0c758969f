"""msgpack <-> commands and State: the only place that knows how they look in the log and in snapshots.

A dataclass is a list of its fields in order. Formats grow at the end only: a field added later needs a default, and
then data of older versions still loads. While such fields (fields.ADDED) have their defaults they are left out, so what
does not need them is written as ever. Anything else is a new FORMAT_VERSION with its own reader.
tests/unit/fsm/golden holds files of every version; they must load for ever.
"""

import dataclasses
import types
import typing
from collections.abc import Callable
from enum import StrEnum
from typing import Any, Final

import msgpack

from fsm.ca import (
    AbortRotation,
    AdvanceRotation,
    BeginRotation,
    FinishRotation,
    InitConfig,
    InitSeal,
    RenewSigning,
    SetConfig,
    SetProviderState,
    SetRoots,
    SetRootsConfig,
)
from fsm.commands import Command, RestoreCA
from fsm.leaves import RecordLeaves, TidyLedger
from fsm.state import State

FORMAT_VERSION: Final = 1

#: The numbers are in logs: never reuse one.
_COMMAND_CODES: Final[dict[type, int]] = {
    InitSeal: 1,
    InitConfig: 2,
    SetProviderState: 3,
    SetRootsConfig: 4,
    SetConfig: 5,
    RecordLeaves: 6,
    TidyLedger: 7,
    SetRoots: 8,
    BeginRotation: 9,
    AdvanceRotation: 10,
    FinishRotation: 11,
    AbortRotation: 12,
    RestoreCA: 13,
    RenewSigning: 14,
}


class CodecError(ValueError):
    """The bytes are not a command or state of a version that this node knows."""


_Encoder = Callable[[Any], Any]
_Decoder = Callable[[Any], Any]


def _scalar(kind: type) -> tuple[_Encoder, _Decoder]:
    def decode(value: Any) -> Any:
        if type(value) is not kind:  # exactly: a bool is no int here, and bytes are no str
            raise CodecError(f"expected {kind.__name__}, found {type(value).__name__}")
        return value

    return lambda value: value, decode


def _named(kind: type[StrEnum]) -> tuple[_Encoder, _Decoder]:
    def decode(value: Any) -> Any:
        if type(value) is not str or value not in set(kind):
            raise CodecError(f"{value!r:.50} is no {kind.__name__}")
        return kind(value)

    return lambda value: value.value, decode


def _optional(inner: tuple[_Encoder, _Decoder]) -> tuple[_Encoder, _Decoder]:
    encode, decode = inner
    return (
        lambda value: None if value is None else encode(value),
        lambda value: None if value is None else decode(value),
    )


def _sequence(inner: tuple[_Encoder, _Decoder]) -> tuple[_Encoder, _Decoder]:
    encode, decode_item = inner

    def decode(value: Any) -> Any:
        if type(value) is not list:
            raise CodecError(f"expected a list, found {type(value).__name__}")
        return tuple([decode_item(item) for item in value])

    return lambda value: [encode(item) for item in value], decode


def _pair(inner: list[tuple[_Encoder, _Decoder]]) -> tuple[_Encoder, _Decoder]:
    def decode(value: Any) -> Any:
        if type(value) is not list or len(value) != len(inner):
            raise CodecError(f"expected a list of {len(inner)}")
        return tuple([decode_item(item) for (_, decode_item), item in zip(inner, value, strict=True)])

    return lambda value: [encode(item) for (encode, _), item in zip(inner, value, strict=True)], decode


def _record(kind: type) -> tuple[_Encoder, _Decoder]:
    hints = typing.get_type_hints(kind)
    fields = dataclasses.fields(kind)
    names = [field.name for field in fields]
    encoders = [(field.name, _codec(hints[field.name])[0]) for field in fields]
    decoders = [_codec(hints[field.name])[1] for field in fields]
    required = sum(field.default is dataclasses.MISSING for field in fields)
    added = [(field.name, field.default) for field in fields if field.metadata.get("added")]
    if [field.name for field in fields[len(fields) - len(added) :]] != [name for name, _ in added]:
        raise TypeError(f"{kind.__name__}: added fields must be the last ones")

    def encode(value: Any) -> Any:
        encoded = [encode_field(getattr(value, name)) for name, encode_field in encoders]
        for name, default in reversed(added):
            if getattr(value, name) != default:
                break
            encoded.pop()
        return encoded

    def decode(value: Any) -> Any:
        if type(value) is not list or not required <= len(value) <= len(names):
            raise CodecError(f"expected the {len(names)} fields of {kind.__name__}")
        return kind(*[decode_field(item) for decode_field, item in zip(decoders, value, strict=False)])

    return encode, decode


def _codec(hint: Any) -> tuple[_Encoder, _Decoder]:
    if hint in (int, str, bytes, bool):
        return _scalar(hint)
    if isinstance(hint, type) and issubclass(hint, StrEnum):
        return _named(hint)
    if dataclasses.is_dataclass(hint):
        return _record(typing.cast(type, hint))
    arguments = typing.get_args(hint)
    if typing.get_origin(hint) is tuple:
        if len(arguments) == 2 and arguments[1] is Ellipsis:
            return _sequence(_codec(arguments[0]))
        return _pair([_codec(argument) for argument in arguments])
    if typing.get_origin(hint) in (typing.Union, types.UnionType) and types.NoneType in arguments:
        return _optional(_codec(next(argument for argument in arguments if argument is not types.NoneType)))
    raise TypeError(f"no wire form for {hint!r}")


_COMMANDS: Final = {kind: (code, *_record(kind)) for kind, code in _COMMAND_CODES.items()}
_COMMAND_DECODERS: Final = {code: decode for code, _, decode in _COMMANDS.values()}
_ENCODE_STATE, _DECODE_STATE = _record(State)


def dump_command(command: Command) -> bytes:
    code, encode, _ = _COMMANDS[type(command)]
    data: bytes = msgpack.packb([FORMAT_VERSION, code, encode(command)])
    return data


def load_command(data: bytes) -> Command:
    """Raises: CodecError."""
    version, code, fields = _unpack(data, 3)
    decode = _COMMAND_DECODERS.get(code) if type(code) is int else None
    if version != FORMAT_VERSION or decode is None:
        raise CodecError(f"command {code!r} of format {version!r} is not known")
    return typing.cast(Command, decode(fields))


def dump_state(state: State) -> bytes:
    """The same bytes for equal states on every node: what the state digest is taken over."""
    data: bytes = msgpack.packb([FORMAT_VERSION, _ENCODE_STATE(state)])
    return data


def load_state(data: bytes) -> State:
    """Raises: CodecError."""
    version, fields = _unpack(data, 2)
    if version != FORMAT_VERSION:
        raise CodecError(f"state of format {version!r} is not known")
    return typing.cast(State, _DECODE_STATE(fields))


def _unpack(data: bytes, length: int) -> list[Any]:
    try:
        value = msgpack.unpackb(data)
    except (ValueError, msgpack.UnpackException) as error:
        raise CodecError(f"not msgpack: {error}") from error
    if type(value) is not list or len(value) != length:
        raise CodecError(f"expected a list of {length}")
    return value
