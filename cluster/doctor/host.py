"""What is wrong with a node's place on its machine and in its cluster: addresses, ports, the list of servers."""

import errno
import socket
from collections.abc import Iterator

from cluster.base.config import NodeConfig
from cluster.doctor.findings import Finding, critical, note, warning


def check_addresses(config: NodeConfig) -> Iterator[Finding]:
    """Of a node that does not run: can it listen where it should?"""
    for key, address in (
        ("http.address", config.http.address),
        ("rpc.address", config.rpc.address),
        ("raft.address", config.raft.address),
    ):
        if trouble := _trouble_listening(key, address):
            what, then = trouble
            # One code for all that is in the way: scripts know it.
            yield critical(
                "port-in-use",
                address,
                f"{key}: {what}",
                "The node does not start: it could not be reached there.",
                then,
            )


def check_servers(config: NodeConfig) -> Iterator[Finding]:
    own = next((server for server in config.servers if server.name == config.node_name), None)
    if own is None:
        yield note(
            "not-a-founder",
            config.node_name,
            "is not among the servers that the cluster starts from",
            "It stays passive until it is added.",
            f"quorumca operator raft add-peer -id {config.node_name} -address {config.raft_address}"
            f" -rpc {config.rpc_address}",
        )
        return
    for key, listed, real in (
        ("raft", own.raft, config.raft_address),
        ("rpc", own.rpc, config.rpc_address),
    ):
        if listed != real:
            yield warning(
                "address-differs",
                config.node_name,
                f"is listed in `servers` with {key} = {listed}, but is itself at {real}",
                "The others look for it where it is not.",
                f"make both the same, on every node; or set {key}.advertise",
            )


def _trouble_listening(key: str, address: str) -> tuple[str, str] | None:
    """What is in the way, and what to do about it."""
    host, _, port = address.rpartition(":")
    try:
        found = socket.getaddrinfo(host.strip("[]"), int(port), type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except OSError as error:
        return (
            f"the name cannot be looked up: {error.strerror}",
            f"getent hosts {host}; correct {key} on this node, or what its resolver says",
        )
    family, kind, _, _, where = found[0]
    try:
        with socket.socket(family, kind) as probe:
            # As the nodes do: connections of a process that has ended are in nobody's way.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(where)
            probe.listen()
    except OSError as error:
        return _refused(error, key, str(where[0]), port)
    return None


def _refused(error: OSError, key: str, host: str, port: str) -> tuple[str, str]:
    what = f"it cannot be listened on: {error.strerror}"
    match error.errno:
        case errno.EADDRNOTAVAIL:
            section = key.removesuffix(".address")
            advertised = "" if section == "http" else f"; if the others reach it by {host}, that is {section}.advertise"
            return (
                f"{host} is not an address of this machine",
                f"ip -brief address; set {key} on this node to one of these{advertised}",
            )
        case errno.EACCES:
            return what, f"give the node CAP_NET_BIND_SERVICE for a port below 1024, or change {key}"
        case _:
            return what, f"ss -ltnp 'sport = :{port}'; end what listens there, or change {key} on this node"
