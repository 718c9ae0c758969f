"""The page over all evidence: made from what is committed, and it says so when something was found."""

import json
import re
import shutil
from dataclasses import fields
from pathlib import Path
from typing import Any, Final

import pytest

from benchmarks import evidence
from benchmarks.machine import Machine
from benchmarks.origin import Origin

ROOT: Final = Path(__file__).parents[3]
COMMITTED: Final = ROOT / "docs" / "evidence"
FILES: Final = (*sorted(COMMITTED.glob("*.json")), ROOT / "benchmarks" / "results" / "bench.json")
#: These draw what they do.
SEEDED: Final = frozenset(
    {
        "cases.json",
        "chaos.json",
        "continuity-vault.json",
        "continuity.json",
        "crash-points.json",
        "fuzz.json",
        "simulation.json",
    }
)
ORIGIN: Final = {
    "began_at": "2030-01-01T00:00:00+00:00",
    "command": "python -m tests.sim",
    "seed": 17,
    "commit": "c689477d32ab" + "0" * 28,
    "tree_clean": True,
    "machine": {"cores": 2},
}


@pytest.fixture
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    copied = tmp_path / "evidence"
    shutil.copytree(COMMITTED, copied)
    monkeypatch.setattr(evidence, "DIRECTORY", copied)
    return copied


def _change(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_committed_page_is_what_the_committed_evidence_says(directory: Path) -> None:
    assert evidence.main() == 0
    assert (directory / "README.md").read_text() == (COMMITTED / "README.md").read_text()


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_committed_evidence_says_where_it_comes_from(path: Path) -> None:
    document = json.loads(path.read_text())
    origin = document.get("origin") if isinstance(document, dict) else None
    assert origin is not None, f"{path.name} does not say where it comes from"
    assert set(origin) == {field.name for field in fields(Origin)}
    assert re.fullmatch(r"[0-9a-f]{40}", origin["commit"])
    assert type(origin["tree_clean"]) is bool
    assert type(origin["seed"]) is (int if path.name in SEEDED else type(None))
    assert set(origin["machine"]) == {field.name for field in fields(Machine)}
    assert {"python", "openssl", "quorumca", "pysyncobj", "cryptography"} <= set(origin["machine"]["versions"])


def test_all_evidence_is_on_the_page() -> None:
    assert {path.name for path in COMMITTED.glob("*.json")} <= {campaign.file for campaign in evidence.CAMPAIGNS}


@pytest.mark.parametrize(
    ("changes", "cells"),
    [
        ({"origin": ORIGIN}, "17 | `c689477d32ab`, clean"),
        ({"origin": ORIGIN | {"tree_clean": False, "seed": None}}, " | `c689477d32ab`, **changed**"),
        ({"origin": ORIGIN | {"tree_clean": None, "commit": "not known: why"}}, "17 | not known: why"),
        ({"origin": None}, "not recorded | not recorded"),
    ],
)
def test_page_says_what_code_ran_with_which_seed(directory: Path, changes: dict[str, Any], cells: str) -> None:
    _change(directory / "simulation.json", **changes)
    assert evidence.main() == 0
    page = (directory / "README.md").read_text()
    assert f"| [Simulation](simulation.md) | `make sim SEEDS=20000` | {cells} | 20,000 simulated clusters" in page


@pytest.mark.parametrize("campaign", evidence.CAMPAIGNS, ids=lambda campaign: campaign.name)
def test_campaign_that_was_not_run_is_listed_as_that(directory: Path, campaign: evidence.Campaign) -> None:
    (directory / campaign.file).unlink(missing_ok=True)
    assert evidence.main() == 0
    assert f"| {campaign.name} | `{campaign.command}` | | | not run yet |" in (directory / "README.md").read_text()


def test_what_was_found_is_a_failure(directory: Path) -> None:
    _change(directory / "simulation.json", failures=["seed 1"])
    assert evidence.main() == 1
    assert "20,000 simulated clusters from seed 0, 1 failed" in (directory / "README.md").read_text()


def test_seeded_bugs_are_counted_also_with_their_origin(directory: Path) -> None:
    path = directory / "seeded-bugs.json"
    found = json.loads(path.read_text())
    bugs = found["bugs"] if isinstance(found, dict) else found
    path.write_text(json.dumps({"origin": ORIGIN, "bugs": [*bugs[1:], bugs[0] | {"is_caught": False}]}))
    assert evidence.main() == 1
    assert f"{len(bugs) - 1} of {len(bugs)} protections noticed" in (directory / "README.md").read_text()
