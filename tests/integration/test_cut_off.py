"""A server that hears from no leader honours no token for longer than `acl.stale_seconds`."""

import asyncio
import time
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path

import pytest

from tests.integration.test_acl import WEB_RULES, Guarded, _bootstrapped
from tests.kit import pki
from tests.kit.real_cluster import LocalCluster, Node, Settings
from tests.kit.wait import eventually

pytestmark = [pytest.mark.slow, pki.needs_openssl]

LEAF = "/v1/agent/connect/ca/leaf/web"
SAID = "this node has not heard from a leader for "
#: `stale_seconds`, until a leader that lost its majority steps down, and some for a busy machine.
SECONDS = 1 + 1 + 3


@pytest.fixture
async def guarded(tmp_path: Path) -> AsyncIterator[Guarded]:
    settings: Settings = {
        "acl": {"default_policy": "deny", "stale_seconds": 1},
        "limits": {"signing_workers": 1, "leader_wait_ms": 500},
    }
    async with LocalCluster(tmp_path, settings=settings) as cluster:
        await cluster.start_all()
        await cluster.wait_ready()
        made = Guarded(cluster)
        made.root = (await eventually("access control is set up", lambda: _bootstrapped(made)))["SecretID"]
        yield made


async def _is_refused(guarded: Guarded, node: Node, path: str, token: str) -> bool:
    answer = await guarded.ask(node, "GET", path, token=token)
    return answer.status == 503 and answer.text.startswith(SAID)


@pytest.mark.parametrize("leads", [True, False])
async def test_who_is_cut_off_hands_nothing_out(guarded: Guarded, leads: bool) -> None:
    cluster = guarded.cluster
    leader = await cluster.leader()
    left = leader if leads else next(node for node in cluster.nodes if node is not leader)
    token = (await guarded.token(left, WEB_RULES))["SecretID"]
    leaf = await guarded.ask(left, "GET", LEAF, token=token)
    assert leaf.status == 200
    index = {"index": leaf.headers["X-Consul-Index"], "wait": "60s"}
    waiting = asyncio.ensure_future(guarded.ask(left, "GET", LEAF, token=token, query=index))
    await asyncio.sleep(0.2)
    assert not waiting.done()
    for node in cluster.nodes:
        if node is not left:
            await cluster.kill(node)
    alone = time.monotonic()
    for path in (LEAF, "/v1/acl/token/self?stale", "/v1/connect/ca/certs?stale"):
        await eventually(f"{path} is refused", partial(_is_refused, guarded, left, path, token))
        assert time.monotonic() - alone < SECONDS
    await eventually("an operator is refused", lambda: _is_refused(guarded, left, "/v1/snapshot?stale", guarded.root))
    async with asyncio.timeout(SECONDS):
        answer = await waiting
    assert (answer.status, answer.text[: len(SAID)]) == (503, SAID)
    # What anybody may ask goes on, and says how things are.
    assert (await cluster.ask(left, "GET", "/v1/connect/ca/roots?stale")).status == 200
    assert (await cluster.ask(left, "GET", "/v1/agent/connect/ca/roots")).status == 200
    assert (await cluster.ask(left, "GET", "/v1/status/ready")).status == 503
    for node in cluster.nodes:
        if node is not left:
            cluster.start(node)
    await cluster.wait_ready()
    assert (await guarded.ask(left, "GET", LEAF, token=token)).status == 200


async def test_token_that_was_revoked_without_a_server_is_not_good_there_for_long(guarded: Guarded) -> None:
    cluster = guarded.cluster
    made = await guarded.token(cluster.nodes[0], 'operator = "write"')
    leader = await cluster.leader()
    away = next(node for node in cluster.nodes if node is not leader)
    assert (await guarded.ask(away, "GET", "/v1/acl/token/self", token=made["SecretID"])).status == 200
    await cluster.kill(away)
    others = [node for node in cluster.nodes if node is not away]
    await guarded.must(others[0], "DELETE", f"/v1/acl/token/{made['AccessorID']}")
    for node in others:
        await cluster.kill(node)
    cluster.start(away)
    alone = time.monotonic()
    path = "/v1/connect/ca/configuration?stale"

    async def is_refused() -> bool:
        try:
            return await _is_refused(guarded, away, path, made["SecretID"])
        except OSError:
            return False  # it does not listen yet

    await eventually("the token is doubted", is_refused)
    assert time.monotonic() - alone < SECONDS + 10
