"""Looks at a node's Raft files without changing them: what the node would find wrong with them when it starts."""

from collections.abc import Sequence
from pathlib import Path

from cluster.raft.codec import unpack_change
from cluster.raft.disk import AppendFile, RealDisk
from cluster.raft.journal import Entry, Journal, JournalDamaged
from cluster.raft.macs import FileMacs
from cluster.raft.membership import ChangeKind, Members, changed, removed_after
from cluster.raft.skips import load_skips
from cluster.raft.snapshot import Snapshot, SnapshotFile


class _Nowhere:
    """A file that takes everything and keeps nothing."""

    def write(self, data: bytes) -> None:
        pass

    def sync(self) -> None:
        pass

    def close(self) -> None:
        pass


class ReadOnlyDisk:
    """The operating system's files as they are; what would change them is not done. A `Disk`."""

    def __init__(self) -> None:
        self._real = RealDisk()

    def list(self, path: str) -> list[str]:
        return self._real.list(path)

    def exists(self, path: str) -> bool:
        return self._real.exists(path)

    def read(self, path: str) -> bytes:
        return self._real.read(path)

    def create(self, path: str) -> AppendFile:
        return _Nowhere()

    def append(self, path: str) -> AppendFile:
        return _Nowhere()

    def make_directory(self, path: str) -> None:
        pass

    def truncate(self, path: str, size_bytes: int) -> None:
        pass

    def rename(self, old: str, new: str) -> None:
        pass

    def unlink(self, path: str) -> None:
        pass

    def sync_directory(self, path: str) -> None:
        pass


def read_snapshot(data_dir: Path, macs: FileMacs | None = None) -> Snapshot | None:
    """None when there is none. Without `macs` only its checksum is looked at.

    Raises: SnapshotDamaged, naming the file; OSError.
    """
    return SnapshotFile(ReadOnlyDisk(), str(data_dir / "snapshot"), macs).load()


def read_entries(data_dir: Path) -> Sequence[Entry]:
    """The log as recovery finds it. Raises: JournalDamaged, naming file and offset; OSError."""
    return Journal(ReadOnlyDisk(), str(data_dir / "wal")).entries


def read_configuration(data_dir: Path) -> tuple[Members, frozenset[str]]:
    """The members at the end of the log, and the names of those that were removed; both empty where that is not known.

    Raises: JournalDamaged, SnapshotDamaged, MessageInvalid, OSError.
    """
    snapshot = read_snapshot(data_dir)
    members = {} if snapshot is None else {member.id: member for member in snapshot.members}
    removed = frozenset[str]() if snapshot is None else snapshot.removed
    start = 0 if snapshot is None else snapshot.log_index
    for entry in read_entries(data_dir):
        change = unpack_change(entry.command)
        if change is None or entry.log_index <= start:
            continue
        if change.kind is ChangeKind.PIN:
            members.setdefault(change.member.id, change.member)  # a founder: the log does not say that it was added
        members, removed = changed(members, change), removed_after(removed, change)
    return members, removed


def check_journal(data_dir: Path, start: int | None, macs: FileMacs | None = None) -> None:
    """And the marks of entries in it, as recovery does. `start`: the entry it must reach back to, the snapshot's or the
    first; None if not known. Without `macs` only checksums are looked at.

    Raises: JournalDamaged, naming file and offset; OSError.
    """
    load_skips(ReadOnlyDisk(), str(data_dir), macs)
    entries = Journal(ReadOnlyDisk(), str(data_dir / "wal"), macs=macs).entries
    if entries and start is not None and entries[0].log_index > start:
        raise JournalDamaged(
            f"{data_dir / 'wal'}: starts at entry {entries[0].log_index}, and no snapshot reaches up to there"
        )
