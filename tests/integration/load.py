"""Clients that keep signing through all nodes, whatever happens to these, and remember every answer.

async with signing_load(cluster) as load:
    await load.acknowledges(50, seconds=10.0)
    ...
await assert_all_on_record(cluster, load)
"""

import asyncio
import json
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import aiohttp

from tests.kit.real_cluster import LocalCluster, Node, make_csr
from tests.kit.wait import eventually

CLIENTS = 8
#: The most that a page of the list of certificates holds.
_PAGE = 1000
_ASK_SECONDS = 5.0
#: Each client signs, and draws breath: the nodes share the machine with the test.
_PAUSE_SECONDS = 0.05
_RETRY_SECONDS = 0.05
_REST_SECONDS = 30.0
#: No leader, or one that was lost on the way: both are part of losing a leader.
_ALLOWED = {200, 503, 504}

#: Given every certificate, as it was answered, and when it was asked for.
Tell = Callable[[float, dict[str, Any]], None]


@dataclass
class Load:
    """What the clients have seen. Times are `time.monotonic()`."""

    acknowledged: list[tuple[float, str]] = field(default_factory=list)  # in order of time; the serial
    answers: Counter[int] = field(default_factory=Counter)  # by status
    refused: list[str] = field(default_factory=list)  # texts of answers that were not 200
    broken: Counter[str] = field(default_factory=Counter)  # connections, by node

    @property
    def serials(self) -> list[str]:
        return [serial for _, serial in self.acknowledged]

    async def acknowledges(self, count: int, seconds: float) -> None:
        """Until so many more certificates have been acknowledged."""
        goal = len(self.acknowledged) + count

        async def reached() -> bool | None:
            return len(self.acknowledged) >= goal or None

        await eventually(f"{count} more certificates", reached, seconds)

    def longest_silence(self, begin: float) -> float:
        """The longest time since `begin` without a certificate; the time until now counts, too."""
        moments = [begin, *(moment for moment, _ in self.acknowledged if moment > begin), time.monotonic()]
        return max(later - earlier for earlier, later in pairwise(moments))

    def assert_only_allowed_answers(self) -> None:
        assert set(self.answers) <= _ALLOWED, f"{self}: {self.refused[:5]}"

    def __str__(self) -> str:
        statuses = ", ".join(f"{count} x {status}" for status, count in sorted(self.answers.items()))
        return f"answers: {statuses}; {self.broken.total()} connections broke"


@asynccontextmanager
async def signing_load(
    cluster: LocalCluster, clients: int = CLIENTS, tell: Tell = lambda _asked, _issued: None
) -> AsyncIterator[Load]:
    """Client k asks node k, and the next one when that cannot be reached; so they stay spread over all nodes, and no
    node that is lost takes all of them with it. They are ended at the end.
    """
    load = Load()
    uri = await cluster.service_uri()
    tasks = [asyncio.create_task(_sign_on(cluster, load, number, make_csr(uri)[0], tell)) for number in range(clients)]
    try:
        yield load
    finally:
        for task in tasks:
            task.cancel()
        # A client that has failed by itself fails the test.
        for outcome in await asyncio.gather(*tasks, return_exceptions=True):
            if not isinstance(outcome, asyncio.CancelledError):
                raise AssertionError("a client has ended early") from outcome


async def _sign_on(cluster: LocalCluster, load: Load, home: int, csr_pem: str, tell: Tell) -> None:
    body = json.dumps({"CSR": csr_pem}).encode()
    timeout = aiohttp.ClientTimeout(total=_ASK_SECONDS)
    async with aiohttp.ClientSession(timeout=timeout, trust_env=False) as session:
        number = home
        while True:
            node = cluster.nodes[number % len(cluster.nodes)]
            asked = time.monotonic()
            try:
                async with session.put(f"{node.url}/v1/connect/ca/sign", data=body) as response:
                    status, text = response.status, await response.text()
            except (aiohttp.ClientError, TimeoutError, OSError):
                load.broken[node.name] += 1
                number += 1
                await asyncio.sleep(_PAUSE_SECONDS)
                continue
            number = home
            load.answers[status] += 1
            if status == 200:
                issued = json.loads(text)
                load.acknowledged.append((time.monotonic(), issued["SerialNumber"]))
                tell(asked, issued)
                await asyncio.sleep(_PAUSE_SECONDS)
            else:
                load.refused.append(f"{status} {text:.200}")
                await asyncio.sleep(_RETRY_SECONDS)


async def assert_all_on_record(cluster: LocalCluster, load: Load) -> None:
    """Every node has the same state and ledger, in which is all that was acknowledged, and no serial twice."""
    assert load.serials
    assert len(set(load.serials)) == len(load.serials), "a serial was given out twice"

    async def at_rest() -> tuple[dict[str, Any], dict[str, list[str]]] | None:
        # What clients had asked for when they ended may still be signed: look until nothing moves meanwhile.
        digest = await cluster.wait_same_digest()
        recorded = {node.name: await _recorded(cluster, node) for node in cluster.nodes}
        return (digest, recorded) if await cluster.wait_same_digest() == digest else None

    digest, recorded = await eventually("the ledgers come to rest", at_rest, _REST_SECONDS)
    for name, serials in recorded.items():
        assert len(set(serials)) == len(serials) == digest["LedgerCount"], f"{name}: {digest}"
        lost = set(load.serials) - set(serials)
        assert not lost, f"{len(lost)} of {len(load.serials)} acknowledged certificates are not on {name}'s record"
    for node in cluster.nodes:
        for serial in (load.serials[0], load.serials[-1]):
            found = (await cluster.ask(node, "GET", f"/v1/connect/ca/certs/{serial}", query={"stale": ""})).json()
            assert found["SerialNumber"] == serial


async def _recorded(cluster: LocalCluster, node: Node) -> list[str]:
    """All serials in the node's own ledger."""
    serials: list[str] = []
    query = {"stale": "", "limit": str(_PAGE)}
    while True:
        page: dict[str, Any] = (await cluster.ask(node, "GET", "/v1/connect/ca/certs", query=query)).json()
        serials += [cert["SerialNumber"] for cert in page["Certs"]]
        if page["Next"] is None:
            return serials
        query["after"] = page["Next"]
