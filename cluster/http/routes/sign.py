"""PUT /v1/connect/ca/sign: the hot path. A CSR in, a certificate that is on record out."""

from typing import Final

from aiohttp import web

from cluster.api.access import MESH_WRITE, NODE_WRITE, SERVICE_WRITE
from cluster.base.errors import BadRequest
from cluster.http.body import decode_object, read_body, text_field
from cluster.http.context import Api, Route, counted, requester
from cluster.http.gate import Inside, caller_of
from cluster.http.query import Query
from cluster.http.render import issued_cert, json_response
from cluster.http.routes.roots import require_connect
from providers.pki.csr import MAX_CSR_BYTES


@counted
async def sign(api: Api, request: web.Request, query: Query) -> web.Response:
    require_connect(api)
    csr_pem = text_field(decode_object(await read_body(request)), "CSR")
    if not csr_pem:
        raise BadRequest("CSR is required")
    if len(csr_pem) > MAX_CSR_BYTES:
        raise BadRequest(f"CSR is larger than {MAX_CSR_BYTES} bytes")
    return json_response(
        issued_cert(await api.service.leaves.sign(caller_of(request), csr_pem, requester(request))), query
    )


ROUTES: Final = (
    Route(
        ("POST", "PUT"),
        "/v1/connect/ca/sign",
        Inside("the worker that signs judges the CSR (providers.pki.granted)", (SERVICE_WRITE, NODE_WRITE, MESH_WRITE)),
        sign,
        quiet_statuses=(429, 503),
        is_private=True,
    ),
)
