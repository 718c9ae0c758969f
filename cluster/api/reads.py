"""Reading the replicated state."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum, auto
from typing import Final, Protocol

from fsm.state import Area, State


class ReadLevel(Enum):
    """How current a read has to be."""

    LINEARIZABLE = auto()  # everything committed before the read began is seen; what `default` and `consistent` mean
    STALE = auto()  # whatever this node has applied


class Watch(Enum):
    """What a blocking query waits for."""

    ROOTS = auto()
    CONFIGURATION = auto()
    TOKENS = auto()
    POLICIES = auto()
    ROLES = auto()
    METHODS = auto()
    BINDING_RULES = auto()


@dataclass(frozen=True, slots=True)
class Watched:
    """What a watch means."""

    index_of: Callable[[State], int]  # there is news once this is above the index that the client has seen
    area: Area  # only a change in this area moves that index
    is_counted: bool = False  # who waits is counted for the uptake of a published root


WATCHED: Final[Mapping[Watch, Watched]] = {
    Watch.ROOTS: Watched(lambda state: state.roots_watch_index, Area.CA, is_counted=True),
    Watch.CONFIGURATION: Watched(lambda state: state.config_index, Area.CA),
    # Each by the index that its list is shown with: by another one, a client that has seen the newest would be answered
    # at once, again and again.
    Watch.TOKENS: Watched(lambda state: state.acl.tokens_index, Area.ACL),
    Watch.POLICIES: Watched(lambda state: state.acl.policies_index, Area.ACL),
    Watch.ROLES: Watched(lambda state: state.acl.roles_index, Area.ACL),
    Watch.METHODS: Watched(lambda state: state.acl.methods_index, Area.ACL),
    Watch.BINDING_RULES: Watched(lambda state: state.acl.binding_rules_index, Area.ACL),
}


@dataclass(frozen=True, slots=True)
class ReadPoint:
    """A consistent state, and how it was come by."""

    state: State
    has_leader: bool  # X-Consul-KnownLeader
    last_contact_ms: int  # since this node last heard from its leader; 0 on the leader


class Reads(Protocol):
    """The replicated state, as current as it has to be."""

    async def read(self, level: ReadLevel) -> ReadPoint:
        """Raises: NoLeader when no leader confirms in time (LINEARIZABLE only)."""
        ...

    async def watch(self, level: ReadLevel, index: int, what: Watch, timeout_seconds: float) -> ReadPoint:
        """A blocking query: `read`, then wait until the index of `what` is above `index`, or for the time-out."""
        ...
