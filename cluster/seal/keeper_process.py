"""The keeper (keeper.py) as a process of its own. Its standard input is the control socket (keeper_server.py); it ends
when that closes, which the death of its parent does too. Its argument is a descriptor to read the passphrase from, if
that has come by the environment.

It is started with the signals blocked that ask a node to stop or to look at its files again: they may go to all
processes of a terminal, or of a service, and the parent decides when this one ends.
"""

import os
import signal
import socket
import sys

from cluster.base import process
from cluster.base.allocator import hash_without_openssl, limit_arenas
from cluster.seal.variables import PASSPHRASE_VARIABLE


def main() -> int:
    # The seal key lives here, and never longer than the parent.
    refused = [*process.protect(), *process.end_with_parent(signal.SIGKILL)]
    limit_arenas(1)
    hash_without_openssl()
    from cluster.seal.keeper_server import serve  # after the line before, and small because of it

    serve(socket.socket(fileno=os.dup(0)), refused, _variables(*sys.argv[1:]))
    return 0


def _variables(passphrase: str = "") -> dict[str, str]:
    if not passphrase:
        return {}
    with open(int(passphrase), "rb") as file:
        return {PASSPHRASE_VARIABLE: os.fsdecode(file.read())}


if __name__ == "__main__":
    sys.exit(main())
