"""`quorumca snapshot`: save the CA and the record of certificates to a file, restore them from one, look into one."""

import argparse
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Final

from cluster.base.clock import rfc3339
from cluster.cli.api_flags import add_api_flags, api_from
from cluster.cli.arguments import Subcommands
from cluster.cli.files import new_file_at_end
from cluster.cli.output import print_json, print_success, print_table
from cluster.client.errors import CommandError, Exit, failing_as

if TYPE_CHECKING:
    from cluster.api.backups import Meta

_SNAPSHOT: Final = "/v1/snapshot"


def add_parser(subcommands: Subcommands) -> None:
    parser = subcommands.add_parser("snapshot", help="save the CA to a file, restore or look at one")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)

    save = commands.add_parser(
        "save",
        help="save the CA and the record of certificates to a new file",
        description="Private keys in it are sealed: keep the seal key too, and apart from it.",
    )
    save.add_argument("file", metavar="FILE", type=Path, help="must not exist")
    add_api_flags(save)
    save.set_defaults(run=run_save)

    restore = commands.add_parser(
        "restore",
        help="put a saved CA in the place of the cluster's",
        description="The cluster must have the seal key of the one that was saved.",
    )
    restore.add_argument("file", metavar="FILE", type=Path)
    add_api_flags(restore, is_read=False)
    restore.set_defaults(run=run_restore)

    inspect = commands.add_parser("inspect", help="check a file and say what it holds; asks no server")
    inspect.add_argument("file", metavar="FILE", type=Path)
    inspect.add_argument("--format", choices=("pretty", "json"), default="pretty", help="pretty (default) or json")
    inspect.set_defaults(run=run_inspect)


def run_save(args: argparse.Namespace) -> int:
    from cluster.backup.file import MAX_FILE_BYTES

    api = api_from(args)
    with failing_as("Error saving snapshot"), new_file_at_end(args.file) as file:
        api.download(_SNAPSHOT, file, MAX_FILE_BYTES)
        file.flush()
        with failing_as("it was received, but is not good"):
            meta = _checked(Path(file.name))
    print_success(f"Saved and verified snapshot to index {meta.index}", as_json=args.format == "json")
    return Exit.OK


def run_restore(args: argparse.Namespace) -> int:
    api = api_from(args)
    with failing_as("Error restoring snapshot"):
        _checked(args.file)
        with args.file.open("rb") as file:
            api.upload(_SNAPSHOT, file, args.file.stat().st_size)
    print_success("Restored snapshot", as_json=args.format == "json")
    return Exit.OK


def run_inspect(args: argparse.Namespace) -> int:
    with failing_as("Error inspecting snapshot"):
        meta = _checked(args.file)
        size = args.file.stat().st_size
    if args.format == "json":
        print_json({**asdict(meta), "size_bytes": size})
        return Exit.OK
    print_table(
        None,
        ("Field", "Value"),
        [
            ("Index", meta.index),
            ("Saved at", rfc3339(meta.created_at)),
            ("By", f"{meta.node} of {meta.datacenter}"),
            ("Trust domain", meta.trust_domain),
            ("Active root", meta.active_root_id),
            ("Roots", meta.roots),
            ("Certificates on record", meta.certificates),
            ("Seal key needed", f"{meta.seal_key_id} (source {meta.seal_source})"),
            ("Raft log index", meta.log_index),
            ("Format", meta.format),
            ("Bytes", size),
        ],
    )
    return Exit.OK


def _checked(path: Path) -> "Meta":
    """All of the file is read and checked. Raises: CommandError."""
    from cluster.backup import file as backup

    try:
        return backup.read(path)[0]
    except backup.SnapshotInvalid as error:
        raise CommandError(f"{path}: {error}") from error
    except OSError as error:
        raise CommandError(f"{path}: {error.strerror}") from error
