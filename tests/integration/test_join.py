"""Machines become servers by `quorumca join`, their certificates are renewed by the cluster, and removal ends both."""

import asyncio
import http.client
import json
import os
import re
import shlex
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest
import pytest_asyncio
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, load_pem_private_key

from cluster.api.joining import JoinAsk, Joined
from cluster.base.errors import PermissionDenied
from cluster.base.telemetry import Metrics
from cluster.cli.dev.local_cluster import LocalNode
from cluster.client.errors import CommandError
from cluster.client.joining import Wanted, join
from cluster.http.join import start_join
from cluster.tls.certificates import Identity, signed_for
from cluster.tls.contexts import NodeTls, TlsFiles
from cluster.tls.keys import hash_of_certificate
from cluster.tls.node_certs import new_key, node_csr
from providers.pki.x509 import Issuer
from tests.integration.load import assert_all_on_record, signing_load
from tests.integration.peers import remove_peer
from tests.kit.attacker import Credentials, ca_of, client_context, hello
from tests.kit.log import EventLog
from tests.kit.ports import free_ports
from tests.kit.real_cluster import LocalCluster, Node, Settings, make_csr
from tests.kit.wait import eventually, until

pytestmark = [pytest.mark.slow, pytest.mark.asyncio(loop_scope="module")]

SETTINGS: Settings = {"limits": {"signing_workers": 1}, "tls": {"renew": True}}
TOKEN = "/v1/operator/join-token"
SUFFIX = ".server.dc1.consul"
FILES = ("ca.pem", "cert.pem", "key.pem")
PROJECT = Path(__file__).parents[2]


async def command(*words: str, ok: bool = True) -> str:
    """What it has printed, errors too."""

    def run() -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, "PYTHONPATH": str(PROJECT)}
        return subprocess.run(
            [sys.executable, "-P", "-m", "cluster", *words],
            capture_output=True, text=True, timeout=60, check=False, env=environment, stdin=subprocess.DEVNULL,
        )  # fmt: skip

    done = await asyncio.to_thread(run)
    assert (done.returncode == 0) is ok, (words, done)
    return done.stdout + done.stderr


def asked(node: Node) -> dict[str, Any]:
    return {"Name": node.name, "Address": node.local.raft, "RPC": node.local.rpc}


class Joinable:
    """Three servers, each with a join port, which have been given the agent CA."""

    def __init__(self, cluster: LocalCluster, ports: dict[str, str]) -> None:
        self.cluster = cluster
        self.ports = ports

    @property
    def tls(self) -> Path:
        return self.cluster.root / "tls"

    async def give_ca(self, ttl: str = "72h") -> None:
        ca, key = self.tls / "consul-agent-ca.pem", self.tls / "consul-agent-ca-key.pem"
        words = ["operator", "agent-ca", "set", "-ca", str(ca), "-key", str(key), "-node-cert-ttl", ttl]
        await command(*words, "-http-addr", self.cluster.nodes[0].url)

    async def token(self, node: Node, **fields: Any) -> dict[str, Any]:
        answer = await self.cluster.ask(self.cluster.nodes[0], "PUT", TOKEN, {**asked(node), **fields})
        assert answer.status == 200, answer.text
        return dict(answer.json())

    def newcomer(self, number: int) -> Node:
        """Where it will be; nothing of it is there yet."""
        http, rpc, raft = (f"127.0.0.1:{port}" for port in free_ports(3))
        name = f"node-{number}"
        return Node(LocalNode(name, self.cluster.root / name, http, rpc, raft))

    def words(self, node: Node, token: dict[str, Any], changes: Mapping[str, str] = MappingProxyType({})) -> list[str]:
        local = node.local
        flags = {
            "server": self.ports["node-1"], "ca-fingerprint": token["CAFingerprint"], "token": token["Token"],
            "name": local.name, "address": local.raft, "rpc": local.rpc, "http": local.http,
            "dir": str(local.directory), "seal-key-file": str(self.cluster.root / "seal.key"), **changes,
        }  # fmt: skip
        return ["join", *(word for name, value in flags.items() for word in (f"-{name}", value))]

    def rejoin_words(self, node: Node, token: dict[str, Any], *more: str) -> list[str]:
        return [
            "join", "-rejoin", "-config", str(node.local.config), "-server", self.ports["node-1"],
            "-ca-fingerprint", token["CAFingerprint"], "-token", token["Token"], *more,
        ]  # fmt: skip

    async def servers(self) -> dict[str, bool]:
        """Names, and whether they vote."""
        answer = await self.cluster.ask(self.cluster.nodes[0], "GET", "/v1/operator/raft/configuration")
        return {server["ID"]: server["Voter"] for server in answer.json()["Servers"]}

    async def votes(self, node: Node) -> None:
        async def is_voter() -> bool:
            return (await self.servers()).get(node.name) is True

        await eventually(f"{node.name} votes", is_voter, 30)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def joinable(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Joinable]:
    async with LocalCluster(tmp_path_factory.mktemp("join"), settings=SETTINGS) as cluster:
        ports = {}
        for node, port in zip(cluster.nodes, free_ports(3), strict=True):
            ports[node.name] = f"127.0.0.1:{port}"
            with node.local.config.open("a") as file:
                file.write(f'\n[join]\naddress = "127.0.0.1:{port}"\n')
        await cluster.start_all()
        await cluster.wait_ready()
        made = Joinable(cluster, ports)
        await eventually("keys are pinned", lambda: _tries(made), 30)
        yield made


async def _tries(made: Joinable) -> bool:
    answer = await made.cluster.ask(made.cluster.nodes[0], "PUT", TOKEN, asked(made.newcomer(9)))
    return answer.status == 422  # there is no agent CA yet; before, the keys are not pinned


async def test_without_the_agent_ca_it_says_what_to_do(joinable: Joinable) -> None:
    answer = await joinable.cluster.ask(joinable.cluster.nodes[1], "PUT", TOKEN, asked(joinable.newcomer(4)))
    assert answer.status == 422
    assert "quorumca operator agent-ca" in answer.text
    assert (await joinable.cluster.ask(joinable.cluster.nodes[1], "GET", "/v1/operator/agent-ca")).status == 404


async def test_fourth_joins_with_the_command_that_is_printed_and_votes(joinable: Joinable) -> None:
    await joinable.give_ca()
    node = joinable.newcomer(4)
    printed = await command(
        "operator", "join-token", "-name", "node-4", "-address", node.local.raft, "-rpc", node.local.rpc,
        "-http-addr", joinable.cluster.nodes[0].url,
    )  # fmt: skip
    [line], [token] = (
        re.findall(r"quorumca (join .*)", printed),
        re.findall(r"^  ([0-9a-f]{64})$", printed, re.MULTILINE),
    )
    token_file = joinable.cluster.root / "join.token"
    token_file.touch(0o600)
    token_file.write_text(token)
    words = shlex.split(line.replace("seal.key", str(joinable.cluster.root / "seal.key")))
    words = [str(token_file) if word == "-" else word for word in words]
    await command(*words, "-http", node.local.http, "-dir", str(node.local.directory))
    assert {path.name: oct(path.stat().st_mode & 0o777) for path in node.local.directory.iterdir()} == {
        "ca.pem": "0o600", "cert.pem": "0o600", "key.pem": "0o600", "config.toml": "0o600", "data": "0o700",
    }  # fmt: skip
    joinable.cluster.nodes.append(node)
    joinable.cluster.start(node)
    await joinable.cluster.wait_ready()
    await joinable.votes(node)
    # Used once, and never again: neither by the same machine nor by another.
    other = joinable.newcomer(5)
    again = [word.replace(str(node.local.directory), str(other.local.directory)) for word in words]
    refused = await command(*again, "-http", other.local.http, "-dir", str(other.local.directory), ok=False)
    assert "was used" in refused
    assert not other.local.directory.exists()


async def test_one_token_used_fifty_times_at_once_on_three_servers_makes_one(joinable: Joinable) -> None:
    node = joinable.newcomer(6)
    token = await joinable.token(node)
    csrs = [node_csr(new_key()) for _ in range(50)]
    servers = list(joinable.ports.values())

    def use(number: int) -> str:
        try:
            wanted = Wanted("node-6", node.local.raft, node.local.rpc, csrs[number])
            server, fingerprint = servers[number % 3], token["CAFingerprint"]
            return str(join(server, fingerprint, SUFFIX, token["Token"], wanted)["Certificate"])
        except CommandError as error:
            return str(error)

    with ThreadPoolExecutor(50) as threads:
        loop = asyncio.get_running_loop()
        answers = await asyncio.gather(*(loop.run_in_executor(threads, use, number) for number in range(50)))
    won = [number for number, answer in enumerate(answers) if answer.startswith("-----BEGIN CERTIFICATE")]
    assert len(won) == 1, answers
    lost = [answer for number, answer in enumerate(answers) if number not in won]
    assert all("was used" in answer or "cannot be reached" in answer for answer in lost), lost
    assert (await joinable.servers())["node-6"] is False
    assert (await remove_peer(joinable.cluster, joinable.cluster.nodes[0], node)).status == 200
    # Nothing of it is in a log: neither of the servers nor of what they have written.
    secret = token["Token"].encode()
    for path in joinable.cluster.root.rglob("*"):
        assert not path.is_file() or secret not in path.read_bytes(), path


async def test_wrong_fingerprint_name_or_address_gets_nothing(joinable: Joinable) -> None:
    node = joinable.newcomer(7)
    token = await joinable.token(node)
    for changes, text in (
        ({"ca-fingerprint": "ab" * 32}, "The token was not used"),
        ({"name": "node-8"}, "is for another server"),
        ({"token": "0" * 64}, "unknown"),
        ({"address": "127.0.0.1:9"}, "the join token is for Address"),
        ({"rpc": node.local.raft}, "the join token is for RPC"),
    ):
        assert text in await command(*joinable.words(node, token, changes), ok=False)
        assert not node.local.directory.exists()
    # None of that has used it up.
    await command(*joinable.words(node, token))
    assert (await joinable.servers())["node-7"] is False
    assert (await remove_peer(joinable.cluster, joinable.cluster.nodes[0], node)).status == 200


async def test_server_whose_certificate_has_expired_comes_back_with_a_token(joinable: Joinable) -> None:
    cluster, node = joinable.cluster, joinable.cluster.nodes[3]
    await cluster.stop(node)
    issuer = ca_of(cluster.root)
    issued = _short_lived(node, issuer, seconds=1)
    await asyncio.sleep(1.1)
    cluster.start(node)
    await until(lambda: "has expired, and no other server hears" in node.log_tail(100), "it says so", 20)
    refused = await cluster.ask(cluster.nodes[0], "PUT", TOKEN, asked(node))
    assert (refused.status, "-rejoin" in refused.text) == (422, True)
    # A token for newcomers is of no use for it, nor is its own once it was used.
    token = await joinable.token(node, Rejoin=True)
    await command(*joinable.rejoin_words(node, token))
    await cluster.wait_ready(30, [node])
    await joinable.votes(node)
    assert "was used" in await command(*joinable.rejoin_words(node, token), ok=False)
    now = x509.load_pem_x509_certificate((node.local.directory / "cert.pem").read_bytes())
    assert now.public_key() == issued.public_key(), "the key stays"
    assert now.not_valid_after_utc > issued.not_valid_after_utc


async def test_key_is_exchanged_with_a_token_and_the_one_before_is_nobodys(joinable: Joinable) -> None:
    cluster, node = joinable.cluster, joinable.cluster.nodes[3]
    former = Credentials(cluster.root / "former.pem", cluster.root / "former-key.pem")
    former.cert.write_bytes((node.local.directory / "cert.pem").read_bytes())
    former.key.write_bytes((node.local.directory / "key.pem").read_bytes())
    assert not _ends(_open(cluster.nodes[0].local.rpc, client_context(former)), 0.5)
    refused = await cluster.ask(cluster.nodes[0], "PUT", TOKEN, {**asked(node), "Rejoin": True})
    assert (refused.status, "-force" in refused.text) == (422, True), "it is there"
    token = await joinable.token(node, Rejoin=True, Force=True)
    await command(*joinable.rejoin_words(node, token, "-new-key"))
    cluster.send(node, signal.SIGHUP)
    await until(
        lambda: _ends(_open(cluster.nodes[0].local.rpc, client_context(former)), 3), "the key before is refused", 20
    )

    async def signs() -> bool:
        csr_pem, _ = make_csr(await cluster.service_uri())
        return (await cluster.ask(node, "PUT", "/v1/connect/ca/sign", {"CSR": csr_pem})).status == 200

    await eventually("it is heard under the next one", signs, 30)
    await joinable.votes(node)


async def test_removed_server_loses_its_connections_at_once_and_gets_none(joinable: Joinable) -> None:
    cluster, node = joinable.cluster, joinable.cluster.nodes[3]
    own = Credentials(node.local.directory / "cert.pem", node.local.directory / "key.pem")
    others = cluster.nodes[:3]
    addresses = [address for other in others for address in (other.local.rpc, other.local.raft)]
    context = client_context(own)
    connections = {address: _open(address, context) for address in addresses}
    for other in others:
        connections[other.local.raft].sendall(hello(node.local.raft))
    assert not any(_ends(connection, 0.2) for connection in connections.values())
    sessions = {address: connection.session for address, connection in connections.items()}

    cluster.part_with(node)
    assert (await remove_peer(cluster, cluster.nodes[0], node)).status == 200
    deadline = time.monotonic() + 1.0
    for address, connection in connections.items():
        assert _ends(connection, max(0.01, deadline - time.monotonic())), f"{address} is open a second later"
    for address in addresses:
        try:
            again = _open(address, context, sessions[address])
        except OSError:
            continue
        assert not again.session_reused
        assert _ends(again, 3), f"{address} takes it again"
    await cluster.kill(node)


async def test_key_of_a_removed_server_gets_nothing_to_join_with(joinable: Joinable) -> None:
    """It answers machines at a port that looks like a join port, and brings what it is sent to the real one, with a CSR
    of its own, and as it is.
    """
    node, fake = joinable.newcomer(8), Capturing(joinable.tls)
    token = await joinable.token(node)
    files = joinable.cluster.root / "node-4"
    tls = NodeTls(TlsFiles(*(str(files / name) for name in FILES)), "dc1", "consul")
    address = f"127.0.0.1:{free_ports(1)[0]}"
    server = await start_join(address, fake, tls.open_context, EventLog(), Metrics())  # type: ignore[arg-type]  # as far as it is used
    try:
        await command(*joinable.words(node, token, {"server": address}), ok=False)
    finally:
        await server.stop()
    [captured] = fake.asked
    body = {
        "Name": captured.name, "Address": captured.raft_address, "RPC": captured.rpc_address, "CSR": captured.csr_pem,
        "ServerKey": captured.server_key.hex(), "Proof": captured.proof.hex(),
    }  # fmt: skip
    for server_of_port, port in zip(joinable.cluster.nodes, joinable.ports.values(), strict=True):
        real = hash_of_certificate(_certificate(server_of_port).public_bytes(Encoding.DER)).hex()
        assert captured.server_key.hex() != real
        changes: dict[str, str]
        for changes in ({}, {"CSR": node_csr(new_key())}, {"ServerKey": real}):
            status, text = await asyncio.to_thread(_posted, port, {**body, **changes})
            assert status == 403, text
    assert node.name not in await joinable.servers()
    await command(*joinable.words(node, token))
    assert (await remove_peer(joinable.cluster, joinable.cluster.nodes[0], node)).status == 200


class Capturing:
    """What somebody has at a join port of their own."""

    def __init__(self, tls: Path) -> None:
        self._ca = tls / "consul-agent-ca.pem"
        self.asked: list[JoinAsk] = []

    def ca_pem(self) -> str:
        return self._ca.read_text()

    async def join(self, ask: JoinAsk) -> Joined:
        self.asked.append(ask)
        raise PermissionDenied("try again")


def _posted(address: str, body: Mapping[str, str]) -> tuple[int, str]:
    host, _, port = address.rpartition(":")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    connection = http.client.HTTPSConnection(host, int(port), timeout=20, context=context)
    connection.request("POST", "/v1/join", json.dumps(body))
    answer = connection.getresponse()
    return answer.status, answer.read().decode()


# -- sockets of somebody with a server's key


def _open(address: str, context: ssl.SSLContext, session: ssl.SSLSession | None = None) -> ssl.SSLSocket:
    """Raises: OSError."""
    host, _, port = address.rpartition(":")
    return context.wrap_socket(socket.create_connection((host, int(port)), timeout=5), session=session)


def _ends(connection: ssl.SSLSocket, seconds: float) -> bool:
    """Whether the other side closes it in this time."""
    connection.settimeout(seconds)
    try:
        return connection.recv(1 << 16) == b""
    except TimeoutError:
        return False
    except OSError:
        return True


def _short_lived(node: Node, issuer: Issuer, seconds: float) -> x509.Certificate:
    """Takes the place of the node's certificate: with its key, and for so long."""
    files = node.local.directory
    key = load_pem_private_key((files / "key.pem").read_bytes(), None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    identity, now = Identity("server", node=node.name), datetime.now(UTC)
    cert = signed_for(issuer, identity, key.public_key(), now, timedelta(seconds=seconds))
    (files / "cert.pem").write_bytes(cert.public_bytes(Encoding.PEM))
    return cert


async def test_certificates_of_seconds_are_renewed_under_load_and_no_request_fails(tmp_path: Path) -> None:
    settings = {**SETTINGS, "connect": {"ca_config": {"csr_max_per_second": 0}}}
    async with LocalCluster(tmp_path, settings=settings) as cluster:
        joinable = Joinable(cluster, {})
        for node in cluster.nodes:
            _short_lived(node, ca_of(tmp_path), seconds=45)
        await cluster.start_all()
        await cluster.wait_ready()
        await eventually("keys are pinned", lambda: _tries(joinable), 20)
        await joinable.give_ca("9s")
        seen: dict[str, set[int]] = {node.name: set() for node in cluster.nodes}
        keys = {node.name: _certificate(node).public_key() for node in cluster.nodes}

        async def renewed() -> bool:
            for node in cluster.nodes:
                seen[node.name].add(_certificate(node).serial_number)
            return all(len(serials) >= 5 for serials in seen.values())

        async with signing_load(cluster) as load:
            await eventually("each certificate has been renewed four times", renewed, 90)
        assert load.answers.keys() == {200}, (load, load.refused[:5])
        assert not load.broken, load
        assert load.longest_silence(load.acknowledged[0][0]) < 2.0
        assert {node.name: _certificate(node).public_key() for node in cluster.nodes} == keys
        await assert_all_on_record(cluster, load)


def _certificate(node: Node) -> x509.Certificate:
    return x509.load_pem_x509_certificate((node.local.directory / "cert.pem").read_bytes())
