"""Ports for tests that start processes: outside the range that the system gives to outgoing connections, so a port
that is free now is still free when its process is started again.
"""

import random
import socket
from collections.abc import Iterable

_FIRST, _LAST = 11_000, 31_000


def free_ports(count: int) -> list[int]:
    """Ports of 127.0.0.1 on which nobody listens."""
    ports: list[int] = []
    while len(ports) < count:
        port = random.randint(_FIRST, _LAST)
        if port not in ports and are_free([port]):
            ports.append(port)
    return ports


def free_port_offset(nodes: int) -> int:
    """For `quorumca dev --port-offset`: all ports of so many nodes are free."""
    while True:
        offset = random.randint(_FIRST, _LAST) - 8300
        if are_free(base + offset + k for base in (8300, 8400, 8500) for k in range(nodes)):
            return offset


def are_free(ports: Iterable[int]) -> bool:
    for port in ports:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                return False
    return True
