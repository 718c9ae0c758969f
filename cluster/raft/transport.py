"""Connections between nodes: TLS 1.3 with certificates on both sides, msgpack frames, every size bounded.

A node sends only on connections it dialled and receives only on those it accepted. Nothing of a frame is looked at
before the handshake has proved a server of this cluster; the peer's name is the certificate's, never the message's, and
its key must be the one that the configuration has for that name (`admission.py`).
"""

import asyncio
import contextlib
import random
import socket
import ssl
import time
from collections.abc import Mapping
from typing import Any, Final, Protocol, cast

from cluster.base.listener import Accepting, Listener, listen
from cluster.base.log import Log, Seldom
from cluster.base.seats import PeerSeats, Seat, Seats
from cluster.raft.admission import Admission, Standing, is_key_of
from cluster.raft.codec import FRAME_HEADER, MAX_FRAME_BYTES, Message, MessageInvalid, pack_frame, unpack_message
from cluster.raft.membership import Members
from cluster.tls.contexts import NodeTls
from cluster.tls.keys import expiry_part

_HANDSHAKE_SECONDS: Final = 3.0
#: In which a peer says hello: nodes do at once.
_HELLO_SECONDS: Final = 3.0
#: A name and an address. Until it is read, nothing is known of a connection but its certificate.
_MAX_HELLO_BYTES: Final = 4096
#: From a stranger, after its hello, until it is known: heartbeats of some seconds. A server dials again.
_MAX_UNHEARD_BYTES: Final = 16 << 10
#: What comes by itself counts for so much at least: it is its arrival that takes time.
_LEAST_UNHEARD_BYTES: Final = 256
#: How often others are asked about the strangers that are connected, and about how many at a time.
_ASK_SECONDS: Final = 0.5
_ASKED_ABOUT: Final = 8
_DIAL_SECONDS: Final = 2.0
#: Between attempts to reach a peer: doubled with each that fails, up to a bound that is larger for a server which has
#: no vote yet, as it may never have been there. A peer that dials this node is dialled at once.
_REDIAL_SECONDS: Final = 0.1
_MAX_REDIAL_SECONDS: Final = 1.0
_MAX_LEARNER_REDIAL_SECONDS: Final = 10.0
_DOUBLINGS: Final = 10
#: Names whose refusal was logged and is not logged again. Whoever has the agent CA's key can invent more.
_TURNED_AWAY: Final = 32
#: Of the names in a certificate that is refused: it may have thousands.
_MAX_SHOWN: Final = 200
#: What dialling an address may raise that was never looked at: the last one for a port above 65535.
_UNREACHABLE: Final = (OSError, ValueError, TimeoutError, OverflowError)
#: A peer that leaves so much unread is cut off rather than let grow.
_MAX_UNREAD_BYTES: Final = 64 << 20
#: Probe an idle connection each second; what was not acknowledged for two seconds went to a host that is gone.
_LIVENESS: Final = tuple(
    (getattr(socket, name), value)
    for name, value in (("TCP_KEEPIDLE", 1), ("TCP_KEEPINTVL", 1), ("TCP_KEEPCNT", 3), ("TCP_USER_TIMEOUT", 2000))
    if hasattr(socket, name)
)


def redial_pause(failures: int, spread: float, *, is_learner: bool) -> float:
    """Seconds until a peer is dialled again, or looked after; `spread` from 0 to 1 keeps many from dialling at once."""
    bound = _MAX_LEARNER_REDIAL_SECONDS if is_learner else _MAX_REDIAL_SECONDS
    doubled = _REDIAL_SECONDS * 2 ** min(max(0, failures - 1), _DOUBLINGS)
    return float(min(doubled, bound) * (0.5 + spread))


class LinkOwner(Protocol):
    """Whom the links report to; called on the event loop's thread."""

    def receive(self, peer: str, message: Message) -> None:
        """Raises: MessageInvalid, which closes the connection."""
        ...

    def link_up(self, peer: str) -> None: ...
    def link_down(self, peer: str) -> None: ...
    def peer_lost(self, peer: str) -> None: ...
    def stranger(self, peer: str) -> None:
        """Somebody is there who is no server as far as this node knows."""
        ...

    def wake(self) -> None: ...


def _tune(transport: asyncio.BaseTransport) -> None:
    sock = transport.get_extra_info("socket")
    if sock is None:
        return
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    # A host that is gone closes nothing. Connections that only receive, or are idle, notice by probes alone: otherwise
    # the dead one would stay beside the next one, and hide that one's end (`closed`).
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in _LIVENESS:
        with contextlib.suppress(OSError):
            sock.setsockopt(socket.IPPROTO_TCP, option, value)


def _host_of(transport: asyncio.BaseTransport) -> str:
    """Where a connection comes from; empty when it is gone already."""
    return str((transport.get_extra_info("peername") or ("",))[0])


def _names_in(certificate: Mapping[str, Any] | None) -> str:
    """What a certificate says it is for, as far as a line of the log has room for it."""
    names = [str(value) for _, value in (certificate or {}).get("subjectAltName", ())]
    return ", ".join(names)[:_MAX_SHOWN] or "none"


class _Inbound(asyncio.Protocol):
    """An accepted connection: receives only."""

    def __init__(self, links: "TlsLinks", seat: Seat | None = None) -> None:
        self._links = links
        self._seat = seat
        self._hello: asyncio.TimerHandle | None = None
        self._buffer = bytearray()
        self._passed_over = 0  # bytes to come of a frame that is not kept
        self._unheard = 0  # bytes that have come from a stranger
        self._is_greeted = False
        self.peer: str | None = None
        self.address = ""  # where it says that it listens
        self.key = b""
        self.standing = Standing.STRANGER
        self.transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # Not asserted: uvloop's transports are none of asyncio's classes.
        self.transport = transport = cast(asyncio.Transport, transport)
        _tune(transport)
        certificate = transport.get_extra_info("peercert")
        self.peer = self._links.tls.peer_name(certificate)
        if self.peer is None or self.peer == self._links.node_id:
            self._links.log_seldom(
                "raft.peer_refused",
                "",
                address=_host_of(transport),
                names=_names_in(certificate),
                reason="certificate names no other server of this cluster",
            )
            transport.abort()
            return
        try:
            self.key = self._links.tls.peer_key(transport.get_extra_info("ssl_object"))
        except ValueError as error:
            reason = f"certificate with an unusable key: {error}"
            self._links.log_seldom("raft.peer_refused", "", peer=self.peer, reason=reason)
            self.peer = None
            transport.abort()
            return
        if self._seat is not None:
            self._seat.end = transport.abort
            # Whoever comes next on a full port is worth as much, and a node that lost a connection dials again.
            self._seat.settle(lambda: True)
            self._hello = asyncio.get_running_loop().call_later(_HELLO_SECONDS, transport.abort)
        self._links.accepted(self)

    def seat_among(self, members: Seats) -> None:
        """It is a member's: no stranger takes its place."""
        if self._seat is not None and not self._seat.is_among(members):
            self._seat.move(members, self.peer or "")

    def data_received(self, data: bytes) -> None:
        if self._is_unheard(len(data)):
            return
        peer, buffer = self.peer, self._buffer
        if peer is None:
            return
        buffer += self._after_passed_over(data)
        offset, size = 0, len(buffer)
        try:
            while size - offset >= FRAME_HEADER.size:
                (length,) = FRAME_HEADER.unpack_from(buffer, offset)
                most = MAX_FRAME_BYTES if self._is_greeted else _MAX_HELLO_BYTES
                if length > most:
                    raise MessageInvalid(f"frame of {length} bytes: at most {most} are allowed here")
                start = offset + FRAME_HEADER.size
                if self._is_greeted and self.standing is Standing.STRANGER:
                    # None of it is heard, and many connections of strangers would fill the memory with it. What comes
                    # once it is known is heard from the next frame on.
                    offset = min(start + length, size)
                    self._passed_over = start + length - offset
                    continue
                if size - start < length:
                    break
                message = unpack_message(bytes(memoryview(buffer)[start : start + length]))
                offset = start + length
                if not self._is_greeted:
                    self._is_greeted = True
                    self._end_hello()
                    self._links.greeted(self, message)
                    if self._is_unheard(size - offset):
                        return
                elif self.standing in (Standing.REFUSED, Standing.UNPINNED):
                    return  # turned away by what was in the frame before: the rest is not heard
                else:
                    self._links.received(self, message)
        except MessageInvalid as error:
            self._links.frame_refused(peer, error)
            assert self.transport is not None
            self.peer = None
            self.transport.abort()
            return
        if offset:
            del buffer[:offset]
        if self.standing is not Standing.STRANGER:
            self._links.owner.wake()

    def _is_unheard(self, size: int) -> bool:
        """Whether a stranger has said more by now than one may: it takes the time in which this node would lead."""
        if not self._is_greeted or self.standing is not Standing.STRANGER:
            return False
        self._unheard += max(size, _LEAST_UNHEARD_BYTES)
        if self._unheard <= _MAX_UNHEARD_BYTES:
            return False
        assert self.transport is not None
        self.transport.abort()
        return True

    def _after_passed_over(self, data: bytes) -> bytes:
        """What follows the frame that is not kept."""
        passed = min(self._passed_over, len(data))
        self._passed_over -= passed
        return data[passed:]

    def connection_lost(self, _error: Exception | None) -> None:
        self._end_hello()
        if self._seat is not None:
            self._seat.leave()
        self._links.closed(self)

    def _end_hello(self) -> None:
        if self._hello is not None:
            self._hello.cancel()
            self._hello = None


class _Outbound(asyncio.Protocol):
    """A dialled connection: sends only."""

    def __init__(self, links: "TlsLinks", peer: str) -> None:
        self._links = links
        self.peer = peer
        self.key = b""
        self.transport: asyncio.Transport | None = None
        self.ended = asyncio.Event()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # Not asserted: uvloop's transports are none of asyncio's classes.
        self.transport = transport = cast(asyncio.Transport, transport)
        _tune(transport)
        with contextlib.suppress(ValueError):  # then it has none that could be pinned
            self.key = self._links.tls.peer_key(transport.get_extra_info("ssl_object"))
        transport.set_write_buffer_limits(high=1 << 20)
        self._links.connected(self)

    def data_received(self, _data: bytes) -> None: ...

    def resume_writing(self) -> None:
        self._links.owner.wake()  # the send window has room again

    def connection_lost(self, _error: Exception | None) -> None:
        self._links.lost(self)
        self.ended.set()


class TlsLinks:
    """All connections of one node. Every method is for the event loop's thread."""

    def __init__(self, node_id: str, raft_address: str, tls: NodeTls, owner: LinkOwner, log: Log) -> None:
        self.node_id = node_id
        self.tls = tls
        self.owner = owner
        self.log = log
        self.log_seldom = Seldom(log, time.monotonic)
        self._address = raft_address
        self._addresses: dict[str, str] = {}
        self._learners: frozenset[str] = frozenset()
        self._admission = Admission({})
        self._hurries: dict[str, asyncio.Event] = {}
        self._guests: dict[str, str] = {}
        self._dialers: dict[str, asyncio.Task[None]] = {}
        self._outbound: dict[str, _Outbound] = {}
        self._inbound: set[_Inbound] = set()
        self._asking: asyncio.TimerHandle | None = None
        self._refusals: dict[str, str] = {}
        self._turned_away: dict[str, str] = {}
        self._server: Listener | None = None
        self._seats: PeerSeats | None = None
        self._is_closed = False
        self.frames_refused = 0

    # -- life

    async def listen(self, bind_address: str, seats: PeerSeats) -> None:
        """Raises: OSError when the address cannot be had."""
        self._seats = seats
        self._server = await listen(
            bind_address,
            Accepting(lambda seat: _Inbound(self, seat), seats.strangers, self.tls.server_context, _HANDSHAKE_SECONDS),
        )
        self._start_dialers()

    async def close(self) -> None:
        self._is_closed = True
        for task in self._dialers.values():
            task.cancel()
        if self._server is not None:
            self._server.close()
        if self._asking is not None:
            self._asking.cancel()
        transports = [link.transport for link in self._outbound.values()] + [link.transport for link in self._inbound]
        for transport in transports:
            if transport is not None:
                transport.close()

    def set_members(self, members: Members) -> None:
        """Dial these, and drop who is no longer among them."""
        self._addresses = {member.id: member.raft_address for member in members.values() if member.id != self.node_id}
        self._learners = frozenset(member.id for member in members.values() if not member.is_voter)
        for peer in [*self._guests]:
            if peer in self._addresses:
                del self._guests[peer]
        for peer in [*self._dialers]:
            if peer not in self._addresses and peer not in self._guests:
                self._stop_dialing(peer)
                link = self._outbound.get(peer)
                if link is not None and link.transport is not None:
                    link.transport.abort()
        if self._server is not None:
            self._start_dialers()

    def set_admission(self, admission: Admission) -> None:
        self._admission = admission
        for link in [*self._inbound]:
            if link.peer is not None:  # else it is being closed, for a frame that was none
                self._judge(link)
        for outbound in [*self._outbound.values()]:
            reason = admission.dial_refusal(outbound.peer, outbound.key)
            if reason is not None and outbound.transport is not None:
                self._refused(outbound.peer, reason)
                outbound.transport.abort()

    def _judge(self, link: _Inbound) -> None:
        """What counts of somebody who has dialled this node, from now on."""
        assert link.peer is not None
        assert link.transport is not None
        link.standing = self._admission.standing(link.peer, link.key)
        if link.standing in (Standing.REFUSED, Standing.UNPINNED):
            reason = self._admission.refusal(link.peer, link.key)
            if self._turned_away.get(link.peer) != reason:  # said once, not at every attempt
                self._turned_away = {**dict([*self._turned_away.items()][-_TURNED_AWAY:]), link.peer: str(reason)}
                self.log("raft.peer_refused", peer=link.peer, reason=reason)
            link.transport.abort()
        elif link.standing is Standing.MEMBER and self._seats is not None:
            link.seat_among(self._seats.members)

    def key_of(self, peer: str) -> bytes | None:
        if peer == self.node_id:
            return self.tls.key
        link = self._outbound.get(peer)
        # A guest is dialled where it says it is, which the configuration may not confirm.
        if link is None or not link.key or peer not in self._addresses:
            return None
        # Its certificate may have been renewed, or its key exchanged as announced, since it was dialled.
        member = self._admission.members.get(peer)
        good = (link.key, *(() if member is None else member.keys[-1:]))
        shown = [other.key for other in self._inbound if other.peer == peer and is_key_of(other.key, good)]
        newest = [key for key in shown if is_key_of(key, good[1:])]
        return max(newest or (link.key, *shown), key=expiry_part)

    def anchors(self) -> frozenset[bytes]:
        return self.tls.anchors

    def _start_dialers(self) -> None:
        for peer in (*self._addresses, *self._guests):
            if peer not in self._dialers and not self._is_closed:
                self._hurries[peer] = asyncio.Event()
                self._dialers[peer] = asyncio.get_running_loop().create_task(self._dial(peer))

    def _stop_dialing(self, peer: str) -> None:
        self._dialers.pop(peer).cancel()
        del self._hurries[peer]

    def dial_at_once(self, peer: str) -> None:
        """Whatever has failed before: there is reason to believe that the peer is there."""
        if peer in self._dialers and peer not in self._outbound:
            self._hurries[peer].set()

    async def _dial(self, peer: str) -> None:
        hurry, failures = self._hurries[peer], 0
        while not self._is_closed:
            if (link := self._outbound.get(peer)) is not None:
                failures = 0
                await link.ended.wait()
            else:
                try:
                    await self._connect(peer, self._addresses.get(peer) or self._guests.get(peer, ""))
                except ssl.SSLError as error:
                    self._refused(peer, str(error))
                except _UNREACHABLE:
                    pass  # not there; tried again below
                failures += 1  # until it is seen to have lasted
            chance = random.random()  # nosec B311 # noqa: S311 - no secret
            pause = redial_pause(failures, chance, is_learner=peer in self._learners)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await hurry.wait()
                    failures = 0
            hurry.clear()

    async def _connect(self, peer: str, address: str) -> None:
        """Raises: OSError (ssl.SSLError is one), ValueError, TimeoutError."""
        host, _, port = address.rpartition(":")
        async with asyncio.timeout(_DIAL_SECONDS):
            await asyncio.get_running_loop().create_connection(
                lambda: _Outbound(self, peer),
                host.strip("[]"),
                int(port),
                ssl=self.tls.client_context,
                server_hostname=self.tls.server_name(peer),
            )

    async def refresh(self) -> None:
        """Dial every peer again, with the certificate that is in use now; each connection is there until its successor
        is, so nobody takes this node for gone.
        """
        for peer in [*self._outbound]:
            if (address := self._addresses.get(peer)) is not None:
                with contextlib.suppress(*_UNREACHABLE):
                    await self._connect(peer, address)

    async def look_up_key(self, peer: str, address: str) -> bytes | None:
        """Which key a server has now, whatever is pinned; None if it cannot be reached."""
        host, _, port = address.rpartition(":")
        try:
            async with asyncio.timeout(_DIAL_SECONDS):
                transport, _protocol = await asyncio.get_running_loop().create_connection(
                    asyncio.Protocol,
                    host.strip("[]"),
                    int(port),
                    ssl=self.tls.client_context,
                    server_hostname=self.tls.server_name(peer),
                )
        except _UNREACHABLE as error:
            self.log("raft.dial_refused", peer=peer, reason=str(error) or "no answer")
            return None
        try:
            return self.tls.peer_key(transport.get_extra_info("ssl_object"))
        finally:
            transport.abort()

    def _refused(self, peer: str, reason: str) -> None:
        if self._refusals.get(peer) != reason:  # said once, not at every attempt
            self._refusals[peer] = reason
            self.log("raft.dial_refused", peer=peer, reason=reason)

    # -- sending

    def send(self, peer: str, messages: list[Message]) -> None:
        """Hand over; messages for a peer that is not connected are lost, as on any network."""
        link = self._outbound.get(peer)
        if link is None or link.transport is None:
            return
        link.transport.write(b"".join([pack_frame(message) for message in messages]))
        if link.transport.get_write_buffer_size() > _MAX_UNREAD_BYTES:
            self.log("raft.peer_stuck", peer=peer)
            link.transport.abort()

    def pending_bytes(self, peer: str) -> int:
        link = self._outbound.get(peer)
        return 0 if link is None or link.transport is None else link.transport.get_write_buffer_size()

    # -- what connections report

    def frame_refused(self, peer: str, error: MessageInvalid) -> None:
        self.frames_refused += 1
        self.log_seldom("raft.frame_refused", peer if peer in self._addresses else "", peer=peer, reason=str(error))

    def connected(self, link: _Outbound) -> None:
        assert link.transport is not None
        reason = self._admission.dial_refusal(link.peer, link.key)
        if reason is not None:
            self._refused(link.peer, reason)
            link.transport.abort()
            return
        old = self._outbound.get(link.peer)
        self._outbound[link.peer] = link
        self._refusals.pop(link.peer, None)
        link.transport.write(pack_frame({"type": "hello", "ct": 0, "address": self._address}))
        if old is not None and old.transport is not None:
            old.transport.abort()
        else:
            self.owner.link_up(link.peer)
        self.owner.wake()

    def lost(self, link: _Outbound) -> None:
        if self._outbound.get(link.peer) is link:
            del self._outbound[link.peer]
            self.owner.link_down(link.peer)
            self.owner.wake()

    def accepted(self, link: _Inbound) -> None:
        self._judge(link)
        if link.standing in (Standing.REFUSED, Standing.UNPINNED):
            if link.peer is not None:
                self.owner.stranger(link.peer)  # perhaps others know better, and it is let in when it comes again
            link.peer = None
            return
        self._inbound.add(link)
        assert link.peer is not None
        self.dial_at_once(link.peer)

    def greeted(self, link: _Inbound, message: Message) -> None:
        if message["type"] != "hello":
            raise MessageInvalid("the first frame is no hello")
        link.address = message["address"]
        if link.standing is Standing.STRANGER:
            assert link.peer is not None
            self.owner.stranger(link.peer)
            self._ask_later()

    def _ask_later(self) -> None:
        if self._asking is None and self._server is not None and not self._is_closed:
            self._asking = asyncio.get_running_loop().call_later(_ASK_SECONDS, self._ask_again)

    def _ask_again(self) -> None:
        """For as long as strangers are connected, however much they say: an answer may have been lost, or not have been
        there yet.
        """
        self._asking = None
        strangers = {link.peer for link in self._inbound if link.standing is Standing.STRANGER and link.address}
        names = sorted(name for name in strangers if name is not None)
        # None of many keeps the others waiting.
        for name in random.sample(names, min(len(names), _ASKED_ABOUT)):  # nosec B311 # no secret
            self.owner.stranger(name)
        if names:
            self._ask_later()

    def received(self, link: _Inbound, message: Message) -> None:
        peer = link.peer
        assert peer is not None
        if message["type"] == "hello":
            raise MessageInvalid("a second hello")
        if peer not in self._dialers and message["type"] in ("append_entries", "offer_snapshot"):
            # A leader this node has not heard of yet (it was added meanwhile): answers need a connection.
            self._guests[peer] = link.address
            self._start_dialers()
        self.owner.receive(peer, message)

    def closed(self, link: _Inbound) -> None:
        self._inbound.discard(link)
        if link.peer is not None and not any(other.peer == link.peer for other in self._inbound):
            if self._guests.pop(link.peer, None) is not None and link.peer not in self._addresses:
                self._stop_dialing(link.peer)
            self.owner.peer_lost(link.peer)
            self.owner.wake()
