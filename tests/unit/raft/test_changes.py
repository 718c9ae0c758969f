"""Who waits for a change of one area is told of it, and of nothing else; what comes often is told together."""

import random
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import pytest

from cluster.raft.changes import AreaChanges
from fsm.state import Area, State


@dataclass
class Waiting:
    """Everyone who waits: looks at the state whenever told, and at nothing in between."""

    state: State = field(default_factory=State)
    timers: list[Callable[[], None]] = field(default_factory=list)
    told: list[Area] = field(default_factory=list)
    seen: dict[Area, int] = field(default_factory=lambda: dict.fromkeys(Area, 0))

    def __post_init__(self) -> None:
        self.changes = AreaChanges(self._tell, lambda seconds, then: self.timers.append(then))

    def _tell(self, area: Area) -> None:
        self.told.append(area)
        self.seen[area] = self.state.area_index(area)

    def change(self, area: Area | None) -> None:
        self.state = self.state.moved_to(self.state.index + 1, area)
        self.changes.note(self.state)

    def let_time_pass(self) -> None:
        timers, self.timers = self.timers, []
        for then in timers:
            then()


@pytest.fixture
def waiting() -> Waiting:
    return Waiting()


def test_change_of_the_ca_is_told_at_once(waiting: Waiting) -> None:
    waiting.change(Area.CA)
    waiting.change(Area.CA)
    assert waiting.told == [Area.CA, Area.CA]
    assert not waiting.timers


def test_certificates_are_told_together_and_again_when_more_come(waiting: Waiting) -> None:
    for _ in range(1000):
        waiting.change(Area.LEAVES)
    assert (waiting.told, len(waiting.timers)) == ([], 1)
    waiting.let_time_pass()
    assert waiting.told == [Area.LEAVES]
    assert not waiting.timers  # nothing crosses while nothing changes
    waiting.change(Area.LEAVES)
    waiting.let_time_pass()
    assert waiting.told == [Area.LEAVES, Area.LEAVES]


@pytest.mark.parametrize("area", Area)
def test_nothing_is_told_of_other_areas_nor_of_what_belongs_to_none(waiting: Waiting, area: Area) -> None:
    waiting.change(None)
    waiting.let_time_pass()
    assert waiting.told == []
    waiting.change(area)
    waiting.let_time_pass()
    assert waiting.told == [area]
    for other in {*Area, None} - {area}:
        waiting.change(other)
        waiting.let_time_pass()
    assert waiting.told.count(area) == 1


def test_what_a_snapshot_brings_is_told_whatever_way_the_index_goes(waiting: Waiting) -> None:
    waiting.state = replace(State(), index=9, ca_index=9, leaf_index=8, acl_index=7, nodes_index=6)
    waiting.changes.note(waiting.state)
    waiting.state = replace(State(), index=7, ca_index=6, leaf_index=7, acl_index=5, nodes_index=4)
    waiting.changes.note(waiting.state)
    waiting.let_time_pass()
    at_once = [Area.CA, Area.ACL, Area.NODES]
    assert waiting.told == [*at_once, *at_once, Area.LEAVES]
    assert waiting.seen == {Area.CA: 6, Area.ACL: 5, Area.NODES: 4, Area.LEAVES: 7}


@pytest.mark.parametrize("seed", range(50))
def test_once_the_timers_are_over_everyone_has_seen_the_last_change(seed: int) -> None:
    rng, waiting = random.Random(seed), Waiting()
    for _ in range(200):
        if rng.random() < 0.3:
            waiting.let_time_pass()
        else:
            waiting.change(rng.choice([*Area, None]))
        assert waiting.seen[Area.CA] == waiting.state.ca_index
        assert waiting.timers or waiting.seen[Area.LEAVES] == waiting.state.leaf_index
    waiting.let_time_pass()
    assert waiting.seen == {area: waiting.state.area_index(area) for area in Area}
