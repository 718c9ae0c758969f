"""One damaged byte in any file of a node: the node refuses to start and names the file, the scrub finds it, or it is
proved to be harmless: the node starts, keeps its promises and ends like one without damage.

Every byte of journal, manifest and snapshot; of the ledger, whose two files are large, the headers and a sample.
QUORUMCA_DAMAGE_SAMPLES=N takes more.
"""

import os
import random
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import pytest

from tests.crash.judge import Broken
from tests.crash.recording import SEED, Evidence, Recording, recording
from tests.crash.volume import Image, Volume
from tests.crash.workload import LEDGER_FILES, LOG_FILES, Promises

_LEDGER_SAMPLES: Final = int(os.environ.get("QUORUMCA_DAMAGE_SAMPLES", "250"))
_LEDGER_HEAD_BYTES: Final = 100
#: Before the first compaction, behind the last, and behind a clean end: then the ledger has no write-ahead log.
_PHASES: Final = ("truncation", "behind the healing", "close")


def flipped(byte: int, offset: int) -> int:
    return byte ^ 1 << offset % 8


def zeroed(_byte: int, _offset: int) -> int:
    return 0


CHANGES: Final[dict[str, Callable[[int, int], int]]] = {"flipped": flipped, "zeroed": zeroed}


def at_end_of(recorded: Recording, phase: str) -> tuple[Image, Image, Promises]:
    """The files behind the last operation of a phase, and what was promised by then."""
    volume = Volume()
    last = max(number for number, step in enumerate(recorded.steps) if step.phase == phase)
    for step in recorded.steps[: last + 1]:
        volume.apply(step.operation)
    return volume.kept(LOG_FILES), volume.kept(LEDGER_FILES), recorded.steps[last].promises[-1]


def damaged(image: Image, path: str, offset: int, change: Callable[[int, int], int]) -> Image | None:
    """None when the change changes nothing."""
    data = bytearray(image[path])
    data[offset] = change(data[offset], offset)
    return None if data == image[path] else {**image, path: bytes(data)}


def ledger_offsets(data: bytes, rng: random.Random) -> list[int]:
    sample = rng.sample(range(len(data)), min(_LEDGER_SAMPLES, len(data)))
    return sorted({*range(min(_LEDGER_HEAD_BYTES, len(data))), *sample})


def damages(log: Image, ledger: Image) -> Iterator[tuple[str, Image, Image]]:
    """Where and how, and the two images with that byte changed."""
    rng = random.Random(SEED)
    for name, change in CHANGES.items():
        for path, data in log.items():
            for offset in range(len(data)):
                if (image := damaged(log, path, offset, change)) is not None:
                    yield f"{path} {name} at {offset}", image, ledger
        for path, data in ledger.items():
            for offset in ledger_offsets(data, rng) if data else ():
                if (image := damaged(ledger, path, offset, change)) is not None:
                    yield f"{path} {name} at {offset}", log, image


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_damaged_byte_is_refused_found_or_harmless(tmp_path: Path, evidence: Evidence) -> None:
    counts: dict[str, Counter[str]] = {}
    start = time.process_time()
    with recording(tmp_path) as recorded:
        for phase in _PHASES:
            log, ledger, promises = at_end_of(recorded, phase)
            for where, damaged_log, damaged_ledger in damages(log, ledger):
                try:
                    outcome = recorded.judge.judge_damaged(damaged_log, damaged_ledger, promises)
                except Broken as error:
                    raise Broken(f"behind {phase}, {where}: {error}") from error
                counts.setdefault(Path(where.split()[0]).name, Counter())[outcome] += 1
    report = {name: dict(outcomes) for name, outcomes in sorted(counts.items())}
    evidence.add("damage", {"files": report, "cpu_seconds": round(time.process_time() - start, 1)})
    assert {"manifest", "snapshot", "ledger.db"} < set(counts)
    for name, outcomes in counts.items():
        if not name.startswith("ledger"):
            assert set(outcomes) == {"refused at start"}, name  # all of it was synced: no torn write can explain it
