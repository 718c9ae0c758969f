"""Makes the golden files of the present FORMAT_VERSION: `python -m tests.unit.fsm.make_golden`.

Run it once when a new FORMAT_VERSION is introduced (or a new kind of command), and never to make a failing test pass:
a golden file stands for the logs and snapshots of clusters that exist. So existing files are never overwritten.
The files hold what tests/kit/samples.py had when they were made; what they must load as is kept in
tests/unit/fsm/test_golden.py, version by version.
"""

import sys
from pathlib import Path

from fsm.codec import FORMAT_VERSION, dump_command, dump_state
from tests.kit import samples

DIRECTORY = Path(__file__).parent / "golden"


def contents() -> dict[str, bytes]:
    """File name and content of each golden file of the present version."""
    files = {f"v{FORMAT_VERSION}-{name}.bin": dump_command(command) for name, command in samples.COMMANDS.items()}
    files[f"v{FORMAT_VERSION}-state.bin"] = dump_state(samples.full_state())
    return files


def write_missing(directory: Path) -> list[Path]:
    """Write the files that are not there yet; returns them."""
    made = []
    for name, data in contents().items():
        path = directory / name
        try:
            with path.open("xb") as file:
                file.write(data)
        except FileExistsError:
            continue
        made.append(path)
    return made


def main() -> int:
    made = write_missing(DIRECTORY)
    for path in made:
        print(f"made {path}")
    kept = len(contents()) - len(made)
    if kept:
        print(f"{kept} files exist already and were not touched: golden files are never made again", file=sys.stderr)
    return 0 if made else 1


if __name__ == "__main__":
    raise SystemExit(main())
