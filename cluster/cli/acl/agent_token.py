"""`quorumca acl set-agent-token`: which token a node uses by itself."""

import argparse
from typing import Final
from urllib.parse import quote

from cluster.cli.acl.flags import TEXT_OR_FILE, is_uuid, secret_of
from cluster.cli.acl.pretty import quoted
from cluster.cli.api_flags import add_api_flags, api_from
from cluster.cli.arguments import Subcommands
from cluster.cli.output import print_success
from cluster.client.errors import Exit, failing_as

_PATH: Final = "/v1/agent/token"
#: As the API has them, and `recovery`, as Consul's command has it.
_TYPES: Final = {
    **{name: name for name in ("default", "agent", "agent_recovery", "replication")},
    **{name: name for name in ("config_file_service_registration", "dns")},
    "recovery": "agent_recovery",
}


def add_parser(subcommands: Subcommands, name: str, summary: str) -> None:
    parser = subcommands.add_parser(name, help=summary)
    parser.add_argument("type", metavar="TYPE", type=_type, help=f"what for: {', '.join(_TYPES)}")
    parser.add_argument("secret", metavar="SECRET", help=f"the token's secret: {TEXT_OR_FILE}; empty: none any more")
    add_api_flags(parser, is_read=False)
    parser.set_defaults(run=run)


def _type(text: str) -> str:
    if text in _TYPES:
        return text
    # The two arguments are easily exchanged: what looks like a secret is not repeated.
    shown = "<hidden>" if is_uuid(text) else f"{text!r:.200}"
    raise argparse.ArgumentTypeError(f"{shown} is not allowed: must be one of {', '.join(_TYPES)}")


def run(args: argparse.Namespace) -> int:
    secret = secret_of("SECRET", args.secret)
    api = api_from(args, carries_secret=True, hidden=(secret,))
    with failing_as(f"Failed to set ACL token {quoted(args.type)}"):
        api.text("PUT", f"{_PATH}/{quote(_TYPES[args.type])}", body={"Token": secret})
    print_success(f"ACL token {quoted(args.type)} set successfully", as_json=args.format == "json")
    return Exit.OK
