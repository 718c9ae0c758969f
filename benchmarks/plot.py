"""`bench.png`: four panels that answer how fast, how soon, and whether a large ledger matters."""

from pathlib import Path
from typing import Final

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks.results import PATHS, Level, Point, Results
from benchmarks.stats import Spread
from benchmarks.targets import LEADER_SHARE, ONE_CLIENT_MS, SPREAD_SHARE

_COLOURS: Final = {"leader": "#1b6ca8", "follower": "#c8553d", "spread": "#3c896d"}
_VAULT: Final = "#8d5fa8"
_GREY: Final = "#777777"


def draw(results: Results, path: Path) -> None:
    mpl.rcParams.update({"font.size": 9, "axes.spines.top": False, "axes.spines.right": False})
    figure = Figure(figsize=(12, 8.4), dpi=130, layout="constrained")
    panels = figure.subplots(2, 2)
    _draw_rates(panels[0, 0], results)
    _draw_latencies(panels[0, 1], results)
    _draw_ledger(panels[1, 0], results)
    _draw_failover_and_reads(panels[1, 1], results)
    figure.suptitle(_title(results), fontsize=10)
    figure.savefig(path)


def _title(results: Results) -> str:
    machine, versions = results.origin.machine, results.origin.machine.versions
    return (
        f"Quorum CA {versions.get('quorumca', '')}: three nodes and the load on {machine.cores} cores of {machine.cpu},"
        f" {machine.filesystem}, fsync {machine.fsync_ms:.2f} ms; Python {versions.get('python', '')},"
        f" cryptography {versions.get('cryptography', '')}\n"
        f"{results.origin.began_at}; medians of {results.rounds} rounds of {results.seconds:g} s, bars from lowest to"
        f" highest; Y = {results.baseline.median:,.0f} leaves/s of one core in a plain loop"
    )


def _signs(results: Results, path: str) -> list[Point]:
    return [point for point in results.sweep.points if (point.operation, point.path) == ("sign", path)]


def _errors(spreads: list[Spread]) -> list[list[float]]:
    return [[one.median - one.low for one in spreads], [one.high - one.median for one in spreads]]


def _client_axis(axes: Axes, clients: list[int]) -> None:
    axes.set_xscale("log", base=2)
    axes.set_xticks(clients, [str(number) for number in clients])
    axes.minorticks_off()
    axes.set_xlabel("clients")
    axes.grid(alpha=0.25)


def _draw_rates(axes: Axes, results: Results) -> None:
    for path in PATHS:
        points = _signs(results, path)
        rates = [point.rate for point in points]
        axes.errorbar(
            [point.clients for point in points],
            [rate.median for rate in rates],
            yerr=_errors(rates),
            color=_COLOURS[path],
            marker="o",
            capsize=3,
            label=path,
        )
    yardstick = results.sweep.baseline.median
    for share, path in ((LEADER_SHARE, "leader"), (SPREAD_SHARE, "spread")):
        axes.axhline(share * yardstick, color=_COLOURS[path], linestyle=":", linewidth=1)
        axes.annotate(f"{share} Y", (1, share * yardstick), color=_COLOURS[path], va="bottom")
    _client_axis(axes, [point.clients for point in _signs(results, PATHS[0])])
    axes.set_ylim(bottom=0)
    axes.set_ylabel("leaves per second")
    axes.set_title("Signed and recorded, by path")
    axes.legend(frameon=False)


def _draw_latencies(axes: Axes, results: Results) -> None:
    for path in PATHS:
        points = _signs(results, path)
        clients = [point.clients for point in points]
        for spreads, style, label in (
            ([point.p50_ms for point in points], "-", f"{path} p50"),
            ([point.p99_ms for point in points], "--", f"{path} p99"),
        ):
            medians = [one.median for one in spreads]
            axes.plot(clients, medians, style, color=_COLOURS[path], marker="o", markersize=4, label=label)
    if results.vault is not None:
        through = [point.signing for point in results.vault.points]
        medians = [point.p50_ms.median for point in through]
        axes.plot([point.clients for point in through], medians, color=_VAULT, marker="s", label="leader, Vault p50")
    commits = results.sweep.commits
    medians = [commit.p50_ms.median for commit in commits]
    axes.plot([commit.clients for commit in commits], medians, color=_GREY, marker="x", label="commit p50")
    axes.axhline(ONE_CLIENT_MS, color=_GREY, linestyle=":", linewidth=1)
    axes.set_yscale("log")
    _client_axis(axes, clients)
    axes.set_ylabel("milliseconds")
    axes.set_title("Time to a leaf")
    axes.legend(frameon=False, ncols=2)


def _draw_ledger(axes: Axes, results: Results) -> None:
    """Shares of Y, so that the machine's mood between two levels does not show."""
    for offset, path in ((-0.2, "leader"), (0.2, "spread")):
        shares = [_shares(level, path) for level in results.levels]
        positions = [number + offset for number in range(len(shares))]
        bars = axes.bar(
            positions,
            [share.median for share in shares],
            0.36,
            yerr=_errors(shares),
            color=_COLOURS[path],
            capsize=3,
            label=path,
        )
        axes.bar_label(bars, fmt="%.2f", padding=2)
    axes.axhline(LEADER_SHARE, color=_COLOURS["leader"], linestyle=":", linewidth=1)
    axes.axhline(SPREAD_SHARE, color=_COLOURS["spread"], linestyle=":", linewidth=1)
    axes.set_xticks(range(len(results.levels)), [f"{level.records:,}\nrecords" for level in results.levels])
    axes.set_ylabel("share of Y")
    axes.set_title("64 clients, by size of the ledger")
    axes.legend(frameon=False)


def _shares(level: Level, path: str) -> Spread:
    rate = level.leader.rate if path == "leader" else level.spread.rate
    return Spread.of([sample / level.baseline.median for sample in rate.samples])


def _draw_failover_and_reads(axes: Axes, results: Results) -> None:
    labels, values = [], []
    for level in results.levels:
        labels.append(f"failover,\n{level.records:,} records")
        values.append(level.failover.seconds)
    positions = list(range(len(values)))
    bars = axes.bar(positions, [one.median for one in values], 0.5, yerr=_errors(values), color=_GREY, capsize=3)
    axes.bar_label(bars, fmt="%.2f s", padding=2)
    axes.set_ylabel("seconds until the next signature")
    reads = [point for point in results.sweep.points if point.operation == "roots"]
    right = axes.twinx()
    right.spines["right"].set_visible(True)
    places = [len(values) + number for number in range(len(reads))]
    rates = [point.rate for point in reads]
    bars = right.bar(
        places,
        [rate.median for rate in rates],
        0.5,
        yerr=_errors(rates),
        color=[_COLOURS[point.path] for point in reads],
        capsize=3,
    )
    right.bar_label(bars, fmt="{:,.0f}", padding=2)
    right.set_ylabel("root reads per second")
    labels += [f"roots,\n{point.path}" for point in reads]
    axes.set_xticks([*positions, *places], labels)
    axes.set_title("Loss of the leader; reads of the roots")
