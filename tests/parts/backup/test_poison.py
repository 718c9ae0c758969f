"""Snapshots that no cluster has saved are refused, and nothing is changed: what chaos sends to real nodes."""

import random
from pathlib import Path

from cluster.base.errors import Refused
from tests.kit.backups import restore
from tests.kit.fake_cluster import Node
from tests.kit.poison import poisons


async def test_no_poison_is_restored(two: tuple[Node, Node], saved: Path, tmp_path: Path) -> None:
    """Neither by the cluster that has saved what it was made of, nor by another one with the same seal key."""
    given = list(poisons(saved.read_bytes(), random.Random(1)))
    assert len({poison.kind for poison in given}) > 20
    path = tmp_path / "poison.tgz"
    for node in two:
        before = node.cluster.state, node.cluster.log_index, node.cluster.machine.ledger_summary
        for poison in given:
            path.write_bytes(poison.data)
            try:
                await restore(node, path, is_forced=poison.is_forced)
            except Refused:
                pass
            else:
                raise AssertionError(f"restored: {poison.kind}")
            assert before == (node.cluster.state, node.cluster.log_index, node.cluster.machine.ledger_summary)
