"""/v1/connect/ca/configuration: how the CA is set up. What GET shows has no secrets: they are not in that state."""

import json
from typing import Final

from aiohttp import web

from cluster.api.access import OPERATOR_WRITE
from cluster.api.ca import ConfigUpdate
from cluster.api.reads import ReadLevel, Watch
from cluster.base.errors import BadRequest, InternalError
from cluster.http.blocking import point_headers, query_options
from cluster.http.body import (
    Fields,
    bool_field,
    decode_object,
    index_field,
    object_field,
    read_body,
    text_field,
    text_map_field,
)
from cluster.http.context import Api, Route, read_state
from cluster.http.errors import read_status
from cluster.http.gate import Needs, caller_of
from cluster.http.query import Query, shown
from cluster.http.render import empty_response, json_response, sorted_maps
from cluster.http.routes.roots import require_connect
from cluster.http.routes.rotation import cut_off_roots, wait_seconds
from fsm.ca import CAConfig
from fsm.links import cut_off_early
from providers.config.secrets import without_secrets

_ALIASES: Final = {"force_without_cross_signing": "forcewithoutcrosssigning"}
#: Listed roots that new leaves do not lead to; Consul's answer to a PUT has no body to say it in.
CUT_OFF_HEADER: Final = "X-Quorumca-Cut-Off-Roots"
#: Roots that will be cut off while they are still listed, because one on the way to them ends sooner.
CUT_OFF_EARLY_HEADER: Final = "X-Quorumca-Cut-Off-Early-Roots"
_MAX_PROVIDER: Final = 512
_DIRECT, _STAGED = "direct", "staged"


async def get_configuration(api: Api, request: web.Request, query: Query) -> web.Response:
    options = query_options(query)
    require_connect(api)
    point = await read_state(api, request, options, Watch.CONFIGURATION)
    config = point.state.config
    if config is None:
        raise InternalError("CA has not finished initializing")
    return json_response(_config_object(config), query, point_headers(point, config.modify_index, options))


async def put_configuration(api: Api, request: web.Request, _query: Query) -> web.Response:
    require_connect(api)
    fields = decode_object(await read_body(request), _ALIASES)
    is_staged = _is_staged(fields)
    update = ConfigUpdate(
        provider=text_field(fields, "Provider", _MAX_PROVIDER),
        config=object_field(fields, "Config") or {},
        state=text_map_field(fields, "State"),
        force_without_cross_signing=bool_field(fields, "ForceWithoutCrossSigning"),
        modify_index=index_field(fields, "ModifyIndex"),
        is_staged=is_staged,
        wait_seconds=wait_seconds(fields, "RotationWait", is_staged=is_staged, staged_by=f"RotationMode {_STAGED}"),
    )
    index_field(fields, "CreateIndex")  # as read by GET; only its type is checked
    await api.service.ca.configure(caller_of(request), update)
    state = (await api.service.reads.read(ReadLevel.STALE)).state
    lost = cut_off_roots(api, state)
    early = [root.root_id for root, _ in cut_off_early(state.roots, api.clock.now())]
    named = {CUT_OFF_HEADER: ", ".join(lost), CUT_OFF_EARLY_HEADER: ", ".join(early)}
    return empty_response({name: ids for name, ids in named.items() if ids})


ROUTES: Final = (
    Route(
        ("GET",),
        "/v1/connect/ca/configuration",
        Needs(OPERATOR_WRITE),
        get_configuration,
        status_of=read_status,
        is_private=True,
    ),
    Route(
        ("PUT",),
        "/v1/connect/ca/configuration",
        Needs(OPERATOR_WRITE),
        put_configuration,
        logs_success=True,
        is_private=True,
    ),
)


def _is_staged(fields: Fields) -> bool:
    """How the root is changed, if this changes it. Raises: BadRequest."""
    mode = text_field(fields, "RotationMode")
    if mode not in ("", _DIRECT, _STAGED):
        raise BadRequest(f"RotationMode = {shown(mode)}: must be {_STAGED}, {_DIRECT} or empty")
    return mode == _STAGED


def _config_map(config_json: str) -> dict[str, object]:
    """Empty for what is no JSON object: whoever looks can put another one in its place."""
    try:
        value = json.loads(config_json)
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def _config_object(config: CAConfig) -> dict[str, object]:
    return {
        "Provider": config.provider,
        # What a release before has stored in clear under a name that it did not know is not shown at least.
        "Config": sorted_maps(without_secrets(_config_map(config.config_json))),
        "State": dict(sorted(config.public_state)) or None,
        "ForceWithoutCrossSigning": config.force_without_cross_signing,
        "CreateIndex": config.create_index,
        "ModifyIndex": config.modify_index,
    }
