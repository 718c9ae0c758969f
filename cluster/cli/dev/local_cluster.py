"""The files of a local cluster: keys, certificates and configurations of nodes that share one machine.

Makes what is missing and never replaces what is there. A part appears under its name only once it is complete, so
whatever was interrupted can be done again. Nothing here starts a process.

    DIR/tls/            the agent CA          DIR/node-1/config.toml   self-sufficient: absolute paths
    DIR/seal.key        the original          DIR/node-1/{cert,key}.pem
    DIR/cluster.json    see cluster_file.py   DIR/node-1/{data/,log}   data/ has its own copy of seal.key
"""

import os
import shutil
import socket
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from cluster.base.config import NodeConfig, load_config
from cluster.base.errors import ConfigError
from cluster.cli.dev.cluster_file import Entry
from cluster.cli.files import PRIVATE, PUBLIC, new_file, read_text, save_pair
from cluster.cli.toml import dump_toml
from cluster.client.errors import CommandError
from cluster.seal.sources import write_key_file
from cluster.tls.certificates import Identity, load_ca, new_ca, new_cert
from cluster.tls.proof import check_made

HOST: Final = "127.0.0.1"
DATACENTER: Final = "dc1"
#: Of node 1. Node k has the k-th from there, and all are shifted by --port-offset.
HTTP_PORT: Final = 8500
RPC_PORT: Final = 8400
RAFT_PORT: Final = 8300
#: As many as a configuration may name.
MAX_NODES: Final = 9
MAX_PORT_OFFSET: Final = 65535 - HTTP_PORT - (MAX_NODES - 1)
#: Nobody renews these: as long as the agent CA.
_DAYS: Final = 1825
_MAX_FILE_BYTES: Final = 64 << 10
_CA_FILES: Final = ("consul-agent-ca.pem", "consul-agent-ca-key.pem")


@dataclass(frozen=True, slots=True)
class LocalNode:
    """One node; its addresses are `host:port`."""

    name: str
    directory: Path
    http: str
    rpc: str
    raft: str

    @property
    def config(self) -> Path:
        return self.directory / "config.toml"

    @property
    def data_dir(self) -> Path:
        return self.directory / "data"

    @property
    def log(self) -> Path:
        return self.directory / "log"

    @property
    def is_made(self) -> bool:
        return self.config.exists()

    def entry(self, pid: int) -> Entry:
        return Entry(self.name, pid, self.http, self.rpc, self.raft, str(self.data_dir), str(self.config))


def node_at(root: Path, number: int, port_offset: int) -> LocalNode:
    """Node `number`, counted from 1, as it is made."""
    http, rpc, raft = (f"{HOST}:{base + number - 1 + port_offset}" for base in (HTTP_PORT, RPC_PORT, RAFT_PORT))
    name = f"node-{number}"
    return LocalNode(name, root / name, http, rpc, raft)


def load_local(directory: Path) -> tuple[LocalNode, NodeConfig]:
    """A node as its configuration says, and that configuration. Raises: CommandError."""
    try:
        config = load_config(directory / "config.toml", {})
    except ConfigError as error:
        raise CommandError(str(error)) from error
    node = LocalNode(config.node_name, directory, config.http.address, config.rpc_address, config.raft_address)
    if config.data_dir != node.data_dir:
        raise CommandError(
            f"{node.config} belongs to data in {config.data_dir}, not to {node.data_dir}: was the directory moved?"
            " Move it back, or change the paths in the configuration of every node"
        )
    return node, config


def make_directory(root: Path) -> None:
    """Raises: CommandError."""
    try:
        root.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise CommandError(f"{root}: {error.strerror}") from error


def make_shared(root: Path) -> None:
    """What the nodes have in common: the agent CA and the seal key. Raises: CommandError."""
    _make(root / "tls", _write_ca)
    _make(root / "seal.key", write_key_file)


def take_seal_key_of(root: Path, node: LocalNode) -> None:
    """The original is what later nodes are given: after `quorumca seal rotate` it is the one that this node has.

    Raises: CommandError.
    """
    original, in_force = root / "seal.key", node.data_dir / "seal.key"
    if not in_force.exists():
        return  # it is kept elsewhere
    text = read_text(str(in_force), _MAX_FILE_BYTES)
    if original.exists() and read_text(str(original), _MAX_FILE_BYTES) == text:
        return
    draft = root / ".seal.key.new"
    draft.unlink(missing_ok=True)
    with new_file(draft, PRIVATE) as file:
        file.write(text)
    os.replace(draft, original)


def make_node(
    root: Path, node: LocalNode, founders: Iterable[LocalNode], settings: Mapping[str, Mapping[str, Any]] | None = None
) -> None:
    """A node's directory. `founders` are the servers that the cluster started from: a node that is not among them
    stays passive until it is added. `settings` are more of its configuration, by section.

    Always the founders, even if there are other servers by now: later changes are in the log, which a new node may
    have to go through from the start. Raises: CommandError.
    """
    values = _settings(root, node, founders)
    for section, keys in (settings or {}).items():
        values[section] = {**values.get(section, {}), **keys}
    _make(node.directory, lambda draft: _write_node(draft, root, node, dump_toml(values)))


def acl_settings(default_policy: str | None) -> dict[str, dict[str, Any]]:
    """For `make_node`."""
    return {} if default_policy is None else {"acl": {"default_policy": default_policy}}


def port_in_use(nodes: Sequence[LocalNode]) -> tuple[LocalNode, str, str] | None:
    """The first address that a node could not listen on: the node, what it is for, and the address."""
    for node in nodes:
        for what, address in (("HTTP API", node.http), ("RPC", node.rpc), ("Raft", node.raft)):
            if not _is_free(address):
                return node, what, address
    return None


def _is_free(address: str) -> bool:
    host, _, port = address.rpartition(":")
    with socket.socket() as probe:
        # As the nodes do: connections of a process that has ended are in nobody's way.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, int(port)))
            probe.listen()
        except OSError:
            return False
    return True


def _make(path: Path, build: Callable[[Path], None]) -> None:
    if os.path.lexists(path):
        return
    draft = path.with_name(f".{path.name}.new")
    try:
        if draft.is_dir():
            shutil.rmtree(draft)
        draft.unlink(missing_ok=True)
        build(draft)
        os.rename(draft, path)
    except OSError as error:
        raise CommandError(f"{path} cannot be made: {error.strerror}") from error


def _write_ca(draft: Path) -> None:
    draft.mkdir(mode=0o700)
    pair = new_ca(_now(), _DAYS)
    cert, key = _CA_FILES
    save_pair((draft / cert, pair.cert_pem), (draft / key, pair.key_pem))


def _write_node(draft: Path, root: Path, node: LocalNode, config: str) -> None:
    draft.mkdir(mode=0o700)
    (draft / "data").mkdir(mode=0o700)
    ca_pem, key_pem = (read_text(str(root / "tls" / name), _MAX_FILE_BYTES) for name in _CA_FILES)
    identity = Identity("server", DATACENTER, node=node.name)
    try:
        pair = new_cert(load_ca(ca_pem, key_pem, _now()), identity, _now(), _DAYS)
        check_made(pair, identity, ca_pem)
    except ValueError as error:
        raise CommandError(f"the agent CA in {root / 'tls'} cannot be used: {error}") from error
    save_pair((draft / "cert.pem", pair.cert_pem), (draft / "key.pem", pair.key_pem))
    with new_file(draft / "data" / "seal.key", PRIVATE) as file:
        file.write(read_text(str(root / "seal.key"), _MAX_FILE_BYTES))
    with new_file(draft / "config.toml", PUBLIC) as file:
        file.write("# Made by `quorumca dev`. Runs on its own, too: quorumca agent --config FILE\n" + config)


def _settings(root: Path, node: LocalNode, founders: Iterable[LocalNode]) -> dict[str, Any]:
    return {
        "node_name": node.name,
        "datacenter": DATACENTER,
        "data_dir": str(node.data_dir),
        "servers": [{"name": server.name, "raft": server.raft, "rpc": server.rpc} for server in founders],
        "tls": {
            "ca_file": str(root / "tls" / _CA_FILES[0]),
            "cert_file": str(node.directory / "cert.pem"),
            "key_file": str(node.directory / "key.pem"),
        },
        "http": {"address": node.http},
        "rpc": {"address": node.rpc},
        "raft": {"address": node.raft},
    }


def _now() -> datetime:
    return datetime.now(UTC).replace(microsecond=0)
