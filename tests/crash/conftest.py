"""What the tests of this folder count is one file of evidence from one run, or none."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.origin import describe_origin
from tests.crash.recording import SEED, Evidence


@pytest.fixture(scope="session")
def evidence(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Evidence]:
    """QUORUMCA_EVIDENCE=FILE has it written there, as JSON; it takes all tests of this folder, in one process."""
    path = os.environ.get("QUORUMCA_EVIDENCE")
    origin = describe_origin(tmp_path_factory.mktemp("origin"), SEED) if path else None
    found = Evidence()
    yield found
    if path and origin:
        found.write(Path(path), origin)
