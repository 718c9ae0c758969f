"""One node as a process: logging, a data directory for itself alone, signals, exit codes. node/start.py builds it.

Exit codes: 0 after SIGTERM or SIGINT, 1 when the node could not start or had to stop.
"""

import asyncio
import contextlib
import fcntl
import gc
import os
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final, NoReturn

import uvloop

from cluster.base import process
from cluster.base.allocator import limit_arenas
from cluster.base.background import report_callbacks
from cluster.base.config import NodeConfig
from cluster.base.log import Log
from cluster.base.telemetry import EventLog, configure_logging
from cluster.base.words import plain
from cluster.http.transfers import remove_leftovers
from cluster.node.last_resort import last_resort
from cluster.node.start import StartError, start_node
from cluster.raft.journal import JournalDamaged
from cluster.raft.snapshot import SnapshotDamaged
from cluster.seal.keeper_client import KeeperLost
from cluster.seal.sources import SealError
from cluster.tls.contexts import TlsFileRefused
from fsm.ledger import LedgerDamaged

_EXIT_OK: Final = 0
_EXIT_FAILED: Final = 1
#: The interpreter switches threads ten times as often as by default: Raft's must not wait for a busy API.
_SWITCH_SECONDS: Final = 0.0005
#: A request makes hundreds of objects and few cycles: looking for those every 700 objects costs 3 % of a busy node.
_GC_THRESHOLDS: Final = (20_000, 20, 20)


def run(config: NodeConfig, *, accepts_files_without_mac: bool = False, passphrase: int | None = None) -> int:
    """One node, in the foreground, until SIGTERM or SIGINT; the exit code. `passphrase`: see `KeeperProcess.start`."""
    refused = process.protect()
    configure_logging(config.log.level, config.log.format)
    log = EventLog(node=config.node_name)
    for reason in refused:
        log("node.unprotected", reason=reason)
    sys.setswitchinterval(_SWITCH_SECONDS)
    limit_arenas(2)
    try:
        with _data_dir(config.data_dir):
            remove_leftovers(config.data_dir)
            uvloop.run(_run(config, log, accepts_files_without_mac, passphrase))
    except (StartError, SealError, KeeperLost, JournalDamaged, SnapshotDamaged, LedgerDamaged, OSError) as error:
        reason = _words(error)
        log("node.failed", reason=reason)
        print(f"quorumca: {reason}", file=sys.stderr)
        return _EXIT_FAILED
    return _EXIT_OK


def _words(error: BaseException) -> str:
    """Ours are told as they are; the system's without its number, but with the file."""
    if not isinstance(error, OSError) or isinstance(error, TlsFileRefused):
        return str(error)
    return f"{error.filename}: {plain(error)}" if error.filename else plain(error)


@contextlib.contextmanager
def _data_dir(path: Path) -> Iterator[None]:
    """The directory, made if need be, for this process alone. Raises: StartError, OSError."""
    if path.exists() and not path.is_dir():
        raise StartError(f"data_dir {path} is no directory: put the right one into the configuration, or move it away")
    path.mkdir(parents=True, exist_ok=True, mode=0o700)
    fd = os.open(path / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise StartError(f"data_dir {path} is in use by another node that runs") from None
        yield
    finally:
        os.close(fd)


async def _run(config: NodeConfig, log: Log, accepts_files_without_mac: bool, passphrase: int | None) -> None:
    report_callbacks(asyncio.get_running_loop(), log)
    stopped = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    async with contextlib.AsyncExitStack() as stack:
        stack.enter_context(last_resort(asyncio.get_running_loop(), lambda reason: _report(log, reason)))
        await start_node(
            config,
            log,
            _fatal(log),
            stack,
            accepts_files_without_mac=accepts_files_without_mac,
            passphrase=passphrase,
        )
        # What is alive now stays: collections look at the rest only.
        gc.collect()
        gc.freeze()
        gc.set_threshold(*_GC_THRESHOLDS)
        await stopped.wait()
        log("node.stopping")
    log("node.stopped")


def _report(log: Log, reason: str, text: str = "") -> None:
    """Why the process is about to end, in the log and for a person."""
    log("node.failed", reason=reason)
    print(f"quorumca: {text or reason}", file=sys.stderr, flush=True)
    sys.stdout.flush()


def _fatal(log: Log) -> Callable[[BaseException], NoReturn]:
    """What ends the process when something is wrong that it must not survive."""

    def end(error: BaseException) -> NoReturn:
        _report(log, f"{type(error).__name__}: {error}", _words(error))
        os._exit(_EXIT_FAILED)

    return end
