"""One member of the mesh: its leaf, the roots it trusts, and when it asks for others."""

import asyncio
import random
import ssl
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Final

from tests.continuity.listing import Listing, Listings, Root
from tests.continuity.tls import Listener, context

#: Where in what is left of its leaf a service renews it.
_RENEW_FROM, _RENEW_UNTIL = 0.1, 0.75
#: A leaf that is about to expire could do so during the handshake.
_MARGIN_SECONDS: Final = 2.0


class Trust(StrEnum):
    """Which roots a service trusts, and when it asks again."""

    PROMPT = "all listed, asked for every few seconds"
    SLOW = "all listed, asked for once in a while"
    OLDEST = "the oldest listed alone, until it is listed no more"
    ACTIVE = "the one that was active when asked alone, until it is listed no more"

    @property
    def is_pinned(self) -> bool:
        return self in (Trust.OLDEST, Trust.ACTIVE)

    def chosen(self, listing: Listing) -> tuple[Root, ...]:
        match self:
            case Trust.OLDEST:
                return listing.roots[:1]
            case Trust.ACTIVE:
                return (listing.active,)
            case _:
                return listing.roots


_REFRESH_SECONDS: Final = {Trust.PROMPT: (0.5, 3.0), Trust.SLOW: (5.0, 45.0)}


@dataclass(frozen=True, slots=True)
class Identity:
    """A leaf that its service may use: the roots have been looked at since it was received."""

    serial: str
    uri: str
    chain_pem: str
    key_pem: str = field(repr=False)
    issuer: Root
    not_after: float

    @property
    def is_valid(self) -> bool:
        return time.time() + _MARGIN_SECONDS < self.not_after


@dataclass(frozen=True, slots=True)
class Endpoint:
    """All that a service has at one moment."""

    identity: Identity
    trusted: tuple[Root, ...]
    server: ssl.SSLContext
    client: ssl.SSLContext
    offset: int = 0  # seconds that the clock is ahead, where the verifier lets that be set: in Go

    def for_go(self) -> dict[str, object]:
        return {
            "chain": self.identity.chain_pem,
            "key": self.identity.key_pem,
            "roots": [root.pem for root in self.trusted],
            "offset": self.offset,
        }


class Service:
    """One member of the mesh."""

    def __init__(
        self,
        name: str,
        trust: Trust,
        new_identity: Callable[[str], Awaitable[Identity]],
        listings: Listings,
        directory: Path,
        rng: random.Random,
        offset: int = 0,
    ) -> None:
        self._offset = offset
        self.name = name
        self.trust = trust
        self._new_identity = new_identity
        self._listings = listings
        self._directory = directory
        self._rng = rng
        self._identity: Identity | None = None
        self._trusted: tuple[Root, ...] = ()
        self._endpoint: Endpoint | None = None
        self.listener = Listener(lambda: self.endpoint.server)

    @property
    def is_ready(self) -> bool:
        return self._endpoint is not None

    @property
    def endpoint(self) -> Endpoint:
        assert self._endpoint is not None
        return self._endpoint

    def refresh(self, listing: Listing) -> None:
        self._trusted = self.trust.chosen(listing)
        self._remake()

    async def keep_renewed(self) -> None:
        while True:
            self._identity = await self._new_identity(self.name)
            self._remake()
            left = self._identity.not_after - time.time()
            await asyncio.sleep(max(0.0, self._rng.uniform(_RENEW_FROM, _RENEW_UNTIL) * left))

    async def keep_refreshed(self) -> None:
        """Pinned ones ask when they have to (Mesh)."""
        self.refresh(await self._listings.look())
        while not self.trust.is_pinned:
            await asyncio.sleep(self._rng.uniform(*_REFRESH_SECONDS[self.trust]))
            self.refresh(await self._listings.look())

    def _remake(self) -> None:
        if self._identity is None or not self._trusted:
            return
        path = self._directory / f"{self.name}.pem"
        path.write_text(self._identity.key_pem + self._identity.chain_pem)
        pems = [root.pem for root in self._trusted]
        server, client = (context(path, pems, is_server=is_server) for is_server in (True, False))
        self._endpoint = Endpoint(self._identity, self._trusted, server, client, self._offset)
