"""Somebody who reaches a port, with whatever certificate they have got hold of."""

import socket
import ssl
import struct
import time
from concurrent.futures import ThreadPoolExecutor
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


def fill(address: str, context: ssl.SSLContext, data: bytes, connections: int, seconds: float) -> int:
    """Send the same on many connections at a time, and leave them open for so long; how many have got all of it."""
    with ThreadPoolExecutor(connections) as threads:
        return sum(threads.map(lambda _: _fill_one(address, context, data, seconds), range(connections)))


def _fill_one(address: str, context: ssl.SSLContext, data: bytes, seconds: float) -> bool:
    end = time.monotonic() + seconds
    try:
        with _connected(address) as sock, context.wrap_socket(sock) as tls:
            tls.settimeout(seconds)
            tls.sendall(data)
            tls.settimeout(max(0.1, end - time.monotonic()))
            return not tls.recv(1)
    except TimeoutError:
        return True  # it waits for more
    except OSError:
        return False  # cut off


@dataclass(frozen=True, slots=True)
class Recording:
    """A connection of a peer, as the wire sees it; and what the peer was answered, in clear."""

    sent: tuple[bytes, ...]  # what the peer sent, each part after an answer to the one before
    handshake: bytes  # what came back until its handshake was done
    received: bytes  # what came back after that
    answer: bytes


def record_tls(address: str, context: ssl.SSLContext, data: bytes, seconds: float = 1.0) -> Recording:
    """Raises: ssl.SSLError, ConnectionError when the handshake is refused."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = context.wrap_bio(incoming, outgoing)
    sent: list[bytes] = []
    handshake, rest, answer = bytearray(), bytearray(), bytearray()
    with _connected(address) as sock:

        def flush() -> None:
            if waiting := outgoing.read():
                sent.append(waiting)
                sock.sendall(waiting)

        while True:
            try:
                tls.do_handshake()
                break
            except ssl.SSLWantReadError:
                flush()
                received = sock.recv(_READ_BYTES)
                if not received:
                    raise ConnectionError("closed in the middle of the handshake") from None
                handshake.extend(received)
                incoming.write(received)
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
            rest.extend(received)
            incoming.write(received)
            try:
                answer.extend(tls.read())
            except ssl.SSLWantReadError:
                continue
    return Recording(tuple(sent), bytes(handshake), bytes(rest), bytes(answer))


def play_again(address: str, recording: Recording) -> bytes:
    """What came back to the same bytes, sent at the same moments: the first, and once they are answered the others.

    Raises: LeftOpen.
    """
    first, *others = recording.sent
    with _connected(address) as sock:
        sock.sendall(first)
        return sock.recv(_READ_BYTES) + _exchange(sock, b"".join(others))


# -- what the wire shows of TLS 1.3


@dataclass(frozen=True, slots=True)
class TlsRecord:
    """RFC 8446 5.1. Whatever is encrypted has the type of application data; what it is, its body hides."""

    type: int
    body: bytes


CHANGE_CIPHER_SPEC, ALERT, HANDSHAKE, ENCRYPTED = 20, 21, 22, 23
SERVER_HELLO: Final = b"\x02"
#: Level and description; encrypted also the true type, and the tag of the cipher.
ALERT_BYTES: Final = {ALERT: 2, ENCRYPTED: 2 + 1 + 16}
_RECORD_HEAD: Final = struct.Struct(">BHH")
_RECORD_VERSION: Final = 0x0303
_MAX_RECORD_BYTES: Final = (1 << 14) + 256


def tls_records(data: bytes) -> list[TlsRecord]:
    """Raises: ValueError when it is anything but a sequence of whole records."""
    records, offset = [], 0
    while offset < len(data):
        if len(data) - offset < _RECORD_HEAD.size:
            raise ValueError(f"no record: {data[offset:]!r}")
        kind, version, length = _RECORD_HEAD.unpack_from(data, offset)
        body = data[offset + _RECORD_HEAD.size :][:length]
        if (
            kind not in (CHANGE_CIPHER_SPEC, ALERT, HANDSHAKE, ENCRYPTED)
            or version != _RECORD_VERSION
            or not len(body) == length <= _MAX_RECORD_BYTES
        ):
            raise ValueError(f"no record: {data[offset:][:80]!r}")
        records.append(TlsRecord(kind, body))
        offset += _RECORD_HEAD.size + length
    return records


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


def lead(term: int) -> bytes:
    """As whoever leads an empty log: from its first entry on, and by a snapshot."""
    ends = {"commit_index": 1 << 40, "prevLogIdx": 1, "prevLogTerm": 0, "epoch": 1}
    return b"".join(
        frame(message | {"ct": term})
        for message in (
            {"type": "append_entries", "term": term, **ends, "entries": ((b"\x01", 2, term),)},
            {"type": "offer_snapshot", "term": term, "log_index": 1 << 40, "epoch": 1},
        )
    )


def ask(term: int) -> bytes:
    """What a server would answer."""
    return b"".join(
        frame(message | {"ct": term})
        for message in (
            {"type": "pre_vote", "term": term, "last_log_index": 1 << 40, "last_log_term": term, "round": 1},
            {"type": "confirm_leader", "round": 1, "term": term},
            {"type": "read_index", "request": 1},
            {"type": "pull_snapshot", "log_index": 1, "offset": 0},
            {"type": "pull_bulk", "log_index": 1, "after": 0},
            {"type": "who_is", "name": "node-1"},
        )
    )


def rpc_request(operation: str, arguments: list[Any]) -> bytes:
    body: bytes = msgpack.packb([5000, arguments])
    head = f"POST /rpc/{operation} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body
