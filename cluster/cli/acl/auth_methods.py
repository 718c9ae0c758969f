"""`quorumca acl auth-method`: how workloads log in."""

import argparse
from collections.abc import Mapping
from typing import Any, Final

from cluster.cli.acl.common import add_group, add_looking, add_meta, required, show_one
from cluster.cli.acl.flags import TEXT_OR_FILE, given, merged_texts, secret_of, text_of
from cluster.cli.acl.kinds import AUTH_METHOD
from cluster.cli.acl.pretty import quoted
from cluster.cli.api_flags import add_api_flags, api_from
from cluster.cli.arguments import Parser, Subcommands, duration_text
from cluster.cli.files import json_object
from cluster.client.errors import CommandError, Exit, failing_as
from fsm.acl import Locality, MethodType

_MAX_CONFIG_BYTES: Final = 512 << 10
#: A token of a service account is longer than one of ours.
_MAX_JWT_BYTES: Final = 64 << 10
_KUBERNETES: Final = ("kubernetes-host", "kubernetes-ca-cert", "kubernetes-service-account-jwt")
_TEXTS: Final = ("DisplayName", "Description", "MaxTokenTTL", "TokenLocality", "Config")


def add_parser(subcommands: Subcommands, name: str, summary: str) -> None:
    commands = add_group(subcommands, name, summary)
    create = commands.add_parser("create", help="make an auth method")
    _add_fields(create)
    create.set_defaults(run=run_create)

    update = commands.add_parser("update", help="change an auth method; what no flag gives stays as it is")
    _add_fields(update)
    update.add_argument("--no-merge", action="store_true", help="what no flag gives becomes empty, but for the type")
    update.set_defaults(run=run_update)
    add_looking(commands, AUTH_METHOD)


def _add_fields(parser: Parser) -> None:
    parser.add_argument("--name", metavar="NAME", help="its name")
    parser.add_argument("--type", choices=[*map(str, MethodType)], help="what a login proves itself by; for good")
    parser.add_argument("--display-name", metavar="TEXT", help="its name for people")
    parser.add_argument("--description", metavar="TEXT", help="what it is for")
    parser.add_argument(
        "--max-token-ttl", metavar="DURATION", type=duration_text, help="how long its tokens are good, as in 1h"
    )
    parser.add_argument(
        "--token-locality", choices=[*map(str, Locality)], help="where its tokens are good; default: local"
    )
    parser.add_argument("--config", metavar="JSON", help=f"its configuration, a JSON object: {TEXT_OR_FILE}")
    parser.add_argument("--kubernetes-host", metavar="URL", help="the API server of Kubernetes")
    parser.add_argument("--kubernetes-ca-cert", metavar="PEM", help=f"its CA certificate: {TEXT_OR_FILE}")
    parser.add_argument(
        "--kubernetes-service-account-jwt", metavar="JWT", help=f"what may review tokens there: {TEXT_OR_FILE}"
    )
    parser.add_argument(
        "--tls-not-before",
        metavar="NAME=MOMENT",
        action="append",
        default=[],
        type=_not_before,
        help="certificates of this name, * for every, that begin before this moment (RFC 3339) do not log in; may be"
        " repeated",
    )
    add_meta(parser)
    add_api_flags(parser, is_read=False)


def run_create(args: argparse.Namespace) -> int:
    required(args, "type", "name")
    flags = _kubernetes_flags(args)
    if args.type == MethodType.KUBERNETES and args.config is None:
        required(args, *_KUBERNETES)
    elif flags and args.type != MethodType.KUBERNETES:
        raise CommandError(f"--{flags[0]} is not allowed with --type {args.type}: must be kubernetes", Exit.USAGE)
    if args.tls_not_before and args.type != MethodType.TLS:
        raise CommandError(f"--tls-not-before is not allowed with --type {args.type}: must be tls", Exit.USAGE)
    config = {**_kubernetes(args), **_tls(args, {})} if args.config is None else _config(args)
    api = api_from(args, carries_secret=True)
    body = given({"Name": args.name, "Type": args.type, **_texts(args), "Config": config})
    with failing_as("Failed to create new auth method"):
        answer = api.json("PUT", AUTH_METHOD.create_path, body=body)
    return show_one(AUTH_METHOD, answer, args)


def run_update(args: argparse.Namespace) -> int:
    if not args.name:
        raise CommandError("Cannot update an auth method without specifying the -name parameter", Exit.USAGE)
    _kubernetes_flags(args)
    config, kubernetes = _config(args), _kubernetes(args)
    api = api_from(args, carries_secret=True)
    current = AUTH_METHOD.read(api, args.name)
    fields = {**_texts(args), "Config": config}
    if not args.no_merge:
        fields = merged_texts(current, fields, *_TEXTS)
    if kubernetes:
        fields["Config"] = {**(fields["Config"] or {}), **kubernetes}
    if args.tls_not_before:
        before = fields["Config"] or {}
        fields["Config"] = {**before, **_tls(args, before.get("NotBefore") or {})}
    body = {"Name": args.name, "Type": args.type or current.get("Type"), **given(fields)}
    with failing_as(f"Error updating auth method {quoted(args.name)}"):
        answer = api.json("PUT", AUTH_METHOD.path(args.name), body=body)
    return show_one(AUTH_METHOD, answer, args)


def _texts(args: argparse.Namespace) -> dict[str, Any]:
    return {
        "DisplayName": args.display_name,
        "Description": args.description,
        "MaxTokenTTL": args.max_token_ttl,
        "TokenLocality": args.token_locality,
    }


def _kubernetes_flags(args: argparse.Namespace) -> list[str]:
    """Those that are given. Raises: CommandError, when the configuration is given as a whole, too."""
    flags = [flag for flag in _KUBERNETES if getattr(args, flag.replace("-", "_"))]
    parts = [*flags, *(["tls-not-before"] if args.tls_not_before else [])]
    if parts and args.config is not None:
        raise CommandError(f"Cannot use '-{parts[0]}' flag with '-config' flag", Exit.USAGE)
    return flags


def _config(args: argparse.Namespace) -> dict[str, Any] | None:
    if args.config is None:
        return None
    text = text_of("--config", args.config, _MAX_CONFIG_BYTES)
    with failing_as("--config"):
        return json_object(text, "a JSON object")


def _not_before(text: str) -> tuple[str, str]:
    name, equals, moment = text.partition("=")
    if not name or not equals:
        raise argparse.ArgumentTypeError(f"{text!r:.200} is not allowed: must be NAME=MOMENT")
    return name, moment


def _tls(args: argparse.Namespace, before: Mapping[str, Any]) -> dict[str, Any]:
    """What the flag for it gives of the configuration, beside what is there."""
    return {"NotBefore": {**before, **dict(args.tls_not_before)}} if args.tls_not_before else {}


def _kubernetes(args: argparse.Namespace) -> dict[str, str]:
    """What the flags for it give of the configuration."""
    texts = {"Host": args.kubernetes_host}
    if args.kubernetes_ca_cert:
        texts["CACert"] = text_of("--kubernetes-ca-cert", args.kubernetes_ca_cert, _MAX_CONFIG_BYTES)
    if args.kubernetes_service_account_jwt:
        flag = "--kubernetes-service-account-jwt"
        texts["ServiceAccountJWT"] = secret_of(flag, args.kubernetes_service_account_jwt, _MAX_JWT_BYTES)
    return given(texts)
