"""Whether the code that ran is known, and whether it is that of the commit, in checkouts made for it."""

import shutil
import subprocess
from pathlib import Path

import pytest

from benchmarks.origin import NO_HISTORY, ROOT, Tree, code_text, describe_origin, describe_tree

pytestmark = pytest.mark.skipif(shutil.which("git") is None, reason="the git command is not installed")


def _git(directory: Path, *arguments: str) -> str:
    who = ("-c", "user.name=somebody", "-c", "user.email=somebody@example.com")
    done = subprocess.run(["git", *who, *arguments], cwd=directory, capture_output=True, text=True, check=True)
    return done.stdout.strip()


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    directory = tmp_path / "checkout"
    for name in ("code.py", "docs/evidence/old.json", "benchmarks/results/bench.json"):
        file = directory / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("first\n")
    _git(directory, "init", "-q")
    _git(directory, "add", ".")
    _git(directory, "commit", "-q", "-m", "first")
    return directory


def test_commit_without_changes_is_clean(checkout: Path) -> None:
    assert describe_tree(checkout) == Tree(_git(checkout, "rev-parse", "HEAD"), True)


@pytest.mark.parametrize("name", ["code.py", "new.py", "docs/other.md", "benchmarks/load.py"])
def test_changed_or_new_file_is_a_change(checkout: Path, name: str) -> None:
    (checkout / name).write_text("second\n")
    assert describe_tree(checkout) == Tree(_git(checkout, "rev-parse", "HEAD"), False)


def test_staged_change_is_a_change(checkout: Path) -> None:
    (checkout / "code.py").write_text("second\n")
    _git(checkout, "add", "code.py")
    assert describe_tree(checkout).is_clean is False


@pytest.mark.parametrize("name", ["docs/evidence/old.json", "docs/evidence/new.json", "benchmarks/results/bench.json"])
def test_results_are_no_change(checkout: Path, name: str) -> None:
    (checkout / name).write_text("second\n")
    assert describe_tree(checkout).is_clean is True


def test_without_history_it_says_so(tmp_path: Path) -> None:
    assert describe_tree(tmp_path) == Tree(NO_HISTORY, None)


def test_without_a_commit_it_says_so(tmp_path: Path) -> None:
    _git(tmp_path, "init", "-q")
    assert describe_tree(tmp_path) == Tree(NO_HISTORY, None)


def test_history_of_the_directory_around_is_another(checkout: Path) -> None:
    inner = checkout / "unpacked"
    inner.mkdir()
    assert describe_tree(inner) == Tree(NO_HISTORY, None)


def test_without_git_it_says_so(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    assert describe_tree(checkout) == Tree(NO_HISTORY, None)


def test_origin_is_whole(tmp_path: Path) -> None:
    origin = describe_origin(tmp_path, seed=7)
    tree = describe_tree(ROOT)
    assert (origin.seed, origin.commit, origin.tree_clean) == (7, tree.commit, tree.is_clean)
    assert origin.command.startswith("python ")
    assert origin.machine.versions["python"]
    assert origin.machine.cores > 0


def test_page_says_what_ran() -> None:
    commit = "c689477d32ab" + "0" * 28
    assert code_text(commit, True) == "`c689477d32ab`, clean"
    assert code_text(commit, False) == "`c689477d32ab`, **changed**"
    assert code_text(NO_HISTORY, None) == NO_HISTORY
