"""Tells every file operation that SQLite does: a VFS of SQLite's own making in between, registered through ctypes.

sqlite3 in Python opens its files inside SQLite, out of reach of the Disk protocol. A copy of SQLite's default VFS whose
open, write, sync, truncate and delete report before they pass the call on shows exactly what reaches the files and when
it is synced: no guessing from file contents, and nothing assumed about when SQLite syncs. The shared-memory file (-shm)
is not reported and not needed: SQLite makes it anew from the log whenever the first process opens the ledger.
"""

import ctypes
import ctypes.util
import os
from collections.abc import Callable
from typing import Any, Final

from tests.crash.volume import Create, Operation, Sync, SyncDirectory, Truncate, Unlink, Write

_File = ctypes.c_void_p
_Int, _Int64, _Pointer = ctypes.c_int, ctypes.c_int64, ctypes.c_void_p
_WRITE: Final = ctypes.CFUNCTYPE(_Int, _File, _Pointer, _Int, _Int64)
_TRUNCATE: Final = ctypes.CFUNCTYPE(_Int, _File, _Int64)
_SYNC: Final = ctypes.CFUNCTYPE(_Int, _File, _Int)
_OPEN: Final = ctypes.CFUNCTYPE(_Int, _Pointer, _Pointer, _File, _Int, ctypes.POINTER(_Int))
_DELETE: Final = ctypes.CFUNCTYPE(_Int, _Pointer, ctypes.c_char_p, _Int)
#: From sqlite3.h.
_OK: Final = 0
_OPEN_WAL: Final = 0x00080000
_OPEN_MAIN_JOURNAL: Final = 0x00000800


class _Methods(ctypes.Structure):
    """sqlite3_io_methods, version 3."""

    _fields_ = [
        ("version", _Int),
        ("close", _Pointer),
        ("read", _Pointer),
        ("write", _WRITE),
        ("truncate", _TRUNCATE),
        ("sync", _SYNC),
        *((name, _Pointer) for name in ("size", "lock", "unlock", "check_lock", "control", "sector", "traits")),
        *((name, _Pointer) for name in ("shm_map", "shm_lock", "shm_barrier", "shm_unmap", "fetch", "unfetch")),
    ]


class _Vfs(ctypes.Structure):
    """sqlite3_vfs, version 3."""

    _fields_ = [
        ("version", _Int),
        ("file_size", _Int),
        ("max_path", _Int),
        ("next", _Pointer),
        ("name", ctypes.c_char_p),
        ("data", _Pointer),
        ("open", _OPEN),
        ("delete", _DELETE),
        *((f"other_{number}", _Pointer) for number in range(14)),
    ]


def library() -> ctypes.CDLL | None:
    """The SQLite that Python's sqlite3 uses, or None where it is no library of its own (linked into Python)."""
    import sqlite3

    name = ctypes.util.find_library("sqlite3")
    if name is None:
        return None
    found = ctypes.CDLL(name)
    found.sqlite3_sourceid.restype = ctypes.c_char_p
    with_python = sqlite3.connect(":memory:").execute("SELECT sqlite_source_id()").fetchone()[0]
    return found if found.sqlite3_sourceid().decode() == with_python else None


class RecordingVfs:
    """SQLite's default VFS while the `with` block runs; connections must be closed in it.

    `note` is told each operation on a file just before it is done. Without `note` nothing is told, and syncs are left
    out, which makes looking at many images quick.
    """

    def __init__(self, sqlite: ctypes.CDLL, note: Callable[[Operation], None] | None = None) -> None:
        self._sqlite = sqlite
        self._note = note
        sqlite.sqlite3_vfs_find.restype = ctypes.POINTER(_Vfs)
        self._original = sqlite.sqlite3_vfs_find(None)
        self._vfs = _Vfs()
        ctypes.memmove(ctypes.byref(self._vfs), self._original, ctypes.sizeof(_Vfs))
        self._vfs.name = b"recording"
        self._vfs.open = _OPEN(self._open)
        self._vfs.delete = _DELETE(self._delete)
        self._methods: dict[int, tuple[_Methods, _Methods]] = {}  # by address of the original: it, ours
        self._files: dict[int, tuple[str, _Methods]] = {}
        self._needs_directory_sync: set[int] = set()

    def __enter__(self) -> "RecordingVfs":
        self._sqlite.sqlite3_vfs_register(ctypes.byref(self._vfs), 1)
        return self

    def __exit__(self, *_: object) -> None:
        self._sqlite.sqlite3_vfs_register(self._original, 1)
        self._sqlite.sqlite3_vfs_unregister(ctypes.byref(self._vfs))

    def _tell(self, operation: Operation) -> None:
        if self._note is not None:
            self._note(operation)

    # -- called by SQLite

    def _open(self, _vfs: Any, name: int, file: int, flags: int, out_flags: Any) -> int:
        path = ctypes.string_at(name).decode() if name else ""
        is_new = bool(path) and not os.path.exists(path)
        result = int(self._original.contents.open(self._original, name, file, flags, out_flags))
        methods = ctypes.c_void_p.from_address(file)
        if result == _OK and path and methods.value:
            original, ours = self._methods_for(methods.value)
            methods.value = ctypes.addressof(ours)
            self._files[file] = (path, original)
            # unixOpen in os_unix.c: the directory is synced along with the first sync of a journal.
            self._needs_directory_sync.discard(file)
            if flags & (_OPEN_WAL | _OPEN_MAIN_JOURNAL):
                self._needs_directory_sync.add(file)
            if is_new:
                self._tell(Create(path))
        return result

    def _methods_for(self, address: int) -> tuple[_Methods, _Methods]:
        if address not in self._methods:
            original = _Methods.from_address(address)
            ours = _Methods()
            ctypes.memmove(ctypes.byref(ours), address, ctypes.sizeof(_Methods))
            ours.write, ours.truncate, ours.sync = _WRITE(self._write), _TRUNCATE(self._truncate), _SYNC(self._sync)
            self._methods[address] = original, ours
        return self._methods[address]

    def _write(self, file: int, data: int, size: int, offset: int) -> int:
        path, original = self._files[file]
        self._tell(Write(path, offset, ctypes.string_at(data, size)))
        return int(original.write(file, data, size, offset))

    def _truncate(self, file: int, size: int) -> int:
        path, original = self._files[file]
        self._tell(Truncate(path, size))
        return int(original.truncate(file, size))

    def _sync(self, file: int, flags: int) -> int:
        path, original = self._files[file]
        if self._note is None:
            return _OK
        self._tell(Sync(path))
        if file in self._needs_directory_sync:
            self._needs_directory_sync.remove(file)
            self._tell(SyncDirectory(os.path.dirname(path)))
        return int(original.sync(file, flags))

    def _delete(self, _vfs: Any, name: bytes, sync_directory: int) -> int:
        path = name.decode()
        if os.path.exists(path):
            self._tell(Unlink(path))
            if sync_directory:
                self._tell(SyncDirectory(os.path.dirname(path)))
        return int(self._original.contents.delete(self._original, name, 0 if self._note is None else sync_directory))
