"""The join port, and the machine that asks there: over real TLS, with nothing behind it."""

import asyncio
import json
import ssl
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import pytest

from cluster.api.joining import Founder, JoinAsk, Joined
from cluster.base.errors import CommitUnknown, NoLeader, PermissionDenied
from cluster.base.telemetry import Metrics
from cluster.client.errors import CommandError
from cluster.client.joining import Wanted, join, parse_fingerprint
from cluster.http.join import CA_PATH, JOIN_PATH, start_join
from cluster.node.node_certs import fingerprint_of
from cluster.tls.contexts import NodeTls, TlsFiles
from cluster.tls.join_proof import JoinStatement, is_proved, public_of
from cluster.tls.keys import public_part
from providers.errors import CSRRejected
from tests.kit.log import EventLog
from tests.kit.ports import free_ports
from tests.kit.tls_files import Authority

SECRET: Final = "5ec7e7" * 10
WANTED: Final = Wanted("d", "127.0.0.1:9", "127.0.0.1:8", "a request")
ASK: Final = {
    "Name": "d", "Address": "127.0.0.1:9", "RPC": "127.0.0.1:8", "CSR": "a request", "ServerKey": "ab" * 32,
    "Proof": "cd" * 64,
}  # fmt: skip
SUFFIX: Final = ".server.dc1.consul"


class FakeJoining:
    """Answers every question, and remembers it."""

    def __init__(self, ca_pem: str) -> None:
        self._ca_pem = ca_pem
        self.asked: list[JoinAsk] = []
        self.refusal: Exception | None = None

    def ca_pem(self) -> str:
        return self._ca_pem

    async def join(self, ask: JoinAsk) -> Joined:
        self.asked.append(ask)
        if self.refusal is not None:
            raise self.refusal
        server = Founder("a", "127.0.0.1:1", "127.0.0.1:2")
        return Joined("a certificate", self._ca_pem, [server], [server], "deny")


@dataclass
class Port:
    address: str
    joining: FakeJoining
    log: EventLog
    fingerprint: str

    async def join(self, fingerprint: str = "", suffix: str = SUFFIX) -> dict[str, Any]:
        return await asyncio.to_thread(join, self.address, fingerprint or self.fingerprint, suffix, SECRET, WANTED)

    async def raw(self, request: bytes) -> bytes:
        host, _, port = self.address.rpartition(":")
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        reader, writer = await asyncio.open_connection(host, int(port), ssl=context)
        writer.write(request)
        async with asyncio.timeout(10):
            answer = await reader.read()
        writer.close()
        return answer


async def served(directory: Path, tls: NodeTls, ca_pem: str) -> AsyncIterator[Port]:
    joining, log = FakeJoining(ca_pem), EventLog()
    address = f"127.0.0.1:{free_ports(1)[0]}"
    server = await start_join(address, joining, tls.open_context, log, Metrics())  # type: ignore[arg-type]  # as far as it is used
    try:
        yield Port(address, joining, log, fingerprint_of(ca_pem))
    finally:
        await server.stop()


def tls_of(authority: Authority, directory: Path, dns_name: str = "a.server.dc1.consul") -> NodeTls:
    directory.mkdir(exist_ok=True)
    authority.write_ca(directory / "ca.pem")
    authority.write_certificate(directory, "node", dns_name)
    files = TlsFiles(*(str(directory / name) for name in ("ca.pem", "node.pem", "node.key")))
    return NodeTls(files, "dc1", "consul")


@pytest.fixture
async def port(tmp_path: Path) -> AsyncIterator[Port]:
    tls = tls_of(Authority(), tmp_path / "a")
    async for made in served(tmp_path, tls, (tmp_path / "a" / "ca.pem").read_text()):
        yield made


async def test_machine_without_a_certificate_is_heard_and_answered(port: Port) -> None:
    answer = await port.join()
    assert answer["Certificate"] == "a certificate"
    assert answer["DefaultPolicy"] == "deny"
    assert answer["Founders"] == [{"Name": "a", "Address": "127.0.0.1:1", "RPC": "127.0.0.1:2"}]
    [asked] = port.joining.asked
    assert (asked.name, asked.raft_address, asked.rpc_address, asked.csr_pem) == (
        *("d", "127.0.0.1:9", "127.0.0.1:8"),
        "a request",
    )
    assert SECRET not in repr(asked)


async def test_what_is_asked_is_signed_for_the_server_that_was_met(tmp_path: Path) -> None:
    authority, tls = Authority(), {}
    for name in ("a", "b"):
        tls[name] = tls_of(authority, tmp_path / name, f"{name}.server.dc1.consul")
    ca_pem = (tmp_path / "a" / "ca.pem").read_text()
    for name in ("a", "b"):
        async for port in served(tmp_path, tls[name], ca_pem):
            await port.join()
            [asked] = port.joining.asked
            assert asked.server_key == public_part(tls[name].key)
            statement = JoinStatement("d", "127.0.0.1:9", "127.0.0.1:8", "a request", asked.server_key)
            assert is_proved(public_of(SECRET), statement, asked.proof)
            other = replace(statement, server_key=public_part(tls["b" if name == "a" else "a"].key))
            assert not is_proved(public_of(SECRET), other, asked.proof)


async def test_fingerprint_of_another_ca_keeps_the_token(port: Port) -> None:
    with pytest.raises(CommandError, match="The token was not used"):
        await port.join("ab" * 32)
    assert port.joining.asked == []


@pytest.mark.parametrize("name", ["a.client.dc1.consul", "a.server.dc2.consul", "server.dc1.consul", "consul"])
async def test_certificate_of_the_same_ca_and_no_server_keeps_the_token(tmp_path: Path, name: str) -> None:
    tls = tls_of(Authority(), tmp_path / "a", name)
    async for port in served(tmp_path, tls, (tmp_path / "a" / "ca.pem").read_text()):
        with pytest.raises(CommandError, match="is not that of a server") as refused:
            await port.join()
        assert "token was not used" in str(refused.value)
        assert port.joining.asked == []


async def test_whoever_only_shows_the_right_ca_gets_no_token(tmp_path: Path) -> None:
    """In between, with a certificate of a CA of its own: the real CA is no secret, and it hands that out."""
    Authority().write_ca(tmp_path / "real.pem")
    tls = tls_of(Authority(), tmp_path / "evil")
    async for port in served(tmp_path, tls, (tmp_path / "real.pem").read_text()):
        with pytest.raises(CommandError, match="no certificate of the agent CA with this fingerprint"):
            await port.join()
        assert port.joining.asked == []


async def test_one_of_several_cas_is_pinned_and_no_other_counts(tmp_path: Path) -> None:
    """While the agent CA is exchanged, servers trust two; the machine trusts the one that it was told of."""
    other, authority = Authority(), Authority()
    tls = tls_of(authority, tmp_path / "a")
    other.write_ca(tmp_path / "other.pem")
    both = (tmp_path / "other.pem").read_text() + (tmp_path / "a" / "ca.pem").read_text()
    async for port in served(tmp_path, tls, both):
        right = fingerprint_of((tmp_path / "a" / "ca.pem").read_text())
        assert (await port.join(right))["CA"] == both
        with pytest.raises(CommandError, match="no certificate of the agent CA with this fingerprint"):
            await port.join(fingerprint_of((tmp_path / "other.pem").read_text()))
        assert len(port.joining.asked) == 1


@pytest.mark.parametrize(
    ("refusal", "status", "text"),
    [
        (PermissionDenied("the join token was used"), 403, "was used"),
        (CSRRejected("no request"), 400, "no request"),
        (NoLeader("No cluster leader"), 503, "No cluster leader"),
        (CommitUnknown("it may have taken effect"), 504, "may have taken effect"),
        (ValueError(f"something with {SECRET} in it"), 500, "internal error"),
    ],
)
async def test_refusal_has_its_reason_and_never_the_token(
    port: Port, refusal: Exception, status: int, text: str
) -> None:
    port.joining.refusal = refusal
    with pytest.raises(CommandError) as refused:
        await port.join()
    assert f"refused ({status})" in str(refused.value)
    assert text in str(refused.value)
    assert SECRET not in str(refused.value)
    assert status == 500 or SECRET not in str(port.log.events)


ODD: Final = [7, "", "ab" * 31, "ab" * 63, "ab" * 65, " ".join(["ab"] * 64), " ".join(["ab"] * 32), "xy" * 64, None]


def post(body: bytes, path: str = JOIN_PATH, method: str = "POST") -> bytes:
    return f"{method} {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (post(b""), 400),
        (post(b"[]"), 400),
        (post(b"{"), 400),
        (post(json.dumps({**ASK, "Token": SECRET}).encode()), 400),
        *((post(json.dumps({**ASK, "Proof": odd}).encode()), 400) for odd in ODD),
        *((post(json.dumps({**ASK, "ServerKey": odd}).encode()), 400) for odd in ODD),
        (post(json.dumps({**ASK, "Name": 7}).encode()), 400),
        (post(json.dumps({**ASK, "More": 7}).encode()), 400),
        (post(b'{"Name": "a", "name": "b"}'), 400),
        (b"POST /v1/join HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999\r\n\r\n", 413),
        (post(b"", JOIN_PATH, "GET"), 405),
        (post(b"", CA_PATH, "POST"), 405),
        (post(b"", "/"), 404),
        (post(b"", "/v1/connect/ca/roots", "GET"), 404),
        (post(b"", "/rpc/join"), 404),
        (b"\0\0\0", 400),
    ],
)
async def test_there_is_nothing_else_on_this_port(port: Port, request_: bytes, status: int) -> None:
    answer = await port.raw(request_)
    assert answer.split()[1] == str(status).encode(), answer
    assert port.joining.asked == []


async def test_connection_is_good_for_one_question(port: Port) -> None:
    answer = await port.raw(2 * post(b"", CA_PATH, "GET"))
    assert answer.count(b"HTTP/1.1 ") == 1
    assert b"Connection: close" in answer


async def test_strangers_hold_no_more_than_their_places(port: Port) -> None:
    host, _, number = port.address.rpartition(":")
    streams = [await asyncio.open_connection(host, int(number)) for _ in range(40)]
    assert (await port.join())["Certificate"] == "a certificate"
    for _, writer in streams:
        writer.close()


@pytest.mark.parametrize("text", ["", "ab" * 31, "ab" * 33, "xy" * 32, "ab " * 32])
def test_fingerprint_is_sha256_in_hex(text: str) -> None:
    assert parse_fingerprint(text) is None


@pytest.mark.parametrize(
    "form", [str.lower, str.upper, lambda text: ":".join(text[k : k + 2] for k in range(0, 64, 2))]
)
def test_fingerprint_may_be_as_openssl_writes_it(form: Callable[[str], str]) -> None:
    assert parse_fingerprint(form("ab" * 32)) == "ab" * 32
