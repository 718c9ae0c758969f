"""`quorumca acl policy`: named rules."""

import argparse
from typing import Any, Final

from cluster.cli.acl.common import (
    add_group,
    add_id_flag,
    add_looking,
    add_meta,
    check_chosen,
    key_of,
    required,
    show_one,
)
from cluster.cli.acl.flags import TEXT_OR_FILE, given, merged_texts, text_of
from cluster.cli.acl.kinds import POLICY
from cluster.cli.acl.pretty import quoted
from cluster.cli.api_flags import add_api_flags, api_from
from cluster.cli.arguments import Parser, Subcommands
from cluster.client.errors import failing_as

#: More than any policy may hold: which are too long is for the API to say, in its own words.
_MAX_RULES_BYTES: Final = 1 << 20


def add_parser(subcommands: Subcommands, name: str, summary: str) -> None:
    commands = add_group(subcommands, name, summary)
    create = commands.add_parser("create", help="make a policy")
    _add_fields(create)
    create.set_defaults(run=run_create)

    update = commands.add_parser("update", help="change a policy; what no flag gives stays as it is")
    add_id_flag(update, POLICY)
    _add_fields(update)
    update.add_argument("--no-merge", action="store_true", help="what no flag gives becomes empty")
    update.set_defaults(run=run_update)
    add_looking(commands, POLICY)


def _add_fields(parser: Parser) -> None:
    parser.add_argument("--name", metavar="NAME", help="its name")
    parser.add_argument("--description", metavar="TEXT", help="what it is for")
    parser.add_argument(
        "--valid-datacenter",
        metavar="DC",
        action="append",
        default=[],
        help="where it counts; default: everywhere; may be repeated",
    )
    parser.add_argument("--rules", metavar="RULES", help=f"HCL or JSON: {TEXT_OR_FILE}")
    add_meta(parser)
    add_api_flags(parser, is_read=False)


def run_create(args: argparse.Namespace) -> int:
    required(args, "name")
    fields = _fields(args)
    api = api_from(args)
    with failing_as("Failed to create new policy"):
        answer = api.json("PUT", POLICY.create_path, body=given(fields))
    return show_one(POLICY, answer, args)


def run_update(args: argparse.Namespace) -> int:
    """Found by `-id`, and else by `-name`; `-name` beside `-id` is a new name."""
    check_chosen(POLICY, args)
    fields = _fields(args)
    api = api_from(args)
    policy_id = key_of(POLICY, api, args)
    if not args.no_merge:
        current = POLICY.read(api, policy_id)
        fields = {
            **merged_texts(current, fields, "Name", "Description", "Rules"),
            "Datacenters": fields["Datacenters"] or current.get("Datacenters"),
        }
    with failing_as(f"Error updating policy {quoted(policy_id)}"):
        answer = api.json("PUT", POLICY.path(policy_id), body={"ID": policy_id, **given(fields)})
    return show_one(POLICY, answer, args)


def _fields(args: argparse.Namespace) -> dict[str, Any]:
    return {
        "Name": args.name,
        "Description": args.description,
        "Datacenters": args.valid_datacenter,
        "Rules": None if args.rules is None else text_of("--rules", args.rules, _MAX_RULES_BYTES),
    }
