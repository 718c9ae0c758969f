"""`python -m tests.continuity --rotations 100 --kills 30`: rotate under a mesh. Exit code 1 if trust was broken."""

import argparse
import asyncio
import contextlib
import io
import secrets
import shutil
import sys
import tempfile
from pathlib import Path

from benchmarks.machine import describe_machine
from tests.continuity.campaign import LAST_WITHOUT_KILL, Plan, run
from tests.continuity.evidence import evidence_of, write_evidence


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.continuity", description="Rotate under a mesh, and watch.")
    parser.add_argument("--rotations", type=int, default=100)
    parser.add_argument("--kills", type=int, default=30, help="rotations in which the leader is killed")
    parser.add_argument("--seed", type=int, default=secrets.randbelow(1 << 32))
    parser.add_argument("--leaf-ttl", type=int, default=30, help="seconds")
    parser.add_argument("--evidence", type=Path, help="JSON file to write; a page for people is written beside it")
    arguments = parser.parse_args()
    if not 0 <= arguments.kills <= arguments.rotations - LAST_WITHOUT_KILL:
        parser.error(f"--kills {arguments.kills}: must be 0 to {LAST_WITHOUT_KILL} less than --rotations")
    plan = Plan(arguments.rotations, arguments.kills, arguments.seed, arguments.leaf_ttl)
    print(f"seed {plan.seed}, {plan.rotations} rotations, the leader killed in {plan.kills}", flush=True)
    root = Path(tempfile.mkdtemp(prefix="continuity-"))
    with contextlib.redirect_stdout(io.StringIO()):  # ends of logs; the logs are kept
        outcome = asyncio.run(run(root, plan, _report))
    for text in [*outcome.tally.failures, *outcome.tally.violations]:
        print(text)
    if arguments.evidence is not None:
        write_evidence(arguments.evidence, evidence_of(outcome, describe_machine(root)))
    if outcome.is_good:
        shutil.rmtree(root)
    else:
        print(f"logs and data: {root}")
    return int(not outcome.is_good)


def _report(line: str) -> None:
    print(line, file=sys.__stdout__, flush=True)


if __name__ == "__main__":
    sys.exit(main())
