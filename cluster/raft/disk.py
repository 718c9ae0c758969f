"""The file operations that the journal and the snapshot store need, and nothing else.

One narrow door to the disk lets tests put a simulated disk behind the same code: one that loses, tears or refuses what
was not synced, at every point (crash-point enumeration), or that is full or slow.
"""

import os
from collections.abc import Callable
from typing import Protocol


class AppendFile(Protocol):
    """A file open for appending."""

    def write(self, data: bytes) -> None:
        """Append all of `data`; not durable before `sync`."""
        ...

    def sync(self) -> None:
        """Return once everything written so far is on stable storage."""
        ...

    def close(self) -> None: ...


class Disk(Protocol):
    """Paths are strings; every error is an OSError."""

    def make_directory(self, path: str) -> None: ...
    def list(self, path: str) -> list[str]: ...
    def exists(self, path: str) -> bool: ...
    def read(self, path: str) -> bytes: ...
    def create(self, path: str) -> AppendFile:
        """A new file, mode 0600; FileExistsError if there is one already."""
        ...

    def append(self, path: str) -> AppendFile: ...
    def truncate(self, path: str, size_bytes: int) -> None:
        """Cut and sync."""
        ...

    def rename(self, old: str, new: str) -> None: ...
    def unlink(self, path: str) -> None: ...
    def sync_directory(self, path: str) -> None:
        """Make creations, renames and removals in this directory durable."""
        ...


class _RealAppendFile:
    __slots__ = ("_fd", "_sync")

    def __init__(self, fd: int, sync: Callable[[int], None]) -> None:
        self._fd = fd
        self._sync = sync

    def write(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            view = view[os.write(self._fd, view) :]

    def sync(self) -> None:
        self._sync(self._fd)

    def close(self) -> None:
        os.close(self._fd)


class RealDisk:
    """The operating system's files."""

    def __init__(self, sync: Callable[[int], None] = os.fdatasync) -> None:
        # fdatasync also writes the new length of an appended file, which is all the metadata that recovery needs.
        self._sync = sync

    def make_directory(self, path: str) -> None:
        os.makedirs(path, mode=0o700, exist_ok=True)

    def list(self, path: str) -> list[str]:
        return sorted(os.listdir(path))

    def exists(self, path: str) -> bool:
        return os.path.exists(path)

    def read(self, path: str) -> bytes:
        with open(path, "rb") as file:
            # What the disk holds counts, not what the page cache remembers of it.
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            return file.read()

    def create(self, path: str) -> AppendFile:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC
        return _RealAppendFile(os.open(path, flags, 0o600), self._sync)

    def append(self, path: str) -> AppendFile:
        return _RealAppendFile(os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC), self._sync)

    def truncate(self, path: str, size_bytes: int) -> None:
        fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.ftruncate(fd, size_bytes)
            os.fsync(fd)
        finally:
            os.close(fd)

    def rename(self, old: str, new: str) -> None:
        os.rename(old, new)

    def unlink(self, path: str) -> None:
        os.unlink(path)

    def sync_directory(self, path: str) -> None:
        fd = os.open(path or ".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)


def write_atomically(disk: Disk, path: str, *parts: bytes) -> None:
    """Replace `path` by the given bytes: after a crash either the old or the new content is there, whole."""
    temporary = path + ".tmp"
    if disk.exists(temporary):
        disk.unlink(temporary)
    file = disk.create(temporary)
    try:
        for part in parts:
            file.write(part)
        file.sync()
    finally:
        file.close()
    disk.rename(temporary, path)
    disk.sync_directory(os.path.dirname(path))
