"""The targets of the project, and whether a run met them."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from benchmarks.results import FOLLOWER, LEADER, Level, NodeUsage, Results, WithAcls

LEADER_SHARE: Final = 0.4
SPREAD_SHARE: Final = 0.3
ONE_CLIENT_MS: Final = 3.0
IDLE_PERCENT: Final = 3.0
MEMORY_MB: Final = 120.0
#: "The same" for two ledgers: repeated runs on a shared machine differ by about this much by themselves.
RATE_TOLERANCE: Final = 0.10
FAILOVER_TOLERANCE_SECONDS: Final = 0.25
#: Of the rate without access control.
ACL_SHARE: Final = 0.95


@dataclass(frozen=True, slots=True)
class Verdict:
    """One target. `ratio` is the measured over the wanted value."""

    target: str
    wanted: str
    measured: str
    ratio: float
    is_met: bool


def judge(results: Results) -> list[Verdict]:
    verdicts = [verdict for level in results.levels for verdict in _rates(level)]
    for path in (LEADER, FOLLOWER):
        p50 = results.sweep.point("sign", path, 1).p50_ms.median
        verdicts.append(_below(f"one client p50, through the {path}", p50, ONE_CLIENT_MS, "ms", digits=2))
    for level in results.levels:
        at = _at(level)
        cpu = max(usage.cpu_percent for usage in level.idle)
        verdicts.append(_below(f"idle CPU of the busiest node, {at}", cpu, IDLE_PERCENT, "% of a core", digits=2))
        memory = max(_memory(usage) for usage in level.idle)
        verdicts.append(_below(f"memory of the largest node (PSS), {at}", memory, MEMORY_MB, "MB", digits=0))
    return [*verdicts, *_comparisons(results.levels), *_with_acls(results.acl)]


def _rates(level: Level) -> Iterator[Verdict]:
    for point, share in ((level.leader, LEADER_SHARE), (level.spread, SPREAD_SHARE)):
        found = point.rate.median / level.baseline.median
        through = f"{point.clients} clients, {point.path}, {_at(level)}"
        yield Verdict(f"{through}: share of Y", f"at least {share}", f"{found:.3f}", found / share, found >= share)


def _with_acls(acl: WithAcls | None) -> Iterator[Verdict]:
    if acl is None:
        return
    for path in acl.paths:
        found = path.ratio.median
        yield Verdict(
            f"{path.clients} clients, {path.path}, with {acl.tokens:,} tokens",
            f"at least {ACL_SHARE} of the rate without access control",
            path.ratio.text(3),
            found / ACL_SHARE,
            found >= ACL_SHARE,
        )


def _comparisons(levels: tuple[Level, ...]) -> Iterator[Verdict]:
    """The largest ledger against the smallest. Rates are shares of Y, so that the machine's mood cancels out."""
    if len(levels) < 2:
        return
    small, large = levels[0], levels[-1]
    pair = f"{small.records:,} and {large.records:,} records"
    for before, after in ((small.leader, large.leader), (small.spread, large.spread)):
        ratio = (after.rate.median / large.baseline.median) / (before.rate.median / small.baseline.median)
        yield Verdict(
            f"rate through {before.path} with {pair}",
            f"at least {1 - RATE_TOLERANCE:.2f} of it",
            f"{ratio:.3f}",
            ratio,
            ratio >= 1 - RATE_TOLERANCE,
        )
    first, last = small.failover.seconds.median, large.failover.seconds.median
    yield Verdict(
        f"failover with {pair}",
        f"at most {FAILOVER_TOLERANCE_SECONDS} s longer",
        f"{first:.2f} s and {last:.2f} s",
        last / first,
        last - first <= FAILOVER_TOLERANCE_SECONDS,
    )


def _below(target: str, found: float, limit: float, unit: str, *, digits: int) -> Verdict:
    return Verdict(target, f"below {limit:g} {unit}", f"{found:.{digits}f} {unit}", found / limit, found < limit)


def _memory(usage: NodeUsage) -> float:
    """PSS, as the kernel adds it up in `/proc/PID/smaps_rollup`: what the processes of a node take up together. They
    are three and more, with one interpreter and the same libraries, which RSS (in the table, too) counts once for each.
    """
    return usage.pss_mb


def _at(level: Level) -> str:
    return f"{level.records:,} records"
