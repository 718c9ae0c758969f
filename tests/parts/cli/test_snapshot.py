"""`snapshot save`, `restore` and `inspect`: what is on the disk is whole and checked, or not there."""

import json
import stat
from dataclasses import replace
from pathlib import Path
from typing import Final

import pytest

from cluster.api.backups import Meta
from cluster.backup import file as backup
from cluster.backup.file import Mac
from cluster.seal.sealer import Sealer
from cluster.seal.sources import FileKey, write_key_file
from fsm.acl import Acl
from fsm.state import State
from tests.kit import acl_samples, samples
from tests.kit.fake_api import FakeApi
from tests.kit.macs import mac_with
from tests.parts.cli.conftest import Run

SNAPSHOT = "/v1/snapshot"
META = Meta(
    backup.FORMAT, 7, 99, samples.NOW, "dc1", "ca-1", f"{samples.CLUSTER_ID}.consul", "aa:bb", 1, 0, "file", "0123abcd"
)
MAC: Final = mac_with(b"m" * 32)
PREVIOUS: Final = Path(__file__).parents[1] / "backup" / "golden" / "previous.snapshot"


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("saved") / "a.tgz"
    state = replace(samples.full_state(), acl=Acl(tokens=(acl_samples.token(1), acl_samples.token(2))))
    backup.write(path, META, state, MAC, lambda _after: [])
    return path.read_bytes()


def damaged(data: bytes) -> bytes:
    middle = len(data) // 2
    return data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :]


def names() -> list[str]:
    return [path.name for path in Path().iterdir()]


# -- save


@pytest.mark.parametrize("flag", ["", "-stale"])
def test_save(run: Run, api: FakeApi, saved: bytes, flag: str) -> None:
    api.answer("GET", SNAPSHOT, saved)
    result = run(f"snapshot save backup.tgz -token secret {flag}")
    assert (result.code, result.out, result.err) == (0, "Saved and verified snapshot to index 7\n", "")
    assert Path("backup.tgz").read_bytes() == saved
    assert stat.S_IMODE(Path("backup.tgz").stat().st_mode) == 0o600
    assert names() == ["backup.tgz"]
    assert (api.last.token, api.last.query) == ("secret", {"stale": ""} if flag else {})


def test_save_never_replaces_a_file(run: Run, api: FakeApi, saved: bytes) -> None:
    Path("backup.tgz").write_text("old")
    api.answer("GET", SNAPSHOT, saved)
    result = run("snapshot save backup.tgz")
    assert (result.code, result.err) == (1, "Error saving snapshot: backup.tgz already exists.\n")
    assert (Path("backup.tgz").read_text(), api.requests) == ("old", [])


def test_save_of_a_damaged_answer_keeps_nothing(run: Run, api: FakeApi, saved: bytes) -> None:
    api.answer("GET", SNAPSHOT, damaged(saved))
    result = run("snapshot save backup.tgz")
    assert result.code == 1
    assert result.err.startswith("Error saving snapshot: it was received, but is not good: ")
    assert names() == []


def test_save_that_breaks_off_keeps_nothing(run: Run, api: FakeApi, saved: bytes) -> None:
    api.answer("GET", SNAPSHOT, saved)
    api.missing_bytes = 4
    result = run("snapshot save backup.tgz")
    assert (result.code, names()) == (3, [])
    assert "the connection was closed before the whole answer was there" in result.err


def test_save_says_what_the_server_says(run: Run, api: FakeApi) -> None:
    api.answer("GET", SNAPSHOT, "there is no CA to save yet", status=422)
    result = run("snapshot save backup.tgz")
    text = "Error saving snapshot: Unexpected response code: 422 (there is no CA to save yet)\n"
    assert (result.code, result.err, names()) == (1, text, [])


def test_save_is_bounded(run: Run, api: FakeApi, saved: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backup, "MAX_FILE_BYTES", len(saved) - 1)
    api.answer("GET", SNAPSHOT, saved)
    result = run("snapshot save backup.tgz")
    assert (result.code, names()) == (1, [])
    assert f"is larger than {len(saved) - 1} bytes" in result.err


def test_save_into_a_missing_directory(run: Run, api: FakeApi) -> None:
    result = run("snapshot save no/backup.tgz")
    assert (result.code, result.err) == (1, "Error saving snapshot: no/backup.tgz: No such file or directory\n")
    assert api.requests == []


# -- restore


def test_restore(run: Run, api: FakeApi, saved: bytes) -> None:
    Path("backup.tgz").write_bytes(saved)
    api.answer("PUT", SNAPSHOT)
    result = run("snapshot restore backup.tgz -token secret")
    assert (result.code, result.out, result.err) == (0, "Restored snapshot\n", "")
    assert (api.last.body, api.last.token) == (saved, "secret")
    assert json.loads(run("snapshot restore backup.tgz -format json").out) == {"Success": True}


def test_damaged_file_is_not_even_sent(run: Run, api: FakeApi, saved: bytes) -> None:
    Path("backup.tgz").write_bytes(damaged(saved))
    result = run("snapshot restore backup.tgz")
    assert (result.code, api.requests) == (1, [])
    assert result.err.startswith("Error restoring snapshot: backup.tgz: the snapshot")


def test_restore_says_what_the_server_says(run: Run, api: FakeApi, saved: bytes) -> None:
    Path("backup.tgz").write_bytes(saved)
    api.answer("PUT", SNAPSHOT, "it is sealed with another key", status=422)
    result = run("snapshot restore backup.tgz")
    text = "Error restoring snapshot: Unexpected response code: 422 (it is sealed with another key)\n"
    assert (result.code, result.err) == (1, text)


def test_restore_without_an_answer_may_have_been_done(run: Run, api: FakeApi, saved: bytes) -> None:
    Path("backup.tgz").write_bytes(saved)
    api.answer("PUT", SNAPSHOT)
    api.missing_bytes = 4
    result = run("snapshot restore backup.tgz")
    assert result.code == 3
    assert "it may or may not have been done" in result.err


def test_restore_with_force_says_so_and_shows_what_the_server_says(run: Run, api: FakeApi, saved: bytes) -> None:
    Path("backup.tgz").write_bytes(saved)
    api.answer("PUT", SNAPSHOT)
    run("snapshot restore backup.tgz")
    assert api.last.query == {}
    api.answer("PUT", SNAPSHOT, "Root aa:bb (Old) is trusted again\nRoot cc:dd (New\x1b[2J) is trusted again\n")
    result = run("snapshot restore -force backup.tgz")
    assert api.last.query == {"force": "true"}
    assert result.code == 0
    first, *notes = result.out.splitlines()
    assert (first, notes[0]) == ("Restored snapshot", "Root aa:bb (Old) is trusted again")
    assert "\x1b" not in notes[1]
    shown = json.loads(run("snapshot restore -force backup.tgz -format json").out)
    assert shown["Success"] is True
    assert shown["Notes"][0] == "Root aa:bb (Old) is trusted again"


# -- inspect


def test_inspect(run: Run, saved: bytes) -> None:
    Path("backup.tgz").write_bytes(saved)
    result = run("snapshot inspect backup.tgz")
    assert result.code == 0
    assert result.out.splitlines() == [
        "Field                   Value",
        "Index                   7",
        "Saved at                2027-01-15T08:00:00Z",
        "By                      ca-1 of dc1",
        "Trust domain            11111111-2222-3333-4444-555555555555.consul",
        "Active root             aa:bb",
        "Roots                   1",
        "Certificates on record  0",
        "Tokens                  2",
        "Seal key needed         0123abcd (source file)",
        "Raft log index          99",
        "Authenticated           not checked: give --seal-key",
        "Format                  1",
        f"Bytes                   {len(saved)}",
    ]
    shown = json.loads(run("snapshot inspect backup.tgz -format json").out)
    assert (shown["index"], shown["seal_key_id"], shown["size_bytes"]) == (7, "0123abcd", len(saved))
    assert (shown["has_mac"], shown["is_authenticated"]) == (True, None)
    assert shown["tokens"] == 2


@pytest.mark.parametrize("content", [None, b"", b"text"])
def test_inspect_of_what_is_no_snapshot(run: Run, content: bytes | None) -> None:
    if content is not None:
        Path("backup.tgz").write_bytes(content)
    result = run("snapshot inspect backup.tgz")
    assert (result.code, result.out) == (1, "")
    assert result.err.startswith("Error inspecting snapshot: backup.tgz: ")


@pytest.fixture
def sealed() -> tuple[State, Mac]:
    """A state whose data key `seal.key` wraps, and what makes its MACs."""
    write_key_file(Path("seal.key"))
    sealer = Sealer(FileKey(Path("seal.key")))
    seal = sealer.new_data_key()
    return replace(samples.full_state(), seal=seal), sealer.opened(seal).mac


def test_inspect_with_the_seal_key_says_whether_it_is_authentic(run: Run, sealed: tuple[State, Mac]) -> None:
    state, right = sealed
    for key, code, verdict, text in (
        (right, 0, True, "yes, by a cluster with this seal key"),
        (MAC, 1, False, "NO: it was changed after it was saved, or put together from several"),
    ):
        backup.write(Path("backup.tgz"), META, state, key, lambda _after: [])
        result = run("snapshot inspect -seal-key seal.key backup.tgz")
        assert (result.code, f"Authenticated           {text}" in result.out.splitlines()) == (code, True)
        result = run("snapshot inspect -seal-key seal.key backup.tgz -format json")
        assert (result.code, json.loads(result.out)["is_authenticated"]) == (code, verdict)


def test_inspect_with_another_seal_key_says_that_it_is_another(run: Run, sealed: tuple[State, Mac]) -> None:
    backup.write(Path("backup.tgz"), META, sealed[0], sealed[1], lambda _after: [])
    write_key_file(Path("other.key"))
    result = run("snapshot inspect -seal-key other.key backup.tgz")
    assert (result.code, result.out) == (1, "")
    assert "is needed, and is not here" in result.err


def test_inspect_of_a_file_without_a_mac_says_so(run: Run) -> None:
    Path("backup.tgz").write_bytes(PREVIOUS.read_bytes())
    result = run("snapshot inspect backup.tgz")
    assert result.code == 0
    line = "Authenticated           NO: it has no MAC (saved by a release before MACs, or changed)"
    assert line in result.out.splitlines()
