"""The RPC port: other nodes' requests to the leader, HTTP over mutual TLS 1.3, msgpack bodies.

Nothing is looked at before the handshake has proved a server of this cluster; a server that was removed from it gets
nowhere. One hop: a node that does not lead says so and forwards nothing.
"""

import asyncio
from typing import Any, Final

import msgpack
from aiohttp import web

from cluster.base.errors import ClusterError, CommitUnknown, NotLeader
from cluster.base.log import Log
from cluster.base.telemetry import Metrics
from cluster.base.wire import pack_error
from cluster.raft.replica import Replica
from cluster.rpc.client import RPC_PATH
from cluster.rpc.forward import MAX_RPC_BYTES, Operations
from cluster.tls.contexts import NodeTls

_MAX_WAIT_SECONDS: Final = 120.0
_STOP_SECONDS: Final = 5.0


class RpcServer:
    """Made by `start`."""

    def __init__(self, replica: Replica, operations: Operations, tls: NodeTls, log: Log, metrics: Metrics) -> None:
        self._replica = replica
        self._operations = operations
        self._tls = tls
        self._log = log
        self._metrics = metrics
        self._runner: web.AppRunner | None = None

    async def start(self, address: str) -> None:
        """Raises: OSError when the address cannot be had."""
        app = web.Application(client_max_size=MAX_RPC_BYTES)
        app.router.add_post(RPC_PATH + "{operation}", self._handle)
        self._runner = web.AppRunner(app, access_log=None, handle_signals=False, shutdown_timeout=_STOP_SECONDS)
        await self._runner.setup()
        host, _, port = address.rpartition(":")
        site = web.TCPSite(self._runner, host.strip("[]"), int(port), ssl_context=self._tls.server_context)
        await site.start()

    async def stop(self) -> None:
        if self._runner is not None:
            await self._runner.cleanup()

    async def _handle(self, request: web.Request) -> web.Response:
        assert request.transport is not None
        peer = self._tls.peer_name(request.transport.get_extra_info("peercert"))
        operation = request.match_info["operation"]
        if peer is None or peer not in self._replica.members:
            self._log("rpc.refused", peer=peer, operation=operation, reason="no server of this cluster")
            return web.Response(status=403, text="no server of this cluster")
        try:
            milliseconds, arguments = msgpack.unpackb(await request.read())
            if type(milliseconds) is not int or type(arguments) is not list:
                raise ValueError
        except (ValueError, TypeError, msgpack.UnpackException):
            return web.Response(status=400, text="not a request of this protocol")
        outcomes = await self._run(operation, arguments, min(milliseconds / 1000, _MAX_WAIT_SECONDS))
        self._metrics.rpc_requests.labels(operation, "ok").inc(len(outcomes))
        return web.Response(body=msgpack.packb(outcomes))

    async def _run(self, operation: str, arguments: list[Any], seconds: float) -> list[list[Any]]:
        if self._operations.needs_leader(operation) and not self._replica.leadership.is_ready:
            return [[pack_error(NotLeader("this node does not lead"), ""), None] for _ in arguments]
        tasks = [asyncio.ensure_future(self._operations.run(operation, argument)) for argument in arguments]
        if tasks:
            await asyncio.wait(tasks, timeout=seconds)
        return [_outcome(task) for task in tasks]


def _outcome(task: "asyncio.Future[Any]") -> list[Any]:
    if not task.done():
        task.cancel()
        late: ClusterError = CommitUnknown("the leader did not finish in time; it may have taken effect")
        return [pack_error(late, ""), None]
    error = task.exception()
    return [None, task.result()] if error is None else [pack_error(error, "on the leader"), None]
