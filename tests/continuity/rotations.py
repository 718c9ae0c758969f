"""One rotation after another, by both ways the API has, through any node; and the leader killed in the middle."""

import asyncio
import json
import random
import signal
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final, TypeVar

import aiohttp

from tests.continuity.listing import NO_LEADER, Api, Listings, Root
from tests.continuity.places import Goal, Places
from tests.kit.real_cluster import LocalCluster, Node
from tests.kit.wait import eventually

T = TypeVar("T")

KINDS: Final = ("ec 256", "ec 384", "ec 521", "rsa 2048", "rsa 4096")
CONFIGURATION: Final = "/v1/connect/ca/configuration"
ROTATION: Final = "/v1/connect/ca/rotation"
#: A node waits up to a minute for a rotation.
_PUT_SECONDS: Final = 90.0
_END_SECONDS: Final = 120.0
_RETRY_SECONDS: Final = 0.3
#: Of the usual time, in which the leader is killed: behind the answer it would be no kill in a rotation.
_KILLED_UNTIL: Final = 0.8
#: For how long a staged one lets clients learn the new root.
_STAGED_SECONDS: Final = 6
#: How long rotations to these take, before one has been seen.
_GUESSED_SECONDS: Final = {"rsa 2048": 1.0, "rsa 4096": 4.0}
_GUESS_SECONDS: Final = 0.5
_GUESS_VAULT_SECONDS: Final = 1.0
_TROUBLE: Final = ("the CA is being changed already", "could not atomically update roots and config", NO_LEADER)
_NOT_POSSIBLE_YET: Final = 422
_UNREACHABLE: Final = (aiohttp.ClientError, TimeoutError, OSError)


def walk(rng: random.Random, stops: Sequence[T]) -> Iterator[T]:
    """Beginning behind the first of n stops: after n * n steps every ordered pair was there once, and after every
    n * n more once more.
    """
    while True:
        edges = {stop: rng.sample(stops, len(stops)) for stop in stops}
        # Hierholzer: https://en.wikipedia.org/wiki/Eulerian_path#Hierholzer's_algorithm
        path, circuit = [stops[0]], list[T]()
        while path:
            if edges[path[-1]]:
                path.append(edges[path[-1]].pop())
            else:
                circuit.append(path.pop())
        yield from circuit[-2::-1]


@dataclass(slots=True)
class Rotation:
    """How one went. Times are seconds."""

    number: int
    before: str
    after: str
    way: str  # "configuration" or "rotate"
    is_forced: bool
    is_staged: bool
    began_at: float  # Unix time
    may_fail_until: float = 0.0  # Unix time that is reported of one that was forced: until then, clients may fail
    answers: list[str] = field(default_factory=list)
    refused: int = 0  # as not possible yet
    waited: float = 0.0  # for it to be possible
    #: What the rotation was doing when the leader was killed; "" if it was not.
    killed_in: str = ""
    seconds: float = 0.0  # without the wait
    ended: float = 0.0  # `time.monotonic()`
    listed: int = 0  # roots, behind it


class Rotator:
    """Each rotation is asked for until it has happened, once."""

    def __init__(
        self,
        cluster: LocalCluster,
        api: Api,
        listings: Listings,
        rng: random.Random,
        places: Places,
        start: Goal,
        violations: list[str],
    ) -> None:
        self._cluster = cluster
        self._api = api
        self._listings = listings
        self._rng = rng
        self._places = places
        self._at = start
        self._violations = violations
        self._usual: dict[Goal, float] = {}
        self._numbers = 0
        connector = aiohttp.TCPConnector(force_close=True)
        self._session = aiohttp.ClientSession(
            connector=connector, timeout=aiohttp.ClientTimeout(total=_PUT_SECONDS), trust_env=False
        )
        # aiohttp would send a PUT again when the connection ends, and rotate twice.
        self._session._retry_connection = False

    async def close(self) -> None:
        await self._session.close()

    async def rotate(self, goal: Goal, *, has_kill: bool, is_forced: bool = False, is_staged: bool = False) -> Rotation:
        before = await self._active()
        is_forced = is_forced or goal.is_forced
        is_recovery = before.not_after < time.time()
        if goal.is_forced or is_recovery:
            self._listings.break_trust(before)
        self._numbers += 1
        rotation = Rotation(
            self._numbers, str(self._at), str(goal), self._way(goal), is_forced, is_staged, began_at=time.time()
        )
        started = time.monotonic()
        while (active := await self._attempt(rotation, goal, before, has_kill=has_kill)) == before:
            await asyncio.sleep(_RETRY_SECONDS)
        if rotation.refused:
            rotation.waited = round(time.monotonic() - started - rotation.seconds, 2)
        if rotation.killed_in:
            await self._cluster.wait_ready()
        elif not rotation.refused:
            self._usual[goal] = rotation.seconds
        if is_forced:
            rotation.may_fail_until = await self._may_fail_until()
        listing = self._listings.latest
        rotation.listed = len(listing.roots)
        rotation.ended = time.monotonic()
        if active.kind != goal.kind or active.order <= before.order or not (is_forced or listing.has(before)):
            self._violations.append(f"{rotation}: the roots are {listing}")
        self._at = goal
        return rotation

    def _way(self, goal: Goal) -> str:
        if self._at.place != goal.place or goal.is_in_vault or goal.own:
            return "configuration"
        # The same configuration again would change nothing.
        return "rotate" if self._at.kind == goal.kind else self._rng.choice(["configuration", "rotate"])

    async def _attempt(self, rotation: Rotation, goal: Goal, before: Root, *, has_kill: bool) -> Root:
        """Ask once; the active root when it is known what came of it."""
        began = time.monotonic()
        asking = asyncio.create_task(self._ask(rotation, goal))
        if has_kill and not rotation.killed_in:
            await self._kill_meanwhile(rotation, goal, before, asking)
        status, text = await asking
        rotation.answers.append(_shown(status, text))
        await self._settled()
        active = await self._active()
        rotation.seconds = round(time.monotonic() - began, 2)
        if status == 200 and active == before:
            self._violations.append(f"{rotation}: answered 200, and the root is still {before.root_id}")
        elif status == _NOT_POSSIBLE_YET and "possible from" in text:
            rotation.refused += 1
        elif status not in (0, 200, 503, 504) and not (status == 500 and text.startswith(_TROUBLE)):
            self._violations.append(f"{rotation}: answered {status}: {text}")
        return active

    async def _ask(self, rotation: Rotation, goal: Goal) -> tuple[int, str]:
        body: dict[str, object] = {"ForceWithoutCrossSigning": rotation.is_forced}
        if rotation.way == "rotate":
            key_type, bits = goal.kind.split()
            path = ROTATION
            body |= {"Action": "rotate", "PrivateKeyType": key_type, "PrivateKeyBits": int(bits)}
            body |= {"Staged": True, "Wait": f"{_STAGED_SECONDS}s"} if rotation.is_staged else {}
        else:
            path = CONFIGURATION
            body |= self._places.configuration(goal, rotation.number, self._listings.latest.trust_domain)
            body |= {"RotationMode": "staged", "RotationWait": f"{_STAGED_SECONDS}s"} if rotation.is_staged else {}
        node = self._api.node()
        try:
            async with self._session.put(f"{node.url}{path}", data=json.dumps(body).encode()) as response:
                return response.status, await response.text()
        except _UNREACHABLE as error:
            return 0, repr(error)

    async def _kill_meanwhile(
        self, rotation: Rotation, goal: Goal, before: Root, asking: "asyncio.Task[tuple[int, str]]"
    ) -> None:
        """At a random moment before the answer; not at all when the answer is there first."""
        guess = _GUESS_VAULT_SECONDS if goal.is_in_vault else _GUESSED_SECONDS.get(goal.kind, _GUESS_SECONDS)
        usual = self._usual.get(goal, guess)
        leader = await self._cluster.leader()
        await asyncio.wait([asking], timeout=self._rng.uniform(0, _KILLED_UNTIL * usual))
        if asking.done():
            return
        phase = await self._phase(leader, before)
        self._cluster.send(leader, signal.SIGKILL)
        rotation.killed_in = phase
        await self._cluster.kill(leader)
        self._cluster.start(leader)

    async def _phase(self, leader: Node, before: Root) -> str:
        """As its leader sees it, just before it is gone."""
        with suppress(*_UNREACHABLE):
            found = (await self._cluster.ask(leader, "GET", ROTATION, query={"stale": ""})).json()
            if found["Rotation"]:
                return str(found["Rotation"]["Phase"])
            (active,) = [root["ID"] for root in found["Roots"] if root["Active"]]
            return "preparation" if active == before.root_id else "answering"
        return "not known"

    async def _settled(self) -> None:
        """Until no rotation is under way, as a read that is no older than now says."""

        async def is_over() -> bool | None:
            answer = await self._cluster.ask(self._api.node(), "GET", ROTATION)
            body: dict[str, Any] = answer.json()
            return True if body["Rotation"] is None else None

        await eventually("no rotation is under way", is_over, _END_SECONDS)

    async def _may_fail_until(self) -> float:
        body: dict[str, Any] = (await self._api.ask("GET", ROTATION)).json()
        return datetime.fromisoformat(body["Last"]["ClientsMayFailUntil"]).timestamp()

    async def _active(self) -> Root:
        await self._listings.look()
        return self._listings.latest.active


def _shown(status: int, text: str) -> str:
    match status:
        case 0:
            return "none, the connection broke"
        case 500:
            return f"500 {text:.80}"
        case _:
            return str(status)


def pairs_of(rotations: list[Rotation]) -> dict[str, int]:
    """How often each kind of root followed which."""
    found = Counter(f"{rotation.before} -> {rotation.after}" for rotation in rotations)
    return dict(sorted(found.items()))
