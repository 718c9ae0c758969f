"""Rounds of load on a running cluster, gathered into points.

Rounds are the outer loop, so that a slow minute of the machine touches every point a little and not one point
altogether; each round begins with the yardstick, for the same reason.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import product

from benchmarks.baseline import measure_baseline
from benchmarks.failover import measure_failover
from benchmarks.idle import measure_idle
from benchmarks.load import LoadPlan, LoadResult, roots_plan, run_load, sign_plan
from benchmarks.nodes import LocalCluster
from benchmarks.results import LEADER, PATHS, SPREAD, CommitPoint, Level, Point, Sweep
from benchmarks.stats import Histogram, Spread

CLIENTS = (1, 16, 64, 256)
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


@dataclass(slots=True)
class _Rounds:
    """What the rounds gave so far."""

    baseline: list[float] = field(default_factory=list)
    loads: dict[_Case, list[LoadResult]] = field(default_factory=lambda: defaultdict(list))
    commits: dict[int, list[Histogram]] = field(default_factory=lambda: defaultdict(list))

    def point(self, case: _Case) -> Point:
        runs = self.loads[case]
        return Point(
            operation=case.operation,
            path=case.path,
            clients=case.clients,
            rate=Spread.of([run.rate for run in runs]),
            p50_ms=Spread.of([run.p50_ms for run in runs]),
            p99_ms=Spread.of([run.p99_ms for run in runs]),
            failures=dict(sum((Counter(run.failures) for run in runs), Counter())),
            generator_cpu_percent=round(max(run.generator_cpu_percent for run in runs), 1),
        )

    def commit(self, clients: int) -> CommitPoint:
        found = self.commits[clients]
        return CommitPoint(
            clients=clients,
            mean_ms=Spread.of([1000 * commits.mean for commits in found]),
            p50_ms=Spread.of([1000 * commits.quantile(0.50) for commits in found]),
            p99_ms=Spread.of([1000 * commits.quantile(0.99) for commits in found]),
        )


class Bench:
    """Measures one running cluster."""

    def __init__(
        self, cluster: LocalCluster, csrs: Sequence[str], effort: Effort, say: Callable[[str], None] = print
    ) -> None:
        self._cluster = cluster
        self._csrs = csrs
        self._effort = effort
        self._say = say

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

    def _run(self, cases: Iterable[_Case]) -> _Rounds:
        rounds = _Rounds()
        for number in range(self._effort.rounds):
            rounds.baseline += measure_baseline(self._effort.baseline_seconds, blocks=2)
            for case in cases:
                result = self._run_case(case, rounds)
                rounds.loads[case].append(result)
                trouble = f"  FAILURES {result.failures}" if result.failures else ""
                self._say(
                    f"round {number + 1}: {case.operation:5} {case.path:8} {case.clients:3} clients"
                    f" {result.rate:8,.0f}/s  p50 {result.p50_ms:7.2f} ms  p99 {result.p99_ms:7.2f} ms{trouble}"
                )
        return rounds

    def _run_case(self, case: _Case, rounds: _Rounds) -> LoadResult:
        plan = self._plan(case)
        if (case.operation, case.path) != ("sign", LEADER):
            return run_load(plan)
        leader = self._cluster.leader()
        before = Histogram.parse(leader.metrics(), _COMMIT_SECONDS)
        result = run_load(plan)
        rounds.commits[case.clients].append(Histogram.parse(leader.metrics(), _COMMIT_SECONDS).since(before))
        return result

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
