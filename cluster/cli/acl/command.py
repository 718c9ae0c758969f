"""`quorumca acl`: finds the group of commands that is meant, and imports it."""

from importlib import import_module
from typing import Final

from cluster.cli.arguments import Subcommands

_ROOM: Final = "cluster.cli.acl"
#: Command -> (module, summary), as in `cluster.cli.main`.
GROUPS: Final = {
    "bootstrap": ("bootstrap", "make the first token, which may do everything: once"),
    "token": ("tokens", "what callers prove themselves by"),
    "policy": ("policies", "named rules"),
    "role": ("roles", "policies and identities under one name"),
    "auth-method": ("auth_methods", "how workloads log in"),
    "binding-rule": ("binding_rules", "what a login gives"),
    "set-agent-token": ("agent_token", "set a token that a node uses by itself"),
}


def add_parser(subcommands: Subcommands, chosen: str | None) -> None:
    """Knows all groups by name, but the flags of the chosen one only; of all, when none of them is chosen."""
    parser = subcommands.add_parser("acl", help="say who may do what: tokens, policies, roles, logins")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    for name, (module, summary) in GROUPS.items():
        if name == chosen or chosen not in GROUPS:
            import_module(f"{_ROOM}.{module}").add_parser(commands, name, summary)
        else:
            commands.add_parser(name, help=summary)
