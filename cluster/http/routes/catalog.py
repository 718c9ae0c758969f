"""/v1/catalog: of Consul's catalogue, only what this is part of."""

from typing import Final

from aiohttp import web

from cluster.http.context import Api, Route
from cluster.http.gate import Open
from cluster.http.query import Query
from cluster.http.render import json_response


async def get_datacenters(api: Api, _request: web.Request, query: Query) -> web.Response:
    return json_response([api.service.config.datacenter], query)


ROUTES: Final = (
    Route(("GET",), "/v1/catalog/datacenters", Open("names of datacenters, as in Consul"), get_datacenters),
)
