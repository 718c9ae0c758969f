"""Of who is refused not a byte of the body is asked for or waited for, whatever the method and the framing."""

import asyncio
import itertools
import re
from collections.abc import Iterator

import pytest

from cluster.access.authorizer import Authorizer
from cluster.access.rules import parse_rules
from cluster.api.access import Caller
from cluster.base.errors import TokenUnknown
from cluster.http.app import ROUTES
from cluster.http.gate import Open
from tests.parts.http.conftest import DEADLINE_SECONDS, Running, Start

FRAMINGS = {
    "chunked": "Transfer-Encoding: chunked",
    "with a length": "Content-Length: 400000",
    "one byte": "Content-Length: 1",
    "too long": "Content-Length: 99999999999",
    "waiting": "Expect: 100-continue\r\nContent-Length: 4000",
    "waiting, chunked": "Expect: 100-continue\r\nTransfer-Encoding: chunked",
}
ODD_METHODS = ("PATCH", "PROPFIND", "TRACE", "OPTIONS", "LOCK")


def _unknown(_access: object, _secret_id: str) -> Caller:
    raise TokenUnknown("ACL not found")


async def _unknown_everywhere(_access: object, _secret_id: str) -> Caller:
    raise TokenUnknown("ACL not found")


@pytest.fixture
async def guarded(start: Start) -> Running:
    """A node that takes wrong tokens from one address as fast as they come."""
    running: Running = await start(limits={"refused_per_source": 0})
    return running


def _doors() -> Iterator[tuple[str, str, bool]]:
    """Methods and paths, and whether anybody may ask."""
    for route in ROUTES:
        for method in route.methods:
            yield method, re.sub(r"{[^}]*}", "x", route.path), isinstance(route.access, Open)


async def _answer_to_the_head(api: Running, method: str, path: str, framing: str) -> bytes:
    """The first line that comes, with no body sent."""
    reader, writer = await api.connect()
    writer.write(f"{method} {path} HTTP/1.1\r\nHost: localhost\r\n{framing}\r\n\r\n".encode())
    async with asyncio.timeout(DEADLINE_SECONDS):
        line = await reader.readline()
    writer.transport.abort()
    return line


@pytest.mark.parametrize("framing", FRAMINGS)
async def test_who_is_refused_is_refused_by_the_head_alone(
    guarded: Running, monkeypatch: pytest.MonkeyPatch, framing: str
) -> None:
    access = type(guarded.service.service.access)
    monkeypatch.setattr(access, "caller_here", _unknown)
    monkeypatch.setattr(access, "caller", _unknown_everywhere)
    refused = [(method, path) for method, path, is_open in _doors() if not is_open]
    assert len(refused) > 40
    for method, path in refused:
        line = await _answer_to_the_head(guarded, method, path, FRAMINGS[framing])
        assert line.startswith(b"HTTP/1.1 403 "), (method, path, line)
    assert guarded.service.calls == []


@pytest.mark.parametrize("framing", FRAMINGS)
async def test_odd_methods_and_paths_wait_for_no_body(guarded: Running, framing: str) -> None:
    paths = sorted({path for _, path, _ in _doors()})
    for path in (*paths, "/v1/nothing"):
        for method in ODD_METHODS:
            line = await _answer_to_the_head(guarded, method, path, FRAMINGS[framing])
            expected = b"404" if path == "/v1/nothing" else b"200" if method == "OPTIONS" else b"405"
            assert line.split(b" ")[1] == expected, (method, path, line)


async def test_who_is_let_in_is_told_to_go_on(guarded: Running) -> None:
    line = await _answer_to_the_head(guarded, "PUT", "/v1/connect/ca/configuration", FRAMINGS["waiting"])
    assert line == b"HTTP/1.1 100 Continue\r\n"


@pytest.mark.parametrize("framing", FRAMINGS)
@pytest.mark.parametrize("rules", ["", 'operator = "write"', 'service_prefix "" { policy = "read" }'])
async def test_who_can_have_no_certificate_is_refused_one_by_the_head_alone(
    guarded: Running, rules: str, framing: str
) -> None:
    """A token that is known, and gives nothing that a CSR could ask for. `operator` is also the mesh's."""
    caller = Caller("weak", "a-weak", Authorizer(parse_rules(rules), allows_by_default=False))
    guarded.service.callers = {"": caller}
    paths = ["/v1/connect/ca/sign", "/v1/agent/connect/authorize"][1 if "operator" in rules else 0 :]
    for method, path in itertools.product(("PUT", "POST"), paths):
        reader, writer = await guarded.connect()
        head = f"{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{FRAMINGS[framing]}\r\n\r\n"
        writer.write(head.encode())
        async with asyncio.timeout(DEADLINE_SECONDS):
            answer = await reader.readuntil(b"service:write'")
        assert answer.startswith(b"HTTP/1.1 403 "), answer
        assert answer.endswith(b"Permission denied: token with AccessorID 'a-weak' lacks permission 'service:write'")
        writer.transport.abort()
    assert guarded.service.calls == []
