"""Whether a leader and a follower hear from each other, sampled while something else goes on."""

import http.client
import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

from benchmarks.nodes import BenchError, Node, wait_for
from providers.config.durations import MILLISECOND, parse_duration

_SAMPLE_SECONDS: Final = 0.05
_HEALTH: Final = "/v1/operator/autopilot/health?stale"
_UNHEALTHY: Final = 429  # says the same, as in Consul, while a third server lags


@dataclass(frozen=True, slots=True)
class Contact:
    """From the first sample to the last. Seconds since one heard from the other, as each says itself."""

    samples: int
    missed_samples: int  # that a node did not answer in time; heartbeats do not go through its HTTP API
    leaders: tuple[str, ...]  # more than one: leadership has changed
    terms: tuple[int, ...]
    leader_silence_seconds: float  # the follower has not heard from the leader for, at most
    follower_silence_seconds: float
    pump_seconds_before: float  # the longest round of the leader's Raft thread since it was started
    pump_seconds_after: float


class Watch:
    """Made by `watching`."""

    def __init__(self, leader: Node, follower: Node) -> None:
        self._leader = leader
        self._follower = follower
        self._samples = 0
        self._missed = 0
        self._leaders: set[str] = set()
        self._terms: set[int] = set()
        self._silence = {leader.name: 0.0, follower.name: 0.0}  # of each, as the other says
        self._pump_before = _longest_pump(leader)
        self._pump_after = 0.0
        self.is_over = threading.Event()

    def until(self, what: str, look: Callable[[], bool], seconds: float) -> float:
        """How long it took until `look` was true. Raises: BenchError."""
        started = time.monotonic()
        wait_for(what, look, seconds)
        return time.monotonic() - started

    def run(self) -> None:
        while not self.is_over.wait(_SAMPLE_SECONDS):
            for node, other in ((self._leader, self._follower), (self._follower, self._leader)):
                try:
                    self._sample(
                        json.loads(node.ask("GET", _HEALTH, also=_UNHEALTHY))["Servers"], node.name, other.name
                    )
                except (OSError, http.client.HTTPException, ValueError, BenchError):
                    self._missed += 1

    def _sample(self, servers: list[dict[str, Any]], own: str, other: str) -> None:
        by_name = {server["ID"]: server for server in servers}
        contact = by_name[other]["LastContact"]
        seconds = float("inf") if contact is None else parse_duration(contact) / MILLISECOND / 1000
        self._silence[other] = max(self._silence[other], seconds)
        self._leaders.update(server["ID"] for server in servers if server["Leader"])
        self._terms.add(by_name[own]["LastTerm"])
        self._samples += 1

    def finish(self) -> None:
        self._pump_after = _longest_pump(self._leader)

    def contact(self) -> Contact:
        return Contact(
            samples=self._samples,
            missed_samples=self._missed,
            leaders=tuple(sorted(self._leaders)),
            terms=tuple(sorted(self._terms)),
            leader_silence_seconds=round(self._silence[self._leader.name], 3),
            follower_silence_seconds=round(self._silence[self._follower.name], 3),
            pump_seconds_before=round(self._pump_before, 4),
            pump_seconds_after=round(self._pump_after, 4),
        )


@contextmanager
def watching(leader: Node, follower: Node) -> Iterator[Watch]:
    watch = Watch(leader, follower)
    thread = threading.Thread(target=watch.run)
    thread.start()
    try:
        yield watch
    finally:
        watch.is_over.set()
        thread.join()
    watch.finish()


def _longest_pump(node: Node) -> float:
    return node.metric("quorumca_raft_pump_seconds_max")
