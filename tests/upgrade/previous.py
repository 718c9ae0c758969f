"""The release before this one, taken from the history of this repository and built into an environment of its own.

What is built stays in `.venv/previous/COMMIT`, as long as the rest of `.venv`.
"""

import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Final

from cluster.cli.locks import locked

#: The commit of the release before. Move it at each release: the first commit after a release names the one that was
#: released. So one release back is what is held to account, and no more than that.
COMMIT: Final = "c68947744b52d3acd7c0ec94f9583c218dcc472a"

#: As long as pip may take without anything in its cache.
BUILD_SECONDS: Final = 300.0
_SHOWN_CHARS: Final = 4000
#: They would make this make and pip belong to those that run the tests.
_OF_THE_CALLER: Final = ("MAKEFLAGS", "MAKELEVEL", "MFLAGS", "PYTHONPATH", "VIRTUAL_ENV")

Build = Callable[[Path], None]


class Unavailable(Exception):
    """There is no history here that has the release before; the text says what is missing."""


def build(tree: Path) -> None:
    """Make `.venv` in an unpacked release as its own Makefile does, from its own lock file.

    Then its code is copied into the environment, as where it is deployed: nothing in it refers to the tree any more.
    """
    # The interpreter below this environment: that Makefile does not quote the path, and ours may have a space in it.
    _run(tree, "make", f"PYTHON={Path(sys.executable).resolve()}", ".venv/.runtime")
    _run(
        tree,
        *(".venv/bin/python", "-m", "pip", "--disable-pip-version-check", "install", "--force-reinstall"),
        *("--no-deps", "--no-build-isolation", "--no-index", "."),
    )


def previous_python(project: Path, commit: str = COMMIT, build: Build = build) -> Path:
    """The interpreter of an environment in which the release before is installed. Built by one process at a time, and
    there only once it is whole.

    Raises: Unavailable; AssertionError when it cannot be built; LockHeld, OSError.
    """
    _require_history(project, commit)
    made = project / ".venv" / "previous" / commit
    made.parent.mkdir(parents=True, exist_ok=True)
    with locked(made.parent / f".{commit}.lock", timeout=BUILD_SECONDS):
        if not made.exists():
            _make(project, commit, made, build)
    return made / "bin" / "python"


def _require_history(project: Path, commit: str) -> None:
    if not (project / ".git").exists():
        raise Unavailable(f"{project} is no git repository: the release before, {commit:.12}, cannot be had from it")
    try:
        _git(project, "cat-file", "-e", f"{commit}^{{commit}}")
    except FileNotFoundError:
        raise Unavailable(f"there is no git command to get the release before, {commit:.12}") from None
    except subprocess.CalledProcessError as error:
        said = error.stderr.decode(errors="replace").strip()
        raise Unavailable(f"git has no commit {commit:.12}, the release before (a shallow clone?): {said}") from error


def _make(project: Path, commit: str, made: Path, build: Build) -> None:
    draft_prefix = f".{commit}.new."
    for left_over in made.parent.glob(f"{draft_prefix}*"):
        shutil.rmtree(left_over, ignore_errors=True)
    # A name that was never used: what an interrupted build has started may still run, and write into its own.
    with tempfile.TemporaryDirectory(prefix=draft_prefix, dir=made.parent) as draft:
        archive = _git(project, "archive", "--format=tar", commit)
        with tarfile.open(fileobj=BytesIO(archive)) as tar:
            tar.extractall(draft, filter="data")
        build(Path(draft))
        os.rename(Path(draft) / ".venv", made)


def _git(project: Path, *arguments: str) -> bytes:
    return subprocess.run(["git", "-C", str(project), *arguments], check=True, capture_output=True).stdout


def _run(tree: Path, *command: str) -> None:
    environment = {name: value for name, value in os.environ.items() if name not in _OF_THE_CALLER}
    done = subprocess.run(
        command,
        cwd=tree,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"{' '.join(command)}: exit code {done.returncode}\n{done.stdout[-_SHOWN_CHARS:]}"
