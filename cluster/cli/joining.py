"""`quorumca operator agent-ca` and `join-token`: what machines need to become servers by `quorumca join`."""

import argparse
import shlex
from collections.abc import Mapping
from typing import Any, Final

from cluster.base.names import is_address, is_node_name
from cluster.cli.api_flags import add_api_flags, api_from
from cluster.cli.arguments import Subcommands, duration_text, matching
from cluster.cli.files import read_text
from cluster.cli.output import note, print_json, print_success
from cluster.client.errors import CommandError, Exit, failing_as

_AGENT_CA: Final = "/v1/operator/agent-ca"
_JOIN_TOKEN: Final = "/v1/operator/join-token"  # noqa: S105 - a path
_MAX_PEM_BYTES: Final = 64 << 10
_PLACEHOLDER: Final = "JOIN_ADDRESS_OF_A_SERVER"
_NO_JOIN_PORT: Final = (
    f"The server that was asked has no join port, so the command has {_PLACEHOLDER} in the place of an address: ask"
    " one that has (another --http-addr), or set address under [join] in the file of a server, start it again, and put"
    " that address there; the token is good for it."
)
_NAME: Final = matching(is_node_name, "a DNS label: lower-case letters, digits and inner hyphens, at most 63")
_ADDRESS: Final = matching(is_address, "host:port with a port from 1 to 65535, an IPv6 host in brackets")


def add_parsers(commands: Subcommands) -> None:
    agent_ca = commands.add_parser("agent-ca", help="let the cluster sign and renew its servers' certificates")
    of_ca = agent_ca.add_subparsers(metavar="COMMAND", required=True)
    hand_over = of_ca.add_parser("set", help="hand the agent CA over: its key is sealed, and opened to sign only")
    hand_over.add_argument("--ca", metavar="FILE", required=True, help="the agent CA's certificate")
    hand_over.add_argument("--key", metavar="FILE", required=True, help="its private key")
    hand_over.add_argument(
        "--node-cert-ttl", metavar="TIME", type=duration_text, help="how long certificates are valid; default 72h"
    )
    add_api_flags(hand_over, is_read=False)
    hand_over.set_defaults(run=run_set)
    read = of_ca.add_parser("read", help="which agent CA the cluster has")
    add_api_flags(read, is_read=False)
    read.set_defaults(run=run_read)
    remove = of_ca.add_parser("remove", help="take it away: certificates are made by hand again")
    add_api_flags(remove, is_read=False)
    remove.set_defaults(run=run_remove)

    token = commands.add_parser("join-token", help="make a token by which one machine becomes a server, once")
    token.add_argument("--name", metavar="NAME", type=_NAME, required=True, help="the server's name")
    token.add_argument(
        "--address", metavar="HOST:PORT", type=_ADDRESS, help="its Raft address; needed without --rejoin"
    )
    token.add_argument("--rpc", metavar="HOST:PORT", type=_ADDRESS, help="its RPC address; needed without --rejoin")
    token.add_argument("--ttl", metavar="TIME", type=duration_text, help="from 1m to 1h; default 15m")
    token.add_argument("--rejoin", action="store_true", help="for a server that is one already")
    token.add_argument(
        "--force", action="store_true", help="with --rejoin: although the cluster hears from that server"
    )
    add_api_flags(token, is_read=False)
    token.set_defaults(run=run_join_token)


def run_set(args: argparse.Namespace) -> int:
    body = {"Certificate": read_text(args.ca, _MAX_PEM_BYTES), "PrivateKey": read_text(args.key, _MAX_PEM_BYTES)}
    if args.node_cert_ttl:
        body["NodeCertTTL"] = args.node_cert_ttl
    api = api_from(args, carries_secret=True, hidden=(body["PrivateKey"],))
    with failing_as("Error setting the agent CA"):
        api.text("PUT", _AGENT_CA, body=body)
    print_success("The cluster has the agent CA", as_json=args.format == "json")
    return 0


def run_read(args: argparse.Namespace) -> int:
    api = api_from(args)
    with failing_as("Error reading the agent CA"):
        answer = api.json("GET", _AGENT_CA)
    if args.format == "json":
        print_json(answer)
    else:
        print(f"Fingerprint:  {answer.get('Fingerprint')}\nNodeCertTTL:  {answer.get('NodeCertTTL')}")
        print(f"SetTime:      {answer.get('SetTime')}\n\n{answer.get('Certificate')}", end="")
    return 0


def run_remove(args: argparse.Namespace) -> int:
    api = api_from(args)
    with failing_as("Error removing the agent CA"):
        api.text("DELETE", _AGENT_CA)
    print_success("The cluster has no agent CA any more", as_json=args.format == "json")
    return 0


def run_join_token(args: argparse.Namespace) -> int:
    _check_flags(args)
    body = {"Name": args.name, "Address": args.address, "RPC": args.rpc, "TTL": args.ttl, "Rejoin": args.rejoin}
    if args.force:
        body["Force"] = True
    api = api_from(args, carries_secret=True)
    with failing_as("Error making a join token"):
        answer = api.json("PUT", _JOIN_TOKEN, body={name: value for name, value in body.items() if value is not None})
    if not answer.get("JoinAddress"):
        note(_NO_JOIN_PORT)
    if args.format == "json":
        print_json(answer)
        return 0
    print(f"Good once, until {answer.get('ExpirationTime')}. The token:\n\n  {answer.get('Token')}\n")
    print(f"On the machine itself (paste the token, then Enter and Ctrl-D):\n\n  {_command(args, answer)}")
    return 0


def _check_flags(args: argparse.Namespace) -> None:
    """Raises: CommandError."""
    if args.force and not args.rejoin:
        raise CommandError("--force is of use with --rejoin only", Exit.USAGE)
    if args.rejoin:
        return
    if missing := [name for name, value in {"--address": args.address, "--rpc": args.rpc}.items() if not value]:
        raise CommandError(f"the following arguments are required without --rejoin: {', '.join(missing)}", Exit.USAGE)


def _command(args: argparse.Namespace, answer: Mapping[str, Any]) -> str:
    """Without the token: an argument could be seen by everybody on that machine, and stays in the shell's history."""
    words = ["quorumca", "join", "-server", answer.get("JoinAddress") or _PLACEHOLDER]
    words += ["-ca-fingerprint", answer.get("CAFingerprint"), "-token-file", "-"]
    if args.rejoin:
        words += ["-rejoin", "-config", "config.toml"]
    else:
        words += ["-name", args.name, "-address", args.address, "-rpc", args.rpc]
        for flag, name, usual in (("-datacenter", "Datacenter", "dc1"), ("-domain", "Domain", "consul")):
            if answer.get(name) != usual:
                words += [flag, answer.get(name)]
        words += ["-seal-key-file", "seal.key"]
    return shlex.join(map(str, words))
