"""One node as its API sees it: the real thing behind `cluster.api.service.Service`."""

from cluster.access.agent_tokens import AgentTokens, TokenKind
from cluster.access.directory import Directory
from cluster.api.service import Service
from cluster.backup.restore import Snapshots
from cluster.base.config import NodeConfig
from cluster.ca.parts import Parts
from cluster.ca.uptake import Watchers
from cluster.node.access import NodeAccess
from cluster.node.acl import NodeAcl
from cluster.node.backups import NodeBackups
from cluster.node.ca import NodeCA
from cluster.node.facts import NodeFacts
from cluster.node.joining import NodeJoining
from cluster.node.leaves import NodeLeaves
from cluster.node.membership import Membership
from cluster.node.reads import NodeReads
from cluster.node.record import NodeRecord
from cluster.node.seals import NodeSeals
from cluster.node.servers import NodeServers
from cluster.rpc.forward import Forwarder


def node_service(
    config: NodeConfig,
    parts: Parts,
    forwarder: Forwarder,
    membership: Membership,
    watchers: Watchers,
    snapshots: Snapshots,
    seals: NodeSeals,
    directory: Directory,
    agent_token: str = "",
) -> Service:
    """Puts the parts together and owns none of their rules."""
    reads = NodeReads(parts.replica, watchers, config.node_name, config.limits.leader_wait_ms / 1000)
    tokens = AgentTokens(config.node_name)
    tokens.put(TokenKind.AGENT, agent_token)
    access = NodeAccess(
        directory, tokens, reads, lambda: parts.replica.outdated_seconds, config.acl.stale_seconds, parts.log
    )
    return Service(
        config=config,
        metrics=parts.metrics,
        reads=reads,
        ca=NodeCA(reads, forwarder),
        leaves=NodeLeaves(
            reads,
            forwarder,
            parts.pool,
            parts.health,
            config.datacenter,
            parts.clock,
            parts.metrics,
            access,
            parts.log,
            config.limits.signing_per_source,
        ),
        record=NodeRecord(reads, parts.ledger),
        servers=NodeServers(parts.replica, forwarder, membership),
        seals=seals,
        backups=NodeBackups(reads, snapshots, parts.log),
        facts=NodeFacts(parts.replica, parts.authority, parts.health),
        access=access,
        acl=NodeAcl(reads, forwarder, parts.clock),
        joining=NodeJoining(config, parts.replica, reads, forwarder),
    )
