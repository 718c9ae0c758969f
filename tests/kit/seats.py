"""Places for connections, in tests that are about something else, and who was turned away."""

from cluster.base.seats import Caps, PeerSeats, Seats, TurnedAway
from cluster.base.telemetry import Metrics
from tests.kit.log import EventLog


def turned_away(port: str = "rpc", log: EventLog | None = None, metrics: Metrics | None = None) -> TurnedAway:
    return (metrics or Metrics()).turned_away(port, log or EventLog())


def peer_seats(strangers: Caps, members: Caps, port: str = "rpc") -> PeerSeats:
    whom = turned_away(port)
    return PeerSeats(Seats(strangers, whom), Seats(members, whom))


def roomy_seats(port: str) -> PeerSeats:
    return peer_seats(Caps(256, 256), Caps(256, 64), port)
