import json
import os
import socket
import ssl
import stat
import threading
import time
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

import pytest

from cluster.access.methods.config import TlsConfig
from cluster.access.methods.tls import Trust, proved_by_proof
from cluster.access.methods.used_proofs import UsedProofs
from cluster.access.selector import Proved
from cluster.client.errors import Exit
from cluster.tls.certificates import Identity, load_ca, new_ca, new_cert
from providers.pki.spiffe import Kind
from tests.kit import pki
from tests.kit.fake_acl_api import FakeAclApi, secret
from tests.kit.fake_api import serving_one
from tests.kit.login_proofs import LEAF_KEY, ROOT, THIEF, leaf
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


@pytest.mark.parametrize("name", ["QUORUMCA_HTTP_TOKEN_FILE", "CONSUL_HTTP_TOKEN_FILE"])
def test_login_makes_the_file_that_the_other_commands_read(
    api: FakeAclApi, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv(name, str(tmp_path / "sink"))
    before = run("acl token read -self")
    assert (before.code, before.err) == (1, f"{name}: {tmp_path / 'sink'}: No such file or directory\n")
    assert (run(LOGIN).code, api.last.token) == (0, None)
    assert run("acl token read -self").code == 0
    assert api.last.token == secret(3)


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


# -- by a certificate

BY_CERTIFICATE = "login -method ci -token-sink-file sink -client-cert web.pem -client-key web.key"
TRUST = Trust(pki.TRUST_DOMAIN, (pki.pem(ROOT),))


def write_pair(directory: Path, uri: str = pki.WEB, key: pki.PrivateKey = LEAF_KEY) -> str:
    """A leaf that is valid now, and its issuer after it, as a leaf's CertPEM may have; gives the certificates."""
    now = int(time.time())
    text = pki.pem(leaf(uri, not_before=now - 60, not_after=now + 3600)) + pki.pem(ROOT)
    (directory / "web.pem").write_text(text)
    (directory / "web.key").write_text(pki.key_pem(key))
    return text


def taken(api: FakeAclApi, used: UsedProofs) -> Proved:
    """What the leader makes of the request that was sent."""
    body = api.last.body
    config = TlsConfig(frozenset({Kind.SERVICE}))
    return proved_by_proof(body["BearerToken"], body["AuthMethod"], config, TRUST, used, time.time())


def test_login_by_a_certificate_sends_a_proof_that_is_new_each_time(
    api: FakeAclApi, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_pair(tmp_path)
    api.answer("POST", "/v1/acl/login", {"SecretID": "s"})
    used = UsedProofs()
    for _ in range(2):
        assert run(BY_CERTIFICATE).code == 0
        assert taken(api, used).texts["name"] == "web"
    assert set(api.last.body) == {"AuthMethod", "BearerToken"}
    assert (tmp_path / "sink").read_text() == "s"
    monkeypatch.setenv("CONSUL_CLIENT_CERT", "web.pem")
    monkeypatch.setenv("CONSUL_CLIENT_KEY", "web.key")
    assert run("login -method ci -token-sink-file sink").code == 0
    assert taken(api, used).texts["name"] == "web"


def test_login_by_a_certificate_over_https(run: Run, tmp_path: Path) -> None:
    write_pair(tmp_path)
    now = datetime.now(UTC).replace(microsecond=0)
    ca = new_ca(now, 1)
    pair = new_cert(load_ca(ca.cert_pem, ca.key_pem, now), Identity("server"), now, 1)
    for name, text in (("ca.pem", ca.cert_pem), ("server.pem", pair.cert_pem), ("server.key", pair.key_pem)):
        (tmp_path / name).write_text(text)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain("server.pem", "server.key")
    with serving_one(FakeAclApi(), context) as api:
        api.answer("POST", "/v1/acl/login", {"SecretID": "s"})
        flags = f"-http-addr https://{api.address} -ca-file ca.pem -tls-server-name server.dc1.consul"
        result = run(f"{BY_CERTIFICATE} {flags}")
        assert (result.code, result.err) == (0, "")
        assert taken(api, UsedProofs()).texts["name"] == "web"


@pytest.mark.parametrize("kind", ["jwt", "oidc", "whatever"])
def test_type_that_consuls_command_takes_is_passed_over(api: FakeAclApi, run: Run, kind: str) -> None:
    assert run(f"{LOGIN} -type {kind}").code == 0
    assert "Type" not in api.last.body


def test_type_that_is_none_of_a_certificate_is_refused(api: FakeAclApi, run: Run, tmp_path: Path) -> None:
    write_pair(tmp_path)
    result = run(f"{BY_CERTIFICATE} -type jwt")
    assert (result.code, api.requests) == (Exit.USAGE, [])
    assert "--type 'jwt' is not allowed with a certificate: must be tls" in result.err
    run(f"{BY_CERTIFICATE} -type tls")
    assert taken(api, UsedProofs()).texts["name"] == "web"


def proxy_pair(directory: Path) -> None:
    """A client's certificate for a proxy: nobody in the mesh."""
    now = datetime.now(UTC).replace(microsecond=0)
    ca = new_ca(now, 1)
    pair = new_cert(load_ca(ca.cert_pem, ca.key_pem, now), Identity("client"), now, 1)
    for name, text in (("ca.pem", ca.cert_pem), ("proxy.pem", pair.cert_pem), ("proxy.key", pair.key_pem)):
        (directory / name).write_text(text)


@pytest.mark.parametrize("flags", ["-client-cert proxy.pem -client-key proxy.key", ""])
def test_proof_is_of_another_certificate_than_the_connection(
    api: FakeAclApi, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, flags: str
) -> None:
    write_pair(tmp_path)
    proxy_pair(tmp_path)
    if not flags:
        monkeypatch.setenv("QUORUMCA_CLIENT_CERT", "proxy.pem")
        monkeypatch.setenv("QUORUMCA_CLIENT_KEY", "proxy.key")
    login = f"login -method ci -token-sink-file sink {flags}"
    result = run(login)
    assert_nothing_left(api, tmp_path, result)
    assert "--client-cert proxy.pem cannot log in: the first certificate" in result.err
    assert "give the one that logs in as --proof-cert and --proof-key" in result.err
    run(f"{login} -proof-cert web.pem -proof-key web.key")
    assert taken(api, UsedProofs()).texts["name"] == "web"


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ("-proof-cert web.pem", "--proof-cert and --proof-key must be given together"),
        ("-proof-key web.key", "--proof-cert and --proof-key must be given together"),
        (
            "-proof-cert web.pem -proof-key web.key -bearer-token-file bearer",
            "--proof-cert and --bearer-token-file cannot be given together",
        ),
    ],
)
def test_proof_in_part_or_beside_another_is_refused(
    api: FakeAclApi, run: Run, tmp_path: Path, flags: str, said: str
) -> None:
    write_pair(tmp_path)
    result = run(f"login -method ci -token-sink-file sink {flags}")
    assert (result.code, said in result.err, api.requests) == (Exit.USAGE, True, [])


def refuse_handshake(listening: socket.socket, context: ssl.SSLContext) -> None:
    """As a proxy that wants another certificate; and no reset takes the alert away."""
    connection, _ = listening.accept()
    with connection:
        taken, told = ssl.MemoryBIO(), ssl.MemoryBIO()
        tls = context.wrap_bio(taken, told, server_side=True)
        while data := connection.recv(65_536):
            taken.write(data)
            with suppress(ssl.SSLError):
                tls.do_handshake()
            if told.pending:
                connection.sendall(told.read())


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_login_whose_handshake_is_refused_has_not_been_done(run: Run, tmp_path: Path, version: ssl.TLSVersion) -> None:
    """With TLS 1.3 the client hears of it only once its request is sent."""
    now = datetime.now(UTC).replace(microsecond=0)
    ca = new_ca(now, 1)
    pair = new_cert(load_ca(ca.cert_pem, ca.key_pem, now), Identity("server"), now, 1)
    for name, text in (("ca.pem", ca.cert_pem), ("server.pem", pair.cert_pem), ("server.key", pair.key_pem)):
        (tmp_path / name).write_text(text)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain("server.pem", "server.key")
    context.load_verify_locations("ca.pem")
    context.verify_mode = ssl.CERT_REQUIRED
    context.minimum_version = context.maximum_version = version
    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=refuse_handshake, args=(listening, context))
        thread.start()
        address = f"127.0.0.1:{listening.getsockname()[1]}"
        result = run(f"{LOGIN} -http-addr https://{address} -ca-file ca.pem -tls-server-name server.dc1.consul")
        thread.join()
    assert (result.code, f"cannot reach https://{address}: " in result.err) == (Exit.UNREACHABLE, True)
    assert "ALERT" in result.err.upper()
    assert "may or may not" not in result.err


def test_bearer_token_that_is_given_is_what_is_sent(api: FakeAclApi, run: Run, tmp_path: Path) -> None:
    write_pair(tmp_path)
    assert run(f"{BY_CERTIFICATE} -bearer-token-file bearer").code == 0
    assert api.last.body["BearerToken"] == "good"


def test_proof_is_repeated_by_no_error(api: FakeAclApi, run: Run, tmp_path: Path) -> None:
    write_pair(tmp_path)
    result = run(BY_CERTIFICATE)
    assert result.err == "Error logging in: Unexpected response code: 403 (Permission denied: <hidden> is not good)\n"


@pytest.mark.parametrize(
    ("file", "text", "said"),
    [
        ("web.pem", None, "--client-cert web.pem cannot be read: No such file or directory"),
        ("web.key", None, "--client-key web.key cannot be read: No such file or directory"),
        ("web.pem", "", "--client-cert web.pem holds no certificate (PEM)"),
        ("web.key", pki.key_pem(THIEF), "--client-key web.key is not the key of --client-cert web.pem"),
        ("web.pem", "two", "--client-cert web.pem cannot log in: 9 certificates: at most 8 are allowed"),
        ("web.pem", "other", "--client-cert web.pem cannot log in: the first certificate: SPIFFE ID"),
        ("web.pem", "large", "web.pem: is larger than 65536 bytes"),
    ],
)
def test_files_that_prove_nothing_are_named_and_nothing_is_sent(
    api: FakeAclApi, run: Run, tmp_path: Path, file: str, text: str | None, said: str
) -> None:
    chain = write_pair(tmp_path)
    match text:
        case None:
            (tmp_path / file).unlink()
        case "two":
            (tmp_path / file).write_text(chain + pki.pem(ROOT) * 7)
        case "other":
            write_pair(tmp_path, "https://a.example")
        case "large":
            (tmp_path / file).write_text(chain + "#" * 65_536)
        case _:
            (tmp_path / file).write_text(text)
    result = run(BY_CERTIFICATE)
    assert_nothing_left(api, tmp_path, result)
    assert said in result.err
    assert api.requests == []
    assert "sink" not in names(tmp_path)


def test_proof_is_not_sent_in_clear(api: FakeAclApi, run: Run, tmp_path: Path) -> None:
    write_pair(tmp_path)
    result = run(f"{BY_CERTIFICATE} -http-addr http://10.255.255.1:1")
    assert (result.code, "a secret would be sent in clear" in result.err) == (Exit.USAGE, True)
