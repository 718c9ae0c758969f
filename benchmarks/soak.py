"""An hour at a steady rate, with the leader killed every five minutes: `python -m benchmarks.soak`.

Memory, descriptors and disk of every node are sampled all the while. Writes `soak.json`, `soak.png` and `soak.md` into
--out. What must hold: no sample of the last third above the largest of the middle third by more than a tenth (over all
nodes, because a leader holds more than a follower), and equal digests at the end.
"""

import argparse
import json
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

import psutil
from matplotlib.figure import Figure

from benchmarks.csrs import make_csrs
from benchmarks.load import LoadResult, run_load, sign_plan
from benchmarks.nodes import LocalCluster, Node, kill, process_tree, running_cluster
from benchmarks.origin import describe_origin

_POOL: Final = 64
_CLIENTS: Final = 6
_DOWN_SECONDS: Final = 5.0
_GROWTH: Final = 1.1
#: Growth that is no growth: an arena more, a compaction less.
_SLACK: Final = {"rss_mb": 8.0, "descriptors": 8.0, "disk_mb": 48.0}
_MB: Final = 1e6


@dataclass(frozen=True, slots=True)
class Sample:
    """One node at one moment, workers included."""

    at_seconds: float
    node: str
    rss_mb: float
    descriptors: int
    disk_mb: float  # without the ledger, which grows with what is issued
    ledger_mb: float
    records: int


def main(argv: Sequence[str] | None = None) -> int:
    options = _parse(argv)
    options.out.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        data_dir = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="data-", dir=options.out)))
        origin = describe_origin(data_dir, seed=None)
        samples, kills, load = _run(data_dir, options)
    failures = judge(samples)
    text = _markdown(origin.began_at, options, samples, kills, load, failures)
    (options.out / "soak.json").write_text(
        json.dumps(
            {
                "origin": asdict(origin),
                "seconds": options.seconds,
                "kills_at_seconds": [round(at, 1) for at in kills],
                "load": asdict(load),
                "failures": failures,
                "samples": [asdict(sample) for sample in samples],
            },
            indent=1,
        )
        + "\n"
    )
    (options.out / "soak.md").write_text(text)
    _draw(samples, kills, options.out / "soak.png")
    print(text)
    return 1 if failures else 0


def _run(data_dir: Path, options: argparse.Namespace) -> tuple[list[Sample], list[float], LoadResult]:
    samples: list[Sample] = []
    kills: list[float] = []
    with running_cluster(data_dir) as cluster:
        csrs = make_csrs(_POOL, cluster.configure())
        targets = [node.http for node in cluster.nodes]
        think = _CLIENTS / options.rate
        plan = sign_plan(targets, _CLIENTS, float(options.seconds), csrs, warmup_seconds=0.0, think_seconds=think)
        results: list[LoadResult] = []
        load = threading.Thread(target=lambda: results.append(run_load(plan)))
        load.start()
        started = time.monotonic()
        next_kill = float(options.kill_every)
        while load.is_alive():
            now = time.monotonic() - started
            if now >= next_kill and now < options.seconds - 2 * options.every:
                next_kill += options.kill_every
                kills.append(now)
                _lose_leader(cluster)
            samples += _look(cluster, data_dir, time.monotonic() - started)
            load.join(options.every)
        cluster.wait_until_alike()
        samples += _look(cluster, data_dir, time.monotonic() - started)
    return samples, kills, results[0]


def _lose_leader(cluster: LocalCluster) -> None:
    leader = cluster.leader()
    kill(leader)
    time.sleep(_DOWN_SECONDS)
    cluster.restart(leader)


def _look(cluster: LocalCluster, data_dir: Path, at_seconds: float) -> list[Sample]:
    samples = []
    for node in cluster.nodes:
        with suppress(psutil.Error, OSError, ValueError):
            samples.append(_sample(node, data_dir / node.name / "data", at_seconds))
    return samples


def _sample(node: Node, directory: Path, at_seconds: float) -> Sample:
    tree = process_tree(node.pid)
    ledger = rest = 0
    for path in directory.rglob("*"):
        with suppress(FileNotFoundError):
            size = path.stat().st_size
            if path.name == "ledger.db":
                ledger += size
            else:
                rest += size
    return Sample(
        at_seconds=round(at_seconds, 1),
        node=node.name,
        rss_mb=round(sum(process.memory_info().rss for process in tree) / _MB, 1),
        descriptors=sum(process.num_fds() for process in tree),
        disk_mb=round(rest / _MB, 2),
        ledger_mb=round(ledger / _MB, 2),
        records=int(node.digest()["LedgerCount"]),
    )


def judge(samples: Sequence[Sample]) -> list[str]:
    """What is not flat, in words."""
    failures = []
    end = max(sample.at_seconds for sample in samples)
    for what, slack in _SLACK.items():
        middle = [getattr(sample, what) for sample in samples if end / 3 <= sample.at_seconds < 2 * end / 3]
        last = [getattr(sample, what) for sample in samples if sample.at_seconds >= 2 * end / 3]
        if middle and last and max(last) > _GROWTH * max(middle) + slack:
            failures.append(f"{what} grew from {max(middle):g} to {max(last):g}")
    return failures


def _draw(samples: Sequence[Sample], kills: Sequence[float], path: Path) -> None:
    figure = Figure(figsize=(11, 9), dpi=120, layout="constrained")
    panels = figure.subplots(4, 1, sharex=True)
    rows = (
        ("rss_mb", "memory, MB (RSS of node and workers)"),
        ("descriptors", "open descriptors"),
        ("disk_mb", "disk without ledger.db, MB"),
        ("ledger_mb", "ledger.db, MB"),
    )
    for axes, (what, label) in zip(panels, rows, strict=True):
        for name in sorted({sample.node for sample in samples}):
            own = [sample for sample in samples if sample.node == name]
            axes.plot([one.at_seconds / 60 for one in own], [getattr(one, what) for one in own], label=name, lw=1)
        for at in kills:
            axes.axvline(at / 60, color="#c8553d", lw=0.7, alpha=0.6)
        axes.set_ylabel(label, fontsize=8)
        axes.set_ylim(bottom=0)
        axes.grid(alpha=0.25)
    panels[0].legend(fontsize=8)
    panels[0].set_title("Steady signing; a line is a kill -9 of the leader", fontsize=10)
    panels[-1].set_xlabel("minutes")
    figure.savefig(path)


def _markdown(
    began_at: str,
    options: argparse.Namespace,
    samples: Sequence[Sample],
    kills: Sequence[float],
    load: LoadResult,
    failures: Sequence[str],
) -> str:
    lines = []
    for name in sorted({sample.node for sample in samples}):
        own = [sample for sample in samples if sample.node == name]
        third = len(own) // 3
        for what in _SLACK:
            parts = [own[:third], own[third : 2 * third], own[2 * third :]]
            peaks = " | ".join(f"{max(getattr(one, what) for one in part):g}" for part in parts if part)
            lines.append(f"| {name} | {what} | {peaks} |")
    rows = "\n".join(lines)
    verdict = "Memory, descriptors and disk stay flat." if not failures else "Not flat: " + "; ".join(failures) + "."
    return (
        "# Soak\n\n"
        f"{began_at}; {options.seconds / 60:.0f} minutes at about {options.rate} signatures per second through all"
        f" nodes, {len(kills)} kills of the leader; {load.requests:,} certificates signed,"
        f" p50 {load.p50_ms:.1f} ms, p99 {load.p99_ms:.1f} ms; other answers: {load.failures or 'none'}."
        f" {max(sample.records for sample in samples):,} on record on every node at the end, digests equal.\n\n"
        "| node | what | highest, first third | second | last |\n|---|---|---|---|---|\n"
        f"{rows}\n\n{verdict}\n\n![soak](soak.png)\n"
    )


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.soak", description=__doc__.partition("\n")[0])
    parser.add_argument("--seconds", type=int, default=3600, help="default: 3600")
    parser.add_argument("--kill-every", type=int, default=300, help="seconds between kills (default: 300)")
    parser.add_argument("--rate", type=int, default=40, help="signatures per second, about (default: 40)")
    parser.add_argument("--every", type=float, default=10.0, help="seconds between samples (default: 10)")
    parser.add_argument("--out", type=Path, default=Path("docs/evidence"), help="default: docs/evidence")
    return parser.parse_args(argv)


if __name__ == "__main__":
    sys.exit(main())
