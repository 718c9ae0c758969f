"""The release before is what history says, is built once, and is there only once it is whole."""

import subprocess
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.upgrade.previous import Unavailable, previous_python

_ENTER_SECONDS = 0.5
_FILE = "release"


def git(project: Path, *arguments: str) -> str:
    who = ("-c", "user.name=a", "-c", "user.email=a@example.org", "-c", "commit.gpgsign=false")
    command = ["git", "-C", str(project), *who, *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A repository of two commits."""
    made = tmp_path / "project"
    made.mkdir()
    git(made, "init", "--quiet")
    for text in ("before", "now"):
        (made / _FILE).write_text(text)
        git(made, "add", _FILE)
        git(made, "commit", "--quiet", "--message", text)
    return made


@pytest.fixture
def before(project: Path) -> str:
    return git(project, "rev-parse", "HEAD~1")


def build(tree: Path) -> None:
    """An interpreter that says from which release it was made."""
    python = tree / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text((tree / _FILE).read_text())


def never(_tree: Path) -> None:
    raise AssertionError("is built although it should not")


def left_overs(project: Path, commit: str) -> list[Path]:
    made = (commit, f".{commit}.lock")
    return [path for path in (project / ".venv" / "previous").iterdir() if path.name not in made]


def test_is_the_commit_and_is_built_once(project: Path, before: str) -> None:
    python = previous_python(project, before, build)
    assert python == project / ".venv" / "previous" / before / "bin" / "python"
    assert python.read_text() == "before"
    assert previous_python(project, before, never) == python
    assert left_overs(project, before) == []


def test_two_at_once_build_once(project: Path, before: str) -> None:
    entered = threading.Event()

    def note(tree: Path) -> None:
        entered.set()
        build(tree)

    def build_beside(tree: Path) -> None:
        """While somebody else wants it, too."""
        beside.append(pool.submit(previous_python, project, before, note))
        assert not entered.wait(_ENTER_SECONDS), "two build at the same time"
        build(tree)

    beside: list[Future[Path]] = []
    with ThreadPoolExecutor() as pool:
        python = previous_python(project, before, build_beside)
    assert [other.result() for other in beside] == [python]
    assert not entered.is_set()


def test_what_is_not_whole_is_not_there(project: Path, before: str) -> None:
    def fail(tree: Path) -> None:
        build(tree)
        raise RuntimeError("no room")

    with pytest.raises(RuntimeError, match="no room"):
        previous_python(project, before, fail)
    assert left_overs(project, before) == []
    assert previous_python(project, before, build).read_text() == "before"


def test_a_build_that_was_killed_is_cleaned_up_and_made_anew(project: Path, before: str) -> None:
    """What it has started may go on, and must not write into the new one."""
    cut_off = project / ".venv" / "previous" / f".{before}.new.abc"
    build_in: list[Path] = []

    def note(tree: Path) -> None:
        build_in.append(tree)
        build(tree)

    (cut_off / ".venv" / "bin").mkdir(parents=True)
    assert previous_python(project, before, note).read_text() == "before"
    assert left_overs(project, before) == []
    assert build_in != [cut_off]


def test_without_history_it_is_said_why_there_is_none(project: Path, tmp_path: Path, before: str) -> None:
    archive = tmp_path / "archive"
    archive.mkdir()
    with pytest.raises(Unavailable, match="archive is no git repository"):
        previous_python(archive, before, never)
    shallow = tmp_path / "shallow"
    git(tmp_path, "clone", "--quiet", "--depth", "1", project.as_uri(), str(shallow))
    with pytest.raises(Unavailable, match=f"git has no commit {before[:12]}.*shallow"):
        previous_python(shallow, before, never)


def test_inside_of_another_repository_a_source_archive_has_no_history(project: Path, before: str) -> None:
    inner = project / "inner"
    inner.mkdir()
    with pytest.raises(Unavailable, match="inner is no git repository"):
        previous_python(inner, before, never)
