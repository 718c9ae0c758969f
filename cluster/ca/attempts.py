"""Writes that may be sent twice, and take effect at most once."""

from dataclasses import dataclass

from cluster.base.errors import AnswerLost, NotLeader
from cluster.ca.changes import LEADER
from fsm.state import State


@dataclass(frozen=True, slots=True)
class Attempt:
    """Which write this is. A write that was sent again keeps id and index, so that it takes effect at most once."""

    request_id: bytes
    ca_index: int  # of the state that the first node saw before it sent anything
    is_repeat: bool
    by: str = LEADER  # who asks, for the log


def base_index(state: State, attempt: Attempt) -> int:
    """The index that a write is made from: the present one, if nothing but the leader's own work (pruned roots, a
    renewed certificate) came after the one its author has seen. Otherwise the index that its author has seen, so that
    the write is refused as stale.

    Raises: AnswerLost when it is a repetition, and its first sending may have been part of what came.
    """
    has_changed = is_overtaken(state, attempt)
    # A rotation that was given up has left the configuration as it was; it may have been this write's.
    is_hidden = state.last_rotation is not None and not state.last_rotation.root_id
    if attempt.is_repeat and state.ca_index != attempt.ca_index and (has_changed or is_hidden):
        raise AnswerLost("the answer to this write was lost, and the configuration has changed since: read it")
    return attempt.ca_index if has_changed else state.ca_index


def is_overtaken(state: State, attempt: Attempt) -> bool:
    """Whether the configuration has been written since the author looked."""
    return state.config is not None and state.config.modify_index > attempt.ca_index


@dataclass(frozen=True, slots=True)
class Arrival:
    """A write that a leader has let into its queue, and what it knew then."""

    attempt: Attempt
    term: int
    is_overtaken: bool

    def base_index(self, state: State, term: int) -> int:
        """The index that it is made from once it has its turn. What others have written while it waited its turn here
        does not count: it comes after them. It cannot have been done among them, because it was here.

        Raises: NotLeader when the leader has changed since, where it may have been done; AnswerLost as `base_index`.
        """
        if term != self.term:
            raise NotLeader("this node has not led all the time since the request arrived")
        if self.is_overtaken or self.attempt.is_repeat:
            return base_index(state, self.attempt)
        return state.ca_index


def done_before(state: State, request_id: bytes) -> str | None:
    """What a write that is repeated has led to: the rotation to wait for, "" when it is done, None when nothing yet."""
    rotation, last = state.rotation, state.last_rotation
    if rotation is not None and rotation.config.request_id == request_id:
        return rotation.rotation_id
    if last is not None and last.request_id == request_id:
        return last.rotation_id
    return "" if state.config is not None and state.config.request_id == request_id else None
