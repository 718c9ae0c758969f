"""One Raft node without threads, sockets or a clock of its own: core, guard, journal, snapshots and batching put
together.

Everything happens in calls from outside: `receive` for a message, `pump` for everything else. So the same object runs
on an event loop (replica.py) and in a simulation with virtual time.
"""

import contextlib
import errno
import functools
import itertools
import os
import random
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from enum import Enum, auto
from typing import Any, Final, Protocol

from pysyncobj import FAIL_REASON

from cluster.base.log import Log, Seldom
from cluster.raft import codec
from cluster.raft.admission import Admission, Introductions, Word, is_key_of, still_vouched
from cluster.raft.catchup import BulkData, CatchUp, SnapshotSource
from cluster.raft.codec import EntryUnknown, Message, MessageInvalid
from cluster.raft.core import SEND_WINDOW_BYTES, RaftCore, RaftTiming
from cluster.raft.disk import Disk
from cluster.raft.guard import Guard
from cluster.raft.journal import Entry, Journal, JournalDamaged, JournalFailed, check_part
from cluster.raft.macs import FileMacs
from cluster.raft.membership import (
    ChangeKind,
    Member,
    Members,
    MembershipChange,
    changed,
    removed_after,
    shuts_out,
    still_counted,
)
from cluster.raft.reads import ReadCallback, ReadIndex
from cluster.raft.skips import Skip, load_skips, save_skips
from cluster.raft.snapshot import Snapshot, SnapshotDamaged, SnapshotFile
from cluster.tls.keys import expiry_part

MAX_BATCH_COMMANDS: Final = 512
MAX_BATCH_BYTES: Final = 256 << 10
#: With a batch that is all but full it still fits into an entry, which peers refuse above codec.MAX_COMMAND_BYTES.
MAX_PROPOSAL_BYTES: Final = 512 << 10
ENTRIES_IN_FLIGHT: Final = 8
MAX_QUEUED_COMMANDS: Final = 8192

#: A learner becomes a voter when it lags by no more entries and has answered within this time.
_LEARNER_MAX_LAG: Final = 64
_LEARNER_CONTACT_SECONDS: Final = 1.0

#: How often the leader looks whether certificates were renewed.
_LOOK_AT_KEYS_SECONDS: Final = 1.0
#: Servers that this node does not know, and others vouch for, at a time.
_MAX_VOUCHED: Final = 16

_SHORTAGES: Final = frozenset((errno.ENOSPC, errno.EDQUOT, errno.EMFILE, errno.ENFILE, errno.ENOMEM))
#: After a compaction that lacked something.
_COMPACTION_PAUSE_SECONDS: Final = 5.0

#: Leave before this node's own sync: what they carry is counted only once the follower has synced it.
_BEFORE_SYNC: Final = frozenset(("append_entries", "offer_snapshot"))


class Machine(BulkData, Protocol):
    """The replicated state machine as Raft sees it. No method but `check` may raise for what a command says."""

    def check(self, command: bytes) -> None:
        """Before another node's command goes into the log: will `apply` know it?

        Raises: EntryUnknown when only a newer release can; MessageInvalid when none can.
        """
        ...

    def apply(self, log_index: int, commands: list[bytes]) -> list[Any]:
        """Apply one entry's commands; their results, in order."""
        ...

    def commit(self, log_index: int) -> None:
        """Everything up to `log_index` is applied: make it visible to readers."""
        ...

    def capture(self) -> Callable[[], bytes]:
        """The state as of now; the function, for any thread, first makes what it relies on durable, then encodes it."""
        ...

    def load(self, state: bytes) -> None:
        """At start: take over the state of this node's own snapshot. Raises when the bulk data does not reach it."""
        ...

    def install(self, log_index: int, state: bytes) -> None:
        """While running: take over a received state as of `log_index`, whose bulk data has arrived; durable on return.

        Raises: ValueError for what is no state, before anything is changed.
        """
        ...


class Links(Protocol):
    """Connections to the other nodes; never blocks."""

    def send(self, peer: str, messages: list[Message]) -> None: ...
    def pending_bytes(self, peer: str) -> int: ...
    def set_members(self, members: Members) -> None: ...
    def set_admission(self, admission: Admission) -> None:
        """From now on. Connections of whoever is refused now end."""
        ...

    def key_of(self, peer: str) -> bytes | None:
        """The key of a server that is connected at the address that the configuration has of it, or this node's own."""
        ...

    def anchors(self) -> frozenset[bytes]:
        """Of the CAs that this node trusts."""
        ...


class Outcome(Enum):
    """What became of a proposal that has no result."""

    NOT_LEADER = auto()  # definitely not done
    NO_LEADER = auto()  # definitely not done
    OVERLOADED = auto()  # definitely not done
    REFUSED = auto()  # definitely not done: not possible now
    TOO_LARGE = auto()  # definitely not done: no entry can hold it
    UNKNOWN = auto()  # may or may not be done


_DEFINITE: Final[Mapping[int, Outcome]] = {
    FAIL_REASON.QUEUE_FULL: Outcome.OVERLOADED,
    FAIL_REASON.MISSING_LEADER: Outcome.NO_LEADER,
    FAIL_REASON.NOT_LEADER: Outcome.NOT_LEADER,
    FAIL_REASON.REQUEST_DENIED: Outcome.REFUSED,
    # Another leader's entry was committed in its place.
    FAIL_REASON.DISCARDED: Outcome.NOT_LEADER,
}


class Proposal:
    """A command on its way. `done` is called once, with a result of the state machine or an Outcome."""

    __slots__ = ("command", "done", "is_cancelled", "is_in_log")

    def __init__(self, command: bytes, done: Callable[[Any], None]) -> None:
        self.command = command
        self.done = done
        self.is_in_log = False  # from here on a time-out means an unknown outcome
        self.is_cancelled = False


@dataclass(frozen=True, slots=True)
class NodeStatus:
    """A node's view of the cluster at one moment."""

    node_id: str
    is_leader: bool
    is_ready_leader: bool
    leader_id: str | None
    term: int
    commit_index: int
    applied_index: int
    last_index: int
    members: Members
    match_index: Mapping[str, int]  # leader only
    contact_age_seconds: Mapping[str, float]  # leader only


@dataclass(frozen=True, slots=True, kw_only=True)
class CompactionPolicy:
    """When the journal is compacted, and how many bytes of commands stay for nodes that lag a little.

    By entries too: each may leave 20 KB or more in the ledger's write-ahead log, which starts again after a snapshot.
    """

    trigger_bytes: int = 4 << 20
    trigger_entries: int = 4096
    keep_bytes: int = 2 << 20


@dataclass(frozen=True, slots=True)
class NodeEnvironment:
    """Everything a node takes from outside."""

    disk: Disk
    directory: str
    links: Links
    machine: Machine
    clock: Callable[[], float]
    rng: random.Random
    log: Log
    wake: Callable[[], None]  # ask for a `pump` soon
    in_background: Callable[[Callable[[], object], Callable[[object], None]], None]
    incarnation: int  # random, different at every start: whose results an entry brings
    macs: FileMacs | None = None  # of journal, snapshot and marks


class RaftNode:
    """Opens the node's files; `initial_members` matter only while there is no snapshot.

    Raises: JournalDamaged, SnapshotDamaged, OSError.
    """

    def __init__(
        self,
        node_id: str,
        initial_members: Members,
        env: NodeEnvironment,
        *,
        timing: RaftTiming,
        compaction: CompactionPolicy,
    ) -> None:
        self._id = node_id
        self._env = env
        self._compaction = compaction
        self._outbox: dict[str, list[Message]] = {}
        self._queue: deque[Proposal] = deque()
        self._in_flight: dict[int, list[Proposal]] = {}
        self._sequence = itertools.count(1)
        self._results: list[tuple[Proposal, Any]] = []
        self._visible_index = 0
        #: The last moment as of which this node has applied all that was committed; read by other threads, too. Before
        #: there was any: its start.
        self.current_at = env.clock()
        self._is_compacting = False
        self._no_compaction_before = 0.0
        self._is_promoting = False
        self._is_pinning = False
        self._has_unpinned = False
        self._next_look_at_keys = 0.0
        self._is_admission_due = True
        self._snapshot_wanted_at = 0
        #: Every server is of a release that knows keys in the log (Replica.allow_pins). Once one is pinned, all are.
        self.may_pin = False
        #: Of the leader that found an empty log: no earlier release has ever run here.
        self.is_founding = False
        #: Whom this node listens to; read by other threads, too.
        self.admission = Admission({})
        #: Whoever uses this node cannot be reached (stall.py): it does not lead as long as another voter may.
        self.is_stalled = False
        self._give_way_seconds = timing.election_min / 2
        self._gives_way_until: float | None = None
        self._is_successor_asked = False
        self.compactions = 0
        self._log_seldom = Seldom(env.log, env.clock)
        env.disk.make_directory(env.directory)
        # Whoever made the directory may not have made its name durable, and everything goes with it. Where the parent
        # may not be read it was not made by this user, and is no concern of this node.
        with contextlib.suppress(PermissionError):
            env.disk.sync_directory(os.path.dirname(env.directory))
        self._snapshot_file = SnapshotFile(env.disk, f"{env.directory}/snapshot", env.macs)
        snapshot = self._snapshot_file.load()
        # With a new log it would have forgotten what it voted for and acknowledged since, and not count as fresh (G7).
        self.journal = Journal(env.disk, f"{env.directory}/wal", macs=env.macs, was_there=snapshot is not None)
        self._skipped = load_skips(env.disk, env.directory, env.macs)
        self._is_marked_fresh = is_fresh = self._note_fresh(snapshot)
        self._leader_seen: tuple[int, str | None, bool] | None = None
        members, removed = self._align(snapshot, initial_members)
        self._source = SnapshotSource(self._send, env.machine, env.in_background)
        self.core = RaftCore(node_id, members, self.journal, self, timing, env.clock, env.rng, removed)
        self._introductions = Introductions(self.core, self._send, env.clock, self._vouched, env.log)
        self.guard = Guard(
            self.core,
            self.journal,
            self._send,
            timing,
            env.clock,
            env.rng,
            env.log,
            is_fresh=is_fresh,
            check_entry=self._check_entry,
        )
        self.reads = ReadIndex(self.core, self._send, env.clock, env.wake)
        self._catch_up = CatchUp(
            self._send, env.machine, lambda: self.core.applied_index, self._install, env.clock, env.log
        )
        if snapshot is not None:
            env.machine.load(snapshot.state)
            self.core.start_from(snapshot.log_index)
            self._source.use(snapshot)
        self._visible_index = self.core.applied_index
        self._judge_anew()
        self.journal.sync()
        if env.macs is not None and not env.macs.is_required:
            self._add_macs(env.macs, snapshot)

    # -- starting

    @property
    def _fresh_path(self) -> str:
        return f"{self._env.directory}/wal/fresh"

    def _add_macs(self, macs: FileMacs, snapshot: Snapshot | None) -> None:
        """Of a release before MACs: taken once, and written anew before anything else is done. Should that be cut
        short, the next start does it again: nothing is required before all is there.
        """
        if self.journal.lacks_macs:
            self.journal.rewrite()
        if snapshot is not None and self._snapshot_file.lacks_mac:
            self._snapshot_file.save(snapshot)
        if self._skipped:
            save_skips(self._env.disk, self._env.directory, self._skipped, macs)
        macs.established()
        self._env.log("files.authenticated", log_index=snapshot.log_index if snapshot else 0)

    def _note_fresh(self, snapshot: Snapshot | None) -> bool:
        """Whether this disk has never held what a leader had committed (G7); remembered across restarts."""
        disk = self._env.disk
        if snapshot is None and not self.journal.entries and not disk.exists(self._fresh_path):
            disk.create(self._fresh_path).close()
            disk.sync_directory(f"{self._env.directory}/wal")
        return disk.exists(self._fresh_path)

    def _align(self, snapshot: Snapshot | None, initial: Members) -> tuple[Members, frozenset[str]]:
        """Make the journal follow the snapshot; returns the members as of the end of the log (Raft 6), and the names
        of those that were removed.
        """
        entries = self.journal.entries
        members, removed = dict(initial), frozenset[str]()
        start = 1
        if snapshot is not None:
            members, removed = {member.id: member for member in snapshot.members}, snapshot.removed
            start = snapshot.log_index
            base = Entry(codec.NO_OP_COMMAND, snapshot.log_index, snapshot.term)
            if not entries:
                self.journal.reset(base)
            elif entries[0].log_index > start:
                raise JournalDamaged(f"journal starts at entry {entries[0].log_index}, behind the snapshot at {start}")
            elif entries[-1].log_index < start or entries[start - entries[0].log_index].term != snapshot.term:
                # Stopped between saving a received snapshot and dropping the log that it replaces.
                self.journal.reset(base)
        elif entries and entries[0].log_index > 1:
            raise JournalDamaged(f"journal starts at entry {entries[0].log_index} and there is no snapshot")
        for entry in self.journal.entries:
            change = codec.unpack_change(entry.command)
            if change is not None and entry.log_index > start:
                members, removed = changed(members, change), removed_after(removed, change)
        return members, removed

    # -- what the core asks (CoreOwner)

    def send(self, peer: str, message: Message) -> bool:
        if message["type"] == "apply_command":
            raise AssertionError("commands are never forwarded through Raft")
        self._send(peer, message)
        return True

    def _send(self, peer: str, message: Message) -> bool:
        self._outbox.setdefault(peer, []).append(self.guard.outgoing(peer, message))
        return True

    def pending_bytes(self, peer: str) -> int:
        queued = sum(map(_payload_bytes, self._outbox.get(peer, ())))
        return queued + self._env.links.pending_bytes(peer)

    def may_campaign(self) -> bool:
        if self.must_not_lead:
            self.core.abstain()
            return False
        return self.guard.may_campaign()

    def snapshot_index(self) -> int | None:
        return self._source.log_index

    def members_changed(self, members: Members, _removed: frozenset[str]) -> None:
        self._env.links.set_members(members)
        self._is_admission_due = True

    def _judge_anew(self) -> None:
        """Whom this node listens to, after a change of the configuration or the commit of one."""
        if not self._is_admission_due:
            return
        core = self.core
        members, removed, is_open = dict(core.members), core.removed, False
        for entry in reversed(self.journal.entries):
            if entry.log_index <= core.commit_index:
                break
            change = codec.unpack_change(entry.command)
            if change is not None:
                is_open = True
                members, removed = still_counted(members, removed, change)
        # What is not committed may be taken back, by nobody else than the server that it would shut out. So it shuts
        # out nobody yet, and once it is committed this looks again.
        self._is_admission_due = is_open
        vouched = {
            name: word
            for name, word in self.admission.vouched.items()
            if name not in removed and not self._is_answered(name, members)
        }
        self._admit(Admission(members, removed, still_vouched(vouched, members), self._env.links.anchors()))
        self._has_unpinned = not all(self.admission.is_known_by_key(member) for member in core.members.values())

    def _is_answered(self, name: str, members: Members) -> bool:
        """Whether the log has said since whose key that is: nobody's word counts beside it."""
        member = members.get(name)
        return member is not None and bool(member.keys) and member != self.admission.members.get(name)

    def _admit(self, admission: Admission) -> None:
        if admission != self.admission:
            self.admission = admission
            self._env.links.set_admission(admission)

    def _vouched(self, name: str, keys: tuple[bytes, ...], by: str) -> None:
        known = self.admission.vouched
        # A server that is heard because of another one's word may have given its own under that key.
        by_keys = known[by].keys if by in known else self.core.members[by].keys
        vouched = {**known, name: Word(keys, by, by_keys)}
        self._admit(replace(self.admission, vouched=dict([*vouched.items()][-_MAX_VOUCHED:])))

    def _check_entry(self, entry: Entry) -> None:
        """Of another node, before it gets into the log. Raises: MessageInvalid, EntryUnknown."""
        try:
            codec.check_entry(entry.command, self._env.machine.check)
        except MessageInvalid:
            # One that an operator has had passed over may be in the logs of the others, and then belongs into this one.
            if entry.command[0] != codec.REGULAR or Skip.of(entry) not in self._skipped:
                raise

    def apply(self, entry: Entry) -> None:
        if entry.command[0] != codec.REGULAR:
            change = codec.unpack_change(entry.command)
            # Whom it shuts out must stay out behind a restart, which trusts nothing of the log before a leader has said
            # what is committed; a snapshot is.
            if change is not None and shuts_out(change):
                self._snapshot_wanted_at = entry.log_index
            return
        if self._skipped and Skip.of(entry) in self._skipped:
            self._env.log("entry.skipped", log_index=entry.log_index, term=entry.term)
            return
        try:
            origin, sequence, commands = codec.unpack_batch(entry.command)
            results = self._env.machine.apply(entry.log_index, commands)
        except MessageInvalid as error:
            if isinstance(error, EntryUnknown):
                self._say_failed(entry)
                raise
            # No release has written it or would apply it, so all nodes agree about it.
            self._env.log("entry.refused", log_index=entry.log_index, reason=str(error))
            return
        except Exception:
            self._say_failed(entry)
            raise
        if origin == self._env.incarnation:
            self._take_results(self._in_flight.pop(sequence, []), commands, results)

    def _take_results(self, waiting: list[Proposal], commands: list[bytes], results: list[Any]) -> None:
        if waiting and [proposal.command for proposal in waiting] != commands:
            # Another leader's entry under this node's number, which the others have seen: ours may be there or not.
            results = [Outcome.UNKNOWN] * len(waiting)
        if waiting:
            self._results.extend(zip(waiting, results, strict=True))

    def _say_failed(self, entry: Entry) -> None:
        """This ends the node: which entry it was, an operator may need to know (docs/recovery.md)."""
        self._env.log("entry.failed", log_index=entry.log_index, term=entry.term)

    # -- driving

    def receive(self, peer: str, message: Message) -> None:
        """A message that `codec.unpack_message` accepted, from the server whose certificate names `peer`.

        Raises: MessageInvalid (drop the connection); anything else, for what this node or its disk has done wrong, must
        stop the process.
        """
        match message["type"]:
            case "who_is" | "is_server":
                if peer in self.core.members:
                    self._introductions.incoming(peer, message)
            case "confirm_leader" | "leader_confirmed" | "read_index" | "read_index_reply":
                if peer in self.core.members:
                    self.reads.incoming(peer, message)
            case "pull_snapshot" | "pull_bulk":
                # A part is a thousand times as large as the question, which is repeated when it stays unanswered.
                if peer in self.core.members and self.pending_bytes(peer) <= SEND_WINDOW_BYTES:
                    self._source.incoming(peer, message)
            case "snapshot_part" | "bulk_part":
                if peer == self.core.leader_id:
                    self._catch_up.incoming(peer, message)
            case kind:
                offer = message["log_index"] if kind == "offer_snapshot" else None
                repaired = self.guard.incoming(peer, message)
                if repaired is not None:
                    self.core.receive(peer, repaired)
                    self.guard.after_core(peer)
                    if kind == "offer_snapshot" and self.core.leader_id == peer:
                        self._catch_up.offered(peer, offer)
        self._judge_anew()

    def anchors_changed(self) -> None:
        """This node trusts other CAs now."""
        self._is_admission_due = True
        self._judge_anew()

    def stranger(self, peer: str) -> None:
        """Somebody sent something who is no server as far as this node knows; its key is good for that name."""
        self._introductions.ask_about(peer)

    def link_up(self, peer: str) -> None:
        """This node can send to `peer` from now on."""
        self.core.connected(peer)

    def link_down(self, peer: str) -> None:
        self.core.disconnected(peer)
        self._outbox.pop(peer, None)

    def peer_lost(self, peer: str) -> None:
        """The connection on which `peer` sends was closed."""
        self.guard.link_lost(peer)

    def pump(self) -> None:
        """One round: propose, elect, commit, apply, compact, and send what came of it.

        Raises: anything that must stop the process (a half-done round is never continued).
        """
        self._drain()
        self.core.tick()
        if self._queue and self._drain():
            self.core.take_commands()
        self._notice_leader()
        self._publish()
        self._note_current()
        self._judge_anew()
        self._promote_learner()
        self._pin_member()
        self.reads.pump()
        self._compact_if_due()
        self._give_way_if_stalled()
        self.flush()

    def _note_current(self) -> None:
        """A leader that has lost its majority has stepped down in this very round (`RaftTiming.quorum_loss`)."""
        told = self.guard.told
        if self.core.is_ready_leader:
            self.current_at = self._env.clock()
        elif told is not None and self._visible_index >= told[1]:
            self.current_at, self.guard.told = told[0], None

    def wake_at(self) -> float:
        """Clock time of the next pump that is due in any case."""
        return self.core.wake_at()

    @property
    def visible_index(self) -> int:
        """Log index of the state that readers see."""
        return self._visible_index

    def flush(self) -> None:
        """Send what is queued, what depends on this node's disk only after one sync."""
        if not self._outbox and not self.journal.is_dirty:
            return
        outbox, self._outbox = self._outbox, {}
        late = {}
        for peer, messages in outbox.items():
            if all(message["type"] in _BEFORE_SYNC for message in messages):
                self._env.links.send(peer, messages)
            else:
                late[peer] = messages
        if self.journal.is_dirty:
            self.journal.sync()
            if not self.core.other_voters:
                self._env.wake()  # nobody's answer will: a single node commits at its next tick
        for peer, messages in late.items():
            self._env.links.send(peer, messages)

    # -- proposals

    def propose(self, proposal: Proposal) -> None:
        if len(self._queue) >= MAX_QUEUED_COMMANDS:
            proposal.done(Outcome.OVERLOADED)
            return
        if len(proposal.command) > MAX_PROPOSAL_BYTES:
            proposal.done(Outcome.TOO_LARGE)
            return
        self._queue.append(proposal)

    def _drain(self) -> bool:
        """Make entries of what is queued: everything waiting goes into few entries, few of them in flight."""
        added = False
        while self._queue and self.core.is_leader and len(self._in_flight) < ENTRIES_IN_FLIGHT:
            batch: list[Proposal] = []
            size = 0
            while self._queue and len(batch) < MAX_BATCH_COMMANDS and size < MAX_BATCH_BYTES:
                proposal = self._queue.popleft()
                # Marked first: who cancels does it before looking at the mark, so one of the two threads sees the
                # other.
                proposal.is_in_log = True
                if not proposal.is_cancelled:
                    batch.append(proposal)
                    size += len(proposal.command)
            if not batch:
                break
            sequence = next(self._sequence)
            self._in_flight[sequence] = batch
            command = codec.pack_batch(self._env.incarnation, sequence, [proposal.command for proposal in batch])
            self.core.enqueue(command, functools.partial(self._failed, sequence))
            added = True
        return added

    def _failed(self, sequence: int, reason: int) -> None:
        outcome = _DEFINITE.get(reason, Outcome.UNKNOWN)
        self._results.extend((proposal, outcome) for proposal in self._in_flight.pop(sequence, ()))

    def _notice_leader(self) -> None:
        core = self.core
        seen = (core.term, core.leader_id, core.is_leader)
        if seen != self._leader_seen:
            self._leader_seen = seen
            self.reads.fail_all()
            self.is_founding = core.is_leader and self._is_log_empty()
        if self._queue and not core.is_leader:
            outcome = Outcome.NO_LEADER if core.leader_id is None else Outcome.NOT_LEADER
            self._results.extend((proposal, outcome) for proposal in self._queue)
            self._queue.clear()

    def _is_log_empty(self) -> bool:
        """Whether no command was ever proposed here."""
        entries = self.journal.entries
        return entries[0].log_index == 1 and all(entry.command[0] != codec.REGULAR for entry in entries)

    def _publish(self) -> None:
        """Make applied entries visible, then tell those who wait."""
        applied = self.core.applied_index
        if applied != self._visible_index:
            self._visible_index = applied
            self._env.machine.commit(applied)
        results, self._results = self._results, []
        for proposal, result in results:
            proposal.done(result)
        if self.guard.is_fresh and self.core.is_ready_leader:
            self.guard.is_fresh = False
        if self._is_marked_fresh and not self.guard.is_fresh:
            self._is_marked_fresh = False
            self.journal.sync()  # never unmarked without the entries that brought this node up to date
            self._env.disk.unlink(self._fresh_path)
            self._env.disk.sync_directory(os.path.dirname(self._fresh_path))

    # -- reading

    def read_index(self, done: ReadCallback) -> None:
        self.reads.request(done)

    def status(self) -> NodeStatus:
        core = self.core
        peers = [member for member in core.members if member != self._id] if core.is_leader else []
        now = self._env.clock()
        contacts = {peer: core.last_contact(peer) for peer in peers}
        return NodeStatus(
            node_id=self._id,
            is_leader=core.is_leader,
            is_ready_leader=core.is_ready_leader,
            leader_id=core.leader_id,
            term=core.term,
            commit_index=core.commit_index,
            applied_index=self._visible_index,
            last_index=self.journal.entries[-1].log_index,
            members=core.members,
            match_index={peer: core.match_index(peer) for peer in peers},
            contact_age_seconds={peer: now - time for peer, time in contacts.items() if time is not None},
        )

    # -- membership and leadership

    def change_membership(self, change: MembershipChange, done: Callable[[Outcome | None], None]) -> None:
        """Leader only, one change at a time. `done` gets None once it is committed."""
        if not self.core.is_leader:
            done(Outcome.NOT_LEADER)
            return
        if change.kind is ChangeKind.LEARN:
            change = replace(change, was_removed=change.member.id in self.core.removed)

        def finished(reason: int) -> None:
            done(None if reason == FAIL_REASON.SUCCESS else _DEFINITE.get(reason, Outcome.UNKNOWN))

        self.core.propose_change(change, finished)
        self._env.wake()

    def _promote_learner(self) -> None:
        """Make a learner that has caught up a voter. Found again by every leader until it is done."""
        core = self.core
        if not core.has_learners or not core.is_ready_leader or self.must_not_lead:
            return
        for member in core.members.values():
            contact, match = core.last_contact(member.id), core.match_index(member.id)
            if (
                not member.is_voter
                and (member.keys or not self.admission.is_pinned)
                and contact is not None
                and self._env.clock() - contact < _LEARNER_CONTACT_SECONDS
                and match > 0  # it has answered: a contact is assumed when it is added
                and self.journal.entries[-1].log_index - match <= _LEARNER_MAX_LAG
                and core.pending_change is None
                and not self._is_promoting
            ):
                self._is_promoting = True
                core.propose_change(MembershipChange(ChangeKind.PROMOTE, member), self._promoted)
                self._env.log("member.promoting", member=member.id)

    def _promoted(self, _reason: int) -> None:
        self._is_promoting = False

    def _pin_member(self) -> None:
        """Put the key of a member that has none yet into the log, as the leader sees it where it has dialled it. Found
        again by every leader until it is done for all.
        """
        core, now = self.core, self._env.clock()
        if not core.is_ready_leader or self._is_pinning or not (self.may_pin or self.admission.is_pinned):
            return
        if self.must_not_lead:
            return  # with another entry, nobody would have all of them, and nobody could take over at once
        if (not self._has_unpinned and now < self._next_look_at_keys) or core.pending_change is not None:
            return
        self._next_look_at_keys = now + _LOOK_AT_KEYS_SECONDS
        for member in sorted(core.members.values()):
            key = self._env.links.key_of(member.id)
            if key is not None and self._is_to_be_pinned(member, key):
                self._is_pinning = True
                change = MembershipChange(ChangeKind.PIN, replace(member, keys=(key,)), keys_before=member.keys)
                core.propose_change(change, self._pinned)
                self._env.log("member.pinning", member=member.id, key=key.hex())
                return

    def _is_to_be_pinned(self, member: Member, key: bytes) -> bool:
        """A key where none counts; the one that was announced, once it is used; and that of a certificate that was
        renewed, or it would not count any more once the first one has expired.
        """
        if (key,) == member.keys:
            return False
        if not self.admission.is_known_by_key(member):
            return True
        newest = member.keys[-1]
        return is_key_of(key, (newest,)) and (len(member.keys) > 1 or expiry_part(key) > expiry_part(newest))

    def _pinned(self, _reason: int) -> None:
        self._is_pinning = False

    def hand_over(self, peer: str | None) -> bool:
        """Leader only: have a caught-up voter take over. True if it was asked to."""
        is_asked = self.core.is_leader and self.core.hand_over(peer)
        self._env.wake()
        return is_asked

    @property
    def must_not_lead(self) -> bool:
        """A single voter leads whatever happens: there is nobody to do it instead, and stepping down would only add an
        election to the stall.
        """
        return self.is_stalled and bool(self.core.other_voters)

    def _give_way_if_stalled(self) -> None:
        """Nothing is signed while heartbeats keep the others from electing somebody who could.

        A caught-up voter takes over within a round trip. If none does in time, because none has all entries, or those
        asked are stalled themselves, the heartbeats end, and an ordinary election follows.
        """
        core, now = self.core, self._env.clock()
        if not (self.must_not_lead and core.is_leader):
            self._gives_way_until, self._is_successor_asked = None, False
            return
        if self._gives_way_until is None:
            self._gives_way_until = now + self._give_way_seconds
        if now >= self._gives_way_until:
            self.guard.step_down(core.term)
            self._env.wake()
        elif not self._is_successor_asked:
            self._is_successor_asked = core.hand_over(None)

    # -- compaction and snapshots

    def _compact_if_due(self) -> None:
        if self._is_compacting or self._env.clock() < self._no_compaction_before:
            return
        entries = self._visible_index - (self._source.log_index or 1)
        is_long = (
            self.journal.retained_bytes >= self._compaction.trigger_bytes or entries >= self._compaction.trigger_entries
        )
        if is_long or self._snapshot_wanted_at > (self._source.log_index or 0):
            self.compact()

    def scrub(self, done: Callable[[list[str]], None]) -> None:
        """Read journal and snapshot again, in the background; `done` gets what is damaged.

        Everything is in memory too, so damage is healed while the node runs: new segments, or a new snapshot, take the
        place of the old files. Found only at the next start, it would cost this node's data.
        """
        disk, parts = self._env.disk, self.journal.synced_parts()

        def work() -> object:
            return (
                [text for part in parts if (text := _damage(check_part, disk, part))],
                [text for text in (_damage(SnapshotFile.load, self._snapshot_file),) if text],
            )

        def finished(result: object) -> None:
            if not isinstance(result, tuple):
                done([repr(result)])
                return
            in_journal, in_snapshot = result
            if in_journal:
                self.journal.rewrite()
            if in_snapshot:
                self.compact()
            done([*in_journal, *in_snapshot])

        self._env.in_background(work, finished)

    def purge(self, done: Callable[[bool], None]) -> None:
        """Have nothing on this node's disk, in snapshot or log, of before what is applied now.

        `done` gets False when this is not the moment: another compaction is under way, or the disk is full.
        """
        if self._is_compacting:
            done(False)
        elif self._visible_index <= (self._source.log_index or 1):
            self._drop_all_before(self._source.log_index)
            done(True)
        else:
            self._compact(lambda snapshot_index: done(self._drop_all_before(snapshot_index)))

    def _drop_all_before(self, snapshot_index: int | None) -> bool:
        """Whether there was a snapshot to rely on, or nothing to drop."""
        if snapshot_index is not None:
            self.journal.compact_to(min(snapshot_index, self.core.applied_index))
            self.journal.rewrite()  # else what was dropped stays in the segment that is written now
            return True
        return self._visible_index <= 1

    def compact(self) -> None:
        """Save a snapshot in the background, then drop the entries it makes superfluous."""
        if not self._is_compacting and self._visible_index > (self._source.log_index or 1):
            self._compact(lambda _snapshot_index: None)

    def _compact(self, done: Callable[[int | None], object]) -> None:
        """`done` gets the index of the snapshot, or None when the disk is full."""
        applied = self._visible_index
        entries = self.journal.entries
        self._is_compacting = True
        term = entries[applied - entries[0].log_index].term
        members, removed = self._members_at(applied)
        encode = self._env.machine.capture()

        def work() -> object:
            snapshot = Snapshot(applied, term, members, encode(), removed)
            self._snapshot_file.save(snapshot)
            return snapshot

        def finished(result: object) -> None:
            self._is_compacting = False
            if isinstance(result, Snapshot):
                self.compactions += 1
                self._source.use(result)
                self.journal.compact_to(self._first_kept(result.log_index))
                self._env.log("journal.compacted", log_index=result.log_index, state_bytes=len(result.state))
                done(result.log_index)
            elif is_shortage(result):
                self._no_compaction_before = self._env.clock() + _COMPACTION_PAUSE_SECONDS
                done(None)
            else:
                # What a failed sync left on disk is unknown, and the next one would not tell.
                raise JournalFailed(f"compaction failed: {result!r}")

        self._env.in_background(work, finished)

    def _members_at(self, log_index: int) -> tuple[tuple[Member, ...], frozenset[str]]:
        """The members as of an applied entry, and who was removed by then: the present ones less the changes after
        it.
        """
        members: Members = self.core.members
        removed = self.core.removed
        for entry in reversed(self.journal.entries):
            if entry.log_index <= log_index:
                break
            change = codec.unpack_change(entry.command)
            if change is not None:
                members, removed = changed(members, change, undo=True), removed_after(removed, change, undo=True)
        return tuple(sorted(members.values())), removed

    def _first_kept(self, snapshot_index: int) -> int:
        entries = self.journal.entries
        position = min(snapshot_index, self.core.applied_index) - entries[0].log_index
        size = 0
        while position > 0 and size + len(entries[position].command) <= self._compaction.keep_bytes:
            size += len(entries[position].command)
            position -= 1
        return entries[position].log_index

    def _install(self, snapshot: Snapshot) -> None:
        """Replace state and log by a received snapshot (Raft 7). A stop at any point leaves a node that can start."""
        if snapshot.log_index <= self.core.applied_index:
            return
        if self._is_compacting:
            return  # an older snapshot would be saved over this one; the leader's next offer brings it again
        entries = self.journal.entries
        position = snapshot.log_index - entries[0].log_index
        if 0 <= position < len(entries) and entries[position].term == snapshot.term:
            # The log has got there by itself, and what comes after may be acknowledged: it stays (Raft 7). What a
            # snapshot stands for is committed, so this log is, up to there. The leader must hear it: it would offer for
            # ever.
            self.core.learn_committed(snapshot.log_index)
            self._answer_snapshot(snapshot.log_index)
            return
        if snapshot.log_index <= self.core.commit_index or snapshot.term > self.core.term:
            reason = f"it ends at entry {snapshot.log_index} of term {snapshot.term}: that is not the entry of this log"
            self._log_refused(reason)
            return
        try:
            self._env.machine.install(snapshot.log_index, snapshot.state)
        except ValueError as error:
            # Its state is of no release that this one knows. It may follow a leader of its own release again.
            self._log_refused(str(error))
            return
        self._snapshot_file.save(snapshot)
        self.journal.reset(Entry(codec.NO_OP_COMMAND, snapshot.log_index, snapshot.term))
        self.journal.sync()
        self.core.start_from(snapshot.log_index)
        self.core.set_members({member.id: member for member in snapshot.members}, snapshot.removed)
        self._source.use(snapshot)
        self._is_promoting = self._is_pinning = False  # the core has forgotten whom to tell
        self._publish()
        for sequence in list(self._in_flight):
            self._failed(sequence, FAIL_REASON.UNKNOWN_OUTCOME)  # covered by the snapshot, perhaps
        self._answer_snapshot(snapshot.log_index)
        self._env.log("snapshot.installed", log_index=snapshot.log_index)

    def _log_refused(self, reason: str) -> None:
        leader = self.core.leader_id or ""
        self._log_seldom("snapshot.refused", leader, source=leader, reason=reason)

    def _answer_snapshot(self, log_index: int) -> None:
        """This node has everything up to the snapshot, and wants what follows."""
        leader = self.core.leader_id
        if leader is not None:
            answer = {"next_node_idx": log_index + 1, "reset": True, "success": True}
            self._send(leader, {"type": "next_node_idx", **answer})

    def close(self) -> None:
        self.journal.close()


def _payload_bytes(message: Message) -> int:
    """Of a message that may be large."""
    match message["type"]:
        case "append_entries":
            return sum(len(entry.command) for entry in message["entries"])
        case "snapshot_part" | "bulk_part":
            return len(message["data"])
    return 0


def is_shortage(result: object) -> bool:
    """Whether something failed for lack of room, descriptors or memory: before anything was written that counts."""
    return isinstance(result, MemoryError) or (isinstance(result, OSError) and result.errno in _SHORTAGES)


def _damage(check: Callable[..., object], *arguments: object) -> str:
    """What a check found; empty if nothing, or if the file has gone meanwhile."""
    try:
        check(*arguments)
    except FileNotFoundError:
        return ""
    except (JournalDamaged, SnapshotDamaged, OSError) as error:
        return str(error)
    return ""
