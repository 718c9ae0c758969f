"""What the commands of all kinds of ACL objects share: looking at them, deleting them, showing an answer."""

import argparse
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from types import MappingProxyType
from typing import Any, Final

from cluster.cli.acl.kinds import Kind
from cluster.cli.acl.pretty import Answer, Lines, quoted
from cluster.cli.api_flags import add_api_flags, api_from
from cluster.cli.arguments import Parser, Subcommands
from cluster.cli.output import print_json, print_success
from cluster.client.api import Api
from cluster.client.errors import CommandError, Exit, failing_as

JSON_INDENT: Final = 4
_HIDDEN: Final = "<hidden>"
#: What a server of Consul's shows to whoever may write. It is in no output of ours but that of its making.
_SECRETS: Final = frozenset({"SecretID", "ServiceAccountJWT", "OIDCClientSecret"})
_NO_FILTERS: Final[Mapping[str, tuple[str, str]]] = MappingProxyType({})


def add_group(subcommands: Subcommands, name: str, summary: str) -> Subcommands:
    return subcommands.add_parser(name, help=summary).add_subparsers(metavar="COMMAND", required=True)


def add_looking(commands: Subcommands, kind: Kind, *, filters: Mapping[str, tuple[str, str]] = _NO_FILTERS) -> None:
    """`read`, `list` and `delete`. `filters` of the list: flag -> (name in the query, help)."""
    read = commands.add_parser("read", help=f"show one {kind.name}")
    add_key_flags(read, kind)
    add_meta(read)
    add_api_flags(read)
    read.set_defaults(run=partial(run_read, kind))
    _add_list(commands, kind, filters)
    add_delete(commands, kind)


def _add_list(commands: Subcommands, kind: Kind, filters: Mapping[str, tuple[str, str]]) -> None:
    parser = commands.add_parser("list", help=f"list the {kind.plural.replace('-', ' ')}")
    for flag, (_, text) in filters.items():
        parser.add_argument(f"--{flag}", metavar="NAME", help=text)
    add_meta(parser)
    add_api_flags(parser)
    parser.set_defaults(run=partial(run_list, kind, {flag: name for flag, (name, _) in filters.items()}))


def add_delete(commands: Subcommands, kind: Kind) -> None:
    parser = commands.add_parser("delete", help=f"delete one {kind.name}")
    add_key_flags(parser, kind)
    add_api_flags(parser, is_read=False)
    parser.set_defaults(run=partial(run_delete, kind))


def add_key_flags(parser: Parser, kind: Kind) -> None:
    """Which one is meant."""
    flags = parser.add_mutually_exclusive_group() if len(kind.flags) > 1 else parser
    if kind.key != "Name":
        add_id_flag(flags, kind)
    if "name" in kind.flags:
        flags.add_argument("--name", metavar="NAME", help="its name")


def add_id_flag(parser: "argparse._ActionsContainer", kind: Kind) -> None:
    # Of tokens, `-id` is Consul's older name for it.
    names = dict.fromkeys((f"--{kind.flags[0]}", "--id"))
    parser.add_argument(*names, dest="id", metavar="ID", help="its id, or the beginning that no other id has")


def add_meta(parser: Parser) -> None:
    parser.add_argument("--meta", action="store_true", help="show its indexes, and the hash of what it holds")


def required(args: argparse.Namespace, *flags: str) -> None:
    """Raises: CommandError, for the first that is not given, or is empty."""
    for flag in flags:
        if not getattr(args, flag.replace("-", "_")):
            raise CommandError(f"Missing required '-{flag}' flag", Exit.USAGE)


def run_list(kind: Kind, filters: Mapping[str, str], args: argparse.Namespace) -> int:
    query = {name: value for flag, name in filters.items() if (value := getattr(args, flag))}
    return show_list(kind, api_from(args), query, args)


def show_list(kind: Kind, api: Api, query: Mapping[str, str], args: argparse.Namespace) -> int:
    """Those that the query leaves."""
    with failing_as(f"Failed to retrieve the {kind.name} list"):
        answers = [without_secrets(answer) for answer in api.array(kind.list_path, query=query)]
        return show(answers, kind.show_list(answers, meta=args.meta), args)


def run_read(kind: Kind, args: argparse.Namespace) -> int:
    check_chosen(kind, args)
    api = api_from(args)
    if getattr(args, "id", None):
        answer = kind.read(api, determined_id(kind, api, args.id))
    else:
        answer = kind.read_by_name(api, args.name)
    return show_one(kind, answer, args)


def run_delete(kind: Kind, args: argparse.Namespace) -> int:
    check_chosen(kind, args)
    api = api_from(args)
    key = key_of(kind, api, args)
    with failing_as(f"Error deleting {kind.name} {quoted(key)}"):
        api.text("DELETE", kind.path(key))
    print_success(f"{kind.title} {quoted(key)} deleted successfully", as_json=args.format == "json")
    return Exit.OK


def check_chosen(kind: Kind, args: argparse.Namespace) -> None:
    """Raises: CommandError, when no flag says which one is meant."""
    if any(getattr(args, name, None) for name in ("id", "name")):
        return
    if len(kind.flags) == 1:
        raise CommandError(f"Must specify the -{kind.flags[0]} parameter", Exit.USAGE)
    raise CommandError(
        f"Must specify either the {' or '.join(f'-{flag}' for flag in kind.flags)} parameters", Exit.USAGE
    )


def key_of(kind: Kind, api: Api, args: argparse.Namespace) -> str:
    """What paths name the chosen one by. Raises: CommandError."""
    if getattr(args, "id", None):
        return determined_id(kind, api, args.id)
    name: str = args.name
    if kind.key == "Name":
        return name
    with failing_as(f"Error determining {kind.name} ID"):
        return kind.id_of_name(api, name)


def determined_id(kind: Kind, api: Api, given: str) -> str:
    """Raises: CommandError."""
    with failing_as(f"Error determining {kind.name} ID"):
        return kind.full_id(api, given)


def show_one(kind: Kind, answer: Answer, args: argparse.Namespace, *, is_secret_result: bool = False) -> int:
    """`is_secret_result`: its secret is what the command was for."""
    shown = answer if is_secret_result else without_secrets(answer)
    return show(shown, kind.show(shown, meta=getattr(args, "meta", False)), args)


def show(answer: Answer | Sequence[Answer], lines: Lines, args: argparse.Namespace) -> int:
    """The answer as JSON, or the lines that show it."""
    if args.format == "json":
        print_json(answer, JSON_INDENT)
    elif text := "\n".join(lines):
        sys.stdout.write(text.removesuffix("\n") + "\n")
    return Exit.OK


def without_secrets(answer: Mapping[str, Any]) -> dict[str, Any]:
    """The same with what is secret hidden, in its configuration, too."""
    return {
        name: _HIDDEN if name in _SECRETS and value else without_secrets(value) if isinstance(value, dict) else value
        for name, value in answer.items()
    }
