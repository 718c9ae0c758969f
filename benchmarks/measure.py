"""Rounds of load on a running cluster, gathered into points.

Rounds are the outer loop, so that a slow minute of the machine touches every point a little and not one point
altogether; each round begins with the yardstick, for the same reason.
"""

import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import product

import psutil

from benchmarks.baseline import measure_baseline
from benchmarks.failover import measure_failover
from benchmarks.idle import measure_idle
from benchmarks.load import LoadPlan, LoadResult, roots_plan, run_load, sign_plan
from benchmarks.nodes import LocalCluster, cpu_seconds, process_tree
from benchmarks.results import LEADER, PATHS, SPREAD, CommitPoint, Level, Point, Sweep, ThroughVault, VaultPoint
from benchmarks.stats import Histogram, Spread

CLIENTS = (1, 16, 64, 256)
VAULT_CLIENTS = (1, 16, 64)
TARGET_CLIENTS = 64
READ_CLIENTS = 64
_COMMIT_SECONDS = "quorumca_commit_seconds"


@dataclass(frozen=True, slots=True)
class Effort:
    """How much is measured."""

    rounds: int
    seconds: float  # of one run
    baseline_seconds: float
    idle_seconds: float
    settle_seconds: float
    failovers: int


@dataclass(frozen=True, slots=True)
class _Case:
    operation: str
    path: str
    clients: int


@dataclass(frozen=True, slots=True)
class _Run:
    """One load, and what the machine did meanwhile."""

    load: LoadResult
    cpu_us: float
    beside_us: float
    cores_elsewhere: float


@dataclass(slots=True)
class _Rounds:
    """What the rounds gave so far."""

    baseline: list[float] = field(default_factory=list)
    runs: dict[_Case, list[_Run]] = field(default_factory=lambda: defaultdict(list))
    commits: dict[int, list[Histogram]] = field(default_factory=lambda: defaultdict(list))

    def point(self, case: _Case) -> Point:
        runs = self.runs[case]
        loads = [run.load for run in runs]
        return Point(
            operation=case.operation,
            path=case.path,
            clients=case.clients,
            rate=Spread.of([load.rate for load in loads]),
            p50_ms=Spread.of([load.p50_ms for load in loads]),
            p99_ms=Spread.of([load.p99_ms for load in loads]),
            failures=dict(sum((Counter(load.failures) for load in loads), Counter())),
            cpu_us=Spread.of([run.cpu_us for run in runs]),
            cores_elsewhere=round(max(run.cores_elsewhere for run in runs), 2),
            generator_cpu_percent=round(max(load.generator_cpu_percent for load in loads), 1),
        )

    def beside_us(self, case: _Case) -> Spread:
        return Spread.of([run.beside_us for run in self.runs[case]])

    def commit(self, clients: int) -> CommitPoint:
        found = self.commits[clients]
        return CommitPoint(
            clients=clients,
            mean_ms=Spread.of([1000 * commits.mean for commits in found]),
            p50_ms=Spread.of([1000 * commits.quantile(0.50) for commits in found]),
            p99_ms=Spread.of([1000 * commits.quantile(0.99) for commits in found]),
        )


class Bench:
    """Measures one running cluster; `beside` are processes that work for it, and are counted apart."""

    def __init__(
        self,
        cluster: LocalCluster,
        csrs: Sequence[str],
        effort: Effort,
        say: Callable[[str], None] = print,
        beside: Sequence[psutil.Process] = (),
    ) -> None:
        self._cluster = cluster
        self._csrs = csrs
        self._effort = effort
        self._say = say
        self._beside = beside

    def sweep(self) -> Sweep:
        """All paths at all numbers of clients, and reads of the roots."""
        signs = [_Case("sign", path, clients) for path, clients in product(PATHS, CLIENTS)]
        reads = [_Case("roots", path, READ_CLIENTS) for path in PATHS]
        rounds = self._run([*signs, *reads])
        return Sweep(
            baseline=Spread.of(rounds.baseline),
            points=tuple(rounds.point(case) for case in [*signs, *reads]),
            commits=tuple(rounds.commit(clients) for clients in CLIENTS),
        )

    def level(self, records: int) -> Level:
        """What the size of the ledger could change, with the ledger as it is."""
        leader, spread = (_Case("sign", path, TARGET_CLIENTS) for path in (LEADER, SPREAD))
        present = self._cluster.ledger_records()
        rounds = self._run([leader, spread])
        effort = self._effort
        self._say("idle ...")
        idle = measure_idle(self._cluster, effort.settle_seconds, effort.idle_seconds)
        self._say(f"losing the leader {effort.failovers} times ...")
        failover = measure_failover(self._cluster, self._csrs, effort.failovers)
        return Level(
            records=records,
            records_at_start=present,
            baseline=Spread.of(rounds.baseline),
            leader=rounds.point(leader),
            spread=rounds.point(spread),
            idle=idle,
            failover=failover,
        )

    def through_vault(self, server: str) -> ThroughVault:
        """Signing, of a cluster whose keys are in this server, the process beside it."""
        cases = [_Case("sign", LEADER, clients) for clients in VAULT_CLIENTS]
        rounds = self._run(cases)
        return ThroughVault(
            server=server,
            baseline=Spread.of(rounds.baseline),
            points=tuple(VaultPoint(rounds.point(case), rounds.beside_us(case)) for case in cases),
        )

    def _run(self, cases: Iterable[_Case]) -> _Rounds:
        rounds = _Rounds()
        for number in range(self._effort.rounds):
            rounds.baseline += measure_baseline(self._effort.baseline_seconds, blocks=2)
            for case in cases:
                run = self._run_case(case, rounds)
                rounds.runs[case].append(run)
                self._say(f"round {number + 1}: {_line(case, run)}")
        return rounds

    def _run_case(self, case: _Case, rounds: _Rounds) -> _Run:
        if (case.operation, case.path) != ("sign", LEADER):
            return self._run_load(self._plan(case))
        leader = self._cluster.leader()
        before = Histogram.parse(leader.metrics(), _COMMIT_SECONDS)
        run = self._run_load(self._plan(case))
        rounds.commits[case.clients].append(Histogram.parse(leader.metrics(), _COMMIT_SECONDS).since(before))
        return run

    def _run_load(self, plan: LoadPlan) -> _Run:
        trees = [process for node in self._cluster.nodes for process in process_tree(node.pid)]
        ours, beside = cpu_seconds(trees), cpu_seconds(self._beside)
        own, busy, started = _children_seconds(), _busy_seconds(), time.monotonic()
        load = run_load(plan)
        ours, beside = cpu_seconds(trees) - ours, cpu_seconds(self._beside) - beside
        own, busy = _children_seconds() - own, _busy_seconds() - busy
        elsewhere = (busy - ours - beside - own) / (time.monotonic() - started)
        each = 1e6 / max(1, load.successes)
        return _Run(load, each * ours, each * beside, max(0.0, elsewhere))

    def _plan(self, case: _Case) -> LoadPlan:
        targets = self._targets(case.path)
        if case.operation == "sign":
            return sign_plan(targets, case.clients, self._effort.seconds, self._csrs)
        return roots_plan(targets, case.clients, self._effort.seconds)

    def _targets(self, path: str) -> list[str]:
        match path:
            case "leader":
                return [self._cluster.leader().http]
            case "follower":
                return [self._cluster.followers()[0].http]
            case _:
                return [node.http for node in self._cluster.nodes]


def _children_seconds() -> float:
    """Of the load generators that have ended."""
    times = psutil.Process().cpu_times()
    return times.children_user + times.children_system


def _busy_seconds() -> float:
    """Of the whole machine, since it started."""
    times = psutil.cpu_times()
    return sum(times) - times.idle - getattr(times, "iowait", 0.0) - getattr(times, "guest", 0.0)


def _line(case: _Case, run: _Run) -> str:
    load = run.load
    trouble = f"  FAILURES {load.failures}" if load.failures else ""
    return (
        f"{case.operation:5} {case.path:8} {case.clients:3} clients {load.rate:8,.0f}/s"
        f"  p50 {load.p50_ms:7.2f} ms  p99 {load.p99_ms:7.2f} ms  {run.cpu_us:5,.0f} us of CPU each"
        f"  ({run.cores_elsewhere:.1f} cores busy elsewhere){trouble}"
    )
