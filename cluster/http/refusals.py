"""How many refused credentials a source may bring: tokens that nobody knows, logins and bootstraps that fail, and
requests with a token for what only its endpoint can say that it does not give, such as a certificate.

Before the body is read, and before anybody else is asked: an unknown token costs a round to the leader, because this
node may lag; a login costs signatures, and requests to whoever vouches for it. Once a source has used up what it may,
it is answered from here, and after a moment: a client that asks again at every answer asks a few times in a second on
each of its connections, which are bounded, and not some thousand times.

Only refusals count. A token that this node knows is served without a look at any limit: behind an address that many
share, nobody with a right token is held up by those who try wrong ones. What that costs is one keyed hash and one
look-up in memory, and it lets nobody guess: a SecretID has 122 random bits. A login has no token yet, so that behind
such an address it may have to wait for what others have used up; tokens and logins do not count against each other.
What a known token is refused counts against that token at that address, and nobody else.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Hashable
from contextlib import asynccontextmanager
from typing import Final

from aiohttp import web

from cluster.base.errors import ClusterError, NoLeader, NotLeader, NotReady, Overloaded, RateLimitReached
from cluster.base.rates import KeyedLimit
from cluster.base.seats import source_of

_TOKENS: Final = "requests with unknown tokens from one address"
_PROOFS: Final = "refused logins from one address"
_RIGHTS: Final = "refused requests of one token from one address"
#: What nobody brings about by what they send. A time-out is not among them: a login can take as long as it wants.
_OWN_FAULTS: Final = (NoLeader, NotLeader, NotReady, Overloaded)
#: How long the answer to a source that has used up what it may is held back.
_HELD_SECONDS: Final = 0.2


class Refusals:
    """Of one listener."""

    def __init__(self, per_second: float, monotonic: Callable[[], float], limited: Callable[[], object]) -> None:
        self._tokens = KeyedLimit(per_second, _TOKENS, monotonic, limited)
        self._proofs = KeyedLimit(per_second, _PROOFS, monotonic, limited)
        self._rights = KeyedLimit(per_second, _RIGHTS, monotonic, limited)

    @asynccontextmanager
    async def of_token(self, request: web.Request) -> AsyncIterator[None]:
        """Around what finds out whether a token is known somewhere else. Raises: RateLimitReached."""
        async with _counted(self._tokens, request):
            yield

    @asynccontextmanager
    async def of_proof(self, request: web.Request) -> AsyncIterator[None]:
        """Around a login, or a bootstrap. Raises: RateLimitReached."""
        async with _counted(self._proofs, request):
            yield

    async def require_rights(self, request: web.Request, accessor_id: str) -> None:
        """Before a known token's request is looked into. Takes nothing: however many are under way at once, only those
        count that are refused. Raises: RateLimitReached.
        """
        if len(self._rights):
            await _held_back(self._rights.require, (source_of((request.remote,)), accessor_id))

    async def lacks_rights(self, request: web.Request, accessor_id: str) -> None:
        """It was refused. Raises: RateLimitReached."""
        await _held_back(self._rights.take, (source_of((request.remote,)), accessor_id))


async def _held_back(ask: Callable[[Hashable], None], key: Hashable) -> None:
    try:
        ask(key)
    except RateLimitReached:
        await asyncio.sleep(_HELD_SECONDS)
        raise


@asynccontextmanager
async def _counted(limit: KeyedLimit, request: web.Request) -> AsyncIterator[None]:
    """It is taken first and given back unless it was refused, or took too long, so that many at once get no more than
    one by one.
    """
    source = source_of((request.remote,))
    await _held_back(limit.take, source)
    try:
        yield
    except ClusterError as error:
        if isinstance(error, _OWN_FAULTS):
            limit.give_back(source)
        raise
    else:
        limit.give_back(source)
