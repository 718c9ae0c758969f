"""/v1/connect/ca/rotation: how a change of root stands, plans and steering; and the end of trust in an old root."""

import asyncio
from collections.abc import Mapping
from typing import Any, Final

from aiohttp import web

from cluster.api.access import OPERATOR_READ, OPERATOR_WRITE, Caller
from cluster.api.ca import RotateRequest, RotationPlan, Steering, Uptake
from cluster.api.reads import ReadLevel, ReadPoint
from cluster.base.clock import rfc3339
from cluster.base.errors import BadRequest, ClusterError, NoLeader
from cluster.http.blocking import QueryOptions, point_headers, query_options
from cluster.http.body import (
    Fields,
    bool_field,
    decode_object,
    duration_field,
    optional_index_field,
    read_body,
    refuse_other_fields,
    text_field,
)
from cluster.http.context import Api, Route, read_now
from cluster.http.errors import read_status
from cluster.http.gate import Needs, caller_of
from cluster.http.query import Query, require_length, shown
from cluster.http.render import empty_response, json_response
from cluster.http.routes.roots import require_connect
from fsm.ca import CARoot, Rotation, RotationOutcome, RotationPhase
from fsm.links import cut_off
from fsm.state import State
from providers.config.durations import HOUR, to_seconds
from providers.pki.keys import EC_BITS, RSA_BITS

DEFAULT_WAIT_SECONDS: Final = 600
_MAX_WAIT_HOURS: Final = 720
#: The uptake is good to know; it must not hold the rest of the answer up.
_UPTAKE_SECONDS: Final = 2.0
_FIELDS: Final = ("Action", "PrivateKeyType", "PrivateKeyBits", "ForceWithoutCrossSigning", "Staged", "Wait")
_MAX_ID: Final = 512
_ROTATE, _PLAN = "rotate", "plan"
ACTIONS: Final = (_ROTATE, _PLAN, *Steering)
_KEY_BITS: Final[Mapping[str, tuple[int, ...]]] = {"ec": tuple(EC_BITS), "rsa": tuple(RSA_BITS)}
_WAITS_FOR: Final[Mapping[RotationPhase, str]] = {
    RotationPhase.GENERATE: "the provider to make the new root",
    RotationPhase.CROSS_SIGN: "the old root to cross-sign the new one, and all chains to be verified",
    RotationPhase.PUBLISH: "the new root to be listed as trusted",
    RotationPhase.ACTIVATE: "the new root to begin to sign",
}


async def get_rotation(api: Api, request: web.Request, query: Query) -> web.Response:
    options = query_options(query)
    require_connect(api)
    return await _answer(api, caller_of(request), query, await read_now(api, options), options)


async def put_rotation(api: Api, request: web.Request, query: Query) -> web.Response:
    require_connect(api)
    fields = decode_object(await read_body(request))
    action = text_field(fields, "Action")
    if action not in ACTIONS:
        raise BadRequest(f"Action = {shown(action)}: must be one of {', '.join(ACTIONS)}")
    # Misspelt, what was meant for a careful rotation would begin a careless one.
    refuse_other_fields(fields, _FIELDS if action in (_ROTATE, _PLAN) else _FIELDS[:1], f"Action {action}")
    if action == _PLAN:
        return await _plan(api, caller_of(request), query, _rotate_request(fields))
    if action == _ROTATE:
        await api.service.ca.rotate(caller_of(request), _rotate_request(fields))
    else:
        await api.service.ca.steer_rotation(caller_of(request), Steering(action))
    try:
        point = await api.service.reads.read(ReadLevel.LINEARIZABLE)
    except NoLeader:
        # It is done: an error would say that it is not.
        point = await api.service.reads.read(ReadLevel.STALE)
    return await _answer(api, caller_of(request), query, point, query_options({}))


async def distrust_root(api: Api, request: web.Request, _query: Query) -> web.Response:
    require_connect(api)
    root_id = request.match_info["id"]
    require_length(root_id, "the ID of a root", _MAX_ID)
    await api.service.ca.distrust_root(caller_of(request), root_id)
    return empty_response()


ROUTES: Final = (
    Route(("GET",), "/v1/connect/ca/rotation", Needs(OPERATOR_READ), get_rotation, status_of=read_status),
    Route(("PUT",), "/v1/connect/ca/rotation", Needs(OPERATOR_WRITE), put_rotation, logs_success=True),
    Route(("DELETE",), "/v1/connect/ca/roots/{id}", Needs(OPERATOR_WRITE), distrust_root, logs_success=True),
)


def wait_seconds(fields: Fields, name: str, *, is_staged: bool, staged_by: str) -> int:
    """How long a staged rotation waits for clients, 0 for one that is not staged. Raises: BadRequest."""
    ns = duration_field(fields, name, 0, _MAX_WAIT_HOURS * HOUR)
    if ns is None:
        return DEFAULT_WAIT_SECONDS if is_staged else 0
    if not is_staged:
        raise BadRequest(f"{name}: is allowed together with {staged_by} only")
    return to_seconds(ns)


def cut_off_roots(api: Api, state: State, *, by_force: bool = False) -> list[str]:
    """Ids of the listed roots whose clients refuse new leaves until they have fetched the roots."""
    return [root.root_id for root in cut_off(state.roots, api.clock.now(), by_force=by_force)]


def _rotate_request(fields: Fields) -> RotateRequest:
    key_type = text_field(fields, "PrivateKeyType") or None
    key_bits = optional_index_field(fields, "PrivateKeyBits")
    if key_type is not None and key_type not in _KEY_BITS:
        raise BadRequest(f"PrivateKeyType = {shown(key_type)}: must be one of {', '.join(_KEY_BITS)}")
    allowed = [bits for kind, sizes in _KEY_BITS.items() if key_type in (None, kind) for bits in sizes]
    if key_bits is not None and key_bits not in allowed:
        raise BadRequest(f"PrivateKeyBits = {key_bits}: must be one of {', '.join(map(str, allowed))}")
    is_staged = bool_field(fields, "Staged")
    return RotateRequest(
        key_type=key_type,
        key_bits=key_bits,
        is_forced=bool_field(fields, "ForceWithoutCrossSigning"),
        is_staged=is_staged,
        wait_seconds=wait_seconds(fields, "Wait", is_staged=is_staged, staged_by='"Staged": true'),
    )


async def _plan(api: Api, caller: Caller, query: Query, request: RotateRequest) -> web.Response:
    plan = await api.service.ca.plan_rotation(caller, request)
    state = (await api.service.reads.read(ReadLevel.STALE)).state
    return json_response(
        {**_plan_object(plan), "CutOffRoots": cut_off_roots(api, state, by_force=plan.is_forced)}, query
    )


async def _answer(api: Api, caller: Caller, query: Query, point: ReadPoint, options: QueryOptions) -> web.Response:
    state = point.state
    rotation, last = state.rotation, state.last_rotation
    body = {
        "Rotation": None
        if rotation is None
        else _rotation_object(rotation, await _uptake(api, caller, rotation, point)),
        "Last": None if last is None else _last_object(last, state),
        "Roots": [_root_object(root) for root in state.roots],
        "CutOffRoots": cut_off_roots(api, state),
    }
    return json_response(body, query, point_headers(point, state.ca_index, options))


async def _uptake(api: Api, caller: Caller, rotation: Rotation, point: ReadPoint) -> Uptake | None:
    """None when the leader cannot say."""
    if rotation.phase is not RotationPhase.WAIT or not point.has_leader:
        return None
    try:
        async with asyncio.timeout(_UPTAKE_SECONDS):
            return await api.service.ca.rotation_uptake(caller)
    except (ClusterError, TimeoutError):
        return None


def _rotation_object(rotation: Rotation, uptake: Uptake | None) -> dict[str, Any]:
    is_waiting = rotation.phase is RotationPhase.WAIT
    return {
        "ID": rotation.rotation_id,
        "Phase": rotation.phase.value,
        "StartedAt": rfc3339(rotation.started_at),
        "PhaseSince": rfc3339(rotation.phase_since),
        "Provider": rotation.config.provider,
        "Staged": rotation.is_staged,
        "Forced": rotation.is_forced,
        "Paused": rotation.is_paused,
        "WaitUntil": rfc3339(_wait_until(rotation)) if is_waiting else None,
        "WaitingFor": _waiting_for(rotation),
        "NewRootID": rotation.root.root_id if rotation.root else "",
        "Uptake": None if uptake is None else _uptake_object(uptake),
    }


def _wait_until(rotation: Rotation) -> int:
    return rotation.phase_since + rotation.wait_seconds


def _waiting_for(rotation: Rotation) -> str:
    if rotation.phase is not RotationPhase.WAIT:
        return _WAITS_FOR[rotation.phase]
    if rotation.is_paused:
        return "an operator to resume it, or to activate the new root"
    return f"clients to fetch the new root, until {rfc3339(_wait_until(rotation))} at the latest"


def _uptake_object(uptake: Uptake) -> dict[str, int]:
    return {
        "Watchers": uptake.watchers,
        "WatchersSeen": uptake.watchers_seen,
        "Identities": uptake.identities,
        "IdentitiesRenewed": uptake.identities_renewed,
        "Percent": uptake.percent,
    }


def _last_object(last: RotationOutcome, state: State) -> dict[str, Any]:
    return {
        "ID": last.rotation_id,
        "EndedAt": rfc3339(last.ended_at),
        "RootID": last.root_id,
        "Reason": last.reason,
        "Forced": last.is_forced,
        "ClientsMayFailUntil": _may_fail_until(last, state),
    }


def _may_fail_until(last: RotationOutcome, state: State) -> str | None:
    """Behind a forced rotation: when the last leaf that only the old root vouches for has expired."""
    if not last.is_forced or not last.root_id:
        return None
    replaced = next((root for root in state.roots if root.is_retired and root.rotated_out_at == last.ended_at), None)
    return None if replaced is None else rfc3339(replaced.prune_at)


def _root_object(root: CARoot) -> dict[str, Any]:
    return {
        "ID": root.root_id,
        "Active": root.is_active,
        "RotatedOutAt": _time_or_none(root.rotated_out_at),
        "PruneAt": _time_or_none(root.prune_at),
        "NotAfter": rfc3339(root.not_after),
    }


def _plan_object(plan: RotationPlan) -> dict[str, Any]:
    return {
        "ActiveRootID": plan.active_root_id,
        "Provider": plan.provider,
        "PrivateKeyType": plan.key_type,
        "PrivateKeyBits": plan.key_bits,
        "Forced": plan.is_forced,
        "Staged": plan.is_staged,
        "ChainBytes": plan.chain_bytes,
        "MaxChainBytes": plan.max_chain_bytes,
        "Links": plan.links,
        "TrustedRoots": plan.trusted_roots,
        "AffectedLeaves": plan.affected_leaves,
        "RetiredUntil": rfc3339(plan.retired_until),
        "Risks": list(plan.risks),
    }


def _time_or_none(moment: int) -> str | None:
    return rfc3339(moment) if moment else None
