"""Restarts a node on an image of its files and says what is wrong with it, if anything.

Right means: the node starts; it knows the latest term it named and cannot be made to vote twice; every entry it
acknowledged is in its log or in its snapshot; nothing uncommitted is applied or in the ledger; and once a leader brings
it the rest of the log, state and ledger equal those of a node that never crashed.
"""

import copy
import os
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any, Final

from cluster.raft.journal import Entry, JournalDamaged
from cluster.raft.snapshot import Snapshot, SnapshotDamaged, SnapshotFile
from fsm.codec import dump_state
from fsm.ledger import LedgerDamaged, LedgerReader
from tests.crash.volume import Image, MemoryDisk, Volume
from tests.crash.workload import (
    DIRECTORY,
    LOG_FILES,
    MACS,
    History,
    Node,
    Promises,
    apply_to,
    replayed,
    small_journal,
)

#: Of the leader that brings a restarted node up to date.
_LAST_TERM: Final = 50
_NO_INDEX: Final = 1 << 62

#: All but the log index, which nobody is served.
Rows = dict[int, tuple[Any, ...]]


class Broken(AssertionError):
    """A restarted node that broke a promise."""


@dataclass(frozen=True, slots=True)
class LogContents:
    """What the log's files say: all that a starting node takes from them."""

    entries: tuple[Entry, ...]
    term: int
    vote: str | None
    snapshot: Snapshot | None
    is_marked_fresh: bool


def contents_of(disk: MemoryDisk) -> LogContents:
    """Raises: what journal and snapshot raise for damage."""
    journal = small_journal(disk, f"{DIRECTORY}/wal", macs=MACS)
    snapshot = SnapshotFile(disk, f"{DIRECTORY}/snapshot", MACS).load()
    is_fresh = disk.exists(f"{DIRECTORY}/wal/fresh")
    return LogContents(tuple(journal.entries), journal.term, journal.vote, snapshot, is_fresh)


def recovered(image: Image) -> tuple[LogContents, Volume]:
    """As a node that starts on an image finds it, and leaves it. Raises: as `contents_of`."""
    volume = Volume(image)
    return contents_of(MemoryDisk(volume)), volume


@dataclass(frozen=True, slots=True)
class Files:
    """An image of one side, with what tells it from others."""

    image: Image
    mark: bytes

    @classmethod
    def of(cls, image: Image) -> "Files":
        hasher = blake2b(digest_size=16)
        for path in sorted(image):
            hasher.update(b"%d %d %b" % (len(path), len(image[path]), path.encode()))
            hasher.update(image[path])
        return cls(image, hasher.digest())


def rows_of(reader: LedgerReader) -> Rows:
    return {row[0]: row[:11] for row in reader.export_rows(0, _NO_INDEX, _NO_INDEX, _NO_INDEX)}


class Judge:
    """Knows how it should have ended; `scratch` is a directory for the ledgers of restarted nodes."""

    def __init__(self, history: History, scratch: str) -> None:
        self._entries = history.entries
        self._scratch = scratch
        #: State behind each entry, and every row that was ever in the ledger.
        self._states = [b""]
        self._all_rows: Rows = {}
        self._committed_at: dict[int, int] = {}  # log index, by row
        self._follow(f"{scratch}/final.db")
        self._known: dict[bytes, LogContents] = {}
        self._right: set[tuple[object, ...]] = set()
        self.images = 0
        self.restarts = 0

    def _follow(self, path: str) -> None:
        """A node that never crashes."""
        machine = replayed([], path)
        reader = LedgerReader(path)
        for entry in self._entries:
            apply_to(machine, entry)
            self._states.append(dump_state(machine.state))
            for number, row in rows_of(reader).items():
                self._all_rows[number] = row
                self._committed_at.setdefault(number, entry.log_index)
        self._final_rows = rows_of(reader)
        self._final_digest = machine.ledger_summary.digest
        reader.close()
        machine.close()

    # -- judging

    def judge_damaged(self, log: Image, ledger: Image, promises: Promises) -> str:
        """What becomes of an image in which bytes were changed: "refused at start", "found by scrub" or "harmless".

        Raises: Broken when it is none of them, or when the refusal does not name the file.
        """
        refused = "refused at start"
        try:
            recovered(log)
        except (JournalDamaged, SnapshotDamaged) as error:
            if not any(path in str(error) for path in log):
                raise Broken(f"refuses without naming a file: {error}") from error
            return refused
        path = self._unpacked(ledger)
        try:
            node = Node(MemoryDisk(Volume(log)), path)
        except LedgerDamaged as error:
            if path not in str(error):
                raise Broken(f"refuses without naming the file: {error}") from error
            return refused
        reader = LedgerReader(path)
        try:
            if reader.damage():
                return "found by scrub"
        finally:
            reader.close()
            node.machine.close()
        self._restart(log, ledger, promises)
        return "harmless"

    def judge(self, log: Files, ledger: Files, promises: Promises) -> None:
        """Raises: Broken."""
        self.images += 1
        contents = self._contents(log)
        key = (contents, ledger.mark, promises)
        if key in self._right:
            return
        self._check_log(contents, promises)
        self.restarts += 1
        self._restart(log.image, ledger.image, promises)
        self._right.add(key)

    def judge_killed(self, volume: Volume) -> None:
        """The process ends, starts again and reads what may be in memory only; then the power goes.

        Raises: Broken.
        """
        survivor = copy.deepcopy(volume)
        try:
            seen = contents_of(MemoryDisk(survivor))
            again, _ = recovered(survivor.dropped(LOG_FILES))
        except Exception as error:
            raise Broken(f"killed, it does not start: {error!r}") from error
        if again != seen:
            raise Broken(f"killed, it read {seen}; behind a power cut then it reads {again}")

    def _contents(self, log: Files) -> LogContents:
        if log.mark not in self._known:
            try:
                contents, volume = recovered(log.image)
                again, _ = recovered(volume.dropped(LOG_FILES))
            except Exception as error:
                raise Broken(f"does not start: {error!r}") from error
            if again != contents:
                raise Broken(f"a power cut behind the restart changed {contents} to {again}")
            self._known[log.mark] = contents
        return self._known[log.mark]

    def _check_log(self, contents: LogContents, promises: Promises) -> None:
        if contents.term < promises.term:
            raise Broken(f"went back to term {contents.term} from {promises.term}")
        voted_in, voted_for = promises.vote
        if voted_in and contents.term == voted_in and contents.vote != voted_for:
            raise Broken(f"forgot its vote for {voted_for} in term {voted_in}")
        covered = contents.snapshot.log_index if contents.snapshot else 0
        base = contents.entries[0].log_index if contents.entries else 1
        for entry in promises.entries:
            position = entry.log_index - base
            if entry.log_index <= covered:
                continue
            if not 0 <= position < len(contents.entries) or contents.entries[position] != entry:
                raise Broken(f"lost acknowledged entry {entry.log_index} of term {entry.term}")
        if contents.snapshot and covered > promises.committed:
            raise Broken(f"has a snapshot at {covered}, but no more than {promises.committed} is committed")

    def _restart(self, log: Image, ledger: Image, promises: Promises) -> None:
        path = self._unpacked(ledger)
        try:
            node = Node(MemoryDisk(Volume(log)), path)
        except Exception as error:
            raise Broken(f"does not start: {error!r}") from error
        reader = LedgerReader(path)
        try:
            self._check_served(node, reader, promises)
            self._check_votes(node, promises)
            self._check_end(node, reader)
        finally:
            reader.close()
            node.machine.close()

    def _unpacked(self, ledger: Image) -> str:
        path = f"{self._scratch}/ledger.db"
        for suffix in ("", "-wal", "-shm", "-journal"):
            if os.path.exists(path + suffix):
                os.unlink(path + suffix)
        for name, data in ledger.items():
            with open(self._scratch + name.removeprefix(DIRECTORY), "wb") as file:
                file.write(data)
        return path

    def _check_served(self, node: Node, reader: LedgerReader, promises: Promises) -> None:
        applied = node.raft.core.applied_index
        if applied > max(promises.committed, 1):
            raise Broken(f"has applied {applied}, but no more than {promises.committed} is committed")
        if dump_state(node.machine.state) != self._states[applied]:
            raise Broken(f"has another state at entry {applied}")
        for number, row in rows_of(reader).items():
            if self._committed_at.get(number, _NO_INDEX) > promises.committed or self._all_rows[number] != row:
                raise Broken(f"serves certificate {number}, which is not committed: {row}")
        if not node.raft.guard.is_fresh and node.last.log_index < (promises.fresh_until or _NO_INDEX):
            raise Broken("takes its disk for one that has forgotten nothing")

    def _check_votes(self, node: Node, promises: Promises) -> None:
        term, voted_for = promises.vote
        for peer in ("b", "c"):
            if term and peer != voted_for and node.ask_for_vote(peer, term):
                raise Broken(f"votes for {peer} in term {term}, after {voted_for}")

    def _check_end(self, node: Node, reader: LedgerReader) -> None:
        """A leader brings the rest: what differs from the committed log is replaced, everything is applied."""
        last = self._entries[-1]
        known = min(node.last.log_index, last.log_index)
        while True:
            start = len(node.sent)
            node.append("b", _LAST_TERM, self._entries[known:], self._entries[known - 1], 1)
            answer = [message for _, message in node.sent[start:] if message["type"] == "next_node_idx"][-1]
            if answer["success"]:
                break
            known = min(answer["next_node_idx"] - 1, known - 1)
        node.append("b", _LAST_TERM, [], last, last.log_index)
        node.machine.flush_ledger()
        if dump_state(node.machine.state) != self._states[-1]:
            raise Broken("ends in another state than a node that never crashed")
        found = rows_of(reader)
        if found != self._final_rows:
            raise Broken(f"ends with the certificates {sorted(found)}, not {sorted(self._final_rows)}")
        if node.machine.ledger_summary.digest != self._final_digest:
            raise Broken("ends with another digest of the ledger")
