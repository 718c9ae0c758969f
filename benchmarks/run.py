"""Measure a local cluster of three nodes: `python -m benchmarks.run`, or `make bench`.

Writes `bench.json`, `bench.png` and `bench.md` (`quick.*` with --quick) and prints which targets are met. Exit code 0
says that everything was measured, not that every target is met: whether a miss is a regression or a busy machine is
for a person to say.
"""

import argparse
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from benchmarks.acl import measure_with_acls
from benchmarks.baseline import measure_baseline
from benchmarks.csrs import make_csrs
from benchmarks.fill import fill_ledger
from benchmarks.machine import StolenTime
from benchmarks.measure import Bench, Effort
from benchmarks.nodes import running_cluster
from benchmarks.origin import describe_origin
from benchmarks.plot import draw
from benchmarks.report import targets_table, write_json, write_markdown
from benchmarks.results import Level, Results, Sweep
from benchmarks.stats import Spread
from benchmarks.targets import judge
from benchmarks.vault import measure_through_vault

_RESULTS = Path(__file__).parent / "results"
_POOL = 256
_FULL = Effort(rounds=3, seconds=4.0, baseline_seconds=1.0, idle_seconds=15.0, settle_seconds=3.0, failovers=5)
_QUICK = Effort(rounds=1, seconds=2.0, baseline_seconds=0.5, idle_seconds=5.0, settle_seconds=2.0, failovers=2)


def main(argv: Sequence[str] | None = None) -> int:
    options = _parse(argv)
    options.out.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        data_dir = options.data_dir
        if data_dir is None:
            # Not the system's temporary directory: where that is memory, a sync costs nothing.
            data_dir = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="data-", dir=options.out)))
        data_dir.mkdir(parents=True, exist_ok=True)
        results = _measure(options, data_dir)
    verdicts = judge(results)
    name = "quick" if options.quick else "bench"
    write_json(results, verdicts, options.out / f"{name}.json")
    draw(results, options.out / f"{name}.png")
    write_markdown(results, verdicts, options.out / f"{name}.md", plot=f"{name}.png")
    print(f"\nY = {results.baseline.text()} leaves per second of one core\n\n{targets_table(verdicts)}")
    return 0


def _measure(options: argparse.Namespace, data_dir: Path) -> Results:
    effort = _effort(options)
    stolen = StolenTime()
    origin = describe_origin(data_dir, seed=None)
    quiet = measure_baseline(effort.baseline_seconds, blocks=3)
    say(f"Y with nothing else running: {Spread.of(quiet).text()} per second")
    levels: list[Level] = []
    sweep: Sweep | None = None
    with running_cluster(data_dir) as cluster:
        csrs = make_csrs(_POOL, cluster.configure())
        bench = Bench(cluster, csrs, effort, say)
        for records in options.records:
            fill_ledger(cluster, csrs, records, say)
            levels.append(bench.level(records))
            # Once is enough: what the ledger's size could change is part of every level.
            sweep = sweep or bench.sweep()
    assert sweep is not None
    vault = measure_through_vault(data_dir / "vault", effort, _POOL, say)
    say("with and without access control, in turn ...")
    acl = measure_with_acls(data_dir / "acl", 2 * effort.rounds, effort.seconds, say)
    samples = [*quiet, *sweep.baseline.samples, *(sample for level in levels for sample in level.baseline.samples)]
    return Results(
        origin=origin,
        rounds=effort.rounds,
        seconds=effort.seconds,
        stolen_percent=stolen.percent(),
        baseline=Spread.of(samples),
        sweep=sweep,
        levels=tuple(levels),
        vault=vault,
        acl=acl,
    )


def say(text: str) -> None:
    print(text, flush=True)


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.run", description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="one short round: does it work, and roughly how fast")
    parser.add_argument(
        "--records", type=_record_counts, help="sizes of the ledger to compare (default: 0,300000; with --quick: 0)"
    )
    parser.add_argument("--rounds", type=_positive, help="how often everything is measured (default: 3)")
    parser.add_argument("--seconds", type=_positive, help="length of one measurement (default: 4)")
    parser.add_argument("--out", type=Path, default=_RESULTS, help="where results go (default: benchmarks/results)")
    parser.add_argument("--data-dir", type=Path, help="for the nodes' data, empty, kept (default: a temporary one)")
    options = parser.parse_args(argv)
    options.records = options.records or ([0] if options.quick else [0, 300_000])
    return options


def _record_counts(text: str) -> list[int]:
    counts = [int(part) for part in text.split(",")]
    if counts != sorted(counts) or counts[0] < 0:
        raise argparse.ArgumentTypeError(f"{text!r}: want numbers from small to large, such as 0,300000")
    return counts


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text!r}: want a whole number above 0")
    return number


def _effort(options: argparse.Namespace) -> Effort:
    base = _QUICK if options.quick else _FULL
    return Effort(
        rounds=options.rounds or base.rounds,
        seconds=float(options.seconds or base.seconds),
        baseline_seconds=base.baseline_seconds,
        idle_seconds=base.idle_seconds,
        settle_seconds=base.settle_seconds,
        failovers=base.failovers,
    )


if __name__ == "__main__":
    sys.exit(main())
