"""GET /v1/connect/ca/roots: the certificates that the mesh trusts."""

from typing import Final

from aiohttp import web

from cluster.api.reads import Watch
from cluster.base.clock import rfc3339
from cluster.base.errors import BadRequest, InternalError
from cluster.http.blocking import point_headers, query_options
from cluster.http.context import Api, Route, read_state
from cluster.http.errors import read_status
from cluster.http.gate import Open
from cluster.http.query import Query, parse_bool
from cluster.http.render import body_response, json_response
from fsm.ca import CARoot
from fsm.state import State

_PEM: Final = "application/pem-certificate-chain"


async def get_roots(api: Api, request: web.Request, query: Query) -> web.Response:
    is_pem = _wants_pem(query)
    options = query_options(query)
    require_connect(api)
    point = await read_state(api, request, options, Watch.ROOTS)
    require_config(point.state)
    headers = point_headers(point, point.state.roots_watch_index, options)
    if is_pem:
        return body_response(_bundle(point.state).encode(), _PEM, headers)
    return json_response(roots_object(point.state), query, headers)


ROUTES: Final = (
    Route(
        ("GET",),
        "/v1/connect/ca/roots",
        Open("roots are what everybody must have to trust the mesh"),
        get_roots,
        status_of=read_status,
    ),
)


def require_connect(api: Api) -> None:
    if not api.service.config.connect.enabled:
        raise InternalError("Connect must be enabled in order to use this endpoint")


def require_config(state: State) -> None:
    if state.config is None:
        raise InternalError("CA has not finished initializing")


def roots_object(state: State) -> dict[str, object]:
    """Consul's IndexedCARoots."""
    active = state.active_root
    return {
        "ActiveRootID": active.root_id if active else "",
        "TrustDomain": state.trust_domain,
        "Roots": [_root_object(root) for root in state.roots],
    }


def _root_object(root: CARoot) -> dict[str, object]:
    return {
        "ID": root.root_id,
        "Name": root.name,
        "SerialNumber": root.serial_number,
        "SigningKeyID": root.signing_key_id,
        "ExternalTrustDomain": root.external_trust_domain,
        "NotBefore": rfc3339(root.not_before),
        "NotAfter": rfc3339(root.not_after),
        "RootCert": _terminated(root.root_pem),
        "IntermediateCerts": [_terminated(entry.cert_pem) for entry in root.intermediates] or None,
        "Active": root.is_active,
        "PrivateKeyType": root.private_key_type,
        "PrivateKeyBits": root.private_key_bits,
        "CreateIndex": root.create_index,
        "ModifyIndex": root.modify_index,
    }


def _bundle(state: State) -> str:
    return "".join(
        _terminated(pem)
        for root in state.roots
        for pem in (root.root_pem, *(entry.cert_pem for entry in root.intermediates))
    )


def _terminated(pem: str) -> str:
    return pem if pem.endswith("\n") else f"{pem}\n"


def _wants_pem(query: Query) -> bool:
    text = query.get("pem", "")
    if not text:
        return False
    value = parse_bool(text)
    if value is None:
        raise BadRequest("The 'pem' query parameter must be a boolean value")
    return value
