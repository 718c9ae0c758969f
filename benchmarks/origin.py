"""Where results come from. Every file of evidence carries it, so that whoever reads one can run it again.

All of it is as of the start: the code that a campaign runs is the code that was there then.
"""

import os
import shlex
import subprocess
import sys
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from benchmarks.machine import Machine, describe_machine

ROOT: Final = Path(__file__).parents[1]
#: Of a commit, where there is none: the code was not run from a checkout of its own.
NO_HISTORY: Final = "not known: there is no git history here"
_SHOWN: Final = 12
#: What campaigns write changes nothing about the code that they run.
RESULTS: Final = ("docs/evidence", "benchmarks/results")


@dataclass(frozen=True, slots=True)
class Tree:
    """The code that ran."""

    commit: str
    is_clean: bool | None  # nothing but results differs from the commit; None where there is no commit


@dataclass(frozen=True, slots=True)
class Origin:
    began_at: str
    command: str
    seed: int | None  # None where nothing is drawn from one
    commit: str
    tree_clean: bool | None
    machine: Machine  # with the versions


def code_text(commit: str, tree_clean: bool | None) -> str:
    """The code that ran, for a page; git finds a commit by its first digits."""
    if tree_clean is None:
        return commit
    return f"`{commit[:_SHOWN]}`, {'clean' if tree_clean else '**changed**'}"


def describe_origin(data_dir: Path, seed: int | None) -> Origin:
    """Call it before anything else is done. `data_dir` is where data is going to be written."""
    tree = describe_tree(ROOT)
    return Origin(
        began_at=datetime.now(UTC).isoformat(timespec="seconds"),
        command=shlex.join(["python", *sys.orig_argv[1:]]),
        seed=seed,
        commit=tree.commit,
        tree_clean=tree.is_clean,
        machine=describe_machine(data_dir),
    )


def describe_tree(root: Path) -> Tree:
    top, commit = _git(root, "rev-parse", "--show-toplevel"), _git(root, "rev-parse", "HEAD")
    excluded = [f":(top,exclude){path}" for path in RESULTS]
    changes = _git(root, "status", "--porcelain", "--untracked-files=all", "--", ":(top)", *excluded)
    # A copy of the files inside of somebody else's checkout has that one's history, not its own.
    if top is None or commit is None or changes is None or not os.path.samefile(top, root):
        return Tree(NO_HISTORY, None)
    return Tree(commit, not changes)


def _git(directory: Path, *arguments: str) -> str | None:
    """What it says; None when it refuses or is not there."""
    try:
        done = subprocess.run(["git", *arguments], cwd=directory, capture_output=True, text=True, check=False)
    except OSError:
        return None
    return done.stdout.strip() if done.returncode == 0 else None
