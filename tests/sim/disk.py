"""A disk in memory that forgets what it may forget: what was not synced, in every way a real one does.

Implements `cluster.raft.disk.Disk`. A process that is killed leaves everything it wrote; a power cut keeps what was
synced, and of the rest any part: appended bytes sector by sector (a sector that was not written reads as zeros, or the
file ends before it), creations, renames and removals each on its own unless their directory was synced.
"""

import errno
import os
import random
from collections.abc import Callable

SECTOR_BYTES = 512


class Crash(BaseException):
    """The process ends here, in the middle of an operation. Not an Exception: nothing may catch it on the way."""


class _File:
    __slots__ = ("data", "durable")

    def __init__(self) -> None:
        self.data = bytearray()
        self.durable = 0  # so many bytes are on stable storage

    def after_power_cut(self, rng: random.Random) -> None:
        data, durable = self.data, self.durable
        kept = rng.choice((durable, len(data), rng.randint(durable, len(data))))
        del data[kept:]
        first = durable - durable % SECTOR_BYTES
        for sector in range(first, len(data), SECTOR_BYTES):
            if rng.random() < 0.2:
                start, end = max(sector, durable), min(sector + SECTOR_BYTES, len(data))
                data[start:end] = bytes(end - start)
        self.durable = len(data)


class _Handle:
    __slots__ = ("_disk", "_file", "_life")

    def __init__(self, disk: "SimDisk", file: _File) -> None:
        self._disk = disk
        self._file = file
        self._life = disk.life

    def write(self, data: bytes) -> None:
        self._check()
        room = self._disk.operation("write", len(data))
        self._file.data += data[:room]
        if room < len(data):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def sync(self) -> None:
        self._check()
        self._disk.operation("sync")
        self._disk.syncs += 1
        if self._disk.is_syncing:
            self._file.durable = len(self._file.data)

    def close(self) -> None: ...

    def _check(self) -> None:
        if self._life != self._disk.life:
            raise AssertionError("a process that was killed goes on writing")


class SimDisk:
    """The disk of one node."""

    def __init__(self) -> None:
        self._files: dict[str, _File] = {}
        self._durable_names: dict[str, _File] = {}
        self._pending: dict[str, list[tuple[str | None, str | None, _File]]] = {}
        self.life = 0
        self.operations = 0
        #: Set to make the n-th operation from now a crash (1: the next one).
        self.crash_in: int | None = None
        #: Set to lose power in the middle of the next sync.
        self.crash_in_sync = False
        #: Set to make writes fail when so many bytes more are written.
        self.room_bytes: int | None = None
        #: Set to make every sync fail, as a dying disk does.
        self.sync_fails = False
        #: How long a sync takes; who waits for it sees `syncs` grow.
        self.sync_seconds = 0.0
        self.syncs = 0
        #: Cleared to show that the tests notice a disk that does not sync.
        self.is_syncing = True

    # -- what the node sees

    def make_directory(self, path: str) -> None: ...

    def list(self, path: str) -> list[str]:
        prefix = path + "/"
        return sorted(name[len(prefix) :] for name in self._files if name.startswith(prefix))

    def exists(self, path: str) -> bool:
        return path in self._files

    def read(self, path: str) -> bytes:
        return bytes(self._found(path).data)

    def create(self, path: str) -> _Handle:
        self.operation("create")
        if path in self._files:
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), path)
        file = self._files[path] = _File()
        self._note(None, path, file)
        return _Handle(self, file)

    def append(self, path: str) -> _Handle:
        return _Handle(self, self._found(path))

    def truncate(self, path: str, size_bytes: int) -> None:
        self.operation("truncate")
        file = self._found(path)
        del file.data[size_bytes:]
        file.durable = len(file.data)

    def rename(self, old: str, new: str) -> None:
        self.operation("rename")
        file = self._files.pop(old, None)
        if file is None:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), old)
        self._files[new] = file
        self._note(old, new, file)

    def unlink(self, path: str) -> None:
        self.operation("unlink")
        file = self._found(path)
        del self._files[path]
        self._note(path, None, file)

    def sync_directory(self, path: str) -> None:
        self.operation("sync")
        if self.is_syncing:
            for change in self._pending.pop(path, []):
                self._make_durable(change)

    # -- what happens to it

    @property
    def is_full(self) -> bool:
        """Or will be, soon."""
        return self.room_bytes is not None

    def repair(self) -> None:
        """Everything works from now on."""
        self.crash_in, self.crash_in_sync = None, False
        self.room_bytes, self.sync_fails, self.sync_seconds = None, False, 0.0

    def be_quick(self) -> None:
        self.sync_seconds = 0.0

    def kill(self) -> None:
        """The process ends; the machine lives, so its page cache does."""
        self.life += 1
        self.crash_in, self.crash_in_sync = None, False

    def cut_power(self, rng: random.Random) -> None:
        """The machine ends: only what is on stable storage is left, and whatever else happened to get there."""
        self.kill()
        for path in sorted(self._pending):
            for change in self._pending[path]:
                if rng.random() < 0.5:
                    self._make_durable(change)
        self._pending.clear()
        self._files = dict(self._durable_names)
        for path in sorted(self._files):
            self._files[path].after_power_cut(rng)

    def damage(self, path: str, change: Callable[[bytearray], object]) -> None:
        """Change a file behind the back of its owner."""
        file = self._found(path)
        change(file.data)
        file.durable = len(file.data)

    def wipe(self) -> None:
        """A new, empty disk in the place of this one."""
        self.kill()
        self._files, self._durable_names, self._pending = {}, {}, {}

    # -- inside

    def operation(self, kind: str, size_bytes: int = 0) -> int:
        """Count an operation, and let it be the last one; returns how many bytes may still be written."""
        self.operations += 1
        if self.crash_in is not None:
            self.crash_in -= 1
            if self.crash_in <= 0:
                raise Crash
        if self.crash_in_sync and kind == "sync":
            raise Crash
        if self.sync_fails and kind == "sync":
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        if self.room_bytes is not None and kind in ("write", "create"):
            room = min(size_bytes, self.room_bytes)
            self.room_bytes -= room
            if kind == "create" and self.room_bytes == 0:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return room
        return size_bytes

    def _found(self, path: str) -> _File:
        if path not in self._files:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
        return self._files[path]

    def _note(self, old: str | None, new: str | None, file: _File) -> None:
        directory = os.path.dirname(new or old or "")
        self._pending.setdefault(directory, []).append((old, new, file))

    def _make_durable(self, change: tuple[str | None, str | None, _File]) -> None:
        old, new, file = change
        if old is not None and self._durable_names.get(old) is file:
            del self._durable_names[old]
        if new is not None:
            self._durable_names[new] = file
