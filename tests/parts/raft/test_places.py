"""Places on the Raft port: strangers hold none for long, and never one of a member."""

import asyncio
import ssl
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
import uvloop

from cluster.base.seats import Caps, PeerSeats
from cluster.raft import transport
from cluster.raft.admission import Admission
from cluster.raft.codec import Message, pack_frame
from cluster.raft.membership import Member
from cluster.raft.transport import TlsLinks
from tests.kit.log import EventLog
from tests.kit.ports import free_ports
from tests.kit.rpc_nodes import node_tls
from tests.kit.seats import peer_seats
from tests.kit.wait import until

DEADLINE_SECONDS = 10.0
HELLO = pack_frame({"type": "hello", "ct": 0, "address": "127.0.0.1:1"})

Stream = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Port:
    """The Raft port of node a, of which b is the other member."""

    def __init__(self, directory: Path, seats: PeerSeats) -> None:
        self.seats = seats
        self.port = free_ports(1)[0]
        self.streams: list[Stream] = []
        self.strangers: list[str] = []
        self._directory = directory
        self.links = TlsLinks("a", f"127.0.0.1:{self.port}", node_tls(directory, "a"), self, EventLog())

    async def open(self) -> None:
        self.set_members("b")
        await self.links.listen(f"127.0.0.1:{self.port}", self.seats)

    def set_members(self, *names: str) -> None:
        nowhere = f"127.0.0.1:{free_ports(1)[0]}"
        members = {name: Member(name, nowhere, nowhere) for name in names}
        self.links.set_members(members)
        self.links.set_admission(Admission(members))

    def member(self, name: str) -> Member:
        return Member(name, "127.0.0.1:1", "127.0.0.1:1")

    async def close(self) -> None:
        for _, writer in self.streams:
            writer.transport.abort()
        await self.links.close()

    async def silent(self) -> Stream:
        return self._kept(await asyncio.open_connection("127.0.0.1", self.port))

    async def node(self, name: str, *, says: bytes = HELLO) -> Stream:
        """A server's connection, whose handshake is over."""
        context: ssl.SSLContext = node_tls(self._directory, name).client_context
        stream = await asyncio.open_connection(
            "127.0.0.1", self.port, ssl=context, server_hostname="a.server.dc1.consul"
        )
        stream[1].write(says)
        return self._kept(stream)

    def _kept(self, stream: Stream) -> Stream:
        self.streams.append(stream)
        return stream

    # -- LinkOwner

    def receive(self, peer: str, message: Message) -> None: ...
    def link_up(self, peer: str) -> None: ...
    def link_down(self, peer: str) -> None: ...
    def peer_lost(self, peer: str) -> None: ...
    def wake(self) -> None: ...
    def stranger(self, peer: str) -> None:
        self.strangers.append(peer)


@pytest.fixture
async def port(tls_directory: Path) -> AsyncIterator[Port]:
    made = Port(tls_directory, peer_seats(Caps(6, 6), Caps(4, 2), "raft"))
    await made.open()
    yield made
    await made.close()


async def ended(stream: Stream) -> bool:
    async with asyncio.timeout(DEADLINE_SECONDS):
        try:
            return await stream[0].read() == b""
        except (ConnectionError, ssl.SSLError):
            return True


async def test_silent_handshake_ends_within_seconds(port: Port) -> None:
    assert transport._HANDSHAKE_SECONDS <= 3.0
    stream = await port.silent()
    await until(lambda: port.seats.strangers.taken == 1)
    assert await ended(stream)
    assert port.seats.taken == 0


@pytest.mark.parametrize("name", ["b", "c"])
async def test_peer_that_says_no_hello_is_let_go(port: Port, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setattr(transport, "_HELLO_SECONDS", 0.2)
    stream = await port.node(name, says=b"")
    assert await ended(stream)
    await until(lambda: port.seats.taken == 0)


async def test_peer_that_said_hello_stays(port: Port, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transport, "_HELLO_SECONDS", 0.2)
    silent = await port.node("c", says=b"")
    reader, _ = await port.node("b")
    assert await ended(silent)  # it came before
    assert not reader.at_eof()
    assert (port.seats.strangers.taken, port.seats.members.taken) == (0, 1)


async def test_strangers_take_no_place_of_a_member_and_do_not_shut_it_out(port: Port) -> None:
    before, _ = await port.node("b")
    await until(lambda: port.seats.members.taken == 1)
    for _ in range(30):
        await port.silent()
    for _ in range(8):
        await port.node("c")
    await until(lambda: port.seats.strangers.taken == 6)
    after, _ = await port.node("b")
    await until(lambda: port.seats.members.taken == 2)
    assert not before.at_eof()
    assert not after.at_eof()


async def test_the_next_connection_of_a_member_takes_the_place_of_its_oldest(port: Port) -> None:
    streams = [await port.node("b") for _ in range(4)]
    assert [await ended(stream) for stream in streams[:2]] == [True, True]
    await until(lambda: port.seats.members.taken == 2)
    assert [reader.at_eof() for reader, _ in streams[2:]] == [False, False]


async def test_whoever_becomes_a_member_has_a_members_place(port: Port) -> None:
    reader, _ = await port.node("c")
    await until(lambda: len(port.links._inbound) == 1)
    port.set_members("b", "c")
    assert (port.seats.strangers.taken, port.seats.members.taken) == (0, 1)
    for _ in range(30):
        await port.silent()
    await until(lambda: port.seats.strangers.taken == 6)
    assert not reader.at_eof()


async def test_others_are_asked_about_a_stranger_while_it_is_there_and_known_no_more(
    port: Port, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It says nothing after its hello, and the first answer may have been lost."""
    monkeypatch.setattr(transport, "_ASK_SECONDS", 0.02)
    port.links.set_admission(Admission({"b": replace(port.member("b"), keys=(b"k" * 72,))}))
    _, writer = await port.node("c")
    await until(lambda: port.strangers.count("c") >= 4)
    writer.transport.abort()
    await until(lambda: not port.links._inbound)
    await until(lambda: port.links._asking is None)
    await port.node("c")
    before = len(port.strangers)
    await until(lambda: len(port.strangers) >= before + 2)


async def test_flood_of_a_stranger_is_not_read(port: Port) -> None:
    port.links.set_admission(Admission({"b": replace(port.member("b"), keys=(b"k" * 72,))}))
    frame = pack_frame({"type": "pre_vote", "ct": 9, "term": 9, "last_log_index": 9, "last_log_term": 9, "round": 1})
    stream = await port.node("c", says=HELLO + frame * 100_000)
    assert await ended(stream)
    assert port.strangers == ["c"]


@pytest.mark.parametrize("kind", ["removed", "another key", "flood"])
def test_whoever_is_refused_is_gone_at_once_on_the_loop_of_a_node(tls_directory: Path, kind: str) -> None:
    """Also one that is refused in the very turn in which its handshake is over."""

    async def refused() -> None:
        port = Port(tls_directory, peer_seats(Caps(6, 6), Caps(4, 2), "raft"))
        await port.open()
        known = {"b": replace(port.member("b"), keys=(b"k" * 72,))}
        port.links.set_admission(Admission(known, frozenset("c" if kind == "removed" else "")))
        frames = pack_frame({"type": "term_notice", "ct": 3, "term": 3}) * (1000 if kind == "flood" else 1)
        for _ in range(3):
            stream = await port.node("b" if kind == "another key" else "c", says=HELLO + frames)
            async with asyncio.timeout(1.0):
                assert await ended(stream)
        await until(lambda: port.seats.taken == 0)
        await port.close()

    uvloop.run(refused())
