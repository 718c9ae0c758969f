"""What is wrong with a node's data directory. Reads only: not even what SQLite does for reading is done in place."""

import fcntl
import os
import shutil
import sqlite3
import stat
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from cluster.base.config import NodeConfig
from cluster.base.names import is_loopback
from cluster.base.words import plain
from cluster.doctor.findings import Finding, critical, note, warning
from cluster.raft.inspection import check_journal, read_snapshot
from cluster.raft.journal import JournalDamaged
from cluster.raft.macs import FileMacs
from cluster.raft.snapshot import SnapshotDamaged
from cluster.seal.disk_key import MAC_KEY, DiskKeyFile
from cluster.seal.node_file import NodeFile
from cluster.seal.sealer import Sealer
from cluster.seal.secret_files import SecretFileError, exposure
from cluster.seal.sources import SealError, key_source, next_sources
from fsm.codec import CodecError, load_state
from fsm.ledger import LedgerReader

_FULL_BYTES: Final = 64 << 20
#: Of a node that runs, the files change while they are read.
_TRIES_WHILE_RUNNING: Final = 5
_REPLACE: Final = (
    "if the others have a quorum: quorumca operator raft remove-peer -id {name}, then a new node with an empty data"
    " directory under a new name; else keep this directory, and see docs/recovery.md"
)
_AS_ITS_USER: Final = (
    "run this as the user that the node runs as (sudo -u quorumca quorumca doctor --config FILE), or as root; if the"
    " node itself cannot read it: ls -l, chown, chmod"
)
_LEDGER_FILES: Final = ("ledger.db", "ledger.db-wal")


def is_in_use(data_dir: Path) -> bool:
    """Whether a node runs on it."""
    try:
        fd = os.open(data_dir / "lock", os.O_RDONLY)
    except OSError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(fd)
    return False


def check_data_dir(config: NodeConfig, *, is_running: bool) -> Iterator[Finding]:
    path = config.data_dir
    is_directory = _is_directory(path)
    if is_directory is False:
        yield critical(
            "data-dir-no-directory",
            path,
            "is no directory",
            "The node does not start: it keeps all that it has in there.",
            "put the right data_dir into the configuration, or move what is there away: the node makes the directory",
        )
        return
    if is_directory is None:
        yield _is_new(config)
    elif not os.access(path, os.R_OK | os.X_OK):
        yield critical(
            "data-dir-closed",
            path,
            "cannot be read by you",
            "Its content could not be looked at.",
            "run this as the user that the node runs as: sudo -u quorumca quorumca doctor --config FILE",
        )
        return
    else:
        yield from _check_space(config)
        yield from _check_parts(config)
    yield from _check_seal(config)
    if is_directory:
        macs = _macs(config)
        if isinstance(macs, Finding):
            yield macs
            macs = None
        yield from _check_snapshot(config, macs)
        yield from _check_journal(config, macs, is_running=is_running)
        if not is_running:  # a node that runs checks it by itself, and its metrics say what it has found
            yield from _check_ledger(config)


def _is_directory(path: Path) -> bool | None:
    """None: there is nothing yet."""
    try:
        return stat.S_ISDIR(path.stat().st_mode)
    except FileNotFoundError:
        return None
    except PermissionError:
        return True  # as far as can be seen
    except OSError:
        return False


def _is_new(config: NodeConfig) -> Finding:
    is_founder = any(server.name == config.node_name for server in config.servers)
    return note(
        "data-dir-new",
        config.data_dir,
        "there is no data directory yet",
        "The node makes it, and begins a new cluster with the others in `servers`: right for a new one only."
        if is_founder
        else "The node makes it, and waits to be given the cluster's data by the others.",
        "start it"
        if _has_key(config)
        else "give it the seal key first: copy it from another node; for a new cluster quorumca seal init",
    )


def _has_key(config: NodeConfig) -> bool:
    try:
        Sealer(key_source(config)).check_node(None)
    except SealError:
        return False
    return True


def _check_space(config: NodeConfig) -> Iterator[Finding]:
    found = os.statvfs(config.data_dir)
    free = found.f_bavail * found.f_frsize
    if free < config.limits.disk_alarm_mb << 20:
        make = critical if free < _FULL_BYTES else warning
        yield make(
            "disk-low",
            config.data_dir,
            f"{free / (1 << 20):.0f} MiB are left, the alarm is at {config.limits.disk_alarm_mb}",
            "A node that cannot write its log stops.",
            f"df -h {config.data_dir}; make room, or move the data to a larger disk",
        )


def _check_parts(config: NodeConfig) -> Iterator[Finding]:
    """A node that has forgotten what it has promised must not come back under its name."""
    path = config.data_dir
    has_log = any((path / "wal").glob("*.wal"))
    rest = [name for name in ("snapshot", "ledger.db") if (path / name).exists()]
    if rest and not has_log:
        yield critical(
            "log-missing",
            path / "wal",
            f"the log is missing beside {' and '.join(rest)}",
            "The node would start having forgotten its votes and what it has acknowledged: the cluster could lose"
            " certificates.",
            "do not start it; restore the whole directory, or " + _REPLACE.format(name=config.node_name),
        )
    elif has_log and not (path / "ledger.db").exists():
        yield critical(
            "ledger-missing",
            path / "ledger.db",
            "the record of certificates is missing beside the log",
            "The node cannot make it again from a log that was compacted.",
            _REPLACE.format(name=config.node_name),
        )


# -- the seal


def _check_seal(config: NodeConfig) -> Iterator[Finding]:
    node_json = config.data_dir / "node.json"
    try:
        facts = NodeFile(config.data_dir).read()
    except (ValueError, OSError) as error:
        yield critical(
            "node-file-damaged",
            node_json,
            plain(error) if isinstance(error, OSError) else str(error),
            "The node does not start: it cannot tell whose data this is.",
            _AS_ITS_USER
            if isinstance(error, PermissionError)
            else f"if the rest is sound, and only then: mv {node_json} {node_json}.damaged, and start it",
        )
        facts = None
    owner = (config.node_name, config.datacenter)
    if facts is not None and (found := (facts.get("node_name"), facts.get("datacenter"))) != owner:
        yield critical(
            "other-nodes-data",
            config.data_dir,
            f"belongs to node {found[0]} of {found[1]}, not to {owner[0]} of {owner[1]}",
            "Two nodes on the same data would vote twice.",
            "put the right data_dir into the configuration",
        )
    seal = facts.get("seal") if facts is not None else None
    try:
        Sealer(key_source(config), *next_sources(config)).check_node(seal)
    except SealError as error:
        yield critical(
            "seal",
            _key_path(config) or "the passphrase",
            str(error),
            "Without the right seal key the CA's private keys cannot be opened, and the node does not start.",
            _seal_remedy(error),
        )
    else:
        yield from _check_moved(config, seal)
    yield from _check_exposed(config)


def _key_path(config: NodeConfig) -> Path | None:
    """None: the passphrase is in the environment."""
    if config.seal.source == "file":
        return config.seal.key_file or config.data_dir / "seal.key"
    return config.seal.passphrase_file


def _seal_remedy(error: SealError) -> str:
    """A key that is there and cannot be read is not a wrong one: nothing is mended by another copy."""
    if isinstance(error.__cause__, PermissionError):
        return _AS_ITS_USER
    if isinstance(error.__cause__, SecretFileError):
        return "do as it says: the file itself may be the right one"
    return "copy the seal key from another node of this cluster or from your backup; lost: docs/recovery.md"


def _check_moved(config: NodeConfig, seal: Mapping[str, Any] | None) -> Iterator[Finding]:
    """The node starts with either key; whoever takes the next one for a leftover and removes it has none."""
    try:
        Sealer(key_source(config)).check_node(seal)
    except SealError:
        yield warning(
            "seal-key-not-moved",
            _key_path(config) or "the passphrase",
            "the seal key in force is the next one of a change (seal.next...), and not this",
            "When the next one is removed, or another change begins in its place, the node does not start any more.",
            "quorumca seal status says where it belongs; then restart the node, and remove the next one:"
            " docs/recovery.md (Another seal key)",
        )


def _check_exposed(config: NodeConfig) -> Iterator[Finding]:
    path = _key_path(config)
    try:
        problem = exposure(path, path.stat()) if path is not None else ""
    except OSError:
        return
    if problem:
        why = "Who has it and a copy of a data directory, or of a snapshot, has the CA: the node does not start."
        yield critical("key-exposed", path, problem, why, f"chmod 600 {path}")
    elif path is not None and _is_within(path, config.data_dir) and not is_loopback(config.raft_address):
        # Where all servers are on one machine nothing is gained by another place.
        yield warning(
            "key-beside-data",
            path,
            "the seal key is kept beside what it opens",
            "A copy of the data directory, a backup of the disk, has the CA.",
            "keep it elsewhere and name the place in seal.key_file, as deploy/quorumca.service does (LoadCredential)",
        )


def _is_within(path: Path, directory: Path) -> bool:
    return Path(os.path.realpath(directory)) in Path(os.path.realpath(path)).parents


# -- Raft's files and the ledger


def _macs(config: NodeConfig) -> FileMacs | Finding | None:
    """None before a node of this release has started on it, or when it is another node's or its seal key is not the
    right one, which is told already.
    """
    try:
        facts = NodeFile(config.data_dir).read() or {}
        sealer = Sealer(key_source(config))
        sealer.check_node(facts.get("seal"))
    except (SealError, ValueError, OSError):
        return None
    if facts.get("node_name", config.node_name) != config.node_name:
        return None
    try:
        found = DiskKeyFile(config.data_dir, config.node_name, sealer).found()
    except (SealError, OSError) as error:
        return critical(
            "mac-key",
            config.data_dir / MAC_KEY,
            str(error),
            "The node does not start: it could not tell its own files from changed ones.",
            _REPLACE.format(name=config.node_name),
        )
    return None if found is None else FileMacs(found.key, is_required=found.is_required)


def _check_snapshot(config: NodeConfig, macs: FileMacs | None) -> Iterator[Finding]:
    try:
        snapshot = read_snapshot(config.data_dir, macs)
        seal = None if snapshot is None else load_state(snapshot.state).seal
    except (SnapshotDamaged, CodecError, OSError) as error:
        yield critical(
            "snapshot-damaged",
            config.data_dir / "snapshot",
            str(error),
            "The node does not start: without it the log has no beginning.",
            _REPLACE.format(name=config.node_name),
        )
        return
    if seal is not None:
        try:
            Sealer(key_source(config), *next_sources(config)).unlock(seal)
        except SealError as error:
            yield critical(
                "seal",
                config.data_dir / "snapshot",
                str(error),
                "The CA's private keys in it cannot be opened.",
                _seal_remedy(error),
            )


def _check_journal(config: NodeConfig, macs: FileMacs | None, *, is_running: bool) -> Iterator[Finding]:
    if not (config.data_dir / "wal").is_dir():
        return
    found = ""
    for _ in range(_TRIES_WHILE_RUNNING if is_running else 1):
        found = _journal_damage(config.data_dir, macs)
        if not found:
            return
    yield critical(
        "journal-damaged",
        config.data_dir / "wal",
        found,
        "The node does not start: a log that has lost a part could forget a vote or a certificate.",
        _REPLACE.format(name=config.node_name),
    )


def _journal_damage(data_dir: Path, macs: FileMacs | None) -> str:
    try:
        check_journal(data_dir, _log_start(data_dir), macs)
    except (JournalDamaged, OSError) as error:
        return str(error)
    return ""


def _log_start(data_dir: Path) -> int | None:
    """Where the log must begin at the latest; None if the snapshot, which says so, is damaged."""
    try:
        snapshot = read_snapshot(data_dir)
    except SnapshotDamaged:
        return None
    return 1 if snapshot is None else snapshot.log_index


def _check_ledger(config: NodeConfig) -> Iterator[Finding]:
    if not (config.data_dir / "ledger.db").exists():
        return
    if found := _ledger_damage(config.data_dir):
        yield critical(
            "ledger-damaged",
            config.data_dir / "ledger.db",
            found,
            "Look-ups on this node may be wrong, and the disk behind it cannot be trusted.",
            _REPLACE.format(name=config.node_name),
        )


def _ledger_damage(data_dir: Path) -> str:
    """Checks a copy: SQLite cannot read a file that has a write-ahead log without making others beside it."""
    size = sum(path.stat().st_size for name in _LEDGER_FILES if (path := data_dir / name).exists())
    with tempfile.TemporaryDirectory(prefix="quorumca-doctor-") as directory:
        if shutil.disk_usage(directory).free < size + _FULL_BYTES:
            return ""  # the node itself checks it, every hour
        try:
            for name in _LEDGER_FILES:
                if (data_dir / name).exists():
                    shutil.copyfile(data_dir / name, Path(directory, name))
            reader = LedgerReader(str(Path(directory, "ledger.db")))
        except (OSError, sqlite3.Error) as error:
            return str(error)
        try:
            return reader.damage()
        finally:
            reader.close()
