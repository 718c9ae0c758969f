"""A server's own certificate, renewed by the cluster: when it is asked for, and what is taken."""

import os
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, cast

import pytest

from cluster.base.config import parse_config
from cluster.base.errors import NoLeader, Refused
from cluster.node.renewal import Renewal
from cluster.rpc.messages import RENEW_NODE, NodeCertAnswer, RenewNodeRequest
from cluster.tls.certificates import new_ca
from cluster.tls.node_certs import key_pem, new_key, node_csr, sign_node
from providers.errors import CSRRejected
from tests.kit.clock import FakeClock
from tests.kit.log import EventLog
from tests.kit.node_config import minimal

#: The TLS library judges by the real time.
NOW: Final = int(time.time())
CA: Final = new_ca(datetime.fromtimestamp(NOW, UTC), 30)
LIFE: Final = 1000

Answer = Callable[[RenewNodeRequest], str]


def signed(csr_pem: str, *, node: str = "a", ttl: int = LIFE, ca: Any = CA, now: int = NOW) -> str:
    cert_pem, _ = sign_node(
        ca.cert_pem,
        ca.key_pem,
        csr_pem,
        node=node,
        datacenter="dc1",
        domain="consul",
        addresses=[],
        present_pem="",
        now=now,
        ttl_seconds=ttl,
    )
    return cert_pem


class Server:
    """Its files, and a leader that answers as it is told."""

    def __init__(self, directory: Path) -> None:
        self.cert, self.key, self.ca = (directory / name for name in ("cert.pem", "key.pem", "ca.pem"))
        key = new_key()
        self.key.write_text(key_pem(key))
        self.ca.write_text(CA.cert_pem)
        self.cert.write_text(signed(node_csr(key)))
        self.first = self.cert.read_text()
        self.asked: list[RenewNodeRequest] = []
        self.taken: list[str] = []
        self.answer: Answer | Exception = lambda request: signed(request.csr_pem, ttl=2 * LIFE)
        self.clock, self.log = FakeClock(float(NOW)), EventLog()
        files = {"ca_file": str(self.ca), "cert_file": str(self.cert), "key_file": str(self.key), "renew": True}
        config = parse_config(minimal(tls=files), source="t")
        self.renewal = Renewal(
            config, cast(Any, self), lambda: self.taken.append(self.cert.read_text()), self.clock, self.log
        )

    async def call(self, operation: object, request: RenewNodeRequest) -> NodeCertAnswer:
        """As the forwarder."""
        assert operation is RENEW_NODE
        self.asked.append(request)
        if isinstance(self.answer, Exception):
            raise self.answer
        return NodeCertAnswer(self.answer(request))

    @property
    def failures(self) -> list[object]:
        return [fields["reason"] for event, fields in self.log.events if event == "tls.renewal_failed"]


@pytest.fixture
def server(tmp_path: Path) -> Server:
    return Server(tmp_path)


async def test_it_is_asked_for_when_two_thirds_are_over_and_not_before(server: Server) -> None:
    server.clock.advance(0.5 * LIFE)
    assert 0 < await server.renewal.look() <= 60
    assert server.asked == []
    server.clock.advance(0.2 * LIFE)
    assert await server.renewal.look() == 0
    [request] = server.asked
    assert (request.present_pem, request.name) == (server.first, "a")
    assert server.taken == [server.cert.read_text()] != [server.first]
    assert 0 < await server.renewal.look() <= 60
    assert len(server.asked) == 1


async def test_key_stays_and_the_file_keeps_its_mode(server: Server) -> None:
    os.chmod(server.cert, 0o640)
    key = server.key.read_bytes()
    server.clock.advance(0.7 * LIFE)
    await server.renewal.look()
    assert server.key.read_bytes() == key
    assert server.cert.stat().st_mode & 0o777 == 0o640
    assert sorted(path.name for path in server.cert.parent.iterdir()) == ["ca.pem", "cert.pem", "key.pem"]


async def test_link_stays_one(server: Server, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere.pem"
    server.cert.rename(elsewhere)
    server.cert.symlink_to(elsewhere)
    server.clock.advance(0.7 * LIFE)
    await server.renewal.look()
    assert server.cert.is_symlink()
    assert elsewhere.read_text() == server.taken[0]


def test_servers_that_were_made_together_do_not_ask_together(tmp_path: Path) -> None:
    shares = set()
    for number in range(20):
        (tmp_path / str(number)).mkdir()
        shares.add(Server(tmp_path / str(number)).renewal._share)
    assert len(shares) == 20
    assert min(shares) > 0.6
    assert max(shares) < 0.71


@pytest.mark.parametrize(
    "refusal", [Refused("the cluster has no key of the agent CA"), NoLeader("No cluster leader"), CSRRejected("no")]
)
async def test_what_fails_is_said_once_and_tried_again(server: Server, refusal: Exception) -> None:
    server.answer = refusal
    server.clock.advance(0.7 * LIFE)
    pauses = [await server.renewal.look() for _ in range(3)]
    assert all(0 < pause <= 0.05 * LIFE for pause in pauses), pauses
    assert server.failures == [str(refusal)]
    assert len(server.asked) == 3
    assert (server.taken, server.cert.read_text()) == ([], server.first)
    server.answer = lambda request: signed(request.csr_pem, ttl=2 * LIFE)
    assert await server.renewal.look() == 0
    assert server.taken


async def test_one_that_has_expired_asks_nobody_and_says_the_way_back(server: Server) -> None:
    server.clock.advance(LIFE)
    await server.renewal.look()
    [reason] = server.failures
    assert "quorumca operator join-token -name a -rejoin" in str(reason)
    assert "quorumca join -rejoin" in str(reason)
    assert server.asked == []


@pytest.mark.parametrize(
    "answer",
    [
        lambda request: signed(request.csr_pem, node="b", ttl=2 * LIFE),
        lambda request: signed(node_csr(new_key()), ttl=2 * LIFE),
        lambda request: signed(request.csr_pem, ttl=2 * LIFE, ca=new_ca(datetime.fromtimestamp(NOW, UTC), 30)),
        lambda request: signed(request.csr_pem, ttl=LIFE // 2),
        lambda request: request.present_pem,
        lambda _request: "",
        lambda _request: CA.cert_pem,
        lambda request: signed(request.csr_pem, now=NOW - 5 * LIFE),
    ],
    ids=["another server's", "for another key", "of another CA", "shorter", "the same", "nothing", "the CA", "over"],
)
async def test_certificate_that_the_others_would_refuse_is_not_put_in_place(server: Server, answer: Answer) -> None:
    server.answer = answer
    server.clock.advance(0.7 * LIFE)
    assert await server.renewal.look() > 0
    assert (server.taken, server.cert.read_text()) == ([], server.first)
    assert len(server.failures) == 1


@pytest.mark.parametrize("name", ["cert", "key", "ca"])
@pytest.mark.parametrize("content", [None, "", "nonsense"])
async def test_files_that_cannot_be_used_are_looked_at_again(server: Server, name: str, content: str | None) -> None:
    path: Path = getattr(server, name)
    path.unlink() if content is None else path.write_text(content)
    server.clock.advance(0.7 * LIFE)
    assert await server.renewal.look() > 0
    assert server.failures
    assert server.taken == []
