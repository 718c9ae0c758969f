"""Blocking queries, consistency, cache control, datacenters: what every query has in common."""

import asyncio
import random

import aiohttp
import pytest

from cluster.api.reads import ReadLevel
from cluster.http.blocking import DEFAULT_WAIT_SECONDS, query_options
from tests.kit.fake_service import root
from tests.kit.wait import until
from tests.parts.http.conftest import Running, Start

ROOTS = "/v1/connect/ca/roots"
AGENT_ROOTS = "/v1/agent/connect/ca/roots"
LEAF = "/v1/agent/connect/ca/leaf/web"


def waiting_on(api: Running) -> float | None:
    """How many blocking queries wait, as the metrics have it."""
    return api.service.metrics.registry.get_sample_value("quorumca_blocking_queries")


@pytest.mark.parametrize("path", [ROOTS, AGENT_ROOTS])
async def test_a_blocking_query_returns_when_the_roots_change(api: Running, path: str) -> None:
    # For longer than `get` waits: a query that only its time has ended does not pass.
    waiting = asyncio.create_task(api.get(f"{path}?index=5&wait=1m"))
    await until(lambda: any(name == "watch" for name, _ in api.service.calls))
    assert waiting_on(api) == 1
    await api.service.change(roots=(root("r2"),), roots_index=6)
    reply = await waiting
    assert (reply.headers["X-Consul-Index"], reply.json()["ActiveRootID"]) == ("6", "aa:r2")
    assert waiting_on(api) == 0


async def test_a_blocking_query_returns_the_same_after_its_wait(api: Running) -> None:
    reply = await api.get(f"{ROOTS}?index=5&wait=20ms")
    assert (reply.status, reply.headers["X-Consul-Index"]) == (200, "5")


async def test_an_index_that_is_behind_returns_at_once(api: Running) -> None:
    assert (await api.get(f"{ROOTS}?index=4&wait=10m")).headers["X-Consul-Index"] == "5"


async def test_the_configuration_can_be_watched_too(api: Running) -> None:
    waiting = asyncio.create_task(api.get("/v1/connect/ca/configuration?index=3&wait=1m"))
    await until(lambda: api.service.calls)
    await api.put("/v1/connect/ca/configuration", {"Provider": "consul", "Config": {"LeafCertTTL": "1h"}})
    assert (await waiting).json()["Config"] == {"LeafCertTTL": "1h"}


@pytest.mark.parametrize(
    ("wait", "least", "most"),
    [("", 300.0, 318.75), ("0s", 300.0, 318.75), ("1m", 60.0, 63.75), ("-5s", 300.0, 318.75), ("24h", 600.0, 637.5)],
)
def test_the_wait_is_clamped_and_gets_up_to_a_sixteenth_more(wait: str, least: float, most: float) -> None:
    options = query_options({"index": "1", "wait": wait})
    drawn = {options.timeout(random.Random(seed), DEFAULT_WAIT_SECONDS) for seed in range(100)}
    assert least <= min(drawn) < max(drawn) <= most
    assert len(drawn) > 50


async def test_a_leaf_waits_ten_minutes_unless_told_otherwise(api: Running) -> None:
    waiting = asyncio.create_task(api.get(f"{LEAF}?index=7"))
    await until(lambda: api.service.calls)
    ((_, (*_, index, timeout)),) = api.service.calls
    assert (index, 600.0 <= float(str(timeout)) <= 637.5) == (7, True)
    waiting.cancel()


@pytest.mark.parametrize(
    ("query", "text"),
    [
        ("index=-1", "Invalid index"),
        ("index=x", "Invalid index"),
        ("index=%2B1", "Invalid index"),
        ("index=18446744073709551616", "Invalid index"),
        ("index=%D9%A1", "Invalid index"),
        ("index=1&wait=5", "Invalid wait time"),
        ("wait=x", "Invalid wait time"),
        ("wait=99999999999h", "Invalid wait time"),
        ("stale&consistent", "Cannot specify ?stale with ?consistent, conflicting semantics."),
        ("max_stale=1s&consistent", "Cannot specify ?stale with ?consistent, conflicting semantics."),
        ("cached&consistent", "Cannot specify ?cached with ?consistent, conflicting semantics."),
        ("max_stale=x", "Invalid max_stale value 'x'"),
    ],
)
@pytest.mark.parametrize("path", [ROOTS, AGENT_ROOTS, LEAF, "/v1/connect/ca/configuration"])
async def test_parameters_that_are_odd_are_400_with_consuls_texts(
    api: Running, path: str, query: str, text: str
) -> None:
    reply = await api.get(f"{path}?{query}")
    assert (reply.status, reply.text, api.service.calls) == (400, text, [])


@pytest.mark.parametrize(
    ("query", "level", "consistency"),
    [
        ("", ReadLevel.LINEARIZABLE, "leader"),
        ("leader&cached", ReadLevel.LINEARIZABLE, "leader"),
        ("consistent", ReadLevel.LINEARIZABLE, "consistent"),
        ("consistent=&max_stale=0s", ReadLevel.LINEARIZABLE, "consistent"),
        ("stale=1", ReadLevel.STALE, "stale"),
        ("max_stale=1s", ReadLevel.STALE, "stale"),
        ("index=18446744073709551615&stale&wait=1ms", ReadLevel.STALE, "stale"),
    ],
)
async def test_the_level_follows_the_flags(api: Running, query: str, level: ReadLevel, consistency: str) -> None:
    reply = await api.get(f"{ROOTS}?{query}")
    assert reply.headers["X-Consul-Effective-Consistency"] == consistency
    assert api.service.calls[0][1][0] is level


async def test_max_stale_asks_the_leader_when_this_node_is_too_far_behind(api: Running) -> None:
    api.service.last_contact_ms = 1500
    reply = await api.get(f"{ROOTS}?max_stale=2s")
    assert reply.headers["X-Consul-LastContact"] == "1500"
    await api.get(f"{ROOTS}?max_stale=1s")
    levels = [args[0] for _, args in api.service.calls]
    assert levels == [ReadLevel.STALE, ReadLevel.STALE, ReadLevel.LINEARIZABLE]


@pytest.mark.parametrize(
    ("directives", "status"),
    [
        ("max-age=5, must-revalidate", 200),
        ("MAX-AGE=0,stale-if-error=3600 , no-cache", 200),
        ("max-age=-1", 200),
        ("max-age=x", 400),
        ("max-age", 400),
        ("stale-if-error=", 400),
    ],
)
@pytest.mark.parametrize("path", [AGENT_ROOTS, LEAF])
async def test_cache_control_is_checked(api: Running, path: str, directives: str, status: int) -> None:
    reply = await api.get(path, headers={"Cache-Control": directives})
    assert reply.status == status
    assert status == 200 or reply.text == "Invalid Cache-Control header."


@pytest.mark.parametrize("path", [ROOTS, LEAF, "/v1/status/leader", "/v1/catalog/datacenters", "/v1/agent/self"])
async def test_another_datacenter_is_500_with_consuls_text(api: Running, path: str) -> None:
    assert (await api.get(f"{path}?dc=dc1&ns=x&partition=y")).status == 200
    assert (await api.get(f"{path}?dc=")).status == 200
    reply = await api.get(f"{path}?dc=dc2")
    assert (reply.status, reply.text) == (500, "No path to datacenter")


async def test_too_many_blocking_queries_are_503(start: Start) -> None:
    api: Running = await start(max_waiting=2)
    waiting = [asyncio.create_task(api.get(f"{ROOTS}?index=5&wait=5s")) for _ in range(2)]
    await until(lambda: len(api.service.calls) == 2)
    for path in (ROOTS, AGENT_ROOTS, LEAF):
        reply = await api.get(f"{path}?index=7")
        assert (reply.status, reply.text[:25], reply.headers["Retry-After"]) == (503, "too many blocking queries", "1")
    await api.service.change(roots_index=6)
    assert [reply.status for reply in await asyncio.gather(*waiting)] == [200, 200]
    assert (await api.get(f"{ROOTS}?index=6&wait=1ms")).status == 200


async def test_a_client_that_leaves_frees_its_place(start: Start) -> None:
    api: Running = await start(max_waiting=1)
    _, writer = await api.connect()
    writer.write(f"GET {ROOTS}?index=5 HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
    await until(lambda: api.service.calls)
    assert (await api.get(f"{ROOTS}?index=5&wait=1ms")).status == 503
    writer.close()
    await until(lambda: waiting_on(api) == 0)
    assert (await api.get(f"{ROOTS}?index=5&wait=1ms")).status == 200


async def test_stop_ends_blocking_queries_and_lets_other_requests_finish(start: Start) -> None:
    api: Running = await start(stop_seconds=5.0)
    api.service.gate = asyncio.Event()
    signing = asyncio.create_task(api.put("/v1/connect/ca/sign", {"CSR": "BEGIN CERTIFICATE REQUEST"}))
    waiting = asyncio.create_task(api.get(f"{ROOTS}?index=5"))
    await until(lambda: len(api.service.calls) == 2)
    stopping = asyncio.create_task(api.server.stop())
    reply = await waiting
    assert (reply.status, reply.text) == (503, "this node is shutting down")
    api.service.gate.set()
    assert (await signing).status == 200
    await stopping
    with pytest.raises(OSError, match="Connect"):
        await api.connect()


async def test_stop_does_not_wait_longer_than_its_bound(start: Start) -> None:
    api: Running = await start(stop_seconds=0.1)
    api.service.gate = asyncio.Event()
    signing = asyncio.create_task(api.put("/v1/connect/ca/sign", {"CSR": "BEGIN CERTIFICATE REQUEST"}))
    await until(lambda: api.service.calls)
    async with asyncio.timeout(2):
        await api.server.stop()
    with pytest.raises(aiohttp.ClientError):
        await signing


@pytest.mark.parametrize("query", ["token=a&token=b", "token=&token=b", "token=a&x=1&token=", "%74oken=a&token=b"])
async def test_two_tokens_in_one_query_string_are_refused(api: Running, query: str) -> None:
    reply = await api.get(f"{ROOTS}?{query}")
    assert (reply.status, reply.text) == (400, "two different tokens: the query string has token twice")


async def test_what_is_given_twice_counts_as_it_was_given_first(api: Running) -> None:
    """As in Consul; and the same token twice is one."""
    reply = await api.get(f"{ROOTS}?token=&token=&index=4&index=5&wait=1m")
    assert reply.status == 200
