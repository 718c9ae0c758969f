"""A power cut at every operation of the standard workload, with everything that it may leave, loses no promise."""

import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.crash.judge import Broken, Files, Judge
from tests.crash.recording import Evidence, recording
from tests.crash.volume import Operation, Volume, Write
from tests.crash.workload import LEDGER_FILES, LOG_FILES, Step


@dataclass(slots=True)
class Counts:
    """For the evidence report."""

    operations: Counter[str] = field(default_factory=Counter)
    images: Counter[str] = field(default_factory=Counter)  # by phase of the workload
    restarts: int = 0
    cpu_seconds: float = 0.0

    def report(self) -> dict[str, object]:
        return {
            "crash_points": self.operations.total(),
            "operations": dict(self.operations),
            "images": self.images.total(),
            "images_by_phase": dict(self.images),
            "different_restarts": self.restarts,
            "cpu_seconds": round(self.cpu_seconds, 1),
        }


def crash_images(volume: Volume, last: Operation) -> Iterator[tuple[Files, Files]]:
    """What a power cut behind `last` may leave of the log's files and of the ledger's."""
    logs = Files.of(volume.kept(LOG_FILES)), Files.of(volume.dropped(LOG_FILES))
    ledgers = Files.of(volume.kept(LEDGER_FILES)), Files.of(volume.dropped(LEDGER_FILES))
    for image in volume.after_power_cut(LOG_FILES, last, every_byte=True):
        log = Files.of(image)
        for ledger in ledgers:
            yield log, ledger
    for image in volume.after_power_cut(LEDGER_FILES, last, every_byte=False):
        ledger = Files.of(image)
        for log in logs:
            yield log, ledger


def judge_all(steps: list[Step], judge: Judge) -> Counts:
    """Raises: Broken, with the operation behind which the power was cut."""
    counts = Counts()
    start = time.process_time()
    volume = Volume()
    for number, step in enumerate(steps):
        counts.operations[type(step.operation).__name__] += 1
        volume.apply(step.operation)
        try:
            judge.judge_killed(volume)
            for promises in step.promises:
                for log, ledger in crash_images(volume, step.operation):
                    counts.images[step.phase] += 1
                    judge.judge(log, ledger, promises)
        except Broken as error:
            where = f"operation {number}, {step.phase}, {brief(step.operation)}"
            raise Broken(f"power cut behind {where}: {error}") from error
    counts.restarts = judge.restarts
    counts.cpu_seconds = time.process_time() - start
    return counts


def brief(operation: Operation) -> str:
    if isinstance(operation, Write):
        return f"write of {len(operation.data)} bytes at {operation.offset} of {operation.path}"
    return repr(operation)


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_power_cut_anywhere_loses_no_promise(tmp_path: Path, evidence: Evidence) -> None:
    with recording(tmp_path) as recorded:
        counts = judge_all(recorded.steps, recorded.judge)
    evidence.add("crash_points", counts.report())
    assert counts.images.total() > 10_000
