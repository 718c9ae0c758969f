"""The entry point: finds the command group, imports it, runs it, and turns errors into exit codes.

Cheap to import: `quorumca agent` shares its memory with nothing that only other commands need.
"""

import os
import sys
from argparse import RawDescriptionHelpFormatter
from collections.abc import Sequence
from importlib import import_module
from typing import Final

from cluster.cli.arguments import Parser, normalise
from cluster.client.errors import CommandError, Exit

#: Command -> (module, summary). A module has `add_parser(subcommands)`, whose parser names `run(args) -> exit code`.
GROUPS: Final = {
    "agent": ("cluster.cli.agent", "run one node in the foreground"),
    "acl": ("cluster.cli.acl.command", "say who may do what: tokens, policies, roles, logins"),
    "dev": ("cluster.cli.dev.command", "run a cluster on this machine"),
    "ca": ("cluster.cli.ca", "look at the CA, configure it, sign and find certificates"),
    "doctor": ("cluster.cli.doctor", "say what is wrong with a cluster or a node, and what to do"),
    "join": ("cluster.cli.join", "make this machine a server of a cluster, by a join token"),
    "login": ("cluster.cli.acl.login", "get a token by an auth method, into a file"),
    "logout": ("cluster.cli.acl.logout", "destroy the token of a login"),
    "members": ("cluster.cli.members", "list the servers and their health"),
    "operator": ("cluster.cli.operators", "change the Raft cluster"),
    "seal": ("cluster.cli.seal", "make, change and look at the key that seals the CA's private keys"),
    "snapshot": ("cluster.cli.snapshot", "save the CA to a file, restore or look at one"),
    "tls": ("cluster.cli.tls", "make the certificates that nodes know each other by"),
    "version": ("cluster.cli.version", "print the version"),
}
#: Groups of groups: their `add_parser` is told the next word, too.
NESTED: Final = frozenset({"acl"})


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; the exit code. Prints errors to stderr."""
    try:
        code = _run(normalise(sys.argv[1:] if argv is None else argv))
        sys.stdout.flush()
        return code
    except CommandError as error:
        print(error, file=sys.stderr)
        return error.code
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return Exit.INTERRUPTED
    except BrokenPipeError:
        # The reader has seen enough. Else Python's own flush at exit would complain.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return Exit.FAILED


def _run(argv: Sequence[str]) -> int:
    try:
        args = build_parser(argv).parse_args(argv)
    except SystemExit as end:  # argparse has printed the help, or what is wrong
        return Exit.USAGE if end.code else Exit.OK
    return int(args.run(args))


def build_parser(argv: Sequence[str]) -> Parser:
    """Knows all commands by name, but the flags of the chosen one only."""
    codes = "\n".join(f"  {code:<4} {code.meaning}" for code in Exit)
    parser = Parser(
        prog="quorumca",
        description="A service-mesh certificate authority that runs as a Raft cluster.",
        epilog=f"exit codes:\n{codes}\n\nLong flags may be written with one dash or two.",
        formatter_class=RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    chosen, within, *_ = [*(word for word in argv if not word.startswith("-")), None, None]
    for name, (module, summary) in GROUPS.items():
        if name == chosen and name in NESTED:
            import_module(module).add_parser(commands, within)
        elif name == chosen:
            import_module(module).add_parser(commands)
        else:
            commands.add_parser(name, help=summary)
    return parser
