"""The leaf cache: one request per service, renewal in its window, and what a change of root does."""

import asyncio
import itertools
import math
import random
from collections.abc import Callable
from dataclasses import replace

import pytest

from cluster.access.authorizer import Authorizer
from cluster.access.rules import parse_rules
from cluster.agent.leaves import LeafCache, NewLeaf, is_within
from cluster.api.access import Caller
from cluster.api.leaves import IssuedCert, LocalLeaf
from cluster.base.errors import NoLeader, Overloaded, PermissionDenied, RateLimitReached
from fsm.ca import CARoot
from fsm.state import State
from providers.errors import CSRRejected
from providers.pki.x509 import colon_hex, load_cert, subject_key_id
from tests.kit import pki
from tests.kit.callers import ANYBODY
from tests.kit.clock import FakeClock
from tests.kit.pki import leaf_request
from tests.unit.providers.test_builtin import chain_of, primary

HOUR = 3600
TTL = 10 * HOUR
LEADER_WAIT = 7.0
PROVIDERS = {1: primary(1), 2: primary(2)}


def state_with_root(number: int, ca_index: int) -> State:
    pem = chain_of(PROVIDERS[number]).root_pem
    key_id = colon_hex(subject_key_id(load_cert(pem)))
    root = CARoot("id", "n", 1, key_id, key_id, pki.CLUSTER_ID, 0, 1 << 40, pem, (), True, "ec", 256)
    return State(index=ca_index, ca_index=ca_index, roots=(root,))


class Backend:
    """Roots and signatures; waiting for a change of the roots moves the clock instead."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.root = 1
        self.ca_index = 10
        self.state: State | None = None
        self.indexes = itertools.count(100)
        self.issued: list[str] = []
        self.asked_by: list[str] = []
        self.refused: set[str] = set()  # by AccessorID
        self.error: Exception | None = None
        self.lifetime: int | None = None  # of what is issued; None: as the rules of who asks say
        self.lifetimes: dict[str, int] = {}  # by AccessorID, where it is another
        self.gate: asyncio.Event | None = None
        self.seconds_a_wait = 1.0
        self.leader_after_seconds = 0.0
        self.waits: list[float] = []  # for a leader, granted to each step
        self.on_wait: Callable[[], None] = lambda: None
        self.cache = LeafCache(self.issue, self, self.clock, random.Random(7), LEADER_WAIT)

    async def issue(self, caller: Caller, service: str, requested_by: str, leader_wait_seconds: float) -> NewLeaf:
        self.issued.append(service)
        self.asked_by.append(caller.accessor_id)
        self.waited_for_a_leader(leader_wait_seconds)
        await asyncio.sleep(0)
        if self.gate is not None:
            await self.gate.wait()
        if self.error is not None:
            raise self.error
        if caller.accessor_id in self.refused:
            raise caller.denied("may not")
        number = len(self.issued)
        signed = PROVIDERS[self.root].sign_leaf(leaf_request(number=number))
        now = int(self.clock.now())
        granted = min(TTL, caller.rules.ttl_max_seconds(service) or TTL)
        lifetime = self.lifetimes.get(caller.accessor_id, self.lifetime or granted)
        cert = IssuedCert(
            signed.serial, signed.cert_pem, "service", service, "spiffe://x", now, now + lifetime, next(self.indexes)
        )
        return NewLeaf(cert, f"key {number}")

    def waited_for_a_leader(self, seconds: float) -> None:
        self.waits.append(seconds)
        self.clock.advance(min(seconds, self.leader_after_seconds))

    async def current(self, leader_wait_seconds: float = 0.0) -> State:
        await asyncio.sleep(0)
        self.waited_for_a_leader(leader_wait_seconds)
        if self.state is None:
            self.state = state_with_root(self.root, self.ca_index)
        return self.state

    async def changed(self, ca_index: int) -> State:
        await asyncio.sleep(0)
        self.on_wait()
        if self.ca_index == ca_index:
            self.clock.advance(self.seconds_a_wait)
            raise TimeoutError  # as the cache's own time-out does
        return await self.current()

    def rotate(self) -> None:
        self.root = 3 - self.root
        self.ca_index += 1
        self.state = None

    async def get(self, service: str = "web", index: int = 0, timeout_seconds: float = 0.0) -> LocalLeaf:
        return await self.cache.get(ANYBODY, service, "me", index, timeout_seconds)


@pytest.fixture
def backend() -> Backend:
    return Backend()


async def test_first_request_is_a_miss_and_the_next_a_hit_with_its_age(backend: Backend) -> None:
    first = await backend.get()
    backend.clock.advance(90)
    second = await backend.get()
    assert (first.is_hit, first.age_seconds) == (False, 0)
    assert second == replace(first, is_hit=True, age_seconds=90)
    assert backend.issued == ["web"]


async def test_each_service_has_its_own_leaf(backend: Backend) -> None:
    web, db = await backend.get("web"), await backend.get("db")
    assert web.private_key_pem != db.private_key_pem
    assert len(backend.cache) == 2


async def test_requests_at_the_same_time_are_one(backend: Backend) -> None:
    backend.gate = asyncio.Event()
    requests = [asyncio.ensure_future(backend.get()) for _ in range(50)]
    while not backend.issued:
        await asyncio.sleep(0)
    backend.gate.set()
    leaves = await asyncio.gather(*requests)
    assert backend.issued == ["web"]
    assert len({leaf.cert.index for leaf in leaves}) == 1


async def test_failure_is_shared_by_all_that_waited_for_it(backend: Backend) -> None:
    """One after the other, each with its own wait for a leader, would keep the last one waiting for minutes."""
    backend.gate, backend.error = asyncio.Event(), NoLeader("No cluster leader")
    requests = [asyncio.ensure_future(backend.get()) for _ in range(50)]
    while not backend.issued:
        await asyncio.sleep(0)
    for _ in range(10):
        await asyncio.sleep(0)
    backend.gate.set()
    outcomes = await asyncio.gather(*requests, return_exceptions=True)
    assert {type(outcome) for outcome in outcomes} == {NoLeader}
    assert backend.issued == ["web"]
    backend.error = None
    assert (await backend.get()).cert.name == "web"


async def test_request_waits_for_a_leader_once_and_not_at_each_step(backend: Backend) -> None:
    backend.leader_after_seconds, backend.error = math.inf, NoLeader("No cluster leader")
    begin = backend.clock.monotonic()
    with pytest.raises(NoLeader):
        await backend.get()
    assert backend.clock.monotonic() - begin == LEADER_WAIT
    assert backend.waits == [LEADER_WAIT, 0.0]


async def test_watch_waits_for_a_leader_once_and_anew_when_it_is_woken(backend: Backend) -> None:
    held = await backend.get()
    backend.leader_after_seconds = math.inf
    backend.waits.clear()
    begin = backend.clock.monotonic()
    answer = await backend.get(index=held.cert.index)
    assert (answer.is_hit, answer.cert) == (True, held.cert)
    assert backend.clock.monotonic() - begin == LEADER_WAIT
    backend.waits.clear()
    await backend.get(index=held.cert.index, timeout_seconds=backend.seconds_a_wait)
    assert backend.waits == [LEADER_WAIT, 0.0, LEADER_WAIT]


async def test_time_that_a_leader_was_waited_for_is_not_there_twice(backend: Backend) -> None:
    """A leader is found within the time, and lost again before it signs."""
    backend.leader_after_seconds = LEADER_WAIT - 2
    await backend.get()
    assert backend.waits == [LEADER_WAIT, 2.0]


async def test_client_that_goes_away_takes_no_other_along(backend: Backend) -> None:
    backend.gate = asyncio.Event()
    first, second = asyncio.ensure_future(backend.get()), asyncio.ensure_future(backend.get())
    while not backend.issued:
        await asyncio.sleep(0)
    first.cancel()
    backend.gate.set()
    assert (await second).cert.name == "web"
    assert backend.issued == ["web"]


async def test_leaf_is_renewed_at_random_within_its_window() -> None:
    dues = []
    for seed in range(40):
        backend = Backend()
        backend.cache = LeafCache(backend.issue, backend, backend.clock, random.Random(seed), LEADER_WAIT)
        await backend.get()
        start = backend.clock.now()
        while len(backend.issued) == 1:
            backend.clock.advance(TTL / 100)
            await backend.get()
        dues.append((backend.clock.now() - start) / TTL)
    assert min(dues) >= 0.6
    assert max(dues) <= 0.91  # found by the hundredth
    assert max(dues) - min(dues) > 0.2


async def test_renewal_brings_a_new_key(backend: Backend) -> None:
    first = await backend.get()
    backend.clock.advance(0.95 * TTL)
    second = await backend.get()
    assert not second.is_hit
    assert second.private_key_pem != first.private_key_pem
    assert second.cert.index > first.cert.index


async def test_plain_get_behind_a_change_of_root_is_from_the_new_root_at_once(backend: Backend) -> None:
    await backend.get()
    backend.rotate()
    leaf = await backend.get()
    assert not leaf.is_hit
    assert load_cert(leaf.cert.cert_pem).issuer == load_cert(chain_of(PROVIDERS[2]).root_pem).subject


@pytest.mark.parametrize("error", [NoLeader("n"), RateLimitReached("r"), CSRRejected("c")], ids=lambda e: str(e))
async def test_valid_leaf_is_served_while_no_other_can_be_had(backend: Backend, error: Exception) -> None:
    first = await backend.get()
    backend.error = error
    backend.clock.advance(0.95 * TTL)
    assert (await backend.get()).cert == first.cert
    backend.clock.advance(0.05 * TTL)  # expired now
    with pytest.raises(type(error)):
        await backend.get()


async def test_first_request_gets_the_error(backend: Backend) -> None:
    backend.error = RateLimitReached("Rate limit reached, try again later")
    with pytest.raises(RateLimitReached):
        await backend.get()


# -- watching


async def test_watcher_gets_the_same_leaf_when_its_time_is_over(backend: Backend) -> None:
    first = await backend.get()
    start = backend.clock.now()
    leaf = await backend.get(index=first.cert.index, timeout_seconds=60)
    assert leaf.cert == first.cert
    assert leaf.is_hit
    assert backend.clock.now() - start == pytest.approx(60, abs=1)


async def test_watcher_of_an_older_leaf_is_answered_at_once(backend: Backend) -> None:
    first = await backend.get()
    start = backend.clock.now()
    assert (await backend.get(index=first.cert.index - 1, timeout_seconds=60)).cert == first.cert
    assert backend.clock.now() == start


async def test_watcher_gets_the_renewed_leaf_when_it_is_due(backend: Backend) -> None:
    first = await backend.get()
    backend.seconds_a_wait = 600.0
    start = backend.clock.now()
    leaf = await backend.get(index=first.cert.index, timeout_seconds=TTL)
    assert leaf.cert.index > first.cert.index
    assert 0.6 * TTL <= backend.clock.now() - start <= 0.9 * TTL + 600


async def test_watchers_are_spread_over_half_a_minute_behind_a_change_of_root() -> None:
    delays = []
    for seed in range(40):
        backend = Backend()
        backend.cache = LeafCache(backend.issue, backend, backend.clock, random.Random(seed), LEADER_WAIT)
        first = await backend.get()
        backend.rotate()
        start = backend.clock.now()
        leaf = await backend.get(index=first.cert.index, timeout_seconds=300)
        assert leaf.cert.index > first.cert.index
        delays.append(backend.clock.now() - start)
    assert max(delays) <= 31
    assert max(delays) - min(delays) > 20


async def test_shorter_watches_in_turn_do_not_put_the_renewal_off(backend: Backend) -> None:
    first = await backend.get()
    backend.rotate()
    start = backend.clock.now()
    while (leaf := await backend.get(index=first.cert.index, timeout_seconds=2)).cert == first.cert:
        assert backend.clock.now() - start <= 34
    assert not leaf.is_hit


async def test_watcher_notices_a_change_of_root_while_it_waits(backend: Backend) -> None:
    first = await backend.get()
    waits = itertools.count()
    backend.on_wait = lambda: backend.rotate() if next(waits) == 5 else None
    start = backend.clock.now()
    leaf = await backend.get(index=first.cert.index, timeout_seconds=300)
    assert leaf.cert.index > first.cert.index
    assert backend.clock.now() - start <= 5 + 31


async def test_watcher_that_meets_the_rate_limit_waits_and_tries_again(backend: Backend) -> None:
    first = await backend.get()
    backend.rotate()
    backend.error = RateLimitReached("Rate limit reached, try again later")

    def recover() -> None:
        if len(backend.issued) == 3:
            backend.error = None

    backend.on_wait = recover
    leaf = await backend.get(index=first.cert.index, timeout_seconds=300)
    assert leaf.cert.index > first.cert.index
    assert len(backend.issued) == 4


async def test_other_errors_end_a_watch_at_once(backend: Backend) -> None:
    first = await backend.get()
    backend.rotate()
    backend.error = NoLeader("No cluster leader")
    start = backend.clock.now()
    with pytest.raises(NoLeader):
        await backend.get(index=first.cert.index, timeout_seconds=300)
    assert backend.clock.now() - start <= 31


async def test_watcher_gets_what_a_plain_get_has_renewed(backend: Backend) -> None:
    first = await backend.get()
    backend.rotate()
    second = await backend.get()
    third = await backend.get(index=first.cert.index, timeout_seconds=300)
    assert third.cert == second.cert
    assert len(backend.issued) == 2


async def test_watch_with_an_index_of_nothing_yet_gets_the_first_leaf(backend: Backend) -> None:
    assert not (await backend.get(index=5000, timeout_seconds=60)).is_hit


# -- bounds


async def test_cache_is_bounded_and_drops_what_was_used_longest_ago(
    backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cluster.agent.leaves._MAX_SERVICES", 3)
    for service in ("a", "b", "c", "a", "d"):
        await backend.get(service)
    assert len(backend.cache) == 3
    assert (await backend.get("a")).is_hit
    assert not (await backend.get("b")).is_hit


async def test_leaf_nobody_asked_for_in_three_days_is_dropped(backend: Backend) -> None:
    await backend.get("old")
    backend.clock.advance(72 * HOUR + 1)
    await backend.get("new")
    assert len(backend.cache) == 1


async def test_cache_full_of_requests_under_way_refuses_one_more(
    backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cluster.agent.leaves._MAX_SERVICES", 2)
    backend.gate = asyncio.Event()
    requests = [asyncio.ensure_future(backend.get(service)) for service in "ab"]
    while len(backend.issued) < 2:
        await asyncio.sleep(0)
    with pytest.raises(Overloaded, match="holds as many leaves as it can"):
        await backend.get("c")
    backend.gate.set()
    await asyncio.gather(*requests)


# -- who asks


def _caller(name: str, rules: str = 'service "web" { policy = "write" }') -> Caller:
    return Caller(f"secret of {name}", name, Authorizer(parse_rules(rules), allows_by_default=False))


async def test_refusal_of_one_is_never_handed_to_another_who_waits(backend: Backend) -> None:
    """Each is refused what it may not have, and gets what it may, whoever came first."""
    backend.refused = {"weak"}
    backend.gate = asyncio.Event()
    weak, strong, other = (
        asyncio.ensure_future(backend.cache.get(_caller(name), "web", "me", 0, 0))
        for name in ("weak", "strong", "other")
    )
    await asyncio.sleep(0.01)
    assert backend.asked_by == ["weak"]
    backend.gate.set()
    with pytest.raises(PermissionDenied, match="AccessorID 'weak' may not"):
        await weak
    assert (await strong).private_key_pem == (await other).private_key_pem == "key 2"
    assert backend.asked_by == ["weak", "strong"]


async def test_leaf_of_somebody_who_may_have_longer_ones_is_not_there_for_others(backend: Backend) -> None:
    long = _caller("long")
    short = _caller("short", 'service "web" { policy = "write" ttl_max = "1h" }')
    shorter = _caller("shorter", 'service_prefix "" { policy = "write" ttl_max = "10m" }')
    keys = [(await backend.cache.get(one, "web", "me", 0, 0)).private_key_pem for one in (long, short, shorter, long)]
    assert keys == ["key 1", "key 2", "key 3", "key 1"]
    assert backend.asked_by == ["long", "short", "shorter"]


SHORT = 'service "web" { policy = "write" ttl_max = "1h" }'


async def test_leaf_that_lasts_longer_than_all_in_its_place_may_have_is_not_kept_there(backend: Backend) -> None:
    """The leader has judged by rules that are newer than what this node has looked up."""
    backend.lifetime = HOUR
    one, other = _caller("one", SHORT), _caller("other", SHORT)
    first = await backend.cache.get(one, "web", "me", 0, 0)
    assert await backend.cache.get(other, "web", "me", 0, 0) == replace(first, is_hit=True)
    backend.lifetime = TTL
    backend.rotate()
    watched = await backend.cache.get(one, "web", "me", first.cert.index, 60)
    assert (watched.is_hit, watched.private_key_pem) == (False, "key 2")
    backend.lifetime = HOUR
    for caller in (other, one):
        assert (await backend.cache.get(caller, "web", "me", 0, 0)).private_key_pem == "key 3"


async def test_longer_leaf_of_one_is_never_handed_to_another_who_waits(backend: Backend) -> None:
    backend.lifetimes = {"one": TTL, "other": HOUR}
    backend.gate = asyncio.Event()
    one, other, third = (
        asyncio.ensure_future(backend.cache.get(_caller(name, SHORT), "web", "me", 0, 0))
        for name in ("one", "other", "other")
    )
    await asyncio.sleep(0.01)
    assert backend.asked_by == ["one"]
    backend.gate.set()
    assert (await one).private_key_pem == "key 1"
    assert (await other).private_key_pem == (await third).private_key_pem == "key 2"
    assert backend.asked_by == ["one", "other"]


@pytest.mark.parametrize(
    ("begins", "ends", "is_good"),
    [
        (-60, HOUR - 60, True),
        (0, HOUR, True),
        (0, HOUR + 60, True),  # clocks differ
        (0, HOUR + 61, False),
        (-86_400, HOUR + 60, True),  # begins long before, where the CA says so
        (-86_400, HOUR + 61, False),
        (300, HOUR + 300, True),  # by a clock that is ahead
        (-60, TTL - 60, False),
    ],
)
def test_lifetime_counts_from_where_it_can_be_used(begins: int, ends: int, is_good: bool) -> None:
    cert = IssuedCert(1, "", "service", "web", "spiffe://x", 1_000_000 + begins, 1_000_000 + ends, 1)
    assert is_within(cert, 1_000_000.0, HOUR) is is_good
    assert is_within(cert, 1_000_000.0, 0)
