"""/v1/status: who leads, and who is in the cluster, as this node knows it. Never waits for anything."""

from typing import Final

from aiohttp import web

from cluster.http.context import Api, Route
from cluster.http.gate import Open
from cluster.http.query import Query
from cluster.http.render import json_response


async def get_leader(api: Api, _request: web.Request, query: Query) -> web.Response:
    return json_response(api.service.servers.leader_address(), query)


async def get_peers(api: Api, _request: web.Request, query: Query) -> web.Response:
    return json_response(list(api.service.servers.peer_addresses()), query)


ROUTES: Final = (
    Route(("GET",), "/v1/status/leader", Open("where the cluster is, for clients that look for it"), get_leader),
    Route(("GET",), "/v1/status/peers", Open("where the cluster is, for clients that look for it"), get_peers),
)
