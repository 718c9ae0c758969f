"""`python -m tests.chaos --rounds 50`: a campaign of random faults, and its evidence. Exit code 1 if a round failed.

Every kind comes equally often, in an order that the seed gives. Set CHAOS_HISTORIES to a directory to keep what clients
saw in every round; of failed rounds it is kept in any case.
"""

import argparse
import asyncio
import contextlib
import io
import random
import secrets
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from benchmarks.origin import describe_origin
from tests.chaos.campaign import Campaign, Round
from tests.chaos.evidence import evidence_of, line_of, write_evidence
from tests.chaos.faults import FAULTS


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description="Hurt a real cluster, and judge it.")
    parser.add_argument("--rounds", type=int, default=50)
    parser.add_argument("--seed", type=int, default=secrets.randbelow(1 << 32))
    parser.add_argument("--faults", nargs="+", choices=sorted(FAULTS), default=sorted(FAULTS), metavar="KIND")
    parser.add_argument("--evidence", type=Path, help="JSON file to write")
    arguments = parser.parse_args()
    print(f"seed {arguments.seed}, {arguments.rounds} rounds of: {', '.join(arguments.faults)}", flush=True)
    root = Path(tempfile.mkdtemp(prefix="chaos-"))
    origin = describe_origin(root, arguments.seed)
    rounds: list[Round] = []
    with contextlib.suppress(KeyboardInterrupt):  # what was found so far counts
        asyncio.run(_rounds(root, arguments, rounds))
    has_failed = any(found.violations for found in rounds)
    if arguments.evidence is not None:
        write_evidence(arguments.evidence, evidence_of(rounds, origin))
    if has_failed:
        print(f"logs, data and histories of failed rounds: {root}")
    else:
        shutil.rmtree(root)
    return int(has_failed)


async def _rounds(root: Path, arguments: argparse.Namespace, rounds: list[Round]) -> None:
    campaign = Campaign(root, arguments.seed)
    try:
        for _, fault in zip(range(arguments.rounds), _deck(arguments.faults, arguments.seed), strict=False):
            with contextlib.redirect_stdout(io.StringIO()):  # ends of logs; the logs are kept
                found = await campaign.round(fault)
            rounds.append(found)
            print(line_of(found), flush=True)
            for text in found.violations:
                print(f"     {text}", flush=True)
    finally:
        with contextlib.redirect_stdout(io.StringIO()):
            await campaign.close()


def _deck(faults: list[str], seed: int) -> Iterator[str]:
    rng = random.Random(seed)
    while True:
        yield from rng.sample(faults, len(faults))


if __name__ == "__main__":
    sys.exit(main())
