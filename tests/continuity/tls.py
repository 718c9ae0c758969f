"""Two ends of TLS 1.3, each of which verifies the other strictly: in memory, or over a socket of the loopback."""

import contextlib
import socket
import ssl
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

_TURNS: Final = 20
_SECONDS: Final = 20.0
_HELLO: Final = b"hello"


class HandshakeError(Exception):
    """One side refused the other."""


def context(chain_file: Path, root_pems: Sequence[str], *, is_server: bool) -> ssl.SSLContext:
    """`chain_file`: key and chain, leaf first."""
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER if is_server else ssl.PROTOCOL_TLS_CLIENT)
    made.minimum_version = ssl.TLSVersion.TLSv1_3
    made.check_hostname = False  # SPIFFE: the URI counts, not the host name
    made.verify_mode = ssl.CERT_REQUIRED
    made.verify_flags |= ssl.VerifyFlags.VERIFY_X509_STRICT
    made.load_verify_locations(cadata="".join(root_pems))
    made.load_cert_chain(chain_file)
    return made


def shake_hands_in_memory(server: ssl.SSLContext, client: ssl.SSLContext) -> tuple[str, str]:
    """The SPIFFE IDs that server and client have seen. Raises: HandshakeError."""
    to_client, to_server = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = {
        "the server": server.wrap_bio(to_server, to_client, server_side=True),
        "the client": client.wrap_bio(to_client, to_server),
    }
    pending = dict(ends)
    for _ in range(_TURNS):
        for name, end in [*pending.items()]:
            try:
                end.do_handshake()
                del pending[name]
            except ssl.SSLWantReadError:
                continue
            except ssl.SSLError as error:
                raise HandshakeError(f"{name} refused: {error}") from error
    if pending:
        raise HandshakeError("the handshake did not end")
    # In TLS 1.3 the client is done before the server has judged its certificate: data shows that both are content.
    ends["the client"].write(_HELLO)
    if ends["the server"].read() != _HELLO:
        raise HandshakeError("the server did not get what the client sent")
    return peer_uri(ends["the server"]), peer_uri(ends["the client"])


def shake_hands_by_socket(port: int, client: ssl.SSLContext) -> str:
    """The SPIFFE ID that the client has seen; the server has accepted the client's. Raises: HandshakeError."""
    try:
        with (
            socket.create_connection(("127.0.0.1", port), _SECONDS) as plain,
            client.wrap_socket(plain, server_hostname=None) as end,
        ):
            end.sendall(_HELLO)
            if end.recv(len(_HELLO)) != _HELLO:
                raise HandshakeError("the server closed the connection")
            return peer_uri(end)
    except OSError as error:  # ssl.SSLError is one
        raise HandshakeError(f"the client saw: {error}") from error


def peer_uri(end: ssl.SSLObject | ssl.SSLSocket) -> str:
    peer = end.getpeercert()
    assert peer is not None
    return next(str(entry[1]) for entry in peer["subjectAltName"] if entry[0] == "URI")


class Listener:
    """Serves one connection after the other with the context of that moment, until it is closed."""

    def __init__(self, current: Callable[[], ssl.SSLContext]) -> None:
        self._current = current
        self._socket = socket.create_server(("127.0.0.1", 0))
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    @property
    def port(self) -> int:
        return int(self._socket.getsockname()[1])

    def close(self) -> None:
        # Closing alone does not wake a thread that accepts.
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        self._thread.join(_SECONDS)

    def _serve(self) -> None:
        while True:
            try:
                plain, _ = self._socket.accept()
            except OSError:
                return
            # What goes wrong here goes wrong at the client, too, and is counted there.
            with contextlib.suppress(OSError), plain:
                plain.settimeout(_SECONDS)
                with self._current().wrap_socket(plain, server_side=True) as end:
                    end.sendall(end.recv(len(_HELLO)))
