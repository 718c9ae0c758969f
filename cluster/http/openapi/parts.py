"""What the OpenAPI document is made of: kinds of values, parameters and operations."""

from typing import Any, Final

Json = dict[str, Any]


def text(description: str = "") -> Json:
    return {"type": "string", "description": description} if description else {"type": "string"}


def number(description: str = "") -> Json:
    return {"type": "integer", "description": description} if description else {"type": "integer"}


FLAG: Final[Json] = {"type": "boolean"}
TIME: Final[Json] = {"type": "string", "format": "date-time"}
DURATION: Final[Json] = {
    "type": ["string", "integer"],
    "description": "staged: how long to wait for clients at most; Go duration or nanoseconds, to 720h; default 10m",
}


def fields(required: bool = True, /, **properties: Json) -> Json:
    value: Json = {"type": "object", "properties": properties}
    return {**value, "required": list(properties)} if required else value


def list_of(items: Json) -> Json:
    return {"type": "array", "items": items}


def nullable(value: Json) -> Json:
    return {"anyOf": [value, {"type": "null"}]}


def ref(name: str) -> Json:
    return {"$ref": f"#/components/schemas/{name}"}


def parameter(name: str, description: str, schema: Json | None = None, where: str = "query") -> Json:
    value = {"name": name, "in": where, "description": description, "schema": schema or text()}
    return {**value, "required": True} if where == "path" else value


def json_body(schema: Json) -> Json:
    return {"application/json": {"schema": schema}}


_PRETTY: Final = parameter("pretty", "indent the answer; presence counts")
_DC: Final = parameter("dc", "must be this datacenter")
STALE: Final = parameter("stale", "answer from what this node has applied; presence counts")
READ: Final = (
    STALE,
    parameter("consistent", "prove leadership before answering; presence counts"),
    parameter("max_stale", "as stale, if this node heard from the leader within this Go duration"),
)
BLOCKING: Final = (
    parameter("index", "wait until the index of the answer is above this one", number()),
    parameter("wait", "how long to wait, a Go duration; at most 10m"),
)
_QUERY_HEADERS: Final = {
    name: {"schema": schema, "description": description}
    for name, schema, description in (
        ("X-Consul-Index", number(), "for blocking queries; never 0"),
        ("X-Consul-KnownLeader", FLAG, "whether this node knows a leader"),
        ("X-Consul-LastContact", number(), "milliseconds since this node heard from the leader"),
        ("X-Consul-Effective-Consistency", text(), "leader, consistent or stale"),
    )
}

_ERRORS: Final = {
    400: "The request is malformed; the text says what is allowed",
    401: "It is about the token that is sent, and there is none",
    403: "The token is unknown (`ACL not found`) or has not the right that is named; or a browser sent it for a page of"
    " another origin. Nothing was done",
    404: "Not found",
    409: "A check-and-set lost against a newer write, and the text has the current ModifyIndex; or not possible beside"
    " what there is. Nothing was changed",
    413: "The body is larger than 512 KB; of a snapshot, than 1 GiB",
    421: "The request is for another host: http.allowed_hosts has the names that are served. Nothing was done",
    422: "Not possible in the present state. Nothing was changed",
    429: "A rate is reached, of certificates or of refused tokens and logins; see Retry-After. Nothing was done",
    500: "It failed; the text says why",
    503: "Not done, and safe to send again: no leader, no CA yet, or too much work; see Retry-After",
    504: "It may or may not have taken effect: read the state, then decide",
}
#: Of every operation: each takes `dc`, and of another datacenter Consul says 500.
_AT_THE_DOOR: Final = (403, 421, 429, 500)
#: Where rights count, and this node has been cut off for too long to know them.
_OUTDATED: Final = (503,)


def operation(
    summary: str,
    answer: Json | None,
    *parameters: Json,
    body: Json | None = None,
    errors: tuple[int, ...] = (400, 500, 503),
    is_query: bool = False,
    is_open: bool = False,
) -> Json:
    """`is_open`: asked without a token."""
    success: Json = {"description": "Success"}
    if answer is not None:
        success["content"] = answer
    if is_query:
        success["headers"] = _QUERY_HEADERS
    responses = {"200": success}
    for status in sorted({*errors, *_AT_THE_DOOR, *(() if is_open else _OUTDATED)}):
        responses[str(status)] = {"description": _ERRORS[status], "content": {"text/plain": {"schema": text()}}}
    operation: Json = {"summary": summary, "parameters": [*parameters, _DC, _PRETTY], "responses": responses}
    if is_open:
        operation["security"] = []
    if body is not None:
        operation["requestBody"] = {"required": True, "content": json_body(body)}
    return operation
