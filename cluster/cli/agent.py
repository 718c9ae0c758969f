"""`quorumca agent`: one node in the foreground, until SIGTERM or SIGINT."""

import argparse
import os
from pathlib import Path

from cluster.base.process import protect, take_from_environment
from cluster.cli.arguments import Subcommands
from cluster.client.errors import CommandError
from cluster.seal.variables import PASSPHRASE_VARIABLE


def add_parser(subcommands: Subcommands) -> None:
    parser = subcommands.add_parser("agent", help="run one node in the foreground")
    parser.add_argument("--config", metavar="FILE", type=Path, required=True, help="the node's settings, TOML")
    parser.add_argument(
        "--accept-files-without-mac",
        action="store_true",
        help="for one start: the release before has run on this data directory again, and its files have no MAC",
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    # Before anything else is imported: there are modules that copy the environment.
    protect()
    try:
        passphrase = take_from_environment(PASSPHRASE_VARIABLE)
    except ValueError as error:
        raise CommandError(str(error)) from None

    from cluster.base.config import load_config
    from cluster.base.errors import ConfigError
    from cluster.cli.dev.cluster_file import note_pid
    from cluster.cli.files import keep_private

    keep_private()
    try:
        config = load_config(args.config)
    except ConfigError as error:
        raise CommandError(str(error)) from error
    note_pid(args.config, os.getpid())

    from cluster.main import run as run_node

    return run_node(config, accepts_files_without_mac=args.accept_files_without_mac, passphrase=passphrase)
