"""The flags and environment variables that say which API to talk to, as whom."""

import argparse
import os
from collections.abc import Mapping
from dataclasses import replace
from typing import Final
from urllib.parse import urlsplit

from cluster.cli.arguments import Parser
from cluster.cli.files import read_text
from cluster.cli.output import waiting
from cluster.client.api import Api, Origin, TlsOptions
from cluster.client.errors import CommandError, Exit

_DEFAULT_ADDRESS: Final = "127.0.0.1:8500"
_MAX_TOKEN_BYTES: Final = 4096
_PORTS: Final = {"http": 80, "https": 443}


def add_api_flags(parser: Parser, *, is_read: bool = True, asks_many: bool = False) -> None:
    """The flags that `api_from` reads, and `--format`. `asks_many`: for `apis_from`."""
    flags = parser.add_argument_group(
        "API",
        "A flag that is not given is read from QUORUMCA_X, else CONSUL_X, where X is the name in brackets.",
    )
    flags.add_argument(
        "--http-addr",
        metavar="ADDRESS",
        action="append" if asks_many else "store",
        help=f"a node: host:port, http://host:port or https://host:port; default {_DEFAULT_ADDRESS} [HTTP_ADDR]",
    )
    tokens = flags.add_mutually_exclusive_group()
    tokens.add_argument("--token", help="ACL token [HTTP_TOKEN]")
    tokens.add_argument("--token-file", metavar="FILE", help="file with the ACL token")
    flags.add_argument("--ca-file", metavar="FILE", help="CA certificates to trust with https [CACERT]")
    flags.add_argument("--client-cert", metavar="FILE", help="client certificate [CLIENT_CERT]")
    flags.add_argument("--client-key", metavar="FILE", help="its private key [CLIENT_KEY]")
    flags.add_argument("--tls-server-name", metavar="NAME", help="name in the server's certificate [TLS_SERVER_NAME]")
    flags.add_argument("--datacenter", metavar="NAME", help="datacenter to ask; default: the node's own")
    if is_read:
        flags.add_argument("--stale", action="store_true", help="let any server answer from what it has")
    flags.add_argument("--format", choices=("pretty", "json"), default="pretty", help="pretty (default) or json")


def apis_from(args: argparse.Namespace, environment: Mapping[str, str] = os.environ) -> list[Api]:
    """One for each `--http-addr`, or for the environment's. Raises: CommandError."""
    api = api_from(argparse.Namespace(**{**vars(args), "http_addr": None}), environment)
    return [replace(api, origin=parse_address(text)) for text in dict.fromkeys(args.http_addr or ())] or [api]


def api_from(args: argparse.Namespace, environment: Mapping[str, str] = os.environ) -> Api:
    """The API that the flags and, where they are absent, the environment name. Raises: CommandError."""

    def setting(flag: str | None, name: str) -> str:
        return flag or environment.get(f"QUORUMCA_{name}") or environment.get(f"CONSUL_{name}") or ""

    query = {"dc": args.datacenter} if args.datacenter else {}
    if getattr(args, "stale", False):
        query["stale"] = ""
    tls = TlsOptions(
        ca_file=setting(args.ca_file, "CACERT"),
        cert_file=setting(args.client_cert, "CLIENT_CERT"),
        key_file=setting(args.client_key, "CLIENT_KEY"),
        server_name=setting(args.tls_server_name, "TLS_SERVER_NAME"),
    )
    if bool(tls.cert_file) != bool(tls.key_file):
        raise CommandError("--client-cert and --client-key must be given together", Exit.USAGE)
    return Api(
        origin=parse_address(setting(args.http_addr, "HTTP_ADDR") or _DEFAULT_ADDRESS),
        token=_checked_token(_token_of_file(args.token_file) or setting(args.token, "HTTP_TOKEN")),
        tls=tls,
        query=query,
        waiting=waiting,
    )


def parse_address(text: str) -> Origin:
    """Raises: CommandError."""
    has_scheme = "://" in text
    try:
        parts = urlsplit(text if has_scheme else f"http://{text}")
        port = _PORTS.get(parts.scheme) if has_scheme and parts.port is None else parts.port
        extra = parts.username is not None or parts.path.strip("/") or parts.query or parts.fragment
    except ValueError:
        parts, port, extra = urlsplit(""), None, ""
    if parts.scheme not in _PORTS or not parts.hostname or not port or extra or " " in text or not text.isprintable():
        raise CommandError(
            f"--http-addr {text!r:.200} is not allowed: must be host:port, http://host:port or https://host:port",
            Exit.USAGE,
        )
    return Origin(parts.scheme, parts.hostname, port)


def _token_of_file(name: str | None) -> str:
    if name is None:
        return ""
    token = read_text(name, _MAX_TOKEN_BYTES).strip()
    if not token:
        raise CommandError(f"{name}: holds no token")
    return token


def _checked_token(token: str) -> str:
    # It becomes a header; and an error text must not repeat it.
    if token.isascii() and token.isprintable() and " " not in token:
        return token
    raise CommandError("the ACL token is not allowed: must be printable ASCII without spaces", Exit.USAGE)
