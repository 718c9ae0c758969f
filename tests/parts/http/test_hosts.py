"""For whom the API answers: by which names it may be called, and from which pages."""

import asyncio
import json
import re
import ssl
from pathlib import Path
from typing import Any, Final

import pytest

from cluster.http.app import ROUTES
from cluster.http.context import API
from tests.kit import tls_files
from tests.kit.fake_service import CSR
from tests.kit.wait import until
from tests.parts.http.conftest import Reply, Running, Start, free_port

LEADER = "/v1/status/leader"
SIGN = "/v1/connect/ca/sign"
NOSNIFF = ("X-Content-Type-Options", "nosniff")

#: On a listener on 127.0.0.1.
OWN = (
    *("127.0.0.1", "127.0.0.1:8500", "127.0.0.1:1", "127.0.0.1:", "localhost", "localhost:8500", "LOCALHOST:80"),
    *("localhost.", "LocalHost.:8500", "[::ffff:127.0.0.1]:8500"),
)
FOREIGN = (
    *("evil.example", "evil.example:8500", "x", "localhost.evil.example", "evil.localhost", "127.0.0.1.evil.example"),
    *("127.0.0.2", "10.0.0.1:8500", "0.0.0.0", "[::1]", "[::1]:8500", "[::]", "127.1", "2130706433", "0x7f000001"),
    *("", " ", ":8500", "user@localhost", "localhost/", "localhost,evil.example", "localhost:x", "localhost:99999"),
    *("[::1", "127.0.0.1 evil.example", "http://localhost"),
)


def request_bytes(method: str, target: str, *lines: str, body: str = "") -> bytes:
    head = [f"{method} {target} HTTP/1.1", *lines, "Connection: close", f"Content-Length: {len(body)}"]
    return ("\r\n".join(head) + "\r\n\r\n" + body).encode()


def parsed(data: bytes) -> tuple[int, dict[str, str], str]:
    head, _, body = data.partition(b"\r\n\r\n")
    status, *lines = head.decode().split("\r\n")
    return int(status.split()[1]), dict(line.split(": ", 1) for line in lines), body.decode()


async def status_of(api: Running, *lines: str, method: str = "GET", target: str = LEADER, body: str = "") -> int:
    status, headers, _ = parsed(await api.send(request_bytes(method, target, *lines, body=body)))
    assert headers.get("X-Content-Type-Options") == "nosniff"
    return status


@pytest.mark.parametrize("host", OWN)
async def test_own_names_are_served(api: Running, host: str) -> None:
    assert await status_of(api, f"Host: {host}") == 200


@pytest.mark.parametrize("host", FOREIGN)
async def test_other_names_are_421_and_nothing_is_done(api: Running, host: str) -> None:
    body = f'{{"CSR":"{CSR}"}}'.replace("\n", "\\n")
    assert await status_of(api, f"Host: {host}", method="PUT", target=SIGN, body=body) in (421, 400)
    assert await status_of(api, f"Host: {host}") in (421, 400)
    assert api.service.calls == []


async def test_the_text_names_the_host_and_the_setting(api: Running) -> None:
    status, headers, text = parsed(await api.send(request_bytes("GET", LEADER, "Host: evil.example:8500")))
    assert (status, headers["Content-Type"]) == (421, "text/plain; charset=utf-8")
    assert text.startswith("Host: 'evil.example:8500': this is another host; allowed are")
    assert "http.allowed_hosts" in text
    [event] = [fields for name, fields in api.log.events if name == "http.request"]
    assert (event["status"], event["route"]) == (421, LEADER)
    counted = {"route": LEADER, "status": "421"}
    assert api.service.metrics.registry.get_sample_value("quorumca_http_requests_total", counted) == 1


async def test_http_1_0_without_a_host_names_no_other(api: Running) -> None:
    """Health checks of proxies ask so; a browser never does."""
    assert (await api.send(f"GET {LEADER} HTTP/1.0\r\n\r\n".encode())).startswith(b"HTTP/1.0 200 ")
    assert (await api.send(f"GET {LEADER} HTTP/1.0\r\nHost: x\r\n\r\n".encode())).startswith(b"HTTP/1.0 421 ")


@pytest.mark.parametrize(
    "target", ["http://evil.example", "http://evil.example:8500", "https://x", "http://x@localhost"]
)
async def test_the_host_in_a_target_counts_too(api: Running, target: str) -> None:
    assert await status_of(api, "Host: localhost", target=f"{target}{LEADER}") == 421
    assert await status_of(api, "Host: evil.example", target=f"http://localhost{LEADER}") == 421
    assert await status_of(api, "Host: localhost:8500", target=f"http://127.0.0.1{LEADER}") == 200


#: A path of each kind, also such that no route knows, or that the router refuses by itself.
TARGETS = (
    *(LEADER, SIGN, "/v1/connect/ca/roots", "/v1/connect/ca/configuration", "/v1/snapshot", "/v1/openapi.json"),
    *("/v1/agent/connect/ca/leaf/web", "/v1/agent/metrics", "/v1/operator/raft/transfer-leader"),
    *(
        "/",
        "//",
        "/%0a",
        "/%0A%0d",
        "/x%0Ay",
        "/v1/nothing",
        "/v1/connect/ca/roots/",
        "/%ff",
        "/%",
        "/%00",
        "/a#b",
        "/?%",
    ),
    *("/..", "/v1/../v1/status/leader", "*", "http://localhost/%0a", "http://localhost"),
)
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "PROPFIND")


@pytest.mark.parametrize("target", TARGETS)
async def test_no_path_and_no_method_passes_by_the_door(api: Running, target: str) -> None:
    for method in METHODS:
        if target == "*" and method != "OPTIONS":
            continue
        assert await status_of(api, "Host: evil.example", method=method, target=target) == 421
        for line in ("Origin: http://evil.example", "Sec-Fetch-Site: cross-site", "Origin: null"):
            assert await status_of(api, "Host: localhost", line, method=method, target=target) == 403
        data = await api.send(request_bytes(method, target, "Host: localhost"))
        status, headers, text = parsed(data)
        assert headers.get("X-Content-Type-Options") == "nosniff"
        assert headers.get("Server") == "quorumca"
        if status >= 400:
            assert status in (400, 404, 405, 422, 500)
            assert headers["Content-Type"] == "text/plain; charset=utf-8"
            assert "<" not in text


@pytest.mark.parametrize("target", ["localhost:8500", "evil.example:443", "127.0.0.1:22"])
async def test_connect_meets_the_same_door(api: Running, target: str) -> None:
    is_foreign = target.startswith("evil")
    assert await status_of(api, "Host: localhost", method="CONNECT", target=target) == (421 if is_foreign else 404)
    assert await status_of(api, "Host: evil.example", method="CONNECT", target=target) == 421
    assert await status_of(api, "Host: localhost", "Origin: http://x", method="CONNECT", target=target) in (403, 421)


async def test_every_answer_is_logged_and_counted_whatever_refused_it(api: Running) -> None:
    sent = (
        (b"GET /%0a HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n", "unknown", 404),
        (b"CONNECT localhost:1 HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n", "unknown", 404),
        (b"OPTIONS * HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n", "unknown", 404),
        (b"nonsense\r\n\r\n", "none", 400),
        (b"FROB / HTTP/1.1\r\nHost: localhost\r\n\r\n", "none", 400),
        (b"GET /" + b"a" * 9000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n", "none", 414),
    )
    for data, route, status in sent:
        api.log.events.clear()
        labels = {"route": route, "status": str(status)}
        before = api.service.metrics.registry.get_sample_value("quorumca_http_requests_total", labels) or 0
        found, headers, _ = parsed(await api.send(data))
        assert (found, headers["X-Content-Type-Options"]) == (status, "nosniff")
        assert api.service.metrics.registry.get_sample_value("quorumca_http_requests_total", labels) == before + 1
        [event] = [fields for name, fields in api.log.events if name == "http.request"]
        assert (event["route"], event["status"], event["remote"]) == (route, status, "127.0.0.1")


# -- pages in a browser


@pytest.mark.parametrize(
    ("host", "origin", "status"),
    [
        ("localhost:8500", "http://localhost:8500", 200),
        ("LOCALHOST:8500", "http://localhost:8500", 200),
        ("127.0.0.1:8500", "http://127.0.0.1:8500", 200),
        ("127.0.0.1", "http://127.0.0.1", 200),
        ("127.0.0.1:80", "http://127.0.0.1", 200),
        ("127.0.0.1", "HTTP://127.0.0.1:80", 200),
        ("localhost:8500", "http://localhost:8501", 403),
        ("localhost:8500", "http://localhost", 403),
        ("localhost:8500", "https://localhost:8500", 403),
        ("localhost:8500", "http://127.0.0.1:8500", 403),
        ("localhost:8500", "http://evil.example", 403),
        ("localhost:8500", "http://evil.example:8500", 403),
        ("localhost:8500", "http://localhost:8500.evil.example", 403),
        ("localhost:8500", "http://localhost:8500/", 403),
        ("localhost:8500", "http://x@localhost:8500", 403),
        ("localhost:8500", "http://localhost:8500 http://evil.example", 403),
        ("localhost:8500", "localhost:8500", 403),
        ("localhost:8500", "null", 403),
        ("localhost:8500", "", 403),
        ("localhost:8500", "file://", 403),
        ("localhost:8500", "chrome-extension://abcdef", 403),
    ],
)
async def test_only_the_own_origin_may_ask(api: Running, host: str, origin: str, status: int) -> None:
    assert await status_of(api, f"Host: {host}", f"Origin: {origin}") == status


async def test_each_of_several_origins_must_be_the_own(api: Running) -> None:
    own, other = "Origin: http://localhost", "Origin: http://evil.example"
    assert await status_of(api, "Host: localhost", own, other) in (400, 403)
    assert await status_of(api, "Host: localhost", other, own) in (400, 403)


@pytest.mark.parametrize(
    ("site", "status"),
    [
        ("same-origin", 200),
        ("none", 200),
        ("cross-site", 403),
        ("same-site", 403),
        ("Cross-Site", 403),
        (" cross-site ", 403),
        ("none, cross-site", 403),
    ],
)
async def test_requests_for_pages_of_other_sites_are_403(api: Running, site: str, status: int) -> None:
    assert await status_of(api, "Host: localhost", f"Sec-Fetch-Site: {site}") == status


@pytest.mark.parametrize(
    "kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", "application/json"]
)
async def test_a_form_of_another_page_signs_nothing_and_moves_no_leader(api: Running, kind: str) -> None:
    body = f'{{"CSR":"{CSR}"}}'.replace("\n", "\\n")
    for target in (SIGN, "/v1/operator/raft/transfer-leader"):
        for line in ("Origin: http://evil.example", "Origin: null", "Sec-Fetch-Site: cross-site"):
            lines = ("Host: localhost", line, f"Content-Type: {kind}")
            assert await status_of(api, *lines, method="POST", target=target, body=body) == 403
    assert api.service.calls == []


async def test_what_is_refused_is_not_asked_for_its_body(api: Running) -> None:
    data = request_bytes("PUT", SIGN, "Host: evil.example", "Expect: 100-continue", body="{}")
    assert (await api.send(data)).startswith(b"HTTP/1.1 421 ")


# -- names that are allowed besides


async def test_configured_names_are_served(start: Start) -> None:
    api: Running = await start(
        http={"allowed_hosts": ["CA.example.net", "*.mesh.example", "10.0.0.7", "[2001:db8::7]"]}
    )
    for host, status in (
        ("ca.example.net", 200),
        ("CA.EXAMPLE.NET.:8500", 200),
        ("a.mesh.example:443", 200),
        ("10.0.0.7:8500", 200),
        ("[2001:DB8:0::7]:8500", 200),
        ("localhost", 200),
        ("127.0.0.1", 200),
        ("mesh.example", 421),
        ("a.b.mesh.example", 421),
        (".mesh.example", 421),
        ("xca.example.net", 421),
        ("10.0.0.8", 421),
    ):
        assert await status_of(api, f"Host: {host}") == status, host


async def test_hosts_that_are_many_are_not_all_remembered(start: Start) -> None:
    api: Running = await start(http={"allowed_hosts": ["ca.example.net"]})
    for port in range(1, 200):
        assert await status_of(api, f"Host: ca.example.net:{port}") == 200
    assert len(api.server._runner.app[API].hosts._remembered) <= 64


@pytest.mark.parametrize(
    ("address", "host", "status"),
    [
        ("0.0.0.0", "10.1.2.3", 200),
        ("0.0.0.0", "127.0.0.1", 200),
        ("0.0.0.0", "[2001:db8::1]", 200),
        ("0.0.0.0", "localhost", 200),
        ("0.0.0.0", "evil.example", 421),
        ("0.0.0.0", "127.1", 421),
        ("localhost", "127.0.0.1", 200),
        ("localhost", "localhost", 200),
        ("localhost", "10.1.2.3", 421),
        ("localhost", "evil.example", 421),
    ],
)
async def test_what_the_listener_is_on_decides_about_addresses(
    start: Start, address: str, host: str, status: int
) -> None:
    port = free_port()
    api: Running = await start(http={"address": f"{address}:{port}", "allow_plaintext_off_loopback": True}, port=port)
    assert await status_of(api, f"Host: {host}:{port}") == status


async def test_names_of_the_certificate_are_served_until_it_is_replaced(start: Start, tmp_path: Path) -> None:
    authority = tls_files.Authority()
    authority.write_ca(tmp_path / "ca.pem")
    for name in ("old", "new"):
        authority.write_certificate(tmp_path, name, f"{name}.test")
    cert, key = tmp_path / "old.pem", tmp_path / "old.key"
    api: Running = await start(http={"tls_cert": str(cert), "tls_key": str(key)})
    context = ssl.create_default_context(cafile=str(tmp_path / "ca.pem"))
    context.check_hostname = False

    async def asked(host: str, *lines: str) -> int:
        reader, writer = await asyncio.open_connection("127.0.0.1", api.port, ssl=context)
        api.raw_writers.append(writer)
        writer.write(request_bytes("GET", LEADER, f"Host: {host}", *lines))
        return parsed(await asyncio.wait_for(reader.read(65536), 10))[0]

    assert [await asked(host) for host in ("old.test", "OLD.test:8500", "new.test", "localhost")] == [
        200,
        200,
        421,
        200,
    ]
    assert await asked("old.test:8500", "Origin: https://old.test:8500") == 200
    assert await asked("old.test:443", "Origin: https://old.test") == 200
    assert await asked("old.test:8500", "Origin: http://old.test:8500") == 403
    cert.write_bytes((tmp_path / "new.pem").read_bytes())
    key.write_bytes((tmp_path / "new.key").read_bytes())
    api.server.reload_tls()
    assert [await asked(host) for host in ("old.test", "new.test")] == [421, 200]


# -- what every answer carries


def _private(path: str) -> bool:
    private = (
        "/leaf/",
        "/configuration",
        "/snapshot",
        "/ca/sign",
        "/v1/acl/",
        "/agent/token/",
        "/agent-ca",
        "/join-token",
    )
    return any(part in path for part in private) and "raft" not in path


#: For the parts of paths that are not fixed.
_NAMED: Final = {"service": "web", "serial": "01", "id": "aa", "kind": "agent"}


async def test_secrets_are_never_kept_and_no_answer_is_sniffed(api: Running) -> None:
    for route in ROUTES:
        path = re.sub(r"\{(\w+)[^}]*\}", lambda named: _NAMED[named[1]], route.path)
        for method in (*route.methods, "PATCH", "OPTIONS"):
            for options in ({}, {"headers": {"Host": "evil.example"}}):
                reply: Reply = await api.ask(method, path, **options)
                assert reply.headers.get(NOSNIFF[0]) == NOSNIFF[1], (method, path)
                assert (reply.headers.get("Cache-Control") == "no-store") is _private(path), (method, path)


async def test_a_failing_endpoint_has_the_headers_too(api: Running) -> None:
    api.service.fail_with["leaf"] = RuntimeError("broken")
    reply = await api.get("/v1/agent/connect/ca/leaf/web")
    assert (reply.status, reply.text) == (500, "internal error")
    assert (reply.headers["X-Content-Type-Options"], reply.headers["Cache-Control"]) == ("nosniff", "no-store")


# -- places


async def test_whoever_only_holds_connections_shuts_nobody_out(start: Start) -> None:
    api: Running = await start(http={"max_connections": 16, "max_connections_per_source": 16})
    kept = await api.connect()
    kept[1].write(request_bytes("GET", LEADER, "Host: localhost").replace(b"Connection: close\r\n", b""))
    await kept[0].readuntil(b'"127.0.0.1:8301"')
    held: list[Any] = [await api.connect() for _ in range(100)]
    await until(lambda: api.server.open_connections == 16)
    assert (await api.get(LEADER)).status == 200
    # The one that has been used is still there, and of those that held theirs the newest.
    kept[1].write(request_bytes("GET", LEADER, "Host: localhost"))
    assert (await kept[0].readuntil(b'"127.0.0.1:8301"')).startswith(b"HTTP/1.1 200 ")
    assert (await held[0][0].read()).startswith(b"HTTP/1.1 503 ")
    samples = api.service.metrics.registry.get_sample_value
    assert samples("quorumca_connections_gave_way_total", {"port": "http"}) or 0 >= 85
    assert api.log.names().count("connections.turned_away") == 1


async def test_one_address_cannot_have_all_places(start: Start) -> None:
    api: Running = await start(http={"max_connections": 16})
    api.service.gate = asyncio.Event()
    held = [await api.connect() for _ in range(8)]
    for _, writer in held:
        writer.write(request_bytes("PUT", SIGN, "Host: localhost", body=json.dumps({"CSR": CSR})))
    await until(lambda: [name for name, _ in api.service.calls].count("sign") == 8)
    status, headers, text = parsed(await api.send(b""))
    assert (status, text) == (503, "too many connections: at most 16, 8 of one address")
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert api.server.open_connections == 8


BLOCKING = "/v1/connect/ca/roots?index=5&wait=10m"


async def connected_from(api: Running, source: str) -> Any:
    reader, writer = await asyncio.open_connection("127.0.0.1", api.port, local_addr=(source, 0))
    api.raw_writers.append(writer)
    return reader, writer


def watches(api: Running) -> int:
    return [name for name, _ in api.service.calls].count("watch")


async def until_watched(api: Running, count: int) -> None:
    await until(lambda: watches(api) == count)


async def test_queries_that_wait_shut_nobody_at_another_address_out(start: Start) -> None:
    api: Running = await start(http={"max_connections": 16})
    seats = api.server._door.seats
    held = []
    for count, source in enumerate(("127.0.0.2", "127.0.0.3") * 6, 1):
        held.append(await connected_from(api, source))
        held[-1][1].write(request_bytes("GET", BLOCKING, "Host: localhost"))
        await until_watched(api, count)
    # As many as may wait, and the rest with something else in use.
    api.service.gate = asyncio.Event()
    for source in ("127.0.0.2", "127.0.0.3") * 2:
        _, writer = await connected_from(api, source)
        writer.write(request_bytes("PUT", SIGN, "Host: localhost", body=json.dumps({"CSR": CSR})))
    await until(lambda: [name for name, _ in api.service.calls].count("sign") == 4)
    assert seats.taken == 16
    assert (await api.get(LEADER)).status == 200
    ended = [reader for reader, _ in held if reader._buffer]
    assert ended == [held[0][0]]
    status, _, text = parsed(await held[0][0].read())
    assert (status, text) == (503, "too many connections: at most 16, 8 of one address")
    assert seats._waiting_count == 11
    # A blocking query of somebody else is answered too, and one more of theirs is not: they have no less than others.
    asked = asyncio.create_task(api.get("/v1/connect/ca/roots?index=5&wait=1s"))
    await until(lambda: watches(api) == 13)
    assert (await asked).status == 200
    for _, writer in held:
        writer.transport.abort()
    await until(lambda: seats._waiting_count == 0)


async def test_places_are_left_free_of_queries_that_wait(start: Start) -> None:
    api: Running = await start(http={"max_connections": 16, "max_connections_per_source": 16})
    held = [await api.connect() for _ in range(12)]
    for _, writer in held:
        writer.write(request_bytes("GET", BLOCKING, "Host: localhost"))
    await until(lambda: watches(api) == 12)
    reply = await api.get(BLOCKING)
    assert (reply.status, reply.headers["Retry-After"]) == (503, "1")
    assert reply.text == "too many blocking queries are waiting on this node: at most 12, 12 of one address"
    assert (await api.get(LEADER)).status == 200
    assert watches(api) == 12
