"""Runs a node that can be ordered to die: `python -m tests.integration.killer DIR agent --config FILE`.

The product has no hooks for this. What the node would call is replaced before it starts: the way of a command into the
log, where the process may end itself by SIGKILL; the application of a command, which is noted; and the clock. All nodes
of a cluster share DIR, so that an order is carried out once, by whoever leads when its step comes.
"""

import json
import os
import signal
import sys
import time
from contextvars import ContextVar
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, Final

import cluster.ca.leader
import cluster.node.pinning
import cluster.raft.machine
from cluster.base.clock import SystemClock
from cluster.ca.leader import Leader
from cluster.cli.main import main
from cluster.raft.replica import Replica
from fsm.apply import apply
from fsm.ca import AdvanceRotation
from fsm.commands import Applied, Command, Rejected
from fsm.duties import Duty
from fsm.state import State

_ORDER: Final = "order"
_DONE: Final = "done"
_APPLIED: Final = "applied"
_CLOCK: Final = "clock"
#: How often a leader looks whether time has brought a duty: the clock of the tests jumps.
_LOOK_SECONDS: Final = 0.2
_ROLLBACK_SECONDS: Final = 1.0


class Moment(StrEnum):
    """When a leader dies at a step."""

    BEFORE = "before"  # all is done that the step records, and nothing of it is in the log
    AFTER = "after"  # it is committed and applied, and nothing was done with that


@dataclass(frozen=True, slots=True)
class Step:
    """A command that a leader commits: as a duty of its own, or because an operator asks for it."""

    what: str
    duty: str = ""

    def __str__(self) -> str:
        return f"{self.what} as {self.duty}" if self.duty else self.what


@dataclass(frozen=True, slots=True)
class Order:
    """Die at this step."""

    step: Step
    moment: Moment


class Desk:
    """The shared directory, from the test's side and from the nodes'."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    # -- the test

    def order(self, order: Order | None) -> None:
        """The only one from now on."""
        (self._directory / _DONE).unlink(missing_ok=True)
        (self._directory / _ORDER).unlink(missing_ok=True)
        if order is not None:
            self._write(_ORDER, json.dumps(asdict(order)))

    @property
    def is_carried_out(self) -> bool:
        return (self._directory / _DONE).exists()

    def applied(self) -> dict[int, str]:
        """By the state's index, what every node has applied there."""
        found: dict[int, str] = {}
        for line in self._read(_APPLIED).splitlines():
            index, _, what = line.partition(" ")
            assert found.setdefault(int(index), what) == what, f"nodes differ at index {index}: {found, what}"
        return dict(sorted(found.items()))

    def turn_clock(self, seconds: float) -> None:
        """Forward, on all nodes."""
        self._write(_CLOCK, str(self.clock_seconds + seconds))

    @property
    def clock_seconds(self) -> float:
        return float(self._read(_CLOCK) or 0)

    # -- a node

    def note_applied(self, index: int, what: str) -> None:
        """In one write: a line is there or not, whoever dies."""
        fd = os.open(self._directory / _APPLIED, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            os.write(fd, f"{index} {what}\n".encode())
        finally:
            os.close(fd)

    def obey(self, step: Step, moment: Moment) -> None:
        """Does not return if this is what was ordered."""
        ordered = self._read(_ORDER)
        if not ordered or json.loads(ordered) != asdict(Order(step, moment)):
            return
        os.rename(self._directory / _ORDER, self._directory / _DONE)
        os.kill(os.getpid(), signal.SIGKILL)

    def _read(self, name: str) -> str:
        try:
            return (self._directory / name).read_text()
        except FileNotFoundError:
            return ""

    def _write(self, name: str, text: str) -> None:
        draft = self._directory / f".{name}"
        draft.write_text(text)
        os.replace(draft, self._directory / name)


def what_is(command: Command, state: State) -> str:
    """The command's name; of a step of a rotation, from where to where as well."""
    name = type(command).__name__
    if not isinstance(command, AdvanceRotation) or state.rotation is None:
        return name
    paused = ", paused" if command.rotation.is_paused else ""
    return f"{name} {state.rotation.phase} to {command.rotation.phase}{paused}"


def _kill_at_steps(desk: Desk) -> None:
    duty_now: ContextVar[str] = ContextVar("duty_now", default="")
    propose, take_step = Replica.propose, Leader._step

    async def watched_propose(self: Replica, command: Command, *, timeout: float) -> Applied | Rejected:
        step = Step(what_is(command, self.state), duty_now.get())
        desk.obey(step, Moment.BEFORE)
        result = await propose(self, command, timeout=timeout)
        if isinstance(result, Applied):
            desk.obey(step, Moment.AFTER)
        return result

    async def watched_step(self: Leader, state: State, duty: Duty | None) -> bool:
        duty_now.set(duty.name if duty else "")
        return await take_step(self, state, duty)

    _replace(Replica, "propose", watched_propose)
    _replace(Leader, "_step", watched_step)


def _note_what_is_applied(desk: Desk) -> None:
    def noted(state: State, command: Command) -> tuple[State, Applied | Rejected]:
        what = what_is(command, state)
        state, result = apply(state, command)
        if isinstance(result, Applied):
            desk.note_applied(result.index, what)
        return state, result

    _replace(cluster.raft.machine, "apply", noted)


def _turn_clock(desk: Desk) -> None:
    _replace(SystemClock, "now", lambda _self: time.time() + desk.clock_seconds)
    _replace(cluster.ca.leader, "_LOOK_SECONDS", _LOOK_SECONDS)
    # Where the first leader is lost between keys and access control, the next one waits as after an upgrade.
    _replace(cluster.node.pinning, "ROLLBACK_SECONDS", _ROLLBACK_SECONDS)


def _replace(owner: Any, name: str, value: object) -> None:
    assert hasattr(owner, name), f"{owner} has no {name} any more"
    setattr(owner, name, value)


def run(directory: Path, arguments: list[str]) -> int:
    desk = Desk(directory)
    _kill_at_steps(desk)
    _note_what_is_applied(desk)
    _turn_clock(desk)
    return main(arguments)


if __name__ == "__main__":
    sys.exit(run(Path(sys.argv[1]), sys.argv[2:]))
