"""`quorumca login`: a token for what somebody else vouches for. It goes into a file and is shown nowhere."""

import argparse
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from cluster.cli.acl.common import JSON_INDENT, required, without_secrets
from cluster.cli.acl.logout import LOGOUT
from cluster.cli.api_flags import add_api_flags, api_from
from cluster.cli.arguments import Subcommands
from cluster.cli.files import is_secret, read_secret, replaced_at_end
from cluster.cli.output import print_json
from cluster.client.api import Api
from cluster.client.errors import CommandError, Exit, failing_as

_LOGIN: Final = "/v1/acl/login"
_MAX_BEARER_BYTES: Final = 64 << 10
_SINK_FAILED: Final = "Error writing token to file sink"


def add_parser(subcommands: Subcommands) -> None:
    parser = subcommands.add_parser("login", help="get a token by an auth method, into a file")
    parser.add_argument("--method", metavar="NAME", help="the auth method")
    parser.add_argument(
        "--bearer-token-file",
        metavar="FILE",
        help="what proves who asks, such as a JWT; without it, a certificate does, for the type tls",
    )
    parser.add_argument(
        "--proof-cert",
        metavar="FILE",
        help="the certificate that proves who asks, where that is not --client-cert, which is for the connection",
    )
    parser.add_argument("--proof-key", metavar="FILE", help="its private key")
    parser.add_argument("--type", metavar="TYPE", help="the method's; passed over, as it has one")
    parser.add_argument(
        "--token-sink-file",
        metavar="FILE",
        type=Path,
        help="where the token's secret goes, for this user only; a file that is there is replaced",
    )
    parser.add_argument(
        "--meta",
        metavar="KEY=VALUE",
        action="append",
        default=[],
        type=_meta,
        help="said in the token's description; may be repeated",
    )
    add_api_flags(parser, is_read=False)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    required(args, "method", "token-sink-file")
    # The token that is asked for is the only one that counts, and the variables may name the file that it goes into.
    api = api_from(args, carries_secret=True, needs_token=False)
    bearer = _bearer(api, args)
    api = replace(api, hidden=(bearer,))
    with ExitStack() as sink:
        # Before there is a token that could not be stored.
        with failing_as(_SINK_FAILED):
            file = sink.enter_context(replaced_at_end(args.token_sink_file))
        answer, secret = _login(api, args, bearer)
        try:
            with failing_as(_SINK_FAILED):
                file.write(secret.encode("ascii"))
                sink.close()
        except CommandError:
            _forget(replace(api, token=secret))
            raise
    if args.format == "json":
        print_json(without_secrets(answer), JSON_INDENT)
    return Exit.OK


def _login(api: Api, args: argparse.Namespace, bearer: str) -> tuple[dict[str, Any], str]:
    """The answer, and the token's secret."""
    body: dict[str, Any] = {"AuthMethod": args.method, "BearerToken": bearer}
    if args.meta:
        body["Meta"] = dict(args.meta)
    with failing_as("Error logging in"):
        answer = api.json("POST", _LOGIN, body=body)
        secret = answer.get("SecretID")
        if not isinstance(secret, str) or not secret or not is_secret(secret):
            raise CommandError("the server's answer is not understood: SecretID is no token")
    return answer, secret


def _bearer(api: Api, args: argparse.Namespace) -> str:
    """Without a file with one, a certificate proves who asks: one of its own, or that of the connection."""
    if bool(args.proof_cert) != bool(args.proof_key):
        raise CommandError("--proof-cert and --proof-key must be given together", Exit.USAGE)
    if args.proof_cert and args.bearer_token_file is not None:
        raise CommandError("--proof-cert and --bearer-token-file cannot be given together", Exit.USAGE)
    if args.bearer_token_file is None and (args.proof_cert or api.tls.cert_file):
        # Here and not above: it takes long to import, and most logins do not need it.
        from cluster.cli.acl.certificate_login import Pair, proof_from

        if args.type not in (None, "tls"):
            raise CommandError(
                f"--type {args.type!r:.80} is not allowed with a certificate: must be tls; others want"
                " --bearer-token-file",
                Exit.USAGE,
            )
        if args.proof_cert:
            return proof_from(Pair(args.proof_cert, args.proof_key, "proof"), args.method)
        return proof_from(Pair(api.tls.cert_file, api.tls.key_file, "client"), args.method)
    required(args, "bearer-token-file")
    with failing_as("--bearer-token-file"):
        # Others put it there, as Kubernetes does for whoever is in the container, with modes of their own.
        return read_secret(args.bearer_token_file, _MAX_BEARER_BYTES, is_private=False)


def _forget(api: Api) -> None:
    """Nobody has the token: it had better not be there. That it could not be stored is what is told in any case."""
    try:
        api.text("POST", LOGOUT)
    except CommandError:
        return


def _meta(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not key or not equals:
        raise argparse.ArgumentTypeError(f"{text!r:.200} is not allowed: must be KEY=VALUE")
    return key, value
