"""`quorumca acl binding-rule`: what a login gives."""

import argparse
from typing import Any, Final

from cluster.cli.acl.common import add_group, add_id_flag, add_looking, add_meta, determined_id, required, show_one
from cluster.cli.acl.flags import given, merged_texts
from cluster.cli.acl.kinds import BINDING_RULE
from cluster.cli.acl.pretty import quoted
from cluster.cli.api_flags import add_api_flags, api_from
from cluster.cli.arguments import Parser, Subcommands
from cluster.client.errors import CommandError, Exit, failing_as
from fsm.acl import BindType

_TEXTS: Final = ("Description", "BindType", "BindName", "Selector")


def add_parser(subcommands: Subcommands, name: str, summary: str) -> None:
    commands = add_group(subcommands, name, summary)
    create = commands.add_parser("create", help="make a binding rule")
    create.add_argument("--method", metavar="NAME", help="the auth method of the logins")
    _add_fields(create)
    create.set_defaults(run=run_create)

    update = commands.add_parser("update", help="change a binding rule; what no flag gives stays as it is")
    add_id_flag(update, BINDING_RULE)
    update.add_argument("--method", metavar="NAME", help="its auth method, which cannot be changed")
    _add_fields(update)
    update.add_argument("--no-merge", action="store_true", help="what no flag gives becomes empty, but for the method")
    update.set_defaults(run=run_update)
    filters = {"method": ("authmethod", "those of this auth method only")}
    add_looking(commands, BINDING_RULE, filters=filters)


def _add_fields(parser: Parser) -> None:
    parser.add_argument(
        "--bind-type", choices=[*map(str, BindType)], help="what it gives; default of a new one: service"
    )
    parser.add_argument(
        "--bind-name", metavar="NAME", help="name of what it gives; ${NAME} stands for a value that the login proves"
    )
    parser.add_argument("--selector", metavar="EXPRESSION", help="of which logins; default: of all")
    parser.add_argument("--description", metavar="TEXT", help="what it is for")
    add_meta(parser)
    add_api_flags(parser, is_read=False)


def run_create(args: argparse.Namespace) -> int:
    required(args, "method", "bind-name")
    fields = _texts(args)
    fields["BindType"] = fields["BindType"] or BindType.SERVICE
    api = api_from(args)
    with failing_as("Failed to create new binding rule"):
        answer = api.json("PUT", BINDING_RULE.create_path, body=given({"AuthMethod": args.method, **fields}))
    return show_one(BINDING_RULE, answer, args)


def run_update(args: argparse.Namespace) -> int:
    if not args.id:
        raise CommandError("Cannot update a binding rule without specifying the -id parameter", Exit.USAGE)
    if args.no_merge:
        required(args, "bind-type", "bind-name")
    api = api_from(args)
    rule_id = determined_id(BINDING_RULE, api, args.id)
    current = BINDING_RULE.read(api, rule_id)
    fields = _texts(args)
    if not args.no_merge:
        fields = merged_texts(current, fields, *_TEXTS)
    body = {"ID": rule_id, "AuthMethod": args.method or current.get("AuthMethod"), **given(fields)}
    with failing_as(f"Error updating binding rule {quoted(rule_id)}"):
        answer = api.json("PUT", BINDING_RULE.path(rule_id), body=body)
    return show_one(BINDING_RULE, answer, args)


def _texts(args: argparse.Namespace) -> dict[str, Any]:
    return {
        "Description": args.description,
        "BindType": args.bind_type,
        "BindName": args.bind_name,
        "Selector": args.selector,
    }
