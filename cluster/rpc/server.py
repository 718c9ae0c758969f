"""The RPC port: other nodes' requests to the leader, HTTP over mutual TLS 1.3, msgpack bodies (envelope.py).

Nothing is looked at before the handshake has proved a server of this cluster, by its name and its key; a server that
was removed from it gets nowhere. One hop: a node that does not lead says so and forwards nothing.
"""

import asyncio
from collections.abc import Callable
from typing import Any, Final, cast

from aiohttp import web
from aiohttp.web_protocol import RequestHandler

from cluster.base.errors import AnswerLost, CommitUnknown, InternalError, NotLeader
from cluster.base.listener import Accepting, Listener, listen
from cluster.base.log import Log
from cluster.base.seats import PeerSeats, Seat
from cluster.base.telemetry import Metrics
from cluster.raft.replica import Replica
from cluster.rpc.client import RPC_PATH
from cluster.rpc.envelope import MAX_RPC_BYTES, Outcome, pack_outcome, pack_outcomes, refusal, unpack_envelope
from cluster.rpc.operation import OLDEST, VERSION, VERSION_HEADER, NotUnderstood, Operation
from cluster.rpc.operations import Operations, Served
from cluster.tls.contexts import NodeTls

_MAX_WAIT_SECONDS: Final = 120.0
_STOP_SECONDS: Final = 5.0
#: As Consul's rpc_handshake_timeout.
_HANDSHAKE_SECONDS: Final = 5.0
#: Longer than a node keeps a connection that it does not use (client.py), so that no request meets the end of one.
_IDLE_SECONDS: Final = 60.0
#: Of a connection whose certificate names no member: in this time it may ask, and is told so.
_STRANGER_SECONDS: Final = 10.0
#: In which the whole of a request must have arrived.
_BODY_SECONDS: Final = 30.0
_SPEAKS: Final = {VERSION_HEADER: str(VERSION)}
_VERSIONS: Final = frozenset(str(version) for version in range(OLDEST, VERSION + 1))


class RpcServer:
    """Made by `start`."""

    def __init__(
        self, replica: Replica, operations: Operations, tls: NodeTls, log: Log, metrics: Metrics, seats: PeerSeats
    ) -> None:
        self._replica = replica
        self._operations = operations
        self._tls = tls
        self._log = log
        self._metrics = metrics
        self._seats = seats
        self._runner: web.AppRunner | None = None
        self._listener: Listener | None = None

    async def start(self, address: str) -> None:
        """Raises: OSError when the address cannot be bound."""
        app = web.Application(client_max_size=MAX_RPC_BYTES)
        app.router.add_post(RPC_PATH + "{operation}", self._handle)
        self._runner = web.AppRunner(app, access_log=None, handle_signals=False, shutdown_timeout=_STOP_SECONDS)
        await self._runner.setup()
        server, loop = self._runner.server, asyncio.get_running_loop()
        assert server is not None  # it has just been set up
        self._listener = await listen(
            address,
            Accepting(
                lambda seat: Connection(server, self._seats, self._member, seat, loop),
                self._seats.strangers,
                self._tls.server_context,
                _HANDSHAKE_SECONDS,
            ),
        )

    async def stop(self) -> None:
        if self._listener is not None:
            self._listener.close()
        if self._runner is not None:
            await self._runner.cleanup()

    def _member(self, transport: asyncio.BaseTransport) -> str | None:
        """The member on the other side, if it is one."""
        peer = self._tls.peer_name(transport.get_extra_info("peercert"))
        return peer if self._why_refused(peer, transport) is None else None

    async def _handle(self, request: web.Request) -> web.Response:
        assert request.transport is not None
        peer = self._tls.peer_name(request.transport.get_extra_info("peercert"))
        operation = request.match_info["operation"]
        reason = self._why_refused(peer, request.transport)
        if peer is None or reason is not None:
            self._log("rpc.refused", peer=peer, operation=operation, reason=reason)
            return _refused(403, reason or "")
        if isinstance(request.protocol, Connection):
            request.protocol.admit()  # it may have become a member since it connected
        version = _version_of(request)
        if version is None:
            return _refused(400, f"{VERSION_HEADER} must be a number from {OLDEST} to {VERSION}")
        try:
            async with asyncio.timeout(_BODY_SECONDS):
                envelope = unpack_envelope(await request.read())
        except NotUnderstood as error:
            return _refused(400, f"not a request of this protocol: {error}")
        except TimeoutError:
            return _refused(408, f"the request did not arrive within {_BODY_SECONDS:g} seconds")
        try:
            served = self._operations.named(operation)
        except InternalError as error:
            return self._answer("unknown", [refusal(error) for _ in envelope.requests])
        # The release before would show the name of a server as a part of who asked.
        by = peer if self._replica.admission.is_pinned else ""
        seconds = min(envelope.milliseconds / 1000, _MAX_WAIT_SECONDS)
        return self._answer(operation, await self._run(served, envelope.requests, seconds, version, by))

    def _why_refused(self, peer: str | None, transport: asyncio.BaseTransport) -> str | None:
        if peer is None:
            return "no server of this cluster"
        try:
            key = self._tls.peer_key(transport.get_extra_info("ssl_object"))
        except ValueError as error:
            return f"certificate with an unusable key: {error}"
        return self._replica.admission.refusal(peer, key)

    def _answer(self, operation: str, outcomes: list[Outcome]) -> web.Response:
        self._metrics.rpc_requests.labels(operation, "ok").inc(len(outcomes))
        return web.Response(body=pack_outcomes(outcomes), headers=_SPEAKS)

    async def _run(self, served: Served, requests: list[Any], seconds: float, version: int, peer: str) -> list[Outcome]:
        operation = served.operation
        if operation.needs_leader and not self._replica.leadership.is_ready:
            return [refusal(NotLeader("this node does not lead")) for _ in requests]
        tasks = [asyncio.ensure_future(_understood(served, request, version, peer)) for request in requests]
        if tasks:
            await asyncio.wait(tasks, timeout=seconds)
        return [_packed(operation, _outcome(task), version) for task in tasks]


class Connection(RequestHandler):
    """One connection, whose handshake is over. Of aiohttp's private names it relies on `_waiter`, which is set while it
    waits for a request.
    """

    __slots__ = ("_deadline", "_member", "_seat", "_seats")

    def __init__(
        self,
        server: web.Server,
        seats: PeerSeats,
        member: Callable[[asyncio.BaseTransport], str | None],
        seat: Seat,
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        super().__init__(
            server,
            loop=loop,
            access_log=None,  # type: ignore[arg-type]  # None turns it off
            keepalive_timeout=_IDLE_SECONDS,
        )
        self._seats = seats
        self._member = member
        self._seat = seat
        self._deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        # Not `close`: a peer that does not answer would hold it for longer.
        self._seat.end = cast(asyncio.Transport, transport).abort
        self._seat.settle(lambda: self._waiter is not None and not self._waiter.done())
        self._deadline = self._loop.call_later(_STRANGER_SECONDS, self._seat.end)
        self.admit()

    def admit(self) -> None:
        """If it is a member's, it does not take the place of a stranger any more."""
        if self._deadline is None or self.transport is None:
            return
        member = self._member(self.transport)
        if member is not None:
            self._deadline.cancel()
            self._deadline = None
            if not self._seat.move(self._seats.members, member):
                self._seat.end()

    def connection_lost(self, exc: BaseException | None) -> None:
        self._seat.leave()
        if self._deadline is not None:
            self._deadline.cancel()
        super().connection_lost(exc)


def _refused(status: int, text: str) -> web.Response:
    """With the version that this node speaks: whoever asked in one that is too old asks again in a newer one."""
    return web.Response(status=status, text=text, headers=_SPEAKS)


def _version_of(request: web.Request) -> int | None:
    """Of the form that the body has; None for one that this node does not speak."""
    given = request.headers.get(VERSION_HEADER, "1")
    return int(given) if given in _VERSIONS else None


async def _understood(served: Served, data: Any, version: int, peer: str) -> Any:
    """Raises: as the operation; InternalError for a request that does not fit the operation."""
    try:
        request = served.operation.request.unpack(data, version)
    except NotUnderstood as error:
        raise InternalError(f"the request for operation {served.operation.name!r} is not understood: {error}") from None
    return await served.handler(served.operation.as_told_by(request, peer))


def _packed(operation: Operation[Any, Any], outcome: Any, version: int) -> Outcome:
    """An answer that has no form on the wire takes none of those beside it along."""
    try:
        return pack_outcome(operation, outcome, version)
    except (TypeError, ValueError, OverflowError) as error:
        return refusal(AnswerLost(f"the answer to operation {operation.name!r} cannot be sent: {type(error).__name__}"))


def _outcome(task: "asyncio.Future[Any]") -> Any:
    if not task.done() or task.cancelled():
        task.cancel()
        return CommitUnknown("the leader did not finish in time; it may have taken effect")
    error = task.exception()
    return task.result() if error is None else error
