"""Whether the other servers will take this node for the server whose name it has."""

import contextlib
from collections.abc import Iterator

from cluster.base.config import NodeConfig
from cluster.doctor.findings import Finding, critical
from cluster.raft.admission import Admission, is_key_of
from cluster.raft.codec import MessageInvalid
from cluster.raft.inspection import read_configuration
from cluster.raft.journal import JournalDamaged
from cluster.raft.snapshot import SnapshotDamaged
from cluster.tls.keys import first_certificate, hashes_of_file, key_from

_REFUSED = "The other servers refuse it on both ports, and it follows nobody."


def check_membership(config: NodeConfig) -> Iterator[Finding]:
    """As this node knew it last. What is wrong with the files themselves is found by others."""
    with contextlib.suppress(OSError, ValueError, JournalDamaged, SnapshotDamaged, MessageInvalid):
        yield from _check(config)


def _check(config: NodeConfig) -> Iterator[Finding]:
    name = config.node_name
    members, removed = read_configuration(config.data_dir)
    if name in removed:
        yield critical(
            "server-removed",
            config.data_dir,
            f"{name} was removed from the cluster",
            _REFUSED,
            f"leave it stopped; to have it back, empty {config.data_dir} but for the seal key, and"
            f" {_add_peer(config)} on another server",
        )
    member = members.get(name)
    if member is None:
        return
    anchors = hashes_of_file(config.tls.ca_file.read_bytes())
    key = key_from(first_certificate(config.tls.cert_file.read_bytes()), None)
    if Admission(members, removed, {}, anchors).is_known_by_key(member) and not is_key_of(key, member.keys):
        yield critical(
            "tls-key-not-pinned",
            config.tls.cert_file,
            f"has another key than the one that the cluster has for {name}",
            _REFUSED,
            f"start it and {_add_peer(config)} on another server, or bring the former key back",
        )


def _add_peer(config: NodeConfig) -> str:
    return (
        f"`quorumca operator raft add-peer -id {config.node_name} -address {config.raft_address}"
        f" -rpc {config.rpc_address}`"
    )
