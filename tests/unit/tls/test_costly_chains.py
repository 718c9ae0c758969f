"""What a handshake on the ports between nodes costs, whatever chain a stranger shows.

OpenSSL takes 100 KB of certificates and reads the key of each (45 ms of CPU when this was written, and 0.7 ms for a
handshake that succeeds); it verifies no signature but by a key that is trusted. So the bytes are bounded.
"""

import contextlib
import ssl
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from cluster.tls.contexts import NodeTls, TlsFiles
from providers.pki.keys import spki_der
from tests.kit import costly
from tests.kit.tls_files import Authority

#: Several times what the most costly one takes; without the bound some take more.
MOST_SECONDS: Final = 0.025
_CA: Final = "test agent CA"
_FLIGHTS: Final = 4


def chain(count: int, key: Callable[[], bytes]) -> list[str]:
    """From a leaf's issuer to one that is named as the trusted CA's."""
    names = ["i0", *(f"i{number}" for number in range(1, count)), _CA]
    return [costly.certificate(names[k], names[k + 1], key()) for k in range(count)]


def ec_key() -> bytes:
    return spki_der(ec.generate_private_key(ec.SECP256R1()).public_key())


def rsa_key() -> bytes:
    return costly.rsa_key(costly.odd(16384))


CHAINS: Final[dict[str, Callable[[], list[str]]]] = {
    "as many as are read, the last named as the CA's": lambda: chain(40, ec_key),
    "90 certificates, the last named as the CA's": lambda: chain(90, ec_key),
    "290 certificates of one name": lambda: [costly.certificate("x", "x", ec_key()) for _ in range(290)],
    "40 keys of RSA 16384": lambda: chain(40, rsa_key),
    "150 curves by their parameters": lambda: chain(150, costly.explicit_p256),
    "more than OpenSSL takes": lambda: chain(600, costly.explicit_p256),
}


def client_of(directory: Path, own: str, others: Sequence[str]) -> ssl.SSLContext:
    file = directory / "chain.pem"
    file.write_text((directory / f"{own}.pem").read_text() + "".join(others))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.load_cert_chain(file, directory / f"{own}.key")
    return context


def handshake(server: ssl.SSLContext, client: ssl.SSLContext) -> tuple[float, str]:
    """The server's seconds of CPU, and why it refused."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    one = client.wrap_bio(to_client, to_server)
    two = server.wrap_bio(to_server, to_client, server_side=True)
    seconds = 0.0
    for _ in range(_FLIGHTS):
        with contextlib.suppress(ssl.SSLWantReadError):
            one.do_handshake()
        begin = time.process_time()
        try:
            two.do_handshake()
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLError as error:
            return seconds + time.process_time() - begin, str(error)
        seconds += time.process_time() - begin
    return seconds, ""


@pytest.fixture
def server(tmp_path: Path) -> ssl.SSLContext:
    authority, stranger = Authority(), Authority()
    authority.write_ca(tmp_path / "ca.pem")
    authority.write_server(tmp_path, "a")
    authority.write_certificate(tmp_path, "member", "b.server.dc1.consul")
    stranger.write_certificate(tmp_path, "leaf", "a.server.dc1.consul")
    files = TlsFiles(*(str(tmp_path / name) for name in ("ca.pem", "a.pem", "a.key")))
    return NodeTls(files, "dc1", "consul", "a").server_context


@pytest.mark.parametrize("kind", CHAINS)
def test_strangers_chain_costs_a_handshake_milliseconds(server: ssl.SSLContext, tmp_path: Path, kind: str) -> None:
    client = client_of(tmp_path, "leaf", CHAINS[kind]())
    outcomes = [handshake(server, client) for _ in range(5)]
    assert all(refused for _, refused in outcomes)
    assert min(seconds for seconds, _ in outcomes) < MOST_SECONDS


@pytest.mark.parametrize("count", [0, 7, 40])
def test_members_chain_is_taken_up_to_the_bound(server: ssl.SSLContext, tmp_path: Path, count: int) -> None:
    """What is beside its own certificate is of no use to anybody, and may be there: of seven keys of RSA 4096, too."""
    others = chain(count, ec_key if count > 7 else lambda: costly.rsa_key(costly.odd(4096))) if count else []
    assert handshake(server, client_of(tmp_path, "member", others))[1] == ""


def test_what_follows_the_handshake_at_once_may_be_long(server: ssl.SSLContext, tmp_path: Path) -> None:
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    one = client_of(tmp_path, "member", []).wrap_bio(to_client, to_server)
    two = server.wrap_bio(to_server, to_client, server_side=True)
    for end in (one, two):
        with contextlib.suppress(ssl.SSLWantReadError):
            end.do_handshake()
    one.do_handshake()
    sent = bytes(range(256)) * 4096
    one.write(sent)  # before the server has seen the certificate
    two.do_handshake()
    received = b""
    while len(received) < len(sent):
        received += two.read(len(sent))
    assert received == sent


def test_what_is_larger_is_refused_before_it_is_read(server: ssl.SSLContext, tmp_path: Path) -> None:
    _, refused = handshake(server, client_of(tmp_path, "member", chain(60, ec_key)))
    assert refused.endswith("the handshake has more than 16384 bytes")
    assert handshake(server, client_of(tmp_path, "member", []))[1] == ""
