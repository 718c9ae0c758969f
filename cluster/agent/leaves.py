"""Leaves for local services: this node makes the key, has the CSR signed, keeps both, and renews in good time.

Consul's rules (docs/consul-compat.md 6 and 11.8). Keys are in memory only and are made anew for every certificate. Who
may have a service's key is decided by the caller, on every call.
"""

import asyncio
import contextlib
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Final, Protocol

from cluster.api.access import Caller
from cluster.api.leaves import IssuedCert, LocalLeaf
from cluster.base.clock import Clock
from cluster.base.errors import ClusterError, Overloaded, PermissionDenied, RateLimitReached
from fsm.state import State
from providers.errors import ProviderError
from providers.pki.x509 import authority_key_id, colon_hex, load_cert, split_bundle

#: By how much clocks of this node, the leader and Vault may differ where the end of a leaf is looked at.
_SKEW_SECONDS: Final = 60
#: Where in a leaf's lifetime it is renewed: at random in this window, so that not all services come at once.
_RENEW_FROM: Final = 0.6
_RENEW_UNTIL: Final = 0.9
#: Watched leaves are renewed at random within this time of a change of root, and retried so after a rate limit.
_SPREAD_SECONDS: Final = 30.0
_MAX_SERVICES: Final = 16384
_IDLE_SECONDS: Final = 72 * 3600.0


class RootFeed(Protocol):
    """Where the cache learns which root is active."""

    async def current(self, leader_wait_seconds: float) -> State:
        """As current as can be had: without a leader, once it was waited for, what this node knows."""
        ...

    async def changed(self, ca_index: int) -> State:
        """The state once `State.ca_index` differs."""
        ...


@dataclass(frozen=True, slots=True)
class NewLeaf:
    cert: IssuedCert
    private_key_pem: str = field(repr=False)


#: For whoever asks, a service, and who that is for the record; the seconds are what is left of the wait for a leader.
Issue = Callable[[Caller, str, str, float], Awaitable[NewLeaf]]


@dataclass(frozen=True, slots=True)
class _Held:
    leaf: NewLeaf
    signing_key_id: str
    issued: float  # Unix seconds, as the rest
    due: float


@dataclass(slots=True)
class _Entry:
    used: float
    most_seconds: int  # of lifetime, of what is kept here; 0: as the CA is configured
    held: _Held | None = None
    #: Watchers renew no earlier than this although the root has changed, or although it is due.
    not_before: float | None = None
    renewal: "asyncio.Task[_Held] | None" = None
    renewed_for: str = ""  # the AccessorID with which the renewal under way is asked for


def is_within(cert: IssuedCert, issued: float, most_seconds: int) -> bool:
    """Whether it lasts no longer than that from where it begins, or from when it was issued: some CAs have certificates
    begin long before. 0: whatever the CA gives.
    """
    return not most_seconds or cert.not_after - most_seconds <= max(cert.not_before, issued + _SKEW_SECONDS)


class LeafCache:
    """Leaves and keys that local services have asked for, in memory only."""

    def __init__(
        self, issue: Issue, roots: RootFeed, clock: Clock, rng: random.Random, leader_wait_seconds: float
    ) -> None:
        """`leader_wait_seconds`: for all that one request asks of a leader, together."""
        self._issue = issue
        self._roots = roots
        self._clock = clock
        self._rng = rng
        self._leader_wait_seconds = leader_wait_seconds
        # By service, and by how long its certificates may last for whoever asks, where they may not last as long as for
        # anybody: what is there for one must not be given to another who may have less. Least recently used first.
        self._entries: dict[tuple[str, int], _Entry] = {}

    def __len__(self) -> int:
        return len(self._entries)

    async def get(
        self, caller: Caller, service: str, requested_by: str, index: int, timeout_seconds: float
    ) -> LocalLeaf:
        """See `cluster.api.service.Service.leaf`. What was made for this very request is as the leader has judged the
        caller, whose rules may be others by now: whoever asks looks at them again.
        """
        leader_by = self._leader_by()
        state = await self._roots.current(self._leader_wait_seconds)
        entry = self._entry((service, caller.rules.ttl_max_seconds(service)))
        held = entry.held
        if held is not None and 0 < held.leaf.cert.index <= index:
            return await self._watch(entry, caller, service, requested_by, index, timeout_seconds, leader_by)
        if held is not None and self._is_good(held, state):
            return self._answer(held, is_hit=True)
        return await self._renewed(entry, caller, service, requested_by, held, leader_by)

    def _leader_by(self) -> float:
        return self._clock.monotonic() + self._leader_wait_seconds

    def _left(self, leader_by: float) -> float:
        return max(0.0, leader_by - self._clock.monotonic())

    def _is_good(self, held: _Held, state: State) -> bool:
        root = state.active_root
        return root is not None and held.signing_key_id == root.signing_key_id and self._clock.now() < held.due

    async def _renewed(
        self, entry: _Entry, caller: Caller, service: str, requested_by: str, seen: _Held | None, leader_by: float
    ) -> LocalLeaf:
        """A leaf other than `seen`; or that one, while it is valid and no other can be had."""
        try:
            held = await self._renew(entry, caller, service, requested_by, seen, leader_by)
        except PermissionDenied:
            raise
        except (ClusterError, ProviderError):
            if seen is None or self._clock.now() >= seen.leaf.cert.not_after:
                raise
            return self._answer(seen, is_hit=True)
        return self._answer(held, is_hit=False)

    async def _renew(
        self, entry: _Entry, caller: Caller, service: str, requested_by: str, seen: _Held | None, leader_by: float
    ) -> _Held:
        """At most one request under way for each service: whoever waits shares what comes of it, errors too; but not
        that somebody else may not have it, or may have one for longer.
        """
        while True:
            if entry.held is not None and entry.held is not seen:
                return entry.held
            if entry.renewal is None:
                request = self._request(entry, caller, service, requested_by, leader_by)
                entry.renewal, entry.renewed_for = asyncio.get_running_loop().create_task(request), caller.accessor_id
            is_own = entry.renewed_for == caller.accessor_id
            try:
                # Shielded: the client that came first may go away, the others still wait.
                held = await asyncio.shield(entry.renewal)
                if is_own or self._may_be_kept(entry, held):
                    return held
            except PermissionDenied:
                if is_own:
                    raise

    async def _request(self, entry: _Entry, caller: Caller, service: str, requested_by: str, leader_by: float) -> _Held:
        try:
            leaf = await self._issue(caller, service, requested_by, self._left(leader_by))
            now = self._clock.now()
            lifetime = leaf.cert.not_after - leaf.cert.not_before
            due = leaf.cert.not_before + lifetime * self._rng.uniform(_RENEW_FROM, _RENEW_UNTIL)
            issuer = authority_key_id(load_cert(split_bundle(leaf.cert.cert_pem)[0]))
            held = _Held(leaf, colon_hex(issuer), now, max(due, now))
            if self._may_be_kept(entry, held):
                entry.held, entry.not_before = held, None
            return held
        finally:
            entry.renewal = None

    def _may_be_kept(self, entry: _Entry, held: _Held) -> bool:
        """The leader judges by the rules of the moment, which may give whoever asks more than all those for whom this
        entry is.
        """
        return is_within(held.leaf.cert, held.issued, entry.most_seconds)

    async def _watch(
        self,
        entry: _Entry,
        caller: Caller,
        service: str,
        requested_by: str,
        index: int,
        timeout_seconds: float,
        leader_by: float,
    ) -> LocalLeaf:
        """Until there is a leaf newer than `index`, or the time is over."""
        deadline = self._clock.monotonic() + timeout_seconds
        while True:
            held, state = entry.held, await self._roots.current(self._left(leader_by))
            assert held is not None  # entries are dropped as a whole, and this one is in use
            if held.leaf.cert.index > index:
                return self._answer(held, is_hit=True)
            renew_at = self._renew_at(entry, held, state)
            now = self._clock.now()
            if now >= renew_at:
                try:
                    renewed = await self._renew(entry, caller, service, requested_by, held, leader_by)
                    return self._answer(renewed, is_hit=False)
                except RateLimitReached:
                    entry.not_before = now + self._rng.uniform(0, _SPREAD_SECONDS)
                    continue
            left = deadline - self._clock.monotonic()
            if left <= 0:
                return self._answer(held, is_hit=True)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(max(0.0, min(left, renew_at - now))):
                    await self._roots.changed(state.ca_index)
            # What has woken it may be minutes after the wait for a leader that the request began with.
            leader_by = self._leader_by()

    def _renew_at(self, entry: _Entry, held: _Held, state: State) -> float:
        root = state.active_root
        if root is not None and root.signing_key_id != held.signing_key_id and entry.not_before is None:
            entry.not_before = self._clock.now() + self._rng.uniform(0, _SPREAD_SECONDS)
        return held.due if entry.not_before is None else entry.not_before

    def _entry(self, key: tuple[str, int]) -> _Entry:
        now = self._clock.monotonic()
        entry = self._entries.pop(key, None)
        if entry is None:
            self._make_room(now)
            entry = _Entry(now, key[1])
        entry.used = now
        self._entries[key] = entry
        return entry

    def _make_room(self, now: float) -> None:
        for key, entry in list(self._entries.items()):
            if now - entry.used <= _IDLE_SECONDS and len(self._entries) < _MAX_SERVICES:
                return
            if entry.renewal is None:
                del self._entries[key]
        if len(self._entries) >= _MAX_SERVICES:
            raise Overloaded("this node holds as many leaves as it can: ask another one, or have CSRs signed")

    def _answer(self, held: _Held, *, is_hit: bool) -> LocalLeaf:
        age = int(self._clock.now() - held.issued)
        return LocalLeaf(held.leaf.cert, held.leaf.private_key_pem, is_hit, max(0, age))
