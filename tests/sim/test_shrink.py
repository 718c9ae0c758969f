"""Bugs that are put in on purpose are found, and the scripts that show them become small."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from unittest.mock import patch

import pytest

from cluster.raft.codec import Message
from cluster.raft.guard import Guard
from cluster.raft.reads import ReadIndex, _Round
from tests.sim.disk import SimDisk
from tests.sim.network import NetworkProfile
from tests.sim.script import Fault, Faults, Scenario, Script, load_script, scenario_of, script_of
from tests.sim.shrink import failure_of, shrink


def scripts(count: int = 40) -> Iterator[Script]:
    return (script_of(seed, scenario_of(seed)) for seed in range(count))


@contextmanager
def disks_that_do_not_sync() -> Iterator[None]:
    made = SimDisk.__init__

    def init(self: SimDisk) -> None:
        made(self)
        self.is_syncing = False

    with patch.object(SimDisk, "__init__", init):
        yield


def first_failing() -> Script:
    return next(script for script in scripts() if failure_of(script) is not None)


@pytest.mark.slow
def test_lost_acknowledgements_are_found_and_the_script_shrinks_to_a_power_cut() -> None:
    with disks_that_do_not_sync():
        found = first_failing()
        small = shrink(found, max_runs=150)
        assert failure_of(small) is not None
    assert len(small.faults) < len(found.faults) / 3
    assert {fault.name for fault in small.faults} & {"power_cut", "blackout", "betrayal", "crash_point", "failing_disk"}
    assert small.seconds <= found.seconds
    assert failure_of(small) is None  # the bug was it
    assert load_script(small.dump()) == small


def test_same_script_fails_in_the_same_way_again() -> None:
    with disks_that_do_not_sync():
        script = first_failing()
        assert failure_of(script) == failure_of(script)


def test_guard_that_is_taken_out_is_noticed() -> None:
    """Without G2 and G3 PySyncObj truncates entries that match, and acknowledges what it does not have."""

    def trusting(self: Guard, _peer: str, message: Message) -> Message:
        entries = self._journal.entries
        if message["prevLogIdx"] > entries[-1].log_index or message["prevLogIdx"] < entries[0].log_index:
            return self._heartbeat(message, self._core.commit_index, entries[-1].log_index + 1, reset=True)
        return message

    with patch.object(Guard, "_append", trusting):
        assert any(failure_of(script) is not None for script in scripts())


def test_read_that_asks_nobody_is_noticed() -> None:
    def believing(self: ReadIndex, round_: _Round) -> None:
        self._rounds.pop(round_.number, None)
        for done in round_.waiting:
            done(round_.log_index)

    scenario = Scenario(3, Faults(per_second=3.0, isolate=20.0), NetworkProfile(), 3.0, clients=8, drift=0.3)
    with patch.object(ReadIndex, "_check", believing):
        failures = (failure_of(script_of(f"stale {number}", scenario)) for number in range(40))
        assert any("a read saw" in failure for failure in failures if failure is not None)


def test_shrinking_keeps_what_the_failure_needs_and_nothing_else() -> None:
    faults = tuple(Fault(0.1 * number, "kill" if number % 7 else "heal", number) for number in range(30))
    noisy = NetworkProfile(lost=0.1, slow=0.1)
    script = replace(next(scripts(1)), seconds=4.0, faults=faults, network=noisy, clients=(0, 1, 2, 3), drift=0.2)

    def needs_two_faults_and_loss(candidate: Script) -> str | None:
        numbers = {fault.number for fault in candidate.faults}
        return "wrong" if {5, 17} <= numbers and candidate.network.lost and 2 in candidate.clients else None

    small = shrink(script, needs_two_faults_and_loss)
    assert [fault.number for fault in small.faults] == [5, 17]
    assert small.clients == (2,)
    assert small.network == NetworkProfile(lost=0.1)
    assert small.drift == 0.0
    assert small.seconds < 2.5


def test_other_failures_are_not_taken_for_the_one_that_is_shrunk() -> None:
    script = next(scripts(1))

    def failure(candidate: Script) -> str | None:
        return "unsafe" if candidate.faults == script.faults else "not within 5 s: a leader"

    assert shrink(script, failure).faults == script.faults


def test_script_that_does_not_fail_cannot_be_shrunk() -> None:
    with pytest.raises(ValueError, match="does not fail"):
        shrink(next(scripts(1)), lambda _script: None)
