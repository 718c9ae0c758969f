"""`quorumca acl bootstrap`: the first token, of a cluster that has none."""

import argparse
from typing import Final

from cluster.cli.acl.common import show_one
from cluster.cli.acl.flags import is_uuid, secret_of
from cluster.cli.acl.kinds import TOKEN
from cluster.cli.api_flags import add_api_flags, api_from
from cluster.cli.arguments import Subcommands
from cluster.client.errors import CommandError, Exit, failing_as

_BOOTSTRAP: Final = "/v1/acl/bootstrap"


def add_parser(subcommands: Subcommands, name: str, summary: str) -> None:
    parser = subcommands.add_parser(name, help=summary)
    parser.add_argument(
        "secret",
        metavar="SECRET",
        nargs="?",
        help="its secret, a UUID; or FILE, @FILE or - that it is in; default: drawn by the server",
    )
    add_api_flags(parser, is_read=False)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    secret = "" if args.secret is None else _secret(args.secret)
    api = api_from(args, carries_secret=True, hidden=(secret,))
    with failing_as("Failed ACL bootstrapping"):
        answer = api.json("PUT", _BOOTSTRAP, body={"BootstrapSecret": secret} if secret else None)
    return show_one(TOKEN, answer, args, is_secret_result=True)


def _secret(given: str) -> str:
    """Consul takes the name of a file here, and its documents speak of the secret itself: it is clear which it is."""
    if is_uuid(given):
        return given
    with failing_as("Error reading provided token"):
        secret = secret_of("SECRET", given if given == "-" or given.startswith("@") else f"@{given}")
    if not is_uuid(secret):
        raise CommandError("SECRET: the file holds what is not allowed: must be a UUID", Exit.USAGE)
    return secret
