"""What one node offers to whoever speaks for clients (the HTTP API): a Protocol for each resource, and no behaviour.

node/service.py makes the real thing. Everything may be called on any node; what only the leader can do is forwarded,
waits for a leader while none is known, and raises an error of `cluster.base.errors` that says whether it was done.
"""

from dataclasses import dataclass

from cluster.api.access import Access
from cluster.api.acl import AclWrites
from cluster.api.backups import Backups
from cluster.api.ca import CA
from cluster.api.facts import Facts
from cluster.api.joining import Joining
from cluster.api.leaves import Leaves
from cluster.api.reads import Reads
from cluster.api.record import Record
from cluster.api.seals import Seals
from cluster.api.servers import Servers
from cluster.base.config import NodeConfig
from cluster.base.telemetry import Metrics


@dataclass(frozen=True, slots=True)
class Service:
    """One node."""

    config: NodeConfig
    metrics: Metrics
    reads: Reads
    ca: CA
    leaves: Leaves
    record: Record
    servers: Servers
    seals: Seals
    backups: Backups
    facts: Facts
    access: Access
    acl: AclWrites
    joining: Joining
