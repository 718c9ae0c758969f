"""Three whole nodes in one process: real parts and real RPC ports around a cluster without consensus."""

from contextlib import AsyncExitStack
from pathlib import Path

from cluster.api.service import Service
from cluster.backup.restore import Snapshots
from cluster.base.config import ConnectSection, parse_config
from cluster.node.seals import NodeSeals
from cluster.node.service import node_service
from tests.kit.csrs import service_csr
from tests.kit.fake_cluster import FakeCluster, Node, running
from tests.kit.node_config import minimal
from tests.kit.rpc_nodes import NAMES, rpc_nodes
from tests.kit.wait import until


class Cluster:
    """Three whole nodes, and what each offers."""

    def __init__(self, cluster: FakeCluster, nodes: dict[str, Node], services: dict[str, Service]) -> None:
        self.raft = cluster
        self.nodes = nodes
        self.services = services

    async def lead(self, name: str) -> None:
        self.raft.elect(name)
        await until(lambda: self.nodes[name].authority.is_ready)

    def csr(self, service: str = "web") -> str:
        return service_csr(self.raft.state.trust_domain, service)


async def put_together(
    rpc_cluster: FakeCluster,
    tls_directory: Path,
    stack: AsyncExitStack,
    connect: ConnectSection,
    **limits: float,
) -> Cluster:
    """`limits`: as in the node's file."""
    nodes = {
        name: Node(
            rpc_cluster,
            name,
            connect=connect,
            signing_per_token=limits.get("signing_per_token", 0.0),
            signing_per_identity=limits.get("signing_per_identity", 0.0),
        )
        for name in NAMES
    }
    await stack.enter_async_context(running(*nodes.values()))
    tables = {name: node.operations for name, node in nodes.items()}
    rpc = await stack.enter_async_context(rpc_nodes(rpc_cluster, tls_directory, tables, wait_seconds=20))
    services = {}
    for name, node in nodes.items():
        config = parse_config(minimal(node_name=name, limits={"leader_wait_ms": 300, **limits}), source="t")
        forwarder = rpc[name].forwarder
        snapshots = Snapshots(
            node.replica.real, forwarder, node.sealer, rpc_cluster.ledger_path, name, "dc1", node.clock, node.log
        )
        seals = NodeSeals(node.replica.real, forwarder, rpc[name].peers, node.seal_watch, name)
        services[name] = node_service(
            config, node.parts, forwarder, node.membership, node.watchers, snapshots, seals, node.directory
        )
    return Cluster(rpc_cluster, nodes, services)
