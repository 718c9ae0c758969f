"""What may be proposed has bounds, all of it; what is in a log is applied or refused alike on every node, and never
raises.
"""

import dataclasses
import typing
from collections.abc import Iterator
from dataclasses import replace
from typing import Annotated, Any

import msgpack
import pytest

from fsm import codec
from fsm.apply import apply
from fsm.ca import AbortRotation
from fsm.codec import CodecError, Malformed, OutOfBounds, check_command, check_leaf, check_state
from fsm.commands import Applied, Command, Rejected, RestoreCA
from fsm.fields import (
    FIRST_SECOND,
    LAST_SECOND,
    MAX_INDEX,
    MAX_INT64,
    MIN_INT64,
    Length,
    Minimal,
    OneOf,
    Text,
    Within,
    as_reason,
)
from fsm.leaves import LeafKind, RecordLeaves, TidyLedger, kind_label
from fsm.state import State
from tests.kit import samples

NAMES = sorted(samples.COMMANDS)


def _places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[tuple[Any, ...], Any]]:
    """Every field of a value and of the values in it: where it is, and its type with bounds."""
    hints = typing.get_type_hints(type(value), include_extras=True)
    for field in dataclasses.fields(value):
        here = (*path, field.name)
        found = getattr(value, field.name)
        yield here, hints[field.name]
        if dataclasses.is_dataclass(found):
            yield from _places(found, here)
        elif isinstance(found, tuple) and found and dataclasses.is_dataclass(found[0]):
            yield from _places(found[0], (*here, 0))


def _with(value: Any, path: tuple[Any, ...], new: Any) -> Any:
    if not path:
        return new
    step, *rest = path
    if isinstance(step, int):
        return (*value[:step], _with(value[step], tuple(rest), new), *value[step + 1 :])
    return replace(value, **{step: _with(getattr(value, step), tuple(rest), new)})


def _bounds(hint: Any) -> list[Any]:
    if typing.get_origin(hint) is Annotated:
        return list(typing.get_args(hint)[1:])
    return [bound for argument in typing.get_args(hint) for bound in _bounds(argument)]


def _outside(hint: Any) -> list[Any]:
    """Values of a wrong type, just outside of a bound, and far outside."""
    found: list[Any] = [1.5, object(), {"a": 1}]
    for bound in _bounds(hint):
        match bound:
            case Within():
                found += [bound.least - 1, bound.most + 1, 1 << 64, -(1 << 63), True, "1"]
            case OneOf():
                found += [0, 99, -1, 1 << 63, "1", True]
            case Text():
                found += ["x" * (bound.most + 1), "nul\0", "\ud800", b"bytes", 7]
                if bound.most_bytes is not None:
                    found += ["\U0001f600" * (bound.most_bytes // 4 + 1), "é" * (bound.most_bytes // 2) + "x"]
            case Minimal():
                found += [b"\0", b"\0\1", bytes(19) + b"\1"]
            case Length():
                is_bytes = _is_bytes(hint)
                found += [bytes(bound.most + 1), "text", 7] if is_bytes else [[], "text", (object(),)]
    return found


def _is_bytes(hint: Any) -> bool:
    return typing.get_args(hint)[0] is bytes


PLACES = [(name, path, hint) for name in NAMES for path, hint in _places(samples.COMMANDS[name])]


@pytest.mark.parametrize("name", NAMES)
def test_what_leaders_propose_is_within_bounds(name: str) -> None:
    check_command(samples.COMMANDS[name])


@pytest.mark.parametrize(
    ("name", "path", "hint"), PLACES, ids=[f"{name}-{'.'.join(map(str, path))}" for name, path, _ in PLACES]
)
def test_value_outside_of_a_field_is_refused_by_name(name: str, path: tuple[Any, ...], hint: Any) -> None:
    command = samples.COMMANDS[name]
    where = path[-1] if isinstance(path[-1], str) else path[-2]
    for value in _outside(hint):
        with pytest.raises(OutOfBounds, match=rf"^{type(command).__name__}\b.*{where}"):
            check_command(_with(command, path, value))


def test_field_without_bounds_cannot_be_made() -> None:
    @dataclasses.dataclass(frozen=True)
    class Careless:
        text: str

    with pytest.raises(TypeError, match=r"Careless\.text has no bounds"):
        codec._record(Careless)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("not_after", 1 << 63),
        ("not_after", (1 << 64) - 1),
        ("not_before", -(1 << 63)),
        ("not_after", LAST_SECOND + 1),
        ("not_before", FIRST_SECOND - 1),
        ("not_before", -1),
        ("not_after", -1),
        ("kind", 99),
        ("kind", 0),
        ("serial", b""),
        ("serial", bytes(21)),
        ("serial", b"\0"),
        ("serial", b"\0\1"),
        ("requested_by", "x" * 300_000),
        ("requested_by", "half \ud83d"),
        ("name", "nul\0l"),
        ("spiffe_id", "s" * 5000),
        ("spiffe_id", "\U0001f600" * 1025),
        ("name", "é" * 2049),
        ("public_key_sha256", bytes(65)),
        ("request_id", bytes(65)),
        ("requested_by", 7),
    ],
)
def test_record_that_no_ledger_or_reader_can_take_is_refused(field: str, value: Any) -> None:
    record = replace(samples.record(1), **{field: value})
    with pytest.raises(OutOfBounds, match=field):
        check_leaf(record)
    with pytest.raises(OutOfBounds, match=rf"RecordLeaves\.records\[1\]\.{field}"):
        check_command(RecordLeaves(samples.ISSUER, (samples.record(2), record)))


@pytest.mark.parametrize("text", ["", "plain", "nul\0", "\ud800", "x" * 1_000_000, "é" * 5000, "\ud83d" * 5000])
def test_any_text_can_be_made_a_reason(text: str) -> None:
    check_command(AbortRotation(14, samples.outcome(reason=as_reason(text))))


def test_most_and_least_are_allowed() -> None:
    for moment in (0, LAST_SECOND):
        check_leaf(samples.record(1, not_after=moment, not_before=moment))
    for text in ("\U0001f600" * 1024, "é" * 2048, "x" * 4096):
        check_leaf(samples.record(1, name=text, spiffe_id=text))
    for serial in (b"\1", b"\1" + bytes(19), b"\x80" * 20):
        check_leaf(samples.record(1, serial=serial))
    for moment in (FIRST_SECOND, LAST_SECOND):
        check_command(TidyLedger(moment))
    for kind in LeafKind:
        check_leaf(samples.record(1, kind=int(kind)))


def test_state_that_is_brought_is_held_to_the_same_bounds() -> None:
    check_state(samples.full_state())
    for bad in (
        replace(samples.full_state(), tidied_before=1 << 63),
        replace(samples.full_state(), roots=tuple(samples.root(f"r{number}") for number in range(300))),
        replace(samples.full_state(), config=samples.config(cluster_id="a/b")),
        replace(samples.full_state(), config=samples.config(cluster_id="ABCDEF01-2222-3333-4444-555555555555")),
    ):
        with pytest.raises(OutOfBounds):
            check_state(bad)
        with pytest.raises(OutOfBounds):
            check_command(RestoreCA(1, bad))


# -- what is in a log already


@pytest.mark.parametrize("number", [1 << 63, (1 << 64) - 1])
@pytest.mark.parametrize("field", ["kind", "not_before", "not_after"])
def test_record_that_the_ledger_cannot_hold_is_rejected_and_changes_nothing(field: str, number: int) -> None:
    state = samples.ready()
    command = codec.load_command(
        codec.dump_command(RecordLeaves(samples.ISSUER, (samples.record(1, **{field: number}),)))
    )
    after, result = apply(state, command)
    assert after is state
    assert isinstance(result, Rejected)
    assert result.code == "out_of_range"


def test_tidying_up_to_a_time_that_the_ledger_cannot_hold_is_rejected() -> None:
    after, result = apply(samples.ready(), TidyLedger(1 << 63))
    assert (after, type(result)) == (samples.ready(), Rejected)


@pytest.mark.parametrize("number", [MIN_INT64, -1, LAST_SECOND + 1, MAX_INT64])
def test_what_an_older_release_has_applied_is_applied(number: int) -> None:
    """Bounds stand in front of the log: no node may refuse what another one took from the same log."""
    records = (samples.record(1, not_after=number, kind=99, requested_by="x" * 300_000, request_id=b"r" * 99),)
    command = codec.load_command(codec.dump_command(RecordLeaves(samples.ISSUER, records)))
    assert command == RecordLeaves(samples.ISSUER, records)
    assert isinstance(apply(samples.ready(), command)[1], Applied)


def test_restored_state_of_an_older_release_is_applied_though_its_configuration_is_none() -> None:
    saved = replace(samples.ready(), config=samples.config(config_json="{"))
    assert isinstance(apply(State(), RestoreCA(0, saved))[1], Applied)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xc1",
        b"\x91" * 2000,
        *map(msgpack.packb, (1, [1, 7], [1, 7, ["x"]], [0, 7, [1]], ["1", 7, [1]], [1, -1, []], [1, 7, []])),
    ],
)
def test_what_no_release_has_written_is_malformed(data: bytes) -> None:
    with pytest.raises(Malformed):
        codec.load_command(data)


@pytest.mark.parametrize("value", [[2, 7, [1]], [1, 99, []], [1, 7, [1, "added later"]]])
def test_what_a_newer_release_may_have_written_is_not_malformed(value: Any) -> None:
    """A node that took it for nothing would go another way than those that know it."""
    with pytest.raises(CodecError) as found:
        codec.load_command(msgpack.packb(value))
    assert not isinstance(found.value, Malformed)


@pytest.mark.parametrize("field", ["index", "ca_index", "leaf_index", "roots_index"])
@pytest.mark.parametrize("number", [-1, MAX_INDEX + 1, 1 << 63])
def test_state_that_counts_beyond_what_can_be_counted_is_malformed(field: str, number: int) -> None:
    """The next certificate would get an index that the ledger cannot hold."""
    changes: dict[str, Any] = {field: number}
    data = codec.dump_state(replace(samples.full_state(), **changes))
    with pytest.raises(Malformed, match=field):
        codec.load_state(data)


def test_kind_of_a_record_has_a_name_whatever_it_is() -> None:
    assert [kind_label(kind) for kind in LeafKind] == [kind.label for kind in LeafKind]
    assert {kind_label(number) for number in (0, 99, -1, 1 << 62)} == {
        "unknown-0",
        "unknown-99",
        "unknown--1",
        f"unknown-{1 << 62}",
    }


def test_chain_of_many_certificates_takes_time_in_proportion() -> None:
    """As many as one entry can hold. Each looked at for each of them, they would hold up the Raft thread for long."""
    many = 40_000
    chain = tuple(samples.intermediate(f"k{number}", f"k{number + 1}") for number in range(many))
    root = samples.root("r1", key_id=f"k{many}", signing_key_id="k0", intermediates=chain)
    command: Command = samples.set_roots(samples.configured(), root)
    assert isinstance(apply(samples.configured(), command)[1], Applied)
