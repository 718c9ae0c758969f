"""`quorumca dev add-node`: the next server of a local cluster that runs. Given again after a failure, it goes on."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from cluster.cli.api_flags import parse_address
from cluster.cli.dev.cluster_file import ClusterFile, Entry
from cluster.cli.dev.local_cluster import (
    HTTP_PORT,
    MAX_NODES,
    LocalNode,
    acl_settings,
    load_local,
    make_node,
    node_at,
    port_in_use,
    take_seal_key_of,
)
from cluster.cli.dev.supervisor import NodeProcess, Stopped, StopSignals, start_node, stop_all, wait_until_serving
from cluster.cli.locks import LockHeld, locked
from cluster.cli.output import note, waiting
from cluster.client.api import Api, objects
from cluster.client.errors import CommandError, Exit, failing_as

_JOIN_SECONDS: Final = 60.0
_POLL_SECONDS: Final = 0.2
_PEER: Final = "/v1/operator/raft/peer"
_CONFIGURATION: Final = "/v1/operator/raft/configuration"


def add_node(root: Path, token: str = "") -> Entry:
    """The new server votes, serves, and lives on. `token`: for `operator:write`, where that is not everybody's.

    Raises: CommandError, after the new process was stopped again.
    """
    cluster_file = ClusterFile(root)
    members = cluster_file.read()
    if not members:
        raise CommandError(f"there is no local cluster in {root}: make one with `quorumca dev --data-dir '{root}'`")
    try:
        with locked(root / ".add-node.lock"):
            node = _next_node(root, members)
            return _start_and_join(node, members, cluster_file, token)
    except LockHeld as holder:
        raise CommandError(f"another add-node (pid {holder}) is at work on {root}") from None


def _next_node(root: Path, members: Sequence[Entry]) -> LocalNode:
    """Made already by an add-node that failed, or made now."""
    names = {entry.name for entry in members}
    number = next((k for k in range(1, MAX_NODES + 1) if f"node-{k}" not in names), None)
    if number is None:
        raise CommandError(f"a local cluster has at most {MAX_NODES} nodes")
    first, config = load_local(root / "node-1")
    node = node_at(root, number, int(first.http.rpartition(":")[2]) - HTTP_PORT)
    if node.is_made:
        node, _ = load_local(node.directory)
    if found := port_in_use([node]):
        raise CommandError(f"{found[2]}, wanted for the {found[1]} of {node.name}, is in use: stop what listens there")
    founders = [
        LocalNode(server.name, root / server.name, http="", rpc=server.rpc, raft=server.raft)
        for server in config.servers
    ]
    take_seal_key_of(root, first)
    make_node(root, node, founders, acl_settings(config.acl.default_policy))
    return node


def _start_and_join(node: LocalNode, members: Sequence[Entry], cluster_file: ClusterFile, token: str) -> Entry:
    with StopSignals() as signals:
        started = start_node(node)
        try:
            with waiting(f"Adding {node.name}"):
                api = _join(node, members, token)
                _wait_until_voting(started, api, signals)
                wait_until_serving([started], signals, _JOIN_SECONDS, token=token)
            entry = node.entry(started.process.pid)
            cluster_file.put(entry)
            return entry
        except BaseException as error:
            stop_all([started], [], signals, note)
            if isinstance(error, Stopped):
                raise CommandError("interrupted; run add-node again to go on", Exit.INTERRUPTED) from None
            raise


def _join(node: LocalNode, members: Sequence[Entry], token: str) -> Api:
    """Asks one node after the other: adding a server again as it is changes nothing. The one that did it."""
    body = {"ID": node.name, "Address": node.raft, "RPC": node.rpc}
    for entry in members:
        api = Api(parse_address(entry.http), token=token, waiting=waiting)
        try:
            with failing_as(f"{entry.name} did not add {node.name}"):
                api.text("PUT", _PEER, body=body)
            return api
        except CommandError as error:
            if error.code is not Exit.UNREACHABLE:
                raise
    raise CommandError("no node of the cluster answers: is it running?", Exit.UNREACHABLE)


def _wait_until_voting(started: NodeProcess, api: Api, signals: StopSignals) -> None:
    node, deadline = started.node, time.monotonic() + _JOIN_SECONDS
    while not _votes(node, api):
        if signals.count:
            raise Stopped
        if started.has_ended:
            raise CommandError(f"{node.name} has ended ({started.ending()}): {started.last_words()}")
        if time.monotonic() >= deadline:
            raise CommandError(
                f"{node.name} has no vote after {_JOIN_SECONDS:g} s; the end of {node.log}:\n"
                + "\n".join(started.log_tail(5))
            )
        time.sleep(_POLL_SECONDS)


def _votes(node: LocalNode, api: Api) -> bool:
    servers = objects(api.json("GET", _CONFIGURATION), "Servers")
    return any(server.get("ID") == node.name and server.get("Voter") is True for server in servers)
