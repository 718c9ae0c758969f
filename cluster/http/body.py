"""Request bodies: read within bounds of size and time, decode to one JSON object, take typed fields out of it."""

import asyncio
import json
import math
from collections.abc import Collection, Iterable, Mapping
from typing import Any, Final, NoReturn

from aiohttp import ClientPayloadError, web
from aiohttp.http_exceptions import PayloadEncodingError

from cluster.base.errors import BadRequest, NotUnderstood
from cluster.http.connection import Connection
from cluster.http.errors import BodyTooLarge, TooSlow
from cluster.http.gate import require_standing
from cluster.http.intake import Body, Intake
from cluster.http.query import require_length, shown
from providers.config.durations import format_duration, parse_duration

MAX_BODY_BYTES: Final = 512 << 10
#: Of a body that is refused, this much is still taken in, so that a client which only writes gets to read the answer.
MAX_DRAINED_BYTES: Final = 1 << 20
BODY_SECONDS: Final = 30.0
_DRAIN_SECONDS: Final = 5.0
#: Deep enough for any provider's configuration, and far from every recursion limit on its way.
_MAX_DEPTH: Final = 32
_MIN_NUMBER: Final = -(1 << 63)
_MAX_NUMBER: Final = (1 << 64) - 1
_MAX_DIGITS: Final = 32
#: Of an object of texts.
_MAX_ENTRIES: Final = 1024
_MAX_KEY: Final = 4096
_MAX_MEMBER: Final = 64 << 10
#: What a transfer that broke off raises.
BROKEN: Final = (web.RequestPayloadError, PayloadEncodingError, ClientPayloadError, ConnectionError)

Fields = Mapping[str, Any]


# -- reading


async def read_body(request: web.Request) -> bytes:
    """Whoever sends one may take its time, and is judged again when all of it is there.

    Raises: BodyTooLarge, BodiesFull, TooSlow, BadRequest when the transfer is broken; PermissionDenied.
    """
    content = request.content
    length = request.content_length
    if length is not None and length > MAX_BODY_BYTES:
        raise _too_large()
    connection = request.protocol
    held = connection.begin_body() if isinstance(connection, Connection) else Intake().begin("")
    try:
        if content.is_eof():
            return content.read_nowait()  # all of it is buffered, so it is far smaller than the bound
        async with asyncio.timeout(BODY_SECONDS):
            body = await _read_to_end(content, held)
        require_standing(request)
        return body
    except TimeoutError:
        raise TooSlow(f"the request body did not arrive within {BODY_SECONDS:g} seconds") from None
    except BROKEN:
        raise BadRequest("Request decode failed: the transfer of the body is broken") from None
    finally:
        held.end()
        forget_trace(content)


async def _read_to_end(content: Any, held: Body) -> bytes:
    data = bytearray()
    while chunk := await content.readany():
        size = len(data) + len(chunk)
        if size > MAX_BODY_BYTES:
            raise _too_large()
        held.grow(size)
        data += chunk
    return bytes(data)


def forget_trace(content: Any) -> None:
    """Let go of what a transfer that broke off has left.

    The stream keeps the exception that it broke off with, whose traceback has the frames that read the stream, and with
    them what had been read: a cycle, freed at the next collection of garbage. Those are rare here (cluster/main.py).
    """
    error = content.exception()
    if error is not None:
        error.__traceback__ = None


async def answer_early(request: web.Request, response: web.StreamResponse) -> None:
    """Send the response to a request whose body is still under way, and take in a bounded part of the rest.

    A connection closed with unread data is reset, and the client would lose the answer.
    """
    content = request.content
    if request.content_length is None or request.content_length > MAX_DRAINED_BYTES:
        response.force_close()
    left = MAX_DRAINED_BYTES
    try:
        await response.prepare(request)
        await response.write_eof()
        async with asyncio.timeout(_DRAIN_SECONDS):
            while left > 0 and (chunk := await content.readany()):
                left -= len(chunk)
    except (TimeoutError, *BROKEN):
        response.force_close()
    finally:
        forget_trace(content)


async def not_yet(_request: web.Request) -> web.StreamResponse | None:
    """What aiohttp asks for where a client waits with its body (`Expect: 100-continue`): nothing is said before the
    gate has let the request in (`go_on`), and whoever is refused has sent none of it.
    """
    return None


async def go_on(request: web.Request, max_body_bytes: int) -> None:
    """To a client that waits with its body: it may come. What is too large is refused without having been sent."""
    is_waiting = request.headers.get("Expect", "").lower() == "100-continue" and request.version >= (1, 1)
    if is_waiting and (request.content_length or 0) <= max_body_bytes:
        await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        request.writer.output_size = 0  # the answer itself has not begun


def _too_large() -> BodyTooLarge:
    return BodyTooLarge(f"Request body is too large: at most {MAX_BODY_BYTES} bytes are allowed")


# -- decoding


def decode_object(body: bytes, aliases: Mapping[str, str] | None = None) -> Fields:
    """The members of the object by lower-case name, null ones left out. `aliases` gives other names of members.

    Raises: BadRequest.
    """
    if not body:
        _fail("EOF")
    try:
        value = json.loads(
            body.decode("utf-8"),
            object_pairs_hook=_object,
            parse_constant=_no_constant,
            parse_float=_finite,
            parse_int=_whole,
        )
        _check(value, 0)
    except UnicodeDecodeError:
        _fail("the body is not UTF-8")
    except RecursionError:
        _fail(f"nested more than {_MAX_DEPTH} deep")
    except ValueError as error:
        _fail(str(error)[:200])
    if not isinstance(value, dict):
        _fail(f"the body must be a JSON object, not {_kind(value)}")
    fields: dict[str, Any] = {}
    for name, member in value.items():
        key = name.lower()
        key = (aliases or {}).get(key, key)
        if key in fields:
            _fail(f"{shown(name)} is given more than once")
        fields[key] = member
    return {name: member for name, member in fields.items() if member is not None}


def text_field(fields: Fields, name: str, most: int = MAX_BODY_BYTES) -> str:
    """Empty when it is left out. `most`: characters."""
    value = fields.get(name.lower(), "")
    if not isinstance(value, str):
        _fail(f"{name} = {shown(value)}: must be a string")
    require_length(value, name, most)
    return value


def secret_field(fields: Fields, name: str) -> str:
    """As `text_field`; but what is given in another form is not shown, because it may be the secret all the same."""
    value = fields.get(name.lower(), "")
    if not isinstance(value, str):
        _fail(f"{name}: must be a string")
    return value


def bool_field(fields: Fields, name: str) -> bool:
    value = fields.get(name.lower(), False)
    if not isinstance(value, bool):
        _fail(f"{name} = {shown(value)}: must be true or false")
    return value


def index_field(fields: Fields, name: str) -> int:
    value = fields.get(name.lower(), 0)
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        _fail(f"{name} = {shown(value)}: must be a whole number from 0 to 2^64-1")
    return value


def optional_index_field(fields: Fields, name: str) -> int | None:
    """None when it is left out."""
    return index_field(fields, name) if name.lower() in fields else None


def duration_field(fields: Fields, name: str, least: int, most: int) -> int | None:
    """Nanoseconds of a Go duration, or of a number, as Go's clients write one; None when it is left out."""
    value = fields.get(name.lower())
    if value is None:
        return None
    try:
        ns = parse_duration(value) if isinstance(value, str) else value
    except ValueError:
        ns = None
    if not isinstance(ns, int) or isinstance(ns, bool) or not least <= ns <= most:
        _fail(
            f"{name} = {shown(value)}: must be a Go duration as in 10m, or a whole number of nanoseconds,"
            f" from {format_duration(least)} to {format_duration(most)}"
        )
    return ns


def refuse_other_fields(fields: Fields, known: Collection[str], what: str) -> None:
    """For requests in which a misspelt field would be dangerous. Raises: BadRequest."""
    names = {name.lower() for name in known}
    for name in fields:
        if name not in names:
            _fail(f"unknown field {shown(name)}: allowed for {what} are {', '.join(known)}")


def object_field(fields: Fields, name: str) -> Mapping[str, object] | None:
    """None when it is left out. Its value is never shown: there may be secrets in it."""
    value = fields.get(name.lower())
    if value is not None and not isinstance(value, dict):
        _fail(f"{name}: must be an object, not {_kind(value)}")
    return value


def text_map_field(fields: Fields, name: str) -> Mapping[str, str] | None:
    value = object_field(fields, name)
    if value is not None and len(value) > _MAX_ENTRIES:
        _fail(f"{name} has {len(value)} entries: at most {_MAX_ENTRIES} are allowed")
    for key, member in (value or {}).items():
        if not isinstance(member, str):
            _fail(f"{name}.{shown(key)} = {shown(member)}: must be a string")
        require_length(key, f"the key {name}.{shown(key)}", _MAX_KEY)
        require_length(member, f"{name}.{shown(key)}", _MAX_MEMBER)
    return value  # type: ignore[return-value]  # every member was looked at


def _object(pairs: Iterable[tuple[str, object]]) -> dict[str, object]:
    value: dict[str, object] = {}
    for name, member in pairs:
        if name in value:
            raise ValueError(f"{shown(name)} is given more than once")
        value[name] = member
    return value


def _no_constant(text: str) -> NoReturn:
    raise ValueError(f"{text} is not a JSON number")


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{shown(text)} is too large for a number")
    return value


def _whole(text: str) -> int:
    if len(text) > _MAX_DIGITS:  # Python's own refusal, of thousands, speaks of Python
        raise ValueError("a whole number does not fit into 64 bits")
    return int(text)


def _check(value: object, depth: int) -> None:
    """What JSON can say and the log, or a certificate, cannot hold. Raises: ValueError."""
    match value:
        case str():
            _check_text(value)
        case int() if not _MIN_NUMBER <= value <= _MAX_NUMBER:
            raise ValueError("a whole number does not fit into 64 bits")
        case dict() | list():
            if depth == _MAX_DEPTH:
                raise RecursionError
            for member in value.values() if isinstance(value, dict) else value:
                _check(member, depth + 1)
            if isinstance(value, dict):
                for name in value:
                    _check_text(name)


def _check_text(text: str) -> None:
    if "\0" in text:
        raise ValueError("a string contains NUL")
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError:
            raise ValueError("a string contains half of a surrogate pair") from None


def _kind(value: object) -> str:
    match value:
        case None:
            return "null"
        case bool():
            return "a boolean"
        case int() | float():
            return "a number"
        case str():
            return "a string"
        case list():
            return "a list"
        case _:
            return "an object"


def _fail(why: str) -> NoReturn:
    raise NotUnderstood("Request decode failed", why)
