"""What the process may have open at a time, and how that is shared out: no stranger takes the last descriptor.

A node that cannot open a file for its log stops. So a share of the descriptors is never given to connections.
"""

import resource
from dataclasses import dataclass
from typing import Final

from cluster.base.seats import Caps

#: A node with fewer could not serve anybody; processes that sign come on top.
LEAST: Final = 192
#: For files, database, pipes, Raft's connections to and from eight other servers, and what is just being closed. A node
#: of three has about 40 in use.
_RESERVE: Final = 96
_PER_WORKER: Final = 2
_RESERVE_SHARE: Final = 16
_MOST_RESERVED: Final = 1024
#: Of connections to the ports between nodes, far above what a cluster needs.
_MOST_STRANGERS: Final = 256
_MOST_MEMBERS: Final = 512
_MOST_DIALLED: Final = 64
#: Within the reserve: a connection, and the next one while the last has not ended, from each of eight others.
_RAFT_PER_MEMBER: Final = 2
_RAFT_MEMBERS: Final = 2 * 8
#: As many as a process gets, where the system sets no bound.
_ENOUGH: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class Shares:
    """Of the descriptors of one process."""

    http: Caps
    #: Of each of the ports between nodes: connections of which it is not known that they are a member's.
    strangers: Caps
    #: By member, which has its own part of them: on the RPC port, and on the Raft port.
    rpc_members: Caps
    raft_members: Caps
    #: Connections to the RPC ports of others.
    dialled: int


def raise_limit() -> int:
    """As far as this process may; the limit that then holds. Children inherit it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _ENOUGH if hard == resource.RLIM_INFINITY else hard
    if soft != resource.RLIM_INFINITY and soft < wanted:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
            return wanted
        except (OSError, ValueError):  # less than what it was told
            pass
    return _ENOUGH if soft == resource.RLIM_INFINITY else soft


def shares_of(limit: int, workers: int, http: int, http_per_source: int | None) -> Shares:
    """`http`, `http_per_source`: what was configured; there may be less. Raises: ValueError for too small a limit."""
    least = LEAST + _PER_WORKER * workers
    if limit < least:
        raise ValueError(f"this process may have {limit} open files (ulimit -n): a node needs at least {least}")
    left = limit - max(_RESERVE, min(limit // _RESERVE_SHARE, _MOST_RESERVED)) - _PER_WORKER * workers
    strangers = min(left // 8, _MOST_STRANGERS)
    dialled = min(left // 10, _MOST_DIALLED)
    members = min(max(2 * dialled, left // 6), _MOST_MEMBERS)
    most = min(http, left - 2 * strangers - members - dialled)
    return Shares(
        http=Caps(most, max(1, min(most, http_per_source or most // 2))),
        strangers=Caps(strangers, max(1, strangers // 2)),
        # What a node with the same limit dials it is given, or its requests would end in the middle.
        rpc_members=Caps(members, max(dialled, members // 2)),
        raft_members=Caps(_RAFT_MEMBERS, _RAFT_PER_MEMBER),
        dialled=dialled,
    )
