"""One recording of the standard workload for all tests that look at what it left, and where their counts go."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Final

import pytest

from benchmarks.origin import Origin
from tests.crash.judge import Judge
from tests.crash.sqlite_vfs import RecordingVfs, library
from tests.crash.workload import Recorder, Step

#: By which bytes of the ledger are chosen that are damaged; all else is tried, and nothing drawn.
SEED: Final = 1
#: What a file of evidence is made of.
SECTIONS: Final = frozenset({"crash_points", "damage"})


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


@dataclass(slots=True)
class Evidence:
    """Counts of one run, by the test that counted."""

    sections: dict[str, dict[str, object]] = field(default_factory=dict)

    def add(self, name: str, counts: dict[str, object]) -> None:
        print(name, json.dumps(counts))
        self.sections[name] = counts

    def write(self, path: Path, origin: Origin) -> None:
        """Whole, and over what another run has left. Raises: AssertionError when a part is missing."""
        assert set(self.sections) == SECTIONS, f"no evidence is written: only {sorted(self.sections)} have been counted"
        path.write_text(json.dumps({"origin": asdict(origin), **self.sections}, indent=2) + "\n")
