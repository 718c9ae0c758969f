"""Ports for tests that start processes: outside the range that the system gives to outgoing connections, so a port
that is free now is still free when its process is started again.

Some time passes between choosing a port and listening on it. So every process of a parallel run chooses from a range of
its own, and what was given out lately is not given out again.
"""

import os
import random
import socket
from collections import deque
from collections.abc import Iterable, Mapping

_FIRST, _LAST = 11_000, 31_000
_BASES = (8300, 8400, 8500, 8600)
_given: deque[int] = deque(maxlen=1000)


def free_ports(count: int) -> list[int]:
    """Ports of 127.0.0.1 on which nobody listens."""
    ports: list[int] = []
    while len(ports) < count:
        port = random.choice(own_range())
        if port not in _given and are_free([port]):
            ports.append(port)
            _given.append(port)
    return ports


def free_port_offset(nodes: int) -> int:
    """For `quorumca dev --port-offset`: all ports of so many nodes are free."""
    own = own_range()
    while True:
        offset = random.choice(own[: -(_BASES[-1] - _BASES[0]) - nodes]) - _BASES[0]
        ports = [base + offset + k for base in _BASES for k in range(nodes)]
        if not set(ports) & set(_given) and are_free(ports):
            _given.extend(ports)
            return offset


def own_range(environment: Mapping[str, str] = os.environ) -> range:
    """This process's share of all ports: pytest-xdist numbers its workers gw0, gw1, ..."""
    workers = int(environment.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    number = int(environment.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    size = (_LAST - _FIRST) // workers
    return range(_FIRST + number * size, _FIRST + (number + 1) * size)


def are_free(ports: Iterable[int]) -> bool:
    for port in ports:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                return False
    return True
