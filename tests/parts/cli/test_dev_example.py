"""deploy/node.example.toml: it loads, shows every key, and shows the defaults that the code has."""

import json
import re
import tomllib
from pathlib import Path
from typing import Any

import msgspec

from cluster.base.config import NodeConfig, parse_config

EXAMPLE = Path(__file__).parents[3] / "deploy" / "node.example.toml"
#: Shown by an example, as they have no default; or what a default of "none" stands for.
WITHOUT_DEFAULT = {
    "http.allowed_hosts",
    "http.max_connections_per_source",
    "http.tls_cert",
    "http.tls_key",
    "rpc.advertise",
    "raft.advertise",
    "join.address",
    "join.advertise",
    "seal.key_file",
    "seal.passphrase_file",
    "seal.next_key_file",
    "seal.next_passphrase_file",
    "acl.default_policy",
    "acl.initial_management_file",
    "acl.agent_token_file",
    "acl.jwks_hosts",
    "connect.credentials_dir",
    "connect.ca_config.leaf_cert_ttl",
}


def flattened(values: dict[str, Any], path: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in values.items():
        name = f"{path}{key}"
        flat |= flattened(value, f"{name}.") if isinstance(value, dict) else {name: value}
    return flat


def keys_of(model: type[msgspec.Struct], path: str = "") -> set[str]:
    keys: set[str] = set()
    for field in msgspec.structs.fields(model):
        if isinstance(field.type, type) and issubclass(field.type, msgspec.Struct):
            keys |= keys_of(field.type, f"{path}{field.name}.")
        else:
            keys.add(f"{path}{field.name}")
    return keys


def plain(config: NodeConfig) -> dict[str, Any]:
    values: dict[str, Any] = json.loads(msgspec.json.encode(config, enc_hook=str))
    return values


def test_example_loads_as_it_is() -> None:
    config = parse_config(tomllib.loads(EXAMPLE.read_text()), source=EXAMPLE.name)
    assert config.node_name in {server.name for server in config.servers}
    assert (config.raft_address, config.rpc_address) == (config.servers[0].raft, config.servers[0].rpc)


def test_example_shows_every_key_and_the_true_defaults() -> None:
    everything = tomllib.loads(re.sub(r"^#(?=[a-z_]+ = )", "", EXAMPLE.read_text(), flags=re.MULTILINE))
    config = parse_config(everything, source=EXAMPLE.name)
    shown = flattened(everything)
    # The keys of ca_config are the provider's.
    assert {re.sub(r"(ca_config)\..*", r"\1", key) for key in shown} == keys_of(NodeConfig)

    given = {key: shown[key] for key in flattened(tomllib.loads(EXAMPLE.read_text()))}
    smallest = {name: plain(config)[name] for name in ("node_name", "data_dir", "servers", "tls")}
    defaults = flattened(plain(parse_config(smallest, source="smallest")))
    commented = shown.keys() - given.keys() - WITHOUT_DEFAULT
    assert len(commented) > 15
    assert {key: shown[key] for key in commented} == {key: defaults[key] for key in commented}
