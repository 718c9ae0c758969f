"""deploy/node.example.toml: it loads, shows every key, and shows the defaults that the code has."""

import json
import re
import tomllib
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from cluster.config import NodeConfig, parse_config

EXAMPLE = Path(__file__).parents[3] / "deploy" / "node.example.toml"
#: Shown by an example, as they have no default; or what a default of "none" stands for.
WITHOUT_DEFAULT = {
    "http.tls_cert",
    "http.tls_key",
    "rpc.advertise",
    "raft.advertise",
    "seal.key_file",
    "seal.passphrase_file",
    "connect.ca_config.leaf_cert_ttl",
}


def flattened(values: dict[str, Any], path: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in values.items():
        name = f"{path}{key}"
        flat |= flattened(value, f"{name}.") if isinstance(value, dict) else {name: value}
    return flat


def keys_of(model: type[BaseModel], path: str = "") -> set[str]:
    keys: set[str] = set()
    for name, info in model.model_fields.items():
        kind = info.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            keys |= keys_of(kind, f"{path}{name}.")
        else:
            keys.add(f"{path}{name}")
    return keys


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
    smallest = {name: config.model_dump()[name] for name in ("node_name", "data_dir", "servers", "tls")}
    defaults = flattened(json.loads(parse_config(smallest, source="smallest").model_dump_json()))
    commented = shown.keys() - given.keys() - WITHOUT_DEFAULT
    assert len(commented) > 15
    assert {key: shown[key] for key in commented} == {key: defaults[key] for key in commented}
