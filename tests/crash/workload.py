"""The standard workload: one node, its peers played by the script, and every operation of it on disk recorded.

It goes through everything that writes: the first start, votes and terms, appends, truncation, segments that roll,
compaction, a clean restart, leading, an installed snapshot with its bulk data, tidying, healing. Beside each operation
stands what the node had promised by then (`Promises`), which no restart may break.
"""

import functools
import os
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Final
from unittest.mock import patch

from cluster.raft import codec
from cluster.raft import machine as machine_module
from cluster.raft import node as node_module
from cluster.raft.admission import Admission
from cluster.raft.codec import FRAME_HEADER, Message, pack_frame, unpack_message
from cluster.raft.disk import Disk
from cluster.raft.journal import Entry, Journal
from cluster.raft.machine import ReplicatedMachine
from cluster.raft.macs import FileMacs
from cluster.raft.membership import Members
from cluster.raft.node import CompactionPolicy, NodeEnvironment, Proposal, RaftNode
from cluster.raft.snapshot import Snapshot
from fsm.ca import InitConfig, InitSeal
from fsm.codec import dump_command
from fsm.commands import Command
from fsm.leaves import RecordLeaves, TidyLedger
from fsm.state import State
from tests.crash.volume import MemoryDisk, Operation, Sync, Unlink, Volume
from tests.kit import samples
from tests.kit.clock import FakeClock
from tests.kit.log import EventLog
from tests.kit.solo import NO_COMPACTION, TIMING, batch, no_op
from tests.sim.cluster import members_of

DIRECTORY: Final = "data"
LOG_FILES: Final = ("data/wal", "data/snapshot")
LEDGER_FILES: Final = ("data/ledger",)
MEMBERS: Final = members_of("a", "b", "c")
#: As every node has them.
MACS: Final = FileMacs(b"k" * 32)
#: Small, so that the workload rolls segments and copies in parts.
_SEGMENT_BYTES: Final = 1500
_ROWS_PER_PART: Final = 6
_PART_BYTES: Final = 700
#: Some entries share a commit of the ledger, others do not.
_ROWS_PER_COMMIT: Final = 5


@dataclass(frozen=True, slots=True)
class Promises:
    """What has left the node, and what others rely on since."""

    term: int = 0  # the latest that any message named
    vote: tuple[int, str] = (0, "")  # the latest term this node voted in, and for whom
    entries: tuple[Entry, ...] = ()  # acknowledged: counted towards a majority or told to a client
    committed: int = 0  # as far as the node was told; nothing behind it may be served
    fresh_until: int = 0  # so far was the log committed when the mark of a new disk was removed; 0: it is new (G7)


class Node:
    """Node `a` on given files; its peers are the test. Also its Links."""

    def __init__(
        self,
        disk: Disk,
        ledger_path: str,
        *,
        compaction: CompactionPolicy = NO_COMPACTION,
        promised: Callable[["Node", str, Message], None] | None = None,
    ) -> None:
        self.clock = FakeClock()
        self.log = EventLog()
        self.sent: list[tuple[str, Message]] = []
        self._promised = promised
        self._background: list[tuple[Callable[[], object], Callable[[object], None]]] = []
        self.machine = ReplicatedMachine(ledger_path, lambda _: None, rows_per_commit=_ROWS_PER_COMMIT)
        env = NodeEnvironment(
            disk=disk,
            directory=DIRECTORY,
            links=self,
            machine=self.machine,
            clock=self.clock,
            rng=random.Random(1),
            log=self.log,
            wake=lambda: None,
            in_background=lambda work, done: self._background.append((work, done)),
            incarnation=7,
            macs=MACS,
        )
        try:
            with patch.object(node_module, "Journal", small_journal):
                self.raft = RaftNode("a", MEMBERS, env, timing=TIMING, compaction=compaction)
        except BaseException:
            self.machine.close()
            raise
        for peer in ("b", "c"):
            self.raft.link_up(peer)

    # -- Links

    def send(self, peer: str, messages: list[Message]) -> None:
        for message in messages:
            self.sent.append((peer, message))
            if self._promised is not None:
                self._promised(self, peer, message)

    def pending_bytes(self, _peer: str) -> int:
        return 0

    def set_members(self, members: Members) -> None: ...
    def set_admission(self, admission: Admission) -> None: ...

    def key_of(self, peer: str) -> bytes | None:
        return None

    def anchors(self) -> frozenset[bytes]:
        return frozenset()

    # -- what the test does

    def feed(self, peer: str, kind: str, **fields: Any) -> None:
        message = {"type": kind, "ct": fields.get("term", self.raft.core.term), **fields}
        self.raft.receive(peer, unpack_message(pack_frame(message)[FRAME_HEADER.size :]))
        self.raft.pump()
        while self._background:
            work, done = self._background.pop(0)
            done(work())

    def append(self, peer: str, term: int, entries: list[Entry], previous: Entry, commit: int) -> None:
        fields = {"prevLogIdx": previous.log_index, "prevLogTerm": previous.term, "epoch": 0}
        packed = tuple(map(tuple, entries))
        self.feed(peer, "append_entries", term=term, commit_index=commit, entries=packed, **fields)

    def ask_for_vote(self, peer: str, term: int) -> bool:
        """Whether `peer`, whose log is as current as can be, gets this node's vote."""
        start = len(self.sent)
        self.feed(peer, "request_vote", term=term, last_log_index=1 << 40, last_log_term=1 << 40)
        return any(to == peer and message["type"] == "response_vote" for to, message in self.sent[start:])

    def elect(self) -> None:
        """Make it the leader, by the vote of b; its first entry is not committed yet."""
        self.advance(2 * TIMING.election_max)
        ballot = [message for _, message in self.sent if message["type"] == "pre_vote"][-1]
        self.feed("b", "pre_vote_granted", is_fresh=False, round=ballot["round"])
        self.advance(0)
        self.feed("b", "response_vote", term=self.raft.core.term, is_fresh=False)
        assert self.raft.core.is_leader

    def confirm(self) -> None:
        """b holds the whole log of this leader now."""
        epoch = int(self.raft.guard.outgoing("b", {"type": "offer_snapshot"})["epoch"])
        answer = {"next_node_idx": self.last.log_index + 1, "success": True, "reset": False, "epoch": epoch}
        self.feed("b", "next_node_idx", **answer)
        self.advance(0)

    def advance(self, seconds: float) -> None:
        self.clock.advance(seconds)
        self.raft.pump()

    @property
    def last(self) -> Entry:
        return self.raft.journal.entries[-1]

    def close(self) -> None:
        self.raft.close()
        self.machine.close()


small_journal: Final = functools.partial(Journal, segment_bytes=_SEGMENT_BYTES)


@dataclass(frozen=True, slots=True)
class Step:
    """One operation, with what was promised when it began, and what was promised more before the next one."""

    operation: Operation
    phase: str
    promises: tuple[Promises, ...]


class History:
    """The one history of the cluster: what the script's leaders commit, entry by entry."""

    def __init__(self) -> None:
        self.entries: list[Entry] = [no_op(1, 0)]
        self._state = State()
        self._numbers = iter(range(1, 1000))

    @property
    def last(self) -> Entry:
        return self.entries[-1]

    def add(self, term: int, *commands: Command) -> Entry:
        index = self.last.log_index + 1
        entry = batch(index, term, *map(dump_command, commands)) if commands else no_op(index, term)
        self.entries.append(entry)
        return entry

    def adopt(self, entries: list[Entry]) -> None:
        """Entries that the node made while it led."""
        self.entries += entries

    def leaves(self, count: int, **changes: Any) -> RecordLeaves:
        records = tuple(samples.record(next(self._numbers), **changes) for _ in range(count))
        return RecordLeaves(samples.ISSUER, records)


class Recorder:
    """Runs the workload over `directory`, where the ledger's real files are."""

    def __init__(self, directory: str) -> None:
        self.directory = directory
        self.steps: list[Step] = []
        self.history = History()
        self._phase = "first start"
        self._volume = Volume()
        self._disk = MemoryDisk(self._volume, self._note)
        self._promises = Promises()
        self._node: Node | None = None

    # -- recording

    def note_sqlite(self, operation: Operation) -> None:
        """For RecordingVfs."""
        if operation.path.startswith(f"{self.directory}/") and not operation.path.endswith("-shm"):
            moved = replace(operation, path=DIRECTORY + operation.path.removeprefix(self.directory))
            self._note(moved)
            self._volume.apply(moved)

    def _note(self, operation: Operation) -> None:
        if self._node is not None:
            promises, log = self._promises, self._node.raft.journal.entries
            commit = self._node.raft.core.commit_index
            kept = tuple(entry for entry in promises.entries if _is_in(entry, log))
            self._promises = replace(promises, entries=kept, committed=max(promises.committed, commit))
            if operation == Unlink(f"{DIRECTORY}/wal/fresh"):
                self._promises = replace(self._promises, fresh_until=commit)
        self.steps.append(Step(operation, self._phase, (self._promises,)))

    def _promise(self, node: Node, peer: str, message: Message) -> None:
        promises, core = self._promises, node.raft.core
        committed = max(promises.committed, core.commit_index)
        promises = replace(promises, term=max(promises.term, message["ct"]), committed=committed)
        match message["type"]:
            case "response_vote":
                promises = replace(promises, vote=(message["term"], peer))
            case "request_vote":
                promises = replace(promises, vote=(message["term"], "a"))
            case "next_node_idx" if message["success"]:
                promises = _with_entries(promises, node, message["next_node_idx"] - 1)
        self._grow(promises)

    def _grow(self, promises: Promises) -> None:
        if promises != self._promises:
            self._promises = promises
            self.steps[-1] = replace(self.steps[-1], promises=(*self.steps[-1].promises, promises))

    @contextmanager
    def _watching_wal(self) -> Iterator[None]:
        """What the machine itself syncs: the ledger's write-ahead log."""
        files: dict[int, str] = {}
        real_open, real_sync = open, os.fsync

        def opened(path: str, mode: str) -> Any:
            file = real_open(path, mode)
            files[file.fileno()] = path
            return file

        def sync(fd: int) -> None:
            self.note_sqlite(Sync(files[fd]))
            real_sync(fd)

        with patch.object(machine_module, "open", opened, create=True), patch.object(os, "fsync", sync):
            yield

    # -- the workload

    def run(self) -> None:
        with self._watching_wal(), patch.object(machine_module, "_BULK_ROWS", _ROWS_PER_PART):
            self._disk.make_directory(DIRECTORY)
            node = self._start()
            self._follow(node)
            self._truncate(node)
            node = self._compact_and_restart(node)
            self._lead(node)
            self._install(node)
            self._heal(node)
            self._phase = "close"
            self._node = None
            node.close()

    def _start(self) -> Node:
        self._node = None
        node = Node(self._disk, f"{self.directory}/ledger.db", promised=self._promise)
        self._node = node
        return node

    def _replicate(self, node: Node, peer: str, term: int, entries: list[Entry], commit: int) -> None:
        """As a leader does: the entries, then a heartbeat that tells how far they are committed."""
        node.append(peer, term, entries, self.history.entries[entries[0].log_index - 2], node.raft.core.commit_index)
        node.append(peer, term, [], node.last, commit)

    def _commit(self, node: Node, peer: str, term: int, *commands: Command) -> None:
        entry = self.history.add(term, *commands)
        self._replicate(node, peer, term, [entry], entry.log_index)

    def _follow(self, node: Node) -> None:
        self._phase = "vote, appends"
        assert node.ask_for_vote("b", 1)
        # The others have it already: this node is brought up to date by an entry that it has not synced yet.
        first = self.history.add(1)
        node.append("b", 1, [first], node.last, first.log_index)
        assert not node.raft.guard.is_fresh
        self._commit(node, "b", 1, InitSeal(samples.SEAL))
        self._commit(node, "b", 1, InitConfig(samples.config(), samples.provider_state()))
        self._commit(node, "b", 1, samples.set_roots(samples.configured(), samples.root("r1")))
        for _ in range(3):
            self._commit(node, "b", 1, self.history.leaves(2), self.history.leaves(1))

    def _truncate(self, node: Node) -> None:
        self._phase = "truncation"
        commands = [dump_command(TidyLedger(number)) for number in (1, 2, 3)]
        lost = [batch(index, 1, command) for index, command in enumerate(commands, node.last.log_index + 1)]
        node.append("b", 1, lost, node.last, node.raft.core.commit_index)
        assert node.ask_for_vote("c", 2)
        entries = [self.history.add(2), self.history.add(2, self.history.leaves(4))]
        self._replicate(node, "c", 2, entries, entries[-1].log_index)
        assert node.last == entries[-1]
        self._commit(node, "c", 2, self.history.leaves(3, request_id=b"r" * 16))  # one is kept, two are duplicates

    def _compact_and_restart(self, node: Node) -> Node:
        self._phase = "compaction"
        node.raft.compact()
        self._commit(node, "c", 2, TidyLedger(samples.NOW + 4))
        assert node.raft.compactions == 1
        self._commit(node, "c", 2, self.history.leaves(2))
        self._phase = "clean restart"
        self._node = None
        node.close()
        node = self._start()
        self._phase = "appends"
        node.append("c", 2, [], node.last, self.history.last.log_index)
        self._commit(node, "c", 2, self.history.leaves(2))
        return node

    def _lead(self, node: Node) -> None:
        self._phase = "leading"
        node.elect()
        known = self.history.last.log_index
        node.confirm()
        for _ in range(2):
            results: list[object] = []
            node.raft.propose(Proposal(dump_command(self.history.leaves(2)), results.append))
            node.advance(0)
            node.confirm()
            assert results
            entries = node.raft.journal.entries
            self._grow(_with_entries(self._promises, node, node.raft.core.commit_index))
            node.machine.sync_ledger()
        base = entries[0].log_index
        self.history.adopt(list(entries[known + 1 - base :]))
        # And one that only this node ever has.
        node.raft.propose(Proposal(dump_command(self.history.leaves(1)), results.append))
        node.advance(0)

    def _install(self, node: Node) -> None:
        self._phase = "snapshot install"
        for _ in range(6):
            self.history.add(4, self.history.leaves(3))
        self.history.add(4, TidyLedger(samples.NOW + 6))
        snapshot, parts = self._snapshot_of_leader()
        encoded = snapshot.encode()
        self._grow(replace(self._promises, committed=snapshot.log_index))
        node.feed("b", "offer_snapshot", term=4, log_index=snapshot.log_index, epoch=0)
        for offset in range(0, len(encoded), _PART_BYTES):
            part = {"offset": offset, "total": len(encoded), "data": encoded[offset : offset + _PART_BYTES]}
            node.feed("b", "snapshot_part", log_index=snapshot.log_index, **part)
        position = node.machine.bulk_position()
        while node.raft.core.applied_index < snapshot.log_index:
            part_data, is_last = parts(position)
            fields = {"after": position, "data": part_data, "is_last": is_last}
            node.feed("b", "bulk_part", log_index=snapshot.log_index, **fields)
            position = node.machine.bulk_position()
        self._phase = "behind the snapshot"
        for _ in range(2):
            self._commit(node, "b", 4, self.history.leaves(2))
        node.raft.compact()
        node.append("b", 4, [], node.last, node.last.log_index)
        self._commit(node, "b", 4, self.history.leaves(1))

    def _heal(self, node: Node) -> None:
        """As behind a scrub that found damage in a segment; what is rewritten fills more than one."""
        self._phase = "healing"
        for _ in range(4):
            self._commit(node, "b", 4, self.history.leaves(3))
        node.raft.journal.rewrite()
        self._phase = "behind the healing"
        self._commit(node, "b", 4, self.history.leaves(1))
        node.raft.compact()
        self._commit(node, "b", 4, self.history.leaves(1))

    def _snapshot_of_leader(self) -> tuple[Snapshot, Callable[[int], tuple[bytes, bool]]]:
        machine = replayed(self.history.entries, f"{self.directory}.leader.db")
        last = self.history.last
        state = machine.capture()()
        machine.close()
        members = tuple(MEMBERS.values())
        return Snapshot(last.log_index, last.term, members, state), lambda after: machine.bulk_read(after, state)


def apply_to(machine: ReplicatedMachine, entry: Entry) -> None:
    if entry.command[0] == codec.REGULAR:
        machine.apply(entry.log_index, codec.unpack_batch(entry.command)[2])
    machine.commit(entry.log_index)


def replayed(entries: list[Entry], ledger_path: str) -> ReplicatedMachine:
    """A machine that has applied these entries."""
    machine = ReplicatedMachine(ledger_path, lambda _: None)
    for entry in entries:
        apply_to(machine, entry)
    return machine


def _with_entries(promises: Promises, node: Node, last: int) -> Promises:
    """The log up to `last` is promised; what was compacted away stays so."""
    entries = node.raft.journal.entries
    base = entries[0].log_index
    before = tuple(entry for entry in promises.entries if entry.log_index <= base)
    known = before[-1].log_index if before else base - 1
    return replace(promises, entries=before + tuple(entry for entry in entries if known < entry.log_index <= last))


def _is_in(entry: Entry, log: Any) -> bool:
    """Whether a log still holds an entry, or a snapshot in its place."""
    base = log[0].log_index
    if entry.log_index <= base:
        return True
    position = entry.log_index - base
    return position < len(log) and bool(log[position] == entry)
