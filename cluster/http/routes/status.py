"""/v1/status: who leads, and who is in the cluster, as this node knows it. Never waits for anything."""

from typing import Final

from aiohttp import web

from cluster.api.reads import ReadLevel
from cluster.base.errors import NoLeader, NotReady
from cluster.http.context import Api, Route
from cluster.http.gate import Open
from cluster.http.query import Query
from cluster.http.render import json_response, text_response


async def get_leader(api: Api, _request: web.Request, query: Query) -> web.Response:
    return json_response(api.service.servers.leader_address(), query)


async def get_peers(api: Api, _request: web.Request, query: Query) -> web.Response:
    return json_response(list(api.service.servers.peer_addresses()), query)


async def get_live(_api: Api, _request: web.Request, _query: Query) -> web.Response:
    return text_response("alive\n")


async def get_ready(api: Api, _request: web.Request, _query: Query) -> web.Response:
    """Whether requests are of use here now; a node that is not ready need not be restarted."""
    point = await api.service.reads.read(ReadLevel.STALE)
    if not point.has_leader:
        raise NoLeader("not ready: no leader is known")
    if point.state.active_root is None:
        raise NotReady("not ready: there is no CA yet")
    return text_response("ready\n")


#: With HEAD, as some probe, all but the body is as with GET.
_PROBES: Final = Open("probes have no token; what is said is one word of this node")

ROUTES: Final = (
    Route(("GET", "HEAD"), "/v1/status/live", _PROBES, get_live),
    Route(("GET", "HEAD"), "/v1/status/ready", _PROBES, get_ready, quiet_statuses=(503,)),
    Route(("GET",), "/v1/status/leader", Open("where the cluster is, for clients that look for it"), get_leader),
    Route(("GET",), "/v1/status/peers", Open("where the cluster is, for clients that look for it"), get_peers),
)
