"""local_cluster.py: what is made, that it fits together, and that it is never made again."""

import shutil
import stat
from pathlib import Path

import pytest

from cluster.base.config import NodeConfig, load_config
from cluster.cli.dev import local_cluster
from cluster.cli.dev.local_cluster import (
    LocalNode,
    acl_settings,
    load_local,
    make_node,
    make_shared,
    node_at,
    port_in_use,
    take_seal_key_of,
)
from cluster.client.errors import CommandError
from cluster.seal.sources import FileKey, key_source, write_key_file
from cluster.tls.contexts import NodeTls, TlsFiles
from tests.kit import broken_cas, pki
from tests.kit.ports import free_ports


def contents(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    path = tmp_path / 'a "directory" with = spaces, é and \x7f'
    path.mkdir()
    return path


@pytest.fixture
def nodes(root: Path) -> list[LocalNode]:
    made = [node_at(root, k, 100) for k in (1, 2, 3)]
    make_shared(root)
    for node in made:
        make_node(root, node, made)
    return made


def test_default_policy_of_access_control_is_written(root: Path) -> None:
    make_shared(root)
    for number, policy in enumerate(("deny", "allow", None), 1):
        node = node_at(root, number, 0)
        make_node(root, node, [node], acl_settings(policy))
        assert config_of(node).acl.default_policy == policy
        assert config_of(node).allows_by_default is (policy != "deny")


def config_of(node: LocalNode) -> NodeConfig:
    return load_config(node.config, {})


def test_nodes_have_the_ports_of_the_design(root: Path) -> None:
    assert node_at(root, 1, 0) == LocalNode(
        "node-1", root / "node-1", "127.0.0.1:8500", "127.0.0.1:8400", "127.0.0.1:8300"
    )
    last = node_at(root, local_cluster.MAX_NODES, local_cluster.MAX_PORT_OFFSET)
    assert last.http == "127.0.0.1:65535"


def test_configurations_are_complete_and_agree(root: Path, nodes: list[LocalNode]) -> None:
    for node in nodes:
        assert load_local(node.directory)[0] == node
        config = config_of(node)
        assert config.data_dir == node.data_dir
        assert config.data_dir.is_dir()
        assert [(server.name, server.raft, server.rpc) for server in config.servers] == [
            (other.name, other.raft, other.rpc) for other in nodes
        ]
        paths = (config.data_dir, config.tls.ca_file, config.tls.cert_file, config.tls.key_file)
        assert all(path.is_absolute() for path in paths)


def test_nodes_know_each_other_by_their_certificates(nodes: list[LocalNode]) -> None:
    for node in nodes:
        config = config_of(node)
        files = TlsFiles(str(config.tls.ca_file), str(config.tls.cert_file), str(config.tls.key_file))
        tls = NodeTls(files, config.datacenter, config.tls.domain)
        assert tls.server_name(node.name) == f"{node.name}.server.dc1.consul"
        assert b"BEGIN CERTIFICATE" in config.tls.cert_file.read_bytes()


def test_later_node_gets_the_key_that_the_others_have_after_a_change(root: Path, nodes: list[LocalNode]) -> None:
    original, in_force = root / "seal.key", nodes[0].data_dir / "seal.key"
    take_seal_key_of(root, nodes[0])
    assert original.read_text() == in_force.read_text()
    before = original.stat()
    take_seal_key_of(root, nodes[0])
    assert original.stat() == before
    in_force.unlink()
    write_key_file(in_force)  # as `seal rotate` leaves it
    take_seal_key_of(root, nodes[0])
    assert original.read_text() == in_force.read_text()
    assert original.stat().st_mode & 0o777 == 0o600
    in_force.unlink()
    take_seal_key_of(root, nodes[0])  # it is kept elsewhere
    assert original.exists()


def test_all_nodes_have_the_same_seal_key(root: Path, nodes: list[LocalNode]) -> None:
    original = FileKey(root / "seal.key").key(b"")
    assert [key_source(config_of(node), {}).key(b"") for node in nodes] == [original] * 3


def test_secrets_are_for_the_owner_only(root: Path, nodes: list[LocalNode]) -> None:
    secrets = [*root.rglob("*key.pem"), *root.rglob("seal.key")]
    assert len(secrets) == 1 + 3 + 1 + 3
    assert {stat.S_IMODE(path.stat().st_mode) for path in secrets} == {0o600}


def test_nothing_is_made_twice(root: Path, nodes: list[LocalNode]) -> None:
    before = contents(root)
    make_shared(root)
    for node in nodes:
        make_node(root, node, nodes)
    assert contents(root) == before


def test_interrupted_making_is_done_again(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    node = node_at(root, 1, 0)
    make_shared(root)

    def fail(*_arguments: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(local_cluster, "save_pair", fail)
        with pytest.raises(KeyboardInterrupt):
            make_node(root, node, [node])
    assert not node.directory.exists()
    make_node(root, node, [node])
    assert load_local(node.directory)[0] == node
    assert [path.name for path in root.iterdir() if path.name.startswith(".")] == []


def test_settings_go_into_their_sections(root: Path) -> None:
    node = node_at(root, 1, 0)
    make_shared(root)
    make_node(root, node, [node], {"limits": {"leader_wait_ms": 5}, "raft": {"heartbeat_ms": 20}})
    config = config_of(node)
    assert (config.limits.leader_wait_ms, config.raft.heartbeat_ms, config.raft.address) == (5, 20, node.raft)


def test_moved_directory_is_refused(root: Path, nodes: list[LocalNode], tmp_path: Path) -> None:
    shutil.move(root, tmp_path / "moved")
    with pytest.raises(CommandError, match="was the directory moved"):
        load_local(tmp_path / "moved" / "node-1")


def test_broken_configuration_is_refused_by_key(nodes: list[LocalNode]) -> None:
    nodes[0].config.write_text('node_nam = "x"\n')
    with pytest.raises(CommandError, match="node_nam: unknown key"):
        load_local(nodes[0].directory)


def test_unusable_place_is_refused(root: Path) -> None:
    (root / "file").touch()
    with pytest.raises(CommandError, match="file/x: Not a directory"):
        local_cluster.make_directory(root / "file" / "x")
    with pytest.raises(CommandError, match="cannot be made"):
        make_shared(root / "missing")


def test_port_in_use_is_found(root: Path) -> None:
    import socket

    http, rpc, raft = (f"127.0.0.1:{port}" for port in free_ports(3))
    node = LocalNode("node-1", root, http, rpc, raft)
    assert port_in_use([node]) is None
    with socket.create_server(("127.0.0.1", int(rpc.rpartition(":")[2]))):
        assert port_in_use([node]) == (node, "RPC", rpc)


def test_node_is_not_made_below_an_agent_ca_that_no_peer_accepts(root: Path) -> None:
    make_shared(root)
    cert, private = broken_cas.certificate_of(broken_cas.BROKEN["other purpose"])
    (root / "tls" / "consul-agent-ca.pem").write_text(pki.pem(cert))
    (root / "tls" / "consul-agent-ca-key.pem").write_text(pki.key_pem(private))
    node = node_at(root, 1, 0)
    with pytest.raises(CommandError) as caught:
        make_node(root, node, [node])
    assert str(caught.value).startswith(f"the agent CA in {root}/tls cannot be used: no peer would accept")
    assert not node.directory.exists()
