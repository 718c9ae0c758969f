"""Injects the faults of a script."""

import random
from typing import Final

from cluster.raft.membership import ChangeKind
from tests.sim.cluster import SimCluster, SimNode, member, members_of
from tests.sim.script import Fault, Script

_WIPED_SECONDS: Final = 1.2
_LOOK_SECONDS: Final = 0.3


class Nemesis:
    """From now on, until `stop`."""

    def __init__(self, cluster: SimCluster, script: Script) -> None:
        self._cluster = cluster
        self._script = script
        self._rng = random.Random()
        self._wiped: SimNode | None = None
        self._wiped_until = 0.0
        #: Who goes with whom, see `_betrayal`.
        self._betrayed: dict[str, SimNode] = {}
        cluster.on_crash = self._crashed
        self.is_running = True
        self.injected: dict[str, int] = {}
        for fault in script.faults:
            cluster.scheduler.after(fault.at, lambda fault=fault: self._inject(fault))  # type: ignore[misc]

    def _inject(self, fault: Fault) -> None:
        if not self.is_running:
            return
        self._rng = random.Random(f"{self._script.seed}/fault {fault.number}")
        self._number = fault.number
        self.injected[fault.name] = self.injected.get(fault.name, 0) + 1
        self._cluster.log("fault", fault.name, number=fault.number)
        getattr(self, f"_{fault.name}")()

    def stop(self) -> None:
        """No more faults, and the ones under way are over: every node runs, every connection works."""
        self.is_running = False
        self._cluster.network.heal()
        for node in self._cluster.nodes.values():
            node.disk.repair()
            node.resume()
        self._cluster.start()

    def _up(self) -> SimNode | None:
        nodes = [node for node in self._cluster.nodes.values() if node.is_up]
        return self._rng.choice(nodes) if nodes else None

    def _leader(self) -> SimNode | None:
        return next((node for node in self._cluster.nodes.values() if node.is_ready_leader), None)

    def _restart_later(self, node: SimNode, seconds: float | None = None) -> None:
        if seconds is None:
            seconds = self._rng.expovariate(1 / self._script.restart_seconds)
        self._cluster.scheduler.after(seconds, lambda: self._restart(node))

    def _restart(self, node: SimNode) -> None:
        is_away = node is self._wiped and self._cluster.scheduler.now < self._wiped_until
        if self.is_running and not node.is_up and not is_away:
            node.start()

    def _watch(self, node: SimNode, what: str) -> None:
        """Restart a node that a fault of its disk will end, soon after it has."""
        seconds = self._rng.expovariate(1 / self._script.restart_seconds)

        def look() -> None:
            if not node.is_up:
                node.disk.repair()
                self._restart_later(node, seconds)
            elif getattr(node.disk, what) and self.is_running:
                self._cluster.scheduler.after(_LOOK_SECONDS, look)

        self._cluster.scheduler.after(_LOOK_SECONDS, look)

    # -- the faults

    def _partition(self) -> None:
        ids = [*self._cluster.nodes]
        self._rng.shuffle(ids)
        cut = self._rng.randint(1, len(ids))
        self._cluster.network.partition(ids[:cut], ids[cut:])

    def _isolate(self) -> None:
        """The leader must find out by itself that others have another one, and time passes as badly as it can."""
        leader = self._leader()
        if leader is not None:
            for node in self._cluster.nodes.values():
                node.set_rate(1 - self._script.drift if node is leader else 1 + self._script.drift)
            self._cluster.network.partition([leader.id], [node for node in self._cluster.nodes if node != leader.id])
            self._cluster.scheduler.after(0.5 + self._rng.random(), self._cluster.network.heal)

    def _one_way(self) -> None:
        one, other = self._rng.sample([*self._cluster.nodes], 2)
        self._cluster.network.block(one, other)

    def _reset(self) -> None:
        one, other = self._rng.sample([*self._cluster.nodes], 2)
        self._cluster.network.reset(one, other)

    def _heal(self) -> None:
        self._cluster.network.heal()

    def _kill(self) -> None:
        node = self._up()
        if node is not None:
            node.kill()
            self._restart_later(node)

    def _power_cut(self) -> None:
        node = self._up()
        if node is not None:
            node.cut_power()
            self._restart_later(node)

    def _blackout(self) -> None:
        for node in self._cluster.nodes.values():
            if node.is_up:
                node.cut_power()
                self._restart_later(node)

    def _wipe(self) -> None:
        """A disk is replaced, not within an election time-out, and not before the one replaced last is full again."""
        last, node = self._wiped, self._up()
        if node is None or (last is not None and (not last.is_up or last.disk.exists("data/wal/fresh"))):
            return
        self._wiped, self._wiped_until = node, self._cluster.scheduler.now + _WIPED_SECONDS
        node.replace_disk()
        self._restart_later(node, _WIPED_SECONDS + self._rng.random())

    def _crash_point(self) -> None:
        """Within the next few operations of a disk, perhaps half-way through a compaction, the node ends."""
        node = self._up()
        if node is not None:
            node.disk.crash_in = self._rng.randint(1, 12)
            self._watch(node, "crash_in")

    def _betrayal(self) -> None:
        """The leader has just one follower that makes it a majority, which loses power in its next sync.

        What left it before that sync was a lie. Soon the leader is gone, too, and the others have to go on.
        """
        leader, nodes = self._leader(), [*self._cluster.nodes.values()]
        others = [node for node in nodes if node is not leader and node.is_up]
        if leader is None or len(others) < 2:
            return
        self._rng.shuffle(others)
        near = others[: len(nodes) // 2]
        self._cluster.network.partition(
            [leader.id, *(node.id for node in near)], [node.id for node in nodes if node not in (leader, *near)]
        )
        near[0].disk.crash_in_sync = True
        self._betrayed[near[0].id] = leader

    def _crashed(self, node: SimNode) -> None:
        leader = self._betrayed.pop(node.id, None)
        if leader is None or not self.is_running:
            return
        self._restart_later(node, 0.02)

        def follow() -> None:
            if self.is_running and leader.is_up:
                leader.cut_power()
                self._cluster.network.heal()
                self._restart_later(leader, 1.0 + self._rng.random())

        self._cluster.scheduler.after(0.01, follow)

    def _full_disk(self) -> None:
        node = self._up()
        if node is not None:
            node.disk.room_bytes = self._rng.randint(1, 2000)
            self._watch(node, "is_full")

    def _failing_disk(self) -> None:
        node = self._up()
        if node is not None:
            node.disk.sync_fails = True
            self._watch(node, "sync_fails")

    def _slow_disk(self) -> None:
        """Until the process ends, or for a while."""
        node = self._up()
        if node is not None:
            node.disk.sync_seconds = self._rng.choice((0.002, 0.02, 0.1))
            self._cluster.scheduler.after(self._rng.random(), node.disk.be_quick)

    def _pause(self) -> None:
        node = self._up()
        if node is not None:
            node.pause(self._rng.choice((0.05, 0.3, 1.5)) * self._rng.random())

    def _hand_over(self) -> None:
        leader = self._leader()
        if leader is not None:
            leader.run(leader.raft.hand_over, None)

    def _compact(self) -> None:
        node = self._up()
        if node is not None:
            node.run(node.raft.compact)

    def _membership(self) -> None:
        """Add a server, or remove one; a removed one keeps running, as it is not told."""
        leader = self._leader()
        if leader is None:
            return
        members = leader.raft.core.members
        others = sorted(members.keys() - {leader.id})
        if len(members) < 5 and (len(members) <= 3 or self._rng.random() < 0.5):
            gone = [node for node in self._cluster.nodes.values() if node.id not in members]
            if gone:
                return  # a removed server never comes back under its name; its traces settle first
            node_id = f"n{self._number}"
            node = self._cluster.add(node_id, members_of("a", "b", "c"))
            node.start()
            self._cluster.change_membership(leader, ChangeKind.LEARN, member(node_id))
        elif others:
            subject = members[self._rng.choice(others)]
            self._cluster.change_membership(leader, ChangeKind.REMOVE, subject)
