"""Takes protections away in a copy of the tree, one at a time, and runs the tests that must notice.

Never touches the checkout. A bug is caught when a test *fails*: an error of import or collection does not count. First
the same tests run on the unchanged copy, where all must pass.
"""

import json
import os
import re
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from queue import SimpleQueue
from typing import Final

from benchmarks.origin import Origin, describe_origin
from tests.seeded_bugs.bug import Bug

ROOT: Final = Path(__file__).parents[2]
_COPIED: Final = ("cluster", "fsm", "providers", "tests", "benchmarks", "pyproject.toml")
_LIMIT_SECONDS: Final = 600  # for one test
_LIMIT_BYTES: Final = 4 << 30
_TESTS_FAILED: Final = 1  # pytest's exit status
_SHOWN: Final = 2


class Unusable(Exception):
    """The bugs cannot be seeded: what they change has moved, or the tests fail without them."""


@dataclass(frozen=True, slots=True)
class Verdict:
    name: str
    consequence: str
    file: str
    is_caught: bool
    failed: tuple[str, ...]
    seconds: float


def copy_tree(to: Path) -> None:
    for name in _COPIED:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, to / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, to / name)


def changed(text: str, bug: Bug) -> str:
    """Raises: Unusable."""
    if text.count(bug.old) != 1:
        raise Unusable(f"{bug.name}: its text is {text.count(bug.old)} times in {bug.file}, not once:\n{bug.old}")
    return text.replace(bug.old, bug.new)


def check_all_apply(bugs: tuple[Bug, ...]) -> None:
    """Raises: Unusable."""
    for bug in bugs:
        compile(changed((ROOT / bug.file).read_text(), bug), bug.file, "exec")


def run_tests(tree: Path, tests: tuple[str, ...]) -> tuple[int, tuple[str, ...]]:
    """pytest's exit status, and the names of the tests that failed."""
    options = ["-q", "--no-header", "-rf", "--tb=no", "-p", "no:cacheprovider", f"--timeout={_LIMIT_SECONDS}"]
    command = [sys.executable, "-m", "pytest", *options, *tests]
    # What the tests start is of this copy, too, and not what is installed.
    environment = {**os.environ, "PYTHONPATH": str(tree)}
    done = subprocess.run(
        command, cwd=tree, env=environment, capture_output=True, text=True, preexec_fn=_limit_memory, check=False
    )
    failed = tuple(re.findall(r"^FAILED (\S+)", done.stdout, re.MULTILINE))
    return done.returncode, failed


def _limit_memory() -> None:
    """What a missing protection lets grow must not take the machine along."""
    resource.setrlimit(resource.RLIMIT_AS, (_LIMIT_BYTES, _LIMIT_BYTES))


def check_unchanged(tree: Path, bugs: tuple[Bug, ...]) -> None:
    """Raises: Unusable."""
    status, failed = run_tests(tree, tuple(sorted({test for bug in bugs for test in bug.tests})))
    if status != 0:
        raise Unusable(f"without any bug pytest ends with {status}, failed: {failed}")


def seed(tree: Path, bug: Bug) -> Verdict:
    """Every test that may notice, so that the table shows which ones do."""
    path = tree / bug.file
    original = path.read_text()
    path.write_text(changed(original, bug))
    start = time.monotonic()
    try:
        outcomes = [run_tests(tree, (test,)) for test in bug.tests]
    finally:
        path.write_text(original)
    # An import that fails shows that the change is no program any more, and not that a test has noticed.
    failed = tuple(name for status, names in outcomes if status == _TESTS_FAILED for name in names)
    return Verdict(bug.name, bug.consequence, bug.file, bool(failed), failed, round(time.monotonic() - start, 1))


def table(verdicts: list[Verdict]) -> str:
    """Markdown."""
    caught = sum(verdict.is_caught for verdict in verdicts)
    lines = [
        "# Seeded bugs",
        "",
        "`make seed-bugs` takes one protection away at a time, in a copy of the tree, and runs the tests that must",
        f"notice (`tests/seeded_bugs`). {caught} of {len(verdicts)} were caught.",
        "",
        "| what is taken away | what it would do | where | caught by |",
        "|---|---|---|---|",
    ]
    lines += [
        f"| {verdict.name} | {verdict.consequence} | `{verdict.file}` | {_caught_by(verdict)} |" for verdict in verdicts
    ]
    return "\n".join(lines) + "\n"


def _caught_by(verdict: Verdict) -> str:
    if not verdict.is_caught:
        return "**nothing**"
    by_file: dict[str, list[str]] = {}
    for path, name in dict.fromkeys(tuple(failed.split("[")[0].split("::")) for failed in verdict.failed):
        by_file.setdefault(path.removeprefix("tests/"), []).append(name)
    return "; ".join(f"{path}: {_shortened(names)}" for path, names in by_file.items())


def _shortened(names: list[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(f"`{name}`" for name in names[:_SHOWN]) + more


def run_all(bugs: tuple[Bug, ...], output: Path | None, jobs: int) -> bool:
    """Whether all were caught; `jobs` bugs at a time, each in a copy of the tree that nobody else has meanwhile.

    The results go to `output`, if there is one, as Markdown and JSON. Raises: Unusable.
    """
    check_all_apply(bugs)
    with tempfile.TemporaryDirectory() as directory, ThreadPoolExecutor(jobs) as pool:
        origin = describe_origin(Path(directory), seed=None)
        trees: SimpleQueue[Path] = SimpleQueue()
        for number in range(jobs):
            tree = Path(directory) / str(number)
            tree.mkdir()
            copy_tree(tree)
            trees.put(tree)
        check_unchanged(tree, bugs)

        def seeded(bug: Bug) -> Verdict:
            own = trees.get()
            try:
                verdict = seed(own, bug)
            finally:
                trees.put(own)
            print(f"{'caught' if verdict.is_caught else 'NOT CAUGHT'} {bug.name} ({verdict.seconds} s)", flush=True)
            return verdict

        verdicts = list(pool.map(seeded, bugs))
    if output is not None:
        write_evidence(output, origin, verdicts)
    return all(verdict.is_caught for verdict in verdicts)


def write_evidence(output: Path, origin: Origin, verdicts: list[Verdict]) -> None:
    output.parent.mkdir(parents=True, exist_ok=True)
    output.with_suffix(".md").write_text(table(verdicts))
    evidence = {"origin": asdict(origin), "bugs": [asdict(verdict) for verdict in verdicts]}
    output.with_suffix(".json").write_text(json.dumps(evidence, indent=2) + "\n")
