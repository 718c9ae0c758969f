"""The memory of real processes, as root sees it: what the node's user must not."""

from collections.abc import Iterable, Iterator
from pathlib import Path

import psutil

from tests.kit.real_cluster import Node


def workers_of(node: Node) -> list[int]:
    return processes_of(node, "cluster.signing.worker")


def keeper_of(node: Node) -> int:
    (pid,) = processes_of(node, "cluster.seal.keeper_process")
    return pid


def processes_of(node: Node, module: str) -> list[int]:
    found = psutil.Process(node.pid).children(recursive=True)
    return [process.pid for process in found if module in process.cmdline()]


def memory_of(pid: int) -> Iterator[bytes]:
    """Every part that can be written, as it is now."""
    with open(f"/proc/{pid}/mem", "rb", 0) as memory:
        for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
            span, access, *_ = line.split()
            begin, end = (int(bound, 16) for bound in span.split("-"))
            if "rw" in access and "[v" not in line:
                try:
                    memory.seek(begin)
                    yield memory.read(end - begin)
                except OSError:  # it is gone, or cannot be read
                    continue


def holds(pid: int, needles: Iterable[bytes]) -> bool:
    needles = list(needles)
    return any(needle in part for part in memory_of(pid) for needle in needles)
