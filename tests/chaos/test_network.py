"""The simulated network does what the faults rely on."""

import asyncio
import random
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from tests.chaos.network import Network


@asynccontextmanager
async def echo_behind_relay() -> AsyncIterator[tuple[Network, asyncio.StreamReader, asyncio.StreamWriter]]:
    """A connection from a to b, which sends back what it gets."""

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(1 << 16):
            writer.write(data)
        writer.close()

    server = await asyncio.start_server(echo, "127.0.0.1", 0)
    address = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    async with Network({"a": [], "b": [address]}, random.Random(1)) as network:
        host, _, port = network.book("a")[address].rpartition(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        yield network, reader, writer
        writer.close()
    server.close()


async def arrives(reader: asyncio.StreamReader, count: int, seconds: float = 5.0) -> bytes:
    async with asyncio.timeout(seconds):
        return await reader.readexactly(count)


@pytest.mark.parametrize(("source", "target"), [("a", "b"), ("b", "a")])
async def test_blocked_direction_holds_bytes_until_it_is_healed(source: str, target: str) -> None:
    async with echo_behind_relay() as (network, reader, writer):
        writer.write(b"one")
        assert await arrives(reader, 3) == b"one"
        network.block(source, target)
        writer.write(b"two")
        with pytest.raises(TimeoutError):
            await arrives(reader, 3, 0.2)
        network.heal()
        assert await arrives(reader, 3) == b"two"


async def test_connection_is_not_made_through_a_partition() -> None:
    async with echo_behind_relay() as (network, reader, writer):
        network.partition(["a"], ["b"])
        writer.write(b"one")
        with pytest.raises(TimeoutError):
            await arrives(reader, 3, 0.2)
        network.heal()
        assert await arrives(reader, 3) == b"one"


async def test_delay_holds_for_both_directions_and_keeps_the_order() -> None:
    async with echo_behind_relay() as (network, reader, writer):
        network.spoil(delay=(0.1, 0.15))
        started = time.monotonic()
        for k in range(10):
            writer.write(bytes([k]))
            await asyncio.sleep(0.01)
        assert await arrives(reader, 10) == bytes(range(10))
        assert 0.2 <= time.monotonic() - started < 1.0


async def test_reset_ends_the_connection() -> None:
    async with echo_behind_relay() as (network, reader, writer):
        network.spoil(reset=1.0)
        writer.write(b"one")
        with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
            await arrives(reader, 3)
