"""A cluster in one process: the real state machine and ledger without consensus, and real parts of nodes around it.

Leadership is moved by hand. `on_propose` decides what becomes of each command, so a test can lose a leader before or
after any commit.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from enum import Enum, auto
from pathlib import Path
from typing import Any, cast

import msgpack

from cluster.api.ca import ConfigUpdate
from cluster.base.config import ConnectSection, parse_config
from cluster.base.errors import CommitUnknown, NoLeader, NotLeader, Refused
from cluster.base.signals import Signal
from cluster.base.telemetry import Metrics
from cluster.base.wire import pack_error, unpack_error
from cluster.ca.attempts import Attempt
from cluster.ca.settings import FirstSettings
from cluster.ca.uptake import Peers, Watchers
from cluster.node.build import Ground, build_leaders_side
from cluster.node.seals import SealWatch
from cluster.raft.admission import Admission
from cluster.raft.machine import ReplicatedMachine
from cluster.raft.membership import ChangeKind, Member, Members, MembershipChange, changed, removed_after
from cluster.raft.node import MAX_PROPOSAL_BYTES, NodeStatus
from cluster.raft.replica import Leadership, Replica, packed_command
from cluster.record.reads import LedgerReads
from cluster.rpc.operation import A, Operation, Q
from cluster.seal.cover import Cover
from cluster.seal.node_file import NodeFile
from cluster.seal.sealer import Sealer
from cluster.seal.sources import NEXT_KEY, FileKey, write_key_file
from cluster.signing.pool import WorkerPool
from cluster.signing.worker import Host
from fsm.codec import dump_command, load_command
from fsm.commands import Applied, Command, Rejected
from fsm.duties import DutyPolicy
from fsm.ledger import LedgerSummary
from fsm.state import Area, State
from tests.kit.clock import FakeClock
from tests.kit.keeper import granting, kept
from tests.kit.log import EventLog
from tests.kit.node_config import minimal
from tests.kit.wait import until

POLICY = DutyPolicy(keep_expired_seconds=10**9 * 3)  # no tidying unless a test wants it
_MARK_SECONDS = 0.001


class Fate(Enum):
    """What becomes of a proposed command."""

    COMMITTED = auto()
    LOST_BEFORE = auto()  # the leader falls, and the command with it
    LOST_AFTER = auto()  # committed, but the leader falls before it knows
    UNKNOWN = auto()  # not committed, and nobody says so; the leader stays
    REJECTED = auto()  # committed, and without an effect
    TOO_LARGE = auto()  # not committed, as every other time


class FakeCluster:
    """What all nodes agree on, and who leads."""

    def __init__(self, directory: Path, names: tuple[str, ...] = ("a", "b", "c"), ports: tuple[int, ...] = ()) -> None:
        self.directory = directory
        self.ledger_path = str(directory / "ledger.db")
        self.machine = ReplicatedMachine(self.ledger_path, lambda _state: None)
        self.log_index = 0
        self.proposed: list[Command] = []
        self.committed: list[Command] = []
        self.on_propose: Callable[[Command], Fate] = lambda _command: Fate.COMMITTED
        self.held: set[type] = set()  # commands of these kinds wait for the gate
        self.gate = asyncio.Event()
        ports = ports or tuple(range(1, len(names) + 1))
        self.members: Members = {
            name: Member(name, f"127.0.0.1:{k + 1}", f"127.0.0.1:{port}")
            for k, (name, port) in enumerate(zip(names, ports, strict=True))
        }
        self.removed: frozenset[str] = frozenset()
        self.keys: dict[str, bytes] = {}  # of the servers' certificates, as somebody sees them who dials
        self.anchors: frozenset[bytes] = frozenset()  # CAs that are trusted; none: not looked at
        self.replicas = {name: FakeReplica(self, name) for name in names}
        self.term = 0
        self.leader: str | None = None
        if not (directory / "seal.key").exists():
            write_key_file(directory / "seal.key")

    @property
    def state(self) -> State:
        return self.machine.state

    def elect(self, name: str | None) -> None:
        self.term += 1
        self.leader = name
        for replica in self.replicas.values():
            replica.leadership = Leadership(self.term, name, replica.name == name)
            replica.leadership_changed.fire()

    def elect_next(self) -> None:
        names = sorted(self.replicas)
        self.elect(names[(names.index(self.leader or names[-1]) + 1) % len(names)])

    def commit(self, command: Command) -> Applied | Rejected:
        data = dump_command(command)
        assert load_command(data) == command
        self.log_index += 1
        before = self.state
        [result] = self.machine.apply(self.log_index, [data])
        self.machine.commit(self.log_index)
        if isinstance(result, Applied):
            self.committed.append(command)
        for replica in self.replicas.values():
            for area in Area:
                if self.state.area_index(area) != before.area_index(area):
                    replica.changed[area].fire()
        return result

    def close(self) -> None:
        self.machine.close()


class FakeReplica:
    """One node's view: `cluster.raft.replica.Replica` without Raft."""

    def __init__(self, cluster: FakeCluster, name: str) -> None:
        self.cluster = cluster
        self.name = name
        self.leadership = Leadership()
        self.leadership_changed = Signal()
        self.admission_changed = Signal()
        self.changed = {area: Signal() for area in Area}
        self.leader_contact_seconds = 0.01
        self.outdated_seconds = 0.01
        self.contact_age_seconds: dict[str, float] = {}
        self.membership_refusals = 0
        self.can_hand_over = True
        self.purges = 0
        self.is_founding = False
        self.are_pins_allowed = False
        self._is_acl_known: bool | None = None
        self.acl_known = Signal()
        self.dialled: list[str] = []
        self.refreshed = 0
        self._old_state: State | None = None

    @property
    def real(self) -> Replica:
        """For whoever wants the type of the real thing."""
        return cast(Replica, self)

    @property
    def is_acl_known(self) -> bool:
        """With nobody who finds out: as soon as keys are pinned."""
        return self.admission.is_pinned if self._is_acl_known is None else self._is_acl_known

    @is_acl_known.setter
    def is_acl_known(self, value: bool) -> None:
        self._is_acl_known = value

    @property
    def admission(self) -> Admission:
        cluster = self.cluster
        return Admission(cluster.members, cluster.removed, anchors=cluster.anchors, now=FakeClock().now)

    @property
    def state(self) -> State:
        return self._old_state or self.cluster.state

    def fall_behind(self) -> None:
        """Stay at this state, while the others go on, until a read barrier."""
        self._old_state = self.cluster.state

    @property
    def applied_index(self) -> int:
        return self.cluster.log_index

    @property
    def members(self) -> Members:
        return self.cluster.members

    @property
    def ledger_count(self) -> int:
        return self.cluster.machine.ledger_summary.count

    async def propose(self, command: Command, *, timeout: float) -> Applied | Rejected:
        assert timeout > 0
        if len(packed_command(command)) > MAX_PROPOSAL_BYTES:
            raise Refused("the write is too large")
        await asyncio.sleep(0)
        if not self.leadership.is_ready:
            raise NotLeader("this node does not lead")
        self.cluster.proposed.append(command)
        if type(command) in self.cluster.held:
            await self.cluster.gate.wait()
        fate = self.cluster.on_propose(command)
        if fate is Fate.COMMITTED:
            return self.cluster.commit(command)
        if fate is Fate.REJECTED:
            return Rejected("odd", "not as things stand")
        if fate is Fate.TOO_LARGE:
            raise Refused("the write is too large")
        if fate is Fate.LOST_AFTER:
            self.cluster.commit(command)
        if fate is not Fate.UNKNOWN:
            self.cluster.elect_next()
        raise CommitUnknown("the leader changed while the write was under way; it may have taken effect")

    async def read_barrier(self, *, timeout: float) -> int:
        assert timeout >= 0
        await asyncio.sleep(0)
        if self.cluster.leader is None:
            raise NoLeader("No cluster leader")
        self._old_state = None
        return self.cluster.log_index

    async def wait_for_index(self, index: int, of: Callable[[State], int], area: Area, *, timeout: float) -> State:
        try:
            async with asyncio.timeout(timeout):
                while of(self.state) <= index:
                    await self.changed[area].wait()
        except TimeoutError:
            pass
        return self.state

    async def flush_ledger(self) -> None:
        """Every entry is committed at once."""

    async def purge(self) -> bool:
        self.purges += 1
        return True

    async def digest(self) -> tuple[int, State, LedgerSummary]:
        return self.cluster.log_index, self.state, self.cluster.machine.ledger_summary

    async def status(self) -> NodeStatus:
        leads = self.leadership.is_ready
        return NodeStatus(
            node_id=self.name,
            is_leader=leads,
            is_ready_leader=leads,
            leader_id=self.leadership.leader_id,
            term=self.leadership.term,
            commit_index=self.cluster.log_index,
            applied_index=self.cluster.log_index,
            last_index=self.cluster.log_index,
            members=self.members,
            match_index=dict.fromkeys(self.members, self.cluster.log_index) if leads else {},
            contact_age_seconds={**dict.fromkeys(self.members, 0.01), **self.contact_age_seconds} if leads else {},
        )

    async def hand_over(self, timeout: float, peer: str | None = None) -> bool:
        assert timeout > 0
        others = [name for name in sorted(self.cluster.replicas) if name != self.name]
        if not self.can_hand_over or not others:
            return False
        self.cluster.elect(peer or others[0])
        return True

    async def change_membership(self, kind: ChangeKind, member: Member, *, timeout: float) -> None:
        assert timeout > 0
        if self.membership_refusals:
            self.membership_refusals -= 1
            raise Refused("another change of membership is under way, or the leader would remove itself")
        change = MembershipChange(kind, member)
        self.cluster.members = changed(self.cluster.members, change)
        self.cluster.removed = removed_after(self.cluster.removed, change)

    async def pin(self, member: Member, keys: tuple[bytes, ...], *, timeout: float) -> None:
        assert timeout > 0
        if self.membership_refusals:
            self.membership_refusals -= 1
            raise Refused("another change of membership is under way")
        change = MembershipChange(ChangeKind.PIN, replace(member, keys=keys), keys_before=member.keys)
        self.cluster.members = changed(self.cluster.members, change)

    async def look_up_key(self, member: Member) -> bytes | None:
        return self.cluster.keys.get(member.id)

    async def dial_at_once(self, name: str) -> None:
        self.dialled.append(name)

    async def allow_pins(self) -> None:
        self.are_pins_allowed = True

    def know_acl(self) -> None:
        self._is_acl_known = True
        self.acl_known.fire()

    async def refresh_links(self) -> None:
        self.refreshed += 1


class InProcessWorker:
    """A worker's operations in this process, through the same encoding; `failures` lets an operation fail."""

    load = 0
    is_gone = False
    is_retired = False
    generation = 0

    def __init__(self, cover: Cover) -> None:
        self.lacking: set[str] = set()
        self.awaited: set[str] = set()
        self.without: set[str] = set()
        self.host = Host(cover)
        self.keys: set[str] = set()
        self.calls: list[str] = []
        self.failures: dict[str, BaseException] = {}
        self.failures_behind: dict[str, BaseException] = {}  # once it has been done
        self.gate = asyncio.Event()  # operations in `held` wait for it
        self.held: set[str] = set()

    async def call(self, operation: str, *arguments: Any, is_vital: bool = True) -> Any:
        self.calls.append(operation)
        await asyncio.sleep(0)
        if operation in self.held:
            await self.gate.wait()
        if (failure := self.failures.get(operation)) is not None:
            raise failure
        generation = self.generation
        try:
            result = self.host.operations[operation](*msgpack.unpackb(msgpack.packb(arguments)))
        except Exception as error:
            raise unpack_error(pack_error(error, "in a worker")) from None
        if generation != self.generation:
            raise NotLeader("this node does not lead any more")
        if operation == "configure":
            self.keys.add(arguments[0])
        elif operation == "forget":
            self.keys.discard(arguments[0])
        if (failure := self.failures_behind.get(operation)) is not None:
            raise failure
        return msgpack.unpackb(msgpack.packb(result))

    def retire(self) -> None:
        """Another one is in its place at once, which knows nothing."""
        for key in list(self.host._providers):
            self.host.forget(key)
        self.keys.clear()
        self.generation += 1


def in_process_pool(log: EventLog, cover: Cover) -> tuple[WorkerPool, InProcessWorker]:
    pool, worker = WorkerPool(log, granting()), InProcessWorker(cover)
    pool._workers = [cast(Any, worker)]
    return pool, worker


async def no_flush() -> None:
    """The fake cluster commits every entry at once."""


class NoPeers:
    """Nobody answers."""

    async def ask(self, member: Member, operation: Operation[Q, A], request: Q, seconds: float) -> A:
        raise NoLeader(f"{member.id} does not answer {request} of {operation} in {seconds} s")


@dataclass
class Node:
    """All that one node does, but for its ports."""

    cluster: FakeCluster
    name: str
    clock: FakeClock = field(default_factory=FakeClock)
    connect: ConnectSection = field(default_factory=ConnectSection)
    policy: DutyPolicy = POLICY
    peers: Peers = field(default_factory=NoPeers)
    initial_management_file: Path | None = None
    signing_per_token: float = 0.0
    signing_per_identity: float = 0.0

    def __post_init__(self) -> None:
        self.log = EventLog()
        self.replica = self.cluster.replicas[self.name]
        directory = self.cluster.directory
        inside = Sealer(FileKey(directory / "seal.key"), FileKey(directory / NEXT_KEY))
        self.kept = kept(inside, directory / self.name, self.name)
        self.sealer = self.kept.sealer
        self.pool, self.worker = in_process_pool(self.log, self.kept.cover)
        self.ledger = LedgerReads(self.cluster.ledger_path, no_flush)
        self.metrics = Metrics()
        self.watchers = Watchers()
        ground = Ground(
            node_name=self.name,
            datacenter="dc1",
            replica=self.replica.real,
            pool=self.pool,
            sealer=self.sealer,
            ledger=self.ledger,
            first=FirstSettings(self.connect, self.sealer.cover_values),
            policy=self.policy,
            signing_queue=100,
            allows_by_default=True,
            listens_at=("127.0.0.1:8500",),
            jwks_hosts=(),
            initial_management_file=self.initial_management_file,
            data_dir=self.cluster.directory,
            domain="consul",
            clock=self.clock,
            log=self.log,
            metrics=self.metrics,
            signing_per_token=self.signing_per_token,
            signing_per_identity=self.signing_per_identity,
        )
        node_file = NodeFile(self.cluster.directory / self.name)
        config = parse_config(minimal(node_name=self.name, data_dir=str(self.cluster.directory)), source="t")
        self.seal_watch = SealWatch(self.replica.real, self.sealer, node_file, self.kept.keeper, config, self.log)
        side = build_leaders_side(ground, self.watchers, self.peers, self.seal_watch)
        self.parts = side.parts
        self.directory = side.directory
        self.authority = side.parts.authority
        self.health = side.parts.health
        self.changes = side.parts.changes
        self.leader = side.leader
        self.rotator = side.rotator
        self.reconfigurer = side.reconfigurer
        self.operator_rotation = side.operators
        self.membership = side.membership
        self.operations = side.operations
        self.initial_management = side.initial_management


@asynccontextmanager
async def running(*nodes: Node) -> AsyncIterator[None]:
    """Their leader loops, until the end of the block; an error in one of them fails the test."""
    tasks = [asyncio.ensure_future(node.leader.run()) for node in nodes]
    try:
        yield
        for task in tasks:
            if task.done():
                task.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for node in nodes:
            node.ledger.close()


async def looked_again(node: Node) -> None:
    """This node, which leads, has looked once more for something to do, and what it found is done: its next look has
    begun. For tests in which nothing may happen. Time goes on by no more than marks a look.
    """
    for _ in range(2):
        node.clock.advance(_MARK_SECONDS)
        await until(lambda: node.leader.last_look == node.clock.monotonic())


async def bootstrapped(node: Node) -> None:
    """Elect this node, whose leader loop runs, and wait until it signs."""
    node.cluster.elect(node.name)
    await until(lambda: node.authority.is_ready)


def stored_config(state: State) -> Mapping[str, Any]:
    assert state.config is not None
    config: Mapping[str, Any] = json.loads(state.config.config_json)
    return config


def update(
    config: dict[str, object] | None = None,
    *,
    provider: str = "consul",
    state: dict[str, str] | None = None,
    force: bool = False,
    modify_index: int = 0,
    is_staged: bool = False,
    wait_seconds: int = 0,
) -> ConfigUpdate:
    config = {"LeafCertTTL": "72h"} if config is None else config
    return ConfigUpdate(provider, config, state, force, modify_index, is_staged, wait_seconds)


async def put(
    node: Node,
    wanted: ConfigUpdate,
    *,
    request_id: bytes = b"1",
    ca_index: int | None = None,
    is_repeat: bool = False,
) -> str:
    """The id of the rotation that it began, or ""."""
    attempt = Attempt(request_id, node.cluster.state.ca_index if ca_index is None else ca_index, is_repeat)
    return await node.reconfigurer.apply(wanted, attempt)
