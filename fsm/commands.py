"""What a log entry may hold: the commands of all areas, and what becomes of one.

Everything that could differ between nodes (time, serial, key, signature) was chosen by the leader and is carried as a
value. Commands that depend on what their author read carry `expected_index`, the index that their area had then;
commands that commute leave it out, or they would refuse each other under load.
"""

from dataclasses import dataclass

from fsm.acl import AclCommand
from fsm.ca import CACommand
from fsm.fields import Index
from fsm.leaves import LeafCommand
from fsm.nodes import NodesCommand
from fsm.state import State


@dataclass(frozen=True, slots=True)
class RestoreCA:
    """Another cluster's CA, or this one's of an earlier day, takes the place of the present one, seal and all.

    What counts entries and certificates of this cluster stays; issued certificates are restored by RecordLeaves.
    """

    expected_index: Index
    saved: State


Command = CACommand | LeafCommand | AclCommand | NodesCommand | RestoreCA


@dataclass(frozen=True, slots=True)
class Applied:
    """The command took effect. `index` is the state's index after it.

    A `RecordLeaves` of n records takes n indexes; the i-th record has `index - n + 1 + i`. `duplicates` are the
    positions of records that were refused because their serial or request is in the ledger already.
    """

    index: int
    duplicates: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Rejected:
    """The command had no effect. `code` is stable, `detail` is for people."""

    code: str
    detail: str
