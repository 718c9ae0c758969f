"""msgpack <-> commands and State: the only place that knows how they look in the log and in snapshots.

A dataclass is a list of its fields in order. Formats grow at the end only: a field added later needs a default, and
then data of older versions still loads. While such fields (fields.ADDED) have their defaults they are left out, so what
does not need them is written as ever. Anything else is a new FORMAT_VERSION with its own reader.
tests/unit/fsm/golden holds files of every version; they must load for ever.

Each field has bounds (fsm/fields.py), which `check_command` holds a command to before it is proposed. Reading looks at
types alone: what is in a log is applied.
"""

import dataclasses
import types
import typing
from collections.abc import Callable, Sequence
from enum import StrEnum
from functools import cache
from typing import Any, Final, NamedTuple

import msgpack

from fsm.acl import (
    BootstrapAcl,
    DeleteAuthMethod,
    DeleteBindingRule,
    DeletePolicy,
    DeleteRole,
    DeleteTokens,
    InitAcl,
    SetAuthMethod,
    SetBindingRule,
    SetPolicy,
    SetRole,
    SetToken,
)
from fsm.ca import (
    AbortRotation,
    AdvanceRotation,
    BeginRotation,
    FinishRotation,
    InitConfig,
    InitSeal,
    RenewSigning,
    Reseal,
    SetConfig,
    SetProviderState,
    SetRoots,
    SetRootsConfig,
)
from fsm.commands import Command, RestoreCA
from fsm.fields import MAX_INDEX, Bound
from fsm.leaves import LeafRecord, RecordLeaves, TidyLedger
from fsm.nodes import AddJoinToken, SetAgentCA, TakeJoinToken
from fsm.state import Area, State

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
    Reseal: 20,
    InitAcl: 21,
    BootstrapAcl: 22,
    SetPolicy: 23,
    SetRole: 24,
    SetToken: 25,
    SetAuthMethod: 26,
    SetBindingRule: 27,
    DeletePolicy: 28,
    DeleteRole: 29,
    DeleteTokens: 30,
    DeleteAuthMethod: 31,
    DeleteBindingRule: 32,
    SetAgentCA: 33,
    AddJoinToken: 34,
    TakeJoinToken: 35,
}


class CodecError(ValueError):
    """The bytes are not a command or state that this node knows: of a newer release perhaps."""


class Malformed(CodecError):
    """They are of a format that this node knows, and no release has ever written or would apply them."""


class OutOfBounds(ValueError):
    """A value that may not be proposed. The text names the field, the value and what is allowed."""

    def __init__(self, what: str, where: str = "") -> None:
        super().__init__(f"{where} {what}" if where else what)
        self._what = what
        self._where = where

    def inside(self, outer: str) -> "OutOfBounds":
        """The same of what holds the value. So a place is put together only where something is wrong with it."""
        return OutOfBounds(self._what, f"{outer}{self._where}")


_Encoder = Callable[[Any], Any]
_Decoder = Callable[[Any], Any]
#: Whether the value may be proposed. Raises: OutOfBounds, which says where in the value something is wrong.
_Checker = Callable[[Any], None]


class _Form(NamedTuple):
    """What one type of value is like."""

    encode: _Encoder
    decode: _Decoder
    check: _Checker


def _scalar(kind: type) -> _Form:
    def decode(value: Any) -> Any:
        if type(value) is not kind:  # exactly: a bool is no int here, and bytes are no str
            raise Malformed(f"expected {kind.__name__}, found {type(value).__name__}")
        return value

    def check(value: Any) -> None:
        # An IntEnum is an int, and written as one; a bool is not.
        if type(value) is not kind and (not isinstance(value, kind) or isinstance(value, bool)):
            raise OutOfBounds(f"is of type {type(value).__name__}: must be {kind.__name__}")

    return _Form(lambda value: value, decode, check)


def _named(kind: type[StrEnum]) -> _Form:
    def decode(value: Any) -> Any:
        if type(value) is not str:
            raise Malformed(f"expected {kind.__name__}, found {type(value).__name__}")
        if value not in set(kind):
            raise CodecError(f"{value!r:.50} is no {kind.__name__}")
        return kind(value)

    def check(value: Any) -> None:
        if not isinstance(value, kind):
            raise OutOfBounds(f"is {value!r:.50}: must be {', '.join(kind)}")

    return _Form(lambda value: value.value, decode, check)


def _optional(inner: _Form) -> _Form:
    encode, decode, check = inner

    def check_given(value: Any) -> None:
        if value is not None:
            check(value)

    return _Form(
        lambda value: None if value is None else encode(value),
        lambda value: None if value is None else decode(value),
        check_given,
    )


def _sequence(inner: _Form) -> _Form:
    encode, decode_item, check_item = inner

    def decode(value: Any) -> Any:
        if type(value) is not list:
            raise Malformed(f"expected a list, found {type(value).__name__}")
        return tuple([decode_item(item) for item in value])

    def check(value: Any) -> None:
        if type(value) is not tuple:
            raise OutOfBounds(f"is of type {type(value).__name__}: must be a tuple")
        for position, item in enumerate(value):
            try:
                check_item(item)
            except OutOfBounds as error:
                raise error.inside(f"[{position}]") from None

    return _Form(lambda value: [encode(item) for item in value], decode, check)


def _pair(inner: list[_Form]) -> _Form:
    def decode(value: Any) -> Any:
        if type(value) is not list or len(value) != len(inner):
            raise Malformed(f"expected a list of {len(inner)}")
        return tuple([form.decode(item) for form, item in zip(inner, value, strict=True)])

    def check(value: Any) -> None:
        if type(value) is not tuple or len(value) != len(inner):
            raise OutOfBounds(f"must be {len(inner)} values")
        for position, (form, item) in enumerate(zip(inner, value, strict=True)):
            try:
                form.check(item)
            except OutOfBounds as error:
                raise error.inside(f"[{position}]") from None

    return _Form(lambda value: [form.encode(item) for form, item in zip(inner, value, strict=True)], decode, check)


def _bounded(inner: _Form, bounds: Sequence[Bound], kind: Any) -> _Form:
    check_inner = inner.check
    wrongs = [bound.wrong for bound in bounds]

    def check(value: Any) -> None:
        if type(value) is not kind:  # what is exactly of the type needs no second look: this is asked for each leaf
            check_inner(value)
        for wrong in wrongs:
            if text := wrong(value):
                raise OutOfBounds(text)

    def check_sequence(value: Any) -> None:
        for wrong in wrongs if type(value) is tuple else ():
            if text := wrong(value):
                raise OutOfBounds(text)
        check_inner(value)  # lengths come first: what is too long is not looked at in detail

    return _Form(inner.encode, inner.decode, check_sequence if typing.get_origin(kind) is tuple else check)


@cache  # one for each type, and not for each place where it stands: they take a megabyte of every node
def _record(kind: type) -> _Form:
    hints = typing.get_type_hints(kind, include_extras=True)
    fields = dataclasses.fields(kind)
    names = [field.name for field in fields]
    forms = [_codec(hints[field.name], f"{kind.__name__}.{field.name}") for field in fields]
    encoders = [(name, form.encode) for name, form in zip(names, forms, strict=True)]
    decoders = [form.decode for form in forms]
    checkers = [(name, form.check) for name, form in zip(names, forms, strict=True)]
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
        if type(value) is not list or len(value) < required:
            raise Malformed(f"expected the {len(names)} fields of {kind.__name__}")
        if len(value) > len(names):
            raise CodecError(f"expected the {len(names)} fields of {kind.__name__}, found more")
        return kind(*[decode_field(item) for decode_field, item in zip(decoders, value, strict=False)])

    def check(value: Any) -> None:
        if type(value) is not kind:
            raise OutOfBounds(f"is of type {type(value).__name__}: must be {kind.__name__}")
        for name, check_field in checkers:
            try:
                check_field(getattr(value, name))
            except OutOfBounds as error:
                raise error.inside(f".{name}") from None

    return _Form(encode, decode, check)


def _codec(hint: Any, where: str) -> _Form:
    """Raises: TypeError for a field whose values would have no bounds."""
    if typing.get_origin(hint) is typing.Annotated:
        kind, *bounds = typing.get_args(hint)
        return _bounded(_unbounded(kind, where), bounds, kind)
    if hint in (int, str, bytes):
        raise TypeError(f"{where} has no bounds")
    return _unbounded(hint, where)


def _unbounded(hint: Any, where: str) -> _Form:
    if hint in (int, str, bytes, bool):
        return _scalar(hint)
    if isinstance(hint, type) and issubclass(hint, StrEnum):
        return _named(hint)
    if dataclasses.is_dataclass(hint):
        return _record(typing.cast(type, hint))
    arguments = typing.get_args(hint)
    if typing.get_origin(hint) is tuple:
        if len(arguments) == 2 and arguments[1] is Ellipsis:
            return _sequence(_codec(arguments[0], where))
        return _pair([_codec(argument, where) for argument in arguments])
    if typing.get_origin(hint) in (typing.Union, types.UnionType) and types.NoneType in arguments:
        return _optional(_codec(next(argument for argument in arguments if argument is not types.NoneType), where))
    raise TypeError(f"{where}: no wire form for {hint!r}")


_COMMANDS: Final = {kind: (code, _record(kind)) for kind, code in _COMMAND_CODES.items()}
_COMMAND_DECODERS: Final = {code: form.decode for code, form in _COMMANDS.values()}
_STATE: Final = _record(State)
_LEAF: Final = _record(LeafRecord)


# -- what may be proposed


def check_command(command: Command) -> None:
    """Raises: OutOfBounds for what must not get into the log: every node would have to apply it, for ever."""
    _, form = _COMMANDS[type(command)]
    _check(form, command, type(command).__name__)


def check_state(state: State) -> None:
    """The same of a state that comes from outside, to take the place of this one. Raises: OutOfBounds."""
    _check(_STATE, state, "State")


def check_leaf(record: LeafRecord) -> None:
    """The same of a record that comes from outside. Raises: OutOfBounds."""
    _check(_LEAF, record, "record")


def _check(form: _Form, value: Any, name: str) -> None:
    try:
        form.check(value)
    except OutOfBounds as error:
        raise error.inside(name) from None


# -- bytes


def dump_command(command: Command) -> bytes:
    code, form = _COMMANDS[type(command)]
    data: bytes = msgpack.packb([FORMAT_VERSION, code, form.encode(command)])
    return data


def load_command(data: bytes) -> Command:
    """Its types are right; bounds are not looked at, for older releases had none.

    Raises: Malformed for what no release has ever written; CodecError for what a newer one may have.
    """
    version, code, fields = _unpack(data, 3)
    _check_version(version, "command")
    decode = _COMMAND_DECODERS.get(code) if type(code) is int else None
    if decode is None:
        kind = CodecError if type(code) is int and code > max(_COMMAND_DECODERS) else Malformed
        raise kind(f"command {code!r:.50} of format {version} is not known")
    return typing.cast(Command, decode(fields))


def dump_state(state: State) -> bytes:
    """The same bytes for equal states on every node: what the state digest is taken over."""
    data: bytes = msgpack.packb([FORMAT_VERSION, _STATE.encode(state)])
    return data


def load_state(data: bytes) -> State:
    """As `load_command`; but what counts must be countable. Raises: Malformed, CodecError."""
    version, fields = _unpack(data, 2)
    _check_version(version, "state")
    state = typing.cast(State, _STATE.decode(fields))
    for name in ("index", *(area.value for area in Area), "roots_index"):
        if not 0 <= getattr(state, name) <= MAX_INDEX:
            raise Malformed(f"State.{name} is {getattr(state, name)}: must be from 0 to {MAX_INDEX}")
    return state


def _check_version(version: Any, what: str) -> None:
    if type(version) is not int or version < FORMAT_VERSION:
        raise Malformed(f"{what} of format {version!r:.50} is not known")
    if version > FORMAT_VERSION:
        raise CodecError(f"{what} of format {version} is not known: it is of a newer release")


def _unpack(data: bytes, length: int) -> list[Any]:
    try:
        value = msgpack.unpackb(data)
    except (ValueError, TypeError, ArithmeticError, RecursionError, msgpack.UnpackException) as error:
        raise Malformed(f"not msgpack: {error}") from error
    if type(value) is not list or len(value) != length:
        raise Malformed(f"expected a list of {length}")
    return value
