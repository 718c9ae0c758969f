"""Each field of each message between nodes has bounds: what another node says is looked at before anything is done."""

from collections.abc import Iterator
from typing import Any, Final

import msgpack
import msgspec
import pytest
from msgspec import inspect

from cluster.rpc import messages
from cluster.rpc.envelope import Envelope, Outcome
from cluster.rpc.messages import ProvenRowsRequest, RestoreRowsRequest, SignRequest
from cluster.rpc.operation import OLDEST, VERSION, Message, NotUnderstood, Operation
from fsm.fields import LAST_SECOND
from fsm.leaves import MAX_RECORDS, MAX_REQUESTER

OPERATIONS: Final[dict[str, Operation[Any, Any]]] = {
    found.name: found for found in vars(messages).values() if isinstance(found, Operation)
}
KINDS: Final[dict[str, type[Message]]] = {
    name: found for name, found in vars(messages).items() if isinstance(found, type) and issubclass(found, Message)
}
SERIAL: Final = (1 << 127).to_bytes(16, "big")
ROW: Final = [SERIAL, 1, "web", "spiffe://x", b"h" * 32, 0, 1, "me", b""]


def _unbounded(found: Any, where: str) -> Iterator[str]:
    match found:
        case inspect.IntType():
            # A ModifyIndex is whatever 64 bits can hold, and msgpack holds no more.
            if found.ge is None or (found.le is None and not where.endswith("modify_index")):
                yield where
        case inspect.StrType() | inspect.BytesType():
            if found.max_length is None:
                yield where
        case inspect.ListType() | inspect.VarTupleType():
            if found.max_length is None:
                yield where
            yield from _unbounded(found.item_type, f"{where}[]")
        case inspect.DictType():
            if found.max_length is None:
                yield where
            yield from _unbounded(found.key_type, f"{where}.key")
            yield from _unbounded(found.value_type, f"{where}.value")
        case inspect.UnionType():
            for kind in found.types:
                yield from _unbounded(kind, where)
        case inspect.BoolType() | inspect.NoneType() | inspect.EnumType() | inspect.StructType():
            pass
        case inspect.CustomType() | inspect.RawType():
            yield where
        case _:
            yield f"{where}: {found}"


@pytest.mark.parametrize("name", KINDS)
def test_no_field_is_without_bounds(name: str) -> None:
    info = inspect.type_info(KINDS[name])
    assert isinstance(info, inspect.StructType)
    assert [where for field in info.fields for where in _unbounded(field.type, f"{name}.{field.name}")] == []


def _refused(kind: type[Message], value: object) -> str:
    with pytest.raises((msgspec.ValidationError, ValueError)) as found:
        msgspec.msgpack.decode(msgpack.packb(value, unicode_errors="surrogatepass"), type=kind)
    return str(found.value)


@pytest.mark.parametrize(
    ("position", "value"),
    [
        (1, b"\x01"),  # a serial that could be guessed
        (1, bytes(21)),
        (1, "text"),
        (2, "x" * (MAX_REQUESTER + 1)),
        (2, "x" * 300_000),
        (2, 7),
        (2, None),
        (2, b"bytes"),
        (2, "\ud800"),
        (0, "x" * ((1 << 19) + 1)),
        (0, b"pem"),
    ],
)
def test_request_to_sign_is_refused_with_a_field_outside_of_its_bounds(position: int, value: object) -> None:
    good = ["csr", SERIAL, "me"]
    msgspec.msgpack.decode(msgpack.packb(good), type=SignRequest)
    good[position] = value  # type: ignore[call-overload]
    assert _refused(SignRequest, good)


@pytest.mark.parametrize(
    ("position", "value"),
    [
        (0, b""),
        (0, bytes(21)),
        (1, 1 << 63),
        (1, -1),
        (2, "x" * 4097),
        (3, "x" * 4097),
        (4, bytes(65)),
        (5, LAST_SECOND + 1),
        (6, 1 << 63),
        (6, (1 << 64) - 1),
        (6, "1"),
        (7, "x" * 300_000),
        (7, 7),
        (8, bytes(65)),
    ],
)
def test_row_to_restore_is_refused_with_a_field_outside_of_its_bounds(position: int, value: object) -> None:
    msgspec.msgpack.decode(msgpack.packb([b"k", [ROW]]), type=RestoreRowsRequest)
    changed = [*ROW[:position], value, *ROW[position + 1 :]]
    assert _refused(RestoreRowsRequest, [b"k", [changed]])
    assert _refused(ProvenRowsRequest, [b"k", [changed], "x.consul", 5, b"p" * 32])


def test_more_rows_than_a_command_may_hold_are_refused() -> None:
    assert _refused(RestoreRowsRequest, [b"k", [ROW] * (MAX_RECORDS + 1)])
    assert _refused(ProvenRowsRequest, [b"k", [ROW] * (MAX_RECORDS + 1), "x.consul", 5, b"p" * 32])


@pytest.mark.parametrize("version", range(OLDEST, VERSION + 1))
@pytest.mark.parametrize("name", OPERATIONS)
def test_garbage_is_not_understood_in_either_version(name: str, version: int) -> None:
    operation = OPERATIONS[name]
    for data in (
        b"",
        b"\xc1",
        b"\x91" * 5000,
        b"\xdd\xff\xff\xff\xff",
        b"\xdb\xff\xff\xff\xff",
        b"\xa1\xff",
        b"\xd9\x03\xed\xa0\x80",
    ):
        for form in (operation.request, operation.answer):
            with pytest.raises(NotUnderstood):
                form.unpack(data, version)


def test_envelopes_are_bounded_too() -> None:
    for kind in (Envelope, Outcome):
        assert _refused(kind, [1 << 60, []])
        assert _refused(kind, [-1, []])
        assert _refused(kind, [1000, [None] * 1025])
