"""Places on the RPC port: strangers, and members that do nothing, hold none for long, and members always get one."""

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest
from aiohttp.web_protocol import RequestHandler

from cluster.base.seats import Caps, PeerSeats
from cluster.raft.admission import Admission
from cluster.rpc import client as rpc_client
from cluster.rpc import server as rpc_server
from cluster.rpc.client import Answer, RpcClient, Unanswered, Unreached
from cluster.rpc.envelope import Asked, pack_requests
from tests.kit.fake_cluster import FakeCluster
from tests.kit.rpc_nodes import Ask, RpcNode, node_tls, operation, rpc_nodes
from tests.kit.seats import peer_seats
from tests.kit.wait import until

DEADLINE_SECONDS = 10.0

Stream = tuple[asyncio.StreamReader, asyncio.StreamWriter]


async def _double(argument: int) -> int:
    return 2 * argument


class Port:
    """The RPC port of node a, and whoever connects to it."""

    def __init__(self, node: RpcNode, seats: PeerSeats, tls_directory: Path, stack: AsyncExitStack) -> None:
        self.node = node
        self.seats = seats
        self.address = node.cluster.members["a"].rpc_address
        self.tls_directory = tls_directory
        self._stack = stack
        self._streams: list[Stream] = []

    async def silent(self) -> Stream:
        """A TCP connection on which nothing is said."""
        return self._kept(await asyncio.open_connection(*self.address.split(":")))

    async def idle(self, name: str) -> Stream:
        """One with this certificate, whose handshake is over."""
        host, port = self.address.split(":")
        context = node_tls(self.tls_directory, "b").client_context
        if name != "b":
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            context.load_verify_locations(self.tls_directory / "ca.pem")
            context.load_cert_chain(self.tls_directory / f"{name}.pem", self.tls_directory / f"{name}.key")
        return self._kept(await asyncio.open_connection(host, port, ssl=context, server_hostname="a.server.dc1.consul"))

    def _kept(self, stream: Stream) -> Stream:
        self._stack.callback(stream[1].transport.abort)
        self._streams.append(stream)  # one that is forgotten is closed
        return stream

    def client(self, name: str = "b", max_connections: int = 64) -> RpcClient:
        client = RpcClient(node_tls(self.tls_directory, name), lambda _peer, _key: None, max_connections)
        self._stack.callback(client.close)
        return client

    async def ask(self, client: RpcClient) -> Answer:
        what = operation("double")
        return await client.post("a", self.address, "double", lambda v: pack_requests(what, [Asked(Ask(21))], 5.0, v))


@asynccontextmanager
async def _port(rpc_cluster: FakeCluster, directory: Path, strangers: Caps, members: Caps) -> AsyncIterator[Port]:
    seats = peer_seats(strangers, members)
    async with AsyncExitStack() as stack:
        nodes = await stack.enter_async_context(
            rpc_nodes(rpc_cluster, directory, {"a": {"double": _double}}, seats=seats)
        )
        rpc_cluster.elect("a")
        yield Port(nodes["a"], seats, directory, stack)


@pytest.fixture
async def port(rpc_cluster: FakeCluster, tls_directory: Path) -> AsyncIterator[Port]:
    async with _port(rpc_cluster, tls_directory, Caps(8, 8), Caps(4, 2)) as made:
        yield made


async def ended(stream: Stream) -> bool:
    async with asyncio.timeout(DEADLINE_SECONDS):
        try:
            return await stream[0].read() == b""
        except (ConnectionError, ssl.SSLError):
            return True


async def test_silent_handshake_ends_within_seconds(port: Port, monkeypatch: pytest.MonkeyPatch) -> None:
    assert rpc_server._HANDSHAKE_SECONDS <= 5.0
    stream = await port.silent()
    await until(lambda: port.seats.strangers.taken == 1)
    assert await ended(stream)
    assert port.seats.taken == 0


async def test_certificate_of_no_member_holds_a_place_for_a_moment(port: Port, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rpc_server, "_STRANGER_SECONDS", 0.2)
    stream = await port.idle("client")
    await until(lambda: port.seats.strangers.taken == 1)
    assert await ended(stream)
    await until(lambda: port.seats.taken == 0)


async def test_idle_member_is_let_go_and_comes_back_without_an_error(
    port: Port, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rpc_server, "_IDLE_SECONDS", 0.2)
    client = port.client()
    for _ in range(3):
        assert (await port.ask(client)).status == 200
        assert (port.seats.strangers.taken, port.seats.members.taken) == (0, 1)
        await until(lambda: port.seats.members.taken == 0)


def test_a_node_lets_go_before_the_other_side_does() -> None:
    assert rpc_client._IDLE_SECONDS < rpc_server._IDLE_SECONDS


async def test_members_get_in_while_strangers_hold_all_their_places(port: Port) -> None:
    for _ in range(40):
        await port.silent()
    for _ in range(8):
        await port.idle("client")
    assert port.seats.strangers.taken == 8
    for name in ("b", "c"):
        assert (await port.ask(port.client(name))).status == 200
    assert port.seats.strangers.taken <= 8
    assert port.seats.members.taken == 2


async def test_strangers_take_no_place_of_a_member(port: Port) -> None:
    client = port.client()
    await port.ask(client)
    [kept] = client._idle["a", port.address]
    for _ in range(16):
        await port.idle("client")
    for _ in range(16):
        await port.silent()
    await until(lambda: port.seats.strangers.taken == 8)
    assert kept.is_open
    assert (await port.ask(client)).status == 200


async def test_one_member_cannot_have_the_places_of_others(port: Port) -> None:
    streams = [await port.idle("b") for _ in range(6)]
    await until(lambda: port.seats.members.taken == 2 and port.seats.strangers.taken == 0)
    assert [await ended(stream) for stream in streams[:4]] == [True] * 4
    assert (await port.ask(port.client("c"))).status == 200


async def test_places_in_use_are_not_taken(rpc_cluster: FakeCluster, tls_directory: Path) -> None:
    gate = asyncio.Event()

    async def wait(argument: int) -> int:
        await gate.wait()
        return argument

    seats = peer_seats(Caps(8, 8), Caps(2, 2))
    async with (
        rpc_nodes(rpc_cluster, tls_directory, {"a": {"double": wait}}, seats=seats) as nodes,
        AsyncExitStack() as stack,
    ):
        rpc_cluster.elect("a")
        port = Port(nodes["a"], seats, tls_directory, stack)
        client = port.client()
        asked = [asyncio.create_task(port.ask(client)) for _ in range(2)]
        await until(lambda: seats.members.taken == 2)
        with pytest.raises((Unanswered, Unreached)):
            await port.ask(port.client("c"))
        gate.set()
        assert [answer.status for answer in await asyncio.gather(*asked)] == [200, 200]


async def test_whoever_becomes_a_member_is_one_from_its_next_request_on(port: Port) -> None:
    replica = port.node.cluster.replicas["a"].real
    without = Admission({name: member for name, member in replica.members.items() if name != "b"})
    port.node.server._replica = _Members(without)  # type: ignore[assignment]
    client = port.client()
    assert (await port.ask(client)).status == 403
    assert port.seats.members.taken == 0
    port.node.server._replica = replica
    assert (await port.ask(client)).status == 200
    await until(lambda: (port.seats.strangers.taken, port.seats.members.taken) == (0, 1))


async def test_whoever_becomes_a_member_while_it_is_connected_is_heard_at_once(port: Port) -> None:
    replica = port.node.cluster.replicas["a"].real
    port.node.server._replica = _Members(Admission({"a": replica.members["a"]}))  # type: ignore[assignment]
    reader, writer = await port.idle("b")
    await until(lambda: port.seats.strangers.taken == 1)
    port.node.server._replica = replica
    writer.write(_request(b""))
    async with asyncio.timeout(DEADLINE_SECONDS):
        assert (await reader.readline()).startswith(b"HTTP/1.1 400 ")  # it is read, and no message
    assert (port.seats.strangers.taken, port.seats.members.taken) == (0, 1)


class _Members:
    def __init__(self, admission: Admission) -> None:
        self.admission = admission


def _request(body: bytes, length: int | None = None, *headers: str) -> bytes:
    lines = ("POST /rpc/double HTTP/1.1", "Host: a", f"Content-Length: {length or len(body)}", *headers)
    return "".join(f"{line}\r\n" for line in lines).encode() + b"\r\n" + body


async def test_refused_request_is_not_read_on(port: Port) -> None:
    """Of a member, too: it is told at once, and the connection ends."""
    for header in ("Content-Encoding: gzip", "Expect: something"):
        stream = reader, writer = await port.idle("b")
        writer.write(_request(b"", 4_000_000, header))
        async with asyncio.timeout(DEADLINE_SECONDS / 2):
            assert (await reader.readline()).startswith(b"HTTP/1.1 4")
            assert (await reader.read()) != b""
        assert await ended(stream)


# -- strangers: certificates of the agent CA that are no member's

_SAID = {
    "nothing": b"",
    "the head of a request": _request(b"", 4_000_000),
    "half a head": b"POST /rpc/double HTTP/1.1\r\n",
    "a whole request": _request(b"x"),
}


@pytest.mark.parametrize("said", _SAID.values(), ids=_SAID)
async def test_strangers_give_way_whatever_they_have_said(
    port: Port, monkeypatch: pytest.MonkeyPatch, said: bytes
) -> None:
    monkeypatch.setattr(rpc_server, "_STRANGER_SECONDS", 3600.0)
    monkeypatch.setattr(rpc_server, "_TOLD_SECONDS", 3600.0)
    for _ in range(8):
        _, writer = await port.idle("client")
        writer.write(said)
    await until(lambda: port.seats.strangers.taken == 8)
    await asyncio.sleep(0)
    for name in ("b", "c"):
        assert (await port.ask(port.client(name))).status == 200


def test_a_stranger_has_two_seconds() -> None:
    assert rpc_server._STRANGER_SECONDS + rpc_server._TOLD_SECONDS <= 2.5


async def test_nothing_is_read_of_a_stranger_once_it_was_told(port: Port, monkeypatch: pytest.MonkeyPatch) -> None:
    came: list[int] = []
    parsed: list[bytes] = []
    monkeypatch.setattr(RequestHandler, "data_received", lambda _self, data: parsed.append(data))
    hear = rpc_server.Connection.data_received

    def counted(connection: rpc_server.Connection, data: bytes) -> None:
        came.append(len(data))
        hear(connection, data)

    monkeypatch.setattr(rpc_server.Connection, "data_received", counted)
    reader, writer = await port.idle("client")
    writer.write(_request(bytes(16 << 20)))
    async with asyncio.timeout(DEADLINE_SECONDS):
        assert (await reader.readline()).startswith(b"HTTP/1.1 403 ")
    await until(lambda: port.seats.taken == 0)
    assert sum(came) <= 1 << 20
    assert parsed == []


async def test_answer_to_a_stranger_is_not_lost_by_what_it_still_sends(port: Port) -> None:
    replica = port.node.cluster.replicas["a"].real
    port.node.server._replica = _Members(Admission({"a": replica.members["a"]}))  # type: ignore[assignment]
    what = operation("double")
    big = Ask("x" * (4 << 20))
    for _ in range(5):
        answer = await port.client().post(
            "a", port.address, "double", lambda v: pack_requests(what, [Asked(big)], 5.0, v)
        )
        assert (answer.status, answer.body) == (403, b"no server of this cluster")


async def test_connection_of_a_stranger_outlives_its_answer_for_a_moment(port: Port) -> None:
    """An end beside what is unread would be a reset, which may overtake the answer."""
    reader, writer = await port.idle("client")
    writer.write(_request(b"x"))
    assert (await reader.readline()).startswith(b"HTTP/1.1 403 ")
    assert port.seats.strangers.taken == 1
    await until(lambda: port.seats.taken == 0)


# -- and members that are none any more


async def test_connections_of_a_server_that_is_removed_end(port: Port, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rpc_server, "_STRANGER_SECONDS", 0.1)
    removed, kept = port.client("b"), port.client("c")
    for client in (removed, kept):
        assert (await port.ask(client)).status == 200
    silent = await port.idle("b")
    [idle], [stays] = removed._idle["a", port.address], kept._idle["a", port.address]
    cluster = port.node.cluster
    cluster.members, cluster.removed = {name: cluster.members[name] for name in "ac"}, frozenset("b")
    await until(lambda: not idle.is_open)
    assert await ended(silent)
    assert stays.is_open
    assert port.seats.taken == 1


async def test_removal_ends_connections_at_once_and_not_when_it_is_looked_next(
    rpc_cluster: FakeCluster, tls_directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("_STRANGER_SECONDS", "_JUDGE_SECONDS"):
        monkeypatch.setattr(rpc_server, name, 3600.0)
    async with _port(rpc_cluster, tls_directory, Caps(8, 8), Caps(4, 2)) as port:
        silent = await port.idle("b")
        assert (await port.ask(port.client("b"))).status == 200
        await until(lambda: port.seats.members.taken == 2)
        rpc_cluster.members, rpc_cluster.removed = {name: rpc_cluster.members[name] for name in "ac"}, frozenset("b")
        rpc_cluster.replicas["a"].admission_changed.fire()
        assert await ended(silent)
        await until(lambda: port.seats.taken == 0)


async def test_kept_connections_to_a_server_that_was_removed_end_with_it(port: Port) -> None:
    refused: set[str] = set()
    client = RpcClient(node_tls(port.tls_directory, "b"), lambda peer, _key: "removed" if peer in refused else None)
    assert (await port.ask(client)).status == 200
    [kept] = client._idle["a", port.address]
    client.drop_refused()
    assert kept.is_open
    refused.add("a")
    client.drop_refused()
    assert not kept.is_open


async def test_request_of_a_server_that_is_being_removed_is_answered(
    rpc_cluster: FakeCluster, tls_directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may be the one by which it is removed."""

    async def remove(argument: int) -> int:
        rpc_cluster.members = {name: rpc_cluster.members[name] for name in "ac"}
        await asyncio.sleep(0.2)  # it is judged anew meanwhile
        return argument

    monkeypatch.setattr(rpc_server, "_JUDGE_SECONDS", 0.02)
    monkeypatch.setattr(rpc_server, "_STRANGER_SECONDS", 0.05)  # it takes longer than a stranger may stay
    seats = peer_seats(Caps(8, 8), Caps(4, 2))
    async with (
        rpc_nodes(rpc_cluster, tls_directory, {"a": {"double": remove}}, seats=seats) as nodes,
        AsyncExitStack() as stack,
    ):
        rpc_cluster.elect("a")
        port = Port(nodes["a"], seats, tls_directory, stack)
        client = port.client()
        assert (await port.ask(client)).status == 200
        assert (await port.ask(client)).status == 403


async def test_request_without_an_end_is_408(port: Port, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rpc_server, "_BODY_SECONDS", 0.1)
    reader, writer = await port.idle("b")
    writer.write(b"POST /rpc/double HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nabc")
    async with asyncio.timeout(DEADLINE_SECONDS):
        assert (await reader.readline()).startswith(b"HTTP/1.1 408 ")


async def test_connections_that_are_not_used_make_room_for_others(
    rpc_cluster: FakeCluster, tls_directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To a leader before, say: nobody asks it any more, and nobody would look at them."""
    async with _port(rpc_cluster, tls_directory, Caps(8, 8), Caps(8, 8)) as port:
        client = port.client(max_connections=2)
        await asyncio.gather(port.ask(client), port.ask(client))
        first, second = client._idle["a", port.address]
        port.address = port.address.replace("127.0.0.1", "localhost")
        await port.ask(client)
        assert (first.is_open, second.is_open) == (False, True)
        port.address = port.address.replace("localhost", "127.0.0.2")
        monkeypatch.setattr(rpc_client, "_IDLE_SECONDS", 0.0)
        with pytest.raises(Unreached):  # nobody is there, and yet they are looked at
            await port.ask(client)
        assert not second.is_open
