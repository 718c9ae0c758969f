"""Rounds: clients work, one fault happens, everything heals, and then it is checked that nothing went wrong."""

import os
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import aiohttp

from cluster.client.errors import CommandError
from tests.chaos.faults import FAULTS
from tests.chaos.history import write_history
from tests.chaos.invariants import Verdict, judge
from tests.chaos.scene import Scene
from tests.chaos.stage import Stage
from tests.chaos.workload import Record, Workload, ttl_values

#: Where the history of every round is kept; without it only those of failed rounds are, if there is a place for them.
HISTORIES_VARIABLE: Final = "CHAOS_HISTORIES"


@dataclass(frozen=True, slots=True)
class Round:
    """What one round found. A round is good when there are no violations."""

    number: int
    fault: str
    seconds: float
    verdict: Verdict
    acknowledged: int
    operations: int
    unknown: int
    max_gap_seconds: float
    statuses: dict[str, int]
    notes: dict[str, object]

    @property
    def violations(self) -> Sequence[str]:
        return self.verdict.violations


@dataclass(slots=True)
class _Run:
    """A cluster and what its clients have got so far."""

    stage: Stage
    acknowledged: list[str] = field(default_factory=list)


class Campaign:
    """Round after round on one cluster; behind a failed one on a new cluster, while the old one's files stay."""

    def __init__(self, root: Path, seed: object) -> None:
        self._root = root
        self._seed = seed
        self._values = ttl_values()
        self._numbers = 0
        self._clusters = 0
        self._run: _Run | None = None

    async def close(self) -> None:
        if self._run is not None:
            await self._run.stage.__aexit__(None, None, None)
            self._run = None

    async def round(self, fault: str) -> Round:
        """Never raises for what the cluster does: that is a violation of the round."""
        self._numbers += 1
        rng = random.Random(f"{self._seed}/{self._numbers}/{fault}")
        run = self._run or await self._new_run(rng)
        started = time.monotonic()
        workload = Workload(run.stage, self._values, rng)
        notes: dict[str, object] = {}
        troubles: list[str] = []
        try:
            await self._play(Scene(run.stage, workload, rng, notes), fault)
        except (AssertionError, CommandError, aiohttp.ClientError, TimeoutError) as error:
            # Without an answer in time, too: else clients would go on into the next round.
            troubles.append(f"{fault}: {error!r}")
        record = await workload.stop()
        run.acknowledged += [signed.serial for signed in record.signed]
        verdict = await _judged(run, record, troubles)
        found = Round(
            self._numbers,
            fault,
            round(time.monotonic() - started, 2),
            verdict,
            len(record.signed),
            len(record.operations),
            sum(operation.outcome == "unknown" for operation in record.operations),
            round(record.max_gap_seconds(), 3),
            dict(sorted(record.statuses.items())),
            notes,
        )
        self._keep(found, record)
        if found.violations:
            await self.close()
        return found

    async def _new_run(self, rng: random.Random) -> _Run:
        self._clusters += 1
        stage = Stage(self._root / f"cluster-{self._clusters}", rng)
        await stage.__aenter__()
        self._run = _Run(stage)
        return self._run

    async def _play(self, scene: Scene, fault: str) -> None:
        await scene.workload.start()
        await scene.workload.progress(scene.stage.nodes)
        try:
            await FAULTS[fault](scene)
        finally:
            await scene.stage.heal()
        await scene.workload.progress(scene.stage.nodes, 30.0)

    def _keep(self, found: Round, record: Record) -> None:
        directory = os.environ.get(HISTORIES_VARIABLE)
        if directory or found.violations:
            path = Path(directory) if directory else self._root / "histories"
            path.mkdir(parents=True, exist_ok=True)
            name = f"{found.number:04}-{found.fault}{'-failed' if found.violations else ''}.jsonl"
            write_history(path / name, record.initial, record.operations)


async def _judged(run: _Run, record: Record, troubles: list[str]) -> Verdict:
    try:
        verdict = await judge(run.stage, record, run.acknowledged)
    except AssertionError as error:
        return Verdict(violations=[*troubles, str(error)])
    return Verdict(verdict.lost, verdict.duplicates, [*troubles, *verdict.violations])
