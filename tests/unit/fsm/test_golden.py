"""Logs and snapshots of every format version load for ever.

The files were made by `python -m tests.unit.fsm.make_golden`, once per version. For version 1 samples.py still has the
values they were made from; when it changes for a later version, the old values move here.
"""

from pathlib import Path

import pytest

from fsm.codec import dump_command, dump_state, load_command, load_state
from tests.kit import samples
from tests.unit.fsm import make_golden

V1_COMMANDS = samples.COMMANDS
V1_STATE = samples.full_state()


@pytest.mark.parametrize("name", sorted(V1_COMMANDS))
def test_command_of_version_1_loads(name: str) -> None:
    data = (make_golden.DIRECTORY / f"v1-{name}.bin").read_bytes()
    assert load_command(data) == V1_COMMANDS[name]


def test_state_of_version_1_loads() -> None:
    assert load_state((make_golden.DIRECTORY / "v1-state.bin").read_bytes()) == V1_STATE


def test_what_is_written_now_is_what_the_golden_files_hold() -> None:
    """A change of the encoding is a new FORMAT_VERSION: nodes of both releases share a log during an upgrade."""
    assert {name: (make_golden.DIRECTORY / name).read_bytes() for name in make_golden.contents()} == {
        **{f"v1-{name}.bin": dump_command(command) for name, command in V1_COMMANDS.items()},
        "v1-state.bin": dump_state(V1_STATE),
    }


def test_golden_file_that_exists_is_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "v1-state.bin").write_bytes(b"precious")
    made = make_golden.write_missing(tmp_path)
    assert (tmp_path / "v1-state.bin").read_bytes() == b"precious"
    assert len(made) == len(V1_COMMANDS)
    assert make_golden.write_missing(tmp_path) == []
