"""A terminal for a node: what it prints there, and keys that are pressed.

The node leads a session whose controlling terminal this is, as when a person starts it in a shell. So what it or a
library of it opens as /dev/tty is this one.
"""

import os
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from cluster.cli.dev.supervisor import NodeProcess, agent_command
from tests.kit.real_cluster import Node

_IN_TERMINAL = 'terminal=$1; shift; exec "$@" <>"$terminal"'
#: Output waits from here on, and whoever writes waits with it.
STOP_OUTPUT = b"\x13"  # Ctrl-S
START_OUTPUT = b"\x11"  # Ctrl-Q
INTERRUPT = b"\x03"  # Ctrl-C


class Terminal:
    """The far end of a pseudo-terminal. What appears on it goes to the node's log, too."""

    def __init__(self, master: int, node: Node) -> None:
        self._master = master
        self._node = node
        self._shown = bytearray()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    @property
    def text(self) -> str:
        """All that has appeared."""
        return bytes(self._shown).decode(errors="replace")

    def press(self, keys: bytes) -> None:
        os.write(self._master, keys)

    def join(self) -> None:
        """Wait until nobody has the terminal open any more, and all that was printed has been read."""
        self._reader.join()

    def _read(self) -> None:
        with self._node.local.log.open("ab", buffering=0) as log:
            while data := self._chunk():
                self._shown += data
                log.write(data)

    def _chunk(self) -> bytes:
        try:
            return os.read(self._master, 65536)
        except OSError:  # EIO: its other end was closed by everyone
            return b""


@contextmanager
def started_in_terminal(node: Node) -> Iterator[Terminal]:
    """The node runs in a terminal of its own; the caller, or the cluster of the node, ends it."""
    assert not node.is_running, f"{node.name} runs already"
    log_start = node.local.log.stat().st_size if node.local.log.exists() else 0
    master, slave = os.openpty()
    try:
        # The first terminal that the leader of a session opens becomes its controlling one.
        command = ["sh", "-c", _IN_TERMINAL, "sh", os.ttyname(slave), *agent_command(node.local.config)]
        process = subprocess.Popen(command, stdin=slave, stdout=slave, stderr=slave, start_new_session=True)
    finally:
        os.close(slave)
    node.started = NodeProcess(node.local, process, log_start)
    try:
        yield Terminal(master, node)
    finally:
        os.close(master)
