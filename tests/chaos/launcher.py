"""Runs a node in an environment that a test can hurt: `python -m tests.chaos.launcher DIR agent --config FILE`.

The product has no hooks for this. What the node takes from its surroundings is replaced before it starts: where it
dials (`DIR/book.json`, fixed), how its journal syncs and what time it is (`DIR/hurt.json`, read at every use).
"""

import json
import os
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import uvloop

import cluster.raft.replica
from cluster.base.clock import SystemClock
from cluster.cli.main import main
from cluster.raft.disk import RealDisk

BOOK: Final = "book.json"
HURT: Final = "hurt.json"


@dataclass(frozen=True, slots=True)
class Hurt:
    """What is wrong on a node's machine."""

    sync_seconds: float = 0.0  # every sync of the journal takes so much longer
    sync_errno: int = 0  # and fails
    clock_seconds: float = 0.0  # the clock is wrong by so much

    def write(self, directory: Path) -> None:
        draft = directory / f".{HURT}"
        draft.write_text(json.dumps(asdict(self)))
        os.replace(draft, directory / HURT)


def read_hurt(directory: Path) -> Hurt:
    try:
        return Hurt(**json.loads((directory / HURT).read_text()))
    except FileNotFoundError:
        return Hurt()


def _hurt_disk(directory: Path) -> None:
    def sync(fd: int) -> None:
        hurt = read_hurt(directory)
        time.sleep(hurt.sync_seconds)
        if hurt.sync_errno:
            raise OSError(hurt.sync_errno, os.strerror(hurt.sync_errno))
        os.fdatasync(fd)

    _replace(cluster.raft.replica, "RealDisk", lambda: RealDisk(sync))


def _hurt_clock(directory: Path) -> None:
    def now(_self: object) -> float:
        return time.time() + read_hurt(directory).clock_seconds

    _replace(SystemClock, "now", now)


def _dial_by_book(book: Mapping[str, str]) -> None:
    """Raft's links dial through the one method, the RPC client through the other."""
    create_connection, sock_connect = uvloop.Loop.create_connection, uvloop.Loop.sock_connect

    def translated(host: Any, port: Any) -> tuple[Any, Any]:
        there = book.get(f"{host}:{port}")
        if there is None:
            return host, port
        host, _, port = there.rpartition(":")
        return host, int(port)

    async def create(self: Any, factory: Any, host: Any = None, port: Any = None, **more: Any) -> Any:
        return await create_connection(self, factory, *translated(host, port), **more)

    async def connect(self: Any, sock: Any, address: Any) -> Any:
        return await sock_connect(self, sock, translated(*address[:2]))

    _replace(uvloop.Loop, "create_connection", create)
    _replace(uvloop.Loop, "sock_connect", connect)


def _replace(owner: Any, name: str, value: object) -> None:
    assert hasattr(owner, name), f"{owner} has no {name} any more"
    setattr(owner, name, value)


def run(directory: Path, arguments: list[str]) -> int:
    _hurt_disk(directory)
    _hurt_clock(directory)
    _dial_by_book(json.loads((directory / BOOK).read_text()))
    return main(arguments)


if __name__ == "__main__":
    sys.exit(run(Path(sys.argv[1]), sys.argv[2:]))
