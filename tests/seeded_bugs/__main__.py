"""`python -m tests.seeded_bugs`: exit status 1 when a bug is not caught, 2 when the bugs cannot be seeded."""

import argparse
import sys
from pathlib import Path
from typing import Final

from tests.seeded_bugs.bugs import BUGS
from tests.seeded_bugs.run import ROOT, Unusable, run_all

DEFAULT_EVIDENCE: Final = ROOT / "docs/evidence/seeded-bugs"


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.seeded_bugs", description="See that tests notice bugs.")
    parser.add_argument("--only", action="append", help="part of a bug's name; may be given more than once")
    parser.add_argument("--jobs", type=int, default=1, help="bugs at a time (default: 1)")
    parser.add_argument("--output", type=Path, help="without a suffix (default: docs/evidence, when all are seeded)")
    arguments = parser.parse_args()
    bugs = tuple(bug for bug in BUGS if not arguments.only or any(part in bug.name for part in arguments.only))
    output = arguments.output or (None if arguments.only else DEFAULT_EVIDENCE)
    try:
        return 0 if run_all(bugs, output, arguments.jobs) else 1
    except Unusable as error:
        print(error, file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
