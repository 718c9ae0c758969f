"""`quorumca acl role`: policies and identities under one name, for tokens to link to."""

import argparse
from collections.abc import Mapping
from typing import Any

from cluster.cli.acl.common import add_group, add_id_flag, add_looking, add_meta, determined_id, required, show_one
from cluster.cli.acl.flags import add_identity_flags, add_policy_flags, given, merged_texts, policy_links, with_added
from cluster.cli.acl.kinds import ROLE
from cluster.cli.acl.pretty import quoted
from cluster.cli.api_flags import add_api_flags, api_from
from cluster.cli.arguments import Parser, Subcommands
from cluster.client.api import Api, objects
from cluster.client.errors import CommandError, Exit, failing_as


def add_parser(subcommands: Subcommands, name: str, summary: str) -> None:
    commands = add_group(subcommands, name, summary)
    create = commands.add_parser("create", help="make a role")
    _add_fields(create)
    create.set_defaults(run=run_create)

    update = commands.add_parser("update", help="change a role; links are added to those that it has")
    add_id_flag(update, ROLE)
    _add_fields(update)
    update.add_argument("--no-merge", action="store_true", help="what no flag gives becomes empty")
    update.set_defaults(run=run_update)
    add_looking(commands, ROLE)


def _add_fields(parser: Parser) -> None:
    parser.add_argument("--name", metavar="NAME", help="its name")
    parser.add_argument("--description", metavar="TEXT", help="what it is for")
    add_policy_flags(parser)
    add_identity_flags(parser)
    add_meta(parser)
    add_api_flags(parser, is_read=False)


def run_create(args: argparse.Namespace) -> int:
    required(args, "name")
    if not (args.policy_name or args.policy_id or args.service_identity or args.node_identity):
        raise CommandError(
            "Cannot create a role without specifying -policy-name, -policy-id, -service-identity, or -node-identity"
            " at least once",
            Exit.USAGE,
        )
    api = api_from(args)
    body = given(_fields(api, args))
    with failing_as("Failed to create new role"):
        answer = api.json("PUT", ROLE.create_path, body=body)
    return show_one(ROLE, answer, args)


def run_update(args: argparse.Namespace) -> int:
    if not args.id:
        raise CommandError("Cannot update a role without specifying the -id parameter", Exit.USAGE)
    api = api_from(args)
    role_id = determined_id(ROLE, api, args.id)
    current = ROLE.read(api, role_id)
    fields = _fields(api, args)
    if not args.no_merge:
        fields = _merged(current, fields)
    with failing_as(f"Error updating role {quoted(role_id)}"):
        answer = api.json("PUT", ROLE.path(role_id), body={"ID": role_id, **given(fields)})
    return show_one(ROLE, answer, args)


def _fields(api: Api, args: argparse.Namespace) -> dict[str, Any]:
    return {
        "Name": args.name,
        "Description": args.description,
        "Policies": policy_links(api, args),
        "ServiceIdentities": args.service_identity,
        "NodeIdentities": args.node_identity,
    }


def _merged(current: Mapping[str, Any], fields: Mapping[str, Any]) -> dict[str, Any]:
    services = objects(current, "ServiceIdentities")
    return {
        **merged_texts(current, fields, "Name", "Description"),
        "Policies": [*objects(current, "Policies"), *fields["Policies"]],
        "ServiceIdentities": with_added(services, fields["ServiceIdentities"], "ServiceName"),
        "NodeIdentities": [*objects(current, "NodeIdentities"), *fields["NodeIdentities"]],
    }
