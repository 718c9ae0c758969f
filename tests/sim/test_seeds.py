"""Seeds that mix everything. A failing one prints how to repeat it, and how to make it smaller.

`make sim SEEDS=20000 FIRST=5000` runs seeds 5000 to 24999.
"""

import os
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

from tests.sim.campaign import ROOT, Campaign, joined, load_tally, run_seeds

SEEDS: Final = int(os.environ.get("SIM_SEEDS", "500"))
_PARTS: Final = 8
_QUICK_SEEDS: Final = 20


def how_to_repeat(seed: int, failure: str) -> str:
    return f"{failure}\n\nagain: python -m tests.sim --first {seed} --seeds 1; smaller: with --shrink {seed}"


def judge(tally_failures: list[dict[str, object]]) -> None:
    texts = [how_to_repeat(int(str(found["seed"])), str(found["failure"])) for found in tally_failures]
    assert not texts, "\n\n".join(texts)


def test_first_seeds() -> None:
    judge(run_seeds(0, _QUICK_SEEDS).failures)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("part", range(_PARTS))
def test_many_seeds(part: int) -> None:
    first, end = part * SEEDS // _PARTS, (part + 1) * SEEDS // _PARTS
    tallies = list(Campaign(first, end - first, jobs=1).run())
    judge([failure for tally in tallies for failure in tally.failures])
    counts = joined(tallies).counts
    # A run in which nothing happens proves nothing.
    assert counts["commands_acknowledged"] > 20 * (end - first)
    assert counts["linearizable_reads"] > 5 * (end - first)


def test_runs_do_not_depend_on_the_order_of_hashes() -> None:
    command = [sys.executable, "-m", "tests.sim", "--first", "3", "--seeds", "4", "--tally"]
    digests = set()
    for hash_seed in ("1", "2"):
        environment = {**os.environ, "PYTHONHASHSEED": hash_seed}
        ended = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
        digests.add(load_tally(ended.stdout).digest)
    assert len(digests) == 1


def test_campaign_that_was_interrupted_goes_on_where_it_stopped(tmp_path: Path) -> None:
    partial = tmp_path / "partial"
    [first] = Campaign(0, 2, jobs=1, partial=partial).run()
    size = partial.stat().st_size
    [again] = Campaign(0, 2, jobs=1, partial=partial).run()
    assert again == first
    assert first.seeds == 2
    assert partial.stat().st_size == size  # nothing was run, so nothing was added
