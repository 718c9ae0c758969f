"""Lock files between processes of one machine: released by the system however their holder ends."""

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

_PAUSE_SECONDS: Final = 0.02


class LockHeld(Exception):
    """Another process has it. The text is that process's id as far as the file tells, else empty."""


@contextmanager
def locked(path: Path, *, timeout: float = 0.0) -> Iterator[None]:
    """Hold the lock during the block; the file stays. Raises: LockHeld, OSError.

    Not inherited: what the block starts does not keep the lock.
    """
    fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        _acquire(fd, time.monotonic() + timeout)
        os.ftruncate(fd, 0)
        os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)
        yield
    finally:
        os.close(fd)


def _acquire(fd: int, deadline: float) -> None:
    while True:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if time.monotonic() >= deadline:
                raise LockHeld(os.pread(fd, 20, 0).decode("ascii", "replace").strip()) from None
        time.sleep(_PAUSE_SECONDS)
