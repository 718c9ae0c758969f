"""A node as the load generator sees it: HTTP/1.1 over asyncio, one answer for everything, and a record of requests."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

CERT_BODY = b'{"CertPEM":"-----BEGIN CERTIFICATE-----\\nMIIB"}'


@dataclass
class FakeNode:
    """`answers` are given in turn, and the last one from then on; an empty one closes the connection."""

    answers: list[bytes] = field(default_factory=list)
    address: str = ""
    connections: int = 0
    bodies: Counter[bytes] = field(default_factory=Counter)
    request_lines: Counter[bytes] = field(default_factory=Counter)
    most_under_way: int = 0
    _under_way: int = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            while answer := await self._next(reader):
                # In two parts, as the network may cut it: the second begins within the headers.
                writer.write(answer[:20])
                await writer.drain()
                await asyncio.sleep(0)
                writer.write(answer[20:])
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    async def _next(self, reader: asyncio.StreamReader) -> bytes:
        headers = await reader.readuntil(b"\r\n\r\n")
        self._under_way += 1
        self.most_under_way = max(self.most_under_way, self._under_way)
        line, *rest = headers.split(b"\r\n")
        lengths = [int(header.partition(b":")[2]) for header in rest if header.startswith(b"Content-Length")]
        self.request_lines[line] += 1
        self.bodies[await reader.readexactly(sum(lengths))] += 1
        self._under_way -= 1
        return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]


def response(status: str = "200 OK", body: bytes = CERT_BODY, length_name: str = "Content-Length") -> bytes:
    return f"HTTP/1.1 {status}\r\nServer: fake\r\n{length_name}: {len(body)}\r\n\r\n".encode() + body


@asynccontextmanager
async def serving(*answers: bytes) -> AsyncIterator[FakeNode]:
    node = FakeNode(list(answers) or [response()])
    server = await asyncio.start_server(node.serve, "127.0.0.1", 0)
    node.address = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield node
    finally:
        server.close()
        await server.wait_closed()
