"""`python -m tests.kit.in_unit UNIT ARGUMENTS...` is `quorumca ARGUMENTS...` in the sandbox of a systemd unit.

Whatever follows `--` instead of arguments is run as another program: `... UNIT -- PROGRAM ARGUMENTS...`.
"""

import os
import sys
from pathlib import Path

from tests.kit.unit_file import read_service, sandbox


def main(unit: str, *arguments: str) -> None:
    sandbox(read_service(Path(unit))).enter()
    program = [*arguments[1:]] if arguments[0] == "--" else [sys.executable, "-P", "-m", "cluster", *arguments]
    os.execv(program[0], program)


if __name__ == "__main__":
    main(*sys.argv[1:])
