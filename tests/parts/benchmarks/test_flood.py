"""What the flood of a bench is made of, and what is made of what it finds."""

import asyncio
from dataclasses import replace

import pytest

from benchmarks.flood import STRANGER, Crowd, Outcome
from benchmarks.load import LoadResult
from tests.kit.wait import until

ALONE = LoadResult(1000, 1000, 1.0, 1000.0, 1, 2, 3, 4, {}, 10)


async def test_crowd_says_nothing_or_little_and_comes_back_when_it_is_sent_away(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("benchmarks.flood._PAUSE_SECONDS", 0.01)
    heard: dict[tuple[str, int], bytes] = {}
    writers: list[asyncio.StreamWriter] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)
        name = writer.get_extra_info("peername")
        heard[name] = b""
        while data := await reader.read(1000):
            heard[name] += data

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    crowd = Crowd([f"127.0.0.1:{server.sockets[0].getsockname()[1]}"], 6)
    await until(lambda: sorted(map(len, heard.values()))[-4:-2] >= [5, 5])
    assert {host for host, _ in heard} == {STRANGER}
    assert len(heard) == 6
    said = sorted(heard.values(), key=len)
    assert said[:2] == [b""] * 2
    assert all(not text.endswith(b"\r\n\r\n") and text.startswith(b"GET ") for text in said[2:4])
    assert all(text.endswith(b"\r\n\r\n") for text in said[4:])
    for writer in writers:
        writer.close()
    await until(lambda: len(heard) >= 12)
    assert await asyncio.to_thread(crowd.close) == 6
    server.close()


def test_outcome_says_what_does_not_hold() -> None:
    good = Outcome(ALONE, replace(ALONE, rate=500.0), 2000, 9, 20.0)
    assert (good.kept, good.failures()) == (0.5, [])
    bad = Outcome(ALONE, replace(ALONE, rate=490.0, failures={"503": 1}), 2000, 9, 300.0)
    assert bad.failures() == [
        "honest clients kept 49% of their rate",
        "requests of honest clients failed: {'503': 1}",
        "a node has grown by 300 MB",
    ]
