"""How many connections a port has at a time, in all and from one source, and which of them gives way when it is full.

A connection costs an attacker nothing, and a node without descriptors its log. So there is a bound, and whoever only
holds a connection makes room for whoever wants to use one: first connections on which nothing has come yet, then those
that wait for a request, the oldest first, of the source that has most; then, for a source that has fewer, those that
wait for news (a blocking query), which may be ended at any time. Those that are being served otherwise never do.
"""

import heapq
import ipaddress
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, Protocol

from cluster.base.log import Log

#: Of a source's connections in use, so many are asked at a time whether they are idle, and then stand at the end.
_MAX_LOOKED_AT: Final = 32
#: Where the port is full: so many of the sources that have most are asked to make room.
_MAX_SOURCES: Final = 8
_LOG_PAUSE_SECONDS: Final = 10.0
_IPV6_NETWORK_BITS: Final = 64
#: Of all places, and of those of one source: those that may wait for news, so that others are always left.
_WAITING_PART: Final = 3 / 4


@dataclass(frozen=True, slots=True)
class Caps:
    """How many connections there may be."""

    total: int
    per_source: int


class Count(Protocol):
    """A counter of the metrics."""

    def inc(self) -> None: ...


class TurnedAway:
    """Counts whom a port turned away, and says so in the log: one line at a time, however many they are."""

    def __init__(self, port: str, log: Log, refused: Count, gave_way: Count) -> None:
        self._port = port
        self._log = log
        self._refused = refused
        self._gave_way = gave_way
        self._count = 0
        self._next = 0.0

    def refused(self, source: str) -> None:
        self._refused.inc()
        self._say(source)

    def gave_way(self, source: str) -> None:
        self._gave_way.inc()
        self._say(source)

    def _say(self, source: str) -> None:
        self._count += 1
        if (now := time.monotonic()) >= self._next:
            self._log("connections.turned_away", port=self._port, count=self._count, source=source)
            self._count, self._next = 0, now + _LOG_PAUSE_SECONDS


class Seat:
    """The place of one connection. Whoever has it says what ends the connection, and leaves it when it has ended."""

    __slots__ = ("_is_idle", "_seats", "end", "source")

    def __init__(self, seats: "Seats", source: str, end: Callable[[], object]) -> None:
        self._seats: Seats | None = seats
        self._is_idle: Callable[[], bool] | None = None  # None: nothing has come yet
        self.source = source
        self.end = end

    @property
    def is_taken(self) -> bool:
        """False once it was left, or taken away."""
        return self._seats is not None

    def settle(self, is_idle: Callable[[], bool]) -> None:
        """Something has come. From now on it gives way only while `is_idle()`, and after all that are new."""
        if self._seats is not None:
            self._seats._settle(self, is_idle)

    def move(self, seats: "Seats", source: str) -> bool:
        """To others: it counts for `source` there, and no more here. False when there is no room; then it has none."""
        is_idle = self._is_idle
        self.leave()
        if not seats._has_room(source):
            return False
        self.source = source
        seats._put(self)
        if is_idle is not None:
            seats._settle(self, is_idle)
        return True

    def wait(self) -> bool:
        """From now on it only waits for news, and may have to give way. False when too many do: then it does not."""
        return self._seats is not None and self._seats._may_wait(self)

    def end_wait(self) -> None:
        """Again is all right."""
        if self._seats is not None:
            self._seats._end_wait(self)

    def is_among(self, seats: "Seats") -> bool:
        return self._seats is seats

    def leave(self) -> None:
        """Again is all right."""
        if self._seats is not None:
            self._seats._remove(self)


class Seats:
    """Of one port. For one event loop."""

    def __init__(self, caps: Caps, turned_away: TurnedAway) -> None:
        self.caps = caps
        self.waiting_caps = Caps(*(max(1, int(most * _WAITING_PART)) for most in (caps.total, caps.per_source)))
        self.turned_away = turned_away
        self.taken = 0
        # By source, each in the order in which they came.
        self._new: dict[str, dict[Seat, None]] = {}
        self._settled: dict[str, dict[Seat, None]] = {}
        self._counts: dict[str, int] = {}
        #: Of those that are settled, the ones that wait for news, in the order in which they began to.
        self._waiting: dict[str, dict[Seat, None]] = {}
        self._waiting_count = 0

    def take(self, source: str, end: Callable[[], object]) -> Seat | None:
        """None when it is full of connections in use."""
        if not self._has_room(source):
            return None
        seat = Seat(self, source, end)
        self._put(seat)
        return seat

    def _has_room(self, source: str) -> bool:
        """Makes room if need be."""
        has_room = self._counts.get(source, 0) < self.caps.per_source or self._end_one(source)
        if has_room and self.taken >= self.caps.total:
            most = heapq.nlargest(_MAX_SOURCES, self._counts, key=self._counts.__getitem__)
            has_room = any(self._end_one(each) for each in most) or self._end_waiting(source, self._counts)
        if not has_room:
            self.turned_away.refused(source)
        return has_room

    def _end_one(self, source: str) -> bool:
        seat = next(iter(self._new.get(source, ())), None) or self._first_idle(source)
        if seat is None:
            return False
        self._end(seat)
        return True

    def _end(self, seat: Seat) -> None:
        self._remove(seat)
        seat.end()
        self.turned_away.gave_way(seat.source)

    def _end_waiting(self, source: str, counts: Mapping[str, int]) -> bool:
        """For one of `source`: the one that has waited longest, of the source that has most, and more than this."""
        most = max(self._waiting, key=counts.__getitem__, default=source)
        if counts.get(most, 0) <= counts.get(source, 0):
            return False
        self._end(next(iter(self._waiting[most])))
        return True

    def _may_wait(self, seat: Seat) -> bool:
        """Makes room if need be."""
        source, caps = seat.source, self.waiting_caps
        if len(self._waiting.get(source, ())) >= caps.per_source:
            return False
        if self._waiting_count >= caps.total:
            counts = {each: len(seats) for each, seats in self._waiting.items()}
            if not self._end_waiting(source, counts):
                return False
        self._waiting.setdefault(source, {})[seat] = None
        self._waiting_count += 1
        return True

    def _end_wait(self, seat: Seat) -> None:
        if seat in self._waiting.get(seat.source, ()):
            _discard(self._waiting, seat)
            self._waiting_count -= 1

    def _first_idle(self, source: str) -> Seat | None:
        settled = self._settled.get(source, {})
        for _ in range(min(len(settled), _MAX_LOOKED_AT)):
            seat = next(iter(settled))
            assert seat._is_idle is not None  # or it would not be here
            if seat._is_idle():
                return seat
            del settled[seat]
            settled[seat] = None
        return None

    def _put(self, seat: Seat) -> None:
        seat._seats = self
        seat._is_idle = None
        self._new.setdefault(seat.source, {})[seat] = None
        self._counts[seat.source] = self._counts.get(seat.source, 0) + 1
        self.taken += 1

    def _settle(self, seat: Seat, is_idle: Callable[[], bool]) -> None:
        if seat._is_idle is None:
            _discard(self._new, seat)
            self._settled.setdefault(seat.source, {})[seat] = None
        seat._is_idle = is_idle

    def _remove(self, seat: Seat) -> None:
        _discard(self._new if seat._is_idle is None else self._settled, seat)
        self._end_wait(seat)
        seat._seats = None
        self.taken -= 1
        self._counts[seat.source] -= 1
        if not self._counts[seat.source]:
            del self._counts[seat.source]


def _discard(table: dict[str, dict[Seat, None]], seat: Seat) -> None:
    seats = table[seat.source]
    del seats[seat]
    if not seats:
        del table[seat.source]


@dataclass(frozen=True, slots=True)
class PeerSeats:
    """Of a port between nodes: members, by their name, have places that no stranger can take."""

    strangers: Seats  # and everybody whose handshake is not over
    members: Seats

    @property
    def taken(self) -> int:
        return self.strangers.taken + self.members.taken


def source_of(address: object) -> str:
    """Of a peer's socket address: who counts as one. A host has a whole IPv6 network of 64 bits for itself."""
    host = address[0] if isinstance(address, tuple) and address else ""
    try:
        ip = ipaddress.ip_address(str(host).partition("%")[0])
    except ValueError:
        return ""
    if isinstance(ip, ipaddress.IPv6Address):
        if ip.ipv4_mapped is not None:
            return str(ip.ipv4_mapped)
        return str(ipaddress.IPv6Network((ip, _IPV6_NETWORK_BITS), strict=False))
    return str(ip)
