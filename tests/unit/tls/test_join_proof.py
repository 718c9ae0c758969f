"""What a machine shows of its join token: good for what it says, to whom it says it, and for nothing else."""

from dataclasses import fields, replace
from typing import Any, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.tls.join_proof import PROOF_BYTES, PUBLIC_BYTES, JoinStatement, is_proved, prove, public_of

TOKEN: Final = "5ec7e7" * 10
STATEMENT: Final = JoinStatement("d", "127.0.0.1:9", "127.0.0.1:8", "a request", bytes(range(32)))
texts: Final = st.text(max_size=8)
statements: Final = st.builds(JoinStatement, texts, texts, texts, texts, st.binary(max_size=8))


def test_who_has_the_token_proves_it_and_nobody_else() -> None:
    proof, public = prove(TOKEN, STATEMENT), public_of(TOKEN)
    assert (len(proof), len(public)) == (PROOF_BYTES, PUBLIC_BYTES)
    assert is_proved(public, STATEMENT, proof)
    assert not is_proved(public_of("another"), STATEMENT, proof)
    assert not is_proved(public, STATEMENT, prove("another", STATEMENT))


@pytest.mark.parametrize("name", [field.name for field in fields(JoinStatement)])
def test_it_is_over_everything(name: str) -> None:
    value = getattr(STATEMENT, name)
    changed: dict[str, Any] = {name: value + (b"x" if isinstance(value, bytes) else "x")}
    assert not is_proved(public_of(TOKEN), replace(STATEMENT, **changed), prove(TOKEN, STATEMENT))


@given(statements, statements)
def test_what_differs_is_signed_as_something_else(one: JoinStatement, other: JoinStatement) -> None:
    assert (one.packed() == other.packed()) == (one == other)


@pytest.mark.parametrize("proof", [b"", bytes(PROOF_BYTES), b"\xff" * PROOF_BYTES, bytes(65)])
@pytest.mark.parametrize("public", [public_of(TOKEN), b"", bytes(PUBLIC_BYTES), b"\xff" * PUBLIC_BYTES])
def test_no_bytes_raise_anything_or_prove_something(public: bytes, proof: bytes) -> None:
    assert not is_proved(public, STATEMENT, proof)
