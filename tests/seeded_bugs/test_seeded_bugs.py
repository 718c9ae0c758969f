"""The seeded bugs still fit the code; `make seed-bugs` shows that each is caught."""

from pathlib import Path

import pytest

from tests.seeded_bugs.bugs import BUGS
from tests.seeded_bugs.run import ROOT, Unusable, Verdict, changed, check_all_apply, table


def test_every_bug_can_be_seeded() -> None:
    check_all_apply(BUGS)
    assert len({bug.name for bug in BUGS}) == len(BUGS)


@pytest.mark.parametrize("test", sorted({test for bug in BUGS for test in bug.tests}))
def test_tests_that_must_notice_are_there(test: str) -> None:
    path, _, name = test.partition("::")
    text = Path(ROOT, path).read_text()
    assert f"def {name.partition('[')[0]}(" in text if name else "def test_" in text


def test_protection_that_has_moved_is_reported() -> None:
    with pytest.raises(Unusable, match="0 times"):
        changed("something else", BUGS[0])


def test_bug_that_nothing_catches_stands_out_in_the_table() -> None:
    missed = Verdict("a", "b", "c.py", is_caught=False, failed=(), seconds=1.0)
    caught = Verdict(
        "d", "e", "f.py", is_caught=True, failed=("tests/t.py::test_x[1]", "tests/t.py::test_x[2]"), seconds=1.0
    )
    assert "| a | b | `c.py` | **nothing** |" in table([missed, caught])
    assert "| d | e | `f.py` | t.py: `test_x` |" in table([missed, caught])
    assert "1 of 2 were caught" in table([missed, caught])
