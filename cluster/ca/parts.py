"""What the leader's CA works with: one value instead of a dozen arguments. Made in node/build.py, and only there."""

from dataclasses import dataclass

from cluster.base.clock import Clock
from cluster.base.log import Log
from cluster.base.telemetry import Metrics
from cluster.ca.authority import Authority
from cluster.ca.changes import Changes
from cluster.ca.health import HealthBoard
from cluster.ca.opened import Opener
from cluster.ca.settings import FirstSettings
from cluster.raft.replica import Replica
from cluster.record.reads import LedgerReads
from cluster.seal.node_sealer import NodeSealer
from cluster.signing.pipeline import SigningPipeline
from cluster.signing.pool import WorkerPool
from fsm.duties import DutyPolicy


@dataclass(frozen=True, slots=True)
class Parts:
    """What one node has for the CA, for the classes that need many of these."""

    replica: Replica
    pool: WorkerPool
    sealer: NodeSealer
    opener: Opener
    pipeline: SigningPipeline
    authority: Authority
    changes: Changes
    health: HealthBoard
    ledger: LedgerReads
    datacenter: str
    first: FirstSettings  # what a new CA starts from
    policy: DutyPolicy
    clock: Clock
    log: Log
    metrics: Metrics

    @property
    def unix_now(self) -> int:
        """In whole seconds."""
        return int(self.clock.now())
