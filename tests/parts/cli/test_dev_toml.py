import tomllib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.cli.toml import dump_toml

# Surrogates have no form in UTF-8, so none in a file.
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
VALUES = st.one_of(TEXTS, st.booleans(), st.integers(-(2**63), 2**63 - 1), st.lists(st.integers(0, 9), max_size=3))
TABLES = st.dictionaries(TEXTS, VALUES, max_size=4)


@given(st.dictionaries(TEXTS, st.one_of(VALUES, TABLES, st.lists(TABLES, min_size=1, max_size=3)), max_size=5))
def test_what_is_written_is_read(values: dict[str, object]) -> None:
    assert tomllib.loads(dump_toml(values)) == values


def test_tables_in_tables() -> None:
    values = {"b": {"c": {"d": 1.5}, "e": True}, "a": 1}
    assert dump_toml(values) == "a = 1\n\n[b]\ne = true\n\n[b.c]\nd = 1.5\n"
    assert tomllib.loads(dump_toml(values)) == values


def test_value_without_a_form() -> None:
    with pytest.raises(TypeError, match="NoneType has no form"):
        dump_toml({"a": None})
