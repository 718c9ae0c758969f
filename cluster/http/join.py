"""The join port: where a machine without a certificate asks to become a server (`quorumca join`).

The only port between machines that asks nobody for a certificate, so it is open only where `join.address` says so, and
there is nothing else on it: the agent CAs, which are no secret, and one question, which is as good as the proof that
comes with it. The machine knows the fingerprint of the agent CA, has the CA here, and asks only after a second
handshake has proved a server by it, and by what is good for this server only. The token never comes here.
"""

import asyncio
import ssl
from contextlib import suppress
from typing import Final, cast

from aiohttp import web

from cluster.api.joining import Founder, JoinAsk, Joined, Joining
from cluster.base.errors import BadRequest
from cluster.base.listener import Accepting, Listener, listen
from cluster.base.log import Log
from cluster.base.seats import Caps, Seats
from cluster.base.telemetry import Metrics
from cluster.http.body import Fields, decode_object, read_body, refuse_other_fields, text_field
from cluster.http.connection import Connection, Door
from cluster.http.errors import NotAllowed, NotFoundPath, error_response
from cluster.http.failures import Failures
from cluster.http.render import NO_STORE, json_response, text_response
from cluster.tls.join_proof import PROOF_BYTES, SERVER_KEY_BYTES
from providers.pki.csr import MAX_CSR_BYTES

CA_PATH: Final = "/v1/join/ca"
JOIN_PATH: Final = "/v1/join"
_CAPS: Final = Caps(32, 8)
_HANDSHAKE_SECONDS: Final = 5.0
_HEAD_SECONDS: Final = 10.0
_STOP_SECONDS: Final = 5.0
_FIELDS: Final = ("Name", "Address", "RPC", "CSR", "ServerKey", "Proof")
#: Of a name and an address, which are judged where they are used.
_MAX_TEXT: Final = 512
_METHODS: Final = {CA_PATH: "GET", JOIN_PATH: "POST"}


class JoinServer:
    """The running listener."""

    def __init__(self, server: web.Server, listener: Listener) -> None:
        self._server = server
        self._listener = listener

    async def stop(self) -> None:
        self._listener.close()
        with suppress(TimeoutError):
            await self._server.shutdown(_STOP_SECONDS)


async def start_join(address: str, joining: Joining, context: ssl.SSLContext, log: Log, metrics: Metrics) -> JoinServer:
    """Raises: OSError when the address cannot be bound."""
    seats, failures = Seats(_CAPS, metrics.turned_away("join", log)), Failures(log)
    metrics.connections.labels("join").set_function(lambda: seats.taken)

    def refused(status: int, text: str, remote: str) -> None:
        if status != 503:
            failures.say(status, remote, method="", route="join", detail=text, ms=0.0)

    door = Door(seats, log, refused, head_seconds=_HEAD_SECONDS, is_tls=True)
    server = web.Server(_Handler(joining, failures, log))
    loop = asyncio.get_running_loop()
    accepting = Accepting(lambda seat: Connection(server, door, seat, loop), seats, context, _HANDSHAKE_SECONDS)
    return JoinServer(server, await listen(address, accepting))


class _Handler:
    def __init__(self, joining: Joining, failures: Failures, log: Log) -> None:
        self._joining = joining
        self._failures = failures
        self._log = log

    async def __call__(self, request: web.BaseRequest) -> web.StreamResponse:
        try:
            response = await self._answer(request)
        except Exception as error:
            response = error_response(error, "join", self._log)
            detail = str(error) if response.status < 500 else type(error).__name__
            self._failures.say(
                response.status, request.remote or "", route="join", method=request.method, detail=detail
            )
        # One question, one connection.
        response.force_close()
        return response

    async def _answer(self, request: web.BaseRequest) -> web.Response:
        method = _METHODS.get(request.path)
        if method is None:
            raise NotFoundPath("there is nothing but joining on this port")
        if request.method != method:
            raise NotAllowed(request.method, method)
        if request.path == CA_PATH:
            return text_response(self._joining.ca_pem())
        joined = await self._joining.join(_ask(await read_body(cast(web.Request, request))))
        return json_response(_shown(joined), {}, NO_STORE)


def _ask(body: bytes) -> JoinAsk:
    """Raises: BadRequest."""
    fields = decode_object(body)
    refuse_other_fields(fields, _FIELDS, "joining")
    return JoinAsk(
        text_field(fields, "Name", _MAX_TEXT),
        text_field(fields, "Address", _MAX_TEXT),
        text_field(fields, "RPC", _MAX_TEXT),
        text_field(fields, "CSR", MAX_CSR_BYTES),
        _bytes_field(fields, "ServerKey", SERVER_KEY_BYTES),
        _bytes_field(fields, "Proof", PROOF_BYTES),
    )


def _bytes_field(fields: Fields, name: str, length: int) -> bytes:
    """Raises: BadRequest."""
    text = text_field(fields, name)
    try:
        value = bytes.fromhex(text)
    except ValueError:
        value = b""
    if len(value) != length or len(text) != 2 * length:
        raise BadRequest(f"{name} must be {length} bytes in hex")
    return value


def _shown(joined: Joined) -> dict[str, object]:
    return {
        "Certificate": joined.cert_pem,
        "CA": joined.ca_pem,
        "Founders": [_server(server) for server in joined.founders],
        "Members": [_server(server) for server in joined.members],
        "DefaultPolicy": joined.default_policy,
    }


def _server(server: Founder) -> dict[str, str]:
    return {"Name": server.name, "Address": server.raft_address, "RPC": server.rpc_address}
