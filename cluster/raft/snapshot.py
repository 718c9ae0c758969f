"""The snapshot file: the state at one log index, checked as a whole, replaced atomically.

Owns the file `snapshot`. It is small: issued certificates live in the ledger, whose own file is made durable before the
snapshot that relies on it (see DESIGN.md, compaction).

Its MAC, if there is a key (macs.py), is in a file beside it, which a release before MACs leaves alone: `snapshot.mac`
is written first, and holds the MAC of the snapshot that is to be replaced too, so that no crash leaves one without.
"""

import os
import struct
import zlib
from dataclasses import dataclass
from typing import Any, Final, TypeVar

import msgpack

from cluster.base.bounds import check_value
from cluster.raft.codec import is_keys
from cluster.raft.disk import Disk, write_atomically
from cluster.raft.macs import MAC_BYTES, REMEDY, FileMacs, is_same
from cluster.raft.membership import Member

_MAGIC: Final = b"QCASNAP1"
_LENGTHS: Final = struct.Struct("<IQ")
_CHECK: Final = struct.Struct("<I")
_FORMAT_VERSION: Final = 1
_MACS_MAGIC: Final = b"QCAMAC1\n"
_MAX_MACS: Final = 2
#: With the keys of the members and the names that were removed, once there are any.
_PINNED_FORMAT_VERSION: Final = 2

T = TypeVar("T")

#: Of what another node sends. A state is configuration and roots, some ten KiB each, and access control, whose room
#: ends before this (cluster/access/room.py); one that is saved or restored ends at 1 MiB (cluster/backup). This node's
#: own file may be of any size: a release without the bound may have written it.
MAX_STATE_BYTES: Final = 8 << 20
#: Members, and every name that was ever removed.
MAX_HEAD_BYTES: Final = 1 << 20
_MAX_HEAD_VALUES: Final = 100_000
_MAX_HEAD_DEPTH: Final = 8


class SnapshotDamaged(Exception):
    """The bytes are not a whole and sound snapshot."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """State machine state after log entry (`log_index`, `term`), and as of that entry the cluster's members, and the
    names of servers that were removed.
    """

    log_index: int
    term: int
    members: tuple[Member, ...]
    state: bytes
    removed: frozenset[str] = frozenset()

    def encode(self) -> bytes:
        members: list[list[object]] = [[m.id, m.raft_address, m.rpc_address, m.is_voter] for m in self.members]
        head: bytes
        if self.removed or any(member.keys for member in self.members):
            keyed = [[*row, list(member.keys)] for row, member in zip(members, self.members, strict=True)]
            head = msgpack.packb([_PINNED_FORMAT_VERSION, self.log_index, self.term, keyed, sorted(self.removed)])
        else:
            head = msgpack.packb([_FORMAT_VERSION, self.log_index, self.term, members])
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
    if head_length > MAX_HEAD_BYTES:
        raise SnapshotDamaged(f"bad head: it has {head_length} bytes, there may be {MAX_HEAD_BYTES}")
    try:
        check_value(data[start : start + head_length], max_items=_MAX_HEAD_VALUES, max_depth=_MAX_HEAD_DEPTH)
        version, log_index, term, members, *pinned = msgpack.unpackb(data[start : start + head_length])
        if (version, len(pinned)) not in ((_FORMAT_VERSION, 0), (_PINNED_FORMAT_VERSION, 1)):
            raise SnapshotDamaged(f"format {version!r} is not supported")
        return Snapshot(
            log_index=_count(log_index),
            term=_count(term),
            members=tuple(_member(row, is_pinned=bool(pinned)) for row in members),
            state=data[start + head_length : -_CHECK.size],
            removed=frozenset(_checked(name, str) for names in pinned for name in names),
        )
    except (ValueError, TypeError, ArithmeticError, RecursionError, msgpack.UnpackException) as error:
        raise SnapshotDamaged(f"bad head: {error}") from error


def _member(row: Any, *, is_pinned: bool) -> Member:
    """Raises: ValueError, TypeError."""
    name, raft_address, rpc_address, is_voter, *rest = row
    (keys,) = rest if is_pinned else (rest,)
    if not is_keys(keys):
        raise ValueError(f"keys of {name!r:.80}")
    addresses = _checked(raft_address, str), _checked(rpc_address, str)
    return Member(_checked(name, str), *addresses, is_voter=_checked(is_voter, bool), keys=tuple(keys))


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

    def __init__(self, disk: Disk, path: str, macs: FileMacs | None = None) -> None:
        self._disk = disk
        self._path = path
        self._macs = macs
        self._mac: bytes | None = None  # of the file as it is
        self.lacks_mac = False  # whether it was loaded without one

    def save(self, snapshot: Snapshot) -> None:
        """Durable on return; may run in any thread, one call at a time. Raises: OSError."""
        data = snapshot.encode()
        if self._macs is None:
            write_atomically(self._disk, self._path, data)
            return
        mac = self._macs.snapshot(data)
        known = b"".join((_MACS_MAGIC, self._mac or b"", mac))
        write_atomically(self._disk, self._macs_path, known + _CHECK.pack(zlib.crc32(known)))
        write_atomically(self._disk, self._path, data)
        self._mac = mac

    @property
    def _macs_path(self) -> str:
        return f"{self._path}.mac"

    def load(self) -> Snapshot | None:
        """None when there is none yet. Raises: SnapshotDamaged, naming the file; OSError."""
        if not self._disk.exists(self._path):
            return None
        # The process before may have been killed between renaming it and making that durable.
        self._disk.sync_directory(os.path.dirname(self._path))
        data = self._disk.read(self._path)
        try:
            snapshot = decode(data)
        except SnapshotDamaged as error:
            raise SnapshotDamaged(f"{self._path}: {error}") from error
        if self._macs is not None:
            self._check_mac(data, self._macs)
        return snapshot

    def _check_mac(self, data: bytes, macs: FileMacs) -> None:
        """Raises: SnapshotDamaged."""
        if not self._disk.exists(self._macs_path):
            if macs.is_required:
                raise SnapshotDamaged(
                    f"{self._path}: it has no MAC ({self._macs_path} is missing): it was not written by this release;"
                    f" {REMEDY}"
                )
            self.lacks_mac = True
            return
        mac = macs.snapshot(data)
        if not any(is_same(mac, known) for known in self._known_macs()):
            raise SnapshotDamaged(
                f"{self._path}: its MAC in {self._macs_path} is wrong: it was changed by somebody who does not have"
                f" this node's key; {REMEDY}"
            )
        if self._mac is None:  # at the start; later it may be another one already
            self._mac = mac

    def _known_macs(self) -> list[bytes]:
        data = self._disk.read(self._macs_path)
        body, check = data[: -_CHECK.size], data[-_CHECK.size :]
        macs = body.removeprefix(_MACS_MAGIC)
        count, rest = divmod(len(macs), MAC_BYTES)
        if check != _CHECK.pack(zlib.crc32(body)) or macs == body or rest or not 1 <= count <= _MAX_MACS:
            raise SnapshotDamaged(f"{self._macs_path}: damaged")
        return [macs[start : start + MAC_BYTES] for start in range(0, len(macs), MAC_BYTES)]
