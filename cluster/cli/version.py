"""`quorumca version`."""

import argparse
from importlib.metadata import version

from cluster.cli.arguments import Subcommands
from cluster.client.errors import Exit


def add_parser(subcommands: Subcommands) -> None:
    subcommands.add_parser("version", help="print the version").set_defaults(run=run)


def run(_args: argparse.Namespace) -> int:
    print(f"quorumca {version('quorumca')}")
    return Exit.OK
