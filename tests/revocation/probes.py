"""Everything that a subject can get out of a node, asked for all the time; and what was given, where and when."""

import asyncio
import contextlib
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from tests.kit.real_cluster import Node
from tests.kit.wait import eventually
from tests.revocation.client import NO_ANSWER, Answered
from tests.revocation.stage import Stage
from tests.revocation.subjects import Subject

#: Requests for signatures at once, through each node, just before the revocation: more than the limit lets through.
_BURST: Final = 40
#: Clients that sign through each node without a pause: through a follower their requests go in batches with others'.
_SIGNING: Final = 2
_REST_SECONDS: Final = 0.02
_WAIT_SECONDS: Final = 120
_READY_SECONDS: Final = 20.0


class What(StrEnum):
    SIGN = "signatures"
    BURST = "signatures that waited for their turn"
    LEAF = "leaf from the cache"
    CONFIGURATION = "configuration"
    SELF = "the token itself"
    WAIT_LEAF = "blocking query on the leaf"
    WAIT_CONFIGURATION = "blocking query on the configuration"
    WAIT_SELF = "blocking query on the token"


TOO_MANY: Final = 429
#: Given, forbidden, too many at once, no leader or not ready; and no answer from a node that was killed.
FORESEEN: Final = frozenset({200, 403, TOO_MANY, 500, 503, 504, NO_ANSWER})
WAITS: Final = (What.WAIT_LEAF, What.WAIT_CONFIGURATION, What.WAIT_SELF)


@dataclass(slots=True)
class Seen:
    """Of one kind of request to one node."""

    #: When something was given last; 0.0: never.
    last_given: float = 0.0
    statuses: Counter[int] = field(default_factory=Counter)

    def note(self, answer: Answered) -> None:
        self.statuses[answer.status] += 1
        if answer.is_given:
            self.last_given = max(self.last_given, answer.at)


class Probes:
    """Of one subject: `begin` before its rights end, `end` some time afterwards."""

    def __init__(self, stage: Stage, subject: Subject) -> None:
        self._stage = stage
        self._subject = subject
        self._leaf_path = f"/v1/agent/connect/ca/leaf/{subject.service}"
        self._csr = {"CSR": stage.csr(subject.service)}
        self._asking: list[asyncio.Task[None]] = []
        self._bursts: list[asyncio.Task[None]] = []
        self._waiting: dict[tuple[What, str], asyncio.Task[Answered]] = {}
        self.seen: dict[tuple[What, str], Seen] = {}

    @property
    def _kinds(self) -> tuple[What, ...]:
        """What says whether it has a token can be asked where the token goes."""
        also = (What.SELF,) if self._subject.is_gone else ()
        return (What.SIGN, What.LEAF, What.CONFIGURATION, *also)

    async def begin(self) -> None:
        """Everything is given by every node; now the same is asked for again and again, and waited for."""
        for node in self._stage.nodes:
            for what in self._kinds:
                await self._given(what, node)
            for what, of in zip(WAITS, (What.LEAF, What.CONFIGURATION, What.SELF), strict=True):
                if of in self._kinds:
                    await self._begin_to_wait(what, of, node)
            for what in (*self._kinds, *[What.SIGN] * (_SIGNING - 1)):
                self._asking.append(asyncio.create_task(self._keep_asking(what, node)))

    def burst(self) -> None:
        """More signatures at once than the limit allows: some wait for their turn while the rights end."""
        for node in self._stage.nodes:
            for _ in range(_BURST):
                self._bursts.append(asyncio.create_task(self._once(What.BURST, node)))

    def still_open(self) -> list[str]:
        """Blocking queries that have not ended, by name."""
        return [f"{what} at {name}" for (what, name), task in self._waiting.items() if not task.done()]

    async def end(self) -> None:
        tasks = [*self._asking, *self._bursts]
        for task in (*tasks, *self._waiting.values()):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for (what, name), waiting in self._waiting.items():
            with contextlib.suppress(asyncio.CancelledError):
                self._of(what, name).note(await waiting)

    def strange(self) -> list[str]:
        """Answers that nobody has foreseen, by name."""
        return [
            f"{what} at {name}: {count} answers {status}"
            for (what, name), found in self.seen.items()
            for status, count in found.statuses.items()
            if status not in FORESEEN
        ]

    async def refused(self) -> list[str]:
        """Asked once more, of every node: what is not refused as what is forbidden, by name."""
        found = []
        for node in self._stage.nodes:
            for what in self._kinds:
                answer = await self._settled(what, node)
                if answer.status != 403:
                    found.append(f"{what} at {node.name}: {answer.status} {answer.text[:200]}")
        return found

    async def _settled(self, what: What, node: Node) -> Answered:
        """The answer, once it is not put off: wrong tokens may ask so much in a second, and have just asked it."""

        async def look() -> Answered | None:
            answer = await self._ask(what, node)
            return None if answer.status == TOO_MANY else answer

        return await eventually(f"{what} at {node.name} not put off", look, _READY_SECONDS)

    async def _given(self, what: What, node: Node) -> Answered:
        async def look() -> Answered | None:
            answer = await self._ask(what, node)
            return answer if answer.is_given else None

        return await eventually(f"{what} at {node.name}", look, _READY_SECONDS)

    async def _begin_to_wait(self, what: What, of: What, node: Node) -> None:
        given = await self._given(of, node)
        query = {"index": given.headers["X-Consul-Index"], "wait": f"{_WAIT_SECONDS}s"}
        self._waiting[what, node.name] = asyncio.create_task(self._ask(of, node, query, _WAIT_SECONDS))

    async def _keep_asking(self, what: What, node: Node) -> None:
        while True:
            await self._once(what, node)
            await asyncio.sleep(_REST_SECONDS)

    async def _once(self, what: What, node: Node) -> None:
        self._of(what, node.name).note(await self._ask(what, node))

    def _of(self, what: What, name: str) -> Seen:
        return self.seen.setdefault((what, name), Seen())

    async def _ask(
        self, what: What, node: Node, query: Mapping[str, str] | None = None, seconds: float = 30.0
    ) -> Answered:
        ask, token = self._stage.client.ask, self._subject.secret_id
        match what:
            case What.LEAF:
                return await ask(node, "GET", self._leaf_path, token=token, query=query, seconds=seconds)
            case What.CONFIGURATION:
                path = "/v1/connect/ca/configuration"
                return await ask(node, "GET", path, token=token, query=query, seconds=seconds)
            case What.SELF:
                return await ask(node, "GET", "/v1/acl/token/self", token=token, query=query, seconds=seconds)
            case _:
                return await ask(node, "PUT", "/v1/connect/ca/sign", self._csr, token=token, seconds=seconds)
