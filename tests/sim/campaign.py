"""Many seeds, in processes of their own; what they found is kept as it comes, so that a campaign can go on later."""

import hashlib
import json
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Final

from tests.sim.run import Ran, run_scenario
from tests.sim.script import Scenario, scenario_of

ROOT: Final = Path(__file__).parents[2]
#: Seeds that one process runs.
CHUNK: Final = 100
_SOURCES: Final = ("cluster/raft", "fsm", "tests/sim", "tests/chaos/linearizability.py")


@dataclass(slots=True)
class Tally:
    """Seeds `first` to `first + seeds - 1`."""

    first: int
    seeds: int
    code: str = ""  # digest of the code that ran
    digest: str = ""  # over everything that happened: equal whenever the same code runs the same seeds
    cpu_seconds: float = 0.0
    counts: Counter[str] = field(default_factory=Counter)
    faults: Counter[str] = field(default_factory=Counter)
    failures: list[dict[str, Any]] = field(default_factory=list)

    def dump(self) -> str:
        """One line that `load_tally` reads."""
        value = {item.name: getattr(self, item.name) for item in fields(self)}
        return json.dumps(value, separators=(",", ":"))


def load_tally(line: str) -> Tally:
    value = json.loads(line)
    value["counts"], value["faults"] = Counter(value["counts"]), Counter(value["faults"])
    return Tally(**value)


def run_seeds(first: int, count: int) -> Tally:
    """In this process."""
    tally = Tally(first, count, code_digest())
    hashed, started = hashlib.sha256(), time.process_time()
    for seed in range(first, first + count):
        scenario = scenario_of(seed)
        try:
            ran = run_scenario(seed, scenario)
        except Exception as error:
            tally.failures.append({"seed": seed, "failure": f"{type(error).__name__}: {error}"})
        else:
            _count(tally, ran, scenario)
            hashed.update(ran.digest.encode())
    tally.digest, tally.cpu_seconds = hashed.hexdigest(), time.process_time() - started
    return tally


def _count(tally: Tally, ran: Ran, scenario: Scenario) -> None:
    cluster, history = ran.cluster, ran.cluster.history
    nodes = cluster.nodes.values()
    tally.faults.update(ran.faults)
    tally.counts.update(
        {
            "virtual_seconds": round(cluster.scheduler.now - cluster.scheduler.started),
            "events": cluster.scheduler.events,
            "messages": cluster.network.delivered,
            "invariant_checks": cluster.invariants.checks,
            "terms_with_a_leader": cluster.invariants.terms,
            "commands_applied": len(cluster.invariants.applied_commands),
            "commands_acknowledged": history.acknowledged,
            "commands_refused": history.refused,
            "commands_of_unknown_outcome": history.unknown,
            "linearizable_reads": history.reads,
            "register_operations": ran.register_operations,
            "rejected_by_the_state_machine": ran.model.rejected,
            "repeated_serials_refused": ran.model.repeated,
            "leader_duties": ran.duties,
            "rotations_ended": ran.model.rotations,
            "restarts": sum(node.starts - 1 for node in nodes),
            "snapshots_saved": sum("journal.compacted" in event for event in cluster.events),
            "snapshots_installed": sum("snapshot.installed" in event for event in cluster.events),
            "learners_promoted": sum("member.promoting" in event for event in cluster.events),
            "seeds_with_sqlite_ledgers": int(scenario.is_sqlite),
            "seeds_with_clock_drift": int(scenario.drift > 0),
        }
    )


def code_digest() -> str:
    """Of the simulated code and the simulator."""
    hashed = hashlib.sha256()
    for source in _SOURCES:
        path = ROOT / source
        files = sorted(path.glob("*.py")) if path.is_dir() else [path]
        for file in (file for file in files if not file.name.startswith("test_")):
            hashed.update(file.read_bytes())
    return hashed.hexdigest()[:16]


class Campaign:
    """Runs seeds in `jobs` processes at a time. `partial` remembers finished chunks across interruptions."""

    def __init__(self, first: int, seeds: int, jobs: int, partial: Path | None = None) -> None:
        self._chunks = [(start, min(CHUNK, first + seeds - start)) for start in range(first, first + seeds, CHUNK)]
        self._jobs = jobs
        self._partial = partial

    def run(self) -> Iterator[Tally]:
        """Finished chunks, as they come."""
        known = self._known()
        yield from known.values()
        todo = [chunk for chunk in self._chunks if chunk not in known]
        with ThreadPoolExecutor(self._jobs) as pool:
            for tally in pool.map(_run_chunk, todo):
                if self._partial is not None:
                    with self._partial.open("a", encoding="ascii") as file:
                        file.write(tally.dump() + "\n")
                yield tally

    def _known(self) -> dict[tuple[int, int], Tally]:
        if self._partial is None or not self._partial.exists():
            return {}
        tallies = [load_tally(line) for line in self._partial.read_text(encoding="ascii").splitlines()]
        code = code_digest()  # what other code did proves nothing about this one
        known = {(tally.first, tally.seeds): tally for tally in tallies if tally.code == code}
        return {chunk: known[chunk] for chunk in self._chunks if chunk in known}


def _run_chunk(chunk: tuple[int, int]) -> Tally:
    first, seeds = chunk
    command = [sys.executable, "-m", "tests.sim", "--first", str(first), "--seeds", str(seeds), "--tally"]
    ended = subprocess.run(command, cwd=ROOT, env=dict(os.environ), capture_output=True, text=True, check=False)
    if ended.returncode:
        failure = f"the process ended with status {ended.returncode}: {ended.stderr[-2000:]}"
        return Tally(first, seeds, failures=[{"seed": first, "failure": failure}])
    return load_tally(ended.stdout)


def joined(tallies: Sequence[Tally]) -> Tally:
    """All of them as one."""
    ordered = sorted(tallies, key=lambda tally: tally.first)
    whole = Tally(ordered[0].first if ordered else 0, sum(tally.seeds for tally in ordered))
    whole.code = ", ".join(sorted({tally.code for tally in ordered}))
    whole.digest = hashlib.sha256("".join(tally.digest for tally in ordered).encode()).hexdigest()
    for tally in ordered:
        whole.cpu_seconds += tally.cpu_seconds
        whole.counts.update(tally.counts)
        whole.faults.update(tally.faults)
        whole.failures += tally.failures
    return whole
