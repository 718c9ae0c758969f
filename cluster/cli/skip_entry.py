"""`quorumca operator raft skip-entry`: have a stopped node pass over an entry of its log (docs/recovery.md).

For the case that all nodes end at the same entry, whatever it is. Works on the node's files alone.
"""

import argparse
import os
import sqlite3
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from cluster.cli.arguments import Subcommands
from cluster.cli.locks import LockHeld, locked
from cluster.client.errors import CommandError, Exit

if TYPE_CHECKING:
    from cluster.raft.macs import FileMacs
    from cluster.seal.sources import KeySource

_FAILED: Final = "Error marking entry"
_NEXT: Final = """\
Do the same on every node, before any of them is started, and compare index, term and sha256: they must be the same.
Then start them all, and compare what GET /v1/operator/digest?stale answers on each."""


def add_parser(commands: Subcommands) -> None:
    skip = commands.add_parser(
        "skip-entry",
        help="have a stopped node pass over an entry of its log that ends it",
        description="Marks one entry in a stopped node's data directory, to be passed over when it is applied. Every"
        " node of the cluster needs the same mark, or their states part. See docs/recovery.md.",
    )
    skip.add_argument("--data-dir", metavar="DIR", type=Path, required=True, help="of the node, which must not run")
    skip.add_argument("--index", metavar="N", type=int, required=True, help="the entry's index in the Raft log")
    keys = skip.add_mutually_exclusive_group()
    keys.add_argument("--seal-key", metavar="FILE", type=Path, help="the node's; default: seal.key in its directory")
    keys.add_argument("--seal-passphrase-file", metavar="FILE", type=Path, help="the same where a passphrase seals")
    skip.add_argument("--dry-run", action="store_true", help="show the entry, and mark nothing")
    skip.add_argument("--undo", action="store_true", help="take the mark away again")
    skip.set_defaults(run=run_skip_entry)


def run_skip_entry(args: argparse.Namespace) -> int:
    from cluster.raft.journal import JournalDamaged
    from cluster.raft.snapshot import SnapshotDamaged
    from fsm.ledger import LedgerDamaged

    if not (args.data_dir / "wal").is_dir():
        raise CommandError(f"{_FAILED}: {args.data_dir} is no data directory of a node: it has no wal/")
    try:
        with locked(args.data_dir / "lock"):
            _skip_entry(args, args.data_dir, args.index)
    except LockHeld:
        raise CommandError(f"{_FAILED}: a node runs on {args.data_dir}: stop it first") from None
    except (JournalDamaged, SnapshotDamaged, LedgerDamaged, sqlite3.Error, OSError) as error:
        raise CommandError(f"{_FAILED}: {error}") from error
    return Exit.OK


def _skip_entry(args: argparse.Namespace, data_dir: Path, log_index: int) -> None:
    from cluster.raft.disk import RealDisk
    from cluster.raft.inspection import read_entries
    from cluster.raft.skips import FILE, Skip, load_skips, save_skips

    _refuse_applied(data_dir, log_index)
    entries = read_entries(data_dir)
    entry = _found(entries, log_index)
    _refuse_kinds(entry)
    skip = Skip.of(entry)
    # To look at an entry takes no key.
    disk, macs = RealDisk(), None if args.dry_run else _macs(data_dir, args)
    marked = load_skips(disk, str(data_dir), macs)
    if args.undo and skip not in marked:
        raise CommandError(f"{_FAILED}: entry {log_index} is not marked")
    print(f"Entry:  {skip.log_index}\nTerm:   {skip.term}\nSha256: {skip.sha256}")
    for line in _described(entry.command):
        print(f"Holds:  {line}")
    print(f"Behind: {entries[-1].log_index - log_index} entries, which will be applied without it")
    if args.dry_run:
        return
    save_skips(disk, str(data_dir), marked - {skip} if args.undo else marked | {skip}, macs)
    _give_to_owner(data_dir, FILE)
    print(f"==> {'Took away the mark of' if args.undo else 'Marked'} entry {log_index} in {data_dir}\n{_NEXT}")


def _macs(data_dir: Path, args: argparse.Namespace) -> "FileMacs | None":
    """Of the node's own files: it takes no mark that anybody could have made. None where only a release before MACs has
    run. Raises: CommandError, OSError.
    """
    from cluster.raft.macs import FileMacs
    from cluster.seal.disk_key import MAC_KEY, DiskKeyFile
    from cluster.seal.node_file import NodeFile
    from cluster.seal.sealer import Sealer
    from cluster.seal.sources import NEXT_KEY, FileKey, SealError

    if not (data_dir / MAC_KEY).exists():
        return None
    try:
        name = (NodeFile(data_dir).read() or {}).get("node_name")
        if not isinstance(name, str):
            raise ValueError("node.json does not say whose data this is")
        sealer = Sealer(_source(data_dir, args), FileKey(data_dir / NEXT_KEY))
        found = DiskKeyFile(data_dir, name, sealer).found()
    except (SealError, ValueError) as error:
        raise CommandError(
            f"{_FAILED}: marks carry a MAC of the node, which takes its seal key (--seal-key, --seal-passphrase-file):"
            f" {error}"
        ) from error
    return None if found is None else FileMacs(found.key, is_required=found.is_required)


def _source(data_dir: Path, args: argparse.Namespace) -> "KeySource":
    """Raises: SealError."""
    from cluster.seal.sources import KEY, FileKey, passphrase_in

    if args.seal_passphrase_file is not None:
        return passphrase_in(args.seal_passphrase_file)
    return FileKey(args.seal_key or data_dir / KEY)


def _refuse_applied(data_dir: Path, log_index: int) -> None:
    """What has taken effect here, on disk, cannot be passed over any more. Raises: CommandError."""
    from cluster.raft.inspection import read_snapshot
    from fsm.ledger import LedgerReader

    snapshot = read_snapshot(data_dir)
    if snapshot is not None and log_index <= snapshot.log_index:
        raise CommandError(
            f"{_FAILED}: entry {log_index} is applied: this node's snapshot is of entry {snapshot.log_index}"
        )
    ledger = data_dir / "ledger.db"
    if not ledger.exists():
        return
    reader = LedgerReader(str(ledger))
    try:
        applied = reader.summary().applied_log_index
    finally:
        reader.close()
    if log_index <= applied:
        raise CommandError(f"{_FAILED}: entry {log_index} is applied: this node's ledger goes up to entry {applied}")


def _found(entries: Sequence[Any], log_index: int) -> Any:
    """Raises: CommandError."""
    first, last = (entries[0].log_index, entries[-1].log_index) if entries else (0, 0)
    if not entries or not first <= log_index <= last:
        raise CommandError(
            f"{_FAILED}: entry {log_index} is not in this node's log, which holds entries {first} to {last};"
            " it can be marked once the node has got it"
        )
    return entries[log_index - first]


def _refuse_kinds(entry: Any) -> None:
    """Raises: CommandError."""
    from cluster.raft import codec

    if entry.command[0] == codec.MEMBERSHIP:
        raise CommandError(
            f"{_FAILED}: entry {entry.log_index} changes the servers, which is in force since it is in the log:"
            " use add-peer and remove-peer"
        )
    if entry.command[0] != codec.REGULAR:
        raise CommandError(f"{_FAILED}: entry {entry.log_index} holds nothing that is applied")


def _described(entry: bytes) -> Iterator[str]:
    """What its commands are, as far as they can be read."""
    from cluster.raft.codec import MessageInvalid, unpack_batch
    from fsm.codec import CodecError, load_command
    from fsm.leaves import RecordLeaves

    try:
        _, _, commands = unpack_batch(entry)
    except MessageInvalid as error:
        yield f"{len(entry)} bytes that cannot be read: {error}"
        return
    for command in commands:
        try:
            loaded = load_command(command)
        except CodecError as error:
            yield f"a command of {len(command)} bytes that cannot be read: {error!s:.200}"
            continue
        many = f" of {len(loaded.records)} certificates" if isinstance(loaded, RecordLeaves) else ""
        yield f"{type(loaded).__name__}{many}, {len(command)} bytes"


def _give_to_owner(data_dir: Path, name: str) -> None:
    """An administrator may do this; the node's user has to read it."""
    if os.geteuid() == 0:
        owner = data_dir.stat()
        os.chown(data_dir / name, owner.st_uid, owner.st_gid)
