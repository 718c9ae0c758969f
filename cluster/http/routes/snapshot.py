"""/v1/snapshot: the CA and the record of certificates as one file to keep, and back (cluster/backup/file.py).

Files are large: they are streamed between the disk and the client, and never held in memory.
"""

import asyncio
import os
from pathlib import Path
from typing import IO, Final

from aiohttp import web

from cluster.api.access import SNAPSHOT
from cluster.api.reads import ReadLevel
from cluster.backup.file import MAX_FILE_BYTES
from cluster.base.errors import BadRequest, PermissionDenied
from cluster.http.blocking import query_headers, query_options
from cluster.http.body import BROKEN, forget_trace
from cluster.http.context import Api, Route
from cluster.http.errors import BodyTooLarge, TooSlow, read_status
from cluster.http.gate import Needs, caller_of, default_policy, require_standing
from cluster.http.query import Query, parse_bool, refuse_unknown, shown
from cluster.http.render import COMMON_HEADERS, NO_STORE, empty_response, text_response
from cluster.http.transfers import Transfers

#: Of the whole file, either way: at 300 KB/s the largest one gets there in time.
_TRANSFER_SECONDS: Final = 3600.0
#: Between two parts of it: a client that has gone silently must not keep others from restoring.
_SILENCE_SECONDS: Final = 30.0
_CONTENT_TYPE: Final = "application/x-gzip"
_CHUNK_BYTES: Final = 256 << 10
#: The file is sent all the same: it is all there is, and the keys in it are good.
_WARNING: Final = "X-Quorumca-Warning"


async def save(api: Api, request: web.Request, query: Query) -> web.StreamResponse:
    options = query_options(query)
    with api.transfers.saving() as directory:
        path = directory / "saved.tgz"
        meta = await api.service.backups.save_snapshot(path, options.level)
        point = await api.service.reads.read(ReadLevel.STALE)
        headers = query_headers(
            meta.index, options.consistency, has_leader=point.has_leader, last_contact_ms=point.last_contact_ms
        )
        if meta.not_restorable:
            headers[_WARNING] = f"a restore will refuse this snapshot: {meta.not_restorable}"
        response = web.StreamResponse(
            headers={
                "Content-Type": _CONTENT_TYPE,
                **COMMON_HEADERS,
                **NO_STORE,
                **default_policy(api.service.access),
                **headers,
            }
        )
        await _send(request, response, path)
    return response


async def _send(request: web.Request, response: web.StreamResponse, path: Path) -> None:
    """Ends early when the client leaves. Breaks the connection off when the rest cannot be sent: its length was
    promised, so the client sees that it does not have all of it.
    """
    with path.open("rb") as file:
        response.content_length = os.fstat(file.fileno()).st_size
        try:
            async with asyncio.timeout(_TRANSFER_SECONDS):
                await response.prepare(request)
                while data := await asyncio.to_thread(file.read, _CHUNK_BYTES):
                    require_standing(request)  # a client may take an hour for all of it
                    await response.write(data)
                await response.write_eof()
        except ConnectionError:
            pass
        except (OSError, PermissionDenied):
            if request.transport is not None:
                request.transport.abort()
            raise


async def restore(api: Api, request: web.Request, query: Query) -> web.StreamResponse:
    is_forced = _is_forced(query)
    with api.transfers.restoring() as directory:
        path = directory / "uploaded.tgz"
        await _receive(request, path, api.transfers)
        notes = await api.service.backups.restore_snapshot(caller_of(request), path, is_forced=is_forced)
    return text_response("".join(f"{note}\n" for note in notes)) if notes else empty_response()


def _is_forced(query: Query) -> bool:
    """Raises: BadRequest, also for what is misspelt: it must not be taken for less, or more, than it says."""
    refuse_unknown(query, ("force",))
    if "force" not in query:
        return False
    value = parse_bool(query["force"] or "true")
    if value is None:
        raise BadRequest(f"force is {shown(query['force'])}: allowed are true and false")
    return value


async def _receive(request: web.Request, path: Path, transfers: Transfers) -> None:
    """The body, as a file. Raises: BodyTooLarge, TooSlow, BadRequest, Overloaded, OSError."""
    if (request.content_length or 0) > MAX_FILE_BYTES:
        raise _too_large()
    transfers.check_room(request.content_length or 0)
    with path.open("wb") as file:
        try:
            async with asyncio.timeout(_TRANSFER_SECONDS):
                await _copy(request, file, transfers)
        except TimeoutError:
            raise TooSlow(
                f"the snapshot did not arrive within {_TRANSFER_SECONDS:g} seconds, or nothing of it for"
                f" {_SILENCE_SECONDS:g}"
            ) from None
        except BROKEN:
            raise BadRequest("Request decode failed: the transfer of the body is broken") from None
        finally:
            forget_trace(request.content)


async def _copy(request: web.Request, file: IO[bytes], transfers: Transfers) -> None:
    size = 0
    chunk = bytearray()
    while True:
        async with asyncio.timeout(_SILENCE_SECONDS):
            data = await request.content.readany()
        chunk += data
        size += len(data)
        if size > MAX_FILE_BYTES:
            raise _too_large()
        if len(chunk) >= _CHUNK_BYTES or not data:
            transfers.check_room(len(chunk))
            await asyncio.to_thread(file.write, bytes(chunk))
            chunk.clear()
        if not data:
            return


def _too_large() -> BodyTooLarge:
    return BodyTooLarge(f"Request body is too large: at most {MAX_FILE_BYTES} bytes are allowed")


ROUTES: Final = (
    Route(("GET",), "/v1/snapshot", Needs(SNAPSHOT), save, status_of=read_status, logs_success=True, is_private=True),
    Route(
        ("PUT",),
        "/v1/snapshot",
        Needs(SNAPSHOT),
        restore,
        logs_success=True,
        max_body_bytes=MAX_FILE_BYTES,
        is_private=True,
    ),
)
