"""HTTP as bytes: for requests that no client library would send, and for answers that must come before the request has
ended.
"""

import asyncio
import re
import socket
from collections.abc import Iterable
from dataclasses import dataclass

_READ_BYTES = 1 << 20
_PART_PAUSE_SECONDS = 0.005
_LENGTH = re.compile(rb"\r\nContent-Length: (\d+)")


@dataclass(frozen=True)
class RawAnswer:
    """`status` is 0 when the connection ended without an answer."""

    status: int
    head: bytes
    body: bytes


def request(method: str, target: str, headers: Iterable[tuple[str, str]] = (), body: bytes = b"") -> bytes:
    """With the length of its body, and as the last one on its connection, unless the headers say something else."""
    given = list(headers)
    names = {name.lower() for name, _ in given}
    for name, value in (("Host", "localhost"), ("Connection", "close"), ("Content-Length", str(len(body)))):
        if name.lower() not in names and (body or name != "Content-Length"):
            given.append((name, value))
    lines = [f"{method} {target} HTTP/1.1", *(f"{name}: {value}" for name, value in given), "", ""]
    return "\r\n".join(lines).encode("utf-8", "surrogateescape") + body


async def exchange(address: str, data: bytes, seconds: float, quiet_seconds: float | None = None) -> RawAnswer:
    """Send, and read a whole answer, or until the node closes.

    A node rightly waits for the rest of what was cut short: with `quiet_seconds`, the connection says that there is no
    more once nothing has been answered for so long.

    Raises: TimeoutError when the node does neither in time.
    """
    host, _, port = address.rpartition(":")
    async with asyncio.timeout(seconds):
        reader, writer = await asyncio.open_connection(host, int(port))
        try:
            writer.write(data)
            reading = asyncio.ensure_future(_read_answer(reader))
            if quiet_seconds is not None:
                await asyncio.wait([reading], timeout=quiet_seconds)
                if not reading.done():
                    writer.write_eof()
            return parse(await reading)
        finally:
            writer.close()


async def _read_answer(reader: asyncio.StreamReader) -> bytes:
    received = bytearray()
    try:
        while not _is_whole(received) and (part := await reader.read(_READ_BYTES)):
            received += part
    except ConnectionError:
        pass  # reset behind an answer, or instead of one
    return bytes(received)


def _is_whole(received: bytearray) -> bool:
    head, end, body = received.partition(b"\r\n\r\n")
    length = _LENGTH.search(head)
    return bool(end) and length is not None and len(body) >= int(length[1])


def parse(received: bytes) -> RawAnswer:
    head, _, body = received.partition(b"\r\n\r\n")
    parts = head.split(b" ", 2)
    is_http = len(parts) == 3 and parts[0].startswith(b"HTTP/1.") and parts[1].isdigit()
    return RawAnswer(int(parts[1]) if is_http else 0, head, body)


async def send_without_end(address: str, head: bytes, part: bytes, seconds: float) -> tuple[int, RawAnswer]:
    """Send parts until the node has ended the connection or answered; how many bytes it let us send, and its answer.

    Slowly, and with a small buffer on this side, so that what was sent is nearly what was read.
    """
    host, _, port = address.rpartition(":")
    loop = asyncio.get_running_loop()
    with socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 16 << 10)
        connection.setblocking(False)
        async with asyncio.timeout(seconds):
            await loop.sock_connect(connection, (host, int(port)))
            await loop.sock_sendall(connection, head)
            receiving = asyncio.ensure_future(_receive(connection))
            sent = 0
            try:
                while not receiving.done():
                    await loop.sock_sendall(connection, part)
                    sent += len(part)
                    await asyncio.sleep(_PART_PAUSE_SECONDS)
            except ConnectionError:
                pass
            return sent, parse(await receiving)


async def _receive(connection: socket.socket) -> bytes:
    """To the end of the connection, or of a whole answer."""
    loop = asyncio.get_running_loop()
    received = bytearray()
    try:
        while part := await loop.sock_recv(connection, _READ_BYTES):
            received += part
    except ConnectionError:
        pass
    return bytes(received)
