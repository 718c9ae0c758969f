"""From a script that fails to a small one that fails, too: fewer faults, clients and seconds, a kinder network.

Every part of a script chooses by itself (script.py), so what is left does what it did before.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Final, TypeVar

from tests.sim.network import NetworkProfile
from tests.sim.run import run_script
from tests.sim.script import Script

FailureOf = Callable[[Script], str | None]

T = TypeVar("T")

_MAX_RUNS: Final = 400
_SHORTEST_SECONDS: Final = 0.1


def failure_of(script: Script) -> str | None:
    """What goes wrong when the script is run; None if nothing does."""
    try:
        run_script(script)
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return None


def shrink(script: Script, failure_of: FailureOf = failure_of, *, max_runs: int = _MAX_RUNS) -> Script:
    """A script from which nothing more can be left out, as far as so many runs can tell.

    Raises: ValueError if the script does not fail.
    """
    failure = failure_of(script)
    if failure is None:
        raise ValueError(f"seed {script.seed} does not fail")
    kind, runs = _kind(failure), 0
    is_smaller = True
    while is_smaller:
        is_smaller = False
        for candidate in _smaller(script):
            if runs >= max_runs:
                return script
            runs += 1
            found = failure_of(candidate)
            if found is not None and _kind(found) == kind:
                script, is_smaller = candidate, True
                break
    return script


def _kind(failure: str) -> str:
    """What never comes is another thing than what must never be."""
    return "liveness" if "not within" in failure else "safety"


def _smaller(script: Script) -> Iterator[Script]:
    """Large steps first."""
    for seconds in (script.seconds / 2, script.seconds * 0.8):
        if seconds >= _SHORTEST_SECONDS:
            left = tuple(fault for fault in script.faults if fault.at < seconds)
            yield replace(script, seconds=round(seconds, 3), faults=left)
    for faults in _without_parts(script.faults):
        yield replace(script, faults=faults)
    for clients in _without_parts(script.clients):
        yield replace(script, clients=clients)
    for profile in _kinder(script.network):
        yield replace(script, network=profile)
    plainer = (replace(script, drift=0.0), replace(script, rows_per_commit=1), replace(script, is_sqlite=False))
    yield from (candidate for candidate in plainer if candidate != script)
    if script.size > 1:
        yield replace(script, size=script.size - 1)


def _without_parts(items: Sequence[T]) -> Iterator[tuple[T, ...]]:
    """Without all of them, each half, each quarter, ... each single one."""
    length = len(items)
    while length:
        for start in range(0, len(items), length):
            yield (*items[:start], *items[start + length :])
        length //= 2


def _kinder(profile: NetworkProfile) -> Iterator[NetworkProfile]:
    if profile != NetworkProfile():
        yield NetworkProfile()
    for name in ("slow", "reset", "lost", "repeated", "overtaken"):
        if getattr(profile, name):
            yield replace(profile, **{name: 0.0})
