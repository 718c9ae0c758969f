"""The replicated state as the rest of the program sees it: propose, read, wait, and know who leads.

Runs a RaftNode on an event loop of its own in a thread of its own, so that nothing else the process does delays
heartbeats by more than the interpreter's switch interval. Every public method is for the one event loop that called
`start`.
"""

import asyncio
import random
import secrets
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any, Final, NoReturn, TypeVar

import uvloop

from cluster.base.background import describe, report_callbacks
from cluster.base.errors import CommitUnknown, NoLeader, NotLeader, Overloaded, Refused
from cluster.base.log import Log
from cluster.base.seats import PeerSeats
from cluster.base.signals import Signal
from cluster.raft.admission import Admission
from cluster.raft.changes import AreaChanges
from cluster.raft.codec import Message, MessageInvalid
from cluster.raft.core import RaftTiming
from cluster.raft.disk import Disk, RealDisk
from cluster.raft.machine import ReplicatedMachine
from cluster.raft.macs import FileMacs
from cluster.raft.membership import ChangeKind, Member, Members, MembershipChange
from cluster.raft.node import (
    CompactionPolicy,
    NodeEnvironment,
    NodeStatus,
    Outcome,
    Proposal,
    RaftNode,
    is_shortage,
)
from cluster.raft.stall import LoopWatch, stall_limit
from cluster.raft.transport import TlsLinks
from cluster.tls.contexts import NodeTls
from fsm.codec import OutOfBounds, check_command, dump_command
from fsm.commands import Applied, Command, Rejected
from fsm.ledger import LedgerSummary
from fsm.state import Area, State

T = TypeVar("T")

#: While an election deadline has passed and is not won yet, look again so often.
_CAMPAIGN_TICK_SECONDS: Final = 0.01
_BIND_ATTEMPTS: Final = 100
_BIND_PAUSE_SECONDS: Final = 0.05
_HAND_OVER_PAUSE_SECONDS: Final = 0.03
#: Rows that share a commit of the ledger, and how long they wait for company.
_LEDGER_ROWS: Final = 10_000
_LEDGER_SECONDS: Final = 2.0
#: Behind so many bytes the ledger's own log is synced beside the Raft thread: many at once would hold up the journal.
_LEDGER_SYNC_BYTES: Final = 8 << 20


@dataclass(frozen=True, slots=True)
class Leadership:
    """Who leads, as this node knows. `is_ready` says that this node leads and has applied all that was committed."""

    term: int = 0
    leader_id: str | None = None
    is_ready: bool = False


@dataclass(frozen=True, slots=True)
class ReplicaSettings:
    node_id: str
    bind_address: str
    raft_address: str  # what the others dial
    data_dir: str
    initial_members: Members
    timing: RaftTiming = field(default_factory=RaftTiming)
    compaction: CompactionPolicy = field(default_factory=CompactionPolicy)
    macs: FileMacs | None = None  # of this node's files; None: they have checksums only


class Replica:
    """Made by `start`; not used again after `stop`."""

    def __init__(
        self,
        settings: ReplicaSettings,
        tls: NodeTls,
        log: Log,
        on_fatal: Callable[[BaseException], NoReturn],
        disk: Disk | None = None,
    ) -> None:
        self._settings = settings
        self._tls = tls
        self._log = log
        self._on_fatal = on_fatal
        self._disk = disk or RealDisk()
        self._owner_loop = asyncio.get_running_loop()
        self._raft_loop = uvloop.new_event_loop()
        report_callbacks(self._raft_loop, log)
        self._thread = threading.Thread(target=self._run, name="raft", daemon=True)
        self._background = ThreadPoolExecutor(max_workers=2, thread_name_prefix="raft-disk")
        self._machine: ReplicatedMachine
        self._node: RaftNode
        self._links: TlsLinks
        # From the owner's loop to the Raft loop, and back.
        self._inbox: deque[Callable[[], None]] = deque()
        self._is_inbox_scheduled = False
        self._outbox: deque[Callable[[], None]] = deque()
        self._is_outbox_scheduled = False
        # Raft thread only.
        self._is_pump_scheduled = False
        self._is_stopped = False
        self._timer: asyncio.TimerHandle | None = None
        self._timer_due = 0.0
        self._ledger_timer: asyncio.TimerHandle | None = None
        self._is_syncing_ledger = False
        self._barriers: list[tuple[int, asyncio.Future[int | None]]] = []  # confirmed, and not applied yet
        self._owner_watch = LoopWatch(
            stall_limit(settings.timing.election_max), time.monotonic, self._owner_loop.call_soon_threadsafe
        )
        self._stalled_since = 0.0
        # Written by the Raft thread, read by everyone: single references, replaced as a whole.
        self._applied_index = 0
        self.leadership = Leadership()
        self.leadership_changed = Signal()
        #: Whom this node listens to is not what it was.
        self.admission_changed = Signal()
        #: Every server applies what access control puts into the log, and may not be exchanged for one that does not.
        #: What whoever leads has found out (cluster/node/pinning.py).
        self.is_acl_known = False
        self.acl_known = Signal()
        self._judged_by: Admission | None = None  # Raft thread only
        #: Each fires when `State.area_index` of its area has moved, and for nothing else.
        self.changed: Final[Mapping[Area, Signal]] = {area: Signal() for area in Area}
        self._changes = AreaChanges(self._tell_changed, self._raft_loop.call_later)
        self.longest_pump_seconds = 0.0
        self.stalls = 0
        self.longest_stall_seconds = 0.0

    # -- life

    @classmethod
    async def start(
        cls,
        settings: ReplicaSettings,
        tls: NodeTls,
        log: Log,
        on_fatal: Callable[[BaseException], NoReturn],
        disk: Disk | None = None,
        *,
        seats: PeerSeats,
        leads_at_once: bool = True,
    ) -> "Replica":
        """Open the files and the port, which takes connections while it has `seats`. Unless `leads_at_once`, this
        node votes and follows, and does not lead before `watch_owner`: the one that cannot be asked yet may never be.

        Raises: JournalDamaged, SnapshotDamaged, LedgerDamaged, OSError.
        """
        replica = cls(settings, tls, log, on_fatal, disk)
        replica._thread.start()
        await replica._in_raft(replica._open(seats, leads_at_once))
        return replica

    def watch_owner(self) -> None:
        """From now on this node leads while the caller's loop turns, and only then. Called once, when the node has
        started: what is done at the start may hold up the loop for longer.
        """
        self._raft_loop.call_soon_threadsafe(self._begin_to_look)

    async def stop(self) -> None:
        """Leave in order: somebody else leads, nothing is half-written."""
        if self._is_stopped:
            return
        await self._in_raft(self._close())
        self._raft_loop.call_soon_threadsafe(self._raft_loop.stop)
        await asyncio.to_thread(self._thread.join)
        self._background.shutdown(wait=True)

    async def hand_over(self, timeout: float, peer: str | None = None) -> bool:
        """If this node leads, have another voter take over. True once this node no longer leads."""
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            status = await self.status()
            if not status.is_leader:
                return True
            if not any(member.is_voter and member.id != status.node_id for member in status.members.values()):
                return False
            await self._call(lambda: self._node.hand_over(peer))
            await asyncio.sleep(_HAND_OVER_PAUSE_SECONDS)
        return False

    def _run(self) -> None:
        asyncio.set_event_loop(self._raft_loop)
        self._raft_loop.run_forever()
        self._raft_loop.close()

    async def _open(self, seats: PeerSeats, leads_at_once: bool) -> None:
        settings = self._settings
        self._machine = ReplicatedMachine(
            f"{settings.data_dir}/ledger.db", self._changes.note, rows_per_commit=_LEDGER_ROWS
        )
        self._links = TlsLinks(settings.node_id, settings.raft_address, self._tls, self, self._log)
        env = NodeEnvironment(
            disk=self._disk,
            directory=settings.data_dir,
            links=self._links,
            machine=self._machine,
            clock=time.monotonic,
            rng=random.Random(secrets.randbits(64)),  # nosec B311 # noqa: S311 - spreads elections, no secret
            log=self._log,
            wake=self.wake,
            in_background=self._in_background,
            incarnation=secrets.randbits(63),
            macs=settings.macs,
        )
        self._node = RaftNode(
            settings.node_id, settings.initial_members, env, timing=settings.timing, compaction=settings.compaction
        )
        self._node.is_stalled = not leads_at_once
        self._applied_index = self._node.core.applied_index
        if self._node.journal.cut_off_bytes:
            self._log("journal.torn_tail", cut_off_bytes=self._node.journal.cut_off_bytes)
        for attempt in range(_BIND_ATTEMPTS):
            try:
                await self._links.listen(settings.bind_address, seats)
                break
            except OSError:
                # The process before this one may still be ending.
                if attempt == _BIND_ATTEMPTS - 1:
                    raise
                await asyncio.sleep(_BIND_PAUSE_SECONDS)
        self.wake()

    async def _close(self) -> None:
        self._is_stopped = True
        if self._timer is not None:
            self._timer.cancel()
        await self._links.close()
        self._node.close()
        self._machine.flush_ledger()
        self._machine.close()

    # -- the state

    @property
    def state(self) -> State:
        """What this node has applied: consistent, perhaps behind the leader's."""
        return self._machine.state

    @property
    def applied_index(self) -> int:
        """Raft log index up to which `state` goes."""
        return self._applied_index

    @property
    def members(self) -> Members:
        """The servers as this node knows them; replaced as a whole."""
        return self._node.core.members

    @property
    def admission(self) -> Admission:
        """Whom this node listens to; replaced as a whole."""
        return self._node.admission

    @property
    def is_founding(self) -> bool:
        """Whether this node leads a cluster whose log was empty when it was elected."""
        return self._node.is_founding

    @property
    def ledger_count(self) -> int:
        return self._machine.ledger_summary.count

    @property
    def journal_bytes(self) -> int:
        return self._node.journal.retained_bytes

    @property
    def compactions(self) -> int:
        return self._node.compactions

    @property
    def frames_refused(self) -> int:
        """Frames of other servers that no correct one sends."""
        return self._links.frames_refused

    @property
    def leader_contact_seconds(self) -> float:
        """Since this node last heard from its leader; infinite if it never did."""
        return time.monotonic() - self._node.guard.leader_contact

    @property
    def outdated_seconds(self) -> float:
        """For how long the others may have committed what this node knows nothing of: since it last had all of which
        a leader had told it, or led with a majority, or started.
        """
        return time.monotonic() - self._node.current_at

    async def propose(self, command: Command, *, timeout: float) -> Applied | Rejected:
        """Commit a command, on the leader.

        Raises: NotLeader, NoLeader, Overloaded, Refused (definitely not done: too large, or out of bounds, for which
        see fsm/fields.py), CommitUnknown.
        """
        packed = packed_command(command)
        future: asyncio.Future[Any] = self._owner_loop.create_future()
        proposal = Proposal(packed, lambda result: self._to_owner(_resolve, future, result))
        self._to_raft(self._propose, proposal)
        try:
            async with asyncio.timeout(timeout):
                result = await future
        except TimeoutError:
            proposal.is_cancelled = True
            if proposal.is_in_log:
                raise CommitUnknown("no majority confirmed the write in time; it may still take effect") from None
            raise Overloaded("the write waited too long in the queue; it was not made") from None
        checked: Applied | Rejected = _checked(result)
        return checked

    async def read_barrier(self, *, timeout: float) -> int:
        """Wait until `state` holds everything that was committed when this was called; returns its log index.

        Raises: NoLeader when that cannot be confirmed in time.
        """
        try:
            async with asyncio.timeout(timeout):
                while True:
                    future: asyncio.Future[int | None] = self._owner_loop.create_future()
                    self._to_raft(self._read_index, future)
                    log_index = await future
                    if log_index is not None:
                        break
                    await self._leader_known()
                return log_index
        except TimeoutError:
            raise NoLeader("No cluster leader") from None

    def _read_index(self, future: "asyncio.Future[int | None]") -> None:
        def confirmed(log_index: int | None) -> None:
            if log_index is not None and log_index > self._applied_index:
                self._barriers.append((log_index, future))
            else:
                self._to_owner(_resolve, future, log_index)

        self._node.read_index(confirmed)

    async def _leader_known(self) -> None:
        """Wait for a change of leadership, or a moment: a refused read is asked again."""
        try:
            async with asyncio.timeout(_CAMPAIGN_TICK_SECONDS):
                await self.leadership_changed.wait()
        except TimeoutError:
            pass

    async def wait_for_index(self, index: int, of: Callable[[State], int], area: Area, *, timeout: float) -> State:
        """A blocking query: wait until `of(state)` is above `index`, or for the time-out; the state then.

        `of` may look only at what belongs to `area`: a change elsewhere wakes nobody who waits here.
        """
        try:
            async with asyncio.timeout(timeout):
                while of(self.state) <= index:
                    await self.changed[area].wait()
        except TimeoutError:
            pass
        return self.state

    async def status(self) -> NodeStatus:
        return await self._call(lambda: self._node.status())

    async def flush_ledger(self) -> None:
        """Have readers of the ledger see all that is applied."""
        await self._call(self._machine.flush_ledger)

    async def digest(self) -> tuple[int, State, LedgerSummary]:
        """Applied log index, state and ledger, all as of the same moment."""
        return await self._call(lambda: (self._applied_index, self._machine.state, self._machine.ledger_summary))

    # -- membership

    async def change_membership(self, kind: ChangeKind, member: Member, *, timeout: float) -> None:
        """Commit one change, on the leader.

        Raises: NotLeader, NoLeader, Refused (another change is under way), CommitUnknown.
        """
        await self._commit_change(MembershipChange(kind, member), timeout)

    async def _commit_change(self, change: MembershipChange, timeout: float) -> None:
        future: asyncio.Future[Outcome | None] = self._owner_loop.create_future()
        self._to_raft(
            lambda: self._node.change_membership(change, lambda outcome: self._to_owner(_resolve, future, outcome))
        )
        try:
            async with asyncio.timeout(timeout):
                outcome = await future
        except TimeoutError:
            raise CommitUnknown("no majority confirmed the change of membership in time") from None
        if outcome is not None:
            _checked(outcome)

    async def allow_pins(self) -> None:
        """Every server is of a release that understands keys in the log: have the leader pin those that have none."""

        def allow() -> None:
            self._node.may_pin = True
            self.wake()

        await self._call(allow)

    def know_acl(self) -> None:
        """Until this node leads no more."""
        self.is_acl_known = True
        self.acl_known.fire()

    async def dial_at_once(self, name: str) -> None:
        """There is reason to believe that this server is there now."""
        await self._call(lambda: self._links.dial_at_once(name))

    async def refresh_links(self) -> None:
        """Have connections to the others use this node's present certificate, and judge theirs by its present CAs."""
        await self._call(lambda: self._node.anchors_changed())
        await self._in_raft(self._links.refresh())

    async def look_up_key(self, member: Member) -> bytes | None:
        """Which key the certificate of a server has now, whatever is pinned; None if it cannot be reached."""
        if member.id == self._settings.node_id:
            return self._tls.key
        key: bytes | None = await self._in_raft(self._links.look_up_key(member.id, member.raft_address))
        return key

    async def pin(self, member: Member, keys: tuple[bytes, ...], *, timeout: float) -> None:
        """Commit other keys for a server, on the leader. Raises: as `change_membership`."""
        change = MembershipChange(ChangeKind.PIN, replace(member, keys=keys), keys_before=member.keys)
        await self._commit_change(change, timeout)

    async def scrub(self) -> list[str]:
        """Check journal and snapshot on the disk against what was written; returns what is damaged (and is healed)."""
        future: asyncio.Future[list[str]] = self._owner_loop.create_future()
        self._to_raft(lambda: self._node.scrub(lambda damage: self._to_owner(_resolve, future, damage)))
        return await future

    async def ledger_excess(self) -> str:
        """What the ledger says it has applied, if this node's log does not get there; empty if it does."""
        return await self._call(lambda: ledger_excess(self._node.status(), self._machine.ledger_summary))

    async def purge(self) -> bool:
        """Have nothing on this node's disk, in snapshot or log, of before what is applied now; False: not now."""
        future: asyncio.Future[bool] = self._owner_loop.create_future()
        self._to_raft(lambda: self._node.purge(lambda is_done: self._to_owner(_resolve, future, is_done)))
        return await future

    async def compact(self) -> None:
        """Start a compaction now."""
        await self._call(lambda: self._node.compact())

    # -- between the loops

    def _to_raft(self, function: Callable[..., None], *arguments: Any) -> None:
        self._inbox.append(lambda: function(*arguments))
        if not self._is_inbox_scheduled:
            self._is_inbox_scheduled = True
            self._raft_loop.call_soon_threadsafe(self._drain_inbox)

    def _drain_inbox(self) -> None:
        self._is_inbox_scheduled = False
        self._run_all(self._inbox)
        self.wake()

    def _propose(self, proposal: Proposal) -> None:
        self._node.propose(proposal)

    def _to_owner(self, function: Callable[..., None], *arguments: Any) -> None:
        self._outbox.append(lambda: function(*arguments))
        if not self._is_outbox_scheduled:
            self._is_outbox_scheduled = True
            self._owner_loop.call_soon_threadsafe(self._drain_outbox)

    def _drain_outbox(self) -> None:
        self._is_outbox_scheduled = False
        self._run_all(self._outbox)

    def _run_all(self, calls: "deque[Callable[[], None]]") -> None:
        """What one of them raises is that one's own: those behind it must not wait for the next call, or for ever."""
        while calls:
            try:
                calls.popleft()()
            except Exception as error:
                self._log("background.failed", work="raft call", reason=describe(error))

    async def _call(self, function: Callable[[], T]) -> T:
        async def run() -> T:
            return function()

        result: T = await self._in_raft(run())
        return result

    async def _in_raft(self, coroutine: Any) -> Any:
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(coroutine, self._raft_loop))

    def _in_background(self, work: Callable[[], object], done: Callable[[object], None]) -> None:
        def run() -> None:
            try:
                result: object = work()
            except Exception as error:
                self._log("raft.background_failed", reason=repr(error))
                result = error
            self._raft_loop.call_soon_threadsafe(self._background_done, done, result)

        self._background.submit(run)

    def _background_done(self, done: Callable[[object], None], result: object) -> None:
        if self._is_stopped:
            return  # the files are closed, or about to be; the next start finds what it would find after a crash
        try:
            done(result)
        except BaseException as error:
            self._on_fatal(error)
        self.wake()

    # -- on the Raft thread

    def wake(self) -> None:
        if not self._is_pump_scheduled and not self._is_stopped:
            self._is_pump_scheduled = True
            self._raft_loop.call_soon(self._pump)

    def receive(self, peer: str, message: Message) -> None:
        try:
            self._node.receive(peer, message)
        except MessageInvalid:
            raise
        except BaseException as error:
            self._on_fatal(error)

    def link_up(self, peer: str) -> None:
        self._log("raft.link_up", peer=peer)
        self._node.link_up(peer)

    def stranger(self, peer: str) -> None:
        self._node.stranger(peer)
        self.wake()

    def link_down(self, peer: str) -> None:
        self._log("raft.link_down", peer=peer)
        self._node.link_down(peer)

    def peer_lost(self, peer: str) -> None:
        self._node.peer_lost(peer)

    def _pump(self) -> None:
        self._is_pump_scheduled = False
        if self._is_stopped:
            return
        started = time.monotonic()
        try:
            self._node.pump()
        except BaseException as error:
            # A half-executed round must not go on.
            self._on_fatal(error)
        self._note_leadership()
        if self._machine.is_ledger_behind and self._ledger_timer is None:
            self._ledger_timer = self._raft_loop.call_later(_LEDGER_SECONDS, self._ledger_is_due)
        now = time.monotonic()
        self.longest_pump_seconds = max(self.longest_pump_seconds, now - started)
        self._set_timer(now)

    def _set_timer(self, now: float) -> None:
        due = max(self._node.wake_at(), now + _CAMPAIGN_TICK_SECONDS)
        if self._timer is not None:
            if due >= self._timer_due:
                return  # it looks again when it fires
            self._timer.cancel()  # a lost leader, or a won election: the next tick is due sooner than it was
        self._timer_due = due
        self._timer = self._raft_loop.call_later(due - now, self._timer_fired)

    def _timer_fired(self) -> None:
        self._timer = None
        now = time.monotonic()
        if now >= self._node.wake_at():
            self.wake()
        else:
            self._set_timer(now)  # heartbeats have moved the deadline

    def _begin_to_look(self) -> None:
        self._node.is_stalled = False
        self._look_at_owner()

    def _look_at_owner(self) -> None:
        if self._is_stopped:
            return
        watch, was_stalled = self._owner_watch, self._owner_watch.is_stalled
        watch.look()
        self._raft_loop.call_later(watch.interval, self._look_at_owner)
        if watch.is_stalled:
            self.longest_stall_seconds = max(self.longest_stall_seconds, watch.silent_seconds)
        if watch.is_stalled != was_stalled:
            self._owner_has_changed(watch.is_stalled)

    def _owner_has_changed(self, is_stalled: bool) -> None:
        node, silent_seconds, now = self._node, self._owner_watch.silent_seconds, time.monotonic()
        node.is_stalled = is_stalled
        term, gives_way = node.core.term, node.core.is_leader and node.must_not_lead
        # Before anything is logged: the log may be what holds up the other loop, and then it stops this one, too, while
        # the request to take over is not sent yet.
        self._pump()
        if not is_stalled:
            self._log("api.turns_again", seconds=round(now - self._stalled_since, 1))
            return
        self.stalls += 1
        self._stalled_since = now - silent_seconds
        self._log("api.stalled", seconds=round(silent_seconds, 1))
        if gives_way:
            self._log("leader.gives_way", term=term, reason="its API does not answer: nothing would be signed")

    def _ledger_is_due(self) -> None:
        self._ledger_timer = None
        if self._is_stopped:
            return
        try:
            self._machine.flush_ledger()
        except BaseException as error:
            self._on_fatal(error)
        if not self._is_syncing_ledger and self._machine.unsynced_bytes() > _LEDGER_SYNC_BYTES:
            self._is_syncing_ledger = True
            self._in_background(self._machine.sync_ledger, self._ledger_synced)

    def _ledger_synced(self, result: object) -> None:
        self._is_syncing_ledger = False
        if isinstance(result, Exception) and not is_shortage(result):
            raise result  # a disk that fails: the node must stop. What is lacking for the moment is tried again.

    def _note_leadership(self) -> None:
        core = self._node.core
        now = Leadership(core.term, core.leader_id, core.is_ready_leader)
        applied = core.applied_index
        if applied != self._applied_index:
            self._applied_index = applied
            waiting, self._barriers = self._barriers, []
            for log_index, future in waiting:
                if log_index <= applied:
                    self._to_owner(_resolve, future, log_index)
                elif not future.done():
                    self._barriers.append((log_index, future))
        if now != self.leadership:
            self.leadership = now
            self._to_owner(self.leadership_changed.fire)
        if self._node.admission is not self._judged_by:
            self._judged_by = self._node.admission
            self._to_owner(self.admission_changed.fire)

    def _tell_changed(self, area: Area) -> None:
        self._to_owner(self.changed[area].fire)


def packed_command(command: Command) -> bytes:
    """Raises: Refused for what no node should have to apply."""
    try:
        check_command(command)
    except OutOfBounds as error:
        raise Refused(f"the write cannot be made: {error}") from None
    return dump_command(command)


def _resolve(future: "asyncio.Future[Any]", result: Any) -> None:
    if not future.done():
        future.set_result(result)


def _checked(result: Any) -> Any:
    match result:
        case Outcome.NOT_LEADER:
            raise NotLeader("this node does not lead")
        case Outcome.NO_LEADER:
            raise NoLeader("No cluster leader")
        case Outcome.OVERLOADED:
            raise Overloaded("too many writes are waiting")
        case Outcome.REFUSED:
            raise Refused("another change of membership is under way: try again when it is done")
        case Outcome.TOO_LARGE:
            raise Refused("the write is too large")
        case Outcome.UNKNOWN:
            raise CommitUnknown("the leader changed while the write was under way; it may have taken effect")
    return result


def ledger_excess(status: NodeStatus, ledger: LedgerSummary) -> str:
    """Why a ledger is not to be believed: it would pass over the entries that come.

    One that is ahead after a crash (a snapshot was being installed, or a power cut took the end of the log) is not, and
    the leader brings the entries it has within moments: without a leader nothing can be said.
    """
    known = max(status.applied_index, status.last_index, status.commit_index)
    if status.leader_id is None or ledger.applied_log_index <= known:
        return ""
    return f"says it has applied entry {ledger.applied_log_index}, but the log ends at entry {known}"
