"""The HTTP API for clients: routes, what is done around every request, and the listener."""

import asyncio
import random
import re
import ssl
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Final

from aiohttp import web
from aiohttp.http_parser import RawRequestMessage
from aiohttp.typedefs import Handler as AiohttpHandler
from yarl import URL

from cluster.api.service import Service
from cluster.base.clock import Clock, SystemClock
from cluster.base.config import HttpSection
from cluster.base.listener import Accepting, Listener, listen
from cluster.base.log import Log
from cluster.base.seats import Caps, Seats
from cluster.http.blocking import Waiters
from cluster.http.body import answer_early, go_on, not_yet
from cluster.http.connection import ANSWER_SECONDS, HEAD_SECONDS, MAX_HEADER_BYTES, Connection, Door, bare_answer
from cluster.http.context import API, Api, Route, requester
from cluster.http.errors import (
    HeadersTooLarge,
    NotAllowed,
    NotFoundPath,
    error_response,
    no_such_datacenter,
)
from cluster.http.failures import Failures
from cluster.http.gate import Open, admit, default_policy, require_standing
from cluster.http.hosts import Hosts
from cluster.http.query import Query, check_path, parse_query
from cluster.http.refusals import Refusals
from cluster.http.render import NO_STORE, TEXT, empty_response
from cluster.http.routes import (
    acl,
    agent,
    catalog,
    certs,
    configuration,
    joining,
    openapi,
    operator,
    roots,
    rotation,
    seal,
    sign,
    snapshot,
    status,
)
from cluster.http.transfers import Transfers
from cluster.tls.contexts import PemFile, load_pair

ROUTES: Final[tuple[Route, ...]] = (
    *sign.ROUTES,
    *roots.ROUTES,
    *rotation.ROUTES,
    *configuration.ROUTES,
    *certs.ROUTES,
    *agent.ROUTES,
    *status.ROUTES,
    *operator.ROUTES,
    *seal.ROUTES,
    *snapshot.ROUTES,
    *catalog.ROUTES,
    *openapi.ROUTES,
    *acl.ROUTES,
    *joining.ROUTES,
)

_UNKNOWN: Final = "unknown"
_NOBODY_HOME: Final = Open("says which methods a path has, and nothing else")
_NO_ROUTE: Final = "none"
_FALLBACK: Final = web.AppKey[AiohttpHandler]("fallback")
#: What a line and its separators cost on the wire beside name and value.
_HEADER_OVERHEAD: Final = 4
_MAX_DETAIL: Final = 200
_HANDSHAKE_SECONDS: Final = 5.0
#: With forward secrecy and authenticated encryption (RFC 9325 4.2). Those of TLS 1.3 are all so.
_TLS12_CIPHERS: Final = "ECDHE+AESGCM:ECDHE+CHACHA20"
_PARAMETER_PATTERN: Final = re.compile(r":[^}]*}")


def create_app(
    service: Service,
    log: Log,
    *,
    clock: Clock | None = None,
    rng: random.Random | None = None,
) -> web.Application:
    """Every endpoint of ROUTES over `service`."""
    app = web.Application()
    clock = clock or SystemClock()
    api = Api(
        service=service,
        log=log,
        failures=Failures(log),
        clock=clock,
        rng=rng or random.Random(),  # nosec B311 # noqa: S311 - spreads load, guards nothing
        waiters=Waiters(service.metrics.blocking_queries),
        transfers=Transfers(service.config.data_dir),
        hosts=Hosts(service.config.http),
        refusals=Refusals(
            service.config.limits.refused_per_source, clock.monotonic, service.metrics.limited.labels("refused").inc
        ),
    )
    app[API] = api
    by_path: dict[str, list[Route]] = {}
    for route in ROUTES:
        by_path.setdefault(route.path, []).append(route)
    for path, routes in by_path.items():
        _add_path(app, api, path, routes)
    app[_FALLBACK] = fallback = _endpoint(api, Route((), _UNKNOWN, _NOBODY_HOME, _not_found))
    app.router.add_route("*", "/{path:.*}", fallback, expect_handler=not_yet)
    app.on_shutdown.append(_stop_waiting)
    app.on_cleanup.append(_say_failures)
    return app


class HttpServer:
    """The running listener."""

    def __init__(self, runner: web.AppRunner, listener: Listener, door: Door, reload_tls: Callable[[], None]) -> None:
        self._runner = runner
        self._listener = listener
        self._door = door
        #: Take the TLS files again, for connections made from now on. Raises: TlsFileRefused; then the old ones stay.
        self.reload_tls = reload_tls

    @property
    def open_connections(self) -> int:
        return self._door.seats.taken

    async def stop(self) -> None:
        """Accept nothing more, end blocking queries, let other requests finish within the bound; then close all."""
        self._listener.close()
        await self._runner.cleanup()


async def start_http(
    app: web.Application,
    section: HttpSection,
    caps: Caps | None = None,
    *,
    stop_seconds: float = 10.0,
    head_seconds: float = HEAD_SECONDS,
    answer_seconds: float = ANSWER_SECONDS,
) -> HttpServer:
    """Listen. `caps`: what the process has descriptors for; default: as configured. `stop_seconds` bounds how long
    `stop` waits for requests under way.

    Raises: OSError when the address cannot be bound, TlsFileRefused when the TLS files cannot be used.
    """
    api = app[API]
    # Its own bound counts twice: for the handler to end, and for it to end once it is cancelled.
    runner = web.AppRunner(app, handle_signals=False, shutdown_timeout=stop_seconds / 2)
    await runner.setup()
    server = runner.server
    assert server is not None  # it has just been set up
    _keep_to_endpoints(server, app)
    loop = asyncio.get_running_loop()
    try:
        context = _tls_context(section)
        api.hosts.read_certificate()
        door = _door(api, section, caps, head_seconds, answer_seconds)
        accepting = Accepting(
            lambda seat: Connection(server, door, seat, loop),
            door.seats,
            context,
            _HANDSHAKE_SECONDS,
            b"" if context else bare_answer(503, door.is_full),
        )
        listener = await listen(section.address, accepting)
    except BaseException:
        await runner.cleanup()
        raise

    def reload_tls() -> None:
        if context is not None:
            # First into one that nobody uses: a pair that is refused leaves half of it in the context.
            _tls_context(section)
            _load(context, section)
            api.hosts.read_certificate()

    return HttpServer(runner, listener, door, reload_tls)


def _door(api: Api, section: HttpSection, caps: Caps | None, head_seconds: float, answer_seconds: float) -> Door:
    metrics = api.service.metrics
    most = section.max_connections
    seats = Seats(
        caps or Caps(most, section.max_connections_per_source or most // 2),
        metrics.turned_away("http", api.log),
    )
    metrics.connections.labels("http").set_function(lambda: seats.taken)
    return Door(seats, api.log, _refusals(api), head_seconds, answer_seconds, is_tls=section.tls_cert is not None)


def _keep_to_endpoints(server: web.Server, app: web.Application) -> None:
    """What the router refuses by itself (a path with a line break in it, a target that is no path) is answered by the
    endpoint for unknown paths: within its bounds, as text, counted and logged.

    aiohttp has no other place for it (looked at in 3.14.5). A middleware sees what the router refuses only after an
    Expect header has been answered, costs every request a call more, and never sees one that could not be made.
    `web.Application` lets nobody choose the factory of its requests, and a `web.Server` of our own would take the two
    from here as well, beside a second one that the runner stops. So the two public attributes are replaced, before the
    first connection, which reads them (`RequestHandler.__init__`). If they are gone one day, this fails at the start;
    if they are read no more, `test_no_path_and_no_method_passes_by_the_door` does.
    """
    handle, make, fallback = server.request_handler, server.request_factory, app[_FALLBACK]

    def request_of(message: RawRequestMessage, *others: Any) -> web.BaseRequest:
        try:
            return make(message, *others)
        except ValueError:  # an address in place of a path that the parser let pass
            return make(message._replace(url=URL.build(path="/")), *others)

    async def serve(request: web.BaseRequest) -> web.StreamResponse:
        try:
            return await handle(request)
        except web.HTTPException:
            assert isinstance(request, web.Request)  # as the application makes them
            return await fallback(request)

    server.request_handler = serve
    server.request_factory = request_of


def template(path: str) -> str:
    """A route's path as OpenAPI and metrics name it: without the router's patterns."""
    return _PARAMETER_PATTERN.sub("}", path)


def _add_path(app: web.Application, api: Api, path: str, routes: Sequence[Route]) -> None:
    """The routes of one path, with OPTIONS and the refusal of every other method."""
    allow = ",".join(["OPTIONS", *sorted(method for route in routes for method in route.methods)])

    async def options(_api: Api, _request: web.Request, _query: Query) -> web.Response:
        return empty_response({"Allow": allow})

    async def refuse(_api: Api, request: web.Request, _query: Query) -> web.Response:
        raise NotAllowed(request.method, allow)

    resource = app.router.add_resource(path)
    is_private = any(route.is_private for route in routes)
    for route in (*routes, Route(("OPTIONS",), path, _NOBODY_HOME, options), Route(("*",), path, _NOBODY_HOME, refuse)):
        handler = _endpoint(api, replace(route, is_private=is_private))
        for method in route.methods:
            resource.add_route(method, handler, expect_handler=not_yet)


async def _not_found(_api: Api, _request: web.Request, _query: Query) -> web.Response:
    raise NotFoundPath("Invalid URL path: not found")


async def _stop_waiting(app: web.Application) -> None:
    app[API].waiters.stop()


async def _say_failures(app: web.Application) -> None:
    app[API].failures.end_second()


def _endpoint(api: Api, route: Route) -> AiohttpHandler:
    """Around every request: check what came in, turn errors into answers, count, log. One function, because the
    layers of a middleware would cost the hot path more than the work itself.
    """
    label = template(route.path)
    observe_seconds = api.service.metrics.http_seconds.labels(label).observe
    count = _counter(api, label)
    monotonic = api.clock.monotonic
    datacenter, node_name = api.service.config.datacenter, api.service.config.node_name
    access = api.service.access
    headers = {**default_policy(access), **(NO_STORE if route.is_private else {})}

    async def serve(request: web.Request) -> web.StreamResponse:
        started = monotonic()
        response: web.StreamResponse
        try:
            query = _admit(request, api.hosts, datacenter)
            await admit(access, api.refusals, node_name, route.access, request, query)
            # Of other methods a browser asks first whether a page may (CORS), and is not told so.
            if route.changes_on_get or request.method == "POST":
                api.hosts.check_change(request)
            if route.access is not _NOBODY_HOME:
                await go_on(request, route.max_body_bytes)
            response = await (_read if request.method == "GET" else _run)(route, api, request, query)
        except Exception as error:
            response = error_response(error, label, api.log, route.status_of)
        if not response.prepared:
            response.headers.update(headers)
        seconds = monotonic() - started
        observe_seconds(seconds)
        count(response.status)
        if (route.logs_success or response.status >= 400) and response.status not in route.quiet_statuses:
            _log_request(api, label, request, response, seconds)
        if not request.content.is_eof():
            await answer_early(request, response)
        return response

    return serve


async def _run(route: Route, api: Api, request: web.Request, query: Query) -> web.StreamResponse:
    return await route.handler(api, request, query)


async def _read(route: Route, api: Api, request: web.Request, query: Query) -> web.StreamResponse:
    """It may wait for a leader. What was found is for whoever may still know it, and so is that nothing was found."""
    try:
        response = await route.handler(api, request, query)
    except Exception:
        require_standing(request)
        raise
    if not response.prepared:
        require_standing(request)
    return response


def _admit(request: web.Request, hosts: Hosts, datacenter: str) -> Query:
    """Bounds and syntax of everything but the body, and whether it is meant for this listener.

    Raises: HeadersTooLarge, Misdirected, CrossSite, BadRequest, InternalError.
    """
    size = 0
    for name, value in request.raw_headers:
        size += len(name) + len(value) + _HEADER_OVERHEAD
    if size > MAX_HEADER_BYTES:
        raise HeadersTooLarge(f"request headers are too large: at most {MAX_HEADER_BYTES} bytes")
    hosts.check(request)
    url = request.rel_url
    check_path(url.raw_path)
    query = parse_query(url.raw_query_string)
    if query and query.get("dc", "") not in ("", datacenter):
        raise no_such_datacenter()
    return query


def _log_request(api: Api, route: str, request: web.Request, response: web.StreamResponse, seconds: float) -> None:
    """Without the URL: there may be a token in it."""
    status, remote = response.status, requester(request)
    fields: dict[str, object] = {"method": request.method, "route": route}
    if isinstance(response, web.Response) and response.headers.get("Content-Type") == TEXT and response.text:
        fields["detail"] = response.text[:_MAX_DETAIL]
    fields["ms"] = round(seconds * 1000, 1)
    if status >= 400:
        api.failures.say(status, remote, **fields)
    else:
        api.log("http.request", **fields, status=status, remote=remote)


def _counter(api: Api, label: str) -> Callable[[int], None]:
    """Counts answers by status; `labels` is looked up once for each status."""
    counters = {200: api.service.metrics.http_requests.labels(label, "200").inc}

    def count(status: int) -> None:
        increase = counters.get(status)
        if increase is None:
            increase = counters[status] = api.service.metrics.http_requests.labels(label, str(status)).inc
        increase()

    return count


def _refusals(api: Api) -> Callable[[int, str, str], None]:
    """For answers that no endpoint gives."""
    count = _counter(api, _NO_ROUTE)

    def refused(status: int, text: str, remote: str) -> None:
        count(status)
        if status != 503:  # a full port has a line of its own, and not one for each connection
            api.failures.say(status, remote, method="", route=_NO_ROUTE, detail=text, ms=0.0)

    return refused


def _tls_context(section: HttpSection) -> ssl.SSLContext | None:
    if section.tls_cert is None:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(_TLS12_CIPHERS)
    # A ticket would let a session go on after trust was withdrawn, and its key would open what was recorded.
    context.num_tickets = 0
    context.options |= ssl.OP_NO_TICKET | ssl.OP_NO_RENEGOTIATION
    _load(context, section)
    return context


def _load(context: ssl.SSLContext, section: HttpSection) -> None:
    assert section.tls_cert is not None
    assert section.tls_key is not None  # config.py: both or neither
    load_pair(context, PemFile("http.tls_cert", section.tls_cert), PemFile("http.tls_key", section.tls_key))
