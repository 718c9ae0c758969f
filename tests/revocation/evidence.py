"""What a campaign leaves behind: a JSON document and a page; and a line for each round while it runs."""

import json
import statistics
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.origin import Origin, code_text
from tests.revocation.campaign import Round
from tests.revocation.judge import BOUND_SECONDS
from tests.revocation.probes import What


def line_of(found: Round) -> str:
    """One round, for a person."""
    verdict = "ok" if not found.violations else "VIOLATED"
    kill = "leader killed" if found.plan.has_kill else "nobody killed"
    return (
        f"{found.number:4} {found.plan.kind:20} {kill} {verdict:8} {found.seconds:5.1f} s  through a {found.through:8}"
        f" given until {found.verdict.longest_seconds:.3f} s after, {found.given:5} before, {found.refused:5} refused;"
        f" no leader for {found.leaderless_seconds:.2f} s"
    )


def evidence_of(rounds: Sequence[Round], origin: Origin) -> dict[str, Any]:
    honest = sum((Counter(found.honest) for found in rounds), Counter[int]())
    return {
        "origin": asdict(origin),
        "bound_seconds": BOUND_SECONDS,
        "rounds": len(rounds),
        "leader_kills": sum(found.plan.has_kill for found in rounds),
        "seconds": round(sum(found.seconds for found in rounds), 1),
        "given": sum(found.given for found in rounds),
        "refused": sum(found.refused for found in rounds),
        "honest_certificates": honest[200],
        "honest_statuses": _text_keys(honest),
        "with_kill": _summary([found for found in rounds if found.plan.has_kill]),
        "without_kill": _summary([found for found in rounds if not found.plan.has_kill]),
        "kinds": {kind: _summary(group) for kind, group in _by_kind(rounds).items()},
        "given_out": _by_what(rounds),
        "violations": [
            {
                "round": found.number,
                "kind": found.plan.kind,
                "leader_killed": found.plan.has_kill,
                "violation": text,
            }
            for found in rounds
            for text in found.violations
        ],
    }


def _by_kind(rounds: Sequence[Round]) -> dict[str, list[Round]]:
    groups: defaultdict[str, list[Round]] = defaultdict(list)
    for found in rounds:
        groups[found.plan.kind].append(found)
    return dict(sorted(groups.items()))


def _summary(rounds: Sequence[Round]) -> dict[str, Any]:
    """Seconds are from when a revocation counts until something was given out for the last time."""
    longest = [found.verdict.longest_seconds for found in rounds]
    return {
        "rounds": len(rounds),
        "leader_kills": sum(found.plan.has_kill for found in rounds),
        "through_followers": sum(found.through == "follower" for found in rounds),
        "median_seconds": round(statistics.median(longest), 3) if longest else 0.0,
        "max_seconds": round(max(longest, default=0.0), 3),
        "max_leaderless_seconds": max((found.leaderless_seconds for found in rounds), default=0.0),
        "given": sum(found.given for found in rounds),
        "refused": sum(found.refused for found in rounds),
        "statuses": _text_keys(sum((Counter(found.statuses) for found in rounds), Counter[int]())),
        "violated": sum(bool(found.violations) for found in rounds),
    }


def _by_what(rounds: Sequence[Round]) -> dict[str, float]:
    """The longest of each kind of request."""
    return {
        what.value: round(max((found.verdict.by_what.get(what, 0.0) for found in rounds), default=0.0), 3)
        for what in What
    }


def _text_keys(counts: Counter[int]) -> dict[str, int]:
    return {str(key): count for key, count in sorted(counts.items())}


def write_evidence(path: Path, evidence: dict[str, Any], origin: Origin) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(evidence, indent=1) + "\n", encoding="ascii")
    path.with_suffix(".md").write_text(page_of(evidence, origin))


def page_of(evidence: dict[str, Any], origin: Origin) -> str:
    violations = evidence["violations"]
    verdict = (
        "Nothing was given out later than that."
        if not violations
        else "Does not hold:\n\n" + "\n".join(f"* round {one['round']}: {one['violation']}" for one in violations)
    )
    return (
        "# Revocation under load\n\n"
        f"{origin.began_at}, seed {origin.seed}, commit {code_text(origin.commit, origin.tree_clean)}."
        f" {evidence['rounds']} rounds on three nodes, {evidence['leader_kills']} of them with kill -9 of the leader"
        f" right after the revocation was acknowledged; {evidence['honest_certificates']:,} certificates for clients"
        " that nothing was taken from meanwhile.\n\n"
        f"At most {evidence['bound_seconds']:g} s after a revocation was acknowledged by any node, no node gives out"
        " anything for it: new requests, leaves from the cache, blocking queries that were open, signatures that waited"
        " for the limiter or in a follower's batch. Where a node knew no leader, its time begins when it knows one"
        " again; it is asked every 20 ms (tests/revocation/judge.py). Seconds are by the client's clock, until"
        " something was given out for the last time.\n\n"
        f"{verdict}\n\n"
        + _table(
            ("rounds", "", "median s", "longest s", "longest without a leader s", "given", "refused", "violated"),
            [
                _row(name, evidence[key])
                for name, key in (("leader killed", "with_kill"), ("nobody killed", "without_kill"))
            ],
        )
        + "\n"
        + _table(
            (
                "what ended",
                "rounds",
                "median s",
                "longest s",
                "longest without a leader s",
                "given",
                "refused",
                "violated",
            ),
            [_row(kind, one) for kind, one in evidence["kinds"].items()],
        )
        + "\n"
        + _table(
            ("what was asked for", "given out at most s after"),
            [(what, f"{seconds:.3f}") for what, seconds in evidence["given_out"].items()],
        )
    )


def _row(name: str, one: dict[str, Any]) -> tuple[str, ...]:
    return (
        name,
        str(one["rounds"]),
        f"{one['median_seconds']:.3f}",
        f"{one['max_seconds']:.3f}",
        f"{one['max_leaderless_seconds']:.2f}",
        f"{one['given']:,}",
        f"{one['refused']:,}",
        str(one["violated"]),
    )


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [heads, ["---"] * len(heads), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)
