"""Services that talk to each other over mutual TLS while the root changes under them.

Each renews its leaf and refreshes its bundle when it likes. Some hold on to a single root for as long as it is listed:
the oldest there is, or the one that was active when they last looked. Every handshake that is promised to succeed
(listing.py) is tried, and must.
"""

import asyncio
import itertools
import random
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from cryptography import x509

from tests.continuity.judges import GO, ChainJudges, GoEnd
from tests.continuity.listing import Api, Listings, is_cut_off, is_promised
from tests.continuity.service import Endpoint, Identity, Service, Trust
from tests.continuity.tls import HandshakeError, shake_hands_by_socket, shake_hands_in_memory
from tests.kit import pki
from tests.kit.real_cluster import make_csr
from tests.kit.wait import eventually

SIGN: Final = "/v1/connect/ca/sign"
LEAF: Final = "/v1/agent/connect/ca/leaf"
MEMORY, SOCKET = "OpenSSL in memory", "OpenSSL over sockets"
#: How often each stack is tried, of 100.
_STACKS: Final = {MEMORY: 70, SOCKET: 15, GO: 15}
_HANDSHAKE_PAUSE_SECONDS: Final = 0.04
_JUDGE_PAUSE_SECONDS: Final = 2.0
_READY_SECONDS: Final = 60.0


@dataclass(slots=True)
class Tally:
    """What happened. Everything in `failures` and `violations` should not have."""

    handshakes: Counter[str] = field(default_factory=Counter)  # by stack
    verifiers: Counter[str] = field(default_factory=Counter)  # by what they trust: two in every handshake
    #: Verifiers that did not have the leaf's own root: nothing but cross-signed certificates could convince them.
    by_cross_signed: int = 0
    renewed: Counter[str] = field(default_factory=Counter)  # by path of the API
    refreshed_first: int = 0  # none of the client's roots was listed any more: it has to ask before it connects
    not_promised: int = 0  # pinned to a root that came after the leaf; not tried
    expired: int = 0  # no handshake: the leaf could not be renewed in time
    serials: set[str] = field(default_factory=set)
    failures: list[str] = field(default_factory=list)
    pinned_failures: int = 0
    violations: list[str] = field(default_factory=list)
    #: When hands were not shaken, and when chains were rejected, which is among the violations. Unix times.
    failed_at: list[float] = field(default_factory=list)
    rejected_at: list[float] = field(default_factory=list)

    @property
    def total(self) -> int:
        return self.handshakes.total()

    async def shakes(self, count: int, seconds: float) -> None:
        """Until so many more hands have been shaken."""
        goal = self.total + count

        async def reached() -> bool | None:
            return self.total >= goal or None

        await eventually(f"{count} more handshakes", reached, seconds)


class Mesh:
    """Made with `running_mesh`."""

    def __init__(
        self,
        api: Api,
        listings: Listings,
        judges: ChainJudges,
        go: GoEnd | None,
        directory: Path,
        rng: random.Random,
        size: int,
        offsets: tuple[int, ...] = (0,),
    ) -> None:
        self._offsets = offsets
        self._api = api
        self.listings = listings
        self.judges = judges
        self._rng = rng
        self.tally = Tally()
        self._go = go
        self._stacks = {stack: share for stack, share in _STACKS.items() if go is not None or stack != GO}
        trusts, clocks = itertools.cycle(Trust), itertools.cycle(offsets)
        self.services = [
            Service(f"service-{number + 1}", next(trusts), self.new_identity, listings, directory, rng, next(clocks))
            for number in range(size)
        ]

    # -- leaves

    async def new_identity(self, service: str) -> Identity:
        """By one of the two ways to get a leaf, through any node."""
        if self._rng.random() < 0.5:
            return await self._identity("GET", f"{LEAF}/{service}")
        uri = f"spiffe://{self.listings.latest.trust_domain}/ns/default/dc/dc1/svc/{service}"
        csr_pem, key_pem = make_csr(uri)
        return await self._identity("PUT", SIGN, {"CSR": csr_pem}, key_pem)

    async def _identity(self, method: str, path: str, body: object = None, key_pem: str = "") -> Identity:
        asked = 0.0

        def attempted() -> None:
            nonlocal asked
            asked = time.monotonic()

        answer = await self._api.ask(method, path, body, attempted)
        issued: dict[str, Any] = answer.json()
        await self.listings.look()
        leaf = pki.load(issued["CertPEM"])
        authority = pki.value_of(leaf, x509.AuthorityKeyIdentifier).key_identifier
        assert authority is not None
        issuer = self.listings.issuer(authority.hex(":"))
        # Of an expired root there is no leaf: then the one of before is given again, while it is valid.
        if issuer.order < (active := self.listings.active_before(asked)).order and time.time() < active.not_after:
            self.tally.violations.append(
                f"{method} {path}: the leaf is of root {issuer.root_id}, although {active.root_id} was active before"
            )
        self.tally.renewed["leaf" if method == "GET" else "sign"] += 1
        self.tally.serials.add(issued["SerialNumber"])
        return Identity(
            issued["SerialNumber"],
            issued["ServiceURI"],
            issued["CertPEM"],
            key_pem or issued["PrivateKeyPEM"],
            issuer,
            leaf.not_valid_after_utc.timestamp(),
        )

    # -- handshakes

    async def shake_hands(self) -> None:
        """One after the other, for ever."""
        while True:
            server, client = self._rng.sample(self.services, 2)
            (stack,) = self._rng.choices([*self._stacks], [*self._stacks.values()])
            await self._meet(server, client, stack)
            await asyncio.sleep(self._rng.uniform(0, _HANDSHAKE_PAUSE_SECONDS))

    async def _meet(self, server: Service, client: Service, stack: str) -> None:
        for service in (server, client):
            if not any(self.listings.latest.has(root) for root in service.endpoint.trusted):
                service.refresh(await self.listings.look())
                self.tally.refreshed_first += 1
        while True:
            ends = server.endpoint, client.endpoint
            if not self._is_to_succeed(server, client):
                return
            error = await self._shaken(server.listener.port, *ends, stack)
            if not error or stack != SOCKET or server.endpoint is ends[0]:
                break
            # Which of its two certificates the listener has shown is not known: nothing can be said of this one.
        self._count(server, client, ends, stack, error)

    def _is_to_succeed(self, server: Service, client: Service) -> bool:
        now, (first, second) = self.listings.latest, (server.endpoint, client.endpoint)
        if not (first.identity.is_valid and second.identity.is_valid):
            self.tally.expired += 1
            return False
        for holder, verifier, by in ((first, second, client), (second, first, server)):
            issuer = holder.identity.issuer
            if not now.has(issuer):
                self.tally.violations.append(
                    f"root {issuer.root_id} is not listed, and its leaf {holder.identity.serial} is valid"
                )
            if not is_promised(verifier.trusted, issuer, now):
                if not by.trust.is_pinned and any(is_cut_off(root, issuer, now) for root in verifier.trusted):
                    by.refresh(now)  # its bundle is of before trust was broken: a client has to ask then
                    self.tally.refreshed_first += 1
                elif not by.trust.is_pinned:
                    self.tally.violations.append(f"{by.name}: no root of its bundle is good for {holder.identity}")
                self.tally.not_promised += 1
                return False
        return True

    async def _shaken(self, port: int, first: Endpoint, second: Endpoint, stack: str) -> str:
        """What went wrong between server and client, or ""."""
        try:
            if stack == GO:
                assert self._go is not None
                return await self._go.shake_hands(first.for_go(), second.for_go())
            if stack == SOCKET:
                seen = await asyncio.to_thread(shake_hands_by_socket, port, second.client)
                return "" if seen == first.identity.uri else f"the client has met {seen}"
            seen_by_both = await asyncio.to_thread(shake_hands_in_memory, first.server, second.client)
        except HandshakeError as error:
            return str(error)
        wanted = (second.identity.uri, first.identity.uri)
        return "" if seen_by_both == wanted else f"they have met {seen_by_both}"

    def _count(self, server: Service, client: Service, ends: tuple[Endpoint, Endpoint], stack: str, error: str) -> None:
        first, second = ends
        self.tally.handshakes[stack] += 1
        self.tally.verifiers.update((server.trust.name, client.trust.name))
        self.tally.by_cross_signed += first.identity.issuer not in second.trusted
        self.tally.by_cross_signed += second.identity.issuer not in first.trusted
        if error:
            self.tally.pinned_failures += server.trust.is_pinned or client.trust.is_pinned
            self.tally.failed_at.append(time.time())
            self.tally.failures.append(
                f"{stack}: server {_shown(server, first)}, client {_shown(client, second)}: {error}"
            )

    # -- chains

    async def judge_chains(self) -> None:
        """Of leaves in use, now and then, by more verifiers, with each root alone that is good for them."""
        while True:
            await self.judge(self._rng.choice(self.services).endpoint.identity)
            await asyncio.sleep(_JUDGE_PAUSE_SECONDS)

    async def judge(self, identity: Identity) -> None:
        listing = self.listings.latest
        for root in listing.roots:
            if identity.is_valid and is_promised([root], identity.issuer, listing):
                troubles = [
                    trouble
                    for offset in self._offsets
                    for trouble in await self.judges.judge(identity.chain_pem, root, offset)
                ]
                self.tally.rejected_at += [time.time()] * len(troubles)
                self.tally.violations += [
                    f"leaf of {identity.issuer.kind} {identity.issuer.root_id}, trust in {root.kind} {root.root_id}"
                    f" alone: {trouble}"
                    for trouble in troubles
                ]


def _shown(service: Service, end: Endpoint) -> str:
    roots = ", ".join(f"{root.order} ({root.kind})" for root in end.trusted)
    issuer = end.identity.issuer
    return f"{service.name} with a leaf of root {issuer.order} ({issuer.kind}) trusts {service.trust.name} {roots}"


@asynccontextmanager
async def running_mesh(mesh: Mesh) -> AsyncIterator[Mesh]:
    """Until the end of the block; whatever fails in the background fails the block."""
    try:
        await mesh.listings.look()
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(mesh.listings.watch())]
            for service in mesh.services:
                tasks += [group.create_task(service.keep_renewed()), group.create_task(service.keep_refreshed())]

            async def are_ready() -> bool | None:
                return all(service.is_ready for service in mesh.services) or None

            await eventually("every service has a leaf and a bundle", are_ready, _READY_SECONDS)
            tasks += [group.create_task(mesh.shake_hands()), group.create_task(mesh.judge_chains())]
            yield mesh
            for task in tasks:
                task.cancel()
    finally:
        for service in mesh.services:
            service.listener.close()
