"""`quorumca logout`: the end of a token of a login."""

import argparse
from typing import Final

from cluster.cli.api_flags import add_api_flags, api_from
from cluster.cli.arguments import Subcommands
from cluster.cli.output import print_json
from cluster.client.errors import Exit, failing_as

LOGOUT: Final = "/v1/acl/logout"


def add_parser(subcommands: Subcommands) -> None:
    parser = subcommands.add_parser("logout", help="destroy the token of a login: the one that the command uses")
    add_api_flags(parser, is_read=False)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Says nothing, as Consul's."""
    api = api_from(args)
    with failing_as("Error destroying token"):
        api.text("POST", LOGOUT)
    if args.format == "json":
        print_json({"Success": True})
    return Exit.OK
