"""Refused tokens, logins and bootstraps are limited by source, before a body is read and before anybody is asked.

Whoever has a right token is served all the same.
"""

import asyncio
import time
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from cluster.access.authorizer import Authorizer
from cluster.access.rules import parse_rules
from cluster.api.access import Caller
from cluster.base.errors import (
    AnswerLost,
    BadRequest,
    ChangeUnderWay,
    ClusterError,
    CommitUnknown,
    InternalError,
    NoLeader,
    NotLeader,
    NotReady,
    Overloaded,
    PermissionDenied,
    RateLimitReached,
    Refused,
)
from cluster.http.context import API
from cluster.http.refusals import Refusals
from fsm.acl import Acl, Token
from tests.kit.callers import MANAGER
from tests.kit.clock import FakeClock
from tests.kit.fake_service import CSR
from tests.parts.http.conftest import Reply, Running, Start, read_to_end

SIGN = "/v1/connect/ca/sign"
LOGIN = "/v1/acl/login"
BOOTSTRAP = "/v1/acl/bootstrap"
BURST = 20
LIMITS = {"refused_per_source": BURST / 10}


@pytest.fixture
async def api(start: Start) -> Running:
    running: Running = await start(limits=LIMITS)
    running.service.is_open = False
    running.service.callers["right"] = MANAGER
    return running


def with_token(secret_id: str) -> dict[str, str]:
    return {"X-Consul-Token": secret_id}


async def ask_with(api: Running, secret_id: str) -> Reply:
    return await api.put(SIGN, {"CSR": CSR}, headers=with_token(secret_id))


def asked_elsewhere(api: Running, name: str = "caller") -> int:
    return sum(called == name for called, _ in api.service.calls)


def clock_of(api: Running) -> FakeClock:
    clock = api.server._runner.app[API].clock
    assert isinstance(clock, FakeClock)
    return clock


async def exhaust(api: Running) -> None:
    replies = [await ask_with(api, f"wrong-{number}") for number in range(BURST)]
    assert [(reply.status, reply.text) for reply in replies] == [(403, "ACL not found")] * BURST


# -- tokens


async def test_after_so_many_wrong_tokens_a_source_is_answered_without_asking_anybody(api: Running) -> None:
    await exhaust(api)
    assert asked_elsewhere(api) == BURST
    refused = await ask_with(api, "wrong")
    assert (refused.status, refused.headers["Retry-After"]) == (429, "1")
    assert refused.text == (
        "Rate limit reached, try again later: at most 2 requests with unknown tokens from one address in a second"
    )
    assert asked_elsewhere(api) == BURST
    assert asked_elsewhere(api, "sign") == 0
    clock_of(api).advance(1)  # as it was told
    assert [(await ask_with(api, "wrong")).status for _ in range(3)] == [403, 403, 429]


async def test_right_token_is_served_however_many_wrong_ones_come_from_its_address(api: Running) -> None:
    await exhaust(api)
    for _ in range(5):
        assert (await ask_with(api, "wrong")).status == 429
        assert (await ask_with(api, "right")).status == 200
        assert (await api.put(SIGN, {"CSR": CSR})).status == 200  # of nobody, who may do this here
    assert (await api.get("/v1/status/leader", headers=with_token("wrong"))).status == 200


async def test_known_tokens_use_nothing_up_whatever_they_are_refused(api: Running) -> None:
    for _ in range(3 * BURST):
        assert (await api.put(SIGN, {}, headers=with_token("right"))).status == 400
    await exhaust(api)


def weak(name: str) -> Caller:
    rules = parse_rules('service "api" { policy = "write" }')
    return Caller(name, f"of-{name}", Authorizer(rules, allows_by_default=False))


@pytest.mark.parametrize("is_refused_by", ["the leader", "the gate"])
async def test_csrs_that_a_token_does_not_give_are_limited_and_no_other_tokens(
    api: Running, is_refused_by: str
) -> None:
    """By whom they are refused makes no difference; one costs a round to the leader, and a look at the CSR."""
    callers = api.service.callers
    callers |= {"weak": weak("weak"), "other": weak("other")}
    if is_refused_by == "the leader":
        api.service.fail_with["sign"] = PermissionDenied("lacks permission 'service:write'")
    else:
        callers["weak"] = replace(weak("weak"), rules=Authorizer((), allows_by_default=False))
    for _ in range(BURST):
        reply = await ask_with(api, "weak")
        assert (reply.status, "lacks permission 'service:write'" in reply.text) == (403, True)
    asked = asked_elsewhere(api, "sign")
    assert asked == (BURST if is_refused_by == "the leader" else 0)
    refused = await ask_with(api, "weak")
    assert (refused.status, refused.headers["Retry-After"]) == (429, "1")
    assert "at most 2 refused requests of one token from one address in a second" in refused.text
    assert asked_elsewhere(api, "sign") == asked
    api.service.fail_with.clear()
    assert [(await ask_with(api, name)).status for name in ("other", "right", "wrong")] == [200, 200, 403]
    if is_refused_by == "the leader":
        assert (await ask_with(api, "weak")).status == 429  # of what it may have, too, for a while
        clock_of(api).advance(1)
        assert (await ask_with(api, "weak")).status == 200


async def test_csrs_that_are_signed_use_nothing_up_however_many_are_under_way(api: Running) -> None:
    api.service.callers["weak"] = weak("weak")
    replies = await asyncio.gather(*(ask_with(api, "weak") for _ in range(3 * BURST)))
    assert {reply.status for reply in replies} == {200}


async def test_nothing_of_the_body_is_awaited(api: Running) -> None:
    await exhaust(api)
    head = f"PUT {SIGN} HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Consul-Token: wrong\r\nContent-Length: 100000\r\n\r\n"
    reader, writer = await api.connect()
    writer.write(head.encode())
    async with asyncio.timeout(2):
        assert (await reader.readline()).startswith(b"HTTP/1.1 429 ")
    writer.write_eof()
    await read_to_end(reader)


async def test_who_asks_again_at_every_answer_is_held_up_and_nobody_else(api: Running) -> None:
    await exhaust(api)
    answers: list[int] = []

    async def flood() -> None:
        while True:
            answers.append((await ask_with(api, "wrong")).status)

    flooders = [asyncio.ensure_future(flood()) for _ in range(4)]
    begin, honest = time.monotonic(), 0
    while (seconds := time.monotonic() - begin) < 0.5:
        assert (await ask_with(api, "right")).status == 200
        honest += 1
    for flooder in flooders:
        flooder.cancel()
    assert set(answers) == {429}
    assert len(answers) <= 4 * (1 + seconds / 0.2)
    assert honest > len(answers)


async def test_many_at_once_get_no_more_than_one_by_one(api: Running) -> None:
    replies = await asyncio.gather(*(ask_with(api, f"wrong-{number}") for number in range(5 * BURST)))
    assert sorted({reply.status for reply in replies}) == [403, 429]
    assert sum(reply.status == 403 for reply in replies) == BURST == asked_elsewhere(api)


async def test_tokens_that_are_too_long_to_be_any_count(api: Running) -> None:
    for _ in range(BURST):
        assert (await ask_with(api, "x" * 100)).status == 403
    assert (await ask_with(api, "x" * 100)).status == 429


async def test_token_that_only_the_leader_knows_yet_uses_nothing_up(api: Running) -> None:
    here = api.service.caller_here

    async def caller(secret_id: str) -> Any:
        return MANAGER if secret_id == "new" else here(secret_id)

    app_access: Any = api.service
    app_access.caller = caller
    for _ in range(3 * BURST):
        assert (await ask_with(api, "new")).status == 200


async def test_without_a_leader_nobody_uses_anything_up(api: Running) -> None:
    api.service.fail_with["caller"] = NoLeader("No cluster leader")
    for _ in range(3 * BURST):
        assert (await ask_with(api, "wrong")).status == 503
    del api.service.fail_with["caller"]
    await exhaust(api)


@pytest.mark.parametrize(
    ("error", "counts"),
    [
        (NoLeader("No cluster leader"), False),
        (NotLeader("this node does not lead"), False),
        (NotReady("not yet"), False),
        (Overloaded("too many logins of one method are under way"), False),
        (ChangeUnderWay("try again later"), False),
        (CommitUnknown("the leader gave no answer; it may have taken effect"), True),
        (AnswerLost("no"), True),
        (InternalError("no"), True),
        (Refused("no room"), True),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else "",
)
async def test_only_what_is_known_to_be_the_clusters_own_fault_uses_nothing_up(
    api: Running, error: ClusterError, counts: bool
) -> None:
    """A login at a server that hangs is a time-out each time: it is not free for whoever asks for it."""
    api.service.fail_with["login"] = error
    statuses = [(await api.put(LOGIN, {})).status for _ in range(BURST + 1)]
    assert statuses == [error.http_status] * BURST + [429 if counts else error.http_status]


async def test_zero_is_no_limit(start: Start) -> None:
    api: Running = await start(limits={"refused_per_source": 0})
    api.service.is_open = False
    for _ in range(3 * BURST):
        assert (await ask_with(api, "wrong")).status == 403


async def test_by_default_it_is_five_hundred_at_once(start: Start) -> None:
    api: Running = await start()
    api.service.is_open = False
    statuses = [(await ask_with(api, "wrong")).status for _ in range(501)]
    assert statuses == [403] * 500 + [429]


async def test_refusals_are_in_the_metrics(api: Running) -> None:
    await exhaust(api)
    await ask_with(api, "wrong")
    sample = api.service.metrics.registry.get_sample_value("quorumca_limited_total", {"limit": "refused"})
    assert sample == 1


# -- what is proved in a body


@pytest.mark.parametrize(("path", "name"), [(LOGIN, "login"), (BOOTSTRAP, "bootstrap")])
async def test_refused_logins_and_bootstraps_are_limited(api: Running, path: str, name: str) -> None:
    api.service.fail_with[name] = PermissionDenied("Permission denied")
    for _ in range(BURST):
        assert (await api.put(path, {})).status == 403
    refused = await api.put(path, {})
    assert (refused.status, refused.headers["Retry-After"]) == (429, "1")
    assert asked_elsewhere(api, name) == BURST
    del api.service.fail_with[name]
    assert (await api.put(path, {})).status == 429  # what it would prove is not known yet
    clock_of(api).advance(1)
    written(api)
    assert (await api.put(path, {})).status == 200
    await exhaust(api)  # tokens are counted by themselves


def written(api: Running) -> None:
    """What a login is answered with is there."""
    token = Token("11111111-2222-4333-8444-555555555555", bytes(32), "")
    api.service.state = replace(api.service.state, acl=Acl(tokens=(token,)))
    api.service.acl.written = token.accessor_id


async def test_logins_that_succeed_use_nothing_up(api: Running) -> None:
    written(api)
    for _ in range(3 * BURST):
        assert (await api.put(LOGIN, {"AuthMethod": "m", "BearerToken": "t"})).status == 200


async def test_logins_that_are_none_count_too(api: Running) -> None:
    for _ in range(BURST):
        assert (await api.ask("POST", LOGIN, data=b"rubbish")).status == 400
    assert (await api.ask("POST", LOGIN, data=b"rubbish")).status == 429


# -- who counts as one


def from_address(address: str | None) -> Any:
    return SimpleNamespace(remote=address)


@pytest.mark.parametrize(
    ("one", "same", "other"),
    [
        ("192.0.2.1", "192.0.2.1", "192.0.2.2"),
        ("2001:db8:0:1::1", "2001:db8:0:1:ffff::9", "2001:db8:0:2::1"),
        ("::ffff:192.0.2.1", "192.0.2.1", "::ffff:192.0.2.2"),
        ("fe80::1%eth0", "fe80::2", "fe80:0:0:1::1"),
        (None, "", "127.0.0.1"),
    ],
)
async def test_a_source_is_an_address_or_a_network_of_64_bits(one: str | None, same: str, other: str) -> None:
    refusals = Refusals(0.1, FakeClock().monotonic, lambda: None)
    with pytest.raises(PermissionDenied):
        async with refusals.of_proof(from_address(one)):
            raise PermissionDenied("no")
    with pytest.raises(RateLimitReached):
        async with refusals.of_proof(from_address(same)):
            raise AssertionError("was let in")
    with pytest.raises(BadRequest):
        async with refusals.of_proof(from_address(other)):
            raise BadRequest("no")


async def test_who_goes_away_before_the_answer_has_used_one_up() -> None:
    refusals = Refusals(0.1, FakeClock().monotonic, lambda: None)
    with pytest.raises(asyncio.CancelledError):
        async with refusals.of_token(from_address("192.0.2.1")):
            raise asyncio.CancelledError
    with pytest.raises(RateLimitReached):
        async with refusals.of_token(from_address("192.0.2.1")):
            raise AssertionError("was let in")
