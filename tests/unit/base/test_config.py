"""A node's settings: every mistake is named with its key, its value and what is allowed."""

from pathlib import Path
from typing import Any

import pytest

from cluster.base.config import load_config, parse_config
from cluster.base.errors import ConfigError
from cluster.base.names import is_address, is_loopback
from tests.kit.node_config import minimal


def mistakes(**changes: Any) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        parse_config(minimal(**changes), source="node.toml")
    return str(caught.value).split("\n")


def test_defaults_are_the_documented_ones() -> None:
    config = parse_config(minimal(), source="t")
    assert config.datacenter == "dc1"
    assert (config.http.address, config.rpc.address, config.raft.address) == (
        "127.0.0.1:8500",
        "127.0.0.1:8400",
        "127.0.0.1:8300",
    )
    assert (config.raft.election_timeout_min_ms, config.raft.election_timeout_max_ms) == (500, 1000)
    assert config.raft.heartbeat_ms == 50
    assert config.connect.enabled
    assert config.connect.ca_provider == "consul"
    assert config.seal.source == "file"


def test_advertised_addresses_are_what_others_dial() -> None:
    config = parse_config(minimal(raft={"advertise": "10.0.0.1:8300"}, rpc={"address": "0.0.0.0:8400"}), source="t")
    assert (config.raft_address, config.rpc_address) == ("10.0.0.1:8300", "0.0.0.0:8400")


@pytest.mark.parametrize(
    ("changes", "mistake"),
    [
        ({"colour": 1}, "colour: unknown key: must be one of node_name, datacenter, data_dir, "),
        ({"log": {"colour": 1}}, "log.colour: unknown key: must be one of level, format"),
        ({"node_name": "Node_1"}, "node_name = 'Node_1': must be a DNS label"),
        ({"node_name": "a" * 64}, "node_name = "),
        ({"datacenter": ""}, "datacenter = '': must be a DNS label"),
        ({"servers": []}, "servers = []: must be 1 to 9 servers"),
        ({"servers": [{"name": "a", "raft": "h:1"}]}, "servers.0.rpc: missing"),
        ({"servers": [{"name": "a", "raft": "h:0", "rpc": "h:2"}]}, "servers.0.raft = 'h:0': must be host:port"),
        ({"servers": [{"name": "a", "raft": "h:1", "rpc": "h:2"}] * 2}, "servers must have different names"),
        ({"http": {"address": "8500"}}, "http.address = '8500': must be host:port"),
        ({"http": {"address": "0.0.0.0:8500"}}, "http: 0.0.0.0:8500 is not a loopback address: set tls_cert"),
        ({"http": {"tls_cert": "x"}}, "http: tls_cert and tls_key must be given together"),
        ({"raft": {"heartbeat_ms": "often"}}, "raft.heartbeat_ms = 'often': "),
        ({"raft": {"heartbeat_ms": 9}}, "raft.heartbeat_ms = 9: must be a whole number >= 10"),
        (
            {"raft": {"election_timeout_max_ms": 500}},
            "raft: election_timeout_max_ms = 500 must be above election_timeout_min_ms = 500",
        ),
        (
            {"raft": {"heartbeat_ms": 200}},
            "raft: election_timeout_min_ms = 500 must be at least 4 times heartbeat_ms = 200",
        ),
        ({"raft": {"keep_bytes": 1 << 24}}, "raft: keep_bytes = 16777216 must be below compact_bytes = 4194304"),
        ({"http": {"allowed_hosts": "x"}}, "http.allowed_hosts = 'x': must be a list, not text"),
        ({"http": {"allowed_hosts": [1]}}, "http.allowed_hosts = [1]: must be text, not a whole number - at `$[0]`"),
        ({"http": {"max_connections_per_source": "x"}}, "http.max_connections_per_source = 'x': must be a whole"),
        ({"connect": {"enabled": "maybe"}}, "connect.enabled = 'maybe': must be true or false, not text"),
        ({"connect": {"ca_config": []}}, "connect.ca_config: must be a table, not a list"),
        ({"seal": {"key_file": 7}}, "seal.key_file = 7: must be text"),
        ({"seal": {"source": "hsm"}}, "seal.source = 'hsm': must be 'file' or 'passphrase'"),
        ({"tls": {"ca_file": "x", "cert_file": "y"}}, "tls.key_file: missing"),
        ({"connect": {"ca_config": {"cluster_id": "x"}}}, "connect: ca_config.cluster_id = 'x' must be a UUID"),
        ({"connect": {"ca_config": {"cluster_id": 7}}}, "connect: ca_config.cluster_id = 7 must be a UUID"),
        ({"connect": {"ca_provider": ""}}, "connect.ca_provider = '': "),
        ({"limits": {"signing_workers": 65}}, "limits.signing_workers = 65: "),
        ({"log": {"level": "loud"}}, "log.level = 'loud': "),
        ({"ledger": {"keep_expired_days": -1}}, "ledger.keep_expired_days = -1: "),
        ({"http": "here"}, "http = 'here': "),
        ({"acl": {"default_policy": "ask"}}, "acl.default_policy = 'ask': must be 'allow' or 'deny'"),
        ({"acl": {"agent_token_file": 1}}, "acl.agent_token_file: must be text"),
        ({"acl": {"initial_management": "x"}}, "acl.initial_management: unknown key: must be one of default_policy, "),
    ],
    ids=lambda value: str(value)[:60],
)
def test_mistake_is_named_with_key_and_value(changes: dict[str, Any], mistake: str) -> None:
    [line] = mistakes(**changes)
    assert line.startswith(f"node.toml: {mistake}")


def test_all_mistakes_are_named_at_once() -> None:
    lines = mistakes(colour=1, node_name="A", raft={"heartbeat_ms": 1}, tls={})
    assert [line.removeprefix("node.toml: ").split(" ")[0].rstrip(":") for line in lines] == [
        "node_name",
        "tls.ca_file",
        "tls.cert_file",
        "tls.key_file",
        "raft.heartbeat_ms",
        "colour",
    ]


def test_secrets_are_not_shown() -> None:
    values = minimal(connect={"ca_config": {"private_key": "very-secret"}})
    assert "very-secret" not in repr(parse_config(values, source="t"))
    lines = mistakes(connect={"ca_config": '{private_key = "very-secret'})  # an environment variable, mistyped
    assert lines
    assert "very-secret" not in str(lines)
    lines = mistakes(connect={"ca_provider": "", "ca_config": {"private_key": "very-secret"}})
    assert "very-secret" not in "\n".join(lines)


@pytest.mark.parametrize("text", ["h:1", "1.2.3.4:65535", "[::1]:80", "node-1.example:8300", "h" * 253 + ":1"])
def test_addresses(text: str) -> None:
    assert is_address(text)


@pytest.mark.parametrize(
    "text", ["", "h", ":1", "h:", "h:0", "h:65536", "h:-1", "h:1x", "::1:80", "h:²", "h" * 254 + ":1", "h h:1", "h\n:1"]
)
def test_no_addresses(text: str) -> None:
    assert not is_address(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("127.0.0.1:1", True),
        ("127.9.9.9:1", True),
        ("[::1]:1", True),
        ("localhost:1", True),
        ("0.0.0.0:1", False),
        ("localhost.example:1", False),
        ("10.0.0.1:1", False),
    ],
)
def test_loopback(text: str, expected: bool) -> None:
    assert is_loopback(text) is expected


# -- files and environment

FILE = """
node_name = "a"
data_dir = "/data"
servers = [{name = "a", raft = "127.0.0.1:8300", rpc = "127.0.0.1:8400"}]
[tls]
ca_file = "ca.pem"
cert_file = "a.pem"
key_file = "a.key"
[http]
address = "127.0.0.1:9500"
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "node.toml"
    path.write_text(FILE)
    return path


def test_environment_wins_over_the_file(path: Path) -> None:
    config = load_config(
        path,
        {
            "QUORUMCA_HTTP__ADDRESS": "127.0.0.1:9999",
            "QUORUMCA_RAFT__HEARTBEAT_MS": "60",
            "QUORUMCA_CONNECT__ENABLED": "false",
            "QUORUMCA_CONNECT__CA_CONFIG__LEAF_CERT_TTL": "24h",
            "QUORUMCA_SEAL_PASSPHRASE": "not a setting",
            "PATH": "/bin",
        },
    )
    assert config.http.address == "127.0.0.1:9999"
    assert config.raft.heartbeat_ms == 60
    assert config.connect.enabled is False
    assert config.connect.ca_config == {"leaf_cert_ttl": "24h"}


def test_names_and_paths_above_all_sections_come_from_the_environment_too(path: Path) -> None:
    environment = {"QUORUMCA_DATA_DIR": "/srv/ca", "QUORUMCA_DATACENTER": "7", "QUORUMCA_HTTP_ADDR": "no setting"}
    config = load_config(path, environment)
    assert (config.data_dir, config.datacenter, config.node_name) == (Path("/srv/ca"), "7", "a")
    with pytest.raises(ConfigError, match=r"node_name = 'No Name': must be a DNS label"):
        load_config(path, {"QUORUMCA_NODE_NAME": "No Name"})


def test_mistake_in_the_environment_is_named_as_its_key(path: Path) -> None:
    with pytest.raises(ConfigError, match=r"http\.colour: unknown key"):
        load_config(path, {"QUORUMCA_HTTP__COLOUR": "red"})
    with pytest.raises(ConfigError, match=r"QUORUMCA_NODE_NAME__X: node_name is not a section"):
        load_config(path, {"QUORUMCA_NODE_NAME__X": "1"})


def test_missing_file_and_bad_toml_are_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.toml: No such file"):
        load_config(tmp_path / "none.toml", {})
    (tmp_path / "bad.toml").write_text("node_name = \n")
    with pytest.raises(ConfigError, match=r"bad\.toml: Invalid value \(at line 1"):
        load_config(tmp_path / "bad.toml", {})
    (tmp_path / "bytes.toml").write_bytes(b"\xff")
    with pytest.raises(ConfigError, match=r"bytes\.toml"):
        load_config(tmp_path / "bytes.toml", {})


@pytest.mark.parametrize(
    ("key", "changes"),
    [
        ("data_dir", {"data_dir": "{}/data"}),
        ("seal.key_file", {"seal": {"key_file": "{}/seal.key"}}),
        ("seal.passphrase_file", {"seal": {"source": "passphrase", "passphrase_file": "{}/deep/phrase"}}),
        ("tls.key_file", {"tls": {"ca_file": "ca.pem", "cert_file": "a.pem", "key_file": "{}/../credentials/a.key"}}),
        ("http.tls_key", {"http": {"tls_cert": "c", "tls_key": "{}-link/b.key"}}),
    ],
)
def test_own_keys_must_not_lie_where_the_ca_may_have_files_read(
    tmp_path: Path, key: str, changes: dict[str, Any]
) -> None:
    """What is in there may be sent to any address that the configuration of the CA names."""
    folder = tmp_path / "credentials"
    folder.mkdir()
    (tmp_path / "credentials-link").symlink_to(folder)

    def filled(value: Any) -> Any:
        return {k: filled(v) for k, v in value.items()} if isinstance(value, dict) else str(value).format(folder)

    lines = mistakes(connect={"credentials_dir": str(folder)}, **filled(changes))
    assert len(lines) == 1
    assert f"connect.credentials_dir = '{folder}': must be a directory of its own, and {key} = " in lines[0]
    parse_config(minimal(connect={"credentials_dir": str(folder)}), source="t")
    parse_config(minimal(**filled(changes)), source="t")


# -- who may get here, and what they may then


ELSEWHERE = {"address": "10.0.0.1:9", "allow_plaintext_off_loopback": True}


@pytest.mark.parametrize("address", ["0.0.0.0:1", "[::]:1", "10.0.0.1:1", "ca.example:1", "127.0.0.1.example:1"])
def test_api_in_clear_off_loopback_is_asked_for_in_so_many_words(address: str) -> None:
    [line] = mistakes(http={"address": address})
    assert line == (
        f"node.toml: http: {address} is not a loopback address: set tls_cert and tls_key,"
        " or allow_plaintext_off_loopback = true"
    )
    mistakes(http={"address": address, "allow_plaintext_off_loopback": False})
    for more in ({"allow_plaintext_off_loopback": True}, {"tls_cert": "c", "tls_key": "k"}):
        assert parse_config(minimal(http={"address": address, **more}), source="t").http.address == address


@pytest.mark.parametrize("address", ["127.0.0.1:1", "127.8.8.8:1", "[::1]:1", "localhost:1"])
def test_api_in_clear_on_loopback_needs_nothing(address: str) -> None:
    assert parse_config(minimal(http={"address": address}), source="t").http.tls_cert is None


@pytest.mark.parametrize(
    ("changes", "allows"),
    [
        ({}, True),
        ({"http": {"address": "[::1]:1"}, "rpc": {"address": "localhost:2"}}, True),
        ({"http": ELSEWHERE}, False),
        ({"http": {"address": "10.0.0.1:9", "tls_cert": "c", "tls_key": "k"}}, False),
        ({"rpc": {"address": "0.0.0.0:9"}}, False),
        ({"raft": {"address": "10.0.0.1:9"}}, False),
        ({"acl": {"default_policy": "deny"}}, False),
        ({"acl": {"default_policy": "allow"}, "http": ELSEWHERE}, True),
    ],
)
def test_what_no_rule_speaks_of_is_denied_where_other_machines_can_get(changes: dict[str, Any], allows: bool) -> None:
    assert parse_config(minimal(**changes), source="t").allows_by_default is allows


@pytest.mark.parametrize("key", ["initial_management_file", "agent_token_file"])
def test_tokens_are_not_where_a_provider_may_read(key: str) -> None:
    [line] = mistakes(connect={"credentials_dir": "/etc/c"}, acl={key: "/etc/c/x"})
    assert line.endswith(f"must be a directory of its own, and acl.{key} = '/etc/c/x' is in it")
