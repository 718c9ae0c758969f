"""Connections between simulated nodes, as `cluster/raft/transport.py` has them over TCP.

Each pair of nodes has two one-way connections. On one of them messages arrive in order or not at all: they are lost
only together with the connection. A blocked direction holds them back; when it is opened soon, old messages arrive
late, otherwise the connection breaks and is dialled again.
"""

import hashlib
import heapq
import itertools
import random
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Protocol

from cluster.raft.admission import Admission, Standing
from cluster.raft.codec import FRAME_HEADER, Message, pack_frame, unpack_message
from cluster.raft.membership import Members

#: What clocks show when a run begins.
START_SECONDS = 1000.0
REDIAL_SECONDS = 0.1
#: TCP_USER_TIMEOUT of the real transport.
GIVE_UP_SECONDS = 2.0
_GUEST_TYPES = frozenset(("append_entries", "offer_snapshot"))


class Scheduler:
    """Virtual time: events run in the order of their times, and nothing takes any time itself."""

    def __init__(self) -> None:
        self.now = self.started = START_SECONDS
        self.events = 0
        self._queue: list[tuple[float, int, Callable[[], None]]] = []
        self._numbers = itertools.count()

    def after(self, seconds: float, event: Callable[[], None]) -> None:
        heapq.heappush(self._queue, (self.now + seconds, next(self._numbers), event))

    def run_until(self, time: float, is_done: Callable[[], bool] | None = None) -> bool:
        """Run events up to `time`, or until `is_done()`, which is asked behind each; whether it was."""
        queue = self._queue
        while queue and queue[0][0] <= time:
            self.now, _, event = heapq.heappop(queue)
            self.events += 1
            event()
            if is_done is not None and is_done():
                return True
        self.now = max(self.now, time)
        return False


class Endpoint(Protocol):
    """A node as the network sees it. Calls to a node that is down must not be made."""

    @property
    def is_up(self) -> bool: ...
    def receive(self, peer: str, message: Message) -> None: ...
    def link_up(self, peer: str) -> None: ...
    def link_down(self, peer: str) -> None: ...
    def peer_lost(self, peer: str) -> None: ...
    def stranger(self, peer: str) -> None: ...


@dataclass(frozen=True, slots=True)
class NetworkProfile:
    """What the network does by itself. Seconds, and probabilities per message."""

    min_delay: float = 0.0002
    mean_delay: float = 0.001
    slow: float = 0.0  # takes ten to a hundred times as long
    reset: float = 0.0  # the connection breaks instead
    # What TCP never does, and the protocol must bear all the same.
    lost: float = 0.0
    repeated: float = 0.0
    overtaken: float = 0.0  # arrives behind messages that were sent later


class _Link:
    """The connection on which `sender` sends to `receiver`."""

    __slots__ = (
        *("arrival", "held", "is_up", "is_wanted", "number", "queued_bytes"),
        *("receiver", "receiver_key", "rng", "sender", "sender_key"),
    )

    def __init__(self, sender: str, receiver: str, rng: random.Random) -> None:
        self.sender = sender
        self.receiver = receiver
        # Of its own, so that runs do not depend on the order in which a node writes to its peers.
        self.rng = rng
        self.is_wanted = False
        self.is_up = False
        self.number = 0  # counts connections, so that what belonged to an earlier one is not delivered
        self.arrival = 0.0
        self.queued_bytes = 0
        self.held: deque[bytes] = deque()
        self.sender_key = self.receiver_key = b""


class Network:
    """All connections of a simulated cluster."""

    def __init__(self, seed: object, scheduler: Scheduler, profile: NetworkProfile) -> None:
        self._seed = seed
        self._scheduler = scheduler
        self.profile = profile
        self._endpoints: dict[str, Endpoint] = {}
        self._links: dict[tuple[str, str], _Link] = {}
        self._guests: dict[str, set[str]] = {}
        self._members: dict[str, set[str]] = {}
        self._admissions: dict[str, Admission] = {}
        #: Of each node's certificate; one may get another, with which its next connections are made.
        self.keys: dict[str, bytes] = {}
        self._blocked: dict[tuple[str, str], float] = {}
        self.delivered = 0
        #: Set to see, or to swallow by returning False, each message as it would be delivered.
        self.filter: Callable[[str, str, Message], bool] | None = None

    def join(self, node_id: str, endpoint: Endpoint) -> None:
        self._endpoints[node_id] = endpoint
        self._guests[node_id], self._members[node_id] = set(), set()
        self._admissions[node_id] = Admission({})
        self.keys.setdefault(node_id, hashlib.sha512(node_id.encode()).digest() + bytes(8))

    # -- for nodes

    def set_members(self, node_id: str, members: Iterable[str]) -> None:
        self._members[node_id] = set(members) - {node_id}
        self._guests[node_id] -= self._members[node_id]
        self._update(node_id)

    def set_admission(self, node_id: str, admission: Admission) -> None:
        self._admissions[node_id] = admission
        for link in list(self._links.values()):
            if node_id in (link.sender, link.receiver) and link.is_up and not self._is_admitted(link):
                number = link.number
                self._scheduler.after(0, lambda link=link, number=number: self._break(link, number))  # type: ignore[misc]

    def _is_admitted(self, link: _Link) -> bool:
        """Whether both ends let the connection be, as each knows the other."""
        sender, receiver = link.sender, link.receiver
        if self._admissions[sender].dial_refusal(receiver, link.receiver_key) is not None:
            return False
        standing = self._admissions[receiver].standing(sender, link.sender_key)
        return standing not in (Standing.REFUSED, Standing.UNPINNED)

    def key_of(self, node_id: str, peer: str) -> bytes | None:
        if peer == node_id:
            return self.keys[node_id]
        link = self._links.get((node_id, peer))
        is_there = link is not None and link.is_up and peer in self._members[node_id]
        return link.receiver_key if link is not None and is_there else None

    def send(self, sender: str, receiver: str, messages: list[Message]) -> None:
        link = self._links.get((sender, receiver))
        if link is None or not link.is_up:
            return
        profile, rng, now = self.profile, link.rng, self._scheduler.now
        if profile.reset and rng.random() < profile.reset * len(messages):
            self._scheduler.after(0, lambda number=link.number: self._break(link, number))  # type: ignore[misc]
            return
        delay = profile.min_delay + rng.expovariate(1 / profile.mean_delay)
        if profile.slow and rng.random() < profile.slow:
            delay *= 10 + 90 * rng.random()
        link.arrival = max(link.arrival, now + delay)
        frames = [pack_frame(message) for message in messages]
        if profile.lost or profile.repeated or profile.overtaken:
            frames = self._disordered(link, frames)
        self._deliver_later(link, link.arrival - now, frames)

    def _deliver_later(self, link: _Link, seconds: float, frames: list[bytes]) -> None:
        link.queued_bytes += sum(map(len, frames))
        number = link.number
        self._scheduler.after(seconds, lambda: self._arrive(link, number, frames))

    def _disordered(self, link: _Link, frames: list[bytes]) -> list[bytes]:
        """What arrives in time; the rest is lost, or arrives later."""
        profile, rng = self.profile, link.rng
        in_time = []
        for frame in frames:
            if rng.random() < profile.lost:
                continue
            is_late = rng.random() < profile.overtaken
            if is_late or rng.random() < profile.repeated:
                self._deliver_later(link, rng.expovariate(1 / (20 * profile.mean_delay)), [frame])
            if not is_late:
                in_time.append(frame)
        return in_time

    def pending_bytes(self, sender: str, receiver: str) -> int:
        link = self._links.get((sender, receiver))
        return 0 if link is None or not link.is_up else link.queued_bytes

    # -- for faults

    def block(self, sender: str, receiver: str) -> None:
        """Nothing arrives in this direction until `open`."""
        self._blocked.setdefault((sender, receiver), self._scheduler.now)
        link = self._links.get((sender, receiver))
        if link is not None:
            number, since = link.number, self._blocked[sender, receiver]
            self._scheduler.after(GIVE_UP_SECONDS, lambda: self._give_up(link, number, since))

    def open(self, sender: str, receiver: str) -> None:
        self._blocked.pop((sender, receiver), None)
        link = self._links.get((sender, receiver))
        if link is not None and link.held:
            frames = list(link.held)
            link.held.clear()
            self._arrive(link, link.number, frames)

    def partition(self, *groups: Iterable[str]) -> None:
        """Only nodes of one group reach each other; a node in no group reaches nobody."""
        group_of = {node: number for number, group in enumerate(groups) for node in group}
        for one in self._endpoints:
            for other in self._endpoints:
                if one != other:
                    is_open = one in group_of and group_of[one] == group_of.get(other)
                    (self.open if is_open else self.block)(one, other)

    def heal(self) -> None:
        for pair in list(self._blocked):
            self.open(*pair)

    def reset(self, one: str, other: str) -> None:
        """Both connections between two nodes break, and are dialled again."""
        for pair in ((one, other), (other, one)):
            link = self._links.get(pair)
            if link is not None:
                self._break(link, link.number)

    def node_down(self, node_id: str, *, is_noticed: bool) -> None:
        """A node ended: its kernel closes its connections at once (`is_noticed`), or peers find out by themselves."""
        for link in list(self._links.values()):
            if link.receiver == node_id and not link.is_up:
                self._drop(link)  # what a peer that ended before had sent
                if link.is_wanted:
                    self._dial_later(link)
            if node_id not in (link.sender, link.receiver) or not link.is_up:
                continue
            arrives = 0.0
            if link.sender == node_id:
                link.is_wanted = False
                peer, notice = link.receiver, "peer_lost"
                if link.rng.random() < 0.5:
                    # What it sent goes on its way without it, and arrives before the news of its end.
                    link.is_up = False
                    arrives = link.arrival - self._scheduler.now + self.profile.min_delay
                else:
                    self._drop(link)
            else:
                self._drop(link)
                peer, notice = link.sender, "link_down"
                self._dial_later(link)
            quiet = is_noticed and not self._is_blocked(node_id, peer)
            delay = max(arrives, self.profile.mean_delay if quiet else GIVE_UP_SECONDS * link.rng.random())
            self._scheduler.after(delay, lambda peer=peer, notice=notice: self._tell(peer, notice, node_id))  # type: ignore[misc]
        self._guests[node_id], self._members[node_id] = set(), set()
        self._admissions[node_id] = Admission({})

    # -- inside

    def _tell(self, node_id: str, notice: str, peer: str) -> None:
        endpoint = self._endpoints[node_id]
        if not endpoint.is_up:
            return
        link = self._links.get((node_id, peer))
        if notice == "link_down" and link is not None and link.is_up:
            return  # dialled again meanwhile
        if notice == "peer_lost" and peer in self._guests[node_id]:
            self._guests[node_id].discard(peer)
            self._update(node_id)
        getattr(endpoint, notice)(peer)

    def _is_blocked(self, one: str, other: str) -> bool:
        return (one, other) in self._blocked or (other, one) in self._blocked

    def _update(self, node_id: str) -> None:
        wanted = self._members[node_id] | self._guests[node_id]
        for peer in sorted(wanted & self._endpoints.keys()):
            link = self._links.get((node_id, peer))
            if link is None:
                link = _Link(node_id, peer, random.Random(f"{self._seed}/{node_id}>{peer}"))
                self._links[node_id, peer] = link
            if not link.is_wanted:
                link.is_wanted = True
                self._dial_later(link)
        for link in list(self._links.values()):
            if link.sender == node_id and link.receiver not in wanted and link.is_wanted:
                link.is_wanted = False
                self._break(link, link.number)

    def _dial_later(self, link: _Link) -> None:
        number = link.number
        self._scheduler.after(REDIAL_SECONDS * link.rng.random(), lambda: self._dial(link, number))

    def _dial(self, link: _Link, number: int) -> None:
        if link.number != number or link.is_up or not link.is_wanted:
            return
        ends = (self._endpoints[link.sender], self._endpoints[link.receiver])
        if not all(end.is_up for end in ends) or self._is_blocked(link.sender, link.receiver):
            self._dial_later(link)
            return
        self._drop(link)  # whatever an earlier process had sent
        link.sender_key, link.receiver_key = self.keys[link.sender], self.keys[link.receiver]
        if not self._is_admitted(link):
            standing = self._admissions[link.receiver].standing(link.sender, link.sender_key)
            if standing in (Standing.REFUSED, Standing.UNPINNED):
                ends[1].stranger(link.sender)
            self._dial_later(link)
            return
        link.is_up = True
        link.arrival = 0.0
        ends[0].link_up(link.receiver)

    def _drop(self, link: _Link) -> None:
        link.is_up = False
        link.number += 1
        link.queued_bytes = 0
        link.held.clear()

    def _break(self, link: _Link, number: int) -> None:
        if link.number != number or not link.is_up:
            return
        self._drop(link)
        self._dial_later(link)
        self._tell(link.sender, "link_down", link.receiver)
        if not self._is_blocked(link.sender, link.receiver):
            self._tell(link.receiver, "peer_lost", link.sender)

    def _give_up(self, link: _Link, number: int, since: float) -> None:
        if self._blocked.get((link.sender, link.receiver)) == since:
            self._break(link, number)

    def _arrive(self, link: _Link, number: int, frames: list[bytes]) -> None:
        if link.number != number:
            return
        if (link.sender, link.receiver) in self._blocked:
            link.held.extend(frames)
            return
        sender, receiver = link.sender, link.receiver
        for frame in frames:
            link.queued_bytes -= len(frame)
            message = unpack_message(frame[FRAME_HEADER.size :])
            self.delivered += 1
            if self.filter is not None and not self.filter(sender, receiver, message):
                continue
            if self._admissions[receiver].standing(sender, link.sender_key) is Standing.STRANGER:
                self._endpoints[receiver].stranger(sender)
                continue
            if message["type"] in _GUEST_TYPES and sender not in self._members[receiver] | self._guests[receiver]:
                self._guests[receiver].add(sender)
                self._update(receiver)
            self._endpoints[receiver].receive(sender, message)
            if link.number != number:
                return  # the receiver ended, or hung up


class MemLinks:
    """One node's side, as `cluster.raft.node.Links` wants it."""

    def __init__(self, network: Network, node_id: str) -> None:
        self._network = network
        self._node_id = node_id

    def send(self, peer: str, messages: list[Message]) -> None:
        self._network.send(self._node_id, peer, messages)

    def pending_bytes(self, peer: str) -> int:
        return self._network.pending_bytes(self._node_id, peer)

    def set_members(self, members: Members) -> None:
        self._network.set_members(self._node_id, members)

    def set_admission(self, admission: Admission) -> None:
        self._network.set_admission(self._node_id, admission)

    def key_of(self, peer: str) -> bytes | None:
        return self._network.key_of(self._node_id, peer)

    def anchors(self) -> frozenset[bytes]:
        return frozenset()
