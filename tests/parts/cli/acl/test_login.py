import json
import os
import stat
from pathlib import Path

import pytest

from cluster.client.errors import Exit
from tests.kit.fake_acl_api import FakeAclApi, secret
from tests.parts.cli.conftest import Result, Run

LOGIN = "login -method ci -bearer-token-file bearer -token-sink-file sink"


@pytest.fixture(autouse=True)
def _method(api: FakeAclApi, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("QUORUMCA_HTTP_TOKEN")
    api.make("auth-method", Name="ci", Type="jwt")
    (tmp_path / "bearer").write_text("good\n")


def names(path: Path) -> set[str]:
    return {one.name for one in path.iterdir()}


def logins(api: FakeAclApi) -> list[str]:
    return [accessor for accessor, token in api.tables["token"].items() if token.get("AuthMethod")]


def assert_nothing_left(api: FakeAclApi, tmp_path: Path, result: Result) -> None:
    assert (result.code != 0, result.out, logins(api)) == (True, "", [])
    assert not [name for name in names(tmp_path) if name.endswith(".part")]


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077])
def test_login_puts_the_secret_into_a_private_file_and_shows_nothing(
    api: FakeAclApi, run: Run, tmp_path: Path, umask: int
) -> None:
    old = os.umask(umask)
    try:
        result = run(f"{LOGIN} -meta pod=p1 -meta k=v=w")
    finally:
        os.umask(old)
    sink = tmp_path / "sink"
    assert (result.code, result.out, result.err) == (0, "", "")
    assert (sink.read_text(), stat.S_IMODE(sink.stat().st_mode)) == (secret(3), 0o600)
    assert names(tmp_path) == {"bearer", "sink"}
    body = {"AuthMethod": "ci", "BearerToken": "good", "Meta": {"pod": "p1", "k": "v=w"}}
    assert (api.last.method, api.last.path, api.last.body) == ("POST", "/v1/acl/login", body)


def test_login_again_replaces_the_file(api: FakeAclApi, run: Run, tmp_path: Path) -> None:
    run(LOGIN)
    (tmp_path / "sink").chmod(0o644)
    assert run(LOGIN).code == 0
    assert (tmp_path / "sink").read_text() == secret(4)
    assert stat.S_IMODE((tmp_path / "sink").stat().st_mode) == 0o600


def test_login_sends_no_token(api: FakeAclApi, run: Run) -> None:
    assert run(f"{LOGIN} -token other").code == 0
    assert api.last.token is None


def test_login_in_json_says_all_but_the_secret(api: FakeAclApi, run: Run, tmp_path: Path) -> None:
    result = run(f"{LOGIN} -format json")
    answer = json.loads(result.out)
    assert (answer["AuthMethod"], answer["SecretID"]) == ("ci", "<hidden>")
    assert secret(3) not in result.out
    assert (tmp_path / "sink").read_text() == secret(3)


def test_logout_destroys_the_token_of_the_login(api: FakeAclApi, run: Run) -> None:
    run(LOGIN)
    assert len(logins(api)) == 1
    result = run("logout -token-file sink")
    assert (result.code, result.out, result.err) == (0, "", "")
    assert (api.last.method, api.last.path, api.last.token) == ("POST", "/v1/acl/logout", secret(3))
    assert logins(api) == []
    again = run("logout -token-file sink")
    assert again.err == "Error destroying token: Unexpected response code: 403 (ACL not found)\n"
    assert run("logout").err == (
        "Error destroying token: Unexpected response code: 401 (Supplied token does not exist)\n"
    )


def test_refused_login_leaves_the_old_token_and_repeats_nothing(api: FakeAclApi, run: Run, tmp_path: Path) -> None:
    (tmp_path / "sink").write_text("old")
    (tmp_path / "bearer").write_text("b3arer")
    result = run(LOGIN)
    assert_nothing_left(api, tmp_path, result)
    assert result.err == ("Error logging in: Unexpected response code: 403 (Permission denied: <hidden> is not good)\n")
    assert (tmp_path / "sink").read_text() == "old"


@pytest.mark.parametrize("make", ["directory", "link", "dangling link", "fifo"])
def test_sink_that_is_no_file_is_refused_before_there_is_a_token(
    api: FakeAclApi, run: Run, tmp_path: Path, make: str
) -> None:
    sink, target = tmp_path / "sink", tmp_path / "target"
    match make:
        case "directory":
            sink.mkdir()
        case "fifo":
            os.mkfifo(sink)
        case _:
            if make == "link":
                target.write_text("theirs")
            sink.symlink_to(target)
    result = run(LOGIN)
    assert_nothing_left(api, tmp_path, result)
    assert (
        result.err
        == "Error writing token to file sink: sink: must be a regular file, no link or directory, or not exist\n"
    )
    assert api.requests == []
    assert target.read_text() == "theirs" if make == "link" else not target.exists()


def test_sink_in_a_directory_that_is_not_there(api: FakeAclApi, run: Run, tmp_path: Path) -> None:
    result = run("login -method ci -bearer-token-file bearer -token-sink-file no/sink")
    assert_nothing_left(api, tmp_path, result)
    assert result.err == "Error writing token to file sink: no/sink: No such file or directory\n"
    assert api.requests == []


def test_token_that_cannot_be_stored_is_destroyed(
    api: FakeAclApi, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_old: object, _new: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("cluster.cli.files.os.replace", full)
    result = run(LOGIN)
    assert_nothing_left(api, tmp_path, result)
    assert result.err == "Error writing token to file sink: sink: No space left on device\n"
    assert (api.last.path, api.last.token) == ("/v1/acl/logout", secret(3))
    assert names(tmp_path) == {"bearer"}


@pytest.mark.parametrize("answer", [{}, {"SecretID": ""}, {"SecretID": 7}, {"SecretID": "a\nb"}, {"SecretID": "a b"}])
def test_answers_without_a_token(api: FakeAclApi, run: Run, tmp_path: Path, answer: object) -> None:
    api.answer("POST", "/v1/acl/login", answer)
    result = run(LOGIN)
    assert result.err == "Error logging in: the server's answer is not understood: SecretID is no token\n"
    assert names(tmp_path) == {"bearer"}


def test_bearer_token_is_not_sent_in_clear(api: FakeAclApi, run: Run, tmp_path: Path) -> None:
    result = run(f"{LOGIN} -http-addr http://10.255.255.1:1")
    assert (result.code, names(tmp_path)) == (Exit.USAGE, {"bearer"})
    assert "a secret would be sent in clear" in result.err


def test_login_by_the_certificate_of_the_connection_needs_no_bearer_token(api: FakeAclApi, run: Run) -> None:
    api.answer("POST", "/v1/acl/login", {"SecretID": "s"})
    result = run("login -method ci -token-sink-file sink -client-cert c -client-key k")
    assert (result.code, api.last.body) == (0, {"AuthMethod": "ci", "BearerToken": ""})
