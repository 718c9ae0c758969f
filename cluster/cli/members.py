"""`quorumca members`: the servers of the cluster and their health."""

import argparse
from collections.abc import Mapping
from typing import Any, Final

from cluster.cli.api_flags import add_api_flags, api_from
from cluster.cli.arguments import Subcommands
from cluster.cli.output import note, print_json, print_table
from cluster.client.api import objects
from cluster.client.errors import Exit, failing_as

#: 429 is how Consul says "not healthy"; the answer is the same.
_STATUSES: Final = (200, 429)


def add_parser(subcommands: Subcommands) -> None:
    parser = subcommands.add_parser("members", help="list the servers and their health")
    add_api_flags(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    api = api_from(args)
    with failing_as("Error retrieving members"):
        health = api.json("GET", "/v1/operator/autopilot/health", accept=_STATUSES)
        servers = objects(health, "Servers")
    if args.format == "json":
        print_json(health)
        return Exit.OK
    print_table(
        None,
        ("Node", "Address", "Status", "Role", "Version", "LastContact"),
        [
            (
                server.get("Name"),
                server.get("Address"),
                server.get("SerfStatus"),
                _role(server),
                server.get("Version"),
                server.get("LastContact"),
            )
            for server in servers
        ],
    )
    if not health.get("Healthy"):
        note(f"The cluster is not healthy; failure tolerance: {health.get('FailureTolerance')}")
    return Exit.OK


def _role(server: Mapping[str, Any]) -> str:
    if server.get("Leader"):
        return "leader"
    return "follower" if server.get("Voter") else "learner"
