"""CPU and memory of every node while nobody asks anything."""

import time

from benchmarks.nodes import LocalCluster, cpu_seconds, process_tree
from benchmarks.results import NodeUsage

_MB = 1e6


def measure_idle(cluster: LocalCluster, settle_seconds: float, seconds: float) -> tuple[NodeUsage, ...]:
    """One usage per node; its CPU is that of the whole measured time."""
    leader = cluster.leader()
    time.sleep(settle_seconds)
    trees = {node.name: process_tree(node.pid) for node in cluster.nodes}
    started, before = time.monotonic(), {name: cpu_seconds(tree) for name, tree in trees.items()}
    time.sleep(seconds)
    elapsed = time.monotonic() - started
    return tuple(
        NodeUsage(
            name=name,
            is_leader=name == leader.name,
            processes=len(tree),
            cpu_percent=round(100 * (cpu_seconds(tree) - before[name]) / elapsed, 2),
            rss_mb=round(sum(process.memory_info().rss for process in tree) / _MB, 1),
            pss_mb=round(sum(process.memory_full_info().pss for process in tree) / _MB, 1),
        )
        for name, tree in trees.items()
    )
