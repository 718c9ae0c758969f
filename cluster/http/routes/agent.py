"""/v1/agent: what this node does for the services on its host, and what it says about itself."""

import asyncio
import math
import uuid
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any, Final

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest

from cluster.api.access import AGENT_READ, AGENT_WRITE, NODE_READ, SERVICE_WRITE
from cluster.api.reads import ReadLevel, ReadPoint, Watch
from cluster.api.servers import ClusterInfo, ServerInfo
from cluster.base.errors import BadRequest, InternalError, NoLeader, NotReady
from cluster.http.blocking import (
    MAX_WAIT_SECONDS,
    QueryOptions,
    check_cache_control,
    point_headers,
    query_headers,
    query_options,
)
from cluster.http.body import decode_object, read_body, secret_field, text_field
from cluster.http.context import Api, Route, counted, requester
from cluster.http.errors import leaf_status
from cluster.http.gate import Inside, Needs, Open, caller_of, filtered, needs_while_waiting
from cluster.http.query import Query
from cluster.http.render import body_response, empty_response, issued_cert, json_response
from cluster.http.routes.roots import require_config, require_connect, roots_object
from providers.pki.spiffe import Kind, SpiffeError, parse

#: How long roots wait for a leader to prove them fresh, and members for what it knows of them; then what this node
#: has is better than nothing.
_FRESHNESS_SECONDS: Final = 1.0
_VERSION: Final = version("quorumca")
#: Statuses of a member (serf.MemberStatus), as Consul's clients know them.
_UNKNOWN: Final = 0
_ALIVE: Final = 1
_FAILED: Final = 4
#: Of gossip, which is not spoken here.
_PROTOCOLS: Final = ("ProtocolMin", "ProtocolMax", "ProtocolCur", "DelegateMin", "DelegateMax", "DelegateCur")
_ALL_SEGMENTS: Final = "_all"
_HIT: Final = {"X-Cache": "HIT", "Age": "0"}


async def get_roots(api: Api, request: web.Request, query: Query) -> web.Response:
    options = query_options(query)
    check_cache_control(request)
    require_connect(api)
    point = await _roots_point(api, request, options)
    require_config(point.state)
    headers = point_headers(point, point.state.roots_watch_index, options) | _HIT
    return json_response(roots_object(point.state), query, headers)


async def get_leaf(api: Api, request: web.Request, query: Query) -> web.Response:
    options = query_options(query)
    check_cache_control(request)
    require_connect(api)
    name = request.match_info["service"]
    if not name:
        raise InternalError("URI must be either service, agent, server, or kind")
    caller = caller_of(request)
    if options.index:
        needs_while_waiting(request, SERVICE_WRITE, name)
        timeout = options.timeout(api.rng, MAX_WAIT_SECONDS)
        leaf = await api.waiters.wait(
            request,
            lambda: api.service.leaves.leaf(
                caller, name, requester(request), index=options.index, timeout_seconds=timeout
            ),
        )
    else:
        leaf = await api.service.leaves.leaf(caller, name, requester(request))
    headers = query_headers(
        leaf.cert.index, options.consistency, has_leader=bool(api.service.servers.leader_address()), last_contact_ms=0
    )
    headers["X-Cache"] = "HIT" if leaf.is_hit else "MISS"
    if leaf.is_hit:
        headers["Age"] = str(max(0, leaf.age_seconds))
    return json_response(issued_cert(leaf.cert, leaf.private_key_pem), query, headers)


@counted
async def authorize(api: Api, request: web.Request, query: Query) -> web.Response:
    """There are no intentions, so what decides is the default policy."""
    require_connect(api)
    fields = decode_object(await read_body(request))
    client_uri = text_field(fields, "ClientCertURI")
    text_field(fields, "ClientCertSerial")  # Consul does not use it either
    target = text_field(fields, "Target")
    if not target:
        raise BadRequest("Target service must be specified")
    caller_of(request).require(SERVICE_WRITE, target)
    try:
        client = parse(client_uri)
    except SpiffeError:
        raise BadRequest("ClientCertURI not a valid Connect identifier") from None
    if client.kind is not Kind.SERVICE:
        raise BadRequest("ClientCertURI not a valid Service identifier")
    is_authorized = api.service.access.allows_by_default
    return json_response({"Authorized": is_authorized, "Reason": "Default behavior configured by ACLs"}, query, _HIT)


async def get_self(api: Api, _request: web.Request, query: Query) -> web.Response:
    """Exactly these keys, in this order: py-consul's tests look. Nothing here is secret."""
    config = api.service.config
    body = {
        "Config": {
            "Datacenter": config.datacenter,
            "PrimaryDatacenter": config.datacenter,
            "NodeName": config.node_name,
            "NodeID": config.node_name,
            "Revision": "",
            "Server": True,
            "Version": _VERSION,
            "BuildDate": "1970-01-01T00:00:00Z",
        },
        "DebugConfig": {
            "Datacenter": config.datacenter,
            "NodeName": config.node_name,
            "ConnectEnabled": config.connect.enabled,
            "HTTPAddress": config.http.address,
            "HTTPUsesTLS": config.http.tls_cert is not None,
            "HTTPMaxConnections": config.http.max_connections,
            "RaftAddress": config.raft_address,
            "RPCAddress": config.rpc_address,
            "TLSRenews": config.tls.renew,
            "LogLevel": config.log.level,
            "ACLInitialManagementFile": config.acl.initial_management_file is not None,
            "ACLAgentRecoveryTokenSet": api.service.access.has_recovery_token,
            "ACLDefaultPolicy": "allow" if config.allows_by_default else "deny",
        },
        "Coord": None,
        "Member": _member(api, config.node_name, config.raft_address, _ALIVE),
        "Stats": {group: dict(facts) for group, facts in api.service.facts.stats().items()},
        "Meta": {},
        # There are no xDS ports; -1 is how Consul says so.
        "xDS": {"SupportedProxies": {}, "Port": -1, "Ports": {"Plaintext": -1, "TLS": -1}},
    }
    return json_response(body, query)


async def get_members(api: Api, request: web.Request, query: Query) -> web.Response:
    """The servers that the caller may read. There is no gossip: what the leader knows of them takes its place. Servers
    of other datacenters, which ?wan asks for, there are none.
    """
    segment = query.get("segment", "")
    if query.get("wan") and segment not in ("", _ALL_SEGMENTS):
        raise BadRequest("Cannot provide a segment with wan=true")
    caller, servers = caller_of(request), (await _servers(api)).servers
    if segment not in ("", _ALL_SEGMENTS):
        servers = ()  # segments are Consul's for networks that gossip apart
    seen = [server for server in servers if caller.may(NODE_READ, server.name)]
    members = [_server_member(api, server) for server in seen]
    return json_response(members, query, filtered(caller, is_shorter=len(seen) < len(servers)))


async def get_metrics(api: Api, _request: web.Request, query: Query) -> web.Response:
    registry = api.service.metrics.registry
    match query.get("format", ""):
        case "prometheus":
            return body_response(generate_latest(registry), CONTENT_TYPE_LATEST)
        case "" | "json":
            now = datetime.fromtimestamp(int(api.clock.now()), UTC)
            return json_response({"Timestamp": f"{now:%Y-%m-%d %H:%M:%S} +0000 UTC"} | _metric_lists(registry), query)
        case _:
            raise BadRequest("Unsupported metrics format: allowed are json and prometheus")


def _is_uuid(text: str) -> bool:
    try:
        return str(uuid.UUID(text)) == text.lower()
    except ValueError:
        return False


async def put_token(api: Api, request: web.Request, _query: Query) -> web.Response:
    fields = decode_object(await read_body(request))
    secret_id = secret_field(fields, "Token")
    if secret_id and not _is_uuid(secret_id):
        # The name of its file, perhaps: nobody would ever be let in with that.
        raise BadRequest("Token is not allowed: must be a SecretID, which is a UUID, or empty to take one away")
    api.service.access.put_agent_token(request.match_info["kind"], secret_id, caller_of(request))
    return empty_response()


ROUTES: Final = (
    Route(
        ("PUT",),
        "/v1/agent/token/{kind}",
        Needs(AGENT_WRITE, is_on_this_node=True),
        put_token,
        logs_success=True,
        is_private=True,
    ),
    Route(
        ("GET",), "/v1/agent/connect/ca/roots", Open("roots are what everybody must have to trust the mesh"), get_roots
    ),
    Route(
        ("GET",),
        "/v1/agent/connect/ca/leaf/{service:.*}",
        Inside("Leaves.leaf judges before it looks into its cache"),
        get_leaf,
        status_of=leaf_status,
        is_private=True,
        changes_on_get=True,
    ),
    Route(
        ("POST", "PUT"), "/v1/agent/connect/authorize", Inside("the target is in the body", (SERVICE_WRITE,)), authorize
    ),
    Route(("GET",), "/v1/agent/members", Inside("shows the servers that the caller may read"), get_members),
    Route(("GET",), "/v1/agent/self", Needs(AGENT_READ, is_on_this_node=True), get_self),
    Route(("GET",), "/v1/agent/metrics", Needs(AGENT_READ, is_on_this_node=True), get_metrics),
)


async def _roots_point(api: Api, request: web.Request, options: QueryOptions) -> ReadPoint:
    """Fresh where a leader can say so; else what this node has (Consul's agents fail open here, too)."""
    if options.index:
        timeout = options.timeout(api.rng)
        return await api.waiters.wait(
            request,
            lambda: api.service.reads.watch(ReadLevel.STALE, options.index, Watch.ROOTS, timeout),
        )
    if options.level is ReadLevel.LINEARIZABLE and not options.is_cached:
        try:
            async with asyncio.timeout(_FRESHNESS_SECONDS):
                return await api.service.reads.read(ReadLevel.LINEARIZABLE)
        except (NoLeader, NotReady, TimeoutError):
            pass
    return await api.service.reads.read(ReadLevel.STALE)


async def _servers(api: Api) -> ClusterInfo:
    """As the leader sees them; as this node does, where no leader says so."""
    try:
        async with asyncio.timeout(_FRESHNESS_SECONDS):
            return await api.service.servers.cluster(ReadLevel.LINEARIZABLE)
    except (NoLeader, NotReady, TimeoutError):
        return await api.service.servers.cluster(ReadLevel.STALE)


def _server_member(api: Api, server: ServerInfo) -> dict[str, Any]:
    silent = _UNKNOWN if server.last_contact_ms is None else _FAILED
    return _member(api, server.name, server.raft_address, _ALIVE if server.is_healthy else silent)


def _member(api: Api, name: str, raft_address: str, status: int) -> dict[str, Any]:
    """As Consul shows a member of its gossip pool."""
    host, _, port = raft_address.rpartition(":")
    return {
        "Name": name,
        "Addr": host.strip("[]"),
        "Port": int(port),
        "Tags": {"dc": api.service.config.datacenter, "role": "quorumca", "build": _VERSION},
        "Status": status,
        **dict.fromkeys(_PROTOCOLS, 0),
    }


def _metric_lists(registry: CollectorRegistry) -> dict[str, list[dict[str, Any]]]:
    """Consul's form. Values are totals since the start, where Consul's are of the last ten seconds."""
    gauges: list[dict[str, Any]] = []
    counters: list[dict[str, Any]] = []
    samples: list[dict[str, Any]] = []
    for family in registry.collect():
        match family.type:
            case "gauge":
                gauges += [{"Name": s.name, "Value": _finite(s.value), "Labels": s.labels} for s in family.samples]
            case "counter":
                counters += [
                    {"Name": family.name, "Count": int(s.value), "Sum": s.value, "Labels": s.labels}
                    for s in family.samples
                    if s.name.endswith("_total")
                ]
            case "histogram":
                sums = [s for s in family.samples if s.name.endswith("_sum")]
                counts = [s for s in family.samples if s.name.endswith("_count")]
                samples += [
                    {
                        "Name": family.name,
                        "Count": int(count.value),
                        "Sum": total.value,
                        "Mean": total.value / count.value if count.value else 0.0,
                        "Labels": count.labels,
                    }
                    for total, count in zip(sums, counts, strict=True)
                ]
    return {"Gauges": gauges, "Points": [], "Counters": counters, "Samples": samples}


def _finite(value: float) -> float:
    """JSON has no other numbers."""
    return value if math.isfinite(value) else 0.0
