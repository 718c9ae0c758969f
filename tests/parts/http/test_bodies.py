"""What bodies that are under way cost the node, and that nothing of them is left once they have ended."""

import asyncio
import gc
import weakref
from collections.abc import Iterator
from typing import Any, ClassVar

import pytest
from aiohttp.streams import StreamReader

from cluster.http import intake as intake_module
from cluster.http.body import MAX_BODY_BYTES
from cluster.http.errors import BodiesFull
from cluster.http.intake import FREE_BYTES, Intake
from tests.kit.fake_service import CSR
from tests.kit.wait import until
from tests.parts.http.conftest import Running, Start

SIGN = "/v1/connect/ca/sign"


class Buffer(bytearray):
    """One whose end can be noticed."""

    made: ClassVar[list["weakref.ref[Buffer]"]] = []

    def __init__(self) -> None:
        super().__init__()
        self.made.append(weakref.ref(self))


@pytest.fixture
def buffers(monkeypatch: pytest.MonkeyPatch) -> Iterator[list["weakref.ref[Buffer]"]]:
    """Of bodies that are read, while nothing is freed but by reference counting."""
    Buffer.made.clear()
    for module in ("cluster.http.body", "cluster.http.routes.snapshot"):
        monkeypatch.setattr(f"{module}.bytearray", Buffer, raising=False)
    gc.collect()
    gc.disable()
    yield Buffer.made
    gc.enable()


def head(target: str, length: int | None) -> bytes:
    framing = "Transfer-Encoding: chunked" if length is None else f"Content-Length: {length}"
    return f"PUT {target} HTTP/1.1\r\nHost: localhost\r\n{framing}\r\n\r\n".encode()


def streams() -> int:
    return sum(isinstance(each, StreamReader) for each in gc.get_objects())


def held_by(api: Running) -> Intake:
    return api.server._door.intake


async def assert_nothing_is_left(api: Running, made: list[Any]) -> None:
    await until(lambda: api.server.open_connections == 0)
    await until(lambda: all(each() is None for each in made))
    assert made
    assert held_by(api).held_bytes == 0
    assert held_by(api)._by_source == {}


@pytest.mark.parametrize("target", [SIGN, "/v1/snapshot"])
@pytest.mark.parametrize("is_reset", [True, False])
async def test_nothing_is_left_of_bodies_that_break_off(
    api: Running, buffers: list[Any], target: str, is_reset: bool
) -> None:
    count = 1 if target == "/v1/snapshot" else 5
    before = streams()
    writers = [(await api.connect())[1] for _ in range(count)]
    for writer in writers:
        writer.write(head(target, MAX_BODY_BYTES) + b"x" * 100_000)
    await until(lambda: len(buffers) == count)
    await until(lambda: target != SIGN or held_by(api).held_bytes > 4 * count * FREE_BYTES)
    for writer in writers:
        writer.transport.abort() if is_reset else writer.close()
    await assert_nothing_is_left(api, buffers)
    await until(lambda: streams() <= before)


@pytest.mark.parametrize("target", [SIGN, "/v1/snapshot"])
async def test_nothing_is_left_of_a_body_that_is_broken(api: Running, buffers: list[Any], target: str) -> None:
    _, writer = await api.connect()
    writer.write(head(target, None) + b"10000\r\n" + b"x" * (1 << 16))
    await until(lambda: len(buffers) == 1)
    writer.write(b"zz\r\n")
    await assert_nothing_is_left(api, buffers)


async def test_nothing_is_left_of_a_body_that_is_too_slow(
    api: Running, buffers: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cluster.http.body.BODY_SECONDS", 0.1)
    monkeypatch.setattr("cluster.http.body._DRAIN_SECONDS", 0.1)
    assert (await api.send(head(SIGN, MAX_BODY_BYTES) + b"x" * 100_000)).startswith(b"HTTP/1.1 408 ")
    await assert_nothing_is_left(api, buffers)


async def test_nothing_is_left_of_a_body_that_is_too_large(api: Running, buffers: list[Any]) -> None:
    chunk = b"10000\r\n" + b"x" * (1 << 16) + b"\r\n"
    reader, writer = await api.connect()
    writer.write(head(SIGN, None) + chunk * 9)
    assert (await reader.readuntil(b"\r\n")).startswith(b"HTTP/1.1 413 ")
    writer.close()
    await assert_nothing_is_left(api, buffers)


async def test_nothing_is_left_of_a_body_that_the_stop_cancels(start: Start, buffers: list[Any]) -> None:
    api: Running = await start(stop_seconds=0.1)
    _, writer = await api.connect()
    writer.write(head(SIGN, MAX_BODY_BYTES) + b"x" * 100_000)
    await until(lambda: held_by(api).held_bytes > 0)
    await api.server.stop()
    await assert_nothing_is_left(api, buffers)


# -- how much at a time


async def test_bodies_of_one_address_are_bounded_and_small_ones_are_read_all_the_same(
    api: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(intake_module, "MAX_HELD_PER_SOURCE", 1 << 20)
    held = [await api.connect() for _ in range(16)]
    for _, writer in held:
        writer.write(head(SIGN, MAX_BODY_BYTES) + b"x" * (MAX_BODY_BYTES - 100))

    async def refused(reader: asyncio.StreamReader) -> bytes:
        return (await reader.readuntil(b"\r\n\r\n")) + await reader.read(100)

    answers = [asyncio.create_task(refused(reader)) for reader, _ in held]
    await until(lambda: sum(each.done() for each in answers) >= 14)
    assert held_by(api).held_bytes <= 1 << 20
    for answer in answers:
        if answer.done():
            text = answer.result()
            assert text.startswith(b"HTTP/1.1 503 ")
            assert b"Retry-After: 1\r\n" in text
            assert b"Connection: close\r\n" in text
            assert b"too many request bodies are under way" in text
    assert (await api.put(SIGN, {"CSR": CSR, "Padding": "x" * (FREE_BYTES - 4000)})).status == 200
    for answer in answers:
        answer.cancel()
    for _, writer in held:
        writer.close()
    await until(lambda: held_by(api).held_bytes == 0)
    assert (await api.put(SIGN, {"CSR": CSR, "Padding": "x" * 400_000})).status == 200


async def test_what_is_announced_and_not_sent_takes_nothing(api: Running) -> None:
    for _ in range(50):
        _, writer = await api.connect()
        writer.write(head(SIGN, MAX_BODY_BYTES) + b"x")
    await until(lambda: api.server.open_connections == 50)
    assert (await api.put(SIGN, {"CSR": CSR, "Padding": "x" * 400_000})).status == 200
    assert held_by(api).held_bytes == 0


def test_one_source_has_its_share_and_all_together_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(intake_module, "MAX_HELD_BYTES", 400_000)
    monkeypatch.setattr(intake_module, "MAX_HELD_PER_SOURCE", 150_000)
    intake = Intake()
    bodies = {source: intake.begin(source) for source in "abc"}
    bodies["a"].grow(FREE_BYTES + 100_000)
    again = intake.begin("a")
    with pytest.raises(BodiesFull):
        again.grow(FREE_BYTES + 50_001)
    again.grow(FREE_BYTES + 50_000)
    bodies["b"].grow(FREE_BYTES + 150_000)
    bodies["b"].grow(FREE_BYTES)
    with pytest.raises(BodiesFull, match="at most 400000 bytes, 150000 of one address"):
        bodies["c"].grow(FREE_BYTES + 100_001)
    intake.begin("d").grow(FREE_BYTES)
    assert intake.held_bytes == 300_000
    for body in (*bodies.values(), again, again):
        body.end()
    assert (intake.held_bytes, intake._by_source) == (0, {})
