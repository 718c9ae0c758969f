from pathlib import Path

import pytest

from cluster.cli.api_flags import add_api_flags, api_from, parse_address
from cluster.cli.arguments import Parser, normalise
from cluster.client.api import Api, Origin, TlsOptions
from cluster.client.errors import CommandError, Exit


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


def test_token_file_wins_over_the_environment(tmp_path: Path) -> None:
    (tmp_path / "token").write_text(" secret\n")
    assert api_of("--token-file", "token", environment={"CONSUL_HTTP_TOKEN": "other"}).token == "secret"


def test_tokens_that_are_refused_are_not_repeated(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("one\ntwo")
    (tmp_path / "empty").write_text("\n")
    for argv in (["-token", "sec ret"], ["-token", "secr\xe9t"], ["-token-file", "token"]):
        with pytest.raises(CommandError, match=r"^the ACL token is not allowed: must be printable ASCII"):
            api_of(*argv)
    with pytest.raises(CommandError, match=r"^empty: holds no token$"):
        api_of("-token-file", "empty", environment={"CONSUL_HTTP_TOKEN": "other"})
    assert "secret" not in repr(api_of("-token", "secret"))


def test_stale_and_datacenter_go_with_every_request() -> None:
    assert api_of("-stale", "-datacenter", "dc2").query == {"dc": "dc2", "stale": ""}


def test_client_certificate_needs_both_files() -> None:
    assert api_of("-client-cert", "c", "-client-key", "k").tls == TlsOptions(cert_file="c", key_file="k")
    with pytest.raises(CommandError, match="must be given together") as refused:
        api_of("-client-cert", "c")
    assert refused.value.code is Exit.USAGE
