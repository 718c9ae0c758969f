"""The RPC port: other nodes' requests to the leader, HTTP over mutual TLS 1.3, msgpack bodies (envelope.py).

Nothing is looked at before the handshake has proved a server of this cluster, by its name and its key; a server that
was removed from it gets nowhere, and not a byte of what it says is read. One hop: a node that does not lead says so and
forwards nothing.
"""

import asyncio
import contextlib
import time
from collections.abc import Sequence
from typing import Any, Final, cast

from aiohttp import web
from aiohttp.web_protocol import RequestHandler

from cluster.base.errors import AnswerLost, CommitUnknown, InternalError, NotLeader
from cluster.base.listener import Accepting, Listener, listen
from cluster.base.log import Log, Seldom
from cluster.base.requester import recorded
from cluster.base.seats import PeerSeats, Seat, source_of
from cluster.base.telemetry import Metrics
from cluster.raft.replica import Replica
from cluster.rpc.client import RPC_PATH
from cluster.rpc.envelope import MAX_RPC_BYTES, Outcome, pack_outcome, pack_outcomes, refusal, unpack_envelope
from cluster.rpc.operation import OLDEST, VERSION, VERSION_HEADER, NotUnderstood, Operation
from cluster.rpc.operations import Operations, Served
from cluster.rpc.tokens import TOKENS_HEADER, ForWhom, unpack_tokens
from cluster.tls.contexts import NodeTls

_MAX_WAIT_SECONDS: Final = 120.0
_STOP_SECONDS: Final = 5.0
#: As Consul's rpc_handshake_timeout.
_HANDSHAKE_SECONDS: Final = 5.0
#: Longer than a node keeps a connection that it does not use (client.py), so that no request meets the end of one.
_IDLE_SECONDS: Final = 60.0
#: Of a connection whose certificate is no member's, or not any more: in this time it may ask, and is told so.
_STRANGER_SECONDS: Final = 2.0
#: Between the answer to such a one and the end: what it has sent and nobody reads must not take the answer along.
_TOLD_SECONDS: Final = 0.5
#: How often it is looked whether connections are still those of members.
_JUDGE_SECONDS: Final = 1.0
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
        self._log = Seldom(log, time.monotonic)
        self._metrics = metrics
        self.seats = seats
        self.connections: set[Connection] = set()
        self._judging: asyncio.Task[None] | None = None
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
                lambda seat: Connection(self, server, seat, loop),
                self.seats.strangers,
                self._tls.server_context,
                _HANDSHAKE_SECONDS,
            ),
        )
        self._judging = loop.create_task(self._judge_anew())

    async def stop(self) -> None:
        if self._judging is not None:
            self._judging.cancel()
        if self._listener is not None:
            self._listener.close()
        if self._runner is not None:
            await self._runner.cleanup()

    async def _judge_anew(self) -> None:
        """Connections are kept for long, and servers are removed."""
        judged = self._replica.admission
        while True:
            # Time alone changes it, too: the certificate expires by which a server is known.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_JUDGE_SECONDS):
                    await self._replica.admission_changed.wait()
            if (admission := self._replica.admission) != judged:
                judged = admission
                for connection in [*self.connections]:
                    connection.judge()

    def judged(self, transport: asyncio.BaseTransport) -> tuple[str, str | None]:
        """Which server's certificate it is ("": of none), and why that one is refused; None: it is a member."""
        peer = self._tls.peer_name(transport.get_extra_info("peercert"))
        return peer or "", self._why_refused(peer, transport)

    def note_refused(self, transport: asyncio.BaseTransport, peer: str, reason: str) -> None:
        """In the log: at most once a second for each server, and for all together that never were one."""
        admission = self._replica.admission
        cause = peer if peer in admission.members or peer in admission.removed else ""
        source = source_of(transport.get_extra_info("peername"))
        self._log("rpc.refused", cause, peer=peer or None, source=source, reason=reason)

    async def _handle(self, request: web.Request) -> web.Response:
        assert request.transport is not None
        peer, reason = self.judged(request.transport)
        if reason is not None:  # it was a member until just now
            self.note_refused(request.transport, peer, reason)
            return _refused(403, reason, is_last=True)
        if "Content-Encoding" in request.headers:
            return _refused(400, "a Content-Encoding is not taken: bodies are sent as they are", is_last=True)
        try:
            async with asyncio.timeout(_BODY_SECONDS):
                body = await request.read()
        except TimeoutError:
            return _refused(408, f"the request did not arrive within {_BODY_SECONDS:g} seconds")
        # Not before: the connection would end with what is unread, and the version that the answer tells be forgotten.
        version = _version_of(request)
        if version is None:
            return _refused(400, f"{VERSION_HEADER} must be a number from {OLDEST} to {VERSION}")
        try:
            envelope = unpack_envelope(body)
            # A server of the release before knows of no tokens: its clients are nobody.
            for_whom = unpack_tokens(request.headers.get(TOKENS_HEADER, ""), len(envelope.requests))
        except NotUnderstood as error:
            return _refused(400, f"not a request of this protocol: {error}")
        operation = request.match_info["operation"]
        try:
            served = self._operations.named(operation)
        except InternalError as error:
            return self._answer("unknown", [refusal(error) for _ in envelope.requests])
        for_whom = [one._replace(asked_from=recorded(one.asked_from, peer)) for one in for_whom]
        asked = [*zip(envelope.requests, for_whom, strict=True)]
        # The release before would show the name of a server as a part of who asked.
        by = peer if self._replica.admission.is_pinned else ""
        seconds = min(envelope.milliseconds / 1000, _MAX_WAIT_SECONDS)
        return self._answer(operation, await self._run(served, asked, seconds, version, by))

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

    async def _run(
        self, served: Served, asked: Sequence[tuple[Any, ForWhom]], seconds: float, version: int, peer: str
    ) -> list[Outcome]:
        """Of requests, each with what is said of who asks."""
        operation = served.operation
        if operation.needs_leader and not self._replica.leadership.is_ready:
            return [refusal(NotLeader("this node does not lead")) for _ in asked]
        tasks = [
            asyncio.ensure_future(self._understood(served, request, for_whom, version, peer))
            for request, for_whom in asked
        ]
        if tasks:
            await asyncio.wait(tasks, timeout=seconds)
        return [_packed(operation, _outcome(task), version) for task in tasks]

    async def _understood(self, served: Served, data: Any, for_whom: ForWhom, version: int, peer: str) -> Any:
        """Raises: as the operation; InternalError for a request that does not fit the operation."""
        try:
            request = served.operation.request.unpack(data, version)
        except NotUnderstood as error:
            raise InternalError(
                f"the request for operation {served.operation.name!r} is not understood: {error}"
            ) from None
        return await self._operations.serve(served, served.operation.as_told_by(request, peer), *for_whom)


class Connection(RequestHandler):
    """One connection, whose handshake is over: judged at once, and again before it is heard. Of aiohttp's private names
    it relies on `_waiter`, which is set while it waits for a request, and `_current_request`, which it serves.
    """

    __slots__ = ("_deadline", "_is_told", "_rpc", "_seat")

    def __init__(self, rpc: RpcServer, server: web.Server, seat: Seat, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(
            server,
            loop=loop,
            access_log=None,  # type: ignore[arg-type]  # None turns it off
            auto_decompress=False,  # a small body must not become a large one
            keepalive_timeout=_IDLE_SECONDS,
            lingering_time=0,  # of a request that is refused nothing more is read
        )
        self._rpc = rpc
        self._seat = seat
        self._deadline: asyncio.TimerHandle | None = None  # of one that is no member's
        self._is_told = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        # Not `close`: a peer that does not answer would hold it for longer.
        self._seat.end = cast(asyncio.Transport, transport).abort
        self._rpc.connections.add(self)
        self._be_stranger()
        self.judge()

    def judge(self) -> None:
        """By what this node knows now: a stranger may have become a member since, and a member a stranger."""
        if self.transport is None or self._is_told:
            return
        peer, reason = self._rpc.judged(self.transport)
        if reason is not None:
            if self._deadline is None:
                self._be_no_member_any_more()
        elif self._deadline is not None:
            self._be_member(peer)

    def _be_no_member_any_more(self) -> None:
        """Removed, or under another key by now: the connection ends at once, and what it has asked for as a member is
        the last that it is answered. It may have asked to be removed.
        """
        if self._current_request is None:
            self._seat.end()
            return
        self._be_stranger()
        self.close()

    def _be_stranger(self) -> None:
        # Whatever it sends, and however slowly: it gives way to whoever comes next, who may be a member.
        self._seat.settle(lambda: True)
        # What it has asked for as a member is still answered: it may have asked to be removed.
        seconds = _STRANGER_SECONDS if self._current_request is None else _MAX_WAIT_SECONDS
        self._deadline = self._loop.call_later(seconds, self._seat.end)

    def _be_member(self, name: str) -> None:
        self._end_deadline()
        self._seat.settle(lambda: self._waiter is not None and not self._waiter.done())
        if not self._seat.move(self._rpc.seats.members, name):
            self._seat.end()

    def data_received(self, data: bytes) -> None:
        if self._deadline is not None:
            self.judge()
        if self._deadline is None:
            super().data_received(data)
        elif not self._is_told:
            self._refuse()

    def _refuse(self) -> None:
        """Whatever it asks: nothing of it is parsed, and what follows is not read."""
        transport = self.transport
        if transport is None or transport.is_closing():
            return
        self._is_told = True
        transport.pause_reading()
        peer, reason = self._rpc.judged(transport)
        self._rpc.note_refused(transport, peer, reason or "")
        transport.write(_bare_refusal(reason or ""))
        self._end_deadline()
        self._deadline = self._loop.call_later(_TOLD_SECONDS, self._seat.end)

    def _end_deadline(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def connection_lost(self, exc: BaseException | None) -> None:
        self._rpc.connections.discard(self)
        self._seat.leave()
        self._end_deadline()
        super().connection_lost(exc)


def _bare_refusal(text: str) -> bytes:
    """To whoever is not asked what it wants."""
    head = f"HTTP/1.1 403 Forbidden\r\n{VERSION_HEADER}: {VERSION}\r\nContent-Type: text/plain; charset=utf-8\r\n"
    body = text.encode()
    return f"{head}Content-Length: {len(body)}\r\nConnection: close\r\n\r\n".encode() + body


def _refused(status: int, text: str, *, is_last: bool = False) -> web.Response:
    """With the version that this node speaks: whoever asked in one that is too old asks again in a newer one, on the
    same connection unless `is_last`.
    """
    response = web.Response(status=status, text=text, headers=_SPEAKS)
    if is_last:
        response.force_close()
    return response


def _version_of(request: web.Request) -> int | None:
    """Of the form that the body has; None for one that this node does not speak."""
    given = request.headers.get(VERSION_HEADER, "1")
    return int(given) if given in _VERSIONS else None


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
