"""Whether leaves are what the API promises (tests/continuity/listing.py): good for whoever trusts any root that is
listed when the leaf has arrived and that is not younger than the leaf's own; and never of a root before the active one.
"""

import asyncio
import random
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from cryptography import x509
from cryptography.x509.verification import ClientVerifier, PolicyBuilder, Store, VerificationError

from tests.continuity.listing import Api, Listing, Listings, Root
from tests.kit import pki
from tests.kit.real_cluster import LocalCluster

_PAUSE_SECONDS: Final = 0.25


@dataclass(frozen=True, slots=True)
class Leaf:
    """As it was answered; `asked` is when it was asked for, by `time.monotonic()`."""

    asked: float
    chain_pem: str


class Judge:
    """Looks at the roots and at all leaves that it is given, for as long as it watches."""

    def __init__(self, cluster: LocalCluster) -> None:
        self._api = Api(cluster, random.Random("upgrade"))
        self._listings = Listings(self._api)
        self._waiting: list[Leaf] = []
        self.judged = 0
        self.wrong: list[str] = []

    def take(self, asked: float, issued: dict[str, Any]) -> None:
        self._waiting.append(Leaf(asked, issued["CertPEM"]))

    @asynccontextmanager
    async def watching(self) -> AsyncIterator[None]:
        """All that was taken is judged at the end."""
        await self._judge()  # from here on it knows which root is active
        is_over = asyncio.Event()
        task = asyncio.create_task(self._watch(is_over))
        try:
            yield
        finally:
            is_over.set()
            await task
        await self._judge()
        assert not self.wrong, f"{len(self.wrong)} of {self.judged} leaves are wrong: {self.wrong[:5]}"
        assert not self._api.unexpected, self._api.unexpected

    async def _watch(self, is_over: asyncio.Event) -> None:
        while not is_over.is_set():
            await self._judge()
            with suppress(TimeoutError):
                await asyncio.wait_for(is_over.wait(), _PAUSE_SECONDS)

    async def _judge(self) -> None:
        leaves, self._waiting = self._waiting, []
        listing = await self._listings.look()
        oldest = [self._listings.active_before(leaf.asked) for leaf in leaves]
        self.wrong += await asyncio.to_thread(self._troubles, leaves, oldest, listing)
        self.judged += len(leaves)

    def _troubles(self, leaves: Sequence[Leaf], oldest: Sequence[Root], listing: Listing) -> list[str]:
        builder = PolicyBuilder().time(datetime.now(UTC))
        verifiers = [
            (root, builder.store(Store([pki.load(root.pem)])).build_client_verifier()) for root in listing.roots
        ]
        return [
            trouble
            for leaf, active in zip(leaves, oldest, strict=True)
            if (trouble := self._trouble(leaf, active, verifiers))
        ]

    def _trouble(self, leaf: Leaf, active: Root, verifiers: Sequence[tuple[Root, ClientVerifier]]) -> str:
        """What is wrong with it, or ""."""
        cert, *others = x509.load_pem_x509_certificates(leaf.chain_pem.encode())
        key_id = pki.value_of(cert, x509.AuthorityKeyIdentifier).key_identifier
        assert key_id is not None
        issuer = self._listings.issuer(key_id.hex(":"))
        if issuer.order < active.order:
            return f"is of root {issuer.root_id}, and {active.root_id} was active already"
        for root, verifier in verifiers:
            if root.order <= issuer.order:
                try:
                    verifier.verify(cert, others)
                except VerificationError as error:
                    return f"is not good for who trusts {root.root_id}: {error}"
        return ""
