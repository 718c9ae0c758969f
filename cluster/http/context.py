"""What every endpoint gets, and what an endpoint is."""

import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

from aiohttp import web

from cluster.api.reads import ReadLevel, ReadPoint, Watch
from cluster.api.service import Service
from cluster.base.clock import Clock
from cluster.base.errors import PermissionDenied
from cluster.base.log import Log
from cluster.http.blocking import QueryOptions, Waiters
from cluster.http.body import MAX_BODY_BYTES
from cluster.http.errors import StatusOf, standard_status
from cluster.http.failures import Failures
from cluster.http.gate import RouteAccess, caller_of
from cluster.http.hosts import Hosts
from cluster.http.query import Query
from cluster.http.refusals import Refusals
from cluster.http.transfers import Transfers


@dataclass(frozen=True, slots=True)
class Api:
    """The node behind the API, and what the API itself needs."""

    service: Service
    log: Log
    failures: Failures
    clock: Clock
    rng: random.Random
    waiters: Waiters
    transfers: Transfers
    hosts: Hosts
    refusals: Refusals


Handler = Callable[[Api, web.Request, Query], Awaitable[web.StreamResponse]]


@dataclass(frozen=True, slots=True)
class Route:
    """One endpoint. `path` is in the form of aiohttp's router, and also the label of its metrics."""

    methods: tuple[str, ...]
    path: str
    access: RouteAccess
    handler: Handler
    status_of: StatusOf = standard_status
    #: Failures are always logged, except with these statuses: overload must not become a flood of lines.
    quiet_statuses: tuple[int, ...] = ()
    #: Changes are logged too. Not so signatures, thousands in a second: they have their own audit lines.
    logs_success: bool = False
    #: Its answers have a private key or a secret in them, or may have: no cache may keep one.
    is_private: bool = False
    #: It changes something though it is a GET, which a browser sends for any page.
    changes_on_get: bool = False
    #: What the endpoint itself reads at most; only asked here whether a client should begin to send.
    max_body_bytes: int = MAX_BODY_BYTES


API: Final = web.AppKey("api", Api)


def counted(handler: Handler) -> Handler:
    """Of a route that judges inside: whom it refuses again and again is refused by the gate, for a while."""

    async def handle(api: Api, request: web.Request, query: Query) -> web.StreamResponse:
        accessor_id = caller_of(request).accessor_id
        try:
            return await handler(api, request, query)
        except PermissionDenied:
            await api.refusals.lacks_rights(request, accessor_id)
            raise

    return handle


async def read_now(api: Api, options: QueryOptions) -> ReadPoint:
    """The state as it is: where a stale one is older than the query allows, the current one."""
    point = await api.service.reads.read(options.level)
    if options.max_stale_ms and point.last_contact_ms > options.max_stale_ms:
        return await api.service.reads.read(ReadLevel.LINEARIZABLE)
    return point


async def read_state(api: Api, request: web.Request, options: QueryOptions, what: Watch) -> ReadPoint:
    """The state that a query asks for; a blocking one waits for news of `what`."""
    if not options.index:
        return await read_now(api, options)
    timeout = options.timeout(api.rng)
    return await api.waiters.wait(request, lambda: api.service.reads.watch(options.level, options.index, what, timeout))


def requester(request: web.Request) -> str:
    """Who asks, for the record: without ACL tokens, the address."""
    return request.remote or ""
