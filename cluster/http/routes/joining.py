"""/v1/operator/agent-ca and /v1/operator/join-token: how servers come to their certificates."""

from typing import Final

from aiohttp import web

from cluster.api.access import OPERATOR_READ, SERVER_CERTIFICATES
from cluster.api.joining import AgentCAInfo, JoinTokenWanted
from cluster.base.clock import rfc3339
from cluster.base.errors import BadRequest, NotFound
from cluster.base.names import is_address, is_node_name
from cluster.http.body import (
    Fields,
    bool_field,
    decode_object,
    duration_field,
    read_body,
    refuse_other_fields,
    text_field,
)
from cluster.http.context import Api, Route
from cluster.http.gate import Needs, caller_of
from cluster.http.query import Query, shown
from cluster.http.render import NO_STORE, empty_response, json_response
from fsm.nodes import LEAST_TTL_SECONDS, MOST_TTL_SECONDS
from providers.config.durations import SECOND, format_duration

_CA_FIELDS: Final = ("Certificate", "PrivateKey", "NodeCertTTL")
_TOKEN_FIELDS: Final = ("Name", "Address", "RPC", "TTL", "Rejoin", "Force")
_DEFAULT_TTL: Final = 72 * 3600 * SECOND
_DEFAULT_TOKEN_TTL: Final = 15 * 60 * SECOND
_LEAST_TOKEN_TTL: Final = 60 * SECOND
_MOST_TOKEN_TTL: Final = 3600 * SECOND


async def get_agent_ca(api: Api, _request: web.Request, query: Query) -> web.Response:
    info = await api.service.joining.agent_ca()
    if info is None:
        raise NotFound("the cluster has not been given the agent CA: see `quorumca operator agent-ca`")
    return json_response(_ca_object(info), query)


async def put_agent_ca(api: Api, request: web.Request, _query: Query) -> web.Response:
    fields = decode_object(await read_body(request))
    refuse_other_fields(fields, _CA_FIELDS, "the agent CA")
    cert_pem, key_pem = text_field(fields, "Certificate"), _secret_field(fields, "PrivateKey")
    if not cert_pem or not key_pem:
        raise BadRequest("Certificate and PrivateKey must be given together, each as PEM")
    ttl = duration_field(fields, "NodeCertTTL", LEAST_TTL_SECONDS * SECOND, MOST_TTL_SECONDS * SECOND)
    await api.service.joining.set_agent_ca(caller_of(request), cert_pem, key_pem, (ttl or _DEFAULT_TTL) // SECOND)
    return empty_response()


async def delete_agent_ca(api: Api, request: web.Request, _query: Query) -> web.Response:
    await api.service.joining.set_agent_ca(caller_of(request), "", "", 0)
    return empty_response()


async def put_join_token(api: Api, request: web.Request, query: Query) -> web.Response:
    fields = decode_object(await read_body(request))
    refuse_other_fields(fields, _TOKEN_FIELDS, "a join token")
    name = text_field(fields, "Name")
    if not is_node_name(name):
        raise BadRequest(f"Name = {shown(name)}: must be a node name: lower-case letters, digits and inner hyphens")
    ttl = duration_field(fields, "TTL", _LEAST_TOKEN_TTL, _MOST_TOKEN_TTL)
    is_rejoin, is_forced = bool_field(fields, "Rejoin"), bool_field(fields, "Force")
    if is_forced and not is_rejoin:
        raise BadRequest("Force = true is of use with Rejoin only")
    wanted = JoinTokenWanted(
        name,
        _address_field(fields, "Address", may_lack=is_rejoin),
        _address_field(fields, "RPC", may_lack=is_rejoin),
        (ttl or _DEFAULT_TOKEN_TTL) // SECOND,
        is_rejoin,
        is_forced,
    )
    token = await api.service.joining.new_join_token(caller_of(request), wanted)
    section = api.service.config
    body = {
        "Token": token.secret,
        "Name": name,
        "ExpirationTime": rfc3339(token.expires_at),
        "CAFingerprint": token.fingerprint,
        # Of this node: where the machine may ask. Empty: this node has no join.address.
        "JoinAddress": section.join.advertise or section.join.address or "",
        "Datacenter": section.datacenter,
        "Domain": section.tls.domain,
    }
    return json_response(body, query, NO_STORE)


ROUTES: Final = (
    Route(("GET",), "/v1/operator/agent-ca", Needs(OPERATOR_READ), get_agent_ca),
    Route(
        ("PUT",), "/v1/operator/agent-ca", Needs(SERVER_CERTIFICATES), put_agent_ca, logs_success=True, is_private=True
    ),
    Route(("DELETE",), "/v1/operator/agent-ca", Needs(SERVER_CERTIFICATES), delete_agent_ca, logs_success=True),
    Route(
        ("POST", "PUT"),
        "/v1/operator/join-token",
        Needs(SERVER_CERTIFICATES),
        put_join_token,
        logs_success=True,
        is_private=True,
    ),
)


def _ca_object(info: AgentCAInfo) -> dict[str, object]:
    return {
        "Certificate": info.cert_pem,
        "Fingerprint": info.fingerprint,
        "NodeCertTTL": format_duration(info.cert_ttl_seconds * SECOND),
        "SetTime": rfc3339(info.set_at),
    }


def _secret_field(fields: Fields, name: str) -> str:
    """Its value is never shown."""
    value = fields.get(name.lower(), "")
    if not isinstance(value, str):
        raise BadRequest(f"{name} must be a string")
    return value


def _address_field(fields: Fields, name: str, *, may_lack: bool) -> str:
    """host:port, or empty: a server that comes back is where it was."""
    value = text_field(fields, name)
    if (value or not may_lack) and not is_address(value):
        raise BadRequest(f"{name} = {shown(value)}: must be host:port with a port from 1 to 65535")
    return value
