"""Reading the replicated state on this node."""

import contextlib

from cluster.api.reads import WATCHED, ReadLevel, ReadPoint, Watch
from cluster.base.errors import NoLeader
from cluster.ca.uptake import Watchers
from cluster.raft.replica import Replica
from fsm.state import Area, State


class NodeReads:
    """Implements `cluster.api.reads.Reads`, and `cluster.agent.leaves.RootFeed`."""

    def __init__(self, replica: Replica, watchers: Watchers, node_name: str, wait_seconds: float) -> None:
        self._replica = replica
        self._watchers = watchers
        self._node_name = node_name
        self.wait_seconds = wait_seconds  # for a leader

    @property
    def is_pinned(self) -> bool:
        """Whether every server is known by its key, and so of a release whose leaders draw serials."""
        return self._replica.admission.is_pinned

    async def read(self, level: ReadLevel, leader_wait_seconds: float | None = None) -> ReadPoint:
        """`leader_wait_seconds`: what is left for whom a part of the wait for a leader is over."""
        if level is ReadLevel.LINEARIZABLE:
            seconds = self.wait_seconds if leader_wait_seconds is None else leader_wait_seconds
            await self._replica.read_barrier(timeout=seconds)
        return self._point()

    async def watch(self, level: ReadLevel, index: int, what: Watch, timeout_seconds: float) -> ReadPoint:
        point, watched = await self.read(level), WATCHED[what]
        if watched.index_of(point.state) <= index:
            with self._watchers.waiting(index) if watched.is_counted else contextlib.nullcontext():
                await self._replica.wait_for_index(index, watched.index_of, watched.area, timeout=timeout_seconds)
        return self._point()

    async def catch_up(self) -> None:
        """Read your writes, on whatever node they were made. If the leader is lost now, that is passed over: an error
        here would tell the client that its write had no effect, which is false.
        """
        with contextlib.suppress(NoLeader):
            await self.read(ReadLevel.LINEARIZABLE)

    def _point(self) -> ReadPoint:
        leadership = self._replica.leadership
        contact = 0.0 if leadership.leader_id == self._node_name else self._replica.leader_contact_seconds
        contact_ms = 0 if contact == float("inf") else int(1000 * contact)
        return ReadPoint(self._replica.state, leadership.leader_id is not None, contact_ms)

    async def current(self, leader_wait_seconds: float) -> State:
        try:
            return (await self.read(ReadLevel.LINEARIZABLE, leader_wait_seconds)).state
        except NoLeader:
            return (await self.read(ReadLevel.STALE)).state

    async def changed(self, ca_index: int) -> State:
        while self._replica.state.ca_index == ca_index:
            await self._replica.changed[Area.CA].wait()
        return self._replica.state
