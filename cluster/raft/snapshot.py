"""The snapshot file: the state at one log index, checked as a whole, replaced atomically.

Owns the file `snapshot`. It is small: issued certificates live in the ledger, whose own file is made durable before the
snapshot that relies on it (see DESIGN.md, compaction).
"""

import os
import struct
import zlib
from dataclasses import dataclass
from typing import Any, Final, TypeVar

import msgpack

from cluster.raft.disk import Disk, write_atomically
from cluster.raft.membership import Member

_MAGIC: Final = b"QCASNAP1"
_LENGTHS: Final = struct.Struct("<IQ")
_CHECK: Final = struct.Struct("<I")
_FORMAT_VERSION: Final = 1

T = TypeVar("T")

MAX_STATE_BYTES: Final = 256 << 20


class SnapshotDamaged(Exception):
    """The bytes are not a whole and sound snapshot."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """State machine state after log entry (`log_index`, `term`), and the cluster's members as of that entry."""

    log_index: int
    term: int
    members: tuple[Member, ...]
    state: bytes

    def encode(self) -> bytes:
        members = [[m.id, m.raft_address, m.rpc_address, m.is_voter] for m in self.members]
        head: bytes = msgpack.packb([_FORMAT_VERSION, self.log_index, self.term, members])
        body = b"".join((_MAGIC, _LENGTHS.pack(len(head), len(self.state)), head, self.state))
        return body + _CHECK.pack(zlib.crc32(body))


def decode(data: bytes) -> Snapshot:
    """Raises: SnapshotDamaged unless every byte is as it was written."""
    start = len(_MAGIC) + _LENGTHS.size
    if len(data) < start + _CHECK.size or data[: len(_MAGIC)] != _MAGIC:
        raise SnapshotDamaged("not a snapshot")
    if zlib.crc32(data[: -_CHECK.size]) != _CHECK.unpack(data[-_CHECK.size :])[0]:
        raise SnapshotDamaged("checksum does not match")
    head_length, state_length = _LENGTHS.unpack_from(data, len(_MAGIC))
    if start + head_length + state_length + _CHECK.size != len(data):
        raise SnapshotDamaged("length does not match")
    try:
        version, log_index, term, members = msgpack.unpackb(data[start : start + head_length])
        if version != _FORMAT_VERSION:
            raise SnapshotDamaged(f"format {version!r} is not supported")
        return Snapshot(
            log_index=_count(log_index),
            term=_count(term),
            members=tuple(
                Member(_checked(a, str), _checked(b, str), _checked(c, str), is_voter=_checked(d, bool))
                for a, b, c, d in members
            ),
            state=data[start + head_length : -_CHECK.size],
        )
    except (ValueError, TypeError, ArithmeticError, RecursionError, msgpack.UnpackException) as error:
        raise SnapshotDamaged(f"bad head: {error}") from error


def _checked(value: Any, kind: type[T]) -> T:
    if type(value) is not kind:
        raise TypeError(f"{value!r} is not {kind.__name__}")
    return value


def _count(value: Any) -> int:
    """As in messages between nodes."""
    if not 0 <= _checked(value, int) < 1 << 63:
        raise ValueError(f"{value} is out of range")
    return int(value)


class SnapshotFile:
    """The one snapshot of this node."""

    def __init__(self, disk: Disk, path: str) -> None:
        self._disk = disk
        self._path = path

    def save(self, snapshot: Snapshot) -> None:
        """Durable on return; may run in any thread, one call at a time. Raises: OSError."""
        write_atomically(self._disk, self._path, snapshot.encode())

    def load(self) -> Snapshot | None:
        """None when there is none yet. Raises: SnapshotDamaged, naming the file; OSError."""
        if not self._disk.exists(self._path):
            return None
        # The process before may have been killed between renaming it and making that durable.
        self._disk.sync_directory(os.path.dirname(self._path))
        try:
            return decode(self._disk.read(self._path))
        except SnapshotDamaged as error:
            raise SnapshotDamaged(f"{self._path}: {error}") from error
