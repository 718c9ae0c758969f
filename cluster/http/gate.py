"""The gate: what a request must prove before its endpoint hears of it, and before a byte of its body is read.

Every route says what it needs; a route that says nothing does not exist (`Route.access` has no default).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Final

from aiohttp import web

from cluster.api.access import MAX_SECRET_ID, Access, Caller, Right
from cluster.base.errors import BadRequest, PermissionDenied, TokenUnknown
from cluster.http.query import Query
from cluster.http.refusals import Refusals

_HEADER: Final = "X-Consul-Token"
_BEARER: Final = "bearer"
#: Who has sent a request that has passed, as of now, if it would still pass. Raises: as `admit`.
Standing = Callable[[], Caller]
_STANDING: Final = web.RequestKey[Standing]("standing")


@dataclass(frozen=True, slots=True)
class Open:
    """Anybody may ask; whatever token comes along is not looked at."""

    why: str


@dataclass(frozen=True, slots=True)
class Needs:
    """A right; `is_on_this_node`: on the name of the node that is asked."""

    right: Right
    is_on_this_node: bool = False


@dataclass(frozen=True, slots=True)
class Inside:
    """A token that is known; what it may have is judged by what the endpoint calls, which takes the caller."""

    where: str
    #: One of them it must give on some name: without, there is nothing that the endpoint could find in the body.
    one_of: tuple[Right, ...] = ()


RouteAccess = Open | Needs | Inside


async def admit(
    access: Access, refusals: Refusals, node_name: str, needed: RouteAccess, request: web.Request, query: Query
) -> None:
    """Raises: BadRequest, PermissionDenied, TokenUnknown, RateLimitReached, NotReady, NoLeader."""
    secret_id = secret_id_of(request, query)
    if isinstance(needed, Open):
        return
    if len(secret_id) > MAX_SECRET_ID:  # of no token
        async with refusals.of_token(request):
            raise TokenUnknown("ACL not found")
    try:
        caller = access.caller_here(secret_id)
    except TokenUnknown:
        async with refusals.of_token(request):
            caller = await access.caller(secret_id)
    name = node_name if isinstance(needed, Needs) and needed.is_on_this_node else None

    def judged(caller: Caller) -> Caller:
        if isinstance(needed, Needs):
            caller.require(needed.right, name)
        elif needed.one_of and not any(map(caller.may_some, needed.one_of)):
            raise caller.refusal(needed.one_of[0])
        return caller

    if isinstance(needed, Inside) and needed.one_of:
        await refusals.require_rights(request, caller.accessor_id)
    try:
        judged(caller)
    except PermissionDenied:
        if isinstance(needed, Inside):
            await refusals.lacks_rights(request, caller.accessor_id)
        raise
    address = request.remote or ""
    request[_STANDING] = lambda: replace(judged(access.judged_again(caller)), asked_from=address)


def default_policy(access: Access) -> Mapping[str, str]:
    """A header of every answer, as in Consul: what holds where no rule speaks of something."""
    return {"X-Consul-Default-ACL-Policy": "allow" if access.allows_by_default else "deny"}


def filtered(caller: Caller, *, is_shorter: bool) -> Mapping[str, str]:
    """A header of lists from which something was left out. Who brings no token is not told that there is more
    (Consul's maskResultsFilteredByACLs).
    """
    return {"X-Consul-Results-Filtered-By-ACLs": "true"} if is_shorter and not caller.is_anonymous else {}


def caller_of(request: web.Request) -> Caller:
    """Of a request to a route that is not open; as of now, whatever it has waited for. Raises: as `admit`."""
    return request[_STANDING]()


def require_standing(request: web.Request) -> None:
    """After a wait, before anything is done or handed out. Raises: as `admit`."""
    if (standing := request.get(_STANDING)) is not None:
        standing()


def needs_while_waiting(request: web.Request, right: Right, name: str) -> None:
    """Of a route that is `Inside`: what it is judged by again, for as long as it waits."""
    passed = request[_STANDING]

    def standing() -> Caller:
        caller = passed()
        caller.require(right, name)
        return caller

    request[_STANDING] = standing


def secret_id_of(request: web.Request, query: Query) -> str:
    """The token that a request brings, or "". In a URL it is in other people's logs, but Consul's clients may do so.

    Raises: BadRequest for two that differ, where Consul takes the first: somebody may have put the other there.
    """
    given = []
    if query and (text := query.get("token")):
        given.append(text)
    headers = request.headers
    given += headers.getall(_HEADER, ())
    for value in headers.getall("Authorization", ()):
        scheme, _, text = value.partition(" ")
        if scheme.lower() == _BEARER:
            given.append(text.strip())
    found = {text for text in given if text}
    if len(found) > 1:
        raise BadRequest("two different tokens: send one, as ?token, as X-Consul-Token, or as Authorization: Bearer")
    return found.pop() if found else ""
