"""What an accepted connection does with the bytes that come in, without a socket."""

import asyncio
from collections.abc import Mapping
from dataclasses import replace
from typing import cast

import pytest

from cluster.raft.admission import Admission, Word
from cluster.raft.codec import FRAME_HEADER, MAX_FRAME_BYTES, Message, pack_frame, unpack_message
from cluster.raft.membership import Members, learner
from cluster.raft.transport import TlsLinks, _Inbound, _Outbound, redial_pause
from cluster.tls.contexts import NodeTls
from tests.kit.log import EventLog
from tests.kit.wait import until
from tests.sim.cluster import member

HELLO = pack_frame({"type": "hello", "ct": 0, "address": "b:8300"})
KEY, OTHER_KEY = b"k" * 72, b"o" * 72
NOTICE: Message = {"type": "term_notice", "ct": 3, "term": 3}


class Connection:
    """A connection of node b to node a. Also a's TLS, the owner of its links, and the transport."""

    def __init__(
        self,
        certificate_names: str | None = "b",
        *,
        admission: Admission | None = None,
        key: bytes = KEY,
        extra: Mapping[str, object] | None = None,
    ) -> None:
        self.peer = certificate_names
        self.extra = extra or {}
        self.key = key
        self.received: list[tuple[str, Message]] = []
        self.strangers: list[str] = []
        self.wakes = 0
        self.is_aborted = False
        self.log = EventLog()
        self.links = TlsLinks("a", "a:8300", cast(NodeTls, self), self, self.log)
        self.links.set_admission(admission or Admission({}))
        self.connect_again()

    def connect_again(self) -> None:
        self.inbound = _Inbound(self.links)
        self.inbound.connection_made(cast(asyncio.Transport, self))

    def feed(self, *pieces: bytes) -> None:
        for piece in pieces:
            self.inbound.data_received(piece)

    @property
    def messages(self) -> list[Message]:
        return [message for _, message in self.received]

    def stranger(self, peer: str) -> None:
        self.strangers.append(peer)

    # -- TLS and transport

    def peer_name(self, _certificate: object) -> str | None:
        return self.peer

    def peer_key(self, _connection: object) -> bytes:
        return self.key

    def get_extra_info(self, name: str) -> object:
        return self.extra.get(name)

    def abort(self) -> None:
        self.is_aborted = True

    # -- LinkOwner

    def receive(self, peer: str, message: Message) -> None:
        self.received.append((peer, message))

    def link_up(self, peer: str) -> None: ...
    def link_down(self, peer: str) -> None: ...
    def peer_lost(self, peer: str) -> None: ...
    def wake(self) -> None:
        self.wakes += 1


def test_messages_behind_the_hello_are_received_as_from_the_peer_of_the_certificate() -> None:
    connection = Connection()
    connection.feed(HELLO + pack_frame(NOTICE))
    assert connection.received == [("b", NOTICE)]


@pytest.mark.parametrize("size", [1, 2, 7])
def test_frames_that_come_in_pieces_are_put_together(size: int) -> None:
    connection = Connection()
    data = HELLO + 3 * pack_frame(NOTICE)
    connection.feed(*(data[start : start + size] for start in range(0, len(data), size)))
    assert connection.messages == 3 * [NOTICE]


@pytest.mark.parametrize("names", [None, "a"])
def test_certificate_of_no_other_server_gets_nowhere(names: str | None) -> None:
    connection = Connection(names)
    assert connection.is_aborted
    assert connection.log.names() == ["raft.peer_refused"]


@pytest.mark.parametrize(
    ("certificate", "shown"),
    [
        (None, "none"),
        ({}, "none"),
        ({"subjectAltName": (("DNS", "a.server.dc1.consul"), ("DNS", "localhost"))}, "a.server.dc1.consul, localhost"),
        ({"subjectAltName": 1000 * (("DNS", "a.server.dc1.consul"),)}, (100 * "a.server.dc1.consul, ")[:200]),
    ],
    ids=["no certificate", "no name", "names", "very many"],
)
@pytest.mark.parametrize("names", [None, "a"])
def test_who_is_refused_for_the_certificate_can_be_found(names: str | None, certificate: object, shown: str) -> None:
    connection = Connection(names, extra={"peercert": certificate, "peername": ("192.0.2.7", 40000)})
    [(_, fields)] = connection.log.events
    assert (fields["address"], fields["names"]) == ("192.0.2.7", shown)


def assert_cut(connection: Connection, messages: list[Message]) -> None:
    """No more than `messages` came through, and nothing that follows does."""
    assert connection.is_aborted
    assert connection.log.names() == ["raft.frame_refused"]
    connection.feed(HELLO, pack_frame(NOTICE))
    assert connection.messages == messages


def test_frame_that_announces_too_much_is_refused_before_it_arrives() -> None:
    connection = Connection()
    connection.feed(HELLO, FRAME_HEADER.pack(MAX_FRAME_BYTES + 1))
    assert_cut(connection, [])


@pytest.mark.parametrize("first", [NOTICE, {"type": "pull_bulk", "ct": 1, "log_index": 1, "after": 0}])
def test_connection_that_does_not_begin_with_a_hello_is_refused(first: Message) -> None:
    connection = Connection()
    connection.feed(pack_frame(first))
    assert_cut(connection, [])


def test_second_hello_is_refused() -> None:
    connection = Connection()
    connection.feed(HELLO, pack_frame(NOTICE), HELLO)
    assert_cut(connection, [NOTICE])


def test_frame_that_is_no_message_is_refused() -> None:
    connection = Connection()
    connection.feed(HELLO, FRAME_HEADER.pack(3) + b"abc")
    assert_cut(connection, [])


# -- names and keys


def pinned(*names: str) -> Members:
    return {name: replace(member(name), keys=(KEY,)) for name in names}


def test_connection_that_is_being_closed_is_judged_no_more() -> None:
    """It is there until the loop says so, and the configuration may change in the same turn."""
    connection = Connection()
    connection.feed(HELLO, FRAME_HEADER.pack(3) + b"abc")
    connection.links.set_admission(Admission(pinned("a"), frozenset({"b"})))
    assert_cut(connection, [])


def test_rest_of_what_has_arrived_is_not_heard_once_its_sender_is_refused() -> None:
    class Removing(Connection):
        def receive(self, peer: str, message: Message) -> None:
            super().receive(peer, message)
            self.links.set_admission(Admission(pinned("a"), frozenset({"b"})))

    connection = Removing()
    connection.feed(HELLO + 3 * pack_frame(NOTICE))
    assert connection.messages == [NOTICE]
    assert connection.is_aborted


@pytest.mark.parametrize(
    ("admission", "key"),
    [
        (Admission(pinned("a", "b")), OTHER_KEY),
        (Admission(pinned("a"), frozenset({"b"})), KEY),
        (Admission({**pinned("a"), "b": learner(member("b"))}), KEY),
    ],
    ids=["other key", "removed", "not seen yet"],
)
def test_server_that_is_refused_gets_nowhere_and_it_is_said_once(admission: Admission, key: bytes) -> None:
    connection = Connection(admission=admission, key=key)
    connection.feed(HELLO + pack_frame(NOTICE))
    assert connection.is_aborted
    assert not connection.received
    assert connection.strangers == ["b"]  # others are asked, who may know better
    connection.connect_again()
    assert connection.log.names() == ["raft.peer_refused"]


def test_nothing_of_a_stranger_is_heard_but_that_it_is_there() -> None:
    connection = Connection(admission=Admission(pinned("a", "c")))
    connection.feed(HELLO + pack_frame(NOTICE))
    assert (connection.received, connection.strangers) == ([], ["b"])
    assert not connection.is_aborted
    connection.links.set_admission(Admission(pinned("a", "c"), frozenset(), {"b": Word((KEY,), "c", (KEY,))}))
    connection.feed(pack_frame(NOTICE))
    assert connection.received == [("b", NOTICE)]


@pytest.mark.parametrize("size", [200, 1000, 1 << 13])
def test_no_part_of_a_frame_of_a_stranger_is_kept(size: int) -> None:
    """What comes once it is known is heard again, from the next frame on."""
    connection = Connection(admission=Admission(pinned("a", "c")))
    part = {"type": "bulk_part", "ct": 3, "log_index": 1, "after": 0, "data": bytes(1 << 13), "is_last": True}
    frame = pack_frame(part)
    connection.feed(HELLO)
    for start in range(0, len(frame) - 100, size):
        connection.feed(frame[start : min(start + size, len(frame) - 100)])
        assert len(connection.inbound._buffer) < FRAME_HEADER.size
    assert connection.strangers == ["b"]
    connection.links.set_admission(Admission(pinned("a", "c"), frozenset(), {"b": Word((KEY,), "c", (KEY,))}))
    connection.feed(frame[len(frame) - 100 :] + pack_frame(NOTICE))
    assert connection.received == [("b", NOTICE)]
    assert not connection.is_aborted


@pytest.mark.parametrize("frame", [pack_frame(NOTICE), FRAME_HEADER.pack(0), bytes(1), FRAME_HEADER.pack(1 << 20)])
@pytest.mark.parametrize("at_once", [1, 100, 1 << 16])
def test_stranger_that_goes_on_talking_is_cut_off_unheard(
    frame: bytes, at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever it is: none of it is unpacked, nobody is asked on its account, and the node is not woken by it."""
    unpacked: list[Message] = []

    def seen(body: bytes) -> Message:
        unpacked.append(unpack_message(body))
        return unpacked[-1]

    monkeypatch.setattr("cluster.raft.transport.unpack_message", seen)
    connection = Connection(admission=Admission(pinned("a", "c")))
    for chunk in (HELLO, *[frame * at_once] * 70):
        connection.feed(chunk)
        if connection.is_aborted:
            break
    assert connection.is_aborted
    assert len(connection.inbound._buffer) < FRAME_HEADER.size
    assert [message["type"] for message in unpacked] == ["hello"]
    assert (connection.received, connection.strangers, connection.wakes) == ([], ["b"], 0)


def test_what_a_stranger_sends_with_its_hello_counts() -> None:
    connection = Connection(admission=Admission(pinned("a", "c")))
    connection.feed(HELLO + FRAME_HEADER.pack(0) * (1 << 16))
    assert connection.is_aborted
    assert connection.strangers == ["b"]


def test_members_may_say_as_much_as_they_like() -> None:
    connection = Connection(admission=Admission(pinned("a", "b")))
    connection.feed(HELLO, *[pack_frame(NOTICE) * 100] * 70)
    assert not connection.is_aborted
    assert len(connection.received) == 7000


@pytest.mark.parametrize("names", [None, "a"])
def test_certificates_of_no_other_server_are_in_the_log_once_a_second(names: str | None) -> None:
    connection = Connection(names)
    for _ in range(50):
        connection.connect_again()
    assert 1 <= connection.log.names().count("raft.peer_refused") <= 5


def test_frames_of_strangers_that_are_none_are_in_the_log_once_a_second() -> None:
    connection = Connection(admission=Admission(pinned("a", "c")))
    for number in range(50):
        connection.peer = f"b{number}"
        connection.connect_again()
        connection.feed(pack_frame(NOTICE))
    assert 1 <= connection.log.names().count("raft.frame_refused") <= 5
    assert connection.links.frames_refused == 50


def test_hello_that_is_as_long_as_a_frame_is_refused_by_its_header() -> None:
    connection = Connection()
    connection.feed(FRAME_HEADER.pack(1 << 20))
    assert connection.is_aborted
    [(event, fields)] = connection.log.events
    assert (event, fields["reason"]) == ("raft.frame_refused", "frame of 1048576 bytes: at most 4096 are allowed here")


def test_connection_ends_when_its_server_is_removed_or_gets_another_key() -> None:
    for after in (Admission(pinned("a"), frozenset({"b"})), Admission({"b": replace(member("b"), keys=(OTHER_KEY,))})):
        connection = Connection(admission=Admission(pinned("a", "b")))
        connection.feed(HELLO + pack_frame(NOTICE))
        assert connection.received == [("b", NOTICE)]
        connection.links.set_admission(after)
        assert connection.is_aborted


# -- dialling


@pytest.mark.parametrize(("is_learner", "bound"), [(False, 1.5), (True, 15.0)])
def test_pauses_between_attempts_grow_and_are_bounded(is_learner: bool, bound: float) -> None:
    least = [redial_pause(failures, 0.0, is_learner=is_learner) for failures in range(1, 1000)]
    most = [redial_pause(failures, 1.0, is_learner=is_learner) for failures in range(1, 1000)]
    assert least[0] == pytest.approx(0.05)
    assert most[0] == pytest.approx(0.15)
    assert sorted(most) == most
    assert most[3] == 8 * most[0]
    assert (least[-1], most[-1]) == (bound / 3, bound)


class Dialled(Connection):
    """What node a does about b, which is not there."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        super().__init__()
        self.failures: list[int] = []
        self.attempts = 0
        self.paused = asyncio.Event()
        monkeypatch.setattr("cluster.raft.transport.redial_pause", self._pause)
        monkeypatch.setattr(self.links, "_connect", self._connect)
        monkeypatch.setattr(self.links, "_server", self)
        self.links.set_members({name: member(name) for name in "ab"})

    async def _connect(self, _peer: str, _address: str) -> None:
        self.attempts += 1
        raise ConnectionRefusedError

    def _pause(self, failures: int, spread: float, *, is_learner: bool) -> float:
        self.failures.append(failures)
        return 0.0 if len(self.failures) < 5 else 1e6


async def test_absent_peer_is_dialled_with_growing_pauses_until_there_is_a_sign_of_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    dialled = Dialled(monkeypatch)
    await until(lambda: dialled.attempts == 5)
    assert dialled.failures == [1, 2, 3, 4, 5]
    dialled.connect_again()  # it dials this node
    await until(lambda: dialled.attempts == 6)
    dialled.links.dial_at_once("b")  # an operator says that it is there
    await until(lambda: dialled.attempts == 7)
    assert dialled.failures[5:] == [1, 1]
    dialled.links.set_members({"a": member("a")})


async def test_server_at_an_address_that_is_another_is_not_sent_anything(monkeypatch: pytest.MonkeyPatch) -> None:
    connection = Connection(admission=Admission(pinned("a", "b")), key=OTHER_KEY)
    written: list[bytes] = []
    monkeypatch.setattr(connection, "write", written.append, raising=False)
    monkeypatch.setattr(connection, "set_write_buffer_limits", lambda high: None, raising=False)
    connection.links.set_members(pinned("a", "b"))
    connection.is_aborted = False
    _Outbound(connection.links, "b").connection_made(cast(asyncio.Transport, connection))
    assert (connection.is_aborted, written) == (True, [])
    assert connection.links.key_of("b") is None
    connection.key, connection.is_aborted = KEY, False
    _Outbound(connection.links, "b").connection_made(cast(asyncio.Transport, connection))
    assert (connection.is_aborted, written) == (False, [HELLO.replace(b"b:8300", b"a:8300")])
    assert connection.links.key_of("b") == KEY
