"""Which roots are listed, as the API says it, and what a verifier may therefore expect of a leaf.

The promise, exactly. A leaf is signed by the root that is active. A verifier must accept it while it is valid, if the
verifier trusts a root that
 * is still listed (by a listing read after the leaf was received, so the root was listed when the leaf was made), and
 * is the leaf's own root, or came before it.
A root that came later can vouch for no leaf of before: that is what the leaf's own root stays listed for, as long as
any of its leaves is valid. So every whole bundle from the API is good for every valid leaf, for as long as one root in
it is listed. A client of which no root is listed any more has to fetch the bundle again before it connects.

Nothing is promised across a break of trust: a rotation that was forced, or away from a root that has expired. Roots of
before it vouch for no leaf of after it, and an expired root for nothing.
"""

import asyncio
import math
import random
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Final

from tests.kit.real_cluster import Answer, LocalCluster, Node
from tests.kit.wait import eventually

ROOTS: Final = "/v1/connect/ca/roots"
#: Consul's text, with status 500, for a read without a leader.
NO_LEADER: Final = "No cluster leader"
#: Consul's, with status 500: there is nothing to sign with until an operator has made another root.
_EXPIRED: Final = "root expired"
_ASK_SECONDS: Final = 60.0
#: A certificate that is about to expire could do so during the handshake.
_MARGIN_SECONDS: Final = 2.0
_PAUSE_SECONDS: Final = 0.25


@dataclass(frozen=True, slots=True)
class Root:
    """`order`: the index that created it; of two roots, the one with the lower came first."""

    root_id: str
    pem: str
    order: int
    signing_key_id: str
    kind: str  # "ec 256"
    not_after: float = math.inf  # Unix time


@dataclass(frozen=True, slots=True)
class Listing:
    """All roots at one index, the one that came first first."""

    index: int
    roots: tuple[Root, ...]
    active: Root
    trust_domain: str
    breaks: frozenset[int] = frozenset()  # of trust: the orders of the last roots before them

    def has(self, root: Root) -> bool:
        return root in self.roots


def is_promised(trusted: Collection[Root], issuer: Root, now: Listing) -> bool:
    """Whether who trusts these must accept a valid leaf of this root."""
    moment = time.time() + _MARGIN_SECONDS
    return any(
        now.has(root)
        and root.order <= issuer.order
        and moment < min(root.not_after, issuer.not_after)
        and not is_cut_off(root, issuer, now)
        for root in trusted
    )


def is_cut_off(root: Root, issuer: Root, now: Listing) -> bool:
    """Whether trust was broken between these two."""
    return any(root.order <= order < issuer.order for order in now.breaks)


class Api:
    """Asks one node after the other until one answers."""

    def __init__(self, cluster: LocalCluster, rng: random.Random) -> None:
        self._cluster = cluster
        self._rng = rng
        #: Answers that not even a cluster without a leader may give.
        self.unexpected: list[str] = []
        self.expected = [NO_LEADER]

    def node(self) -> Node:
        return self._rng.choice([node for node in self._cluster.nodes if node.is_running])

    async def ask(
        self, method: str, path: str, body: object = None, attempted: Callable[[], None] = lambda: None
    ) -> Answer:
        """`attempted` is called before every attempt."""

        async def answered() -> Answer | None:
            node = self.node()
            attempted()
            answer = await self._cluster.ask(node, method, path, body)
            if answer.status not in (200, 503, 504) and not any(text in answer.text for text in self.expected):
                self.unexpected.append(f"{method} {path}: {node.name} answered {answer.status}: {answer.text:.300}")
            return answer if answer.status == 200 else None

        return await eventually(f"{method} {path} is answered", answered, _ASK_SECONDS)


class Listings:
    """What has been seen of the roots, through all nodes."""

    def __init__(self, api: Api) -> None:
        self._api = api
        self._latest: Listing | None = None
        self._by_key: dict[str, Root] = {}
        #: Of every change of the active root: when it was first seen to be behind us, by `time.monotonic()`.
        self.activations: list[tuple[float, Root]] = []
        self.most_listed = 0
        self._breaks: frozenset[int] = frozenset()

    @property
    def latest(self) -> Listing:
        assert self._latest is not None
        return self._latest

    def issuer(self, signing_key_id: str) -> Root:
        """The root with this key; it has been listed at some time."""
        return self._by_key[signing_key_id]

    def active_before(self, moment: float) -> Root:
        """The newest root that was known to be active before this moment: a leaf asked for then is not of an older."""
        return next(root for seen, root in reversed(self.activations) if seen <= moment)

    def break_trust(self, last: Root) -> None:
        """The rotation that is asked for next breaks it behind this root."""
        self._breaks |= {last.order}
        self._latest = replace(self.latest, breaks=self._breaks)

    def expect_expiry(self) -> None:
        self._api.expected.append(_EXPIRED)

    async def look(self) -> Listing:
        """Through any node, until one answers."""
        answer = await self._api.ask("GET", ROOTS)
        listing = replace(_listing(answer), breaks=self._breaks)
        if self._latest is None or listing.index >= self._latest.index:
            if self._latest is None or listing.active != self._latest.active:
                self.activations.append((time.monotonic(), listing.active))
            self._latest = listing
        self._by_key.update((root.signing_key_id, root) for root in listing.roots)
        self.most_listed = max(self.most_listed, len(listing.roots))
        return listing

    async def watch(self) -> None:
        while True:
            await self.look()
            await asyncio.sleep(_PAUSE_SECONDS)


def _listing(answer: Answer) -> Listing:
    body: dict[str, Any] = answer.json()
    roots = sorted(
        (
            Root(
                found["ID"],
                found["RootCert"],
                found["CreateIndex"],
                found["SigningKeyID"],
                f"{found['PrivateKeyType']} {found['PrivateKeyBits']}",
                datetime.fromisoformat(found["NotAfter"]).timestamp(),
            )
            for found in body["Roots"]
        ),
        key=lambda root: root.order,
    )
    (active,) = [root for root in roots if root.root_id == body["ActiveRootID"]]
    return Listing(int(answer.headers["X-Consul-Index"]), tuple(roots), active, body["TrustDomain"])
