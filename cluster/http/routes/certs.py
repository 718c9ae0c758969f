"""/v1/connect/ca/certs: the record of every issued certificate."""

import math
import re
from dataclasses import replace
from datetime import datetime
from typing import Final

from aiohttp import web

from cluster.api.access import OPERATOR_READ, SERVICE_WRITE, Caller, Level, Resource
from cluster.api.reads import ReadLevel
from cluster.base.clock import rfc3339
from cluster.base.errors import BadRequest, NotFound
from cluster.base.requester import beginning_of
from cluster.base.requester import shown as requester_shown
from cluster.http.blocking import query_options
from cluster.http.context import Api, Route
from cluster.http.errors import read_status
from cluster.http.gate import Inside, caller_of, filtered
from cluster.http.query import Query, refuse_unknown, shown
from cluster.http.render import json_response
from fsm.leaves import LEAF_KINDS, LeafKind, kind_label
from fsm.ledger import LedgerQuery, LedgerRow, fills_page
from providers.pki.spiffe import Kind, SpiffeError, parse
from providers.pki.x509 import colon_hex

MAX_LIMIT: Final = 1000
_DEFAULT_LIMIT: Final = 100
#: Pages that are looked through for one who may not see all of them.
_MAX_SCANS: Final = 4
#: Services that are looked up one by one for such a one.
_MAX_NAMES: Final = 256
_FILTERS: Final = ("service", "spiffe_id", "kind", "issuer", "expires_before", "accessor", "limit", "after")
#: RFC 5280 allows 20 bytes of serial; key ids are hashes. Longer ones are nobody's.
_MAX_HEX: Final = 128
_HEX: Final = re.compile(r"[0-9A-Fa-f]+|[0-9A-Fa-f]{1,2}(:[0-9A-Fa-f]{1,2})+")
_RFC3339: Final = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt ][0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{1,9})?([Zz]|[+-][0-9]{2}:[0-9]{2})"
)
_DIGITS: Final = re.compile(r"[0-9]{1,19}")
_MAX_NUMBER: Final = (1 << 63) - 1


async def get_cert(api: Api, request: web.Request, query: Query) -> web.Response:
    text = request.match_info["serial"]
    serial = _hex("serial number", text).lstrip(b"\0")
    level, caller = query_options(query).level, caller_of(request)
    if not caller.may(OPERATOR_READ) and not caller.rules.gives_any(Resource.SERVICE, Level.WRITE):
        raise caller.refusal(OPERATOR_READ)
    row = await api.service.record.find_cert(serial, level)
    caller = caller_of(request)
    if not caller.may(OPERATOR_READ) and (row is None or not _is_own(caller, row)):
        raise caller.refusal(OPERATOR_READ)  # whether it is on record or not
    if row is None:
        raise NotFound(f"no certificate with serial number {colon_hex(serial) or '00'} is on record")
    return json_response(_cert_object(row), query)


async def list_certs(api: Api, request: web.Request, query: Query) -> web.Response:
    refuse_unknown(query, _FILTERS)
    limit = _number(query, "limit", _DEFAULT_LIMIT, 1, MAX_LIMIT)
    wanted = LedgerQuery(
        service=query.get("service"),
        spiffe_id=query.get("spiffe_id"),
        kind=_kind(query.get("kind")),
        issuer_key_id=_hex("issuer", query["issuer"]) if "issuer" in query else None,
        expires_before=_moment(query["expires_before"]) if "expires_before" in query else None,
        requested_by=_accessor(query["accessor"]) if "accessor" in query else None,
        after=_number(query, "after", 0, 0, _MAX_NUMBER),
        limit=limit + 1,  # one more says whether there is a next page
    )
    level, caller = query_options(query).level, caller_of(request)
    if wanted.requested_by is not None:
        caller.require(OPERATOR_READ)  # what a token does is not for everybody who may have a certificate
    if caller.may(OPERATOR_READ):
        rows = await api.service.record.search_certs(wanted, level)
        page = rows[:limit]
        following = page[-1].index if len(rows) > limit or fills_page(rows) else None
        headers = filtered(caller, is_shorter=False)
    else:
        page, following = await _own_page(api, caller, wanted, limit, level)
        # Whether there is anything to be filtered or not: that is not for whoever asks to know.
        headers = filtered(caller, is_shorter=True)
    body = {"Certs": [_cert_object(row) for row in page], "Next": None if following is None else str(following)}
    return json_response(body, query, headers)


async def _own_page(
    api: Api, caller: Caller, wanted: LedgerQuery, limit: int, level: ReadLevel
) -> tuple[list[LedgerRow], int | None]:
    """Of somebody who may not see all. What is read are the rows of the caller's own services, so that neither the
    rows, nor where the next page begins, nor the time that it takes says anything of the others. Only for whoever has
    very many services all rows are looked through, which may show that there are many others.
    """
    names = await _own_names(api, caller, wanted, level)
    if names is not None and not names:
        return [], None
    if names is None:
        query = LedgerQuery(after=wanted.after, limit=MAX_LIMIT)
    else:
        is_filtered = wanted.issuer_key_id is not None or wanted.expires_before is not None
        query = LedgerQuery(
            spiffe_id=wanted.spiffe_id,
            after=wanted.after,
            limit=MAX_LIMIT if is_filtered else wanted.limit,
            services=names,
        )
    own: list[LedgerRow] = []
    for _ in range(_MAX_SCANS):
        rows = await api.service.record.search_certs(query, level)
        own += [row for row in rows if _is_own(caller, row) and _passes(wanted, row)]
        if len(own) > limit:
            return own[:limit], own[limit - 1].index
        if len(rows) < query.limit and not fills_page(rows):
            return own, None
        query = replace(query, after=rows[-1].index)
    return own, query.after


async def _own_names(api: Api, caller: Caller, wanted: LedgerQuery, level: ReadLevel) -> tuple[str, ...] | None:
    """Of the services whose rows are the caller's own and may be what is wanted; None: too many to go by names."""
    if not caller.rules.gives_any(Resource.SERVICE, Level.WRITE):
        return ()
    if wanted.kind not in (None, LeafKind.SERVICE):
        return ()
    service = wanted.service if wanted.spiffe_id is None else _service_of(wanted.spiffe_id)
    if service is not None:
        is_own = wanted.service in (None, service) and caller.may(SERVICE_WRITE, service)
        return (service,) if is_own else ()
    given = caller.rules.names_given(Resource.SERVICE, Level.WRITE)
    if len(given.exact) > _MAX_NAMES or len(given.prefixes) > _MAX_NAMES:
        return None
    found: list[str] = []
    if given.prefixes:
        found = await api.service.record.service_names(given.prefixes, _MAX_NAMES, level)
    if len(found) > _MAX_NAMES:
        return None
    names = {*given.exact, *(name for name in found if caller.may(SERVICE_WRITE, name))}
    return tuple(sorted(names)) if len(names) <= _MAX_NAMES else None


def _service_of(spiffe_id: str) -> str:
    """ "" where it is of none: there is nothing on record of that name."""
    try:
        parsed = parse(spiffe_id)
    except SpiffeError:
        return ""
    return parsed.name if parsed.kind is Kind.SERVICE else ""


def _passes(wanted: LedgerQuery, row: LedgerRow) -> bool:
    """What the ledger does for whoever may see all. Here it would look through rows without end."""
    return wanted.issuer_key_id in (None, row.issuer_key_id) and (
        wanted.expires_before is None or row.record.not_after < wanted.expires_before
    )


ROUTES: Final = (
    Route(
        ("GET",),
        "/v1/connect/ca/certs",
        Inside("who may not read all sees the certificates of its own services"),
        list_certs,
        status_of=read_status,
    ),
    Route(
        ("GET",),
        "/v1/connect/ca/certs/{serial}",
        Inside("who may not read all sees the certificates of its own services"),
        get_cert,
        status_of=read_status,
    ),
)


def _is_own(caller: Caller, row: LedgerRow) -> bool:
    """A service's own certificates are no secret to it."""
    return row.record.kind == LeafKind.SERVICE and caller.may(SERVICE_WRITE, row.record.name)


def _cert_object(row: LedgerRow) -> dict[str, object]:
    record = row.record
    requester = requester_shown(record.requested_by)
    return {
        "SerialNumber": colon_hex(record.serial),
        "Kind": kind_label(record.kind),
        "Service": record.name,
        "SpiffeID": record.spiffe_id,
        "IssuerKeyID": colon_hex(row.issuer_key_id),
        "PublicKeySHA256": colon_hex(record.public_key_sha256),
        "ValidAfter": rfc3339(record.not_before),
        "ValidBefore": rfc3339(record.not_after),
        "RequestedBy": requester.said,
        **({"RequestedVia": requester.server} if requester.server else {}),
        **({"RequestedByAccessorID": requester.accessor_id} if requester.accessor_id else {}),
        "CreateIndex": row.index,
    }


def _hex(name: str, text: str) -> bytes:
    """Hex in either case, with or without colons."""
    digits = text.replace(":", "")
    if len(digits) > _MAX_HEX or not _HEX.fullmatch(text):
        raise BadRequest(f"Invalid {name} {shown(text)}: must be at most {_MAX_HEX} hex digits, with or without colons")
    # A single digit between colons would shift everything after it.
    if ":" in text:
        digits = "".join(part.zfill(2) if len(part) == 1 else part for part in text.split(":"))
    return bytes.fromhex(digits.zfill(len(digits) + len(digits) % 2))


def _accessor(text: str) -> str:
    beginning = beginning_of(text)
    if beginning is None:
        raise BadRequest(f"Invalid accessor {shown(text)}: must be the AccessorID of a token, a UUID")
    return beginning


def _kind(text: str | None) -> LeafKind | None:
    if text is None:
        return None
    if text not in LEAF_KINDS:
        raise BadRequest(f"Invalid kind {shown(text)}: must be one of {', '.join(LEAF_KINDS)}")
    return LEAF_KINDS[text]


def _number(query: Query, name: str, default: int, least: int, most: int) -> int:
    text = query.get(name)
    if text is None:
        return default
    if not _DIGITS.fullmatch(text) or not least <= int(text) <= most:
        raise BadRequest(f"Invalid {name} {shown(text)}: must be a whole number from {least} to {most}")
    return int(text)


def _moment(text: str) -> int:
    """Unix seconds; a fraction counts as begun, because what is asked for is what expires before."""
    if _DIGITS.fullmatch(text):
        return min(int(text), _MAX_NUMBER)
    try:
        if not _RFC3339.fullmatch(text):
            raise ValueError
        return math.ceil(datetime.fromisoformat(text.upper()).timestamp())
    except (ValueError, OverflowError):
        raise BadRequest(
            f"Invalid expires_before {shown(text)}: must be RFC 3339, as in 2027-01-31T12:00:00Z, or Unix seconds"
        ) from None
