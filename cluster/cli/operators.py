"""`quorumca operator`: look at and change the set of servers. (Python has a module `operator`, hence the name.)"""

import argparse
from collections.abc import Mapping
from typing import Any, Final

from cluster.cli import joining, skip_entry
from cluster.cli.api_flags import add_api_flags, api_from
from cluster.cli.arguments import Subcommands
from cluster.cli.output import print_json, print_success, print_table
from cluster.client.api import objects
from cluster.client.errors import CommandError, Exit, failing_as

_CONFIGURATION: Final = "/v1/operator/raft/configuration"
_TRANSFER: Final = "/v1/operator/raft/transfer-leader"
_PEER: Final = "/v1/operator/raft/peer"


def add_parser(subcommands: Subcommands) -> None:
    parser = subcommands.add_parser("operator", help="change the Raft cluster")
    groups = parser.add_subparsers(metavar="COMMAND", required=True)
    joining.add_parsers(groups)
    raft = groups.add_parser("raft", help="the servers of the cluster")
    commands = raft.add_subparsers(metavar="COMMAND", required=True)

    list_peers = commands.add_parser("list-peers", help="list the servers")
    add_api_flags(list_peers)
    list_peers.set_defaults(run=run_list_peers)

    transfer = commands.add_parser("transfer-leader", help="hand leadership to another server")
    transfer.add_argument("--id", metavar="ID", help="the server to lead; default: the leader chooses")
    add_api_flags(transfer, is_read=False)
    transfer.set_defaults(run=run_transfer_leader)

    add = commands.add_parser("add-peer", help="add a server: it learns the log first, then votes")
    add.add_argument("--id", metavar="ID", required=True, help="the server's node name")
    add.add_argument("--address", metavar="HOST:PORT", required=True, help="its Raft address")
    add.add_argument("--rpc", metavar="HOST:PORT", required=True, help="its RPC address")
    add_api_flags(add, is_read=False)
    add.set_defaults(run=run_add_peer)

    remove = commands.add_parser("remove-peer", help="remove a server")
    remove.add_argument("--id", metavar="ID", help="the server's node name")
    remove.add_argument("--address", metavar="HOST:PORT", help="its Raft address")
    add_api_flags(remove, is_read=False)
    remove.set_defaults(run=run_remove_peer)

    skip_entry.add_parser(commands)


def run_list_peers(args: argparse.Namespace) -> int:
    api = api_from(args)
    with failing_as("Error getting peers"):
        answer = api.json("GET", _CONFIGURATION)
        servers = objects(answer, "Servers")
    if args.format == "json":
        print_json(answer)
    else:
        print_table(None, ("Node", "ID", "Address", "State", "Voter", "RaftProtocol"), map(_row, servers))
    return Exit.OK


def _row(server: Mapping[str, Any]) -> tuple[object, ...]:
    return (
        server.get("Node"),
        server.get("ID"),
        server.get("Address"),
        "leader" if server.get("Leader") else "follower",
        server.get("Voter"),
        server.get("ProtocolVersion"),
    )


def run_transfer_leader(args: argparse.Namespace) -> int:
    api = api_from(args)
    with failing_as("Error transferring leadership"):
        answer = api.json("POST", _TRANSFER, query={"id": args.id} if args.id else {})
        if answer.get("Success") is not True:
            raise CommandError("the leader did not hand over")
    print_success("Success", as_json=args.format == "json")
    return Exit.OK


def run_add_peer(args: argparse.Namespace) -> int:
    api = api_from(args)
    with failing_as("Error adding peer"):
        api.text("PUT", _PEER, body={"ID": args.id, "Address": args.address, "RPC": args.rpc})
    print_success(f'Added peer with id "{args.id}"', as_json=args.format == "json")
    return Exit.OK


def run_remove_peer(args: argparse.Namespace) -> int:
    if bool(args.id) == bool(args.address):
        raise CommandError("Please provide either -id or -address", Exit.USAGE)
    name = "id" if args.id else "address"
    value = getattr(args, name)
    api = api_from(args)
    with failing_as("Error removing peer"):
        api.text("DELETE", _PEER, query={name: value})
    print_success(f'Removed peer with {name} "{value}"', as_json=args.format == "json")
    return Exit.OK
