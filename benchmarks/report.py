"""`bench.json` and `bench.md` from results."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path

from benchmarks.origin import code_text
from benchmarks.results import LEADER, PATHS, Point, Results, ThroughVault
from benchmarks.stats import Spread
from benchmarks.targets import Verdict


def write_json(results: Results, verdicts: Sequence[Verdict], path: Path) -> None:
    content = {**asdict(results), "targets": [asdict(verdict) for verdict in verdicts]}
    path.write_text(json.dumps(content, indent=2) + "\n")


def write_markdown(results: Results, verdicts: Sequence[Verdict], path: Path, plot: str) -> None:
    sections = [
        _introduction(results),
        f"![rates, latencies and the ledger's influence]({plot})",
        "## Targets\n\n" + targets_table(verdicts),
        "## Signing\n\n" + _points_table(results, "sign"),
        "## Through Vault\n\n" + _through_vault(results),
        "## With access control\n\n" + _with_acls(results),
        "## Reading the roots\n\n" + _points_table(results, "roots"),
        "## Commit, on the leader\n\n" + _commits_table(results),
        "## Idle nodes\n\n" + _idle_table(results),
        "## After kill -9 of the leader\n\n" + _failover_table(results),
    ]
    path.write_text("\n\n".join(sections) + "\n")


def targets_table(verdicts: Sequence[Verdict]) -> str:
    rows = [
        (verdict.target, verdict.wanted, verdict.measured, f"{verdict.ratio:.2f}", "pass" if verdict.is_met else "MISS")
        for verdict in verdicts
    ]
    return _table(("target", "wanted", "measured", "ratio", ""), rows)


def _introduction(results: Results) -> str:
    origin, machine = results.origin, results.origin.machine
    versions = ", ".join(f"{name} {version}" for name, version in machine.versions.items())
    return (
        f"# Benchmark of {origin.began_at}\n\n"
        f"Three nodes and the load generator on one machine: {machine.cores} cores of {machine.cpu},"
        f" {machine.memory_gb:g} GB, {machine.kernel}, {machine.filesystem} with {machine.fsync_ms:.2f} ms for a"
        f" synced 4 KB append; {results.stolen_percent:g} % of the time was taken by the host. {versions}."
        f" Commit: {code_text(origin.commit, origin.tree_clean)}.\n\n"
        f"Medians (lowest–highest) of {results.rounds} rounds of {results.seconds:g} s. Every leaf was synced to disk"
        " on a majority before it was answered. Y, the rate of one core that only checks CSRs and signs leaves in a"
        f" loop: {results.baseline.text()} per second. The CPU time is that of all nodes together for one request;"
        " `busy elsewhere` is how many cores other programs used meanwhile, which slows down everything but that."
    )


def _points_table(results: Results, operation: str) -> str:
    points = [
        point for path in PATHS for point in results.sweep.points if (point.operation, point.path) == (operation, path)
    ]
    rows = [
        (
            point.path,
            f"{point.clients}",
            point.rate.text(),
            f"{point.rate.median / results.sweep.baseline.median:.2f}",
            point.p50_ms.text(2),
            point.p99_ms.text(2),
            f"{point.cpu_us.median:,.0f}",
            f"{point.cores_elsewhere:.1f}",
            f"{sum(point.failures.values())}",
        )
        for point in points
    ]
    titles = (
        "through",
        "clients",
        "per second",
        "of Y",
        "p50 ms",
        "p99 ms",
        "CPU µs each",
        "busy elsewhere",
        "failures",
    )
    return _table(titles, rows)


def _through_vault(results: Results) -> str:
    vault = results.vault
    if vault is None:
        return "Not measured: no OpenBao is installed here."
    rows = [
        row
        for point in vault.points
        for row in (
            _provider_row("built-in", results.sweep.point("sign", LEADER, point.signing.clients), "–"),
            _provider_row("vault", point.signing, f"{point.server_cpu_us.median:,.0f}"),
        )
    ]
    titles = (
        "provider",
        "clients",
        "per second",
        "p50 ms",
        "p99 ms",
        "CPU µs each",
        "CPU µs of Vault",
        "busy elsewhere",
        "failures",
    )
    return _about_vault(vault) + "\n\n" + _table(titles, rows)


def _with_acls(results: Results) -> str:
    acl = results.acl
    if acl is None:
        return "Not measured."
    rows = [
        (
            path.path,
            f"{path.clients}",
            Spread.of([one.open_rate for one in path.rounds]).text(),
            Spread.of([one.guarded_rate for one in path.rounds]).text(),
            path.ratio.text(3),
            path.cpu_ratio.text(3),
            f"{sum(path.failures.values())}",
        )
        for path in acl.paths
    ]
    titles = ("through", "clients", "per second without", "per second with", "ratio", "ratio of CPU", "failures")
    about = (
        "Two clusters side by side, measured in turn, each right after the other: one where everybody may do"
        f" everything, and one where nothing is allowed by default, with {acl.tokens:,} tokens, each client signing as"
        " a service of its own with its token. Ratios are of one round each."
    )
    return f"{about}\n\n{_table(titles, rows)}"


def _about_vault(vault: ThroughVault) -> str:
    return (
        f"The keys in {vault.server}, over TLS, with its storage on the same disk and its work on the same cores: every"
        " leaf is signed there, verified here, and synced to disk on a majority as any other. Through the leader of a"
        f" cluster of its own, at a Y of {vault.baseline.text()}; the built-in provider's rows are those from above."
    )


def _provider_row(provider: str, point: Point, server_cpu_us: str) -> tuple[str, ...]:
    return (
        provider,
        f"{point.clients}",
        point.rate.text(),
        point.p50_ms.text(2),
        point.p99_ms.text(2),
        f"{point.cpu_us.median:,.0f}",
        server_cpu_us,
        f"{point.cores_elsewhere:.1f}",
        f"{sum(point.failures.values())}",
    )


def _commits_table(results: Results) -> str:
    rows = [
        (f"{commit.clients}", commit.mean_ms.text(2), commit.p50_ms.text(2), commit.p99_ms.text(2))
        for commit in results.sweep.commits
    ]
    return _table(("clients", "mean ms", "p50 ms", "p99 ms"), rows)


def _idle_table(results: Results) -> str:
    rows = [
        (
            f"{level.records:,}",
            usage.name + (" (leader)" if usage.is_leader else ""),
            f"{usage.processes}",
            f"{usage.cpu_percent:.2f}",
            f"{usage.rss_mb:.0f}",
            f"{usage.pss_mb:.0f}",
        )
        for level in results.levels
        for usage in level.idle
    ]
    return _table(("records", "node", "processes", "CPU % of a core", "RSS MB", "PSS MB"), rows)


def _failover_table(results: Results) -> str:
    rows = [
        (
            f"{level.records:,}",
            level.failover.seconds.text(3),
            level.failover.rejoin_seconds.text(2),
            level.leader.rate.text(),
            level.spread.rate.text(),
            f"{level.baseline.median:,.0f}",
            f"{level.leader.cpu_us.median:,.0f}",
        )
        for level in results.levels
    ]
    titles = (
        "records",
        "next signature after s",
        "node back after s",
        "64 clients, leader, /s",
        "spread, /s",
        "Y",
        "CPU µs, leader",
    )
    return _table(titles, rows)


def _table(titles: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [titles, ["---"] * len(titles), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
