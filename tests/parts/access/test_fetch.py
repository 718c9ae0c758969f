"""The bounded https request, against tiny servers that answer as they like."""

import asyncio
import gzip
import socket
import ssl
import threading
import time
from collections.abc import AsyncIterator, Collection, Sequence
from ipaddress import ip_address
from pathlib import Path

import pytest
from cryptography import x509

from cluster.access.methods import fetch as fetch_module
from cluster.access.methods.addresses import IsOwn
from cluster.access.methods.fetch import HttpsFetch
from cluster.access.methods.fetching import FetchFailed, Request
from cluster.access.methods.resolving import Names, Resolve
from tests.kit import pki

CA = pki.key()
CA_PEM = pki.pem(
    pki.certificate(
        CA.public_key(),
        CA,
        pki.ca_extensions(CA.public_key(), pki.key_id(CA.public_key())),
        subject="root",
        not_before=1_600_000_000,
        not_after=4_000_000_000,
    )
)
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"
ENDLESS = b"x" * 65536


class Server:
    """Speaks TLS as localhost, reads a request's head (and body) and answers with bytes, some of them slowly."""

    def __init__(self, context: ssl.SSLContext) -> None:
        self._context = context
        self.answer: bytes = OK
        self.after: Sequence[bytes] = ()
        self.pause = 0.0
        self.requests: list[bytes] = []
        self.connections = 0
        self.port = 0

    async def start(self) -> asyncio.Server:
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=self._context)
        self.port = server.sockets[0].getsockname()[1]
        return server

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            self.requests.append(head)
            writer.write(self.answer)
            for piece in self.after:
                await asyncio.sleep(self.pause)
                writer.write(piece)
                await writer.drain()
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    @property
    def url(self) -> str:
        return f"https://localhost:{self.port}/keys"


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[Server]:
    key = pki.key("ec", 256, 7)
    extensions = [
        *pki.leaf_extensions(key.public_key(), pki.key_id(CA.public_key()))[:-1],
        (x509.SubjectAlternativeName([x509.DNSName("localhost"), x509.DNSName("idp.example")]), False),
    ]
    leaf = pki.certificate(key.public_key(), CA, extensions, not_before=1_600_000_000, not_after=4_000_000_000)
    (tmp_path / "leaf.pem").write_text(pki.pem(leaf) + pki.key_pem(key))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "leaf.pem")
    found = Server(context)
    listening = await found.start()
    try:
        yield found
    finally:
        listening.close()


def resolving(*addresses: str, asked: list[str] | None = None) -> HttpsFetch:
    return HttpsFetch(resolve=answering(*addresses, asked=asked))


def answering(*addresses: str, asked: list[str] | None = None) -> Resolve:
    async def resolve(host: str, _port: int) -> Sequence[str]:
        if asked is not None:
            asked.append(host)
        return addresses

    return resolve


async def failure(fetch: HttpsFetch, url: str, *, max_bytes: int = 1000) -> str:
    with pytest.raises(FetchFailed) as caught:
        await fetch(Request(url, CA_PEM, max_bytes=max_bytes))
    return str(caught.value)


async def test_answer_of_a_server_that_the_ca_vouches_for_is_given(server: Server) -> None:
    fetch = HttpsFetch()
    assert await fetch(Request(server.url, CA_PEM)) == b"{}"
    assert await fetch(Request(server.url, CA_PEM, {"Authorization": "Bearer x"}, b'{"a":1}')) == b"{}"
    get, post = server.requests
    assert get.startswith(b"GET /keys HTTP/1.1\r\n")
    assert b"Accept-Encoding: identity\r\n" in get
    assert post.startswith(b"POST /keys HTTP/1.1\r\n")
    assert b"Authorization: Bearer x\r\n" in post


async def test_a_server_that_nobody_vouches_for_is_refused(server: Server) -> None:
    for ca_pem in ("", pki.pem(pki.root_certificate(pki.key("ec", 384), not_before=1_600_000_000))):
        with pytest.raises(FetchFailed, match="certificate is refused"):
            await HttpsFetch()(Request(server.url, ca_pem))
    # The certificate is checked against the name, not against the address.
    for url in (f"https://127.0.0.1:{server.port}/", f"https://other.example:{server.port}/"):
        assert "certificate is refused" in await failure(resolving("127.0.0.1"), url)
    assert server.requests == []


@pytest.mark.parametrize(
    "url", ["http://localhost:{}/", "file:///etc/passwd", "https://u:p@localhost:{}/", "ftp://localhost:{}/"]
)
async def test_only_https_is_spoken(server: Server, url: str) -> None:
    assert "must be an https URL" in await failure(HttpsFetch(), url.format(server.port))
    assert server.connections == 0


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_redirects_are_not_followed(server: Server, status: int) -> None:
    server.answer = f"HTTP/1.1 {status} x\r\nLocation: {server.url}2\r\nContent-Length: 0\r\n\r\n".encode()
    assert f"status {status}" in await failure(HttpsFetch(), server.url)
    assert server.connections == 1


@pytest.mark.parametrize("name", ["https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"])
async def test_proxies_of_the_environment_are_not_asked(
    server: Server, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, "http://127.0.0.1:9")
    assert await HttpsFetch()(Request(server.url, CA_PEM)) == b"{}"


CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


async def test_an_answer_ends_at_its_limit(server: Server) -> None:
    fetch = HttpsFetch()
    server.answer = b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n" + b"x" * 100
    assert await fetch(Request(server.url, CA_PEM, max_bytes=100)) == b"x" * 100
    assert "more than 99 bytes" in await failure(fetch, server.url, max_bytes=99)
    server.answer, server.after = b"HTTP/1.1 200 OK\r\n\r\n", [ENDLESS] * 1000
    assert "more than 100000 bytes" in await failure(fetch, server.url, max_bytes=100_000)
    server.answer, server.after = CHUNKED, [b"10000\r\n" + ENDLESS + b"\r\n"] * 1000
    assert "more than 100000 bytes" in await failure(fetch, server.url, max_bytes=100_000)


async def test_a_packed_answer_is_not_unpacked(server: Server) -> None:
    bomb = gzip.compress(bytes(10_000_000))
    for encoding in ("gzip", "GZIP", "deflate", "br", "gzip, gzip", "identity, gzip"):
        server.answer = (
            f"HTTP/1.1 200 OK\r\nContent-Encoding: {encoding}\r\nContent-Length: {len(bomb)}\r\n\r\n".encode() + bomb
        )
        assert "content encoding" in await failure(HttpsFetch(), server.url)


@pytest.mark.parametrize(
    ("answer", "piece"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n", b"x"),
        (CHUNKED, b"1\r\nx\r\n"),
        (CHUNKED + b"0", b"0"),
        (b"HTTP/1.1 200 OK\r\n", b"A: b\r\n"),
        (b"", b""),
        (b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 100 Continue\r\n\r\n"),
    ],
)
async def test_a_slow_answer_ends_at_the_deadline(server: Server, answer: bytes, piece: bytes) -> None:
    server.answer, server.after, server.pause = answer, [piece] * 20, 0.05
    began = time.monotonic()
    assert await failure(HttpsFetch(deadline_seconds=0.3), server.url)
    assert time.monotonic() - began < 2


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"\r\n\r\n",
        b"SSH-2.0-x\r\n",
        b"HTTP/1.1 abc OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\nA: " + b"x" * 100_000 + b"\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"A: b\r\n" * 5000 + b"\r\n",
        b"HTTP/1.1 200 " + b"x" * 100_000 + b"\r\n\r\n",
        CHUNKED + b"zz\r\n{}\r\n0\r\n\r\n",
        CHUNKED + b"ffffffffffffffffffff\r\n",
        b"HTTP/1.1 500 x\r\nContent-Length: 2\r\n\r\n{}",
        b"HTTP/1.1 204 x\r\n\r\n",
        b"HTTP/1.1 401 x\r\nWWW-Authenticate: Basic\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n",
    ],
)
async def test_an_answer_that_is_none_is_a_failure(server: Server, answer: bytes) -> None:
    server.answer = answer
    assert await failure(HttpsFetch(deadline_seconds=1), server.url)


# -- places


def leading(hanging: Collection[str], hung: list[str]) -> Resolve:
    """Answers for `hanging` never, and puts each question for one into `hung`."""

    async def resolve(host: str, _port: int) -> Sequence[str]:
        if host in hanging:
            hung.append(host)
            await asyncio.sleep(60)
        return ["127.0.0.1"]

    return resolve


async def outcome(fetch: HttpsFetch, url: str) -> str:
    try:
        return (await fetch(Request(url, CA_PEM))).decode()
    except FetchFailed as error:
        return str(error)


async def test_a_server_that_hangs_delays_nobody_else(server: Server) -> None:
    hung: list[str] = []
    fetch = HttpsFetch(resolve=leading(["hangs.example"], hung), deadline_seconds=1.5, wait_seconds=0.2)
    began = time.monotonic()
    waiting = [asyncio.create_task(outcome(fetch, "https://hangs.example/")) for _ in range(100)]
    await asyncio.sleep(0)
    for _ in range(20):
        assert await fetch(Request(f"https://idp.example:{server.port}/", CA_PEM)) == b"{}"
    assert time.monotonic() - began < 1.5
    said = await asyncio.gather(*waiting)
    assert time.monotonic() - began < 5
    assert len(hung) == fetch_module.MAX_OF_A_HOST
    assert sum("no answer within 1.5 s" in text for text in said) == fetch_module.MAX_OF_A_HOST
    assert sum("busy: no place within 0.2 s" in text for text in said) == 100 - fetch_module.MAX_OF_A_HOST
    # Its places are free again, and nothing is remembered of it.
    assert "no answer" in await outcome(fetch, "https://hangs.example/")
    assert len(fetch._of_hosts) == 0


async def test_places_in_all_are_bounded_and_a_wait_for_one_is_no_part_of_the_deadline(server: Server) -> None:
    hung: list[str] = []
    hosts = [f"h{number}.example" for number in range(10)]
    fetch = HttpsFetch(resolve=leading(hosts, hung), deadline_seconds=0.6, wait_seconds=0.3)
    waiting = [asyncio.create_task(outcome(fetch, f"https://{host}/")) for host in hosts for _ in range(3)]
    await asyncio.sleep(0)
    assert len(hung) <= fetch_module.MAX_FETCHES
    assert "busy" in await outcome(fetch, f"https://idp.example:{server.port}/")
    said = await asyncio.gather(*waiting)
    assert len(hung) == sum("no answer" in text for text in said) == fetch_module.MAX_FETCHES
    # One that came late has its whole deadline: the server takes longer than what is left of the first one's.
    server.answer, server.after, server.pause = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n", [b"{", b"}"], 0.2
    fetch = HttpsFetch(resolve=leading(hosts, hung), deadline_seconds=0.6, wait_seconds=2)
    slow = [asyncio.create_task(outcome(fetch, f"https://{host}/")) for host in hosts[:4] for _ in range(4)]
    await asyncio.sleep(0.05)
    assert await outcome(fetch, f"https://idp.example:{server.port}/") == "{}"
    await asyncio.gather(*slow)


async def test_hosts_at_once_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetch_module, "MAX_HOSTS", 20)
    hosts = [f"h{number}.example" for number in range(30)]
    fetch = HttpsFetch(resolve=leading(hosts, []), deadline_seconds=0.3, wait_seconds=0.1)
    said = await asyncio.gather(*(outcome(fetch, f"https://{host}/") for host in hosts))
    assert sum("20 hosts are being asked" in text for text in said) == 10
    assert len(fetch._of_hosts) == 0


async def test_who_is_given_up_leaves_no_place_taken() -> None:
    fetch = HttpsFetch(resolve=leading(["h.example"], []), deadline_seconds=60, wait_seconds=60)
    waiting = [asyncio.create_task(outcome(fetch, "https://h.example/")) for _ in range(50)]
    await asyncio.sleep(0.05)
    for task in waiting:
        task.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)
    assert fetch._places._value == fetch_module.MAX_FETCHES
    assert len(fetch._of_hosts) == 0


# -- addresses


@pytest.mark.parametrize(
    "address",
    ["169.254.169.254", "fe80::1", "::ffff:169.254.169.254", "224.0.0.1", "0.0.0.0", "::", "64:ff9b::a9fe:a9fe", "x"],
)
async def test_a_name_that_leads_to_a_forbidden_address_is_not_asked(server: Server, address: str) -> None:
    """Also when others of its addresses are good."""
    for addresses in ([address], ["127.0.0.1", address], [address, "127.0.0.1"]):
        assert "has the address" in await failure(resolving(*addresses), server.url)
    assert server.connections == 0


@pytest.mark.parametrize(
    "host",
    [
        "169.254.169.254",
        "[fe80::1]",
        "[::ffff:a9fe:a9fe]",
        "0.0.0.0",
        "2852039166",
        "0xa9fea9fe",
        "0251.0376.0251.0376",
    ],
)
async def test_a_literal_address_is_judged_in_all_its_spellings(host: str) -> None:
    assert "has the address" in await failure(HttpsFetch(deadline_seconds=2), f"https://{host}/latest/meta-data/")


async def test_a_name_is_resolved_once_and_what_was_judged_is_connected_to(server: Server) -> None:
    asked: list[str] = []
    fetch = resolving("127.0.0.1", asked=asked)
    assert await fetch(Request(f"https://idp.example:{server.port}/", CA_PEM)) == b"{}"
    assert asked == ["idp.example"]
    assert b"Host: idp.example:" in server.requests[0]
    # The next answer of the name's servers counts for the next request, with the same judgement.
    turns = iter([["127.0.0.1"], ["169.254.169.254"]])

    async def rebinding(_host: str, _port: int) -> Sequence[str]:
        return next(turns)

    fetch = HttpsFetch(resolve=rebinding)
    assert await fetch(Request(f"https://idp.example:{server.port}/", CA_PEM)) == b"{}"
    assert "link-local" in await failure(fetch, f"https://idp.example:{server.port}/")
    assert server.connections == 2


def test_a_socket_is_made_for_a_judged_address_only_however_it_is_spelled() -> None:
    judged = frozenset({ip_address("::ffff:127.0.0.1")})
    for spelling in ("::ffff:127.0.0.1", "::ffff:7f00:1"):
        fetch_module._socket_to(judged, (socket.AF_INET6, socket.SOCK_STREAM, 0, "", (spelling, 1, 0, 0))).close()
    for other in ("127.0.0.1", "169.254.169.254"):
        with pytest.raises(OSError, match="has not been judged"):
            fetch_module._socket_to(judged, (socket.AF_INET, socket.SOCK_STREAM, 0, "", (other, 1)))


async def test_a_port_of_the_cluster_is_not_asked(server: Server) -> None:
    async def own() -> IsOwn:
        return lambda address, port: address.is_loopback and port == server.port

    fetch = HttpsFetch(own=own)
    for host in ("localhost", "127.0.0.1", "127.1", "[::ffff:127.0.0.1]"):
        assert "port of this cluster" in await failure(fetch, f"https://{host}:{server.port}/")
    assert server.connections == 0


async def test_hosts_are_those_that_the_operator_lists(server: Server) -> None:
    for hosts, passes in (
        (["localhost"], True),
        ([f"LOCALHOST:{server.port}"], True),
        (["localhost:1"], False),
        (["host"], False),
        (["idp.example", "x.localhost"], False),
    ):
        fetch = HttpsFetch(hosts=hosts)
        if passes:
            assert await fetch(Request(server.url, CA_PEM)) == b"{}"
        else:
            assert "not in acl.jwks_hosts" in await failure(fetch, server.url)


async def test_names_without_an_answer_are_failures() -> None:
    async def fails(_host: str, _port: int) -> Sequence[str]:
        raise OSError(-2, "Name or service not known")

    async def hangs(_host: str, _port: int) -> Sequence[str]:
        await asyncio.sleep(60)
        return []

    assert "not known" in await failure(HttpsFetch(resolve=fails), "https://a.example")
    assert "no address" in await failure(resolving(), "https://a.example")
    assert "no answer within" in await failure(HttpsFetch(resolve=hangs, deadline_seconds=0.05), "https://a.example")


async def test_a_name_server_that_hangs_delays_nobody_elses_fetches(server: Server) -> None:
    """With the threads that look names up in a node, which nobody can end."""
    end = threading.Event()

    def lookup(host: str) -> Sequence[str]:
        if host.startswith("hangs"):
            end.wait(60)
        return ["127.0.0.1"]

    fetch = HttpsFetch(resolve=Names(lookup), deadline_seconds=0.3, wait_seconds=0.1)
    try:
        for _ in range(3):
            said = await asyncio.gather(*(outcome(fetch, f"https://hangs{k}.example/") for k in (1, 2, 3) * 4))
            assert all("no answer within 0.3 s" in text for text in said)
        began = time.monotonic()
        for _ in range(10):
            assert await fetch(Request(f"https://idp.example:{server.port}/", CA_PEM)) == b"{}"
        assert await asyncio.get_running_loop().getaddrinfo("localhost", 1)
        assert time.monotonic() - began < 3
    finally:
        end.set()


async def test_no_name_of_a_method_is_looked_up_by_the_event_loop(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def getaddrinfo(*_: object, **__: object) -> object:
        raise AssertionError("the event loop was asked")

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", getaddrinfo)
    assert await HttpsFetch()(Request(server.url, CA_PEM)) == b"{}"


async def test_a_closed_port_is_a_failure(server: Server) -> None:
    assert await failure(HttpsFetch(), "https://localhost:1/")
