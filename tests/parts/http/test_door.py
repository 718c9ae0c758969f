"""What is refused before there is a request for an endpoint, and how: plainly, within bounds, without a traceback."""

import asyncio
import json
import shutil
import ssl
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from cluster.http.body import MAX_BODY_BYTES
from cluster.tls.contexts import TlsFileRefused
from tests.kit import tls_files
from tests.kit.fake_service import CSR, ledger_row
from tests.kit.wait import until
from tests.parts.http.conftest import DEADLINE_SECONDS, Running, Start, read_to_end

SIGN = "/v1/connect/ca/sign"
ROOTS = "/v1/connect/ca/roots"


def head_of(reply: bytes) -> tuple[int, bytes]:
    """Status and body of the first answer."""
    head, _, body = reply.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1."), reply[:200]
    assert b"Content-Type: text/plain; charset=utf-8" in head, head
    assert b"Connection: close" in head or head.startswith(b"HTTP/1.0"), head
    assert b"<" not in body
    assert b"Traceback" not in body
    return int(head.split()[1]), body


# -- methods and paths


@pytest.mark.parametrize(
    ("path", "allow"),
    [
        (ROOTS, "OPTIONS,GET"),
        ("/v1/connect/ca/configuration", "OPTIONS,GET,PUT"),
        (SIGN, "OPTIONS,POST,PUT"),
        ("/v1/agent/connect/authorize", "OPTIONS,POST,PUT"),
        ("/v1/agent/connect/ca/leaf/web", "OPTIONS,GET"),
        ("/v1/operator/raft/peer", "OPTIONS,DELETE,PUT"),
    ],
)
async def test_methods_that_a_path_has_not_are_405_with_allow(api: Running, path: str, allow: str) -> None:
    for method in ("PATCH", "TRACE", "HEAD"):
        reply = await api.ask(method, path)
        assert (reply.status, reply.headers["Allow"]) == (405, allow)
    assert (await api.ask("PATCH", path)).text == "method PATCH not allowed"
    reply = await api.ask("OPTIONS", path)
    assert (reply.status, reply.headers["Allow"], reply.text) == (200, allow, "")


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/v1",
        "/v1/nothing",
        "/v1/connect/ca/roots/",
        "/v1//connect/ca/roots",
        "/v1/agent/connect/ca/leaf",
        "/x%0Ay",
    ],
)
async def test_unknown_paths_are_404(api: Running, path: str) -> None:
    reply = await api.get(path)
    assert (reply.status, reply.headers["Content-Type"]) == (404, "text/plain; charset=utf-8")


@pytest.mark.parametrize(
    ("path", "text"),
    [
        (f"{ROOTS}?a=%zz", "Invalid query string: broken percent-encoding in '%zz'"),
        (f"{ROOTS}?%", "Invalid query string: broken percent-encoding in '%'"),
        (f"{ROOTS}?a=%ff", "Invalid query string: '%ff' is not UTF-8"),
        (f"{ROOTS}?a=%00", "Invalid query string: '%00' contains NUL"),
        (f"{ROOTS}?{'a&' * 100}", "Invalid query string: 101 parameters, at most 64 are allowed"),
        ("/v1/agent/connect/ca/leaf/%zz", "Invalid URL path: broken percent-encoding in"),
        ("/v1/agent/connect/ca/leaf/%C3", "Invalid URL path: '/v1/agent/connect/ca/leaf/%C3' is not UTF-8"),
        ("/v1/agent/connect/ca/leaf/a%00", "Invalid URL path: '/v1/agent/connect/ca/leaf/a%00' contains NUL"),
    ],
)
async def test_a_url_that_does_not_decode_is_400(api: Running, path: str, text: str) -> None:
    reply = await api.get(path)
    assert (reply.status, reply.text[: len(text)], api.service.calls) == (400, text, [])


async def test_of_a_repeated_parameter_the_first_counts(api: Running) -> None:
    assert (await api.get(f"{ROOTS}?dc=dc1&dc=dc2")).status == 200


async def test_plus_is_a_space(api: Running) -> None:
    assert (await api.get(f"{ROOTS}?pem=a+b&dc=d+c")).text == "No path to datacenter"


# -- what is not HTTP


@pytest.mark.parametrize(
    "data",
    [
        b"nonsense\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\0" * 40 + b"\r\n\r\n",
        b"GET / HTTP/9.9\r\nHost: localhost\r\n\r\n",
        b"GET / HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\nBad Header: 1\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\nA: \x00\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\nHost: y\r\n\r\n",
        b"PUT /v1/connect/ca/sign HTTP/1.1\r\nHost: localhost\r\nContent-Length: -1\r\n\r\n",
        b"PUT / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"PUT /v1/connect/ca/sign HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
        b"GET http:// HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"<html>\r\n\r\n",
    ],
)
async def test_garbage_is_400_in_plain_text(api: Running, data: bytes) -> None:
    status, body = head_of(await api.send(data))
    assert (status, body) == (400, b"malformed HTTP request")
    assert api.service.calls == []
    counted = {"route": "none", "status": "400"}
    assert api.service.metrics.registry.get_sample_value("quorumca_http_requests_total", counted) == 1


async def test_a_chunked_body_that_breaks_is_400(api: Running) -> None:
    head = f"PUT {SIGN} HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n"
    broken = b"5\r\nabc\r\nzz\r\n"
    assert head_of(await api.send(f"{head}\r\n".encode() + broken))[0] == 400
    # The same once the endpoint waits for the body, which the interim answer shows.
    reader, writer = await api.connect()
    writer.write(f"{head}Expect: 100-continue\r\n\r\n".encode())
    async with asyncio.timeout(DEADLINE_SECONDS):
        await reader.readuntil(b"100 Continue\r\n\r\n")
        writer.write(broken)
        reply = await read_to_end(reader)
    assert reply.startswith(b"HTTP/1.1 400 ")
    assert reply.endswith(b"Request decode failed: the transfer of the body is broken")
    assert api.service.calls == []


async def test_connect_and_upgrades_lead_nowhere(api: Running) -> None:
    reply = await api.send(b"CONNECT localhost:443 HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
    assert reply.startswith(b"HTTP/1.1 404 ")
    head = f"GET {ROOTS} HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade, close\r\n\r\n"
    assert (await api.send(head.encode())).startswith(b"HTTP/1.1 200 ")


async def test_pipelined_requests_are_answered_in_order(api: Running) -> None:
    one = b"GET /v1/status/leader HTTP/1.1\r\nHost: localhost\r\n\r\n"
    two = b"GET /v1/catalog/datacenters HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    reply = await api.send(one + two)
    assert reply.count(b"HTTP/1.1 200 OK") == 2
    assert reply.index(b'"127.0.0.1:8301"') < reply.index(b'["dc1"]')


async def test_http_1_0_is_answered_and_closed(api: Running) -> None:
    reply = await api.send(b"GET /v1/status/leader HTTP/1.0\r\n\r\n")
    assert reply.startswith(b"HTTP/1.0 200 OK")
    assert reply.endswith(b'"127.0.0.1:8301"')


# -- sizes


async def test_64_headers_pass_and_65_do_not(api: Running) -> None:
    for count, expected in ((63, 200), (64, 431)):
        lines = "".join(f"x-{number}: 1\r\n" for number in range(count - 1))
        reply = await api.send(f"GET {ROOTS} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{lines}\r\n".encode())
        assert int(reply.split()[1]) == expected, (count, reply)


@pytest.mark.parametrize("size", [16_500, 100_000, 3_000_000])
async def test_headers_over_16_kb_are_refused(api: Running, size: int) -> None:
    line = f"x-long: {'a' * size}\r\n"
    status, _ = head_of(await api.send(f"GET {ROOTS} HTTP/1.1\r\nHost: localhost\r\n{line}\r\n".encode()))
    assert status == 431


async def test_many_middling_headers_are_refused_by_their_sum(api: Running) -> None:
    lines = "".join(f"x-{number}: {'a' * 1000}\r\n" for number in range(20))
    status, _ = head_of(await api.send(f"GET {ROOTS} HTTP/1.1\r\nHost: localhost\r\n{lines}\r\n".encode()))
    assert status == 431
    assert api.service.calls == []


async def test_what_is_too_large_is_refused_before_it_is_looked_at(api: Running) -> None:
    lines = "Connection: close\r\n" + "".join(f"x-{number}: {'a' * 1000}\r\n" for number in range(20))
    for path in ("/v1/agent/connect/ca/leaf/%zz", f"{ROOTS}?a=%zz", f"{ROOTS}?dc=dc2", f"{ROOTS}?index=x"):
        status, _ = head_of(await api.send(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n{lines}\r\n".encode()))
        assert status == 431, path


async def test_headers_without_an_end_are_refused_while_they_arrive(api: Running) -> None:
    reader, writer = await api.connect()
    writer.write(b"GET / HTTP/1.1\r\nHost: localhost\r\n")
    refused = asyncio.create_task(read_to_end(reader))
    sent = 0
    async with asyncio.timeout(DEADLINE_SECONDS):
        while not refused.done():
            writer.write(f"x-{sent}: {'a' * 8000}\r\n".encode())
            sent += 1
            await asyncio.sleep(0.001)
    status, _ = head_of(await refused)
    assert status == 431
    # Each line by itself, and their number, would be allowed.
    assert sent < 40


async def test_a_url_over_8_kb_is_refused(api: Running) -> None:
    status, _ = head_of(await api.send(f"GET {ROOTS}?a={'b' * 9000} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()))
    assert status == 414


async def test_a_body_of_512_kb_is_read_and_one_byte_more_is_not(api: Running) -> None:
    for size, status in ((MAX_BODY_BYTES, 400), (MAX_BODY_BYTES + 1, 413)):
        reply = await api.ask("PUT", SIGN, data=b"x" * size)
        assert (reply.status, reply.headers["Content-Type"]) == (status, "text/plain; charset=utf-8")


async def test_a_chunked_body_is_bounded_too(api: Running) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(9):
            yield b"x" * 65536

    reply = await api.ask("PUT", SIGN, data=chunks())
    assert (reply.status, reply.text) == (413, "Request body is too large: at most 524288 bytes are allowed")


async def test_of_an_endless_body_about_1_mb_is_read(api: Running) -> None:
    _, writer = await api.connect()
    writer.write(f"PUT {SIGN} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {1 << 40}\r\n\r\n".encode())
    sent = 0

    async def send_on() -> None:
        nonlocal sent
        while True:
            writer.write(b"x" * 65536)
            await writer.drain()
            sent += 65536

    with pytest.raises(ConnectionError):
        await asyncio.wait_for(send_on(), DEADLINE_SECONDS)
    # What the kernels hold on both sides comes on top.
    assert sent < 16 << 20
    await until(lambda: api.server.open_connections == 0)


async def test_expect_continue_is_answered_before_the_body_and_only_if_it_is_wanted(api: Running) -> None:
    reader, writer = await api.connect()
    body = b'{"CSR":""}'
    head = f"PUT {SIGN} HTTP/1.1\r\nHost: localhost\r\nExpect: 100-continue\r\nConnection: close\r\nContent-Length: "
    writer.write(f"{head}{len(body)}\r\n\r\n".encode())
    async with asyncio.timeout(DEADLINE_SECONDS):
        assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        writer.write(body)
        assert (await read_to_end(reader)).startswith(b"HTTP/1.1 400 ")
    reader, writer = await api.connect()
    writer.write(f"{head}{MAX_BODY_BYTES + 1}\r\n\r\n".encode())
    async with asyncio.timeout(DEADLINE_SECONDS):
        assert (await reader.readline()).startswith(b"HTTP/1.1 413 ")


async def test_a_compressed_body_is_not_unpacked(api: Running) -> None:
    import gzip

    body = gzip.compress(b'{"CSR":"x"}')
    reply = await api.ask("PUT", SIGN, data=body, headers={"Content-Encoding": "gzip"})
    assert (reply.status, reply.text[:22]) == (400, "Request decode failed:")


async def test_a_body_that_nobody_reads_does_not_spoil_the_next_request(api: Running) -> None:
    reader, writer = await api.connect()
    writer.write(f"PUT {ROOTS} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n\r\n".encode())
    async with asyncio.timeout(DEADLINE_SECONDS):
        assert (await reader.readuntil(b"not allowed")).startswith(b"HTTP/1.1 405 ")
        writer.write(b"GET /")  # five bytes of body that look like a request
        writer.write(b"GET /v1/status/leader HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        assert (await read_to_end(reader)).startswith(b"HTTP/1.1 200 ")


# -- time and number


async def test_a_head_that_never_ends_is_408(start: Start) -> None:
    api: Running = await start(head_seconds=0.1)
    for data in (b"", b"GET / HT", b"GET / HTTP/1.1\r\nHost: localhost\r\n"):
        status, body = head_of(await api.send(data))
        assert (status, body) == (408, b"the request did not arrive within 0.1 seconds")


async def test_the_second_head_of_a_connection_has_its_time_too(start: Start) -> None:
    api: Running = await start(head_seconds=0.2)
    one = b"GET /v1/status/leader HTTP/1.1\r\nHost: localhost\r\n\r\n"
    reader, writer = await api.connect()
    async with asyncio.timeout(DEADLINE_SECONDS):
        writer.write(one)
        await reader.readuntil(b'"127.0.0.1:8301"')
        writer.write(one[:10])
        assert head_of(await read_to_end(reader))[0] == 408


async def test_a_request_may_take_longer_than_its_head(start: Start) -> None:
    api: Running = await start(head_seconds=0.05)
    reader, writer = await api.connect()
    one = f"GET {ROOTS}?index=5&wait=200ms HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()
    async with asyncio.timeout(DEADLINE_SECONDS):
        for part in (one[:20], one[20:]):
            writer.write(part)
            await writer.drain()
        assert (await reader.readuntil(b"\r\n")) == b"HTTP/1.1 200 OK\r\n"


async def test_a_body_that_never_ends_is_408(api: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cluster.http.body.BODY_SECONDS", 0.1)
    monkeypatch.setattr("cluster.http.body._DRAIN_SECONDS", 0.1)
    status, body = head_of(
        await api.send(f"PUT {SIGN} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\n{{".encode())
    )
    assert (status, body) == (408, b"the request body did not arrive within 0.1 seconds")


async def test_connections_beyond_the_bound_are_503(start: Start) -> None:
    """Of those that are in use: those that are idle, or wait, give way (test_hosts.py)."""
    api: Running = await start(http={"max_connections": 16, "max_connections_per_source": 16})
    api.service.gate = asyncio.Event()
    held = [await api.connect() for _ in range(16)]
    csr = json.dumps({"CSR": CSR})
    for _, writer in held:
        writer.write(f"PUT {SIGN} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(csr)}\r\n\r\n{csr}".encode())
    await until(lambda: [name for name, _ in api.service.calls].count("sign") == 16)
    status, body = head_of(await api.send(b""))
    assert (status, body) == (503, b"too many connections: at most 16")
    held[0][1].close()
    await until(lambda: api.server.open_connections == 15)
    assert (await api.get(ROOTS)).status == 200


async def test_an_answer_that_nobody_reads_ends_the_connection(start: Start) -> None:
    api: Running = await start(answer_seconds=0.1)
    api.service.certs = [ledger_row(number) for number in range(1, 1001)]
    # A reader that is never read from stops taking bytes from its socket at twice this limit.
    reader, writer = await asyncio.open_connection("127.0.0.1", api.port, limit=1024)
    api.raw_writers.append(writer)
    request = b"GET /v1/connect/ca/certs?limit=1000 HTTP/1.1\r\nHost: localhost\r\n\r\n"
    # Enough answers to fill the buffers of both kernels, whatever their size.
    async with asyncio.timeout(DEADLINE_SECONDS):
        while api.server.open_connections or not api.service.calls:
            if not writer.transport.is_closing():
                writer.write(request)
            await asyncio.sleep(0.002)
            assert len(api.service.calls) < 2000
    assert api.service.calls
    assert not reader.at_eof()


@pytest.mark.parametrize(
    "target", ["*", "http://localhost/v1/status/leader", "//v1/status/leader", "/v1/status/leader#x"]
)
async def test_unusual_targets_are_answered_plainly(api: Running, target: str) -> None:
    for method in ("OPTIONS", "GET"):
        reply = await api.send(f"{method} {target} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
        assert int(reply.split()[1]) in (200, 400, 404), reply
        assert b"<" not in reply


# -- TLS


async def test_tls_is_served_when_it_is_configured(start: Start, tmp_path: Path) -> None:
    cert, key = _self_signed(tmp_path)
    api: Running = await start(http={"tls_cert": str(cert), "tls_key": str(key)})
    context = ssl.create_default_context(cafile=str(cert))
    reader, writer = await asyncio.open_connection("127.0.0.1", api.port, ssl=context, server_hostname="localhost")
    api.raw_writers.append(writer)
    writer.write(b"GET /v1/status/leader HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
    async with asyncio.timeout(DEADLINE_SECONDS):
        assert (await read_to_end(reader)).startswith(b"HTTP/1.1 200 OK")


@pytest.mark.parametrize("form", [None, "pkcs8"])
async def test_a_pair_that_cannot_be_used_leaves_the_old_one_in_use(
    start: Start, tmp_path: Path, form: str | None
) -> None:
    """Its certificate is new, and its key not there yet, or under a passphrase."""
    authority = tls_files.Authority()
    authority.write_ca(tmp_path / "ca.pem")
    for name in ("old", "new"):
        authority.write_certificate(tmp_path, name, f"{name}.test")
    cert, key, new_key = (tmp_path / name for name in ("old.pem", "old.key", "new.key"))
    api: Running = await start(http={"tls_cert": str(cert), "tls_key": str(key)})
    context = ssl.create_default_context(cafile=str(tmp_path / "ca.pem"))

    async def assert_serves(name: str) -> None:
        _, writer = await asyncio.open_connection("127.0.0.1", api.port, ssl=context, server_hostname=name)
        writer.close()

    shutil.copy(tmp_path / "new.pem", cert)
    if form is not None:
        key.write_bytes(tls_files.encrypted(new_key.read_bytes(), form))
    with pytest.raises(TlsFileRefused, match=rf"^http\.tls_key {key} is "):
        api.server.reload_tls()
    await assert_serves("old.test")
    shutil.copy(new_key, key)
    api.server.reload_tls()
    await assert_serves("new.test")


def _self_signed(folder: Path) -> tuple[Path, Path]:
    from datetime import UTC, datetime, timedelta

    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = datetime.now(UTC)
    builder = x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
    builder = builder.not_valid_before(now - timedelta(days=1)).not_valid_after(now + timedelta(days=1))
    builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
    cert_path, key_path = folder / "cert.pem", folder / "key.pem"
    cert_path.write_bytes(builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))
    key_path.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return cert_path, key_path


async def test_a_request_in_small_pieces_is_understood(api: Running) -> None:
    body = f'{{"CSR":{CSR!r}}}'.replace("'", '"')
    head = f"PUT {SIGN} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: {len(body)}\r\n\r\n"
    data = f"{head}{body}".encode()
    reader, writer = await api.connect()
    for position in range(0, len(data), 7):
        writer.write(data[position : position + 7])
        await writer.drain()
    async with asyncio.timeout(DEADLINE_SECONDS):
        assert (await read_to_end(reader)).startswith(b"HTTP/1.1 200 OK")
