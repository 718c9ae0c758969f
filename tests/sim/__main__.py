"""`python -m tests.sim --seeds 20000 --jobs 2`: run many seeds. Exit status 1 if one failed.

`--shrink SEED` makes a failing seed small and prints it as one line, which `--script` runs again.
"""

import argparse
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.origin import describe_origin
from tests.sim.campaign import Campaign, Tally, joined, run_seeds
from tests.sim.evidence import evidence_of, write_evidence
from tests.sim.script import Script, load_script, scenario_of, script_of
from tests.sim.shrink import failure_of, shrink


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.sim", description="Clusters in virtual time, under faults.")
    parser.add_argument("--seeds", type=int, default=100, help="how many")
    parser.add_argument("--first", type=int, default=0, help="the first of them")
    parser.add_argument("--jobs", type=int, default=1, help="processes at a time")
    parser.add_argument("--evidence", type=Path, help="JSON file to write; a text is written beside it")
    parser.add_argument("--partial", type=Path, help="file that remembers finished seeds; a later run goes on from it")
    parser.add_argument("--shrink", type=int, metavar="SEED", help="find a small script that fails as this seed does")
    parser.add_argument("--script", metavar="LINE", help="run what --shrink printed")
    parser.add_argument("--tally", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.tally:
        print(run_seeds(arguments.first, arguments.seeds).dump())
        return 0
    if arguments.script is not None:
        return _report(load_script(arguments.script))
    if arguments.shrink is not None:
        small = shrink(script_of(arguments.shrink, scenario_of(arguments.shrink)))
        _report(small)
        print(f"again: python -m tests.sim --script '{small.dump()}'")
        return 1
    return _run(arguments)


def _report(script: Script) -> int:
    failure = failure_of(script)
    print(failure or f"seed {script.seed}: nothing failed")
    return int(failure is not None)


def _run(arguments: argparse.Namespace) -> int:
    with tempfile.TemporaryDirectory() as directory:
        origin = describe_origin(Path(directory), arguments.first)
    campaign = Campaign(arguments.first, arguments.seeds, arguments.jobs, arguments.partial)
    tallies: list[Tally] = []
    started = written = time.monotonic()
    for tally in campaign.run():
        tallies.append(tally)
        for failure in tally.failures:
            print(f"seed {failure['seed']} failed: {failure['failure']}")
            print(f"again: python -m tests.sim --first {failure['seed']} --seeds 1; small: --shrink {failure['seed']}")
        done = sum(tally.seeds for tally in tallies)
        print(f"{done} of {arguments.seeds} seeds after {time.monotonic() - started:.0f} s", flush=True)
        if arguments.evidence is not None and (done == arguments.seeds or time.monotonic() - written > 60):
            written = time.monotonic()
            write_evidence(arguments.evidence, evidence_of(joined(tallies), arguments.seeds, arguments.jobs, origin))
    return int(any(tally.failures for tally in tallies))


if __name__ == "__main__":
    sys.exit(main())
