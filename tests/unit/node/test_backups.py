"""A node that saves a snapshot says at once when a restore is going to refuse it."""

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cluster.api.backups import Meta
from cluster.api.reads import ReadLevel
from cluster.node.backups import NodeBackups
from tests.kit.log import EventLog

META = Meta(1, 5, 9, 1_700_000_000, "dc1", "a", "x.consul", "aa", 1, 0, "file", "0123456789abcdef")


class Node:
    """What the node reads and saves by."""

    def __init__(self, meta: Meta) -> None:
        self._meta = meta

    async def read(self, _level: ReadLevel) -> None: ...

    async def save(self, _path: Path) -> Meta:
        return self._meta


@pytest.mark.parametrize("problem", ["", "certificate 6: record.not_before is -1"])
def test_snapshot_that_no_restore_takes_is_logged_with_the_reason(problem: str) -> None:
    log = EventLog()
    node: Any = Node(replace(META, not_restorable=problem))
    meta = asyncio.run(NodeBackups(node, node, log).save_snapshot(Path("f"), ReadLevel.STALE))
    assert meta.not_restorable == problem
    expected = [("snapshot.not_restorable", {"reason": problem, "index": 5})] if problem else []
    assert log.events == expected
