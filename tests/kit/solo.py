"""One real RaftNode whose peers are the test: it sends messages by hand and looks at what comes back."""

import random
from collections.abc import Callable
from typing import Any

from cluster.raft import codec
from cluster.raft.admission import Admission
from cluster.raft.codec import FRAME_HEADER, Message, pack_frame, unpack_message
from cluster.raft.core import RaftTiming
from cluster.raft.journal import Entry
from cluster.raft.macs import FileMacs
from cluster.raft.membership import Members
from cluster.raft.node import CompactionPolicy, Machine, NodeEnvironment, Proposal, RaftNode
from tests.kit.clock import FakeClock
from tests.kit.log import EventLog
from tests.sim.cluster import members_of
from tests.sim.disk import SimDisk
from tests.sim.machine import ListMachine, Store

#: Nothing happens by itself within a test.
TIMING = RaftTiming()
NO_COMPACTION = CompactionPolicy(trigger_bytes=1 << 30, keep_bytes=0)


def batch(log_index: int, term: int, *commands: bytes, origin: int = 99) -> Entry:
    """A regular entry as another leader makes it; one command that names index and term unless told otherwise."""
    return Entry(
        codec.pack_batch(origin, log_index, list(commands or (b"%d@%d" % (log_index, term),))), log_index, term
    )


def no_op(log_index: int, term: int) -> Entry:
    return Entry(codec.NO_OP_COMMAND, log_index, term)


class Solo:
    """Node `a` of the members `a`, `b`, `c` (or others). Also its Links."""

    def __init__(
        self,
        members: Members | None = None,
        *,
        disk: SimDisk | None = None,
        store: Store | None = None,
        compaction: CompactionPolicy = NO_COMPACTION,
        macs: FileMacs | None = None,
    ) -> None:
        self.members = members or members_of("a", "b", "c")
        self.disk = disk or SimDisk()
        self.store = store or Store()
        self.compaction = compaction
        self.macs = macs
        self.clock = FakeClock()
        self.log = EventLog()
        self.sent: list[tuple[str, Message]] = []
        #: Of certificates: a peer with one is connected, and known by it once that is pinned.
        self.keys: dict[str, bytes] = {}
        self.trusted: frozenset[bytes] = frozenset()
        #: Bytes that peers have not read yet.
        self.unread: dict[str, int] = {}
        self.background: list[tuple[Callable[[], object], Callable[[object], None]]] = []
        self.machine: Any = self._opened()
        self.node = self._started()

    def _opened(self) -> Machine:
        return ListMachine(self.store)

    def _started(self) -> RaftNode:
        env = NodeEnvironment(
            disk=self.disk,
            directory="data",
            links=self,
            machine=self.machine,
            clock=self.clock,
            rng=random.Random(1),
            log=self.log,
            wake=lambda: None,
            in_background=lambda work, done: self.background.append((work, done)),
            incarnation=7,
            macs=self.macs,
        )
        node = RaftNode("a", self.members, env, timing=TIMING, compaction=self.compaction)
        for peer in self.members:
            if peer != "a":
                node.link_up(peer)
        return node

    def restart(self, crash_in: int | None = None) -> None:
        """As after a kill; it may crash at the n-th operation of the new start."""
        self.disk.kill()
        self.disk.crash_in = crash_in
        self.background.clear()
        self.sent.clear()
        self.machine = self._opened()
        self.node = self._started()

    # -- Links

    def send(self, peer: str, messages: list[Message]) -> None:
        # Through the codec, so that whatever leaves a node is something that a peer accepts.
        self.sent += [(peer, unpack_message(pack_frame(message)[FRAME_HEADER.size :])) for message in messages]

    def pending_bytes(self, peer: str) -> int:
        return self.unread.get(peer, 0)

    def set_members(self, members: Members) -> None: ...

    def set_admission(self, admission: Admission) -> None:
        self.admission = admission

    def key_of(self, peer: str) -> bytes | None:
        return self.keys.get(peer)

    def anchors(self) -> frozenset[bytes]:
        return self.trusted

    # -- what the test does

    def feed(self, peer: str, kind: str, **fields: Any) -> None:
        """A message from `peer`, then a pump. `ct` is the message's own term unless given."""
        message = {"type": kind, "ct": fields.get("term", self.node.core.term), **fields}
        self.node.receive(peer, unpack_message(pack_frame(message)[FRAME_HEADER.size :]))
        self.node.pump()

    def append(
        self, peer: str, term: int, previous: tuple[int, int], *entries: Entry, commit: int = 1, epoch: int = 0
    ) -> None:
        """An append of the leader `peer`; `previous` is index and term of the entry before."""
        self.feed(
            peer,
            "append_entries",
            term=term,
            commit_index=commit,
            prevLogIdx=previous[0],
            prevLogTerm=previous[1],
            entries=tuple(map(tuple, entries)),
            epoch=epoch,
        )

    def answer(
        self, peer: str, next_index: int, *, success: bool = True, reset: bool = False, epoch: int = 0, **fields: Any
    ) -> None:
        """What a follower answers to an append."""
        self.feed(peer, "next_node_idx", next_node_idx=next_index, success=success, reset=reset, epoch=epoch, **fields)

    def advance(self, seconds: float) -> None:
        self.clock.advance(seconds)
        self.node.pump()

    def take(self, peer: str | None = None, kind: str | None = None) -> list[Message]:
        """What was sent since the last look, perhaps to one peer or of one type only; the rest is forgotten."""
        found = [message for to, message in self.sent if peer in (None, to) and kind in (None, message["type"])]
        self.sent.clear()
        return found

    def elect(self, *, is_ready: bool = True) -> int:
        """Make it a leader, by all votes; just enough peers commit its first entry. Returns its term."""
        core = self.node.core
        voters = sorted(core.other_voters)
        self.advance(2 * TIMING.election_max)
        ballot = self.take("b", "pre_vote")[-1]
        for peer in voters:
            self.feed(peer, "pre_vote_granted", is_fresh=False, round=ballot["round"])
        self.advance(0)
        for peer in voters:
            self.feed(peer, "response_vote", term=core.term, is_fresh=False)
        assert core.is_leader
        if is_ready:
            self.confirm(*voters[: (len(voters) + 1) // 2])
            assert core.is_ready_leader
        self.take()
        return core.term

    def confirm(self, *peers: str) -> None:
        """These peers (b unless told otherwise) hold the whole log now."""
        for peer in peers or ("b",):
            self.answer(peer, self.last.log_index + 1, epoch=self.epoch(peer))
        self.node.pump()

    def epoch(self, peer: str) -> int:
        return int(self.node.guard.outgoing(peer, {"type": "offer_snapshot"})["epoch"])

    def propose(self, command: bytes) -> list[Any]:
        """Queue a command; the list gets what becomes of it."""
        result: list[Any] = []
        self.node.propose(Proposal(command, result.append))
        return result

    def heartbeat(self) -> None:
        """The leader's next heartbeat is due."""
        self.advance(TIMING.heartbeat * 1.01)

    def run_background(self) -> None:
        while self.background:
            work, done = self.background.pop(0)
            done(work())

    # -- what it looks like

    def is_leader(self) -> bool:
        return self.node.core.is_leader

    @property
    def entries(self) -> list[Entry]:
        return list(self.node.journal.entries)

    @property
    def last(self) -> Entry:
        return self.node.journal.entries[-1]

    @property
    def commit(self) -> int:
        return self.node.core.commit_index

    @property
    def commands(self) -> list[bytes]:
        """What was applied, in order."""
        return [row.command for row in self.store.rows]
