"""One text for one value, whichever of the two encoders wrote it."""

import json
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.base.ascii_json import AsciiJson

_TEXT = st.text(st.characters(codec=None)) | st.text(st.characters(codec="ascii"))
_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(1 << 63), (1 << 64) - 1) | _TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(_TEXT, inner, max_size=4),
    max_leaves=12,
)


@given(_VALUES)
def test_is_what_json_writes(value: object) -> None:
    assert AsciiJson().encode(value) == json.dumps(value, separators=(",", ":")).encode("ascii")


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_numbers_are_read_back_as_they_were(value: float) -> None:
    assert json.loads(AsciiJson().encode({"seconds": value})) == {"seconds": value}


def test_half_of_a_surrogate_pair_is_escaped() -> None:
    assert AsciiJson().encode({"detail": "\udc80"}) == b'{"detail":"\\udc80"}'


def test_what_moves_the_cursor_of_a_terminal_is_escaped() -> None:
    assert AsciiJson().encode("\x1b[2J \x9b2J \u202e") == b'"\\u001b[2J \\u009b2J \\u202e"'
    assert AsciiJson().encode("\x7f") == b'"\\u007f"'


@dataclass(frozen=True)
class Held:
    secret: str = field(default="s3cret", repr=False)


@pytest.mark.parametrize("value", [Held(), [Held()], {"event": {"by": (1, Held())}}])
def test_what_a_repr_keeps_back_is_not_written(value: object) -> None:
    assert b"s3cret" not in AsciiJson(default=str).encode(value)
    with pytest.raises(TypeError, match="Held"):
        AsciiJson().encode(value)


@pytest.mark.parametrize("value", [b"bytes", {b"bytes": 1}, {1, 2}, {(1, 2): 3}])
def test_other_things_are_no_json(value: object) -> None:
    with pytest.raises(TypeError):
        AsciiJson().encode(value)


def test_what_json_does_not_know_is_written_as_told_or_refused() -> None:
    assert AsciiJson(default=lambda _: "told").encode([object()]) == b'["told"]'
    with pytest.raises(TypeError, match="object"):
        AsciiJson().encode([object()])
