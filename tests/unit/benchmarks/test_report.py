"""Verdicts and files from made-up results."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.machine import Machine
from benchmarks.origin import Origin
from benchmarks.plot import draw
from benchmarks.report import write_json, write_markdown
from benchmarks.results import (
    PATHS,
    AclPath,
    AclRound,
    CommitPoint,
    Failover,
    Level,
    NodeUsage,
    Point,
    Results,
    Sweep,
    ThroughVault,
    VaultPoint,
    WithAcls,
)
from benchmarks.stats import Spread
from benchmarks.targets import Verdict, judge

_MACHINE = Machine("a processor", 2, 8.0, "Linux 6", "ext4", 0.4, {"python": "3.11.7"})
_Y = Spread.of([1000.0, 1100.0, 900.0])


def _point(operation: str, path: str, clients: int, rate: float, p50_ms: float = 2.0) -> Point:
    rates, p50s, p99s, cpu_us = (Spread.of([value]) for value in (rate, p50_ms, 9.0, 800.0))
    return Point(operation, path, clients, rates, p50s, p99s, {}, cpu_us, 0.1, 4.0)


def _level(records: int, leader: float = 450.0, spread: float = 350.0, failover: float = 0.2) -> Level:
    return Level(
        records=records,
        records_at_start=records,
        baseline=_Y,
        leader=_point("sign", "leader", 64, leader),
        spread=_point("sign", "spread", 64, spread),
        idle=(NodeUsage("node-1", True, 3, 1.5, 100.0, 80.0), NodeUsage("node-2", False, 3, 2.5, 110.0, 85.0)),
        failover=Failover(Spread.of([failover]), Spread.of([1.0])),
    )


def _vault() -> ThroughVault:
    points = (_point("sign", "leader", clients, 200.0 + clients, p50_ms=7.0) for clients in (1, 16, 64))
    return ThroughVault("OpenBao 2.9", _Y, tuple(VaultPoint(point, Spread.of([1300.0])) for point in points))


def _acl(ratio: float) -> WithAcls:
    rounds = tuple(AclRound(400.0, 400.0 * ratio, 1000.0, 1040.0) for _ in range(4))
    return WithAcls(1000, tuple(AclPath(path, 64, rounds, {}) for path in ("leader", "follower")))


def _results(*levels: Level, vault: ThroughVault | None = None, acl: WithAcls | None = None) -> Results:
    signs = [_point("sign", path, clients, 300.0) for path in PATHS for clients in (1, 16, 64, 256)]
    commits = tuple(CommitPoint(n, Spread.of([1.0]), Spread.of([0.8]), Spread.of([3.0])) for n in (1, 16, 64, 256))
    return Results(
        origin=Origin("2030-01-01T00:00:00+00:00", "python -m benchmarks.run", None, "0" * 40, True, _MACHINE),
        rounds=1,
        seconds=1.0,
        stolen_percent=0.0,
        baseline=_Y,
        sweep=Sweep(_Y, (*signs, *(_point("roots", path, 64, 5000.0) for path in PATHS)), commits),
        levels=levels,
        vault=vault,
        acl=acl,
    )


def _missed(results: Results) -> list[str]:
    return [verdict.target for verdict in judge(results) if not verdict.is_met]


def test_all_targets_met() -> None:
    verdicts = judge(_results(_level(0), _level(300_000)))
    assert all(verdict.is_met for verdict in verdicts)
    assert len(verdicts) == 13
    assert Verdict("64 clients, leader, 0 records: share of Y", "at least 0.4", "0.450", 0.45 / 0.4, True) in verdicts


def test_each_target_can_be_missed() -> None:
    slow_leader = _level(0, leader=399.0)
    assert _missed(_results(slow_leader)) == ["64 clients, leader, 0 records: share of Y"]
    slow_spread = _level(0, spread=299.0)
    assert _missed(_results(slow_spread)) == ["64 clients, spread, 0 records: share of Y"]
    busy = replace(_level(0), idle=(NodeUsage("node-1", True, 3, 3.0, 130.0, 120.0),))
    assert _missed(_results(busy)) == [
        "idle CPU of the busiest node, 0 records",
        "memory of the largest node (PSS), 0 records",
    ]


def test_access_control_must_cost_next_to_nothing() -> None:
    assert _missed(_results(_level(0), acl=_acl(0.96))) == []
    assert _missed(_results(_level(0), acl=_acl(0.94))) == [
        "64 clients, leader, with 1,000 tokens",
        "64 clients, follower, with 1,000 tokens",
    ]


def test_page_says_what_access_control_costs(tmp_path: Path) -> None:
    results = _results(_level(0), acl=_acl(0.96))
    write_markdown(results, judge(results), tmp_path / "bench.md", "bench.png")
    page = (tmp_path / "bench.md").read_text()
    assert "| leader | 64 | 400 (400–400) | 384 (384–384) | 0.960 (0.960–0.960) | 1.040 (1.040–1.040) | 0 |" in page


@pytest.mark.parametrize("path", ["leader", "follower"])
def test_one_slow_client_is_a_miss_on_its_path_only(path: str) -> None:
    results = _results(_level(0))
    points = [
        replace(point, p50_ms=Spread.of([3.1])) if (point.path, point.clients) == (path, 1) else point
        for point in results.sweep.points
    ]
    slow = replace(results, sweep=replace(results.sweep, points=tuple(points)))
    assert _missed(slow) == [f"one client p50, through the {path}"]


def test_large_ledger_is_compared_by_share_of_the_yardstick() -> None:
    """A machine that became half as fast between two levels is no fault of the ledger."""
    halved = replace(_level(300_000, leader=225.0, spread=175.0), baseline=Spread.of([500.0]))
    assert _missed(_results(_level(0), halved)) == []
    slower = _level(300_000, leader=400.0, spread=310.0, failover=0.5)
    assert _missed(_results(_level(0), slower)) == [
        "rate through leader with 0 and 300,000 records",
        "rate through spread with 0 and 300,000 records",
        "failover with 0 and 300,000 records",
    ]


def test_files_are_written_and_complete(tmp_path: Path) -> None:
    results = _results(_level(0), _level(300_000))
    verdicts = judge(results)
    write_json(results, verdicts, tmp_path / "bench.json")
    write_markdown(results, verdicts, tmp_path / "bench.md", plot="bench.png")
    draw(results, tmp_path / "bench.png")
    content = json.loads((tmp_path / "bench.json").read_text())
    assert content["levels"][1]["leader"]["rate"]["median"] == 450.0
    assert len(content["targets"]) == len(verdicts)
    text = (tmp_path / "bench.md").read_text()
    assert text.count("| pass |") == len(verdicts)
    assert "| follower | 256 | 300 (300–300) | 0.30 | 2.00 (2.00–2.00) | 9.00 (9.00–9.00) | 800 | 0.1 | 0 |" in text
    assert (tmp_path / "bench.png").read_bytes().startswith(b"\x89PNG")


def _markdown(results: Results, directory: Path) -> str:
    write_markdown(results, judge(results), directory / "bench.md", plot="bench.png")
    return (directory / "bench.md").read_text()


def test_signing_through_vault_stands_beside_the_built_in_provider(tmp_path: Path) -> None:
    results = _results(_level(0), vault=_vault())
    section = _markdown(results, tmp_path).partition("## Through Vault")[2].partition("\n## ")[0]
    assert "OpenBao 2.9" in section
    rows = [line for line in section.splitlines() if line.startswith(("| built-in", "| vault"))]
    assert [row.split(" | ")[:3] for row in rows] == [
        ["| built-in", "1", "300 (300–300)"],
        ["| vault", "1", "201 (201–201)"],
        ["| built-in", "16", "300 (300–300)"],
        ["| vault", "16", "216 (216–216)"],
        ["| built-in", "64", "300 (300–300)"],
        ["| vault", "64", "264 (264–264)"],
    ]
    assert rows[1] == "| vault | 1 | 201 (201–201) | 7.00 (7.00–7.00) | 9.00 (9.00–9.00) | 800 | 1,300 | 0.1 | 0 |"
    write_json(results, judge(results), tmp_path / "bench.json")
    content = json.loads((tmp_path / "bench.json").read_text())
    assert content["vault"]["points"][2]["signing"]["clients"] == 64
    draw(results, tmp_path / "with.png")
    draw(replace(results, vault=None), tmp_path / "without.png")
    assert (tmp_path / "with.png").read_bytes() != (tmp_path / "without.png").read_bytes()


def test_without_a_server_the_page_says_that_nothing_was_measured(tmp_path: Path) -> None:
    section = _markdown(_results(_level(0)), tmp_path).partition("## Through Vault")[2].partition("\n## ")[0]
    assert section.strip() == "Not measured: no OpenBao is installed here."
