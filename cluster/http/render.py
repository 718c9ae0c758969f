"""Values into response bodies: JSON as Go prints it, times, certificates. Decides nothing else."""

import json
from collections.abc import Mapping
from typing import Any, Final

from aiohttp import web

from cluster.api.leaves import IssuedCert
from cluster.base.ascii_json import AsciiJson
from cluster.base.clock import rfc3339
from providers.pki.serials import serial_text

#: Says what answers, and not which version of which library.
SERVER: Final = "quorumca"
TEXT: Final = "text/plain; charset=utf-8"
_JSON: Final = "application/json"
#: On every answer. No browser may take one for a page or a script, whatever is in it.
COMMON_HEADERS: Final[Mapping[str, str]] = {"Server": SERVER, "X-Content-Type-Options": "nosniff"}

#: On answers that nobody but the asker may keep a copy of.
NO_STORE: Final[Mapping[str, str]] = {"Cache-Control": "no-store"}

_compact: Final = AsciiJson().encode
_pretty: Final = json.JSONEncoder(indent=4, separators=(",", ": ")).encode


def json_response(
    value: object, query: Mapping[str, str], headers: Mapping[str, str] | None = None, status: int = 200
) -> web.Response:
    """Compact and without a newline; with `?pretty`, indented by four and with one."""
    body = f"{_pretty(value)}\n".encode("ascii") if "pretty" in query else _compact(value)
    return body_response(body, _JSON, headers, status)


def text_response(text: str, status: int = 200, headers: Mapping[str, str] | None = None) -> web.Response:
    return body_response(text.encode("utf-8", "replace"), TEXT, headers, status)


def empty_response(headers: Mapping[str, str] | None = None) -> web.Response:
    """What a successful write without a result answers."""
    return web.Response(headers={**COMMON_HEADERS, **(headers or {})})


def body_response(
    body: bytes, content_type: str, headers: Mapping[str, str] | None = None, status: int = 200
) -> web.Response:
    merged = {"Content-Type": content_type, **COMMON_HEADERS}
    if headers:
        merged.update(headers)
    return web.Response(body=body, status=status, headers=merged)


def sorted_maps(value: Any) -> Any:
    """Maps in key order at every depth, as Go prints them."""
    match value:
        case dict():
            return {key: sorted_maps(value[key]) for key in sorted(value)}
        case list():
            return [sorted_maps(item) for item in value]
        case _:
            return value


def issued_cert(cert: IssuedCert, private_key_pem: str = "") -> dict[str, object]:
    """Consul's IssuedCert: what is empty is left out."""
    value: dict[str, object] = {"SerialNumber": serial_text(cert.serial), "CertPEM": cert.cert_pem}
    if private_key_pem:
        value["PrivateKeyPEM"] = private_key_pem
    match cert.kind:
        case "service":
            value |= {"Service": cert.name, "ServiceURI": cert.spiffe_id}
        case "agent":
            value |= {"Agent": cert.name, "AgentURI": cert.spiffe_id}
        case "server":
            value["ServerURI"] = cert.spiffe_id
        case kind:
            value |= {"Kind": kind, "KindURI": cert.spiffe_id}
    value["ValidAfter"] = rfc3339(cert.not_before)
    value["ValidBefore"] = rfc3339(cert.not_after)
    value["CreateIndex"] = value["ModifyIndex"] = cert.index
    return value
