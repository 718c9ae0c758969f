"""kill -9 of the leader under load, many times, with an empty and with a large ledger: `python -m benchmarks.kills`.

Writes `kills.json` and `kills.md` into --out. What must hold: the median time to the next signature below half a
second, the longest below two, and the medians of the two ledgers within a fifth of each other.
"""

import argparse
import json
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from benchmarks.csrs import make_csrs
from benchmarks.failover import measure_failover
from benchmarks.fill import fill_ledger
from benchmarks.nodes import running_cluster
from benchmarks.origin import describe_origin
from benchmarks.stats import percentile

_POOL: Final = 64
_MEDIAN_SECONDS: Final = 0.5
_LONGEST_SECONDS: Final = 2.0
_ALIKE: Final = 0.2


@dataclass(frozen=True, slots=True)
class Level:
    """One size of the ledger."""

    records: int
    rounds: int
    median_seconds: float
    p90_seconds: float
    max_seconds: float
    rejoin_median_seconds: float
    samples: tuple[float, ...]


def main(argv: Sequence[str] | None = None) -> int:
    options = _parse(argv)
    options.out.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        data_dir = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="data-", dir=options.out)))
        origin = describe_origin(data_dir, seed=None)
        levels = _measure(data_dir, options.rounds, options.records)
    failures = judge(levels)
    result = {"origin": asdict(origin), "levels": [asdict(level) for level in levels]}
    (options.out / "kills.json").write_text(json.dumps(result | {"failures": failures}, indent=1) + "\n")
    (options.out / "kills.md").write_text(_markdown(origin.began_at, levels, failures))
    print(_markdown(origin.began_at, levels, failures))
    return 1 if failures else 0


def _measure(data_dir: Path, rounds: int, records: Sequence[int]) -> list[Level]:
    levels = []
    with running_cluster(data_dir) as cluster:
        csrs = make_csrs(_POOL, cluster.configure())
        for wanted in records:
            fill_ledger(cluster, csrs, wanted, lambda text: print(text, flush=True))
            present = cluster.ledger_records()
            failover = measure_failover(cluster, csrs, rounds)
            samples = sorted(failover.seconds.samples)
            level = Level(
                records=present,
                rounds=rounds,
                median_seconds=percentile(samples, 0.5),
                p90_seconds=percentile(samples, 0.9),
                max_seconds=samples[-1],
                rejoin_median_seconds=failover.rejoin_seconds.median,
                samples=tuple(round(sample, 4) for sample in samples),
            )
            print(
                f"{present:,} records: median {level.median_seconds:.3f} s, max {level.max_seconds:.3f} s", flush=True
            )
            levels.append(level)
    return levels


def judge(levels: Sequence[Level]) -> list[str]:
    """What does not hold, in words."""
    failures = []
    for level in levels:
        if level.median_seconds >= _MEDIAN_SECONDS:
            failures.append(
                f"{level.records:,} records: median {level.median_seconds:.3f} s, not below {_MEDIAN_SECONDS}"
            )
        if level.max_seconds >= _LONGEST_SECONDS:
            failures.append(
                f"{level.records:,} records: longest {level.max_seconds:.3f} s, not below {_LONGEST_SECONDS}"
            )
    medians = sorted(level.median_seconds for level in levels)
    if medians and medians[-1] > (1 + _ALIKE) * medians[0]:
        failures.append(f"medians differ by more than {_ALIKE:.0%}: {medians[0]:.3f} and {medians[-1]:.3f} s")
    return failures


def _markdown(began_at: str, levels: Sequence[Level], failures: Sequence[str]) -> str:
    rows = "\n".join(
        f"| {level.records:,} | {level.rounds} | {level.median_seconds:.3f} | {level.p90_seconds:.3f} |"
        f" {level.max_seconds:.3f} | {level.rejoin_median_seconds:.2f} |"
        for level in levels
    )
    verdict = "All limits hold." if not failures else "Does not hold: " + "; ".join(failures) + "."
    return (
        "# kill -9 of the leader under load\n\n"
        f"{began_at}; about 150 signatures per second in the background; seconds from the kill to the first signature"
        " that was asked for after it.\n\n"
        "| certificates on record | kills | median | p90 | max | rejoined, median |\n|---|---|---|---|---|---|\n"
        f"{rows}\n\n{verdict}\n"
    )


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.kills", description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=200, help="kills for each size of the ledger (default: 200)")
    parser.add_argument("--records", type=lambda text: [int(part) for part in text.split(",")], default=[0, 300_000])
    parser.add_argument("--out", type=Path, default=Path("docs/evidence"), help="default: docs/evidence")
    return parser.parse_args(argv)


if __name__ == "__main__":
    sys.exit(main())
