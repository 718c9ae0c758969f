"""The flags and environment variables that say which API to talk to, as whom."""

import argparse
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Final
from urllib.parse import urlsplit

from cluster.cli.arguments import Parser
from cluster.cli.files import FORM_OF_SECRETS, is_secret, read_secret
from cluster.cli.output import waiting
from cluster.client.api import Api, Origin, TlsOptions
from cluster.client.errors import CommandError, Exit, failing_as

_DEFAULT_ADDRESS: Final = "127.0.0.1:8500"
MAX_TOKEN_BYTES: Final = 4096
_TOKEN_VARIABLES: Final = ("QUORUMCA_HTTP", "CONSUL_HTTP")
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
    add_token_flags(flags)
    flags.add_argument(
        "--allow-cleartext-token",
        action="store_true",
        help="send tokens without TLS to other machines, too: whoever is on the way can read them",
    )
    flags.add_argument("--ca-file", metavar="FILE", help="CA certificates to trust with https [CACERT]")
    flags.add_argument("--client-cert", metavar="FILE", help="client certificate [CLIENT_CERT]")
    flags.add_argument("--client-key", metavar="FILE", help="its private key [CLIENT_KEY]")
    flags.add_argument("--tls-server-name", metavar="NAME", help="name in the server's certificate [TLS_SERVER_NAME]")
    flags.add_argument("--datacenter", metavar="NAME", help="datacenter to ask; default: the node's own")
    if is_read:
        flags.add_argument("--stale", action="store_true", help="let any server answer from what it has")
    flags.add_argument("--format", choices=("pretty", "json"), default="pretty", help="pretty (default) or json")


def add_token_flags(parser: "argparse._ActionsContainer", *, default: object = None) -> None:
    """The flags that `token_from` reads."""
    tokens = parser.add_mutually_exclusive_group()
    tokens.add_argument(
        "--token", default=default, help="ACL token [HTTP_TOKEN]; others on this machine may see it: use a file"
    )
    tokens.add_argument(
        "--token-file", metavar="FILE", default=default, help="file with the ACL token [HTTP_TOKEN_FILE]"
    )


def apis_from(args: argparse.Namespace, environment: Mapping[str, str] = os.environ) -> list[Api]:
    """One for each `--http-addr`, or for the environment's. Raises: CommandError."""
    return _apis(args.http_addr or (), args, environment)


def api_from(
    args: argparse.Namespace,
    environment: Mapping[str, str] = os.environ,
    *,
    carries_secret: bool = False,
    hidden: tuple[str, ...] = (),
    needs_token: bool = True,
) -> Api:
    """The API that the flags and, where they are absent, the environment name. `carries_secret`: requests or answers
    hold a token besides that of the header; `hidden` are those known before. Without `needs_token` no token is looked
    for: its file may be what the command is to make. Raises: CommandError.
    """
    addresses = [args.http_addr] if args.http_addr else []
    token = None if needs_token else ""
    return replace(_apis(addresses, args, environment, carries_secret=carries_secret, token=token)[0], hidden=hidden)


def _apis(
    addresses: Sequence[str],
    args: argparse.Namespace,
    environment: Mapping[str, str],
    *,
    carries_secret: bool = False,
    token: str | None = None,
) -> list[Api]:
    """One for each address, or for the environment's when there is none. `token`: None for what the flags and the
    environment have.
    """

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
    if token is None:
        token = token_from(args, environment)
    apis = [
        Api(origin=parse_address(text), token=token, tls=tls, query=query, waiting=waiting)
        for text in dict.fromkeys(addresses or [setting(None, "HTTP_ADDR") or _DEFAULT_ADDRESS])
    ]
    if (token or carries_secret) and not args.allow_cleartext_token:
        for api in apis:
            _check_private(api)
    return apis


def _check_private(api: Api) -> None:
    if not api.origin.is_private:
        raise CommandError(
            f"--http-addr {api.origin} is not allowed: a secret would be sent in clear: must be https or on loopback;"
            " --allow-cleartext-token sends it all the same",
            Exit.USAGE,
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


def token_from(args: argparse.Namespace, environment: Mapping[str, str] = os.environ) -> str:
    """The flag's, else that of our variables, else of Consul's; of each the file first, as Consul's client."""
    files = [f"{name}_TOKEN_FILE" for name in _TOKEN_VARIABLES]
    given = [("--token-file", args.token_file, args.token)]
    given += [(file, environment.get(file), environment.get(file.removesuffix("_FILE"))) for file in files]
    source, file, token = next((one for one in given if one[1] or one[2]), ("", None, None))
    if not file:
        return checked_token(token or "")
    with failing_as(source):
        return read_secret(file, MAX_TOKEN_BYTES)


def checked_token(token: str) -> str:
    """Raises: CommandError, whose text does not repeat it."""
    if is_secret(token):
        return token
    raise CommandError(f"the ACL token is not allowed: must be {FORM_OF_SECRETS}", Exit.USAGE)
