"""/v1/operator/seal: which seal key the servers have, and the change of it."""

from typing import Final

from aiohttp import web

from cluster.api.access import OPERATOR_READ, OPERATOR_WRITE
from cluster.api.seals import NodeSeal
from cluster.http.body import bool_field, decode_object, read_body
from cluster.http.context import Api, Route
from cluster.http.gate import Needs, caller_of
from cluster.http.query import Query
from cluster.http.render import json_response

_ALIASES: Final = {"keep_key": "keepkey"}


async def get_seal(api: Api, _request: web.Request, query: Query) -> web.Response:
    return json_response(await _status(api), query)


async def put_seal(api: Api, request: web.Request, query: Query) -> web.Response:
    fields = decode_object(await read_body(request), _ALIASES)
    await api.service.seals.rotate_seal(caller_of(request), keeps_key=bool_field(fields, "KeepKey"))
    return json_response(await _status(api), query)


ROUTES: Final = (
    Route(("GET",), "/v1/operator/seal", Needs(OPERATOR_READ), get_seal),
    Route(("PUT",), "/v1/operator/seal", Needs(OPERATOR_WRITE), put_seal, logs_success=True),
)


async def _status(api: Api) -> dict[str, object]:
    nodes = await api.service.seals.seal_status()
    return {"Settled": all(node.is_settled for node in nodes), "Nodes": [_node_object(node) for node in nodes]}


def _node_object(node: NodeSeal) -> dict[str, object]:
    return {
        "Node": node.node,
        "Source": node.source,
        "KeyID": node.key_id,
        "SealID": node.seal_id,
        "Settled": node.is_settled,
        "ToDo": node.to_do,
    }
