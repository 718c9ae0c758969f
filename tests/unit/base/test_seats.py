"""Who gets a place on a port, and who makes room."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.base import seats as seats_module
from cluster.base.seats import Caps, Seat, Seats, source_of
from cluster.base.telemetry import Metrics
from tests.kit.log import EventLog
from tests.kit.seats import turned_away


class Port:
    """A port of which every connection is remembered."""

    def __init__(self, total: int, per_source: int) -> None:
        self.log = EventLog()
        self.metrics = Metrics()
        self.seats = Seats(Caps(total, per_source), turned_away("http", self.log, self.metrics))
        self.ended: list[str] = []

    def take(self, name: str, source: str = "a") -> Seat | None:
        return self.seats.take(source, lambda: self.ended.append(name))

    def taken(self, name: str, source: str = "a") -> Seat:
        seat = self.take(name, source)
        assert seat is not None
        return seat

    def busy(self, name: str, source: str = "a") -> Seat:
        seat = self.taken(name, source)
        seat.settle(lambda: False)
        return seat

    def idle(self, name: str, source: str = "a") -> Seat:
        seat = self.taken(name, source)
        seat.settle(lambda: True)
        return seat

    def count(self, what: str) -> float:
        return self.metrics.registry.get_sample_value(f"quorumca_connections_{what}_total", {"port": "http"}) or 0


def test_the_oldest_that_has_said_nothing_makes_room() -> None:
    port = Port(3, 3)
    for name in ("one", "two", "three", "four", "five"):
        port.taken(name)
    assert (port.ended, port.seats.taken) == (["one", "two"], 3)
    assert (port.count("gave_way"), port.count("refused")) == (2, 0)


def test_what_waits_for_a_request_makes_room_after_what_has_said_nothing() -> None:
    port = Port(3, 3)
    port.idle("idle")
    port.taken("new")
    port.busy("busy")
    port.busy("first")
    port.busy("second")
    assert port.ended == ["new", "idle"]


def test_what_is_served_never_makes_room() -> None:
    port = Port(2, 2)
    first, _ = port.busy("one"), port.busy("two")
    assert port.take("three") is None
    assert (port.ended, port.seats.taken, port.count("refused")) == ([], 2, 1)
    first.leave()
    assert port.take("four") is not None


def test_the_share_of_one_source_leaves_room_for_others() -> None:
    port = Port(4, 2)
    port.busy("one", "a")
    port.busy("two", "a")
    assert port.take("three", "a") is None
    assert port.take("four", "b") is not None


def test_a_full_port_takes_from_the_source_that_has_most() -> None:
    port = Port(4, 3)
    port.taken("other", "b")
    for name in ("one", "two", "three"):
        port.taken(name, "a")
    port.taken("new", "c")
    assert port.ended == ["one"]


def test_a_full_port_asks_further_sources_when_the_largest_has_no_idle_ones() -> None:
    port = Port(4, 3)
    for name in ("one", "two", "three"):
        port.busy(name, "a")
    port.taken("other", "b")
    port.taken("new", "c")
    assert port.ended == ["other"]


def waiting(port: Port, name: str, source: str) -> Seat:
    seat = port.busy(name, source)
    assert seat.wait()
    return seat


def test_what_waits_for_news_makes_room_for_a_source_that_has_fewer() -> None:
    port = Port(6, 4)
    first = waiting(port, "a1", "a")
    for name in ("a2", "a3"):
        waiting(port, name, "a")
    waiting(port, "b1", "b")
    port.busy("b2", "b")
    idle = port.idle("a4", "a")
    assert port.take("c1", "c") is not None
    assert port.ended == ["a4"]
    assert not idle.is_taken
    port.busy("c2", "c")
    assert port.ended == ["a4", "c1"]  # nothing had come on it
    port.busy("d1", "d")
    assert port.ended == ["a4", "c1", "a1"]
    assert not first.is_taken
    assert not first.wait()
    first.end_wait()
    # Nobody has more than b, which would have to make room for itself.
    assert port.take("b3", "b") is None
    assert port.take("a5", "a") is None


def test_a_query_that_has_its_news_is_served() -> None:
    port = Port(2, 2)
    for name in ("one", "two"):
        seat = waiting(port, name, "a")
        seat.end_wait()
        seat.end_wait()
    assert port.take("three", "b") is None
    assert port.ended == []


def test_a_part_of_the_places_never_waits_and_no_source_keeps_others_from_waiting() -> None:
    port = Port(16, 8)
    for number in range(6):
        waiting(port, f"a{number}", "a")
    assert not port.busy("a6", "a").wait()
    for number in range(6):
        waiting(port, f"b{number}", "b")
    assert not port.busy("b6", "b").wait()
    assert port.ended == []
    waiting(port, "c0", "c")
    assert port.ended == ["a0"]
    waiting(port, "c1", "c")
    assert port.ended == ["a0", "b0"]
    assert port.seats._waiting_count == 12


def test_idle_ones_are_found_behind_more_busy_ones_than_are_looked_at_in_a_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(seats_module, "_MAX_LOOKED_AT", 4)
    port = Port(10, 10)
    for number in range(9):
        port.busy(f"busy {number}")
    port.idle("idle")
    assert [port.take("new") is not None for _ in range(3)] == [False, False, True]
    assert port.ended == ["idle"]


def test_a_seat_that_moves_counts_where_it_went() -> None:
    port, members = Port(2, 2), Port(2, 1)
    first, second = port.idle("one"), port.busy("two")
    assert first.move(members.seats, "node-2")
    assert second.move(members.seats, "node-3")
    assert (port.seats.taken, members.seats.taken) == (0, 2)
    third = port.idle("three")
    assert third.move(members.seats, "node-2")  # the one before makes room
    assert (port.ended, members.seats.taken) == (["one"], 2)
    fourth = port.idle("four")
    assert not fourth.move(members.seats, "node-3")  # its only place is in use
    assert (fourth.is_taken, port.seats.taken, members.seats.taken) == (False, 0, 2)
    for seat in (first, second, third, fourth):
        seat.leave()
    assert members.seats.taken == 0


def test_many_are_one_line_of_the_log() -> None:
    port = Port(1, 1)
    for _ in range(1000):
        port.take("one")
    assert port.log.events == [("connections.turned_away", {"port": "http", "count": 1, "source": "a"})]
    assert port.count("gave_way") == 999


@pytest.mark.parametrize(
    ("address", "source"),
    [
        (("192.0.2.7", 40000), "192.0.2.7"),
        (("::ffff:192.0.2.7", 40000, 0, 0), "192.0.2.7"),
        (("2001:db8:1:2:3:4:5:6", 40000, 0, 0), "2001:db8:1:2::/64"),
        (("2001:db8:1:2::", 40000, 0, 0), "2001:db8:1:2::/64"),
        (("fe80::1%eth0", 40000, 0, 2), "fe80::/64"),
        (("::1", 40000, 0, 0), "::/64"),
        ("", ""),
        (None, ""),
        (("@", 1), ""),
    ],
)
def test_a_source_is_an_ipv4_address_or_an_ipv6_network(address: Any, source: str) -> None:
    assert source_of(address) == source


_STEPS = st.lists(
    st.tuples(st.sampled_from(("take", "busy", "idle", "wait", "leave")), st.integers(0, 3), st.integers(0, 30)),
    max_size=120,
)


@given(_STEPS, st.integers(1, 8), st.integers(1, 8))
def test_bounds_hold_and_nobody_is_turned_away_while_there_is_an_idle_one(
    steps: list[tuple[str, int, int]], total: int, per_source: int
) -> None:
    port = Seats(Caps(total, per_source), turned_away())
    open_: dict[Seat, str] = {}  # what each does
    for step, source, which in steps:
        name = str(source)
        if step == "take":
            own = [what for seat, what in open_.items() if seat.source == name]
            candidates = own if len(own) >= per_source else list(open_.values())
            is_full = len(own) >= per_source or len(open_) >= total
            ended: list[Seat] = []
            seat = port.take(name, lambda: None)
            for other in [other for other in open_ if not other.is_taken]:
                ended.append(other)
                what = open_.pop(other)
                assert what != "busy"
                if what == "wait":
                    assert [each.source for each in open_].count(other.source) >= len(own)
            assert len(ended) <= 2
            if seat is None:
                assert is_full
                assert all(what in ("busy", "wait") for what in candidates)
                sources = [each.source for each in open_]
                if len(own) < per_source:
                    waiting = [each.source for each, what in open_.items() if what == "wait"]
                    assert all(sources.count(each) <= len(own) for each in waiting)
            else:
                open_[seat] = "new"
        elif open_:
            seat = list(open_)[which % len(open_)]
            if step == "leave":
                seat.leave()
                seat.leave()
                del open_[seat]
            elif step == "wait":
                before = set(open_)
                if open_[seat] == "busy" and seat.wait():
                    open_[seat] = step
                for other in [other for other in before if not other.is_taken]:
                    assert open_.pop(other) == "wait"
            else:
                seat.end_wait()
                open_[seat] = step
                seat.settle(lambda what=step: what == "idle")  # type: ignore[misc]  # bound on purpose
        by_source = [seat.source for seat in open_]
        assert port.taken == len(open_) <= total
        assert port._waiting_count == list(open_.values()).count("wait") <= port.waiting_caps.total
        assert set(port._waiting) == {seat.source for seat, what in open_.items() if what == "wait"}
        assert all(by_source.count(name) <= per_source for name in by_source)
