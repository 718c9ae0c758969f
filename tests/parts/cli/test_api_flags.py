import os
from pathlib import Path

import pytest

from cluster.cli.api_flags import add_api_flags, api_from, apis_from, parse_address
from cluster.cli.arguments import Parser, normalise
from cluster.client.api import Api, Origin, TlsOptions
from cluster.client.errors import CommandError, Exit

pytestmark = pytest.mark.usefixtures("private_files")


def api_of(*argv: str, environment: dict[str, str] | None = None) -> Api:
    parser = Parser()
    add_api_flags(parser)
    return api_from(parser.parse_args(normalise(argv)), environment or {})


@pytest.mark.parametrize(
    ("text", "origin"),
    [
        ("127.0.0.1:8500", Origin("http", "127.0.0.1", 8500)),
        ("node-1:80", Origin("http", "node-1", 80)),
        ("[::1]:8500", Origin("http", "::1", 8500)),
        ("http://node:8500", Origin("http", "node", 8500)),
        ("http://node:8500/", Origin("http", "node", 8500)),
        ("http://node", Origin("http", "node", 80)),
        ("https://node", Origin("https", "node", 443)),
        ("https://[::1]:8501", Origin("https", "::1", 8501)),
    ],
)
def test_addresses(text: str, origin: Origin) -> None:
    assert parse_address(text) == origin
    assert parse_address(str(origin)) == origin


BAD_ADDRESSES = """
node :8500 node:0 node:x node:99999 ftp://node unix:///x http:// http://node:0 http://a@node
http://node/path http://node?x http://[::1 a\x1bb:1
"""


@pytest.mark.parametrize("text", ["", "node :8500", *BAD_ADDRESSES.split()])
def test_bad_addresses_are_usage_errors(text: str) -> None:
    with pytest.raises(CommandError) as refused:
        parse_address(text)
    assert refused.value.code is Exit.USAGE
    assert str(refused.value) == (
        f"--http-addr {text!r} is not allowed: must be host:port, http://host:port or https://host:port"
    )


def test_defaults() -> None:
    assert api_of() == Api(Origin("http", "127.0.0.1", 8500))


@pytest.mark.parametrize(
    ("name", "flag", "read"),
    [
        ("HTTP_ADDR", "-http-addr", lambda api: api.origin.host),
        ("HTTP_TOKEN", "-token", lambda api: api.token),
        ("CACERT", "-ca-file", lambda api: api.tls.ca_file),
        ("TLS_SERVER_NAME", "-tls-server-name", lambda api: api.tls.server_name),
    ],
)
def test_flag_wins_over_our_variable_wins_over_consuls(name: str, flag: str, read: object) -> None:
    assert callable(read)
    port = ":1" if name == "HTTP_ADDR" else ""
    consul, ours = {f"CONSUL_{name}": f"c{port}"}, {f"QUORUMCA_{name}": f"q{port}"}
    assert read(api_of(environment=consul)) == "c"
    assert read(api_of(environment=consul | ours)) == "q"
    assert read(api_of(flag, f"f{port}", environment=consul | ours)) == "f"
    assert read(api_of(environment=consul | {f"QUORUMCA_{name}": ""})) == "c"


@pytest.mark.parametrize("content", ["secret", "secret\n", "secret\r\n"])
def test_token_file_wins_over_the_environment(tmp_path: Path, content: str) -> None:
    (tmp_path / "token").write_bytes(content.encode())
    assert api_of("--token-file", "token", environment={"CONSUL_HTTP_TOKEN": "other"}).token == "secret"


@pytest.mark.parametrize(
    ("argv", "names", "token"),
    [
        ("", "QT QF CT CF", "QF"),
        ("", "QT CT CF", "QT"),
        ("", "CT CF", "CF"),
        ("", "CT", "CT"),
        ("", "", ""),
        ("-token flag", "QT QF CT CF", "flag"),
        ("-token-file F", "QT QF CT CF", "F"),
    ],
)
def test_flag_wins_over_our_variables_over_consuls_and_a_file_over_a_token(
    tmp_path: Path, argv: str, names: str, token: str
) -> None:
    variables = {
        "QT": "QUORUMCA_HTTP_TOKEN",
        "QF": "QUORUMCA_HTTP_TOKEN_FILE",
        "CT": "CONSUL_HTTP_TOKEN",
        "CF": "CONSUL_HTTP_TOKEN_FILE",
    }
    for name in ("F", "QF", "CF"):
        (tmp_path / name).write_text(name)
    environment = {variables[name]: name for name in names.split()}
    assert api_of(*argv.split(), environment=environment).token == token


@pytest.mark.parametrize("token", ["sec ret", "secr\xe9t", "secret\n", "se\tcret"])
def test_tokens_that_are_refused_are_not_repeated(token: str) -> None:
    with pytest.raises(CommandError) as refused:
        api_of("-token", token)
    assert str(refused.value) == "the ACL token is not allowed: must be printable ASCII without spaces"
    assert "secret" not in repr(api_of("-token", "secret"))


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (None, "token: No such file or directory"),
        (b"", "token: holds no token"),
        (b"\n", "token: holds no token"),
        (b"secret\n\n", "token: holds more than one line: must be one, the token"),
        (b"secret\nmore\n", "token: holds more than one line: must be one, the token"),
        (b"secret\rmore", "token: holds more than one line: must be one, the token"),
        (b" secret", "token: holds what is no token: must be printable ASCII without spaces"),
        (b"secret\0", "token: holds what is no token: must be printable ASCII without spaces"),
        ("secret\xe9".encode(), "token: holds what is no token: must be printable ASCII without spaces"),
        (b"\xff", "token: is not a text file (UTF-8)"),
        (b"s" * 4097, "token: is larger than 4096 bytes"),
    ],
)
@pytest.mark.parametrize(
    ("argv", "more"), [(["-token-file", "token"], {}), ([], {"QUORUMCA_HTTP_TOKEN_FILE": "token"})]
)
def test_token_files_that_are_refused_are_not_replaced_by_another_token(
    tmp_path: Path, content: bytes | None, text: str, argv: list[str], more: dict[str, str]
) -> None:
    if content is not None:
        (tmp_path / "token").write_bytes(content)
    environment = {"CONSUL_HTTP_TOKEN": "other"} | more
    with pytest.raises(CommandError) as refused:
        api_of(*argv, environment=environment)
    assert str(refused.value) == f"{'--token-file' if argv else 'QUORUMCA_HTTP_TOKEN_FILE'}: {text}"


@pytest.mark.parametrize("mode", [0o600, 0o400, 0o700, 0o640, 0o604, 0o620, 0o602, 0o610, 0o644, 0o4600])
def test_token_file_that_others_can_get_at_is_refused(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "a token"
    path.write_text("secret")
    path.chmod(mode)
    for argv, environment in ((["-token-file", str(path)], {}), ([], {"QUORUMCA_HTTP_TOKEN_FILE": str(path)})):
        source = "--token-file" if argv else "QUORUMCA_HTTP_TOKEN_FILE"
        if not mode & 0o077:
            assert api_of(*argv, environment=environment).token == "secret"
            continue
        with pytest.raises(CommandError) as refused:
            api_of(*argv, environment=environment)
        assert str(refused.value) == (
            f"{source}: {path}: others can get at it (mode {mode:04o}, must be 0600 or 0400): chmod 600 '{path}'"
        )


def test_link_to_a_token_file_is_judged_by_the_file(tmp_path: Path) -> None:
    path, link = tmp_path / "token", tmp_path / "link"
    path.write_text("secret")
    link.symlink_to(path)
    assert api_of("-token-file", str(link)).token == "secret"
    path.chmod(0o644)
    with pytest.raises(CommandError, match="others can get at it"):
        api_of("-token-file", str(link))


def test_token_file_of_somebody_else_is_for_them_to_protect(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As with a secret that Kubernetes mounts: its owner is root, and who runs this is not."""
    path = tmp_path / "token"
    path.write_text("secret")
    path.chmod(0o644)
    monkeypatch.setattr(os, "geteuid", lambda: path.stat().st_uid + 1)
    assert api_of("-token-file", str(path)).token == "secret"


def test_token_may_come_through_a_pipe() -> None:
    """As of `-token-file <(pass show quorumca)`: what it is called has a mode that says nothing."""
    reader, writer = os.pipe()
    try:
        os.write(writer, b"secret\n")
        os.close(writer)
        assert api_of("-token-file", f"/dev/fd/{reader}").token == "secret"
    finally:
        os.close(reader)


CLEAR = ["http://node:8500", "10.0.0.1:8500", "[fe80::1]:8500", "http://localhost.example:1", "127.0.0.1.example:1"]
PRIVATE = ["https://node", "https://10.0.0.1:1", "127.0.0.1:1", "127.9.9.9:1", "[::1]:1", "http://localhost:1"]


@pytest.mark.parametrize("address", CLEAR)
def test_token_goes_to_another_machine_over_tls_only(address: str) -> None:
    for argv, environment in ((["-token", "secret"], {}), ([], {"CONSUL_HTTP_TOKEN": "secret"})):
        with pytest.raises(CommandError) as refused:
            api_of("-http-addr", address, *argv, environment=environment)
        assert refused.value.code is Exit.USAGE
        assert str(refused.value) == (
            f"--http-addr {parse_address(address)} is not allowed: a secret would be sent in clear:"
            " must be https or on loopback; --allow-cleartext-token sends it all the same"
        )
    assert api_of("-http-addr", address).token == ""
    assert api_of("-http-addr", address, "-token", "t", "-allow-cleartext-token").token == "t"


@pytest.mark.parametrize("address", PRIVATE)
def test_token_goes_over_tls_and_to_this_machine(address: str) -> None:
    assert api_of("-http-addr", address, "-token", "t").token == "t"


def test_of_many_addresses_each_is_checked() -> None:
    parser = Parser()
    add_api_flags(parser, asks_many=True)
    args = parser.parse_args(normalise(["-http-addr", "https://a", "-http-addr", "http://b:1", "-token", "t"]))
    with pytest.raises(CommandError, match="http://b:1"):
        apis_from(args, {})
    args.token = None
    assert [str(api.origin) for api in apis_from(args, {})] == ["https://a:443", "http://b:1"]


def test_stale_and_datacenter_go_with_every_request() -> None:
    assert api_of("-stale", "-datacenter", "dc2").query == {"dc": "dc2", "stale": ""}


def test_client_certificate_needs_both_files() -> None:
    assert api_of("-client-cert", "c", "-client-key", "k").tls == TlsOptions(cert_file="c", key_file="k")
    with pytest.raises(CommandError, match="must be given together") as refused:
        api_of("-client-cert", "c")
    assert refused.value.code is Exit.USAGE
