"""Rounds: a subject gets what it may have from every node, its rights end, the leader is killed, and it is judged what
was given out afterwards. Honest clients sign meanwhile.
"""

import asyncio
import random
import signal
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.kit.real_cluster import Node
from tests.kit.wait import until
from tests.revocation.judge import BOUND_SECONDS, Verdict, judge
from tests.revocation.probes import Probes
from tests.revocation.stage import Stage
from tests.revocation.subjects import Subject, Subjects

#: Of clients at work before the rights end, and after they must have ended.
_BEFORE_SECONDS: Final = 0.3
_AFTER_SECONDS: Final = 0.5
#: In which all nodes must know a leader again, the restarted one included.
_LEADER_SECONDS: Final = 90.0


@dataclass(frozen=True, slots=True)
class Plan:
    """One round to come."""

    kind: str
    has_kill: bool


@dataclass(frozen=True, slots=True)
class Round:
    """What one round found. It is good when there are no violations."""

    number: int
    plan: Plan
    through: str  # "leader" | "follower": who was asked to revoke
    seconds: float
    #: The longest that one of the others knew no leader after the revocation was acknowledged.
    leaderless_seconds: float
    verdict: Verdict
    given: int  # answers 200 of the subject, nearly all of them before
    refused: int  # answers 403
    statuses: dict[int, int]
    honest: dict[int, int]

    @property
    def violations(self) -> Sequence[str]:
        return self.verdict.violations


def plans(kinds: Sequence[str], rounds: int, calm: int, seed: object) -> Iterator[Plan]:
    """`rounds` with a kill and `calm` ones without; all kinds come equally often in both, in an order that the seed
    gives.
    """
    rng = random.Random(f"{seed}/plans")
    chosen = [Plan(kind, has_kill=True) for kind in _deck(kinds, rounds, rng)]
    chosen += [Plan(kind, has_kill=False) for kind in _deck(kinds, calm, rng)]
    rng.shuffle(chosen)
    yield from chosen


def _deck(kinds: Sequence[str], count: int, rng: random.Random) -> list[str]:
    cards: list[str] = []
    while len(cards) < count:
        cards += rng.sample(kinds, len(kinds))
    return cards[:count]


class Campaign:
    """Round after round on one cluster, which is started by `async with`."""

    def __init__(self, root: Path, seed: object, *, has_expiring: bool = True) -> None:
        self._rng = random.Random(f"{seed}/rounds")
        self._has_expiring = has_expiring
        self._stage = Stage(root)
        self._subjects = Subjects(self._stage, self._rng)
        self._numbers = 0

    async def __aenter__(self) -> "Campaign":
        await self._stage.__aenter__()
        return self

    async def __aexit__(self, *about: object) -> None:
        await self._stage.__aexit__(None, None, None)

    async def round(self, plan: Plan) -> Round:
        """Never raises for what the cluster does: that is a violation of the round."""
        self._numbers += 1
        began, honest = time.monotonic(), self._stage.load.statuses.copy()
        play = _Play(self._stage, self._subjects, plan, self._rng)
        trouble: tuple[str, ...] = ()
        try:
            if self._has_expiring:
                await self._subjects.age()
            await play.run()
        except AssertionError as error:
            trouble = (f"{plan.kind}: {error}",)
        verdict = play.verdict
        after = self._stage.load.statuses - honest
        if after[403]:
            trouble += (f"{after[403]} requests of clients that nothing was taken from were refused",)
        statuses = play.statuses
        return Round(
            self._numbers,
            plan,
            play.through,
            round(time.monotonic() - began, 2),
            round(play.leaderless_seconds, 3),
            Verdict(verdict.longest_seconds, verdict.by_what, (*trouble, *verdict.violations)),
            statuses[200],
            statuses[403],
            dict(sorted(statuses.items())),
            dict(sorted(after.items())),
        )


class _Play:
    """One round, step by step."""

    def __init__(self, stage: Stage, subjects: Subjects, plan: Plan, rng: random.Random) -> None:
        self._stage = stage
        self._subjects = subjects
        self._plan = plan
        self._rng = rng
        self.verdict = Verdict(0.0, {}, ())
        self.through = ""
        self.leaderless_seconds = 0.0
        self.statuses: Counter[int] = Counter()

    async def run(self) -> None:
        """Raises: AssertionError when the cluster does not go on."""
        leader = await self._stage.watch.agreed()
        subject = await self._subjects.new(self._plan.kind)
        probes = Probes(self._stage, subject)
        try:
            await probes.begin()
            await asyncio.sleep(_BEFORE_SECONDS)
            await subject.shortly_before()
            probes.burst()
            since = await self._end_rights(subject, leader)
            await asyncio.sleep(max(0.0, max(since.values()) + BOUND_SECONDS - time.monotonic()))
            still_open = probes.still_open()
            await asyncio.sleep(_AFTER_SECONDS)
        finally:
            await probes.end()
            for found in probes.seen.values():
                self.statuses += found.statuses
        verdict = judge(probes.seen, since)
        endless = [f"{what} goes on" for what in still_open]
        allowed = [f"not refused in the end: {text}" for text in await probes.refused()]
        self.verdict = Verdict(
            verdict.longest_seconds, verdict.by_what, (*verdict.violations, *endless, *allowed, *probes.strange())
        )

    async def _end_rights(self, subject: Subject, leader: Node) -> dict[str, float]:
        """For each node, when that counts there."""
        node = self._rng.choice(self._stage.nodes)
        self.through = "leader" if node is leader else "follower"
        acknowledged = await subject.revoke(node)
        if self._plan.has_kill:
            await self._lose(leader)
        watch = self._stage.watch
        since = {node.name: max(acknowledged, watch.last_without(node)) for node in self._stage.nodes}
        others = [node for node in self._stage.nodes if node is not leader]
        self.leaderless_seconds = max(since[node.name] for node in others) - acknowledged
        return since

    async def _lose(self, leader: Node) -> None:
        """Killed, and started again once the others have a new one; until all know that."""
        stage, watch = self._stage, self._stage.watch
        stage.cluster.send(leader, signal.SIGKILL)
        watch.lose(leader)
        others = [node for node in stage.nodes if node is not leader]
        await until(lambda: all(map(watch.known, others)), "the others have a leader", _LEADER_SECONDS)
        await until(lambda: not leader.is_running, f"{leader.name} has ended")
        watch.found_again()
        stage.cluster.start(leader)
        await until(lambda: all(map(watch.known, stage.nodes)), "all nodes know a leader", _LEADER_SECONDS)
