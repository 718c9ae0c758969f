"""Names of hosts to addresses, in threads of its own: a name server that hangs holds up nobody else.

The event loop has few threads for look-ups, which the dialling between servers needs, too, and a look-up cannot be
ended: whoever gives up waiting leaves its thread behind for as long as the system's resolver takes. So a host has one
look-up at a time, which all who ask for it share, and keeps its place until the thread is done; a place is waited for
shortly.
"""

import asyncio
import contextlib
import functools
import socket
import threading
from collections.abc import Awaitable, Callable, Sequence
from ipaddress import ip_address
from typing import Final

#: Look-ups at once: hosts whose name servers hang have that many, and the others the rest.
MAX_LOOKUPS: Final = 8
_WAIT_SECONDS: Final = 1.0

#: A host and port -> its addresses. Raises: OSError.
Resolve = Callable[[str, int], Awaitable[Sequence[str]]]
#: One host, and as long as it takes. Raises: OSError, UnicodeError.
Lookup = Callable[[str], Sequence[str]]


def system_lookup(host: str) -> Sequence[str]:
    return [str(address[0]) for *_, address in socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)]


class Names:
    """A `Resolve`. Call it from one event loop only."""

    def __init__(
        self, lookup: Lookup = system_lookup, *, places: int = MAX_LOOKUPS, wait_seconds: float = _WAIT_SECONDS
    ) -> None:
        self._lookup = lookup
        self._places = places
        self._wait_seconds = wait_seconds
        self._free = asyncio.Semaphore(places)
        self._under_way: dict[str, asyncio.Future[Sequence[str]]] = {}

    async def __call__(self, host: str, _port: int) -> Sequence[str]:
        """For as long as the caller waits. Raises: OSError."""
        with contextlib.suppress(ValueError):
            return [str(ip_address(host))]
        # Not awaited itself: whoever gives up must not end it for all others, and the thread goes on anyway.
        return await asyncio.shield(self._under_way.get(host) or await self._begun(host))

    async def _begun(self, host: str) -> "asyncio.Future[Sequence[str]]":
        """Raises: OSError."""
        try:
            async with asyncio.timeout(self._wait_seconds):
                await self._free.acquire()
        except TimeoutError:
            raise OSError(None, f"busy: {self._places} other names are being looked up") from None
        if (found := self._under_way.get(host)) is not None:  # somebody else has begun it meanwhile
            self._free.release()
            return found
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[Sequence[str]] = loop.create_future()
        thread = threading.Thread(target=self._look_up, args=(host, loop, answer), name="look-up", daemon=True)
        try:
            thread.start()
        except RuntimeError:
            self._free.release()
            raise OSError(None, "no thread could be had to look the name up") from None
        answer.add_done_callback(lambda _: self._ended(host, answer))
        self._under_way[host] = answer
        return answer

    def _look_up(self, host: str, loop: asyncio.AbstractEventLoop, answer: "asyncio.Future[Sequence[str]]") -> None:
        """In the thread."""
        try:
            told = functools.partial(answer.set_result, self._lookup(host))
        except OSError as error:
            # Without what would make a cycle of it and this frame, freed at the next collection of garbage.
            told = functools.partial(answer.set_exception, error.with_traceback(None))
        except Exception:  # UnicodeError: a label that is too long
            told = functools.partial(answer.set_exception, OSError(None, "it is not the name of a host"))
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
            loop.call_soon_threadsafe(told)

    def _ended(self, host: str, answer: "asyncio.Future[Sequence[str]]") -> None:
        """When the thread is done, and not when nobody waits for it any more."""
        answer.exception()  # looked at: nobody may be there any more who does
        del self._under_way[host]
        self._free.release()
