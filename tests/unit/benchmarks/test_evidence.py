"""The page over all evidence: made from what is committed, and it says so when something was found."""

import json
import shutil
from pathlib import Path

import pytest

from benchmarks import evidence

COMMITTED = Path(__file__).parents[3] / "docs" / "evidence"


@pytest.fixture
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    copied = tmp_path / "evidence"
    shutil.copytree(COMMITTED, copied)
    monkeypatch.setattr(evidence, "DIRECTORY", copied)
    return copied


def test_committed_page_is_what_the_committed_evidence_says(directory: Path) -> None:
    assert evidence.main() == 0
    assert (directory / "README.md").read_text() == (COMMITTED / "README.md").read_text()


@pytest.mark.parametrize("campaign", evidence.CAMPAIGNS, ids=lambda campaign: campaign.name)
def test_campaign_that_was_not_run_is_listed_as_that(directory: Path, campaign: evidence.Campaign) -> None:
    (directory / campaign.file).unlink(missing_ok=True)
    assert evidence.main() == 0
    assert f"| {campaign.name} | `{campaign.command}` | not run yet |" in (directory / "README.md").read_text()


def test_what_was_found_is_a_failure(directory: Path) -> None:
    path = directory / "simulation.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"failures": ["seed 1"]}))
    assert evidence.main() == 1
    assert "20,000 simulated clusters from seed 0, 1 failed" in (directory / "README.md").read_text()
