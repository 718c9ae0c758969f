"""/v1/acl: policies, roles, tokens, auth methods and binding rules, with Consul's paths and objects."""

import asyncio
import contextlib
import re
import uuid
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, TypeVar
from urllib.parse import unquote

from aiohttp import web

from cluster.access import render
from cluster.access.inputs import BootstrapInput, LoginInput, TokenInput, read_input
from cluster.access.writers import HIDDEN, find_token
from cluster.api.access import ACL_READ, ACL_WRITE
from cluster.api.acl import WrittenKey
from cluster.api.reads import WATCHED, ReadLevel, ReadPoint, Watch
from cluster.base.errors import BadRequest, NotFound, NotUnderstood, PermissionDenied
from cluster.http.blocking import QueryOptions, point_headers, query_options
from cluster.http.body import decode_object, read_body
from cluster.http.context import Api, Handler, Route, read_now, read_state, requester
from cluster.http.errors import NoToken, read_status
from cluster.http.gate import Inside, Needs, Open, RouteAccess, caller_of
from cluster.http.query import Query, refuse_divisions, shown
from cluster.http.render import json_response
from fsm.acl import Acl, AuthMethod, BindingRule, Policy, Token
from fsm.acl_rules import find

Json = dict[str, Any]
T = TypeVar("T")
_TOKENS: Final = "tokens"
_WATCHES: Final = {
    _TOKENS: Watch.TOKENS,
    "policies": Watch.POLICIES,
    "roles": Watch.ROLES,
    "methods": Watch.METHODS,
    "binding_rules": Watch.BINDING_RULES,
}
#: What Consul's texts call an object of each table, and what names one.
_KINDS: Final = {
    "policies": "Policy",
    "roles": "Role",
    "methods": "AuthMethod",
    "binding_rules": "BindingRule",
}
_MISSING: Final = {
    _TOKENS: "token AccessorID",
    "policies": "policy ID",
    "roles": "role ID",
    "methods": "auth method name",
    "binding_rules": "binding rule ID",
}
_BY_UUID: Final = {"policies": "Policy ID", "roles": "Role ID", "binding_rules": "Binding Rule ID"}
_UUID: Final = re.compile(r"[0-9A-Fa-f]{8}(-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}")
#: Longer than the name of anything.
_MAX_KEY: Final = 256
_NOTHING: Final = b"{}"
#: Of a query on tokens, one at a time.
_FILTERS: Final = ("policy", "role", "authmethod", "servicename")
_NEVER: Final = "0001-01-01T00:00:00Z"
#: Objects of a list, some milliseconds of them.
_AT_A_TIME: Final = 128
_READ, _WRITE = Needs(ACL_READ), Needs(ACL_WRITE)


# -- reading


async def _point(api: Api, request: web.Request, query: Query, table: str) -> ReadPoint:
    return await read_state(api, request, query_options(query), _WATCHES[table])


def _answer(point: ReadPoint, query: Query, body: object, table: str) -> web.Response:
    index = WATCHED[_WATCHES[table]].index_of(point.state)
    return json_response(body, query, point_headers(point, index, query_options(query)))


async def list_tokens(api: Api, request: web.Request, query: Query) -> web.Response:
    given = [(name, query[name]) for name in _FILTERS if query.get(name)]
    if len(given) > 1:
        raise BadRequest("can only filter by one of policy, role, serviceName, or methodName at a time")
    point = await _point(api, request, query, _TOKENS)
    acl, now = point.state.acl, api.clock.now()
    names = render.Names.of(acl)
    wanted = [
        token
        for token in acl.tokens
        if not token.is_expired(now) and all(_matches(token, name, value) for name, value in given)
    ]
    return _answer(point, query, await _rendered(wanted, lambda token: render.token_object(token, names)), _TOKENS)


async def _rendered(values: Sequence[T], one: Callable[[T], Json]) -> list[Json]:
    """There may be thousands: others have their turn meanwhile."""
    found: list[Json] = []
    for start in range(0, len(values), _AT_A_TIME):
        found += map(one, values[start : start + _AT_A_TIME])
        await asyncio.sleep(0)
    return found


def _matches(token: Token, name: str, value: str) -> bool:
    match name:
        case "policy":
            return value in token.policies
        case "role":
            return value in token.roles
        case "authmethod":
            return token.auth_method == value
        case _:
            return any(identity.service == value for identity in token.service_identities)


async def get_token(api: Api, request: web.Request, query: Query) -> web.Response:
    accessor_id = _uuid(_key(request, _MISSING[_TOKENS]), "AccessorID")
    point = await _point(api, request, query, _TOKENS)
    token = find_token(point.state.acl, accessor_id, api.clock.now())
    if token is None:
        raise PermissionDenied("token does not exist: ACL not found")
    return _answer(point, query, _whole(api, query, point.state.acl, token, HIDDEN), _TOKENS)


async def get_own_token(api: Api, request: web.Request, query: Query) -> web.Response:
    """With the SecretID that the caller has sent. Its index is this one token's: that of all of them would tell whoever
    asks of every login.
    """
    caller, options = caller_of(request), query_options(query)
    if options.index:
        point = await api.waiters.wait(request, lambda: _own_news(api, options, caller.accessor_id))
    else:
        point = await read_now(api, options)
    token = find_token(point.state.acl, caller.accessor_id, api.clock.now())
    if token is None:
        raise PermissionDenied("ACL not found")
    secret_id = caller.secret_id or "anonymous"
    body = _whole(api, query, point.state.acl, token, secret_id)
    return json_response(body, query, point_headers(point, token.modify_index, options))


async def _own_news(api: Api, options: QueryOptions, accessor_id: str) -> ReadPoint:
    """Once this token has changed, or is gone, or the time is over."""
    reads, seconds = api.service.reads, options.timeout(api.rng)
    point = await reads.read(options.level)
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            while _has_seen(point.state.acl, accessor_id, options.index):
                point = await reads.watch(ReadLevel.STALE, point.state.acl.tokens_index, Watch.TOKENS, seconds)
    return point


def _has_seen(acl: Acl, accessor_id: str, index: int) -> bool:
    """One look for each change of any token and each who waits: not one through all of them."""
    token = find(acl, _TOKENS, accessor_id)
    return token is not None and token.modify_index <= index


def _whole(api: Api, query: Query, acl: Acl, token: Token, secret_id: str) -> Json:
    found = render.token_object(token, render.Names.of(acl), secret_id)
    if "expanded" in query:
        access, config = api.service.access, api.service.config
        more = render.expanded(token, acl, allows_by_default=access.allows_by_default, node_name=config.node_name)
        found |= more
    return found


def _lister(table: str, one: Callable[[Any, render.Names], Json]) -> Handler:
    async def handle(api: Api, request: web.Request, query: Query) -> web.Response:
        point = await _point(api, request, query, table)
        acl = point.state.acl
        names = render.Names.of(acl)
        values = [value for value in getattr(acl, table) if _is_wanted(value, query)]
        return _answer(point, query, await _rendered(values, lambda value: one(value, names)), table)

    return handle


def _is_wanted(value: Any, query: Query) -> bool:
    """`?policy` of roles, `?authmethod` of binding rules."""
    if (policy := query.get("policy")) and hasattr(value, "policies"):
        return policy in value.policies
    if (method := query.get("authmethod")) and hasattr(value, "auth_method"):
        return bool(value.auth_method == method)
    return True


def _getter(table: str, what: str, one: Callable[[Any, render.Names], Json]) -> Handler:
    return _got(what, _MISSING[table], one, table, lambda acl, key: find(acl, table, key))


def _getter_by_name(table: str, what: str, one: Callable[[Any, render.Names], Json]) -> Handler:
    def named(acl: Acl, name: str) -> Any:
        return next((value for value in getattr(acl, table) if value.name == name), None)

    return _got(what, f"{what} name", one, table, named)


def _got(
    what: str,
    missing: str,
    one: Callable[[Any, render.Names], Json],
    table: str,
    found: Callable[[Acl, str], Any],
) -> Handler:
    async def handle(api: Api, request: web.Request, query: Query) -> web.Response:
        point = await _point(api, request, query, table)
        acl = point.state.acl
        value = found(acl, _key(request, missing))
        if value is None:
            raise NotFound(f"Requested {what} does not exist: ACL not found")
        return _answer(point, query, one(value, render.Names.of(acl)), table)

    return handle


def _key(request: web.Request, missing: str) -> str:
    """What a path names: an ID is one in either case. Consul's Go client escapes a name twice: the router has undone
    one of the two. Raises: BadRequest.
    """
    key = unquote(request.match_info["id"])
    if not key:
        raise BadRequest(f"Missing {missing}")
    if len(key) > _MAX_KEY:
        raise BadRequest(f"{missing} {shown(key)} is longer than any: it has {len(key)} characters")
    return key.lower() if _is_uuid(key) else key


async def get_replication(_api: Api, _request: web.Request, query: Query) -> web.Response:
    """There is one datacenter, so nothing is taken over from another. Consul's times that never were are Go's."""
    status = {
        "Enabled": False,
        "Running": False,
        "SourceDatacenter": "",
        "ReplicationType": "",
        "ReplicatedIndex": 0,
        "ReplicatedRoleIndex": 0,
        "ReplicatedTokenIndex": 0,
        "LastSuccess": _NEVER,
        "LastError": _NEVER,
        "LastErrorMessage": "",
    }
    return json_response(status, query)


# -- writing


def _putter(table: str, rendered: Callable[[Acl, str], Json]) -> Handler:
    async def handle(api: Api, request: web.Request, query: Query) -> web.Response:
        fields = _body(await read_body(request), _KINDS[table])
        key = _key(request, _MISSING[table]) if request.match_info.get("id") else ""
        if key and table in _BY_UUID and not _is_uuid(key):
            raise BadRequest(f"{_BY_UUID[table]} invalid UUID")
        written = await api.service.acl.put(caller_of(request), table, key, fields)
        return json_response(rendered(await _acl_now(api), written.key), query)

    return handle


def _deleter(table: str) -> Handler:
    async def handle(api: Api, request: web.Request, query: Query) -> web.Response:
        await api.service.acl.delete(caller_of(request), table, _key(request, _MISSING[table]))
        return json_response(True, query)

    return handle


async def put_token(api: Api, request: web.Request, query: Query) -> web.Response:
    fields = _body(await read_body(request), "Token")
    key = request.match_info.get("id", "")
    accessor_id = _uuid(key, "AccessorID") if key else ""
    return await _token_answer(api, query, await api.service.acl.put(caller_of(request), _TOKENS, accessor_id, fields))


async def clone_token(api: Api, request: web.Request, query: Query) -> web.Response:
    fields = _body(await read_body(request) or _NOTHING, "Token")
    description = read_input(TokenInput, "Token", fields).description
    accessor_id = _uuid(request.match_info["id"], "AccessorID")
    written = await api.service.acl.clone(caller_of(request), accessor_id, description)
    return await _token_answer(api, query, written)


def _proof(handler: Handler) -> Handler:
    """What is proved to this endpoint is limited before its body is read."""

    async def handle(api: Api, request: web.Request, query: Query) -> web.StreamResponse:
        async with api.refusals.of_proof(request):
            return await handler(api, request, query)

    return handle


async def bootstrap(api: Api, request: web.Request, query: Query) -> web.Response:
    fields = _body((await read_body(request)).strip() or _NOTHING, "Request")
    given = read_input(BootstrapInput, "Request", fields)
    written = await api.service.acl.bootstrap(given.bootstrap_secret, requester(request))
    return await _token_answer(api, query, written, has_id=True)


async def login(api: Api, request: web.Request, query: Query) -> web.Response:
    try:
        given = read_input(LoginInput, "Login", decode_object(await read_body(request)))
    except NotUnderstood as error:
        raise BadRequest(f"Failed to decode request body: {error.detail}") from None
    written = await api.service.acl.login(given.auth_method, given.bearer_token, given.meta or {}, requester(request))
    return await _token_answer(api, query, written)


async def logout(api: Api, request: web.Request, query: Query) -> web.Response:
    caller = caller_of(request)
    if caller.is_anonymous:
        raise NoToken("Supplied token does not exist")
    await api.service.acl.logout(caller)
    return json_response(True, query)


async def _token_answer(api: Api, query: Query, written: WrittenKey, *, has_id: bool = False) -> web.Response:
    acl = await _acl_now(api)
    token = find_token(acl, written.key, api.clock.now())
    if token is None:
        raise PermissionDenied("token does not exist: ACL not found")  # somebody was faster to delete it
    found = render.token_object(token, render.Names.of(acl), written.secret_id or HIDDEN)
    return json_response({"ID": written.secret_id, **found} if has_id else found, query)


async def _acl_now(api: Api) -> Acl:
    """As this node has it, which shows what was just written."""
    return (await api.service.reads.read(ReadLevel.STALE)).state.acl


def _body(data: bytes, what: str) -> Mapping[str, object]:
    """Raises: BadRequest."""
    try:
        return decode_object(data)
    except NotUnderstood as error:
        raise NotUnderstood(f"{what} decoding failed", error.detail) from None


def _is_uuid(text: str) -> bool:
    return _UUID.fullmatch(text) is not None


def _uuid(text: str, what: str) -> str:
    try:
        return str(uuid.UUID(text)) if len(text) == 36 else _no_uuid(text, what)
    except ValueError:
        return _no_uuid(text, what)


def _no_uuid(text: str, what: str) -> str:
    raise BadRequest(f"{what} {shown(text)} is not a valid UUID")


def _find(acl: Acl, table: str, key: str) -> Any:
    found = find(acl, table, key)
    if found is None:
        raise NotFound(f"{key} was deleted by somebody else meanwhile")
    return found


def _policy(policy: Policy, _names: render.Names) -> Json:
    return render.policy_object(policy)


def _policy_stub(policy: Policy, _names: render.Names) -> Json:
    return render.policy_stub(policy)


def _method(method: AuthMethod, _names: render.Names) -> Json:
    return render.method_object(method)


def _method_stub(method: AuthMethod, _names: render.Names) -> Json:
    return render.method_stub(method)


def _rule(rule: BindingRule, _names: render.Names) -> Json:
    return render.rule_object(rule)


def _written_policy(acl: Acl, key: str) -> Json:
    return render.policy_object(_find(acl, "policies", key))


def _written_role(acl: Acl, key: str) -> Json:
    return render.role_object(_find(acl, "roles", key), render.Names.of(acl))


def _written_method(acl: Acl, key: str) -> Json:
    return render.method_object(_find(acl, "methods", key))


def _written_rule(acl: Acl, key: str) -> Json:
    return render.rule_object(_find(acl, "binding_rules", key))


_A: Final = "/v1/acl"
_GET, _PUT, _DELETE, _POST = ("GET",), ("PUT",), ("DELETE",), ("POST", "PUT")


def _read(path: str, handler: Handler, access: RouteAccess = _READ) -> Route:
    return Route(_GET, f"{_A}/{path}", access, _undivided(handler), status_of=read_status, is_private=True)


def _change(methods: tuple[str, ...], path: str, handler: Handler, access: RouteAccess = _WRITE) -> Route:
    return Route(methods, f"{_A}/{path}", access, _undivided(handler), logs_success=True, is_private=True)


def _undivided(handler: Handler) -> Handler:
    async def handle(api: Api, request: web.Request, query: Query) -> web.StreamResponse:
        refuse_divisions(query)
        return await handler(api, request, query)

    return handle


_HARMLESS: Final = Open("says whether another datacenter is followed, as Consul tells everybody")
_OWN: Final = Inside("everybody may know what their own token is")
_OWN_ONLY: Final = Inside("a token may end itself, if a login has made it")
_FIRST: Final = Open("there is no token yet, and only the first one gets this; later a file on the leader is asked for")
_LOGIN: Final = Open("whoever logs in has no token yet; what the method wants is proved instead")

ROUTES: Final = (
    _change(_PUT, "bootstrap", _proof(bootstrap), _FIRST),
    _change(_POST, "login", _proof(login), _LOGIN),
    _change(_POST, "logout", logout, _OWN_ONLY),
    _read("replication", get_replication, _HARMLESS),
    _change(_PUT, "token", put_token),
    _read("token/self", get_own_token, _OWN),
    _read("token/{id:[^/]*}", get_token),
    _change(_PUT, "token/{id:[^/]*}", put_token),
    _change(_DELETE, "token/{id:[^/]*}", _deleter(_TOKENS)),
    _change(_PUT, "token/{id}/clone", clone_token),
    _read("tokens", list_tokens),
    _change(_PUT, "policy", _putter("policies", _written_policy)),
    _read("policy/name/{id:.*}", _getter_by_name("policies", "policy", _policy)),
    _read("policy/{id:.*}", _getter("policies", "policy", _policy)),
    _change(_PUT, "policy/{id:.*}", _putter("policies", _written_policy)),
    _change(_DELETE, "policy/{id:.*}", _deleter("policies")),
    _read("policies", _lister("policies", _policy_stub)),
    _change(_PUT, "role", _putter("roles", _written_role)),
    _read("role/name/{id:.*}", _getter_by_name("roles", "role", render.role_object)),
    _read("role/{id:[^/]*}", _getter("roles", "role", render.role_object)),
    _change(_PUT, "role/{id:[^/]*}", _putter("roles", _written_role)),
    _change(_DELETE, "role/{id:[^/]*}", _deleter("roles")),
    _read("roles", _lister("roles", render.role_object)),
    _change(_PUT, "auth-method", _putter("methods", _written_method)),
    _read("auth-method/{id:.*}", _getter("methods", "auth method", _method)),
    _change(_PUT, "auth-method/{id:.*}", _putter("methods", _written_method)),
    _change(_DELETE, "auth-method/{id:.*}", _deleter("methods")),
    _read("auth-methods", _lister("methods", _method_stub)),
    _change(_PUT, "binding-rule", _putter("binding_rules", _written_rule)),
    _read("binding-rule/{id:[^/]*}", _getter("binding_rules", "binding rule", _rule)),
    _change(_PUT, "binding-rule/{id:[^/]*}", _putter("binding_rules", _written_rule)),
    _change(_DELETE, "binding-rule/{id:[^/]*}", _deleter("binding_rules")),
    _read("binding-rules", _lister("binding_rules", _rule)),
)
