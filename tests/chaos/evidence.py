"""What a campaign leaves behind: one JSON document, and a line for each round while it runs."""

import json
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.origin import Origin
from tests.chaos.campaign import Round


def line_of(found: Round) -> str:
    """One round, for a person."""
    verdict = "ok" if not found.violations else "VIOLATED"
    return (
        f"{found.number:4} {found.fault:20} {verdict:8} {found.seconds:6.1f} s  {found.acknowledged:5} certificates,"
        f" {found.operations:4} register operations ({found.unknown} unknown),"
        f" longest gap {found.max_gap_seconds:.2f} s"
    )


def evidence_of(rounds: Sequence[Round], origin: Origin) -> dict[str, Any]:
    return {
        "origin": asdict(origin),
        "seed": origin.seed,
        "rounds": len(rounds),
        "seconds": round(sum(found.seconds for found in rounds), 1),
        "acknowledged_certificates": sum(found.acknowledged for found in rounds),
        "register_operations": sum(found.operations for found in rounds),
        "unknown_operations": sum(found.unknown for found in rounds),
        "lost": sorted({serial for found in rounds for serial in found.verdict.lost}),
        "duplicates": sorted({serial for found in rounds for serial in found.verdict.duplicates}),
        "violations": [
            {"round": found.number, "fault": found.fault, "violation": text}
            for found in rounds
            for text in found.violations
        ],
        "faults": _by_fault(rounds),
    }


def _by_fault(rounds: Sequence[Round]) -> dict[str, Any]:
    groups: defaultdict[str, list[Round]] = defaultdict(list)
    for found in rounds:
        groups[found.fault].append(found)
    return {
        fault: {
            "rounds": len(group),
            "violated": sum(bool(found.violations) for found in group),
            "acknowledged_certificates": sum(found.acknowledged for found in group),
            "register_operations": sum(found.operations for found in group),
            "max_gap_seconds": max(found.max_gap_seconds for found in group),
            "notes": [found.notes for found in group if found.notes],
            "refusals": dict(sorted(sum((Counter(found.statuses) for found in group), Counter()).items())),
        }
        for fault, group in sorted(groups.items())
    }


def write_evidence(path: Path, evidence: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(evidence, indent=2) + "\n", encoding="ascii")
