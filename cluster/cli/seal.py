"""`quorumca seal init`: the key that seals the CA's private keys (source "file", cluster/seal/sealer.py)."""

import argparse
from pathlib import Path
from typing import Final

from cluster.cli.arguments import Subcommands
from cluster.cli.files import keep_private
from cluster.client.errors import CommandError, Exit

_NEXT: Final = """\
Copy this file, mode 0600, to every node of the cluster: as seal.key in its data directory, or to where
seal.key_file in its configuration points. The nodes do not start with different keys or without one.
Keep a backup apart from the nodes and their backups. Without this key nobody can open the CA's private
keys again; with it and a copy of a data directory, anybody can."""


def add_parser(subcommands: Subcommands) -> None:
    parser = subcommands.add_parser("seal", help="make the key that seals the CA's private keys")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    init = commands.add_parser("init", help="make a new seal key, for a new cluster")
    init.add_argument("--key-file", metavar="FILE", type=Path, default=Path("seal.key"), help="default: seal.key")
    init.set_defaults(run=run_init)


def run_init(args: argparse.Namespace) -> int:
    from cluster.seal.sources import write_key_file

    path: Path = args.key_file
    keep_private()
    try:
        write_key_file(path)
    except FileExistsError:
        raise CommandError(
            f"{path} already exists. It is not replaced: a cluster that was sealed with it could never be opened again."
        ) from None
    except OSError as error:
        raise CommandError(f"{path}: {error.strerror}") from error
    print(f"==> Saved {path}\n{_NEXT}")
    return Exit.OK
