"""/v1/operator: the servers of the cluster, their health, and changes to who they are."""

from importlib.metadata import version
from typing import Final

from aiohttp import web

from cluster.api.access import OPERATOR_READ, OPERATOR_WRITE
from cluster.api.servers import ServerInfo
from cluster.base.clock import rfc3339
from cluster.base.errors import BadRequest
from cluster.base.names import is_address, is_node_name
from cluster.http.blocking import query_options
from cluster.http.body import Fields, decode_object, read_body, text_field
from cluster.http.context import Api, Route
from cluster.http.errors import read_status
from cluster.http.gate import Needs, caller_of
from cluster.http.query import Query, require_length, shown
from cluster.http.render import empty_response, json_response
from providers.config.durations import MILLISECOND, format_duration

_PROTOCOL_VERSION: Final = "3"
_VERSION: Final = version("quorumca")
#: Longer than the name or address of any server.
_MAX_PARAMETER: Final = 512


async def get_configuration(api: Api, _request: web.Request, query: Query) -> web.Response:
    info = await api.service.servers.cluster(query_options(query).level)
    servers = [
        {
            "ID": server.name,
            "Node": server.name,
            "Address": server.raft_address,
            "RPC": server.rpc_address,
            "Leader": server.is_leader,
            "ProtocolVersion": _PROTOCOL_VERSION,
            "Voter": server.is_voter,
            "LastIndex": server.last_index,
        }
        for server in info.servers
    ]
    return json_response({"Servers": servers, "Index": info.log_index}, query)


async def get_health(api: Api, _request: web.Request, query: Query) -> web.Response:
    """Consul answers 429 when the cluster is not healthy, with the same body."""
    info = await api.service.servers.cluster(query_options(query).level)
    body = {
        "Healthy": info.is_healthy,
        "FailureTolerance": info.failure_tolerance,
        "Servers": [_health_object(server) for server in info.servers],
    }
    return json_response(body, query, status=200 if info.is_healthy else 429)


async def transfer_leader(api: Api, request: web.Request, query: Query) -> web.Response:
    await api.service.servers.transfer_leader(caller_of(request), _parameter(query, "id"))
    return json_response({"Success": True}, query)


async def add_peer(api: Api, request: web.Request, _query: Query) -> web.Response:
    fields = decode_object(await read_body(request))
    name = text_field(fields, "ID")
    if not is_node_name(name):
        raise BadRequest(f"ID = {shown(name)}: must be a node name: lower-case letters, digits and inner hyphens")
    raft_address, rpc_address = _address_field(fields, "Address"), _address_field(fields, "RPC")
    await api.service.servers.add_peer(caller_of(request), name, raft_address, rpc_address)
    return empty_response()


async def remove_peer(api: Api, request: web.Request, query: Query) -> web.Response:
    name, address = _parameter(query, "id"), _parameter(query, "address")
    if name is None and address is None:
        raise BadRequest("Must specify either ?id with the server's ID or ?address with IP:port of peer to remove")
    if name is not None and address is not None:
        raise BadRequest("Must specify only one of ?id or ?address")
    await api.service.servers.remove_peer(caller_of(request), name, address)
    return empty_response()


async def get_digest(api: Api, _request: web.Request, query: Query) -> web.Response:
    digest = await api.service.facts.digest()
    body = {
        "AppliedIndex": digest.applied_index,
        "StateDigest": digest.state_digest,
        "LedgerCount": digest.ledger_count,
        "LedgerDigest": digest.ledger_digest,
    }
    return json_response(body, query)


ROUTES: Final = (
    Route(("GET",), "/v1/operator/raft/configuration", Needs(OPERATOR_READ), get_configuration, status_of=read_status),
    Route(
        ("POST", "PUT"), "/v1/operator/raft/transfer-leader", Needs(OPERATOR_WRITE), transfer_leader, logs_success=True
    ),
    Route(("PUT",), "/v1/operator/raft/peer", Needs(OPERATOR_WRITE), add_peer, logs_success=True),
    Route(("DELETE",), "/v1/operator/raft/peer", Needs(OPERATOR_WRITE), remove_peer, logs_success=True),
    Route(("GET",), "/v1/operator/autopilot/health", Needs(OPERATOR_READ), get_health, status_of=read_status),
    Route(("GET",), "/v1/operator/digest", Needs(OPERATOR_READ), get_digest),
)


def _health_object(server: ServerInfo) -> dict[str, object]:
    contact = server.last_contact_ms
    return {
        "ID": server.name,
        "Name": server.name,
        "Address": server.raft_address,
        "SerfStatus": "alive" if server.is_healthy else "failed",
        "Version": _VERSION,
        "Leader": server.is_leader,
        # Consul's client reads a duration or null, and nothing else.
        "LastContact": None if contact is None else format_duration(contact * MILLISECOND),
        "LastTerm": server.last_term,
        "LastIndex": server.last_index,
        "Healthy": server.is_healthy,
        "Voter": server.is_voter,
        "StableSince": rfc3339(server.stable_since),
    }


def _address_field(fields: Fields, name: str) -> str:
    value = text_field(fields, name)
    if not is_address(value):
        raise BadRequest(f"{name} = {shown(value)}: must be host:port with a port from 1 to 65535")
    return value


def _parameter(query: Query, name: str) -> str | None:
    """Raises: BadRequest."""
    value = query.get(name, "")
    require_length(value, f"?{name}", _MAX_PARAMETER)
    return value or None
