"""What a campaign leaves behind: a JSON document, and the same for people beside it."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

from benchmarks.origin import Origin
from tests.sim.campaign import Tally

_INTRODUCTION: Final = """# Deterministic simulation

Whole clusters in one process: the real `fsm`, PySyncObj's core with the guard around it, journal and snapshots on
simulated disks, real message encoding on a simulated network, virtual time. Each seed draws a cluster, a network and
faults; services, operators and the leader's own work go on meanwhile. Behind every step of every node the invariants
are checked: election safety, log matching, leader completeness, state machine safety, no acknowledged command lost, no
command and no serial twice, linearizable reads; at the end of a seed that all nodes hold the same state and ledger,
that the configuration was a linearizable register, and that the cluster serves again.

A seed can be repeated exactly: `python -m tests.sim --first SEED --seeds 1`. A failing one is made smaller by
`python -m tests.sim --shrink SEED`.
"""


def evidence_of(whole: Tally, seeds_wanted: int, jobs: int, origin: Origin) -> dict[str, Any]:
    return {
        "origin": asdict(origin),
        "first_seed": whole.first,
        "seeds": whole.seeds,
        "seeds_wanted": seeds_wanted,
        "failures": whole.failures,
        "cpu_seconds": round(whole.cpu_seconds, 1),
        "cpu_ms_per_seed": round(1000 * whole.cpu_seconds / max(1, whole.seeds), 1),
        "jobs": jobs,
        "code": whole.code,
        "digest": whole.digest,
        "counts": dict(sorted(whole.counts.items())),
        "faults": dict(sorted(whole.faults.items())),
    }


def write_evidence(path: Path, evidence: dict[str, Any]) -> None:
    """`path` is the JSON file; the text goes beside it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(evidence, indent=2) + "\n", encoding="ascii")
    path.with_suffix(".md").write_text(_text(evidence), encoding="utf-8")


def _text(evidence: dict[str, Any]) -> str:
    machine = evidence["origin"]["machine"]
    verdict = f"{len(evidence['failures'])} failed" if evidence["failures"] else "none failed"
    result = (
        f"Seeds {evidence['first_seed']} to {evidence['first_seed'] + evidence['seeds'] - 1}:"
        f" {evidence['seeds']:,} of {evidence['seeds_wanted']:,} wanted, {verdict}."
        f" {evidence['cpu_seconds']:,.0f} s of CPU, {evidence['cpu_ms_per_seed']:.0f} ms for each, {evidence['jobs']}"
        f" at a time on {machine['cores']} cores ({machine['cpu']})."
    )
    code = (
        f"Code `{evidence['code']}` (sha256 over `cluster/raft`, `fsm` and the simulator); everything that happened"
        f" has the digest `{evidence['digest'][:32]}`, which the same code gives again."
    )
    lines = [
        _INTRODUCTION,
        "## Result",
        "",
        result,
        "",
        code,
        "",
        *(f"* seed {failure['seed']}: {failure['failure'].splitlines()[0]}" for failure in evidence["failures"]),
        *_table("what happened", evidence["counts"]),
        *_table("fault", evidence["faults"]),
    ]
    return "\n".join(lines)


def _table(title: str, rows: dict[str, int]) -> list[str]:
    return [
        f"| {title} | times |",
        "|---|---:|",
        *(f"| {name.replace('_', ' ')} | {count:,} |" for name, count in rows.items()),
        "",
    ]
