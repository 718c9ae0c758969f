"""Whole snapshots on their way in or out: where they lie meanwhile, how many at a time, and how much of the disk.

They lie in the node's data directory: it is private, and it has room. What a node that was killed has left there is
removed at its next start.
"""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from cluster.base.errors import Overloaded

MAX_SAVES: Final = 2
_PREFIX: Final = "transfer-"
#: A full disk stops the node, and no snapshot is worth that.
_RESERVED_BYTES: Final = 64 << 20


class Transfers:
    """Of one node. For its event loop only."""

    def __init__(self, data_dir: Path) -> None:
        self._data_dir = data_dir
        self._saves = 0
        self._is_restoring = False

    @contextmanager
    def saving(self) -> Iterator[Path]:
        """A private directory, gone afterwards. Raises: Overloaded."""
        if self._saves >= MAX_SAVES:
            raise Overloaded(f"{MAX_SAVES} snapshots are being saved on this node already")
        # The file, and before that its content uncompressed, which is about what the ledger holds.
        self.check_room(2 * _size(self._data_dir / "ledger.db"))
        self._saves += 1
        try:
            with self._directory() as directory:
                yield directory
        finally:
            self._saves -= 1

    @contextmanager
    def restoring(self) -> Iterator[Path]:
        """A private directory, gone afterwards. Raises: Overloaded."""
        if self._is_restoring:
            raise Overloaded("a snapshot is being restored on this node already")
        self._is_restoring = True
        try:
            with self._directory() as directory:
                yield directory
        finally:
            self._is_restoring = False

    def check_room(self, wanted_bytes: int) -> None:
        """Raises: Overloaded."""
        found = os.statvfs(self._data_dir)
        free = found.f_bavail * found.f_frsize
        if free - wanted_bytes < _RESERVED_BYTES:
            raise Overloaded(
                f"the node's disk has {free} bytes left: too few for the snapshot's {wanted_bytes}"
                f" and {_RESERVED_BYTES} that stay free"
            )

    @contextmanager
    def _directory(self) -> Iterator[Path]:
        directory = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=self._data_dir))
        try:
            yield directory
        finally:
            shutil.rmtree(directory, ignore_errors=True)


def remove_leftovers(data_dir: Path) -> None:
    """Of a node that was killed in the middle. For the start, when nothing is on its way."""
    for directory in data_dir.glob(f"{_PREFIX}*"):
        shutil.rmtree(directory, ignore_errors=True)


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0
