"""A simulated cluster: real RaftNodes (PySyncObj's core, guard, journal, snapshots) on simulated disks and network.

Everything that happens is an event of one scheduler and every choice comes from the seed, so a run can be repeated.
Whatever a node does is checked at once (invariants.py).
"""

import functools
import random
import traceback
from collections import deque
from collections.abc import Callable
from typing import Any
from unittest.mock import patch

from cluster.raft import node as node_module
from cluster.raft.codec import Message
from cluster.raft.core import RaftTiming
from cluster.raft.journal import Journal, JournalFailed
from cluster.raft.membership import ChangeKind, Member, Members, MembershipChange
from cluster.raft.node import CompactionPolicy, NodeEnvironment, Outcome, Proposal, RaftNode
from tests.sim.disk import Crash, SimDisk
from tests.sim.invariants import History, Invariants
from tests.sim.machine import ListWorld
from tests.sim.network import START_SECONDS, MemLinks, Network, NetworkProfile, Scheduler
from tests.sim.world import InvariantViolated, SimMachine, World

#: As in replica.py: a node whose election deadline has passed looks again so often.
_CAMPAIGN_TICK_SECONDS = 0.01
_LOOP_SECONDS = 0.0001
_NEVER = float("inf")
#: Days pass in a run of seconds, so that records expire and roots are pruned in it.
_WALL_START = 1_800_000_000
_WALL_SECONDS_PER_SECOND = 2000
#: Small, so that segments roll and logs are compacted all the time.
_SEGMENT_BYTES = 4096
_COMPACTION = CompactionPolicy(trigger_bytes=3000, keep_bytes=600)


def member(node_id: str) -> Member:
    return Member(node_id, f"{node_id}:8300", f"{node_id}:8400")


def members_of(*node_ids: str) -> Members:
    return {node_id: member(node_id) for node_id in node_ids}


class SimNode:
    """One server: what survives its process (disk, store), and the process while it runs."""

    def __init__(self, cluster: "SimCluster", node_id: str, initial_members: Members) -> None:
        self.id = node_id
        self.cluster = cluster
        self.initial_members = initial_members
        self.disk = SimDisk()
        self.store = cluster.world.store(node_id)
        self.rng = random.Random(f"{cluster.seed}/{node_id}")
        drift = cluster.drift
        #: How fast this node's clock runs.
        self._rate = 1.0 + drift * (2 * self.rng.random() - 1) if drift else 1.0
        self._clock_base = START_SECONDS
        self._rate_since = START_SECONDS
        self._wall_offset = self.rng.randint(-60, 60) if drift else 0
        self.life = 0
        self.starts = 0
        self._syncs = 0
        self._paused_until = 0.0
        self._deferred: deque[tuple[Callable[..., object], tuple[Any, ...]]] = deque()
        self.is_up = False
        self.raft: RaftNode
        self.machine: SimMachine
        self._is_pump_scheduled = False
        self._timer_due = _NEVER
        #: Reads that know their log index and wait for it to be applied.
        self.reads: list[tuple[int, Callable[[int], None]]] = []

    def clock(self) -> float:
        """As this node sees time pass."""
        return self._clock_base + (self.cluster.scheduler.now - self._rate_since) * self._rate

    def set_rate(self, rate: float) -> None:
        """From now on this node's clock runs so fast."""
        self._clock_base, self._rate_since, self._rate = self.clock(), self.cluster.scheduler.now, rate
        if self.is_up:
            self._timer_due = _NEVER
            self._set_timer()

    def wall_time(self) -> int:
        """Unix seconds, as this node believes."""
        elapsed = self.cluster.scheduler.now - START_SECONDS
        return _WALL_START + self._wall_offset + int(elapsed * _WALL_SECONDS_PER_SECOND)

    # -- life of the process

    def start(self) -> None:
        """Start the process; a crash point may end it before it serves."""
        assert not self.is_up
        self.life += 1
        self.starts += 1
        self.is_up = True
        self.reads = []
        self._is_pump_scheduled = False
        self._timer_due = _NEVER
        self.run(self._open)
        if self.is_up and self.cluster.on_start is not None:
            self.cluster.on_start(self)

    def _open(self) -> None:
        cluster = self.cluster
        self.machine = self.store.open()
        env = NodeEnvironment(
            disk=self.disk,
            directory="data",
            links=MemLinks(cluster.network, self.id),
            machine=self.machine,
            clock=self.clock,
            rng=self.rng,
            log=self._log,
            wake=self.wake,
            in_background=self._in_background,
            incarnation=self.rng.getrandbits(63),
        )
        with patch.object(node_module, "Journal", functools.partial(Journal, segment_bytes=_SEGMENT_BYTES)):
            self.raft = RaftNode(
                self.id, self.initial_members, env, timing=cluster.timing, compaction=cluster.compaction
            )
        self.wake()

    def kill(self) -> None:
        """As by SIGKILL."""
        self._end(is_noticed=True)
        self.disk.kill()
        self.store.kill()

    def cut_power(self) -> None:
        self._end(is_noticed=False)
        self.disk.cut_power(self.rng)
        self.store.cut_power(self.rng)

    def replace_disk(self) -> None:
        """The process ends, and when it starts again everything is gone."""
        self.kill()
        self.disk.wipe()
        self.store.wipe()

    def _end(self, *, is_noticed: bool) -> None:
        assert self.is_up
        self.is_up = False
        self.life += 1
        self._paused_until = 0.0
        self._deferred.clear()
        self.cluster.network.node_down(self.id, is_noticed=is_noticed)
        self.cluster.log(self.id, "process.ended", is_noticed=is_noticed)

    def pause(self, seconds: float) -> None:
        """As by a stalled disk or SIGSTOP: what should happen meanwhile happens late, in the same order."""
        self._paused_until = self.cluster.scheduler.now + seconds
        self.cluster.scheduler.after(seconds, self._resume)

    def _resume(self) -> None:
        if self.cluster.scheduler.now >= self._paused_until:
            self.resume()

    def resume(self) -> None:
        self._paused_until = 0.0
        while self._deferred and not self._paused_until:
            self._call(*self._deferred.popleft())

    # -- calls into the process

    def run(self, call: Callable[..., object], *arguments: Any) -> None:
        """Call into the process, and check what it did. What must stop a real process stops this one."""
        if self._paused_until:
            self._deferred.append((call, arguments))
        else:
            self._call(call, arguments)

    def _call(self, call: Callable[..., object], arguments: tuple[Any, ...]) -> None:
        assert self.is_up, f"{self.id} is called, but does not run"
        life = self.life
        try:
            call(*arguments)
        except Crash:
            self.cut_power() if self.disk.crash_in_sync or self.rng.random() < 0.5 else self.kill()
            if self.cluster.on_crash is not None:
                self.cluster.on_crash(self)
            return
        except (JournalFailed, OSError):
            if not self.cluster.has_bad_disks:
                raise
            # What a failed sync left on disk is unknown.
            self.cut_power() if self.rng.random() < 0.5 else self.kill()
            return
        except InvariantViolated:
            raise
        except Exception as error:
            trace = "".join(traceback.format_exception(error))
            raise InvariantViolated(f"{self.id} stopped itself: {trace}") from error
        if self.life == life:
            self.cluster.invariants.check(self)
            if self.disk.sync_seconds and self.disk.syncs != self._syncs:
                self.pause(self.disk.sync_seconds)
            self._syncs = self.disk.syncs

    def _later(self, life: int, call: Callable[..., object], arguments: tuple[Any, ...]) -> None:
        if self.life == life:
            self.run(call, *arguments)

    def after(self, seconds: float, call: Callable[..., object], *arguments: Any) -> None:
        """Run `call` in this process, if it still runs then."""
        life = self.life
        self.cluster.scheduler.after(seconds, lambda: self._later(life, call, arguments))

    def wake(self) -> None:
        if not self._is_pump_scheduled:
            self._is_pump_scheduled = True
            self.after(_LOOP_SECONDS, self._pump)

    def _pump(self) -> None:
        self._is_pump_scheduled = False
        self.raft.may_pin = self.cluster.pins
        self.raft.pump()
        applied = self.raft.visible_index
        for read in [read for read in self.reads if read[0] <= applied]:
            self.reads.remove(read)
            read[1](applied)
        self._set_timer()

    def _set_timer(self) -> None:
        """As in replica.py: set again only when the next tick is due sooner than it was."""
        now = self.clock()
        due = max(self.raft.wake_at(), now + _CAMPAIGN_TICK_SECONDS)
        if due < self._timer_due:
            self._timer_due = due
            self.after((due - now) / self._rate + 1e-6, self._timer_fired, due)

    def _timer_fired(self, due: float) -> None:
        if due != self._timer_due:
            return  # replaced
        self._timer_due = _NEVER
        if self.clock() >= self.raft.wake_at():
            self.wake()
        else:
            self._set_timer()

    def _in_background(self, work: Callable[[], object], done: Callable[[object], None]) -> None:
        """Another thread does it: a while later, and what it did is noticed another while later."""

        def run() -> None:
            try:
                result: object = work()
            except Exception as error:
                result = error
            self.after(self.cluster.background_seconds * self.rng.random(), finish, result)

        def finish(result: object) -> None:
            done(result)
            self.wake()

        self.after(self.cluster.background_seconds * self.rng.random(), run)

    def _log(self, event: str, /, **fields: object) -> None:
        self.cluster.log(self.id, event, **fields)

    # -- what the network tells (Endpoint)

    def receive(self, peer: str, message: Message) -> None:
        self.run(self._received, peer, message)

    def _received(self, peer: str, message: Message) -> None:
        self.raft.receive(peer, message)
        self.wake()

    def stranger(self, peer: str) -> None:
        self.run(self._told, "stranger", peer)

    def link_up(self, peer: str) -> None:
        self.run(self._told, "link_up", peer)

    def link_down(self, peer: str) -> None:
        self.run(self._told, "link_down", peer)

    def peer_lost(self, peer: str) -> None:
        self.run(self._told, "peer_lost", peer)

    def _told(self, what: str, peer: str) -> None:
        getattr(self.raft, what)(peer)
        self.wake()

    # -- what clients ask

    def propose(self, proposal: Proposal) -> None:
        self.run(self.raft.propose, proposal)
        self.wake()

    def read(self, done: Callable[[int | None], None]) -> None:
        """A linearizable read: `done` is called when the state may be looked at, with its log index.

        None: ask again.
        """

        def indexed(log_index: int | None) -> None:
            if log_index is None:
                done(None)
            elif log_index <= self.raft.visible_index:
                done(self.raft.visible_index)
            else:
                self.reads.append((log_index, done))

        self.run(self.raft.read_index, indexed)

    @property
    def is_leader(self) -> bool:
        return self.is_up and self.raft.core.is_leader

    @property
    def is_ready_leader(self) -> bool:
        return self.is_up and self.raft.core.is_ready_leader


class SimCluster:
    """Nodes `a`, `b`, ... on one network; `log` keeps what they reported, for the report of a failure."""

    def __init__(
        self,
        seed: object,
        size: int = 3,
        *,
        network: NetworkProfile = NetworkProfile(),  # noqa: B008 - frozen
        timing: RaftTiming = RaftTiming(),  # noqa: B008 - frozen
        compaction: CompactionPolicy = _COMPACTION,
        world: World = ListWorld(),  # noqa: B008 - keeps nothing
        drift: float = 0.0,
        pins: bool = True,
    ) -> None:
        """Without `pins` as a cluster in which servers of the release before take part."""
        self.seed = seed
        self.world = world
        self.drift = drift
        self.pins = pins
        #: Told of every process that has started.
        self.on_start: Callable[[SimNode], None] | None = None
        #: Told of every process that a crash point has ended.
        self.on_crash: Callable[[SimNode], None] | None = None
        self.rng = random.Random(f"{seed}/cluster")
        self.timing = timing
        self.compaction = compaction
        self.background_seconds = 0.02
        self.has_bad_disks = False
        self.scheduler = Scheduler()
        self.network = Network(seed, self.scheduler, network)
        self.history = History()
        self.invariants = Invariants(self.history, world.model())
        self.nodes: dict[str, SimNode] = {}
        self.events: list[str] = []
        voters = members_of(*"abcdefgh"[:size])
        for node_id in voters:
            self.add(node_id, voters)

    def add(self, node_id: str, initial_members: Members) -> SimNode:
        """A server that is not started yet."""
        node = self.nodes[node_id] = SimNode(self, node_id, initial_members)
        self.network.join(node_id, node)
        return node

    def start(self) -> "SimCluster":
        for node in self.nodes.values():
            if not node.is_up:
                node.start()
        return self

    def log(self, node_id: str, event: str, **fields: object) -> None:
        text = " ".join(f"{name}={value}" for name, value in fields.items())
        self.events.append(f"{self.scheduler.now:.4f} {node_id} {event} {text}")

    # -- waiting

    def run(self, seconds: float) -> None:
        self.scheduler.run_until(self.scheduler.now + seconds)

    def wait(self, condition: Callable[[], bool], seconds: float, what: str) -> None:
        """Run until the condition holds. Raises: InvariantViolated when it does not within so many virtual seconds."""
        if not condition() and not self.scheduler.run_until(self.scheduler.now + seconds, condition):
            raise InvariantViolated(f"not within {seconds} s: {what}\n{self.describe()}")

    def wait_for_leader(self, seconds: float = 5.0, among: str | None = None) -> SimNode:
        found: list[SimNode] = []

        def is_found() -> bool:
            leaders = [node for node in self.nodes.values() if node.is_ready_leader and (not among or node.id in among)]
            found[:] = sorted(leaders, key=lambda node: node.raft.core.term)[-1:]
            return bool(found)

        self.wait(is_found, seconds, "a leader")
        return found[0]

    def is_settled(self) -> bool:
        """A leader leads, and every running member has applied the whole log of it."""
        up = [node for node in self.nodes.values() if node.is_up]
        leaders = [node for node in up if node.is_ready_leader]
        if not leaders:
            return False
        leader = max(leaders, key=lambda node: node.raft.core.term).raft
        last = leader.journal.entries[-1].log_index
        return all(
            node.raft.core.applied_index == last and node.raft.core.leader_id == leader.core.leader_id
            for node in up
            if node.id in leader.core.members
        )

    def settle(self, seconds: float = 10.0) -> None:
        """Without further faults the cluster must agree again."""
        self.wait(self.is_settled, seconds, "all nodes have applied all entries")
        members = self.wait_for_leader().raft.core.members
        self.invariants.check_settled([node for node in self.nodes.values() if node.is_up and node.id in members])

    # -- doing

    def propose(self, node: SimNode, command: bytes) -> list[Any]:
        """Propose without waiting; the list gets the position or the Outcome."""
        result: list[Any] = []
        operation = self.history.invoke(command)

        def done(outcome: Any) -> None:
            self.invariants.finish(operation, outcome)
            result.append(outcome)

        # An answer leaves a process behind the step that gave it.
        node.propose(Proposal(command, lambda outcome: node.after(0, done, outcome)))
        return result

    def append(self, node: SimNode, command: bytes, seconds: float = 5.0) -> int:
        """Propose and wait until it is applied; returns its position."""
        result = self.propose(node, command)
        self.wait(lambda: bool(result), seconds, f"an answer to {command!r}")
        assert isinstance(result[0], int), result
        return result[0]

    def read(self, node: SimNode, seconds: float = 5.0) -> int | None:
        """How many commands a linearizable read sees."""
        result: list[int | None] = []
        floor = self.history.floor

        def finish(log_index: int | None) -> None:
            seen = None if log_index is None else self.invariants.finish_read(node, floor, log_index, None)
            result.append(seen)

        node.read(lambda log_index: node.after(0, finish, log_index))
        self.wait(lambda: bool(result), seconds, "an answer to a read")
        return result[0]

    def change_membership(self, leader: SimNode, kind: ChangeKind, subject: Member) -> list[Outcome | None]:
        result: list[Outcome | None] = []
        leader.run(leader.raft.change_membership, MembershipChange(kind, subject), result.append)
        return result

    def describe(self) -> str:
        lines = []
        for node in self.nodes.values():
            if not node.is_up:
                lines.append(f"{node.id}: down")
                continue
            core, entries = node.raft.core, node.raft.journal.entries
            lines.append(
                f"{node.id}: state={core.state} term={core.term} vote={node.raft.journal.vote} leader={core.leader_id}"
                f" log={entries[0].log_index}..{entries[-1].log_index}@{entries[-1].term} commit={core.commit_index}"
                f" applied={core.applied_index} fresh={node.raft.guard.is_fresh}"
                f" members={[f'{m.id}{chr(33) if not m.is_voter else str()}' for m in core.members.values()]}"
            )
        return "\n".join([*lines, *self.events[-40:]])
