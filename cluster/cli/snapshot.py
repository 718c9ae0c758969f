"""`quorumca snapshot`: save the CA and the record of certificates to a file, restore them from one, look into one."""

import argparse
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Final

from cluster.base.clock import rfc3339
from cluster.cli.api_flags import add_api_flags, api_from
from cluster.cli.arguments import Subcommands
from cluster.cli.files import keep_private, new_file_at_end
from cluster.cli.output import print_json, print_success, print_table
from cluster.client.errors import CommandError, Exit, failing_as
from cluster.client.texts import printable

if TYPE_CHECKING:
    from cluster.backup.file import Saved

_SNAPSHOT: Final = "/v1/snapshot"
_AUTHENTICATED: Final = {
    True: "yes, by a cluster with this seal key",
    False: "NO: it was changed after it was saved, or put together from several",
    None: "not checked: give --seal-key",
}
_NO_MAC: Final = "NO: it has no MAC (saved by a release before MACs, or changed)"


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
    restore.add_argument(
        "--force",
        action="store_true",
        help="take a file without a MAC (but none of its tokens), and trust in roots that are no longer listed there",
    )
    add_api_flags(restore, is_read=False)
    restore.set_defaults(run=run_restore)

    inspect = commands.add_parser("inspect", help="check a file and say what it holds; asks no server")
    inspect.add_argument("file", metavar="FILE", type=Path)
    keys = inspect.add_mutually_exclusive_group()
    keys.add_argument("--seal-key", metavar="FILE", type=Path, help="seal key to check the MAC with")
    keys.add_argument("--seal-passphrase-file", metavar="FILE", type=Path, help="the same where a passphrase seals")
    inspect.add_argument("--format", choices=("pretty", "json"), default="pretty", help="pretty (default) or json")
    inspect.set_defaults(run=run_inspect)


def run_save(args: argparse.Namespace) -> int:
    from cluster.backup.file import MAX_FILE_BYTES

    keep_private()
    api = api_from(args)
    with failing_as("Error saving snapshot"), new_file_at_end(args.file) as file:
        api.download(_SNAPSHOT, file, MAX_FILE_BYTES)
        file.flush()
        with failing_as("it was received, but is not good"):
            meta = _checked(Path(file.name)).meta
    print_success(f"Saved and verified snapshot to index {meta.index}", as_json=args.format == "json")
    return Exit.OK


def run_restore(args: argparse.Namespace) -> int:
    api = api_from(args)
    with failing_as("Error restoring snapshot"):
        _checked(args.file)
        with args.file.open("rb") as file:
            query = {"force": "true"} if args.force else {}
            notes = api.upload(_SNAPSHOT, file, args.file.stat().st_size, query=query).splitlines()
    if args.format == "json":
        print_json({"Success": True, **({"Notes": notes} if notes else {})})
        return Exit.OK
    print_success("Restored snapshot", as_json=False)
    for text in notes:
        print(printable(text))
    return Exit.OK


def run_inspect(args: argparse.Namespace) -> int:
    with failing_as("Error inspecting snapshot"):
        saved = _checked(args.file)
        is_authentic = _is_authentic(saved, args)
        size = args.file.stat().st_size
    meta, code = saved.meta, Exit.FAILED if is_authentic is False else Exit.OK
    tokens = len(saved.state.acl.tokens)
    if args.format == "json":
        facts = {"size_bytes": size, "has_mac": saved.has_mac, "is_authenticated": is_authentic, "tokens": tokens}
        print_json({**asdict(meta), **facts})
        return code
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
            ("Tokens", tokens),
            ("Seal key needed", f"{meta.seal_key_id} (source {meta.seal_source})"),
            ("Raft log index", meta.log_index),
            ("Authenticated", _AUTHENTICATED[is_authentic] if saved.has_mac else _NO_MAC),
            ("Format", meta.format),
            ("Bytes", size),
        ],
    )
    return code


def _is_authentic(saved: "Saved", args: argparse.Namespace) -> bool | None:
    """None when no seal key was given. Raises: CommandError."""
    from cluster.seal.sealer import Sealer
    from cluster.seal.sources import FileKey, KeySource, SealError, passphrase_in

    if args.seal_key is None and args.seal_passphrase_file is None:
        return None
    try:
        source: KeySource = FileKey(args.seal_key) if args.seal_key else passphrase_in(args.seal_passphrase_file)
        if saved.state.seal is None:
            return False
        return saved.is_authentic(Sealer(source).opened(saved.state.seal).mac)
    except SealError as error:
        raise CommandError(f"{args.file}: {error}") from error


def _checked(path: Path) -> "Saved":
    """All of the file is read and checked, but for its MAC. Raises: CommandError."""
    from cluster.backup import file as backup

    try:
        saved = backup.read(path)
        saved.check_rows()
        return saved
    except backup.SnapshotInvalid as error:
        raise CommandError(f"{path}: {error}") from error
    except OSError as error:
        raise CommandError(f"{path}: {error.strerror}") from error
