"""Run a script to its end, and judge what happened."""

import hashlib
from dataclasses import dataclass

from tests.chaos.linearizability import violation_of
from tests.sim.clients import Client, LeaderWork, Proposer
from tests.sim.cluster import SimCluster
from tests.sim.model import CAModel, CAWorld
from tests.sim.nemesis import Nemesis
from tests.sim.script import Scenario, Script, script_of
from tests.sim.world import InvariantViolated


@dataclass(frozen=True, slots=True)
class Ran:
    """A run that ended well."""

    cluster: SimCluster
    model: CAModel
    faults: dict[str, int]
    register_operations: int
    duties: int

    @property
    def digest(self) -> str:
        """Over everything that was logged and applied: equal for equal runs."""
        hashed = hashlib.sha256()
        for event in self.cluster.events:
            hashed.update(event.encode() + b"\n")
        for command in self.cluster.invariants.applied_commands:
            hashed.update(command)
        return hashed.hexdigest()


def run_scenario(seed: object, scenario: Scenario) -> Ran:
    return run_script(script_of(seed, scenario))


def run_script(script: Script) -> Ran:
    """Raises: InvariantViolated, naming the seed and what the cluster looked like."""
    world = CAWorld(is_sqlite=script.is_sqlite, rows_per_commit=script.rows_per_commit)
    cluster = SimCluster(script.seed, script.size, network=script.network, world=world, drift=script.drift)
    cluster.has_bad_disks = any(fault.name in ("full_disk", "failing_disk") for fault in script.faults)
    try:
        return _run(script, cluster, world.made)
    except InvariantViolated as error:
        now = cluster.scheduler.now
        raise InvariantViolated(f"seed {script.seed} at {now:.4f}: {error}\n{cluster.describe()}") from error
    finally:
        world.close()


def _run(script: Script, cluster: SimCluster, model: CAModel) -> Ran:
    proposer = Proposer(cluster)
    cluster.start()
    work = LeaderWork(cluster, proposer)
    nemesis = Nemesis(cluster, script)
    clients = [Client(cluster, proposer, number) for number in script.clients]
    cluster.run(script.seconds)
    nemesis.stop()
    cluster.run(0.3)
    for client in clients:
        client.stop()
    cluster.settle(20.0)
    # Whatever happened before, it serves again, and the leader has done all its work.
    cluster.wait(lambda: _is_served(model), 10.0, "an active root, and no rotation under way")
    work.stop()
    cluster.settle()
    found = violation_of(proposer.register, 0)
    if found is not None:
        raise InvariantViolated(f"the configuration is no linearizable register: {found}")
    return Ran(cluster, model, nemesis.injected, len(proposer.register), work.duties_done)


def _is_served(model: CAModel) -> bool:
    return model.state.active_root is not None and model.state.rotation is None
