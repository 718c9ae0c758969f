"""The one way out: a bounded https request to a server that an auth method names.

The order matters. A name is resolved once, all of its addresses are judged, and connections are made to these very
addresses, so a name that means something else a moment later (DNS rebinding) gains nothing; the socket is the last to
look. The certificate is still checked against the name. Nothing is followed: no redirect, no proxy, no cookie.

So many are under way at once, a few of them to one host; a place is waited for shortly, and the deadline begins when
there is one. Who hangs takes the time of whoever asks it, and of nobody else.
"""

import asyncio
import functools
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from ipaddress import ip_address
from typing import Any, Final

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.http_exceptions import HttpProcessingError

from cluster.access.methods.addresses import HttpsUrl, IPAddress, IsOwn, UrlRefused, https_url, why_not
from cluster.access.methods.fetching import FetchFailed, Request
from cluster.access.methods.resolving import Names, Resolve
from cluster.base.words import plain

#: From the question for the address to the last byte.
DEADLINE_SECONDS: Final = 5.0
#: At once, by all methods of a node; and of one host and port, so that a server which hangs has only those.
MAX_FETCHES: Final = 16
MAX_OF_A_HOST: Final = 4
#: For one of these places.
WAIT_SECONDS: Final = 1.0
#: Hosts that are asked, or waited for, at once.
MAX_HOSTS: Final = 256
_MAX_ADDRESSES: Final = 16
_MAX_HEADER: Final = 8 << 10
_MAX_HEADERS: Final = 64
_CONTEXTS_KEPT: Final = 64

#: What is the cluster's own, as things are when it is asked.
Own = Callable[[], Awaitable[IsOwn]]


async def nothing_is_own() -> IsOwn:
    return lambda _address, _port: False


class HttpsFetch:
    """A `Fetch`. Call it from one event loop only."""

    def __init__(
        self,
        *,
        hosts: Collection[str] = (),
        own: Own = nothing_is_own,
        resolve: Resolve | None = None,
        deadline_seconds: float = DEADLINE_SECONDS,
        wait_seconds: float = WAIT_SECONDS,
    ) -> None:
        """`hosts`: as in `acl.jwks_hosts`, HOST or HOST:PORT; empty: any. `resolve`: the system's, if there is none."""
        self._hosts = frozenset(host.lower() for host in hosts)
        self._own = own
        self._resolve = resolve or Names()
        self._deadline_seconds = deadline_seconds
        self._wait_seconds = wait_seconds
        self._places = asyncio.Semaphore(MAX_FETCHES)
        self._of_hosts: dict[str, _Places] = {}

    async def __call__(self, request: Request) -> bytes:
        """Raises: FetchFailed."""
        try:
            url = https_url(request.url)
            async with self._place_of(url), asyncio.timeout(self._deadline_seconds):
                return await self._fetched(request, url)
        except UrlRefused as error:
            raise FetchFailed(str(error)) from None
        except TimeoutError:
            raise FetchFailed(f"{request.url}: no answer within {self._deadline_seconds:g} s") from None
        except (aiohttp.ClientError, HttpProcessingError, OSError, EOFError, ValueError) as error:
            raise FetchFailed(f"{request.url}: {_words(error)}") from error

    @asynccontextmanager
    async def _place_of(self, url: HttpsUrl) -> AsyncIterator[None]:
        """The host's before one of all: whoever waits for a server that hangs has nothing that others need.

        Raises: FetchFailed.
        """
        async with AsyncExitStack() as held:
            places = held.enter_context(self._places_of_host(url))
            try:
                async with asyncio.timeout(self._wait_seconds):
                    await held.enter_async_context(places)
                    await held.enter_async_context(self._places)
            except TimeoutError:
                raise FetchFailed(
                    f"{url.text}: busy: no place within {self._wait_seconds:g} s among {MAX_OF_A_HOST} of the host and"
                    f" {MAX_FETCHES} in all"
                ) from None
            yield

    @contextmanager
    def _places_of_host(self, url: HttpsUrl) -> Iterator[asyncio.Semaphore]:
        """Remembered while somebody waits for them, or has one. Raises: FetchFailed."""
        host = f"{url.host}:{url.port}"
        if host not in self._of_hosts and len(self._of_hosts) >= MAX_HOSTS:
            raise FetchFailed(f"{url.text}: busy: {MAX_HOSTS} hosts are being asked")
        places = self._of_hosts.setdefault(host, _Places())
        places.users += 1
        try:
            yield places.free
        finally:
            places.users -= 1
            if not places.users:
                del self._of_hosts[host]

    async def _fetched(self, request: Request, url: HttpsUrl) -> bytes:
        if self._hosts and not self._hosts & {url.host, f"{url.host}:{url.port}"}:
            raise FetchFailed(f"{url.text}: the host is not in acl.jwks_hosts")
        addresses = await self._judged(url)
        connector = aiohttp.TCPConnector(
            ssl=_context(request.ca_pem),
            resolver=_Fixed(addresses),
            use_dns_cache=False,
            force_close=True,
            socket_factory=functools.partial(_socket_to, frozenset(map(ip_address, addresses))),
        )
        async with (
            aiohttp.ClientSession(
                connector=connector,
                cookie_jar=aiohttp.DummyCookieJar(),
                trust_env=False,
                auto_decompress=False,
                timeout=aiohttp.ClientTimeout(),
                max_line_size=_MAX_HEADER,
                max_field_size=_MAX_HEADER,
                max_headers=_MAX_HEADERS,
            ) as session,
            session.request(
                "GET" if request.body is None else "POST",
                url.text,
                data=request.body,
                headers=_headers(request),
                allow_redirects=False,
            ) as response,
        ):
            return await _body(response, url, request.max_bytes)

    async def _judged(self, url: HttpsUrl) -> list[str]:
        addresses = list(dict.fromkeys(await self._resolve(url.host, url.port)))[:_MAX_ADDRESSES]
        if not addresses:
            raise FetchFailed(f"{url.text}: the host has no address")
        is_own = await self._own()
        for address in addresses:
            if wrong := why_not(address, url.port, is_own):
                raise FetchFailed(f"{url.text}: the host has the address {address}: {wrong}")
        return addresses


class _Places:
    """Of one host. `users`: who waits for one, or has one."""

    def __init__(self) -> None:
        self.free = asyncio.Semaphore(MAX_OF_A_HOST)
        self.users = 0


async def _body(response: aiohttp.ClientResponse, url: HttpsUrl, most: int) -> bytes:
    if response.status not in (200, 201):
        raise FetchFailed(f"{url.text}: answered with status {response.status}")
    # Nothing was asked for but the plain bytes, and what is packed has no size before it is unpacked.
    if response.headers.get("Content-Encoding", "identity").lower() != "identity":
        raise FetchFailed(f"{url.text}: answered with a content encoding")
    data = bytearray()
    async for chunk in response.content.iter_any():
        data += chunk
        if len(data) > most:
            raise FetchFailed(f"{url.text}: answered with more than {most} bytes")
    return bytes(data)


def _headers(request: Request) -> dict[str, str]:
    headers = {"Accept": "application/json", "Accept-Encoding": "identity", "User-Agent": "quorumca"}
    if request.body is not None:
        headers["Content-Type"] = "application/json"
    return headers | dict(request.headers)


class _Fixed(AbstractResolver):
    """Answers with addresses that have been judged, whatever is asked."""

    def __init__(self, addresses: Sequence[str]) -> None:
        self._addresses = addresses

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        flags = socket.AI_NUMERICHOST | socket.AI_NUMERICSERV
        return [
            ResolveResult(
                hostname=host,
                host=address,
                port=port,
                family=socket.AF_INET6 if ":" in address else socket.AF_INET,
                proto=socket.IPPROTO_TCP,
                flags=flags,
            )
            for address in self._addresses
        ]

    async def close(self) -> None:
        pass


def _socket_to(judged: frozenset[IPAddress], address_info: tuple[Any, ...]) -> socket.socket:
    """What aiohttp connects with. A literal address comes here without a resolver; it has been judged like a name."""
    family, kind, protocol, _, address = address_info
    if ip_address(address[0]) not in judged:
        raise OSError(None, f"{address[0]} has not been judged")
    return socket.socket(family, kind, protocol)


@functools.lru_cache(maxsize=_CONTEXTS_KEPT)
def _context(ca_pem: str) -> ssl.SSLContext:
    """Raises: ssl.SSLError. Not `create_default_context`, which may write keys to where the environment says."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # checks the certificate and its name
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if ca_pem:
        context.load_verify_locations(cadata=ca_pem)
    else:
        context.load_default_certs()
    return context


def _words(error: Exception) -> str:
    match error:
        case aiohttp.ClientConnectorCertificateError():
            return plain(error.certificate_error)
        case aiohttp.ClientConnectorError():
            return plain(error.os_error)
        case OSError():
            return plain(error)
        case _:
            return "the answer is not HTTP, or ended early"
