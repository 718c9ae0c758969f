"""Fixtures: the commands as functions, away from the developer's environment and files."""

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from cluster.cli.main import main
from tests.kit.fake_api import FakeApi, serving


@dataclass(frozen=True)
class Result:
    code: int
    out: str
    err: str


Run = Callable[..., Result]


@pytest.fixture(autouse=True)
def _own_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in os.environ:
        if name.startswith(("QUORUMCA_", "CONSUL_")):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def private_files() -> Iterator[None]:
    """What the test writes is for its user only, as files with tokens must be."""
    before = os.umask(0o077)
    yield
    os.umask(before)


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs `quorumca`; the first argument is split into words."""

    def run_command(words: str = "", *more: str) -> Result:
        capsys.readouterr()
        code = main([*words.split(), *more])
        captured = capsys.readouterr()
        return Result(code, captured.out, captured.err)

    return run_command


@pytest.fixture
def api(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeApi]:
    """A fake node, which the environment names."""
    with serving() as fake:
        monkeypatch.setenv("QUORUMCA_HTTP_ADDR", fake.address)
        yield fake
