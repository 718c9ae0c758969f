"""Somebody who reaches a port, with whatever certificate they have got hold of."""

import socket
import ssl
import struct
import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import msgpack

from cluster.tls.certificates import Identity, Pair, load_ca, new_ca, new_cert
from providers.pki.x509 import Issuer

#: In which a connection that gets nowhere must have ended. aiohttp reads 10 s of a body that it has refused.
PATIENCE_SECONDS: Final = 15.0
_READ_BYTES: Final = 1 << 16


@dataclass(frozen=True, slots=True)
class Credentials:
    """PEM files."""

    cert: Path
    key: Path


def issue(directory: Path, name: str, issuer: Issuer, identity: Identity, *, age_days: int = 0) -> Credentials:
    """A certificate, made `age_days` ago for one day more than none: an old one has expired."""
    return _saved(directory, name, new_cert(issuer, identity, _now() - timedelta(days=age_days), 1))


def self_signed(directory: Path, name: str) -> Credentials:
    return _saved(directory, name, new_ca(_now(), 1))


def another_ca() -> Issuer:
    """As `quorumca tls ca create` makes for somebody else."""
    pair = new_ca(_now(), 1)
    return load_ca(pair.cert_pem, pair.key_pem, _now())


def ca_of(root: Path) -> Issuer:
    """The agent CA of a local cluster: what an attacker gets who has its key, or a careless administrator."""
    cert, key = (root / "tls" / name for name in ("consul-agent-ca.pem", "consul-agent-ca-key.pem"))
    return load_ca(cert.read_text(), key.read_text(), _now())


def _saved(directory: Path, name: str, pair: Pair) -> Credentials:
    found = Credentials(directory / f"{name}.pem", directory / f"{name}-key.pem")
    found.cert.write_text(pair.cert_pem)
    found.key.write_text(pair.key_pem)
    return found


def _now() -> datetime:
    return datetime.now(UTC).replace(microsecond=0)


def client_context(credentials: Credentials | None) -> ssl.SSLContext:
    """Trusts every server: attackers do not mind."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    if credentials is not None:
        context.load_cert_chain(credentials.cert, credentials.key)
    return context


class LeftOpen(AssertionError):
    """The connection is still there, and waits for more."""


def send_plain(address: str, data: bytes) -> bytes:
    """Without TLS; what came back until the other side closed. Raises: LeftOpen."""
    with _connected(address) as sock:
        return _exchange(sock, data)


def send_tls(address: str, context: ssl.SSLContext, data: bytes) -> bytes:
    """What came back, decrypted, until the other side closed; nothing if it refused the handshake. Raises: LeftOpen."""
    with _connected(address) as sock:
        try:
            with context.wrap_socket(sock) as tls:
                return _exchange(tls, data)
        except (ssl.SSLError, ConnectionError):
            return b""


def record_tls(address: str, context: ssl.SSLContext, data: bytes, seconds: float = 1.0) -> tuple[bytes, bytes]:
    """A connection of a peer, as the wire sees it: every byte that the peer sent; and what it was answered in clear."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = context.wrap_bio(incoming, outgoing)
    sent, answer = bytearray(), bytearray()
    with _connected(address) as sock:

        def flush() -> None:
            if waiting := outgoing.read():
                sent.extend(waiting)
                sock.sendall(waiting)

        while True:
            try:
                tls.do_handshake()
                break
            except ssl.SSLWantReadError:
                flush()
                incoming.write(sock.recv(_READ_BYTES))
        tls.write(data)
        flush()
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            sock.settimeout(left)
            try:
                received = sock.recv(_READ_BYTES)
            except TimeoutError:
                break
            if not received:
                break
            incoming.write(received)
            try:
                answer.extend(tls.read())
            except ssl.SSLWantReadError:
                continue
    return bytes(sent), bytes(answer)


def _connected(address: str) -> socket.socket:
    host, _, port = address.rpartition(":")
    return socket.create_connection((host, int(port)), timeout=PATIENCE_SECONDS)


def _exchange(sock: socket.socket, data: bytes) -> bytes:
    received = bytearray()
    try:
        sock.sendall(data)
        while chunk := sock.recv(_READ_BYTES):
            received += chunk
    except TimeoutError:
        raise LeftOpen(f"still open after {PATIENCE_SECONDS:g} s; received {bytes(received[:100])!r}") from None
    except (ssl.SSLError, ConnectionError):
        pass
    return bytes(received)


# -- what a Raft peer and an RPC peer say


def frame(message: dict[str, Any]) -> bytes:
    body: bytes = msgpack.packb(message)
    return struct.pack("<I", len(body)) + body


def hello(address: str) -> bytes:
    return frame({"type": "hello", "ct": 0, "address": address})


def take_over(term: int) -> bytes:
    """Frames that would depose a leader, were they believed: a newer term, a candidate, a leader with no entries."""
    return b"".join(
        frame(message | {"ct": term})
        for message in (
            {"type": "term_notice", "term": term},
            {"type": "request_vote", "term": term, "last_log_index": 1 << 40, "last_log_term": term},
            {"type": "timeout_now", "term": term},
            {
                "type": "append_entries",
                "term": term,
                "commit_index": 1 << 40,
                "prevLogIdx": 1,
                "prevLogTerm": 0,
                "entries": (),
                "epoch": 1,
            },
        )
    )


def rpc_request(operation: str, arguments: list[Any]) -> bytes:
    body: bytes = msgpack.packb([5000, arguments])
    head = f"POST /rpc/{operation} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body
