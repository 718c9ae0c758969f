"""What a seed does to a cluster, as values: parts of a script can be left out, and the rest stays the same."""

import dataclasses
import json
import random
from dataclasses import dataclass, fields
from typing import Any, Final

from tests.sim.network import NetworkProfile

#: Kinds of faults that are weights of `Faults` and methods of the nemesis.
_NO_WEIGHTS: Final = frozenset(("per_second", "restart_seconds"))


@dataclass(frozen=True, slots=True)
class Faults:
    """How often each fault happens, relative to the others; `per_second` of them happen together."""

    per_second: float = 1.0
    partition: float = 2.0
    isolate: float = 0.0  # the leader is cut off from everybody, and its clock is slow where clocks drift
    one_way: float = 1.0
    reset: float = 1.0
    heal: float = 4.0
    kill: float = 1.0
    power_cut: float = 1.0
    crash_point: float = 1.0
    betrayal: float = 0.0  # a majority has an entry or a vote, and loses it at once
    blackout: float = 0.3  # all nodes lose power at once
    pause: float = 1.0
    slow_disk: float = 0.5
    full_disk: float = 0.0
    failing_disk: float = 0.0  # its syncs fail
    hand_over: float = 1.0
    compact: float = 1.0
    membership: float = 0.0
    wipe: float = 0.0
    restart_seconds: float = 1.0  # a node stays down for so long on average


@dataclass(frozen=True, slots=True)
class Scenario:
    """What one seed runs, before its faults are drawn."""

    size: int
    faults: Faults
    network: NetworkProfile
    seconds: float = 15.0
    clients: int = 4
    drift: float = 0.0  # clocks of nodes run faster or slower by up to so much
    rows_per_commit: int = 1
    is_sqlite: bool = False


@dataclass(frozen=True, slots=True)
class Fault:
    """`number` seeds what the fault chooses, so it chooses the same when others are left out."""

    at: float  # seconds behind the start
    name: str
    number: int


@dataclass(frozen=True, slots=True)
class Script:
    """Everything a run depends on."""

    seed: str
    size: int
    network: NetworkProfile
    seconds: float
    faults: tuple[Fault, ...]
    restart_seconds: float
    clients: tuple[int, ...]
    drift: float = 0.0
    rows_per_commit: int = 1
    is_sqlite: bool = False

    def dump(self) -> str:
        """One line that `load_script` reads."""
        return json.dumps(dataclasses.asdict(self), separators=(",", ":"))


def load_script(line: str) -> Script:
    value: dict[str, Any] = json.loads(line)
    value["network"] = NetworkProfile(**value["network"])
    value["faults"] = tuple(Fault(**fault) for fault in value["faults"])
    value["clients"] = tuple(value["clients"])
    return Script(**value)


def script_of(seed: object, scenario: Scenario) -> Script:
    rng = random.Random(f"{seed}/faults")
    faults = scenario.faults
    weights = {field.name: getattr(faults, field.name) for field in fields(faults) if field.name not in _NO_WEIGHTS}
    names = [name for name, weight in weights.items() if weight]
    drawn: list[Fault] = []
    at = 0.0
    while faults.per_second and (at := at + rng.expovariate(faults.per_second)) < scenario.seconds:
        name = rng.choices(names, [weights[name] for name in names])[0]
        drawn.append(Fault(round(at, 6), name, len(drawn)))
    return Script(
        str(seed),
        scenario.size,
        scenario.network,
        scenario.seconds,
        tuple(drawn),
        faults.restart_seconds,
        tuple(range(scenario.clients)),
        scenario.drift,
        scenario.rows_per_commit,
        scenario.is_sqlite,
    )


def scenario_of(seed: int) -> Scenario:
    """A mixture of faults that depends on the seed: some runs are gentle, so that rare successes happen too."""
    rng = random.Random(f"{seed}/scenario")
    drift = rng.choice((0.0, 0.01, 0.3))
    # Disks are emptied one at a time, and not while servers come and go: the fresh-disk rule (cluster/raft/DESIGN.md).
    wipe = rng.choice((0.0, 0.0, 0.0, 0.0, 3.0))
    faults = Faults(
        per_second=rng.choice((2.0, 5.0, 12.0)),
        isolate=rng.choice((0.0, 3.0)),
        betrayal=rng.choice((0.0, 3.0)),
        power_cut=rng.choice((0.0, 1.0)),
        crash_point=rng.choice((0.0, 1.0, 4.0)),
        blackout=0.0 if wipe else rng.choice((0.0, 0.3)),
        wipe=wipe,
        slow_disk=rng.choice((0.0, 1.0)),
        full_disk=rng.choice((0.0, 0.0, 1.0)),
        failing_disk=rng.choice((0.0, 0.0, 1.0)),
        compact=rng.choice((0.0, 2.0)),
        hand_over=rng.choice((0.0, 2.0)),
        membership=0.0 if wipe else rng.choice((0.0, 3.0)),
        restart_seconds=rng.choice((0.1, 0.5)),
    )
    network = NetworkProfile(
        mean_delay=rng.choice((0.0005, 0.002, 0.02)),
        slow=rng.choice((0.0, 0.01)),
        reset=rng.choice((0.0, 0.0005, 0.005)),
        **rng.choice(({}, {"lost": 0.02, "repeated": 0.05, "overtaken": 0.05})),
    )
    return Scenario(
        rng.choice((2, 3, 3, 3, 4, 5)),
        faults,
        network,
        seconds=rng.choice((2.0, 3.0, 4.0)),
        drift=drift,
        rows_per_commit=rng.choice((1, 8)),
        is_sqlite=rng.random() < 0.05,
    )
