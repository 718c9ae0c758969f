"""The file of evidence is whole, and of one run."""

import json
from pathlib import Path

import pytest

from benchmarks.machine import Machine
from benchmarks.origin import Origin
from tests.crash.recording import SECTIONS, Evidence

_MACHINE = Machine("a processor", 2, 8.0, "Linux 6", "ext4", 0.4, {"python": "3.11.7"})
_ORIGIN = Origin("2030-01-01T00:00:00+00:00", "python -m pytest tests/crash", 1, "0" * 40, True, _MACHINE)


def test_new_run_takes_nothing_from_an_old_one(tmp_path: Path) -> None:
    path = tmp_path / "crash-points.json"
    path.write_text(json.dumps({"of_an_older_version": {}}))
    found = Evidence()
    for name in sorted(SECTIONS):
        found.add(name, {"count": 1})
    found.write(path, _ORIGIN)
    written = json.loads(path.read_text())
    assert written.keys() == {"origin", *SECTIONS}
    assert written["origin"]["commit"] == _ORIGIN.commit


def test_half_a_run_is_no_evidence(tmp_path: Path) -> None:
    path = tmp_path / "crash-points.json"
    path.write_text("old")
    found = Evidence()
    found.add("damage", {"count": 1})
    with pytest.raises(AssertionError, match="no evidence is written"):
        found.write(path, _ORIGIN)
    assert path.read_text() == "old"
