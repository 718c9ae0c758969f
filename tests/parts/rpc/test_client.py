"""Asking another node: connections are kept, and what is no answer of the RPC port is never taken for one."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from cluster.rpc import client as rpc_client
from cluster.rpc.client import Answer, RpcClient, Unanswered, Unreached
from tests.kit.ports import free_ports
from tests.kit.rpc_nodes import node_tls

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nwell"


@dataclass
class Server:
    """Answers each request with the next of `answers`; None: says nothing. Counts connections."""

    address: str = ""
    answers: list[bytes | None] = field(default_factory=list)
    requests: list[bytes] = field(default_factory=list)
    connections: int = 0
    writers: list[asyncio.StreamWriter] = field(default_factory=list)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self.writers.append(writer)
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = int(head.partition(b"Content-Length: ")[2].partition(b"\r\n")[0])
                self.requests.append(head + await reader.readexactly(length))
                for part in (self.answers.pop(0) or b"").split(b"|"):
                    writer.write(part)
                    await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError, IndexError):
            writer.close()


@pytest.fixture
async def server(tls_directory: Path) -> AsyncIterator[Server]:
    made = Server()
    listener = await asyncio.start_server(made.serve, "127.0.0.1", 0, ssl=node_tls(tls_directory, "a").server_context)
    made.address = f"127.0.0.1:{listener.sockets[0].getsockname()[1]}"
    yield made
    for writer in made.writers:
        writer.transport.abort()
    listener.close()


@pytest.fixture
async def client(tls_directory: Path) -> AsyncIterator[RpcClient]:
    client = RpcClient(node_tls(tls_directory, "b"), lambda _peer, _key: None)
    yield client
    client.close()


Post = Callable[[], Awaitable[Answer]]


@pytest.fixture
def post(server: Server, client: RpcClient) -> Post:
    async def ask() -> Answer:
        async with asyncio.timeout(10.0):
            return await client.post("a", server.address, "work", lambda _version: b"body")

    return ask


async def test_server_that_is_refused_is_told_nothing_new_connection_or_not(
    server: Server, tls_directory: Path
) -> None:
    refused: list[bytes] = []
    client = RpcClient(
        node_tls(tls_directory, "b"), lambda peer, key: f"{peer} has another key" if key in refused else None
    )
    server.answers = [OK, OK]
    assert (await client.post("a", server.address, "work", lambda _version: b"body")).status == 200
    for _ in range(2):
        refused.append(node_tls(tls_directory, "a").key)
        with pytest.raises(Unreached, match="a has another key"):
            await client.post("a", server.address, "work", lambda _version: b"body")
    assert len(server.requests) == 1
    client.close()


async def test_one_connection_serves_many_requests(server: Server, post: Post) -> None:
    server.answers = [OK, b"HTTP/1.1 403 Forbidden\r\ncontent-length:  0 \r\nX: y\r\n\r\n", OK]
    assert [await post() for _ in range(3)] == [Answer(200, b"well", 1), Answer(403, b"", 1), Answer(200, b"well", 1)]
    assert server.connections == 1
    head = f"POST /rpc/work HTTP/1.1\r\nHost: {server.address}\r\nContent-Length: 4\r\nQuorumca-Rpc: 1"
    expected = f"{head}\r\n\r\nbody".encode()
    assert server.requests == [expected] * 3


async def test_connection_begins_with_the_oldest_version_and_goes_on_with_the_newest_of_both(
    server: Server, client: RpcClient
) -> None:
    """A node that was replaced by one of the release before is met by a connection of its own."""

    def answer(version: int) -> bytes:
        return OK.replace(b"\r\n\r\n", f"\r\nquorumca-rpc: {version}\r\n\r\n".encode())

    async def asked() -> tuple[bytes, int]:
        written = await client.post("a", server.address, "work", lambda version: b"body %d" % version)
        return server.requests[-1].rpartition(b"\r\n\r\n")[2], written.version

    server.answers = [answer(2), answer(3), answer(9), OK.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"), OK]
    assert await asked() == (b"body 1", 1)
    assert await asked() == (b"body 2", 2)
    assert await asked() == (b"body 3", 3)
    assert await asked() == (b"body 3", 3)  # nine is more than we know
    assert await asked() == (b"body 1", 1)
    assert b"Quorumca-Rpc: 1\r\n" in server.requests[-1]
    assert server.connections == 2


@pytest.mark.parametrize("version", [b"0", b"-1", b"x", b"99999", b""])
async def test_version_that_is_none_is_no_answer(server: Server, post: Post, version: bytes) -> None:
    server.answers = [OK.replace(b"\r\n\r\n", b"\r\nQuorumca-Rpc: " + version + b"\r\n\r\n")]
    with pytest.raises(Unanswered, match="Quorumca-Rpc"):
        await post()


async def test_answer_may_come_in_any_pieces(server: Server, post: Post) -> None:
    server.answers = [b"|".join(bytes([byte]) for byte in OK)]
    assert await post() == Answer(200, b"well", 1)


async def test_requests_at_the_same_time_have_a_connection_each(server: Server, post: Post) -> None:
    server.answers = [OK] * 8
    assert await asyncio.gather(*(post() for _ in range(8))) == [Answer(200, b"well", 1)] * 8
    assert 1 < server.connections <= 8


async def test_connections_are_bounded(server: Server, tls_directory: Path) -> None:
    client = RpcClient(node_tls(tls_directory, "b"), lambda _peer, _key: None, 2)
    server.answers = [OK] * 8
    answers = await asyncio.gather(*(client.post("a", server.address, "work", lambda _version: b"") for _ in range(8)))
    assert (answers, server.connections) == ([Answer(200, b"well", 1)] * 8, 2)
    client.close()


@pytest.mark.parametrize(
    "said",
    [
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nwell\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\nwell",
        b"HTTP/1.1 200 OK\r\n\r\nwell",
        b"HTTP/1.1 200 OK\r\nContent-Length: -4\r\n\r\nwell",
        b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\nwell",
        b"HTTP/1.0 200 OK\r\nContent-Length: 4\r\n\r\nwell",
        b"HTTP/1.1 100 Continue\r\n\r\n",
        b"HTTP/1.1 2\r\nContent-Length: 4\r\n\r\nwell",
        b"hello\r\n\r\n",
        OK + b"more",
        b"x" * (17 << 10),
    ],
    ids=lambda said: said[:40].decode(),
)
async def test_what_is_no_answer_is_not_taken_for_one(server: Server, post: Post, said: bytes) -> None:
    server.answers = [said, OK]
    with pytest.raises(Unanswered):
        await post()
    assert await post() == Answer(200, b"well", 1)
    assert server.connections == 2


async def test_connection_that_ends_in_the_middle_is_said(server: Server, post: Post) -> None:
    server.answers = [OK[:-1]]  # and then it has none: the connection is closed
    asked = asyncio.ensure_future(post())
    while not server.requests:
        await asyncio.sleep(0)
    server.writers[0].close()
    with pytest.raises(Unanswered, match="the connection ended"):
        await asked


async def test_answer_of_a_request_that_was_given_up_is_not_the_next_ones(server: Server, post: Post) -> None:
    server.answers = [None, OK]
    asked = asyncio.ensure_future(post())
    while not server.requests:
        await asyncio.sleep(0)
    asked.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asked
    server.writers[0].write(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nold")
    assert await post() == Answer(200, b"well", 1)
    assert server.connections == 2


@pytest.mark.parametrize("closing", ["said", "silent", "aged"])
async def test_connection_that_ends_is_not_used_again(
    server: Server, client: RpcClient, post: Post, monkeypatch: pytest.MonkeyPatch, closing: str
) -> None:
    header = b"Connection: close\r\n" if closing == "said" else b""
    server.answers = [b"HTTP/1.1 200 OK\r\n" + header + b"Content-Length: 4\r\n\r\nwell", OK]
    assert await post() == Answer(200, b"well", 1)
    if closing == "silent":
        [[kept]] = client._idle.values()
        server.writers[0].close()
        async with asyncio.timeout(10.0):
            while kept.is_open:
                await asyncio.sleep(0)
    if closing == "aged":
        monkeypatch.setattr(rpc_client, "_IDLE_SECONDS", -1.0)
    assert await post() == Answer(200, b"well", 1)
    assert server.connections == 2


async def test_connection_that_ends_before_anything_is_sent_is_not_reached(
    client: RpcClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server that refuses our certificate says so once the connection seems to be there."""

    async def connect(_client: RpcClient, _peer: str, address: str) -> rpc_client._Connection:
        connection = rpc_client._Connection(address)
        connection.connection_made(asyncio.Transport())
        connection.connection_lost(None)
        return connection

    monkeypatch.setattr(RpcClient, "_connect", connect)
    with pytest.raises(Unreached, match="a at 127"):
        await client.post("a", "127.0.0.1:1", "work", lambda _version: b"")


async def test_peer_that_is_not_there_or_not_the_one_is_not_reached(server: Server, client: RpcClient) -> None:
    [port] = free_ports(1)
    with pytest.raises(Unreached, match="a at 127"):
        await client.post("a", f"127.0.0.1:{port}", "work", lambda _version: b"")
    with pytest.raises(Unreached, match="certificate"):
        await client.post("c", server.address, "work", lambda _version: b"")
    with pytest.raises(Unreached):
        await client.post("a", "no address", "work", lambda _version: b"")
    assert not server.requests
