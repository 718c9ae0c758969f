"""Nodes with a real RPC port on loopback, over real TLS, around a cluster without consensus."""

from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from cluster.base.telemetry import Metrics
from cluster.rpc.forward import Forwarder, Operation, Operations
from cluster.rpc.server import RpcServer
from cluster.tls.contexts import NodeTls, TlsFiles
from tests.fakes import EventLog, FakeClock
from tests.ports import free_ports
from tests.unit.cluster_core.fake_cluster import FakeCluster
from tests.unit.raft.tls_files import Authority

NAMES = ("a", "b", "c")


def write_tls_files(directory: Path) -> None:
    authority = Authority()
    authority.write_ca(directory / "ca.pem")
    for name in NAMES:
        authority.write_server(directory, name)
    authority.write_certificate(directory, "client", "b.client.dc1.consul")


def node_tls(directory: Path, name: str) -> NodeTls:
    files = TlsFiles(str(directory / "ca.pem"), str(directory / f"{name}.pem"), str(directory / f"{name}.key"))
    return NodeTls(files, "dc1", "consul")


def cluster_with_ports(directory: Path) -> FakeCluster:
    return FakeCluster(directory, NAMES, tuple(free_ports(len(NAMES))))


@dataclass
class RpcNode:
    """A port that serves operations, and a forwarder that reaches the others'."""

    cluster: FakeCluster
    name: str
    log: EventLog
    metrics: Metrics
    server: RpcServer
    forwarder: Forwarder
    clock: FakeClock


@asynccontextmanager
async def rpc_nodes(
    cluster: FakeCluster,
    tls_directory: Path,
    operations: Mapping[str, Operations | Mapping[str, Operation]],
    wait_seconds: float = 5.0,
) -> AsyncIterator[dict[str, RpcNode]]:
    """One for each name in `operations`."""
    async with AsyncExitStack() as stack:
        nodes = {}
        for name, table in operations.items():
            offered = table if isinstance(table, Operations) else Operations(table)
            replica, tls = cluster.replicas[name].real, node_tls(tls_directory, name)
            log, metrics, clock = EventLog(), Metrics(), RunningClock()
            server = RpcServer(replica, offered, tls, log, metrics)
            await server.start(cluster.members[name].rpc_address)
            stack.push_async_callback(server.stop)
            forwarder = Forwarder(replica, offered, tls, name, clock, metrics, wait_seconds)
            stack.push_async_callback(forwarder.close)
            nodes[name] = RpcNode(cluster, name, log, metrics, server, forwarder, clock)
        yield nodes


class RunningClock(FakeClock):
    """Each look at the monotonic clock costs 10 ms of it, so that deadlines pass without waiting for them."""

    def monotonic(self) -> float:
        self.advance(0.01)
        return super().monotonic()
