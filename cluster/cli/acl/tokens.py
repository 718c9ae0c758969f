"""`quorumca acl token`: what callers prove themselves by, and which rights it gives."""

import argparse
from collections.abc import Mapping
from typing import Any, Final

from cluster.cli.acl import pretty
from cluster.cli.acl.common import (
    add_delete,
    add_group,
    add_key_flags,
    add_meta,
    check_chosen,
    determined_id,
    show,
    show_list,
    show_one,
    without_secrets,
)
from cluster.cli.acl.flags import (
    TEXT_OR_FILE,
    add_identity_flags,
    add_policy_flags,
    add_role_flags,
    given,
    policy_links,
    role_links,
    secret_of,
    with_added,
)
from cluster.cli.acl.kinds import POLICY, ROLE, TOKEN
from cluster.cli.acl.pretty import quoted
from cluster.cli.api_flags import add_api_flags, api_from
from cluster.cli.arguments import Parser, Subcommands, duration_text
from cluster.client.api import Api, objects
from cluster.client.errors import CommandError, Exit, failing_as

_SELF: Final = "self"
_APPEND: Final = "append-"
#: Fields of a token that lists of flags give, and their names in Consul's texts.
_LISTS: Final = {
    "Policies": ("policy-id/policy-name flags", "policies", "policy-id", "policy-name"),
    "Roles": ("role-id/role-name flags", "roles", "role-id", "role-name"),
    "ServiceIdentities": ("service-identity flag", "service identities", "service-identity"),
    "NodeIdentities": ("node-identity flag", "node identities", "node-identity"),
}
#: The server's own fields: not sent back. Nor is the secret, which nobody but its owner has.
_NOT_SENT: Final = frozenset({"SecretID", "CreateTime", "Hash", "CreateIndex", "ModifyIndex"})


def add_parser(subcommands: Subcommands, name: str, summary: str) -> None:
    commands = add_group(subcommands, name, summary)
    _add_create(commands)
    _add_update(commands)
    _add_read(commands)
    _add_clone(commands)
    _add_list(commands)
    add_delete(commands, TOKEN)


def _add_list(commands: Subcommands) -> None:
    parser = commands.add_parser("list", help="list the tokens: all, or those that one filter leaves")
    filters = parser.add_mutually_exclusive_group()
    for kind in (POLICY, ROLE):
        text = f"those with a link to this {kind.name}"
        filters.add_argument(f"--{kind.name}-id", metavar="ID", help=f"{text}: its id, or the beginning of it")
        filters.add_argument(f"--{kind.name}-name", metavar="NAME", help=f"{text}, by its name")
    filters.add_argument("--service-identity", metavar="NAME", help="those with the identity of this service")
    filters.add_argument("--method", metavar="NAME", help="those of logins by this auth method")
    add_meta(parser)
    add_api_flags(parser)
    parser.set_defaults(run=run_list)


def run_list(args: argparse.Namespace) -> int:
    api = api_from(args)
    return show_list(TOKEN, api, _list_query(api, args), args)


def _list_query(api: Api, args: argparse.Namespace) -> dict[str, str]:
    """The API filters by ids of policies and roles. Raises: CommandError."""
    if args.service_identity:
        return {"servicename": args.service_identity}
    if args.method:
        return {"authmethod": args.method}
    for kind in (POLICY, ROLE):
        if name := getattr(args, f"{kind.name}_name"):
            with failing_as(f"Error determining {kind.name} ID"):
                return {kind.name: kind.id_of_name(api, name)}
        if given_id := getattr(args, f"{kind.name}_id"):
            return {kind.name: determined_id(kind, api, given_id)}
    return {}


def _add_create(commands: Subcommands) -> None:
    create = commands.add_parser("create", help="make a token, and show its secret: this once only")
    create.add_argument("--accessor", metavar="UUID", help="its accessor id; default: drawn by the server")
    create.add_argument("--secret", metavar="UUID", help=f"its secret: {TEXT_OR_FILE}; default: drawn by the server")
    create.add_argument("--local", action="store_true", help="good in this datacenter only")
    create.add_argument("--expires-ttl", metavar="DURATION", type=duration_text, help="until it expires, as in 8h")
    _add_fields(create)
    create.set_defaults(run=run_create)


def _add_update(commands: Subcommands) -> None:
    update = commands.add_parser(
        "update", help="change a token", description="Flags of a list replace that list; those with append- add to it."
    )
    add_key_flags(update, TOKEN)
    _add_fields(update)
    add_policy_flags(update, _APPEND)
    add_role_flags(update, _APPEND)
    add_identity_flags(update, _APPEND)
    for _, things, *_ in _LISTS.values():
        update.add_argument(_merge_flag(things), action="store_true", help=f"add to the {things}, as append- flags do")
    update.set_defaults(run=run_update)


def _add_read(commands: Subcommands) -> None:
    read = commands.add_parser("read", help="show one token")
    add_key_flags(read, TOKEN)
    read.add_argument("--self", action="store_true", help="the one that the command itself uses")
    read.add_argument("--expanded", action="store_true", help="with the rules of all that it links to")
    add_meta(read)
    add_api_flags(read)
    read.set_defaults(run=run_read)


def _add_clone(commands: Subcommands) -> None:
    clone = commands.add_parser("clone", help="make a token like another, and show its secret: this once only")
    add_key_flags(clone, TOKEN)
    clone.add_argument("--description", metavar="TEXT", help="what the new one is for")
    add_api_flags(clone, is_read=False)
    clone.set_defaults(run=run_clone)


def _add_fields(parser: Parser) -> None:
    parser.add_argument("--description", metavar="TEXT", help="what it is for")
    add_policy_flags(parser)
    add_role_flags(parser)
    add_identity_flags(parser)
    add_meta(parser)
    add_api_flags(parser, is_read=False)


def run_create(args: argparse.Namespace) -> int:
    if not any(_is_given(args, field) for field in _LISTS):
        raise CommandError(
            "Cannot create a token without specifying -policy-name, -policy-id, -role-name, -role-id,"
            " -service-identity, or -node-identity at least once",
            Exit.USAGE,
        )
    secret = secret_of("--secret", args.secret) if args.secret else ""
    api = api_from(args, carries_secret=True, hidden=(secret,))
    body = given(
        {
            "AccessorID": args.accessor,
            "SecretID": secret,
            "Description": args.description,
            "Local": args.local,
            "ExpirationTTL": args.expires_ttl,
            **_lists(api, args),
        }
    )
    with failing_as("Failed to create new token"):
        answer = api.json("PUT", TOKEN.create_path, body=body)
    return show_one(TOKEN, answer, args, is_secret_result=True)


def run_update(args: argparse.Namespace) -> int:
    if not args.id:
        raise CommandError("Cannot update a token without specifying the -accessor-id parameter", Exit.USAGE)
    _check_not_both(args)
    api = api_from(args)
    accessor_id = determined_id(TOKEN, api, args.id)
    with failing_as("Error when retrieving current token"):
        current = api.json("GET", TOKEN.path(accessor_id))
    body = {name: value for name, value in current.items() if name not in _NOT_SENT}
    if args.description is not None:
        body["Description"] = args.description
    lists, added = _lists(api, args), _lists(api, args, _APPEND)
    for field, (_, things, *_) in _LISTS.items():
        if getattr(args, _merge_flag(things).strip("-").replace("-", "_")):
            added[field] = [*added[field], *lists.pop(field)]
    body |= given(lists)
    body |= given(_with_appended(current, added))
    with failing_as(f"Failed to update token {quoted(accessor_id)}"):
        answer = api.json("PUT", TOKEN.path(accessor_id), body=body)
    return show_one(TOKEN, answer, args)


def run_read(args: argparse.Namespace) -> int:
    if args.self and args.id:
        raise CommandError("--self and --accessor-id cannot be given together", Exit.USAGE)
    if not args.self:
        check_chosen(TOKEN, args)
    api = api_from(args)
    key = _SELF if args.self else determined_id(TOKEN, api, args.id)
    with failing_as("Error reading token" if args.self else f"Error reading token {quoted(key)}"):
        answer = api.json("GET", TOKEN.path(key), query={"expanded": "true"} if args.expanded else {})
        if not args.expanded:
            return show_one(TOKEN, answer, args)
        shown = without_secrets(answer)
        return show(shown, pretty.expanded_token(shown, meta=args.meta), args)


def run_clone(args: argparse.Namespace) -> int:
    check_chosen(TOKEN, args)
    api = api_from(args, carries_secret=True)
    accessor_id = determined_id(TOKEN, api, args.id)
    with failing_as("Error cloning token"):
        body = {"Description": args.description or ""}
        answer = api.json("PUT", f"{TOKEN.path(accessor_id)}/clone", body=body)
    return show_one(TOKEN, answer, args, is_secret_result=True)


def _lists(api: Api, args: argparse.Namespace, prefix: str = "") -> dict[str, list[dict[str, Any]]]:
    under = prefix.replace("-", "_")
    return {
        "Policies": policy_links(api, args, under),
        "Roles": role_links(api, args, under),
        "ServiceIdentities": getattr(args, f"{under}service_identity"),
        "NodeIdentities": getattr(args, f"{under}node_identity"),
    }


def _with_appended(current: Mapping[str, Any], lists: Mapping[str, list[dict[str, Any]]]) -> dict[str, Any]:
    """Empty where nothing is appended. Links that are there already are the server's to leave out."""
    added: dict[str, Any] = {name: [*objects(current, name), *more] for name, more in lists.items() if more}
    if services := lists["ServiceIdentities"]:
        added["ServiceIdentities"] = with_added(objects(current, "ServiceIdentities"), services, "ServiceName")
    return added


def _merge_flag(things: str) -> str:
    """Consul's older way to say append-."""
    return f"--merge-{things.replace(' ', '-')}"


def _is_given(args: argparse.Namespace, field: str, prefix: str = "") -> bool:
    return any(getattr(args, f"{prefix}{flag}".replace("-", "_")) for flag in _LISTS[field][2:])


def _check_not_both(args: argparse.Namespace) -> None:
    for field, (flags, things, *names) in _LISTS.items():
        if _is_given(args, field) and _is_given(args, field, _APPEND):
            replacing = " or ".join(f"-{name}" for name in names)
            adding = " or ".join(f"-{_APPEND}{name}" for name in names)
            raise CommandError(
                f"Cannot combine the use of {flags} with append- variants. To set or overwrite existing {things}, use"
                f" {replacing}. To append to existing {things}, use {adding}.",
                Exit.USAGE,
            )
