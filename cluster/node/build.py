"""Wires what a node does while it leads: every object of it, and what it is given. Tests build nodes by it, too."""

from dataclasses import dataclass
from pathlib import Path

from cluster.access.directory import Directory
from cluster.access.method_writers import MethodWriter
from cluster.access.methods.fetch import HttpsFetch
from cluster.access.methods.key_sets import KeySets
from cluster.access.methods.prove import Prover
from cluster.access.methods.tls import Trust
from cluster.access.secret_ids import SecretIds
from cluster.backup.restore import SnapshotWork
from cluster.base.clock import Clock
from cluster.base.log import Log
from cluster.base.telemetry import Metrics
from cluster.ca.authority import Authority
from cluster.ca.bootstrap import Bootstrap
from cluster.ca.changes import Changes
from cluster.ca.health import HealthBoard
from cluster.ca.leader import Leader
from cluster.ca.opened import Opener
from cluster.ca.operators import OperatorRotation
from cluster.ca.parts import Parts
from cluster.ca.provider_watch import ProviderWatch
from cluster.ca.reconfigure import Reconfigurer
from cluster.ca.renewal import Renewer
from cluster.ca.rotation import Rotator
from cluster.ca.settings import FirstSettings
from cluster.ca.uptake import Peers, UptakeMeter, Watchers
from cluster.node.acl_work import AclWork
from cluster.node.initial_management import InitialManagement
from cluster.node.leader_work import LeaderWork
from cluster.node.membership import Membership
from cluster.node.node_certs import NodeCerts
from cluster.node.own_ports import OwnListeners
from cluster.node.reseal import Resealer
from cluster.node.seals import SealWatch
from cluster.raft.replica import Replica
from cluster.record.reads import LedgerReads
from cluster.rpc.operations import Operations
from cluster.seal.node_sealer import NodeSealer
from cluster.signing.pipeline import SigningPipeline
from cluster.signing.pool import WorkerPool
from cluster.signing.quotas import quotas_of
from fsm.duties import DutyPolicy
from fsm.state import State


@dataclass(frozen=True, slots=True)
class Ground:
    """What a node stands on: its files, processes and settings, none of which knows of another."""

    node_name: str
    datacenter: str
    replica: Replica
    pool: WorkerPool
    sealer: NodeSealer
    ledger: LedgerReads
    first: FirstSettings
    policy: DutyPolicy
    signing_queue: int
    allows_by_default: bool  # what no rule of access control speaks of
    jwks_hosts: tuple[str, ...]  # which key sets may be fetched from; empty: any
    initial_management_file: Path | None  # the first token, where nobody is to bootstrap
    listens_at: tuple[str, ...]  # host:port, of the API, of the ports for other nodes and for machines that join
    data_dir: Path
    domain: str  # of the names of servers
    clock: Clock
    log: Log
    metrics: Metrics
    #: Certificates in a second; 0: as many as there are.
    signing_per_token: float = 0.0
    signing_per_identity: float = 0.0


@dataclass(frozen=True, slots=True)
class LeadersSide:
    """What a node does while it leads, and offers to the others then."""

    parts: Parts
    leader: Leader
    rotator: Rotator
    reconfigurer: Reconfigurer
    operators: OperatorRotation
    membership: Membership
    operations: Operations
    directory: Directory
    initial_management: InitialManagement


def build_directory(ground: Ground, secret_ids: SecretIds) -> Directory:
    replica = ground.replica
    return Directory(
        lambda: replica.state.acl,
        secret_ids.hashed,
        ground.datacenter,
        ground.clock,
        allows_by_default=ground.allows_by_default,
    )


def build_acl_work(ground: Ground, directory: Directory, secret_ids: SecretIds) -> AclWork:
    own = OwnListeners(ground.replica, ground.listens_at)
    fetch = HttpsFetch(hosts=ground.jwks_hosts, own=own.now)
    keys = KeySets(fetch, ground.clock, hosts=ground.jwks_hosts)
    prover = Prover(fetch, keys, ground.clock, lambda: trust_of(ground.replica.state))
    methods = MethodWriter(prover, ground.sealer)
    return AclWork(
        ground.replica,
        secret_ids,
        methods,
        prover,
        ground.data_dir,
        ground.datacenter,
        ground.clock,
        ground.log,
        ground.initial_management_file,
        ground.metrics.limited.labels("login").inc,
    )


def trust_of(state: State) -> Trust:
    """Every root that is listed, also those to come and those that a rotation has left behind."""
    return Trust(state.trust_domain, tuple(root.root_pem for root in state.roots))


def build_parts(ground: Ground) -> Parts:
    opener, health = Opener(ground.sealer), HealthBoard()
    pipeline = SigningPipeline(
        ground.pool,
        ground.replica,
        lambda request_id: ground.ledger.call(lambda reader: reader.find_request(request_id)),
        ground.clock,
        ground.log,
        ground.metrics,
        ground.signing_queue,
    )
    return Parts(
        replica=ground.replica,
        pool=ground.pool,
        sealer=ground.sealer,
        opener=opener,
        pipeline=pipeline,
        authority=Authority(
            ground.pool,
            opener,
            pipeline,
            health,
            ground.clock,
            ground.datacenter,
            quotas_of(ground.signing_per_token, ground.signing_per_identity, ground.clock.monotonic, ground.metrics),
            lambda spiffe_id: ground.ledger.call(lambda reader: reader.newest(spiffe_id)),
        ),
        changes=Changes(),
        health=health,
        ledger=ground.ledger,
        datacenter=ground.datacenter,
        first=ground.first,
        policy=ground.policy,
        clock=ground.clock,
        log=ground.log,
        metrics=ground.metrics,
    )


def build_leaders_side(ground: Ground, watchers: Watchers, peers: Peers, seal_watch: SealWatch) -> LeadersSide:
    """`peers` are the other servers; `watchers` counts this node's own blocking queries."""
    parts = build_parts(ground)
    secret_ids = SecretIds(lambda: ground.replica.state.acl.key, ground.sealer)
    directory = build_directory(ground, secret_ids)
    acl_work = build_acl_work(ground, directory, secret_ids)
    rotator = Rotator(parts)
    meter = UptakeMeter(parts, peers, watchers, ground.node_name)
    reconfigurer = Reconfigurer(parts, rotator)
    operators = OperatorRotation(parts, rotator, meter)
    membership = Membership(ground.replica, ground.node_name, ground.clock, ground.log)
    resealer = Resealer(parts, peers, ground.node_name)
    node_certs = NodeCerts(
        ground.replica,
        ground.pool,
        ground.sealer,
        membership,
        ground.datacenter,
        ground.domain,
        ground.clock,
        ground.log,
    )
    work = LeaderWork(
        parts,
        reconfigurer,
        operators,
        watchers,
        SnapshotWork(parts),
        membership,
        resealer,
        seal_watch.status,
        directory.judged,
        acl_work,
        node_certs,
    )
    return LeadersSide(
        parts,
        Leader(parts, Bootstrap(parts), rotator, Renewer(parts), ProviderWatch(parts), meter),
        rotator,
        reconfigurer,
        operators,
        membership,
        work.operations(),
        directory,
        InitialManagement(ground.replica, acl_work, ground.log),
    )
