"""Nodes with a real RPC port on loopback, over real TLS, around a cluster without consensus."""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cluster.base.seats import PeerSeats
from cluster.base.telemetry import Metrics
from cluster.rpc.forward import Forwarder
from cluster.rpc.operation import Judged, Message, Operation
from cluster.rpc.operations import Operations, served
from cluster.rpc.peers import Peers
from cluster.rpc.server import RpcServer
from cluster.tls.contexts import NodeTls, TlsFiles
from tests.kit.callers import ANYBODY
from tests.kit.clock import FakeClock
from tests.kit.fake_cluster import FakeCluster
from tests.kit.log import EventLog
from tests.kit.ports import free_ports
from tests.kit.seats import roomy_seats
from tests.kit.tls_files import Authority

NAMES = ("a", "b", "c")


class Ask(Message, frozen=True):
    """What the tests' operations take."""

    argument: Any = None


class Told(Message, frozen=True):
    """And what they give."""

    value: Any = None


Work = Callable[[Any], Awaitable[Any]]


def operation(
    name: str = "do", *, is_repeatable: bool = False, is_batched: bool = False, needs_leader: bool = True
) -> Operation[Ask, Told]:
    return Operation(
        name,
        Ask,
        Told,
        needs=Judged.BETWEEN_SERVERS,
        is_repeatable=is_repeatable,
        is_batched=is_batched,
        needs_leader=needs_leader,
    )


def working(table: Mapping[str, Work]) -> Operations:
    """Functions of plain values, as operations."""

    def handler(work: Work) -> Callable[[Ask], Awaitable[Told]]:
        async def handle(request: Ask) -> Told:
            return Told(await work(request.argument))

        return handle

    return Operations(
        lambda _secret_id, _before: ANYBODY, *(served(operation(name), handler(work)) for name, work in table.items())
    )


async def asked(forwarder: Forwarder, what: Operation[Ask, Told]) -> Any:
    """The argument says whether it is a repetition."""
    return (await forwarder.call(what, Ask(False), Ask(True))).value


def write_tls_files(directory: Path) -> None:
    authority = Authority()
    authority.write_ca(directory / "ca.pem")
    for name in NAMES:
        authority.write_server(directory, name)
    authority.write_certificate(directory, "next", "a.server.dc1.consul")
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
    peers: Peers
    forwarder: Forwarder
    clock: FakeClock


@asynccontextmanager
async def rpc_nodes(
    cluster: FakeCluster,
    tls_directory: Path,
    operations: Mapping[str, Operations | Mapping[str, Work]],
    wait_seconds: float = 5.0,
    seats: PeerSeats | None = None,
) -> AsyncIterator[dict[str, RpcNode]]:
    """One for each name in `operations`. `seats`: of the port, if there is one port only."""
    async with AsyncExitStack() as stack:
        nodes = {}
        for name, table in operations.items():
            offered = table if isinstance(table, Operations) else working(table)
            replica, tls = cluster.replicas[name].real, node_tls(tls_directory, name)
            log, metrics, clock = EventLog(), Metrics(), RunningClock()
            server = RpcServer(replica, offered, tls, log, metrics, seats or roomy_seats("rpc"))
            await server.start(cluster.members[name].rpc_address)
            stack.push_async_callback(server.stop)
            peers = Peers(replica, tls)
            stack.push_async_callback(peers.close)
            forwarder = Forwarder(replica, offered, peers, name, clock, metrics, wait_seconds)
            stack.push_async_callback(forwarder.close)
            nodes[name] = RpcNode(cluster, name, log, metrics, server, peers, forwarder, clock)
        yield nodes


class RunningClock(FakeClock):
    """Each look at the monotonic clock costs 10 ms of it, so that deadlines pass without waiting for them."""

    def monotonic(self) -> float:
        self.advance(0.01)
        return super().monotonic()
