"""Reading the replicated state."""

from dataclasses import dataclass
from enum import Enum, auto

from fsm.state import State


class ReadLevel(Enum):
    """How current a read has to be."""

    LINEARIZABLE = auto()  # everything committed before the read began is seen; what `default` and `consistent` mean
    STALE = auto()  # whatever this node has applied


def roots_index(state: State) -> int:
    """What a watch on the roots waits on. Given to `Service.watch` as it is: clients that wait on it are counted."""
    return state.roots_watch_index


@dataclass(frozen=True, slots=True)
class ReadPoint:
    """A consistent state, and how it was come by."""

    state: State
    has_leader: bool  # X-Consul-KnownLeader
    last_contact_ms: int  # since this node last heard from its leader; 0 on the leader
