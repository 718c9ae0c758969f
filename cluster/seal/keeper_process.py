"""The keeper (keeper.py) as a process of its own. Its standard input is the control socket (keeper_server.py); it ends
when that closes, which the death of its parent does too. It is started with signals blocked that are not for it
(`cluster.base.process.block_node_signals`).
"""

import os
import signal
import socket
import sys

from cluster.base import process
from cluster.base.allocator import hash_without_openssl, limit_arenas


def main() -> int:
    # The seal key lives here, and never longer than the parent.
    refused = [*process.protect(), *process.end_with_parent(signal.SIGKILL)]
    limit_arenas(1)
    hash_without_openssl()
    from cluster.seal.keeper_server import serve  # after the line before, and small because of it

    serve(socket.socket(fileno=os.dup(0)), refused)
    return 0


if __name__ == "__main__":
    sys.exit(main())
