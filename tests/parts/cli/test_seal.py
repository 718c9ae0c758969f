import json
import stat
from pathlib import Path

import pytest

from cluster.seal.sources import FileKey
from tests.kit.fake_api import FakeApi
from tests.parts.cli.conftest import Run


@pytest.mark.parametrize(("argv", "name"), [([], "seal.key"), (["-key-file", "other.key"], "other.key")])
def test_init_makes_a_key_that_a_node_takes(run: Run, tmp_path: Path, argv: list[str], name: str) -> None:
    result = run("seal", "init", *argv)
    path = tmp_path / name
    assert (result.code, result.err) == (0, "")
    assert result.out.startswith(f"==> Saved {name}\n")
    for advice in ("every node", "backup", "seal.key_file"):
        assert advice in result.out
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert len(FileKey(path).key(b"")) == 32


def test_init_never_replaces_a_key(run: Run, tmp_path: Path) -> None:
    (tmp_path / "seal.key").write_text("old")
    result = run("seal init")
    assert (result.code, result.out) == (1, "")
    assert result.err.startswith("seal.key already exists. It is not replaced")
    assert (tmp_path / "seal.key").read_text() == "old"


def test_init_where_nothing_can_be_written(run: Run) -> None:
    result = run("seal init -key-file no/seal.key")
    assert (result.code, result.err) == (1, "no/seal.key: No such file or directory\n")


# -- the key of a cluster that runs

SEAL = "/v1/operator/seal"


def status(*, is_settled: bool = True, to_do: str = "") -> dict[str, object]:
    node = {"Source": "file", "KeyID": "k", "SealID": "s", "Settled": is_settled}
    nodes = [{"Node": "a", **node, "ToDo": ""}, {"Node": "b", **node, "ToDo": to_do}]
    return {"Settled": is_settled, "Nodes": nodes}


TABLE = "Node  Source  KeyID  SealID  Settled\na     file    k      s       true\nb     file    k      s       true\n"


def test_status_is_a_table_and_says_what_is_to_do(run: Run, api: FakeApi) -> None:
    api.answer("GET", SEAL, status(to_do="put it in its place"))
    result = run("seal status")
    assert (result.code, result.out, result.err) == (0, TABLE, "b: put it in its place\n")
    assert json.loads(run("seal status -format json").out) == status(to_do="put it in its place")


@pytest.mark.parametrize(("flags", "keeps_key"), [("", False), (" -keep-key", True)])
def test_rotate_waits_until_nothing_needs_the_key_of_before(
    run: Run, api: FakeApi, monkeypatch: pytest.MonkeyPatch, flags: str, *, keeps_key: bool
) -> None:
    monkeypatch.setattr("cluster.cli.seal._LOOK_SECONDS", 0.001)
    api.answer("PUT", SEAL, status(is_settled=False))
    api.answer("GET", SEAL, status(is_settled=False))
    api.then("GET", SEAL, status(is_settled=False))
    api.then("GET", SEAL, status())
    result = run(f"seal rotate{flags}")
    assert (result.code, result.out) == (0, TABLE)
    assert [request.method for request in api.requests] == ["PUT", "GET", "GET", "GET"]
    assert api.requests[0].body == {"KeepKey": keeps_key}


def test_rotate_that_takes_too_long_says_so(run: Run, api: FakeApi, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cluster.cli.seal._SETTLE_SECONDS", 0.0)
    api.answer("PUT", SEAL, status(is_settled=False))
    result = run("seal rotate")
    assert result.code == 1
    assert "It is changed, but not all servers are done within 0 s" in result.err


def test_rotate_that_is_refused_shows_the_reason(run: Run, api: FakeApi) -> None:
    api.answer("PUT", SEAL, "nothing was changed: node-2: it is missing", status=422)
    result = run("seal rotate")
    assert result.code == 1
    assert "Error changing the seal" in result.err
    assert "node-2: it is missing" in result.err
