"""What stable storage may hold after a power cut, worked out from the operations that went before it.

A `Volume` is told every operation on files. At any moment it can say which contents a restart may find:

* of a file, what was synced, and of what was written since any part: nothing, all, the last write cut anywhere or
  with any of its sectors missing (a sector behind the old end that was never written reads as zeros);
* of a directory that was not synced, any subset of the creations, renames and removals since, in any order; what is
  in a directory that was itself lost is lost.

Stronger than what file systems do (most keep the order of directory changes), so code that survives this survives them.
"""

import errno
import itertools
import os
import random
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Final, TypeVar

SECTOR_BYTES: Final = 512
#: Up to so many sectors or directory changes every subset is tried, else each alone and all but each.
_ALL_SUBSETS: Final = 4

_T = TypeVar("_T")

#: Contents by path: what a restart finds.
Image = dict[str, bytes]
#: How the paths of some of the files start. Sides are enumerated one by one: their product would be too large.
Side = str | tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Create:
    path: str


@dataclass(frozen=True, slots=True)
class MakeDirectory:
    path: str


@dataclass(frozen=True, slots=True)
class Write:
    path: str
    offset: int
    data: bytes


@dataclass(frozen=True, slots=True)
class Truncate:
    path: str
    size: int


@dataclass(frozen=True, slots=True)
class Sync:
    path: str


@dataclass(frozen=True, slots=True)
class Rename:
    path: str
    new: str


@dataclass(frozen=True, slots=True)
class Unlink:
    path: str


@dataclass(frozen=True, slots=True)
class SyncDirectory:
    path: str


Operation = MakeDirectory | Create | Write | Truncate | Sync | Rename | Unlink | SyncDirectory


@dataclass(slots=True, eq=False)
class _File:
    cached: bytearray = field(default_factory=bytearray)  # what a process sees
    durable: bytes = b""
    pending: list[Write | Truncate] = field(default_factory=list)  # since the last sync
    is_directory: bool = False

    def change(self, operation: Write | Truncate) -> None:
        self.pending.append(operation)
        _change(self.cached, operation)

    def sync(self) -> None:
        self.pending.clear()
        self.durable = bytes(self.cached)

    def torn(self, every_byte: bool, rng: random.Random) -> Iterator[bytes]:
        """The contents that a power cut in the middle of the last write may leave, all before it being written."""
        *before, last = self.pending
        base = bytearray(self.durable)
        for operation in before:
            _change(base, operation)
        if isinstance(last, Truncate):
            yield bytes(base)
            return
        for size in _cuts(last, every_byte):
            yield _changed(base, [Write(last.path, last.offset, last.data[:size])])
        for written in _subsets(_sectors(last)):
            yield _changed(base, [Truncate(last.path, max(len(base), last.offset + len(last.data))), *written])
        if len(self.pending) > 1:
            # Writes of different times reach the disk in any order.
            yield _changed(bytearray(self.durable), (item for item in self.pending if rng.random() < 0.5))


def _change(data: bytearray, operation: Write | Truncate) -> None:
    if isinstance(operation, Truncate):
        del data[operation.size :]
        data.extend(bytes(operation.size - len(data)))
    else:
        data.extend(bytes(max(0, operation.offset - len(data))))
        data[operation.offset : operation.offset + len(operation.data)] = operation.data


def _changed(data: bytes | bytearray, operations: Iterable[Write | Truncate]) -> bytes:
    copy = bytearray(data)
    for operation in operations:
        _change(copy, operation)
    return bytes(copy)


def _cuts(write: Write, every_byte: bool) -> list[int]:
    """Where a write may end: at any byte, or near the ends of sectors and at its own ends."""
    size = len(write.data)
    if every_byte:
        return list(range(size))
    first_end = SECTOR_BYTES - write.offset % SECTOR_BYTES
    near = (end + off for end in range(first_end, size, SECTOR_BYTES) for off in (-1, 0, 1))
    return sorted({cut for cut in (0, 1, *near, size // 2, size - 1) if 0 <= cut < size})


def _sectors(write: Write) -> list[Write]:
    start, end = write.offset, write.offset + len(write.data)
    edges = [start, *range(start - start % SECTOR_BYTES + SECTOR_BYTES, end, SECTOR_BYTES), end]
    return [Write(write.path, a, write.data[a - start : b - start]) for a, b in itertools.pairwise(edges)]


def _subsets(items: list[_T]) -> Iterator[tuple[_T, ...]]:
    if len(items) <= _ALL_SUBSETS:
        for size in range(len(items) + 1):
            yield from itertools.combinations(items, size)
        return
    yield ()
    yield tuple(items)
    for position, item in enumerate(items):
        yield (item,)
        yield (*items[:position], *items[position + 1 :])


@dataclass(frozen=True, slots=True)
class _NameChange:
    directory: str
    old: str | None
    new: str | None
    file: _File

    def concerns(self, side: Side) -> bool:
        path = self.new or self.old or ""
        return path.startswith(side) or self.file.is_directory


class Volume:
    """Files of one machine, as its processes see them and as a power cut may leave them."""

    def __init__(self, image: Image | None = None) -> None:
        self._names: dict[str, _File] = {}
        self._durable_names: dict[str, _File] = {}
        self._name_changes: list[_NameChange] = []
        self._rng = random.Random(1)
        for path, data in (image or {}).items():
            self._names[path] = self._durable_names[path] = _File(bytearray(data), data)
            while path := os.path.dirname(path):
                self._names[path] = self._durable_names[path] = _File(is_directory=True)

    # -- what processes see

    def exists(self, path: str) -> bool:
        return path in self._names

    def paths(self) -> list[str]:
        return sorted(path for path, file in self._names.items() if not file.is_directory)

    def read(self, path: str) -> bytes:
        return bytes(self._names[path].cached)

    def size(self, path: str) -> int:
        return len(self._names[path].cached)

    def apply(self, operation: Operation) -> None:
        match operation:
            case Create(path) | MakeDirectory(path):
                self._names[path] = _File(is_directory=isinstance(operation, MakeDirectory))
                self._note(None, path, self._names[path])
            case Write(path) | Truncate(path):
                self._names[path].change(operation)
            case Sync(path):
                self._names[path].sync()
            case Rename(path, new):
                self._names[new] = self._names.pop(path)
                self._note(path, new, self._names[new])
            case Unlink(path):
                self._note(path, None, self._names.pop(path))
            case SyncDirectory(path):
                for change in self._name_changes:
                    if change.directory == path:
                        _move(self._durable_names, change)
                self._name_changes = [change for change in self._name_changes if change.directory != path]

    def _note(self, old: str | None, new: str | None, file: _File) -> None:
        self._name_changes.append(_NameChange(os.path.dirname(new or old or ""), old, new, file))

    # -- what a restart may find

    def kept(self, side: Side) -> Image:
        """Everything written, as after the end of a process, of the files whose path starts with `side`."""
        return _image(self._names, side, is_kept=True)

    def dropped(self, side: Side) -> Image:
        """What is on stable storage for certain."""
        return _image(self._durable_names, side, is_kept=False)

    def after_power_cut(self, side: Side, last: Operation, *, every_byte: bool) -> Iterator[Image]:
        """The images that a power cut behind `last` may leave, but for those that one before it may leave too."""
        for durable in _subsets([change for change in self._name_changes if change.concerns(side)]):
            names = dict(self._durable_names)
            for change in durable:
                _move(names, change)
            yield _image(names, side, is_kept=False)
            yield _image(names, side, is_kept=True)
        if isinstance(last, Write | Truncate) and last.path.startswith(side):
            image = self.kept(side)
            for data in self._names[last.path].torn(every_byte, self._rng):
                yield {**image, last.path: data}


def _image(names: dict[str, _File], side: Side, *, is_kept: bool) -> Image:
    return {
        path: bytes(file.cached) if is_kept else file.durable
        for path, file in names.items()
        if path.startswith(side) and not file.is_directory and _is_reachable(names, path)
    }


def _is_reachable(names: dict[str, _File], path: str) -> bool:
    while path := os.path.dirname(path):
        if path not in names:
            return False
    return True


def _move(names: dict[str, _File], change: _NameChange) -> None:
    if change.old is not None and names.get(change.old) is change.file:
        del names[change.old]
    if change.new is not None:
        names[change.new] = change.file


class MemoryDisk:
    """`cluster.raft.disk.Disk` over a volume; `note` is told each operation before it is done."""

    def __init__(self, volume: Volume, note: Callable[[Operation], None] | None = None) -> None:
        self.volume = volume
        self._note = note

    def do(self, operation: Operation) -> None:
        if self._note is not None:
            self._note(operation)
        self.volume.apply(operation)

    def make_directory(self, path: str) -> None:
        if not self.volume.exists(path):
            self.do(MakeDirectory(path))

    def list(self, path: str) -> list[str]:
        return [os.path.basename(name) for name in self.volume.paths() if os.path.dirname(name) == path]

    def exists(self, path: str) -> bool:
        return self.volume.exists(path)

    def read(self, path: str) -> bytes:
        return self.volume.read(path)

    def create(self, path: str) -> "_Handle":
        if self.volume.exists(path):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), path)
        self.do(Create(path))
        return _Handle(self, path)

    def append(self, path: str) -> "_Handle":
        return _Handle(self, path)

    def truncate(self, path: str, size_bytes: int) -> None:
        self.do(Truncate(path, size_bytes))
        self.do(Sync(path))

    def rename(self, old: str, new: str) -> None:
        self.do(Rename(old, new))

    def unlink(self, path: str) -> None:
        self.do(Unlink(path))

    def sync_directory(self, path: str) -> None:
        self.do(SyncDirectory(path))


class _Handle:
    __slots__ = ("_disk", "_path")

    def __init__(self, disk: MemoryDisk, path: str) -> None:
        self._disk = disk
        self._path = path

    def write(self, data: bytes) -> None:
        self._disk.do(Write(self._path, self._disk.volume.size(self._path), bytes(data)))

    def sync(self) -> None:
        self._disk.do(Sync(self._path))

    def close(self) -> None: ...
