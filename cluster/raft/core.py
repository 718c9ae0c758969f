"""PySyncObj's Raft core behind typed names: everything that touches its private parts is in this file.

What is still PySyncObj's: terms and votes, the commit rule, the replication state of each peer, the order of applying.
What it leaves to us by overriding (see DESIGN.md for each): when to campaign, how entries and snapshots are sent,
membership, compaction, and what an entry means.
"""

import contextlib
import hashlib
import queue
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

import pysyncobj.syncobj as _library
from pysyncobj import FAIL_REASON, SyncObj, SyncObjConf
from pysyncobj.fast_queue import FastQueue
from pysyncobj.journal import Journal as _LibraryJournal
from pysyncobj.node import Node
from pysyncobj.serializer import SERIALIZER_STATE
from pysyncobj.transport import Transport as _LibraryTransport

from cluster.raft import codec
from cluster.raft.codec import Message
from cluster.raft.journal import Entry, Journal
from cluster.raft.membership import ChangeKind, Members, MembershipChange, changed, removed_after

FOLLOWER: Final = 0
LEADER: Final = 2

#: sha256 of the one file whose private names are overridden here. Another version means another audit.
_AUDITED_SHA256: Final = "e8bdf06797085d734df86e24ab4802fe87893dff77268565ec036f7ad4a1cfe4"
_OVERRIDDEN: Final = (
    "connectedToAnyone",
    "generateRaftTimeout",
    "onBecomeLeader",
    "doApplyCommand",
    "sendAppendEntries",
    "tryLogCompaction",
    "parseChangeClusterRequest",
    "changeCluster",
    "doChangeCluster",
)
_CALLED: Final = ("onMessageReceived", "setCurrentTerm", "setState", "sendNextNodeIdx")


def _check_library() -> None:
    with open(_library.__file__, "rb") as file:
        found = hashlib.sha256(file.read()).hexdigest()
    missing = [name for name in (*_OVERRIDDEN, *_CALLED) if not hasattr(SyncObj, f"_SyncObj__{name}")]
    if found != _AUDITED_SHA256 or missing:
        raise ImportError(f"pysyncobj is not the audited 0.3.17 (sha256 {found}, missing {missing})")


class _NoPoller:
    """PySyncObj polls sockets of its own; ours belong to an event loop."""

    def subscribe(self, *_: object) -> None: ...
    def unsubscribe(self, *_: object) -> None: ...
    def poll(self, _timeout: float) -> None: ...


class _NoSerializer:
    """Snapshots are ours (node.py, catchup.py): PySyncObj never makes, sends or loads one."""

    def checkSerializing(self) -> tuple[int, None]:  # noqa: N802 - PySyncObj's interface
        return SERIALIZER_STATE.NOT_SERIALIZING, None

    def cancelTransmisstion(self, _node: Node) -> None: ...  # noqa: N802


class _LibraryView(_LibraryJournal):  # type: ignore[misc]
    """Our journal with PySyncObj's method names and positions counted from the first entry held."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal

    def add(self, command: bytes, log_index: int, term: int) -> None:
        self._journal.append(command, log_index, term)

    def deleteEntriesFrom(self, position: int) -> None:  # noqa: N802
        entries = self._journal.entries
        if position < len(entries):
            self._journal.truncate_from(entries[position].log_index)

    def __getitem__(self, item: int | slice) -> Entry | Sequence[Entry]:
        return self._journal.entries[item]

    def __len__(self) -> int:
        return len(self._journal.entries)

    def setCurrentTerm(self, term: int, vote: str | None) -> None:  # noqa: N802
        self._journal.set_term(term, vote)

    def getCurrentTerm(self) -> int:  # noqa: N802
        return self._journal.term

    def getVotedForNodeId(self) -> str | None:  # noqa: N802
        return self._journal.vote

    # The commit index is volatile in Raft and never trusted after a restart: it starts from the snapshot's.
    def setRaftCommitIndex(self, _index: int) -> None: ...  # noqa: N802

    def getRaftCommitIndex(self) -> int:  # noqa: N802
        return self._journal.entries[0].log_index

    def _destroy(self) -> None: ...

    def clear(self) -> None:
        raise AssertionError("only a snapshot of ours replaces the log")

    deleteEntriesTo = clear  # noqa: N815 - compaction is ours


class _LibraryPort(_LibraryTransport):  # type: ignore[misc]
    """Where PySyncObj hands over its messages."""

    def __init__(self, send: Callable[[str, Message], bool]) -> None:
        super().__init__(None, None, [])
        self._send = send

    def send(self, node: Node, message: Message) -> bool:
        return self._send(node.id, message)

    def connected(self, node: Node) -> None:
        self._onNodeConnected(node)

    def disconnected(self, node: Node) -> None:
        self._onNodeDisconnected(node)

    def receive(self, node: Node, message: Message) -> None:
        self._onMessageReceived(node, message)


class CoreOwner(Protocol):
    """What the core asks of the node around it."""

    def send(self, peer: str, message: Message) -> bool: ...
    def pending_bytes(self, peer: str) -> int:
        """Bytes queued for a peer and not written yet."""
        ...

    def may_campaign(self) -> bool:
        """Asked at every tick once the election time-out has passed."""
        ...

    def apply(self, entry: Entry) -> None: ...
    def snapshot_index(self) -> int | None:
        """Log index of the snapshot that can be offered to a node that lags too far behind."""
        ...

    def members_changed(self, members: Members, removed: frozenset[str]) -> None: ...


@dataclass(frozen=True, slots=True)
class RaftTiming:
    """Seconds. Elections start after a random time between the two time-outs (Raft 5.2)."""

    election_min: float = 0.5
    election_max: float = 1.0
    heartbeat: float = 0.05

    @property
    def quorum_loss(self) -> float:
        """A leader that has not heard from a majority for this long steps down: before followers may elect another."""
        return self.election_min


MAX_APPEND_BYTES: Final = 1 << 20
SEND_WINDOW_BYTES: Final = 4 << 20
_QUEUE_LENGTH: Final = 1000


class RaftCore(SyncObj):  # type: ignore[misc]
    """One node's Raft state. Single-threaded; time passes only as `clock` says."""

    # PySyncObj's attributes that are read or written here.
    _SyncObj__raftState: int
    _SyncObj__raftCurrentTerm: int
    _SyncObj__raftLeader: Node | None
    _SyncObj__raftCommitIndex: int
    _SyncObj__raftLastApplied: int
    _SyncObj__raftElectionDeadline: float
    _SyncObj__raftNextIndex: dict[Node, int]
    _SyncObj__raftMatchIndex: dict[Node, int]
    _SyncObj__lastResponseTime: dict[Node, float]
    _SyncObj__newAppendEntriesTime: float
    _SyncObj__noopIDx: int | None
    _SyncObj__transferInProgress: bool
    _SyncObj__commandsWaitingCommit: dict[int, object]
    _SyncObj__commandsQueue: FastQueue
    _SyncObj__otherNodes: set[Node]
    _SyncObj__readonlyNodes: set[Node]
    _SyncObj__connectedNodes: set[Node]
    _SyncObj__serializer: object
    _SyncObj__needLoadDumpFile: bool

    def __init__(
        self,
        node_id: str,
        members: Members,
        journal: Journal,
        owner: CoreOwner,
        timing: RaftTiming,
        clock: Callable[[], float],
        rng: random.Random,
        removed: frozenset[str] = frozenset(),
    ) -> None:
        self._node_id = node_id
        self._owner = owner
        self._timing = timing
        self._clock = clock
        self._rng = rng
        self._journal = journal
        self.members: Members = {}
        self.removed: frozenset[str] = frozenset()
        #: One object for each name: it is what PySyncObj's dictionaries find fastest.
        self._nodes: dict[str, Node] = {}
        self.other_voters: frozenset[str] = frozenset()
        self.has_learners = False
        self._may_hold_commands = False
        _library.createPoller = lambda _kind: _NoPoller()
        _library.createJournal = lambda view: view
        # Otherwise a pipe is written for every command, and fills up as nobody reads it.
        _library.PIPE_NOTIFIER_ENABLED = False
        self._enter()
        self._SyncObj__newAppendEntriesTime = 0.0  # read by a property that PySyncObj's constructor looks at
        self._port = _LibraryPort(owner.send)
        conf = SyncObjConf(
            autoTick=False,
            journalFile=_LibraryView(journal),
            raftMinTimeout=timing.election_min,
            raftMaxTimeout=timing.election_max,
            appendEntriesPeriod=timing.heartbeat,
            leaderFallbackTimeout=timing.quorum_loss,
            connectionTimeout=max(3.5, timing.election_max),
            appendEntriesUseBatch=False,
            appendEntriesBatchSizeBytes=MAX_APPEND_BYTES,
            commandsWaitLeader=False,
            commandsQueueSize=_QUEUE_LENGTH,
            dynamicMembershipChange=True,
            useFork=False,
        )
        super().__init__(node_id, [], conf, nodeClass=Node, transport=self._port)
        self._SyncObj__serializer = _NoSerializer()
        self._SyncObj__needLoadDumpFile = False
        self.set_members(members, removed)

    def _enter(self) -> None:
        # A module-wide name of PySyncObj's. Simulated nodes share the process and have clocks of their own.
        _library.monotonicTime = self._clock

    # -- reading

    @property
    def state(self) -> int:
        return self._SyncObj__raftState

    @property
    def is_leader(self) -> bool:
        return self._SyncObj__raftState == LEADER

    @property
    def term(self) -> int:
        return self._SyncObj__raftCurrentTerm

    @property
    def leader_id(self) -> str | None:
        leader = self._SyncObj__raftLeader
        return None if leader is None else str(leader.id)

    @property
    def commit_index(self) -> int:
        return self._SyncObj__raftCommitIndex

    @property
    def applied_index(self) -> int:
        return self._SyncObj__raftLastApplied

    @property
    def is_ready_leader(self) -> bool:
        """Leads, and has applied its own first entry: it knows everything committed before (Raft 8)."""
        return self.is_leader and self.applied_index >= (self._SyncObj__noopIDx or 1 << 62)

    @property
    def is_voter(self) -> bool:
        me = self.members.get(self._node_id)
        return me is not None and me.is_voter

    @property
    def election_deadline(self) -> float:
        return self._SyncObj__raftElectionDeadline

    @property
    def next_heartbeat(self) -> float:
        return self._SyncObj__newAppendEntriesTime

    def match_index(self, peer: str) -> int:
        """Highest log index known to be on `peer`; leader only."""
        return self._SyncObj__raftMatchIndex.get(self._node(peer), 0)

    def last_contact(self, peer: str) -> float | None:
        """Clock time of the last answer of `peer`; leader only."""
        return self._SyncObj__lastResponseTime.get(self._node(peer))

    def _node(self, peer: str) -> Node:
        return self._nodes.get(peer) or Node(peer)

    # -- driving

    def tick(self) -> None:
        self._enter()
        if self._may_hold_commands and not self.is_leader:
            self._refuse_queued()
        self.doTick(0)

    def _refuse_queued(self) -> None:
        """What was queued while this node led and not appended yet. PySyncObj would forward it to the new leader."""
        with contextlib.suppress(queue.Empty):
            while True:
                _, callback = self._SyncObj__commandsQueue.get_nowait()
                callback(None, FAIL_REASON.NOT_LEADER)
        self._may_hold_commands = False

    def take_commands(self) -> None:
        """Append queued commands now instead of at the next tick."""
        self._enter()
        self._checkCommandsToApply()

    def enqueue(self, command: bytes, failed: Callable[[int], None]) -> None:
        """Propose an entry, on the leader. `failed` gets a FAIL_REASON unless the entry is applied."""
        self._may_hold_commands = True
        self._applyCommand(command, lambda _, reason: None if reason == FAIL_REASON.SUCCESS else failed(reason))

    def propose_change(self, change: MembershipChange, done: Callable[[int], None]) -> None:
        """`done` gets a FAIL_REASON; SUCCESS once the change is committed."""
        self._may_hold_commands = True
        self._applyCommand(codec.pack_change(change), lambda _, reason: done(reason), codec.MEMBERSHIP)

    def receive(self, peer: str, message: Message) -> None:
        self._enter()
        self._port.receive(self._node(peer), message)

    def connected(self, peer: str) -> None:
        self._port.connected(self._node(peer))

    def disconnected(self, peer: str) -> None:
        self._port.disconnected(self._node(peer))

    def step_down(self, term: int) -> None:
        """Become a follower of `term` or of the present one, whichever is later."""
        self._enter()
        if term > self.term:
            self._SyncObj__setCurrentTerm(term, None)
        self._SyncObj__setState(FOLLOWER)
        self._SyncObj__raftLeader = None
        self.postpone_election()

    def postpone_election(self) -> None:
        self._SyncObj__raftElectionDeadline = self._clock() + self._SyncObj__generateRaftTimeout()

    def campaign_within(self, seconds: float) -> None:
        deadline = min(self.election_deadline, self._clock() + seconds)
        self._SyncObj__raftElectionDeadline = deadline

    def forget_leader(self) -> None:
        self._SyncObj__raftLeader = None

    def abstain(self) -> None:
        """Do not campaign, although it is time to, or the leader asked for it."""
        self._SyncObj__transferInProgress = False
        self.forget_leader()
        self.postpone_election()

    @property
    def is_taking_over(self) -> bool:
        """The leader asked this node to campaign at once (TimeoutNow)."""
        return self._SyncObj__transferInProgress

    def hand_over(self, peer: str | None) -> bool:
        """Ask a caught-up voter, or the best one, to campaign at once. False if none can."""
        reasons: list[int] = []
        self.transferLeadership(None if peer is None else self._node(peer), lambda _, reason: reasons.append(reason))
        return reasons == [FAIL_REASON.SUCCESS]

    def start_from(self, log_index: int) -> None:
        """Everything up to `log_index` is applied already: it came from a snapshot."""
        self._SyncObj__raftLastApplied = log_index
        self._SyncObj__raftCommitIndex = max(self.commit_index, log_index)
        self._SyncObj__commandsWaitingCommit.clear()

    def learn_committed(self, log_index: int) -> None:
        """The log is known to be committed up to `log_index`, by other means than the leader's commit index."""
        self._SyncObj__raftCommitIndex = max(self.commit_index, log_index)

    def wake_at(self) -> float:
        """Clock time at which a tick is due even if no message arrives."""
        return self.next_heartbeat if self.is_leader else self.election_deadline

    # -- membership

    def set_members(self, members: Members, removed: frozenset[str]) -> None:
        """Use this configuration from now on (Raft 6: as soon as it is in the log)."""
        self.members = dict(members)
        self.removed = removed
        others = [member for member in members.values() if member.id != self._node_id]
        self._nodes = {member.id: self._node(member.id) for member in others}
        voters = {self._nodes[member.id] for member in others if member.is_voter}
        learners = {self._nodes[member.id] for member in others if not member.is_voter}
        self.other_voters = frozenset(node.id for node in voters)
        self.has_learners = bool(learners)
        next_index, match_index = self._SyncObj__raftNextIndex, self._SyncObj__raftMatchIndex
        for node in list(next_index):
            if node not in voters and node not in learners:
                next_index.pop(node, None)
                match_index.pop(node, None)
                self._SyncObj__lastResponseTime.pop(node, None)
        for node in voters | learners:
            if node not in next_index:
                next_index[node] = self._journal.entries[-1].log_index + 1
                match_index[node] = 0
                self._SyncObj__lastResponseTime[node] = self._clock()
        self._SyncObj__otherNodes = voters
        self._SyncObj__readonlyNodes = learners
        self._owner.members_changed(self.members, removed)

    # -- overrides of PySyncObj's private methods

    def _SyncObj__generateRaftTimeout(self) -> float:  # noqa: N802
        return self._timing.election_min + self._rng.random() * (self._timing.election_max - self._timing.election_min)

    def _SyncObj__connectedToAnyone(self) -> bool:  # noqa: N802
        return self._owner.may_campaign()

    def _SyncObj__onBecomeLeader(self) -> None:  # noqa: N802
        SyncObj._SyncObj__onBecomeLeader(self)
        # The same tick may count this node's own copy of the new entry, so it has to be durable.
        self._journal.sync()

    def _SyncObj__doApplyCommand(self, command: bytes) -> None:  # noqa: N802
        # Membership is in force since it was appended (set_members), so applying it means nothing.
        log_index = self.applied_index + 1
        self._owner.apply(self._journal.entries[log_index - self._journal.entries[0].log_index])

    def _SyncObj__tryLogCompaction(self) -> None:  # noqa: N802
        """Compaction is the node's (node.py)."""

    def _SyncObj__sendAppendEntries(self) -> None:  # noqa: N802
        """PySyncObj's messages, bounded by a send window instead of by time.

        The original spins for a whole heartbeat period when a snapshot is not available, and queues a whole one in
        memory when it is (R15 in DESIGN.md).
        """
        self._SyncObj__newAppendEntriesTime = self._clock() + self._timing.heartbeat
        for node in self._SyncObj__otherNodes | self._SyncObj__readonlyNodes:
            if node in self._SyncObj__connectedNodes:
                self._send_to(node)

    def _send_to(self, node: Node) -> None:
        entries, next_index = self._journal.entries, self._SyncObj__raftNextIndex
        first, last = entries[0].log_index, entries[-1].log_index
        if next_index[node] <= first:
            offer = {"type": "offer_snapshot", "term": self.term, "log_index": self._owner.snapshot_index()}
            self._owner.send(node.id, offer)
            return
        start = min(next_index[node], last + 1)
        while True:
            position, size = start - first, 0
            end = position
            while end < len(entries) and size < MAX_APPEND_BYTES:
                size += len(entries[end].command)
                end += 1
            message: Message = {
                "type": "append_entries",
                "term": self.term,
                "commit_index": self.commit_index,
                "prevLogIdx": start - 1,
                "prevLogTerm": entries[position - 1].term,
                "entries": tuple(entries[position:end]),
            }
            start = next_index[node] = first + end
            self._owner.send(node.id, message)
            if start > last or self._owner.pending_bytes(node.id) > SEND_WINDOW_BYTES:
                return

    def _SyncObj__parseChangeClusterRequest(self, command: bytes) -> MembershipChange | None:  # noqa: N802
        return codec.unpack_change(command)

    def _SyncObj__changeCluster(self, change: MembershipChange) -> bool:  # noqa: N802
        """Leader: may this change be appended? One at a time; PySyncObj's own check for that is dead code (R3)."""
        if not self.is_ready_leader or self.pending_change is not None:
            return False
        if change.kind is ChangeKind.REMOVE and change.member.id == self._node_id:
            return False
        if changed(changed(self.members, change), change, undo=True) != self.members:
            return False  # a follower that has to take it back would get a member that was never there
        if removed_after(removed_after(self.removed, change), change, undo=True) != self.removed:
            return False
        return bool(self._SyncObj__doChangeCluster(change))

    def _SyncObj__doChangeCluster(self, change: MembershipChange, reverse: bool = False) -> bool:  # noqa: N802
        after = changed(self.members, change, undo=reverse)
        if after == self.members:
            return False
        self.set_members(after, removed_after(self.removed, change, undo=reverse))
        return True

    @property
    def pending_change(self) -> MembershipChange | None:
        """A membership change in the log that is not applied yet."""
        entries = self._journal.entries
        position = max(0, self.applied_index + 1 - entries[0].log_index)
        changes = (codec.unpack_change(entry.command) for entry in entries[position:])
        return next((change for change in changes if change is not None), None)


_check_library()
codec.forbid_pickle()
