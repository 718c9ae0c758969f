"""The cluster of a campaign: three nodes where nothing is allowed by default, its operator, and honest clients."""

import asyncio
import time
from collections import Counter
from collections.abc import Mapping
from contextlib import AsyncExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Final

from tests.kit.real_cluster import LocalCluster, Node, Settings, make_csr
from tests.kit.wait import eventually
from tests.revocation.client import NO_ANSWER, Answered, Client

#: Certificates a second, so that a burst of requests has to wait for its turn.
LIMIT: Final = 150
_SETTINGS: Final[Settings] = {
    "acl": {"default_policy": "deny"},
    "limits": {"signing_workers": 1},
    "connect": {"ca_config": {"csr_max_per_second": LIMIT}},
}
#: Honest clients of each node, and how long they rest between two requests.
_HONEST: Final = 2
_REST_SECONDS: Final = 0.03
_LOOK_SECONDS: Final = 0.02
#: What a node may say for a moment while it has no leader, or while too many ask.
_PASSING: Final = frozenset({NO_ANSWER, 429, 500, 503, 504})


class Stage:
    """Made and ended by `async with`; no process is left."""

    def __init__(self, root: Path) -> None:
        self.cluster = LocalCluster(root, settings=_SETTINGS)
        self.client = Client()
        self.watch = LeaderWatch(self.cluster, self.client)
        self.load = Load(self)
        self.root = ""
        self.trust_domain = ""
        self._stack = AsyncExitStack()
        self._tasks: list[asyncio.Task[None]] = []

    @property
    def nodes(self) -> list[Node]:
        return self.cluster.nodes

    async def __aenter__(self) -> "Stage":
        try:
            await self._stack.enter_async_context(self.cluster)
            await self._stack.enter_async_context(self.client)
            await self.cluster.start_all()
            await self.cluster.wait_ready()
            self.root = (await eventually("access control is set up", self._bootstrapped))["SecretID"]
            self.trust_domain = (await self.cluster.roots(self.nodes[0]))["TrustDomain"]
            self._tasks.append(asyncio.create_task(self.watch.keep_looking()))
            await self.load.prepare()
            self._tasks += self.load.start()
        except BaseException:
            await self._stack.aclose()
            raise
        return self

    async def __aexit__(
        self, _type: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._stack.aclose()

    async def _bootstrapped(self) -> dict[str, Any] | None:
        answer = await self.client.ask(self.nodes[0], "PUT", "/v1/acl/bootstrap")
        return None if answer.status == 503 else dict(answer.json())

    async def must(self, method: str, path: str, body: object = None, node: Node | None = None) -> Any:
        """As the operator, again and again until it is done: a leader may be missing just now."""

        async def done() -> Answered | None:
            chosen = node or next(node for node in self.nodes if node.is_running)
            answer = await self.client.ask(chosen, method, path, body, token=self.root)
            assert answer.is_given or answer.status in _PASSING, (method, path, answer.status, answer.text)
            return answer if answer.is_given else None

        return (await eventually(f"{method} {path}", done, trouble=())).json()

    def csr(self, service: str) -> str:
        return make_csr(f"spiffe://{self.trust_domain}/ns/default/dc/dc1/svc/{service}")[0]


class LeaderWatch:
    """Asks every node, every 20 ms, whether it knows a leader.

    A node that is asked about something can be expected to be up to date one second after it knows a leader again; one
    that was killed, and its followers until they notice, know none.
    """

    def __init__(self, cluster: LocalCluster, client: Client) -> None:
        self._cluster = cluster
        self._client = client
        self._lost = ""  # the Raft address of a leader that was killed
        self._addresses: dict[str, str] = {}
        self._without: dict[str, float] = {}

    def lose(self, node: Node) -> None:
        """This one is killed now: whoever names it as the leader knows none."""
        self._lost = node.local.raft
        for other in self._cluster.nodes:
            self._addresses.pop(other.name, None)
            self._without[other.name] = time.monotonic()

    def known(self, node: Node) -> str | None:
        """The leader's address, as this node knows it."""
        return self._addresses.get(node.name)

    def last_without(self, node: Node) -> float:
        """When it was known last that this node knew no leader."""
        return self._without.get(node.name, 0.0)

    def leader(self) -> Node | None:
        """The one that all nodes agree on."""
        found = {self.known(node) for node in self._cluster.nodes}
        return next((node for node in self._cluster.nodes if found == {node.local.raft}), None)

    async def agreed(self) -> Node:
        async def look() -> Node | None:
            return self.leader()

        return await eventually("all nodes know the same leader", look)

    async def keep_looking(self) -> None:
        await asyncio.gather(*(self._keep_asking(node) for node in self._cluster.nodes))

    async def _keep_asking(self, node: Node) -> None:
        while True:
            answer = await self._client.ask(node, "GET", "/v1/status/leader", seconds=5.0)
            address = answer.json() if answer.is_given else ""
            # What was on its way when the leader was killed tells of it; it cannot be told of again by whoever lives.
            if not address or address == self._lost:
                self._addresses.pop(node.name, None)
                self._without[node.name] = answer.at
            else:
                self._addresses[node.name] = address
            await asyncio.sleep(_LOOK_SECONDS)

    def found_again(self) -> None:
        """The node that was killed may lead again from now on."""
        self._lost = ""


class Load:
    """Clients that nobody has taken anything from: they sign all the time, and must never be refused."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self._tokens: list[tuple[str, str]] = []  # SecretID and CSR
        self.statuses: Counter[int] = Counter()

    async def prepare(self) -> None:
        for number in range(_HONEST * len(self._stage.nodes)):
            service = f"honest-{number}"
            made = await self._stage.must("PUT", "/v1/acl/token", {"ServiceIdentities": [{"ServiceName": service}]})
            self._tokens.append((made["SecretID"], self._stage.csr(service)))

    def start(self) -> list["asyncio.Task[None]"]:
        nodes = self._stage.nodes
        return [
            asyncio.create_task(self._keep_signing(nodes[number % len(nodes)], token, csr_pem))
            for number, (token, csr_pem) in enumerate(self._tokens)
        ]

    async def _keep_signing(self, node: Node, token: str, csr_pem: str) -> None:
        body: Mapping[str, str] = {"CSR": csr_pem}
        while True:
            answer = await self._stage.client.ask(node, "PUT", "/v1/connect/ca/sign", body, token=token)
            self.statuses[answer.status] += 1
            await asyncio.sleep(_REST_SECONDS)
