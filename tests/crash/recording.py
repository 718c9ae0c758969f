"""One recording of the standard workload for all tests that look at what it left, and where their counts go."""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.crash.judge import Judge
from tests.crash.sqlite_vfs import RecordingVfs, library
from tests.crash.workload import Recorder, Step


@dataclass(frozen=True, slots=True)
class Recording:
    steps: list[Step]
    judge: Judge


@contextmanager
def recording(directory: Path) -> Iterator[Recording]:
    """Record the workload. Within the block SQLite does not sync, which makes looking at many images quick."""
    sqlite = library()
    if sqlite is None:
        pytest.skip("sqlite3 is linked into this Python: its file operations cannot be recorded")
    for name in ("node", "scratch"):
        (directory / name).mkdir()
    recorder = Recorder(str(directory / "node"))
    with RecordingVfs(sqlite, recorder.note_sqlite):
        recorder.run()
    with RecordingVfs(sqlite):
        yield Recording(recorder.steps, Judge(recorder.history, str(directory / "scratch")))


def write_evidence(name: str, counts: dict[str, object]) -> None:
    """Printed, and added to the JSON file that QUORUMCA_EVIDENCE names."""
    print(name, json.dumps(counts))
    path = os.environ.get("QUORUMCA_EVIDENCE")
    if path:
        file = Path(path)
        known = json.loads(file.read_text()) if file.exists() else {}
        file.write_text(json.dumps({**known, name: counts}, indent=2, sort_keys=True) + "\n")
