"""`python -m tests.revocation --rounds 200`: a campaign, and its evidence. Exit code 1 if a round failed."""

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
from tests.revocation.campaign import Campaign, Round, plans
from tests.revocation.evidence import evidence_of, line_of, write_evidence
from tests.revocation.subjects import KINDS


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tests.revocation", description="Take rights away, and see that they are gone on every node."
    )
    parser.add_argument("--rounds", type=int, default=200, help="with a kill of the leader (default: 200)")
    parser.add_argument("--calm", type=int, help="without (default: a fifth of them)")
    parser.add_argument("--seed", type=int, default=secrets.randbelow(1 << 32))
    parser.add_argument("--kinds", nargs="+", choices=sorted(KINDS), default=sorted(KINDS), metavar="KIND")
    parser.add_argument("--evidence", type=Path, help="JSON file to write, and a page beside it")
    arguments = parser.parse_args()
    if arguments.calm is None:
        arguments.calm = arguments.rounds // 5
    print(f"seed {arguments.seed}, {arguments.rounds} + {arguments.calm} rounds", flush=True)
    root = Path(tempfile.mkdtemp(prefix="revocation-"))
    origin = describe_origin(root, arguments.seed)
    rounds: list[Round] = []
    with contextlib.suppress(KeyboardInterrupt):  # what was found so far counts
        asyncio.run(_rounds(root, arguments, rounds))
    has_failed = any(found.violations for found in rounds) or not rounds
    if arguments.evidence is not None:
        write_evidence(arguments.evidence, evidence_of(rounds, origin), origin)
    if has_failed:
        print(f"logs and data: {root}")
    else:
        shutil.rmtree(root)
    return int(has_failed)


async def _rounds(root: Path, arguments: argparse.Namespace, rounds: list[Round]) -> None:
    campaign = Campaign(root, arguments.seed)
    await campaign.__aenter__()
    try:
        for plan in plans(arguments.kinds, arguments.rounds, arguments.calm, arguments.seed):
            found = await campaign.round(plan)
            rounds.append(found)
            print(line_of(found), flush=True)
            for text in found.violations:
                print(f"     {text}", flush=True)
    finally:
        with contextlib.redirect_stdout(io.StringIO()):  # ends of logs; the logs are kept
            await campaign.__aexit__()


if __name__ == "__main__":
    sys.exit(main())
