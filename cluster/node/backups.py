"""The CA as a file, from any node."""

from pathlib import Path

from cluster.api.access import Caller
from cluster.api.backups import Meta
from cluster.api.reads import ReadLevel
from cluster.backup.restore import Snapshots
from cluster.base.log import Log
from cluster.node.reads import NodeReads


class NodeBackups:
    """Implements `cluster.api.backups.Backups`."""

    def __init__(self, reads: NodeReads, snapshots: Snapshots, log: Log) -> None:
        self._reads = reads
        self._snapshots = snapshots
        self._log = log

    async def save_snapshot(self, path: Path, level: ReadLevel) -> Meta:
        await self._reads.read(level)
        meta = await self._snapshots.save(path)
        if meta.not_restorable:
            self._log("snapshot.not_restorable", reason=meta.not_restorable, index=meta.index)
        return meta

    async def restore_snapshot(self, caller: Caller, path: Path, *, is_forced: bool) -> tuple[str, ...]:
        return await self._snapshots.restore(path, is_forced=is_forced, caller=caller)
