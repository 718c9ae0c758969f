"""Accepting connections, on the event loop of a node and on that of the tests."""

import asyncio
import gc
import socket
import ssl
from collections.abc import Callable
from pathlib import Path

import pytest
import uvloop

from cluster.base.listener import Accepting, listen
from cluster.base.seats import Caps, Seat, Seats
from tests.kit.ports import free_ports
from tests.kit.rpc_nodes import node_tls
from tests.kit.seats import turned_away
from tests.kit.wait import until

Loop = Callable[[], asyncio.AbstractEventLoop]

LOOPS = pytest.mark.parametrize("loop", [asyncio.new_event_loop, uvloop.new_event_loop])


class Kept(asyncio.Protocol):
    """A connection that does nothing."""

    def __init__(self, seat: Seat) -> None:
        self._seat = seat

    def connection_lost(self, _error: Exception | None) -> None:
        self._seat.leave()


def connected(port: int) -> socket.socket:
    sock = socket.create_connection(("127.0.0.1", port), timeout=10.0)
    sock.setblocking(False)
    return sock


def is_open(sock: socket.socket) -> bool:
    try:
        return bool(sock.recv(100))
    except BlockingIOError:
        return True
    except OSError:
        return False


class KeptPlain(Kept):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._seat.end = transport.abort  # type: ignore[attr-defined]  # both loops' transports have it


@LOOPS
@pytest.mark.parametrize("is_tls", [False, True])
def test_what_gives_way_is_closed_at_once_however_far_it_has_come(
    tls_directory: Path, loop: Loop, is_tls: bool
) -> None:
    tls = node_tls(tls_directory, "a").server_context if is_tls else None
    protocol = Kept if is_tls else KeptPlain

    async def run() -> None:
        port = free_ports(1)[0]
        seats = Seats(Caps(3, 3), turned_away())
        listener = await listen(f"127.0.0.1:{port}", Accepting(protocol, seats, tls, handshake_seconds=60.0))
        # Not while the loop turns: they come all at once.
        socks = [connected(port) for _ in range(40)]
        try:
            await until(lambda: [is_open(sock) for sock in socks] == 37 * [False] + 3 * [True], "37 are closed", 10.0)
            assert seats.taken == 3
        finally:
            for sock in socks:
                sock.close()
            listener.close()

    gc.disable()  # nodes collect cycles rarely, and must not rely on it
    try:
        with asyncio.Runner(loop_factory=loop) as runner:
            runner.run(run())
    finally:
        gc.enable()


@LOOPS
def test_a_handshake_that_gives_way_before_it_has_begun_does_not_begin(tls_directory: Path, loop: Loop) -> None:
    async def run() -> None:
        port = free_ports(1)[0]
        seats = Seats(Caps(3, 3), turned_away())

        def made(seat: Seat) -> asyncio.Protocol:
            asyncio.get_running_loop().call_soon(seat.end)
            return Kept(seat)

        tls = node_tls(tls_directory, "a").server_context
        listener = await listen(f"127.0.0.1:{port}", Accepting(made, seats, tls, handshake_seconds=60.0))
        with connected(port) as sock:
            await until(lambda: not is_open(sock), "it is closed", 10.0)
            await until(lambda: seats.taken == 0)
        listener.close()

    with asyncio.Runner(loop_factory=loop) as runner:
        runner.run(run())


async def _read_to_the_end(port: int, client: ssl.SSLContext) -> None:
    """Raises: ssl.SSLError, ConnectionError, as TLS 1.3 tells of a refusal after the client's handshake."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=client)
    try:
        assert await reader.read() == b""
        raise ConnectionError
    finally:
        writer.close()


@LOOPS
def test_a_certificate_that_is_refused_leaves_its_place(tls_directory: Path, loop: Loop) -> None:
    async def run() -> None:
        port = free_ports(1)[0]
        seats = Seats(Caps(3, 3), turned_away())
        context = node_tls(tls_directory, "a").server_context
        listener = await listen(f"127.0.0.1:{port}", Accepting(Kept, seats, context, handshake_seconds=60.0))
        client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        client.check_hostname, client.verify_mode = False, ssl.CERT_NONE
        for _ in range(10):
            with pytest.raises((ssl.SSLError, ConnectionError)):
                await _read_to_the_end(port, client)
        await until(lambda: seats.taken == 0)
        listener.close()

    with asyncio.Runner(loop_factory=loop) as runner:
        runner.run(run())


async def test_a_process_without_descriptors_waits_a_moment_and_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    port = free_ports(1)[0]
    seats = Seats(Caps(8, 8), turned_away())
    listener = await listen(f"127.0.0.1:{port}", Accepting(Kept, seats))
    accept, failures = socket.socket.accept, [OSError(24, "Too many open files"), OSError(23, "Too many open files")]
    asked = 0

    def failing(self: socket.socket) -> tuple[socket.socket, object]:
        nonlocal asked
        asked += 1
        if failures:
            raise failures.pop()
        return accept(self)

    monkeypatch.setattr(socket.socket, "accept", failing)
    with connected(port) as sock:
        await until(lambda: seats.taken == 1)
        assert asked <= 5
        assert is_open(sock)
    listener.close()
    await until(lambda: seats.taken == 0)


async def test_an_address_that_is_taken_is_named() -> None:
    port = free_ports(1)[0]
    seats = Seats(Caps(8, 8), turned_away())
    listener = await listen(f"127.0.0.1:{port}", Accepting(Kept, seats))
    with pytest.raises(OSError, match=f"127.0.0.1:{port} cannot be listened on: Address already in use"):
        await listen(f"127.0.0.1:{port}", Accepting(Kept, seats))
    listener.close()
