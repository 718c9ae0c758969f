"""Clients and faults: what a seed does to a cluster."""

import itertools
import random
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any

from cluster.raft.membership import ChangeKind
from cluster.raft.node import Outcome, Proposal
from tests.sim.cluster import SimCluster, SimNode, member, members_of
from tests.sim.invariants import InvariantViolated
from tests.sim.network import NetworkProfile


@dataclass(frozen=True, slots=True)
class Faults:
    """How often each fault happens, relative to the others; `per_second` of them happen together."""

    per_second: float = 1.0
    partition: float = 2.0
    one_way: float = 1.0
    reset: float = 1.0
    heal: float = 4.0
    kill: float = 1.0
    power_cut: float = 1.0
    crash_point: float = 1.0
    blackout: float = 0.3  # all nodes lose power at once
    pause: float = 1.0
    hand_over: float = 1.0
    compact: float = 1.0
    membership: float = 0.0
    wipe: float = 0.0
    restart_seconds: float = 1.0  # a node stays down for so long on average


class Clients:
    """Append to the list and read it, on any node, for as long as they are running."""

    def __init__(self, cluster: SimCluster, count: int = 4, think_seconds: float = 0.04) -> None:
        self._cluster = cluster
        self._rng = random.Random(f"{cluster.seed}/clients")
        self._think_seconds = think_seconds
        self._numbers = itertools.count()
        self.is_running = True
        for _ in range(count):
            self._later()

    def _later(self) -> None:
        self._cluster.scheduler.after(self._rng.expovariate(1 / self._think_seconds), self._next)

    def _next(self) -> None:
        if not self.is_running:
            return
        nodes = [node for node in self._cluster.nodes.values() if node.is_up]
        leaders = [node for node in nodes if node.is_leader]
        rng = self._rng
        if nodes:
            node = rng.choice(leaders if leaders and rng.random() < 0.8 else nodes)
            self._read(node) if rng.random() < 0.3 else self._append(node)
        self._later()

    def _append(self, node: SimNode) -> None:
        history, invariants = self._cluster.history, self._cluster.invariants
        command = b"%d." % next(self._numbers) + b"x" * self._rng.choice((0, 20, 200))
        operation = history.invoke(command)

        def done(outcome: Any) -> None:
            if operation.outcome is not None:
                return
            history.finish(operation, outcome)
            invariants.check_answer(operation)

        # An answer leaves a process behind the step that gave it, unless the process has ended meanwhile.
        proposal = Proposal(command, lambda outcome: node.after(0, done, outcome))
        node.propose(proposal)

        def give_up() -> None:
            """As `Replica.propose` does at its time-out."""
            if operation.outcome is None:
                proposal.is_cancelled = True
                done(Outcome.UNKNOWN if proposal.is_in_log else Outcome.OVERLOADED)

        self._cluster.scheduler.after(1.0, give_up)

    def _read(self, node: SimNode) -> None:
        history = self._cluster.history
        floor = history.floor
        node.read(lambda position: None if position is None else history.finish_read(floor, position))


class Nemesis:
    """Injects faults, one after another, for as long as it is running."""

    def __init__(self, cluster: SimCluster, faults: Faults) -> None:
        self._cluster = cluster
        self._faults = faults
        self._rng = random.Random(f"{cluster.seed}/faults")
        self.is_running = True
        self.count = 0
        actions = {
            field.name: (getattr(self, f"_{field.name}"), getattr(faults, field.name))
            for field in fields(faults)
            if not field.name.endswith("second") and not field.name.endswith("seconds")
        }
        self._names = [name for name, (_, weight) in actions.items() if weight]
        self._actions: dict[str, Callable[[], None]] = {name: actions[name][0] for name in self._names}
        self._weights = [actions[name][1] for name in self._names]
        self._spare = itertools.count(1)
        self._wiped: SimNode | None = None
        self._wiped_until = 0.0
        self._later()

    def stop(self) -> None:
        """No more faults, and the ones under way are over: every node runs, every connection works."""
        self.is_running = False
        self._cluster.network.heal()
        for node in self._cluster.nodes.values():
            node.disk.crash_in = None
            node.resume()
        self._cluster.start()

    def _later(self) -> None:
        if self._faults.per_second:
            self._cluster.scheduler.after(self._rng.expovariate(self._faults.per_second), self._next)

    def _next(self) -> None:
        if not self.is_running:
            return
        name = self._rng.choices(self._names, self._weights)[0]
        self._cluster.log("fault", name)
        self.count += 1
        self._actions[name]()
        self._later()

    def _up(self) -> SimNode | None:
        nodes = [node for node in self._cluster.nodes.values() if node.is_up]
        return self._rng.choice(nodes) if nodes else None

    def _leader(self) -> SimNode | None:
        return next((node for node in self._cluster.nodes.values() if node.is_ready_leader), None)

    def _restart_later(self, node: SimNode) -> None:
        seconds = self._rng.expovariate(1 / self._faults.restart_seconds)
        self._cluster.scheduler.after(seconds, lambda: self._restart(node))

    def _restart(self, node: SimNode) -> None:
        is_away = node is self._wiped and self._cluster.scheduler.now < self._wiped_until
        if self.is_running and not node.is_up and not is_away:
            node.start()

    # -- the faults

    def _partition(self) -> None:
        ids = [*self._cluster.nodes]
        self._rng.shuffle(ids)
        cut = self._rng.randint(1, len(ids))
        self._cluster.network.partition(ids[:cut], ids[cut:])

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
        self._wiped, self._wiped_until = node, self._cluster.scheduler.now + 1.2
        node.replace_disk()
        self._cluster.scheduler.after(1.2 + self._rng.random(), lambda: self._restart(node))

    def _crash_point(self) -> None:
        """Within the next few operations of a disk, perhaps half-way through a compaction, the node ends."""
        node = self._up()
        if node is not None:
            node.disk.crash_in = self._rng.randint(1, 12)

            def check() -> None:
                if not node.is_up:
                    self._restart_later(node)
                elif node.disk.crash_in is not None and self.is_running:
                    self._cluster.scheduler.after(0.5, check)

            self._cluster.scheduler.after(0.5, check)

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
            node_id = f"n{next(self._spare)}"
            node = self._cluster.add(node_id, members_of("a", "b", "c"))
            node.start()
            self._cluster.change_membership(leader, ChangeKind.LEARN, member(node_id))
        elif others:
            subject = members[self._rng.choice(others)]
            self._cluster.change_membership(leader, ChangeKind.REMOVE, subject)


@dataclass(frozen=True, slots=True)
class Scenario:
    """What one seed runs."""

    size: int
    faults: Faults
    network: NetworkProfile
    seconds: float = 15.0


def scenario_of(seed: int, seconds: float = 15.0) -> Scenario:
    """A mixture of faults that depends on the seed: some runs are gentle, so that rare successes happen too."""
    rng = random.Random(f"{seed}/scenario")
    faults = Faults(
        per_second=rng.choice((0.5, 1.0, 3.0)),
        power_cut=rng.choice((0.0, 1.0)),
        crash_point=rng.choice((0.0, 1.0, 4.0)),
        blackout=rng.choice((0.0, 0.3)),
        compact=rng.choice((0.0, 2.0)),
        hand_over=rng.choice((0.0, 2.0)),
        membership=rng.choice((0.0, 2.0)),
        restart_seconds=rng.choice((0.2, 1.0)),
    )
    network = NetworkProfile(
        mean_delay=rng.choice((0.0005, 0.002, 0.02)),
        slow=rng.choice((0.0, 0.01)),
        reset=rng.choice((0.0, 0.0005, 0.005)),
        **rng.choice(({}, {"lost": 0.02, "repeated": 0.05, "overtaken": 0.05})),
    )
    return Scenario(rng.choice((2, 3, 3, 3, 4, 5)), faults, network, seconds)


def run_scenario(seed: object, scenario: Scenario) -> SimCluster:
    """Run one seed to its end. Raises: InvariantViolated, naming the seed and what the cluster looked like."""
    cluster = SimCluster(seed, scenario.size, network=scenario.network)
    try:
        cluster.start()
        nemesis, clients = Nemesis(cluster, scenario.faults), Clients(cluster)
        cluster.run(scenario.seconds)
        nemesis.stop()
        cluster.run(1.0)
        clients.is_running = False
        cluster.settle(20.0)
        # Whatever happened before, it serves again.
        cluster.append(cluster.wait_for_leader(), b"last")
        cluster.settle()
    except InvariantViolated as error:
        raise InvariantViolated(f"seed {seed} at {cluster.scheduler.now:.4f}: {error}\n{cluster.describe()}") from error
    return cluster
