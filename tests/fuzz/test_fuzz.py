"""No bytes make a decoder do anything but understand or refuse them: a short run for each, and the kept inputs.

FUZZ_SECONDS is the time for each decoder, FUZZ_SEED another course. `make fuzz SECONDS=600` is the long campaign.
"""

import os
from typing import Final

import pytest

from tests.fuzz.campaign import run, run_corpus
from tests.fuzz.targets import Target, targets

SECONDS: Final = float(os.environ.get("FUZZ_SECONDS", "2.5"))
SEED: Final = int(os.environ.get("FUZZ_SEED", "1"))
NAMES: Final = (
    "frames",
    "message",
    "entry",
    "journal",
    "journal-records",
    "snapshot",
    "snapshot-sealed",
    "command",
    "state",
    "ledger-rows",
    "rpc-body",
    "csr",
)


@pytest.fixture(scope="module")
def found() -> dict[str, Target]:
    return targets()


def test_names_are_those_of_the_targets(found: dict[str, Target]) -> None:
    assert tuple(found) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_kept_inputs_are_understood_or_refused(found: dict[str, Target], name: str) -> None:
    result = run_corpus(found[name])
    assert result.accepted > 0


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_changed_inputs_are_understood_or_refused(found: dict[str, Target], name: str) -> None:
    result = run(found[name], SEED, SECONDS)
    assert result.inputs > 20
