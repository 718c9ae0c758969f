"""Whoever could ask when a request came, and may not any more once it has waited for something, gets nothing."""

import asyncio
import json
from collections.abc import Callable

import pytest

from cluster.access.authorizer import Authorizer
from cluster.access.rules import Rule
from cluster.api.access import Caller, Level, Resource
from cluster.http.app import ROUTES, template
from cluster.http.gate import Open
from tests.kit.acl_samples import uuid
from tests.kit.callers import MANAGER
from tests.kit.wait import until
from tests.parts.http.conftest import Reply, Running, read_to_end

TOKEN = {"X-Consul-Token": MANAGER.secret_id}
UNKNOWN = (403, "ACL not found")
#: What a route's path has to be filled with, for there to be something.
FILLED = {
    "{service}": "web",
    "{serial}": "01:2f",
    "{id}": uuid(1),
    "{name}": "global-management",
}
GETS = sorted(template(route.path) for route in ROUTES if "GET" in route.methods and not isinstance(route.access, Open))


def with_rules(*rules: Rule) -> Caller:
    return Caller(MANAGER.secret_id, uuid(1), Authorizer(rules, allows_by_default=False))


def forget(api: Running) -> None:
    del api.service.callers[MANAGER.secret_id]


def weaken(api: Running) -> None:
    api.service.callers[MANAGER.secret_id] = with_rules()


async def held(api: Running, name: str) -> None:
    """Until the service was asked for this, and waits."""
    await until(lambda: any(called == name for called, _ in api.service.calls), f"{name} is called")


@pytest.fixture
def closed(api: Running) -> Running:
    """Nothing is allowed by default."""
    api.service.is_open = False
    return api


@pytest.mark.parametrize(
    "path", [path for path in GETS if path.startswith("/v1/acl/")] + ["/v1/connect/ca/configuration"]
)
async def test_read_that_waited_for_a_leader_is_not_for_a_token_that_is_gone(closed: Running, path: str) -> None:
    for name, value in FILLED.items():
        path = path.replace(name, value)
    closed.service.read_gate = asyncio.Event()
    asked = asyncio.create_task(closed.get(path, headers=TOKEN))
    await held(closed, "read")
    forget(closed)
    closed.service.read_gate.set()
    reply = await asked
    assert (reply.status, reply.text) == UNKNOWN


async def test_read_is_for_whoever_still_has_the_right(closed: Running) -> None:
    """And what has taken it away meanwhile is said."""
    closed.service.read_gate = asyncio.Event()
    asked = asyncio.create_task(closed.get("/v1/connect/ca/configuration", headers=TOKEN))
    await held(closed, "read")
    weaken(closed)
    closed.service.read_gate.set()
    reply = await asked
    assert reply.status == 403
    assert "lacks permission 'operator:write'" in reply.text


@pytest.mark.parametrize(
    ("method", "path", "body", "called"),
    [
        ("PUT", "/v1/agent/token/agent", {"Token": uuid(9)}, "put_agent_token"),
        ("PUT", "/v1/connect/ca/configuration", {"Provider": "consul", "Config": {}}, "configure"),
        ("PUT", "/v1/acl/policy", {"Name": "p"}, "put"),
        ("PUT", "/v1/acl/token", {}, "put"),
        ("PUT", f"/v1/acl/token/{uuid(1)}/clone", {}, "clone"),
        ("POST", "/v1/agent/connect/authorize", {"Target": "web"}, "authorize"),
    ],
)
@pytest.mark.parametrize("change", [forget, weaken])
async def test_body_that_comes_slowly_is_of_whoever_may_by_its_end(
    closed: Running, method: str, path: str, body: object, called: str, change: Callable[[Running], None]
) -> None:
    await _sends_slowly(closed, method, path, body, change)
    assert called not in [name for name, _ in closed.service.calls]


async def test_signature_is_not_asked_for_with_a_token_that_is_gone(closed: Running) -> None:
    """Of one that is there the leader judges what it asks for."""
    await _sends_slowly(closed, "PUT", "/v1/connect/ca/sign", {"CSR": "x"}, forget)
    assert "sign" not in [name for name, _ in closed.service.calls]


async def _sends_slowly(
    closed: Running, method: str, path: str, body: object, change: Callable[[Running], None]
) -> None:
    data = json.dumps(body).encode()
    reader, writer = await closed.connect()
    head = (
        f"{method} {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Consul-Token: {MANAGER.secret_id}\r\n"
        f"Content-Length: {len(data)}\r\nExpect: 100-continue\r\n\r\n"
    )
    writer.write(head.encode())
    # It is asked to go on: so it has been let in.
    assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 100")
    await asyncio.sleep(0.05)
    change(closed)
    writer.write(data)
    async with asyncio.timeout(5):
        answer = await reader.readuntil(b"\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 403"), answer


@pytest.mark.parametrize(
    ("path", "rule"),
    [
        ("/v1/agent/connect/ca/leaf/web", Rule(Resource.SERVICE, Level.WRITE, "web")),
        ("/v1/connect/ca/configuration", Rule(Resource.OPERATOR, Level.WRITE)),
        ("/v1/acl/policies", Rule(Resource.ACL, Level.READ)),
    ],
)
async def test_blocking_query_ends_when_its_right_does(closed: Running, path: str, rule: Rule) -> None:
    """Not only when the token is gone, and not only once there is news."""
    closed.service.callers[MANAGER.secret_id] = with_rules(rule)
    asked = asyncio.create_task(closed.get(f"{path}?index=9999999&wait=60s", headers=TOKEN))
    await held(closed, "leaf" if "leaf" in path else "watch")
    weaken(closed)
    async with asyncio.timeout(2):
        reply: Reply = await asked
    assert reply.status == 403
    assert f"lacks permission '{rule.resource}:{rule.level.word}'" in reply.text


async def test_blocking_query_that_cannot_be_judged_ends_and_takes_no_other_along(closed: Running) -> None:
    judged = closed.service.judged_again
    is_broken = False

    def breaks(caller: Caller) -> Caller:
        if is_broken and caller.secret_id == MANAGER.secret_id:
            raise ValueError("who is this?")
        return judged(caller)

    closed.service.judged_again = breaks  # type: ignore[method-assign]
    other = Caller("other", uuid(2), MANAGER.rules)
    closed.service.callers["other"] = other
    query = "/v1/connect/ca/configuration?index=9999999&wait=60s"
    asked = asyncio.create_task(closed.get(query, headers=TOKEN))
    beside = asyncio.create_task(closed.get(query, headers={"X-Consul-Token": "other"}))
    await until(lambda: sum(name == "watch" for name, _ in closed.service.calls) == 2)
    is_broken = True
    async with asyncio.timeout(2):
        assert (await asked).status == 500
    assert not beside.done()
    del closed.service.callers["other"]
    async with asyncio.timeout(2):
        assert (await beside).status == 403


async def test_snapshot_breaks_off_when_its_token_ends(closed: Running) -> None:
    closed.service.snapshot = bytes(32 << 20)
    reader, writer = await closed.connect()
    writer.write(
        f"GET /v1/snapshot HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Consul-Token: {MANAGER.secret_id}\r\n\r\n".encode()
    )
    async with asyncio.timeout(5):
        head = await reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200")
        forget(closed)
        received = await read_to_end(reader)
    assert len(received) < len(closed.service.snapshot)
