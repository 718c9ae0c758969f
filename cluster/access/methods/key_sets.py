"""Where the keys come from that a method's tokens are signed with, and how old they may be.

A list of keys is part of the method. A key set is fetched when it is needed first, again when it is older than
FRESH_SECONDS, and when a token names a key that it does not have, at most every REFETCH_SECONDS: logins need no right,
so whoever makes up names of keys must not make a node ask for each. One fetch of a set is in flight at a time, and all
logins that need it wait for that one. While the server of a set does not answer, the last set is used until it is
STALE_SECONDS old: then a key that was taken out of it must not count any more.
"""

import asyncio
import functools
from collections import OrderedDict
from collections.abc import Collection
from dataclasses import dataclass
from typing import Final

from cluster.access.methods.addresses import UrlRefused, https_url
from cluster.access.methods.fetching import MAX_ANSWER, Fetch, FetchFailed, Request
from cluster.access.methods.keys import KeyRefused, VerifyingKey, key_set, pem_key
from cluster.access.methods.refusal import LoginRefused
from cluster.access.methods.strict_json import JsonRefused, is_clean, read_object
from cluster.base.clock import Clock

REFETCH_SECONDS: Final = 10.0
FRESH_SECONDS: Final = 300.0
STALE_SECONDS: Final = 3600.0
#: More than there can be methods: those of methods that are gone are forgotten in time.
_SETS_KEPT: Final = 512
_DISCOVERY: Final = "/.well-known/openid-configuration"
_MAX_DISCOVERY: Final = 64 << 10


@dataclass(frozen=True, slots=True)
class KeyList:
    pems: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class JwksUrl:
    url: str
    ca_pem: str = ""


@dataclass(frozen=True, slots=True)
class OidcIssuer:
    """Its key set is where its discovery document says (OpenID Connect Discovery 1.0, section 4)."""

    url: str
    ca_pem: str = ""


KeySource = KeyList | JwksUrl | OidcIssuer
Remote = JwksUrl | OidcIssuer


class KeySetRefused(Exception):
    """There is no key set to be had from there; the text is for operators."""


class _Kept:
    """What is known of one source. Times are of the monotonic clock."""

    def __init__(self) -> None:
        self.keys: tuple[VerifyingKey, ...] = ()
        self.fetched_at: float | None = None
        self.tried_at: float | None = None
        self.trouble = ""
        self.fetching: asyncio.Task[None] | None = None

    def is_older_than(self, seconds: float, now: float) -> bool:
        return self.fetched_at is None or now - self.fetched_at > seconds


class KeySets:
    """Call it from one event loop only."""

    def __init__(self, fetch: Fetch, clock: Clock, *, hosts: Collection[str] = ()) -> None:
        """`hosts`: where an issuer's key set may be besides its own host (`acl.jwks_hosts`)."""
        self._fetch = fetch
        self._clock = clock
        self._hosts = frozenset(host.lower() for host in hosts)
        self._kept: OrderedDict[Remote, _Kept] = OrderedDict()

    async def keys_for(self, source: KeySource, kid: str | None) -> tuple[VerifyingKey, ...]:
        """Those that a token with this kid may be signed with: all, when it names none; a list's keys have no names.

        Raises: LoginRefused, also when there is none of that name.
        """
        if isinstance(source, KeyList):
            try:
                return _listed(source.pems)
            except KeyRefused as error:  # written by a release that took it
                raise LoginRefused(f"JWTValidationPubKeys: {error}") from error
        kept = self._kept_of(source)
        if kept.is_older_than(FRESH_SECONDS, self._clock.monotonic()) or not _named(kept.keys, kid):
            await self._refresh(source, kept)
        if kept.is_older_than(STALE_SECONDS, self._clock.monotonic()):
            raise LoginRefused(f"there is no key set: {kept.trouble}")
        if found := _named(kept.keys, kid):
            return found
        raise LoginRefused("the token names a key that is not in the key set")

    async def check(self, source: KeySource) -> None:
        """When a method is written: whether there are keys now. Raises: KeySetRefused."""
        if isinstance(source, KeyList):
            return
        try:
            await self._keys_of(source)
        except FetchFailed as error:
            raise KeySetRefused(str(error)) from error

    async def close(self) -> None:
        tasks = [kept.fetching for kept in self._kept.values() if kept.fetching is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _kept_of(self, source: Remote) -> _Kept:
        kept = self._kept.setdefault(source, _Kept())
        self._kept.move_to_end(source)
        if len(self._kept) > _SETS_KEPT:
            self._kept.popitem(last=False)
        return kept

    async def _refresh(self, source: Remote, kept: _Kept) -> None:
        """Returns when there is nothing to wait for."""
        if kept.fetching is None:
            now = self._clock.monotonic()
            if kept.tried_at is not None and now - kept.tried_at < REFETCH_SECONDS:
                return
            kept.tried_at = now
            kept.fetching = asyncio.create_task(self._fetch_into(source, kept))
        # Not awaited itself: a login that is given up must not end the fetch for all others.
        await asyncio.wait({kept.fetching})

    async def _fetch_into(self, source: Remote, kept: _Kept) -> None:
        began = self._clock.monotonic()
        try:
            kept.keys = await self._keys_of(source)
            kept.fetched_at = began
            kept.trouble = ""
        except (FetchFailed, KeySetRefused) as error:
            kept.trouble = str(error)
        finally:
            kept.fetching = None

    async def _keys_of(self, source: Remote) -> tuple[VerifyingKey, ...]:
        """Raises: FetchFailed, KeySetRefused."""
        url = source.url if isinstance(source, JwksUrl) else await self._jwks_url(source)
        body = await self._fetch(Request(url, source.ca_pem))
        try:
            return key_set(read_object(body, max_bytes=MAX_ANSWER))
        except (JsonRefused, KeyRefused) as error:
            raise KeySetRefused(f"{url}: no key set: {error}") from error

    async def _jwks_url(self, issuer: OidcIssuer) -> str:
        """Raises: FetchFailed, KeySetRefused."""
        url = issuer.url.removesuffix("/") + _DISCOVERY
        try:
            found = read_object(
                await self._fetch(Request(url, issuer.ca_pem, max_bytes=_MAX_DISCOVERY)), max_bytes=_MAX_DISCOVERY
            )
        except JsonRefused as error:
            raise KeySetRefused(f"{url}: {error}") from error
        # Section 4.3: exactly, or a server could pass its keys off as those of another issuer.
        if found.get("issuer") != issuer.url:
            raise KeySetRefused(f"{url}: the issuer is not exactly {issuer.url}")
        jwks = found.get("jwks_uri")
        if not isinstance(jwks, str) or not is_clean(jwks):
            raise KeySetRefused(f"{url}: has no jwks_uri")
        try:
            target, origin = https_url(jwks), https_url(issuer.url)
        except UrlRefused as error:
            raise KeySetRefused(f"{url}: jwks_uri: {error}") from error
        if target.host != origin.host and not self._hosts & {target.host, f"{target.host}:{target.port}"}:
            raise KeySetRefused(f"{url}: the key set is on another host, {target.host}: it must be in acl.jwks_hosts")
        return jwks


def _named(keys: tuple[VerifyingKey, ...], kid: str | None) -> tuple[VerifyingKey, ...]:
    return keys if kid is None else tuple(key for key in keys if key.kid == kid)


@functools.lru_cache(maxsize=256)
def _listed(pems: tuple[str, ...]) -> tuple[VerifyingKey, ...]:
    """Raises: KeyRefused."""
    return tuple(pem_key(pem) for pem in pems)
