"""GET /v1/openapi.json"""

from typing import Final

from aiohttp import web

from cluster.http.context import Api, Route
from cluster.http.gate import Open
from cluster.http.query import Query
from cluster.http.render import json_response


async def get_document(_api: Api, _request: web.Request, query: Query) -> web.Response:
    # Not before somebody asks: it is a megabyte of every node.
    from cluster.http.openapi.document import DOCUMENT

    return json_response(DOCUMENT, query)


ROUTES: Final = (Route(("GET",), "/v1/openapi.json", Open("what the API is, not what is in it"), get_document),)
