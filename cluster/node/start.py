"""From a node's configuration to a node that runs: what is opened and started, in which order, and stopped in reverse.

node/build.py wires the objects; this module gives them files, processes and ports.
"""

import asyncio
import contextlib
import functools
import os
import signal
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import Any, Final, NoReturn

from cluster.backup.restore import Snapshots
from cluster.base.background import keep_running
from cluster.base.clock import Clock, SystemClock
from cluster.base.config import NodeConfig
from cluster.base.descriptors import Shares, raise_limit, shares_of
from cluster.base.log import Log
from cluster.base.telemetry import Metrics
from cluster.ca.authority import Authority
from cluster.ca.leader import Leader
from cluster.ca.roots import expires_soon
from cluster.ca.settings import FirstSettings, mistake_in, unread_keys
from cluster.ca.uptake import Watchers
from cluster.http.app import create_app, start_http
from cluster.http.join import start_join
from cluster.node.build import Ground, build_leaders_side
from cluster.node.pinning import OwnKey, Pinning
from cluster.node.renewal import Renewal
from cluster.node.seals import NodeSeals, SealWatch
from cluster.node.service import node_service
from cluster.node.upkeep import CertificateFiles, DiskSpace, Scrub, keep_scrubbing, look_after
from cluster.raft.core import RaftTiming
from cluster.raft.macs import FileMacs
from cluster.raft.membership import Member
from cluster.raft.node import CompactionPolicy
from cluster.raft.replica import Replica, ReplicaSettings
from cluster.record.reads import LedgerReads
from cluster.rpc.forward import Forwarder
from cluster.rpc.peers import Peers
from cluster.rpc.server import RpcServer
from cluster.seal.keeper import KeeperCalls
from cluster.seal.keeper_client import KeeperLost, KeeperProcess
from cluster.seal.node_file import NodeFile
from cluster.seal.node_sealer import NodeSealer
from cluster.seal.sources import SealError
from cluster.seal.token_files import TokenFileRefused, read_secret_id, read_token
from cluster.signing.pool import WorkerPool
from cluster.tls.contexts import NodeTls, TlsFiles
from fsm.duties import DutyPolicy

_HAND_OVER_SECONDS: Final = 3.0
_DAY_SECONDS: Final = 86_400


class StartError(Exception):
    """The node cannot run; the text says why and what to do."""


async def start_node(
    config: NodeConfig,
    log: Log,
    fatal: Callable[[BaseException], NoReturn],
    stack: contextlib.AsyncExitStack,
    *,
    accepts_files_without_mac: bool = False,
    passphrase: int | None = None,
) -> None:
    """Build and start every part; `stack` stops them, last first. `fatal` ends the process.
    `accepts_files_without_mac`: an operator says that a release before MACs has run on this data since. `passphrase`: a
    descriptor, see `KeeperProcess.start`. What `[connect]` says of a CA is taken out of `config`.

    Raises: StartError, SealError, JournalDamaged, SnapshotDamaged, LedgerDamaged, OSError, ssl.SSLError.
    """
    clock, metrics = SystemClock(), Metrics()
    shares = _shares(config, log)
    agent_token = _agent_token(config)
    node_file = NodeFile(config.data_dir)
    facts = _facts_of(config, node_file)
    _check_connect(config, log, is_new=facts is None)
    keeper = await KeeperProcess.start(
        config.node_name, config, lambda reason: log("keeper.unprotected", reason=reason), passphrase
    )
    stack.push_async_callback(keeper.stop)
    await asyncio.to_thread(keeper.check_node, facts)
    await stack.enter_async_context(_task(keeper.watch(), fatal))
    macs = await asyncio.to_thread(
        _macs, keeper, accepts_without=accepts_files_without_mac, always_requires=config.seal.require_macs
    )
    tls = NodeTls(
        TlsFiles(str(config.tls.ca_file), str(config.tls.cert_file), str(config.tls.key_file)),
        config.datacenter,
        config.tls.domain,
        config.node_name,
    )

    raft_seats = metrics.peer_seats("raft", shares.strangers, shares.raft_members, log)
    replica = await Replica.start(
        _replica_settings(config, macs), tls, log, fatal, seats=raft_seats, leads_at_once=False
    )
    stack.push_async_callback(replica.stop)
    credentials_dir = str(config.connect.credentials_dir or "")
    pool = await WorkerPool.start(_workers(config), log, keeper.grant, config.tls.domain, credentials_dir)
    stack.push_async_callback(pool.stop)
    metrics.workers_lost.set_function(lambda: pool.lost)
    sealer = NodeSealer(keeper)
    first = FirstSettings(config.connect, sealer.cover_values)
    config.connect.ca_config.clear()  # a private key may be in it, and this process lives long
    ledger = LedgerReads(str(config.data_dir / "ledger.db"), replica.flush_ledger)
    stack.callback(ledger.close)
    ground = Ground(
        node_name=config.node_name,
        datacenter=config.datacenter,
        replica=replica,
        pool=pool,
        sealer=sealer,
        ledger=ledger,
        first=first,
        policy=DutyPolicy(keep_expired_seconds=config.ledger.keep_expired_days * _DAY_SECONDS),
        signing_queue=config.limits.signing_queue,
        allows_by_default=config.allows_by_default,
        jwks_hosts=config.acl.jwks_hosts or (),
        initial_management_file=config.acl.initial_management_file,
        listens_at=_listens_at(config),
        data_dir=config.data_dir,
        domain=config.tls.domain,
        clock=clock,
        log=log,
        metrics=metrics,
        signing_per_token=config.limits.signing_per_token,
        signing_per_identity=config.limits.signing_per_identity,
    )
    watchers = Watchers()

    peers = Peers(replica, tls, shares.dialled)
    stack.push_async_callback(peers.close)
    seal_watch = SealWatch(replica, sealer, node_file, keeper, config, log)
    side = build_leaders_side(ground, watchers, peers, seal_watch)
    parts, operations = side.parts, side.operations
    forwarder = Forwarder(
        replica, operations, peers, config.node_name, clock, metrics, config.limits.leader_wait_ms / 1000
    )
    stack.push_async_callback(forwarder.close)
    # A node that cannot open the cluster's seal must not run; nothing else that goes wrong by the way ends it.
    ends_with = (SealError, KeeperLost)
    await stack.enter_async_context(
        _task(keep_running("seal", seal_watch.run, log, metrics, ends_with=ends_with), fatal)
    )
    await stack.enter_async_context(_task(keep_running("leader", side.leader.run, log, metrics), fatal))
    pinning = Pinning(replica, peers, side.membership, config.node_name, clock)
    await stack.enter_async_context(_task(keep_running("pinning", pinning.run, log, metrics), fatal))
    own_key = OwnKey(replica, forwarder, tls, config.node_name, log)
    await stack.enter_async_context(_task(keep_running("own_key", own_key.run, log, metrics), fatal))
    if config.acl.initial_management_file is not None:
        run = side.initial_management.run
        await stack.enter_async_context(_task(keep_running("initial_management", run, log, metrics), fatal))
    if config.tls.renew:
        renewal = Renewal(config, forwarder, own_key.reload, clock, log)
        await stack.enter_async_context(_task(keep_running("renewal", renewal.run, log, metrics), fatal))
    _publish(metrics, replica, parts.authority, side.leader, clock)
    rpc_seats = metrics.peer_seats("rpc", shares.strangers, shares.rpc_members, log)
    rpc = RpcServer(replica, operations, tls, log, metrics, rpc_seats)
    await rpc.start(config.rpc.address)
    stack.push_async_callback(rpc.stop)
    snapshots = Snapshots(
        replica,
        forwarder,
        sealer,
        str(config.data_dir / "ledger.db"),
        config.node_name,
        config.datacenter,
        clock,
        log,
    )
    seals = NodeSeals(replica, forwarder, peers, seal_watch, config.node_name)
    service = node_service(
        config, parts, forwarder, side.membership, watchers, snapshots, seals, side.directory, agent_token
    )
    http = await start_http(create_app(service, log), config.http, shares.http)
    stack.push_async_callback(http.stop)
    if config.join.address is not None:
        join = await start_join(config.join.address, service.joining, tls.open_context, log, metrics)
        stack.push_async_callback(join.stop)
    certificates = [_node_certificate(config, own_key, clock, log, metrics)]
    if config.http.tls_cert is not None and config.http.tls_key is not None:
        files = (config.http.tls_cert, config.http.tls_key)
        certificates.append(
            CertificateFiles("http", files, config.http.tls_cert, http.reload_tls, clock.now, log, metrics)
        )
    await _start_upkeep(config, replica, ledger, certificates, log, metrics, stack, fatal)
    # First of all when stopping: somebody else leads, and what still comes in here is forwarded.
    stack.push_async_callback(replica.hand_over, _HAND_OVER_SECONDS)
    replica.watch_owner()
    if config.acl.default_policy is None and not config.allows_by_default:
        # Also what an upgrade from a release without access control comes to.
        log("acl.denies_by_default", reason="an address is not on loopback; acl.default_policy says otherwise")
    log("node.started", http=config.http.address, rpc=config.rpc.address, raft=config.raft.address)


def _agent_token(config: NodeConfig) -> str:
    """Of `acl.agent_token_file`. A file of the first token that nobody could use later is noted now, too; that it is
    not there may mean that it has served. Raises: StartError.
    """
    try:
        if (initial := config.acl.initial_management_file) is not None:
            with contextlib.suppress(FileNotFoundError):
                read_secret_id("acl.initial_management_file", initial)
        if (own := config.acl.agent_token_file) is None:
            return ""
        return read_token("acl.agent_token_file", own)
    except TokenFileRefused as error:
        raise StartError(str(error)) from None
    except FileNotFoundError:
        raise StartError(f"acl.agent_token_file {config.acl.agent_token_file} is not there") from None


def _shares(config: NodeConfig, log: Log) -> Shares:
    """Raises: StartError."""
    limit, wanted = raise_limit(), config.http.max_connections
    try:
        shares = shares_of(limit, _workers(config), wanted, config.http.max_connections_per_source)
    except ValueError as error:
        raise StartError(str(error)) from None
    if shares.http.total < wanted:
        log("connections.fewer", port="http", configured=wanted, allowed=shares.http.total, open_files=limit)
    return shares


async def _start_upkeep(
    config: NodeConfig,
    replica: Replica,
    ledger: LedgerReads,
    certificates: Sequence[CertificateFiles],
    log: Log,
    metrics: Metrics,
    stack: contextlib.AsyncExitStack,
    fatal: Any,
) -> None:
    hurry = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, hurry.set)
    space = DiskSpace(config.data_dir, config.limits.disk_alarm_mb << 20, log, metrics)
    look = functools.partial(look_after, space, certificates, hurry, log, metrics)
    await stack.enter_async_context(_task(keep_running("upkeep", look, log, metrics), fatal))
    if config.limits.scrub_minutes:
        scrub = Scrub(replica, ledger, log, metrics)
        keep = functools.partial(keep_scrubbing, scrub, 60.0 * config.limits.scrub_minutes)
        await stack.enter_async_context(_task(keep_running("scrub", keep, log, metrics), fatal))


def _node_certificate(
    config: NodeConfig, own_key: OwnKey, clock: SystemClock, log: Log, metrics: Metrics
) -> CertificateFiles:
    files = (config.tls.ca_file, config.tls.cert_file, config.tls.key_file)
    return CertificateFiles(
        "node", files, config.tls.cert_file, own_key.reload, clock.now, log, metrics, renews=config.tls.renew
    )


def _facts_of(config: NodeConfig, node_file: NodeFile) -> Mapping[str, Any] | None:
    """Which seal this data directory was used with; None for a new one. Raises: StartError."""
    try:
        facts = node_file.read()
    except ValueError as error:
        raise StartError(f"{config.data_dir}/node.json is damaged: {error}") from error
    if facts is not None and (owner := (facts.get("node_name"), facts.get("datacenter"))) != (
        config.node_name,
        config.datacenter,
    ):
        raise StartError(
            f"data_dir {config.data_dir} belongs to node {owner[0]} of {owner[1]}, not to {config.node_name} of"
            f" {config.datacenter}"
        )
    return facts.get("seal") if facts is not None else None


def _check_connect(config: NodeConfig, log: Log, *, is_new: bool) -> None:
    """Raises: StartError. `is_new`: there is no data yet. Else there is a CA already, of which the file may say what it
    likes, as before; a leader that has to make one with it says so in its log.
    """
    if mistake := mistake_in(config.connect, looks_at_key=False):
        if is_new:
            raise StartError(mistake)
        log("config.without_effect", reason=mistake)
    if unread := unread_keys(config.connect):
        log("config.unknown_key", keys=", ".join(unread), section="connect.ca_config")


def _macs(keeper: KeeperCalls, *, accepts_without: bool, always_requires: bool) -> FileMacs:
    """Raises: SealError, OSError."""
    found = keeper.open_disk_key(accepts_without=accepts_without, always_requires=always_requires)
    return FileMacs(found.key, is_required=found.is_required, established=keeper.establish_disk_key)


@contextlib.asynccontextmanager
async def _task(work: Any, fatal: Any) -> AsyncIterator[None]:
    """Run in the background; an error that comes out of it stops the node."""
    task = asyncio.ensure_future(work)

    def ended(done: "asyncio.Task[Any]") -> None:
        if not done.cancelled() and (error := done.exception()) is not None:
            fatal(error)

    task.add_done_callback(ended)
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def _replica_settings(config: NodeConfig, macs: FileMacs) -> ReplicaSettings:
    raft = config.raft
    members = {server.name: Member(server.name, server.raft, server.rpc) for server in config.servers}
    return ReplicaSettings(
        node_id=config.node_name,
        bind_address=raft.address,
        raft_address=config.raft_address,
        data_dir=str(config.data_dir),
        initial_members=members,
        timing=RaftTiming(
            election_min=raft.election_timeout_min_ms / 1000,
            election_max=raft.election_timeout_max_ms / 1000,
            heartbeat=raft.heartbeat_ms / 1000,
        ),
        compaction=CompactionPolicy(trigger_bytes=raft.compact_bytes, keep_bytes=raft.keep_bytes),
        macs=macs,
    )


def _listens_at(config: NodeConfig) -> tuple[str, ...]:
    addresses = (config.http.address, config.rpc.address, config.raft.address, config.join.address)
    return tuple(address for address in addresses if address is not None)


def _workers(config: NodeConfig) -> int:
    return config.limits.signing_workers or max(1, (os.cpu_count() or 1) // 2)


def _publish(metrics: Metrics, replica: Replica, authority: Authority, leader: Leader, clock: Clock) -> None:
    """Gauges that are read when somebody looks."""
    metrics.is_leader.set_function(lambda: replica.leadership.is_ready)
    metrics.raft_term.set_function(lambda: replica.leadership.term)
    metrics.raft_applied_index.set_function(lambda: replica.applied_index)
    metrics.raft_pump_seconds_max.set_function(lambda: replica.longest_pump_seconds)
    metrics.api_stalls.set_function(lambda: replica.stalls)
    metrics.api_stall_seconds_max.set_function(lambda: replica.longest_stall_seconds)
    metrics.state_index.set_function(lambda: replica.state.index)
    metrics.ledger_records.set_function(lambda: replica.ledger_count)
    metrics.journal_bytes.set_function(lambda: replica.journal_bytes)
    metrics.compactions.set_function(lambda: replica.compactions)
    metrics.raft_frames_refused.set_function(lambda: replica.frames_refused)
    metrics.ca_ready.set_function(lambda: authority.is_ready)
    metrics.root_not_after_seconds.set_function(
        lambda: root.not_after if (root := replica.state.active_root) is not None else 0
    )
    metrics.root_expires_soon.set_function(
        lambda: (root := replica.state.active_root) is not None and expires_soon(root, clock.now())
    )
    metrics.tick_age_seconds.set_function(
        lambda: clock.monotonic() - leader.last_look if replica.leadership.is_ready else 0
    )
