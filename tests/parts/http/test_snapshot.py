"""Snapshots over HTTP: streamed, bounded in number, size and time, and nothing left on the disk."""

import asyncio
import shutil
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from cluster.api.reads import ReadLevel
from cluster.base.errors import CommitUnknown, InternalError, Refused
from cluster.http import body, transfers
from cluster.http.routes import snapshot
from cluster.http.transfers import remove_leftovers
from tests.kit.wait import until
from tests.parts.http.conftest import Running, Start, read_to_end

SNAPSHOT = "/v1/snapshot"
#: More than all buffers on the way hold.
LARGE = 16 << 20


@pytest.fixture
async def node(start: Start, tmp_path: Path) -> Running:
    started: Running = await start(data_dir=tmp_path, answer_seconds=0.2)
    started.service.snapshot = bytes(range(256)) * 8192
    return started


def left_over(node: Running) -> list[Path]:
    return list(node.service.config.data_dir.iterdir())


def calls(node: Running, name: str) -> list[Any]:
    return [args for called, args in node.service.calls if called == name]


async def hold(node: Running, requests: Callable[[], Awaitable[Any]], count: int, name: str) -> "list[Any]":
    """So many requests that wait inside the node."""
    node.service.gate = asyncio.Event()
    tasks = [asyncio.ensure_future(requests()) for _ in range(count)]
    await until(lambda: len(calls(node, name)) == count)
    return tasks


# -- save


async def test_saved_snapshot_comes_whole_with_query_headers(node: Running) -> None:
    async with node.client.get(f"http://127.0.0.1:{node.port}{SNAPSHOT}") as response:
        assert (response.status, await response.read()) == (200, node.service.snapshot)
    assert response.headers["Content-Type"] == "application/x-gzip"
    assert response.headers["Content-Length"] == str(len(node.service.snapshot))
    assert (response.headers["X-Consul-Index"], response.headers["X-Consul-KnownLeader"]) == ("7", "true")
    assert response.headers["X-Consul-Effective-Consistency"] == "leader"
    assert "X-Quorumca-Warning" not in response.headers
    assert calls(node, "save_snapshot") == [(ReadLevel.LINEARIZABLE,)]
    await until(lambda: not left_over(node))


async def test_snapshot_that_no_restore_takes_is_sent_with_the_reason(node: Running) -> None:
    node.service.not_restorable = "certificate 6: record.not_before is -1"
    async with node.client.get(f"http://127.0.0.1:{node.port}{SNAPSHOT}") as response:
        assert (response.status, await response.read()) == (200, node.service.snapshot)
    assert response.headers["X-Quorumca-Warning"] == (
        "a restore will refuse this snapshot: certificate 6: record.not_before is -1"
    )


async def test_without_a_leader_only_stale_saves(node: Running) -> None:
    node.service.has_leader = False
    assert (await node.get(SNAPSHOT)).status == 500
    async with node.client.get(f"http://127.0.0.1:{node.port}{SNAPSHOT}?stale") as response:
        assert (response.status, await response.read()) == (200, node.service.snapshot)
    assert response.headers["X-Consul-KnownLeader"] == "false"
    assert calls(node, "save_snapshot") == [(ReadLevel.STALE,)]
    await until(lambda: not left_over(node))


@pytest.mark.parametrize(("error", "status"), [(Refused("there is no CA to save yet"), 422), (OSError("disk"), 500)])
async def test_save_that_fails_leaves_nothing(node: Running, error: Exception, status: int) -> None:
    node.service.fail_with["save_snapshot"] = error
    assert (await node.get(SNAPSHOT)).status == status
    assert left_over(node) == []


async def test_client_that_leaves_leaves_nothing_behind(node: Running) -> None:
    node.service.snapshot = bytes(LARGE)
    reader, writer = await node.connect()
    writer.write(f"GET {SNAPSHOT} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
    assert await reader.read(1000)
    writer.transport.abort()
    await until(lambda: not left_over(node))
    assert not [event for event in node.log.events if "failed" in str(event)]


async def test_client_that_does_not_read_is_given_up(node: Running) -> None:
    node.service.snapshot = bytes(LARGE)
    _, writer = await node.connect()
    writer.write(f"GET {SNAPSHOT} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
    await until(lambda: calls(node, "save_snapshot"))
    await until(lambda: not left_over(node))


async def test_file_that_cannot_be_read_on_ends_the_connection_early(
    node: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The promised length never comes, so no client takes a part for the whole."""
    node.service.snapshot = bytes(LARGE)
    monkeypatch.setattr(snapshot, "_TRANSFER_SECONDS", 0.05)
    reader, writer = await node.connect()
    writer.write(f"GET {SNAPSHOT} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
    await until(lambda: calls(node, "save_snapshot"))
    await until(lambda: not left_over(node))
    received = await read_to_end(reader)
    assert f"Content-Length: {LARGE}".encode() in received
    assert len(received) < LARGE


async def test_saves_at_a_time_are_bounded(node: Running) -> None:
    waiting = await hold(node, lambda: node.client.get(f"http://127.0.0.1:{node.port}{SNAPSHOT}"), 2, "save_snapshot")
    refused = await node.get(SNAPSHOT)
    assert (refused.status, refused.headers["Retry-After"]) == (503, "1")
    assert "2 snapshots are being saved" in refused.text
    assert node.service.gate is not None
    node.service.gate.set()
    for response in await asyncio.gather(*waiting):
        assert (response.status, await response.read()) == (200, node.service.snapshot)
    assert calls(node, "save_snapshot") == [(ReadLevel.LINEARIZABLE,)] * 2


# -- restore


async def put(node: Running, body: Any, **options: Any) -> Any:
    return await node.ask("PUT", SNAPSHOT, data=body, **options)


async def test_restored_is_empty_200_and_nothing_is_left(node: Running) -> None:
    """Far larger than what any other endpoint takes."""
    reply = await put(node, node.service.snapshot)
    assert (reply.status, reply.text) == (200, "")
    assert len(calls(node, "restore_snapshot")) == 1
    assert left_over(node) == []


@pytest.mark.parametrize(
    ("query", "is_forced"), [("", False), ("?force", True), ("?force=true", True), ("?force=0", False)]
)
async def test_restore_is_forced_only_when_that_is_said(node: Running, query: str, is_forced: bool) -> None:
    reply = await node.ask("PUT", SNAPSHOT + query, data=node.service.snapshot)
    assert (reply.status, reply.text) == (200, "")
    [(_, was_forced)] = calls(node, "restore_snapshot")
    assert was_forced is is_forced


@pytest.mark.parametrize("query", ["force=yes", "forced", "Force=true"])
async def test_force_that_is_misspelt_is_refused_before_anything_is_read(node: Running, query: str) -> None:
    reply = await node.ask("PUT", f"{SNAPSHOT}?{query}", data=node.service.snapshot)
    assert reply.status == 400
    assert "force" in reply.text.lower()
    assert calls(node, "restore_snapshot") == left_over(node) == []


async def test_answer_names_trust_that_is_added(node: Running) -> None:
    node.service.restore_notes = ("Root aa:bb (Old) is trusted again", "Root cc:dd (New) is trusted again")
    reply = await put(node, node.service.snapshot)
    assert (reply.status, reply.headers["Content-Type"]) == (200, "text/plain; charset=utf-8")
    assert reply.text == "Root aa:bb (Old) is trusted again\nRoot cc:dd (New) is trusted again\n"


async def test_body_without_a_length_is_taken_too(node: Running) -> None:
    async def parts() -> Any:
        for start in range(0, len(node.service.snapshot), 100_000):
            yield node.service.snapshot[start : start + 100_000]

    assert (await put(node, parts())).status == 200


async def test_body_is_asked_for_when_the_client_waits_to_be(node: Running) -> None:
    assert (await put(node, node.service.snapshot, expect100=True)).status == 200


@pytest.mark.parametrize(
    ("error", "status"),
    [(None, 422), (InternalError("no"), 500), (CommitUnknown("look"), 504), (Refused("another seal key"), 422)],
)
async def test_restore_that_fails_says_why_and_leaves_nothing(
    node: Running, error: Exception | None, status: int
) -> None:
    if error is not None:
        node.service.fail_with["restore_snapshot"] = error
    reply = await put(node, b"damaged")
    assert reply.status == status
    assert (str(error) if error else "the snapshot is damaged") in reply.text
    assert left_over(node) == []


@pytest.mark.parametrize("with_length", [True, False])
async def test_too_large_is_refused(node: Running, monkeypatch: pytest.MonkeyPatch, with_length: bool) -> None:
    monkeypatch.setattr(snapshot, "MAX_FILE_BYTES", 1000)

    async def parts() -> Any:
        yield bytes(1001)

    reply = await put(node, bytes(1001) if with_length else parts())
    assert (reply.status, reply.text) == (413, "Request body is too large: at most 1000 bytes are allowed")
    assert calls(node, "restore_snapshot") == left_over(node) == []


@pytest.mark.parametrize("setting", ["_SILENCE_SECONDS", "_TRANSFER_SECONDS"])
async def test_body_that_does_not_come_is_not_waited_for(
    node: Running, monkeypatch: pytest.MonkeyPatch, setting: str
) -> None:
    monkeypatch.setattr(snapshot, setting, 0.05)
    monkeypatch.setattr(body, "_DRAIN_SECONDS", 0.05)
    head = f"PUT {SNAPSHOT} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\nhalf"
    received = await node.send(head.encode())
    assert received.startswith(b"HTTP/1.1 408")
    assert calls(node, "restore_snapshot") == left_over(node) == []


async def test_body_that_breaks_off_restores_nothing(node: Running) -> None:
    _, writer = await node.connect()
    writer.write(f"PUT {SNAPSHOT} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\nhalf".encode())
    await until(lambda: left_over(node))
    writer.transport.abort()
    await until(lambda: not left_over(node))
    assert calls(node, "restore_snapshot") == []


async def test_one_restore_at_a_time(node: Running) -> None:
    waiting = await hold(node, lambda: put(node, node.service.snapshot), 1, "restore_snapshot")
    refused = await put(node, node.service.snapshot)
    assert (refused.status, refused.text) == (503, "a snapshot is being restored on this node already")
    assert node.service.gate is not None
    node.service.gate.set()
    assert [reply.status for reply in await asyncio.gather(*waiting)] == [200]
    assert (await put(node, node.service.snapshot)).status == 200


@pytest.mark.parametrize("method", ["GET", "PUT"])
async def test_disk_is_never_filled(node: Running, monkeypatch: pytest.MonkeyPatch, method: str) -> None:
    monkeypatch.setattr(transfers, "_RESERVED_BYTES", 1 << 62)
    reply = await node.ask(method, SNAPSHOT, data=b"x")
    assert reply.status == 503
    assert "the node's disk has" in reply.text
    assert calls(node, "restore_snapshot") == calls(node, "save_snapshot") == left_over(node) == []


async def test_body_that_has_no_room_is_refused_before_it_is_sent(
    node: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    free = shutil.disk_usage(node.service.config.data_dir).free
    monkeypatch.setattr(transfers, "_RESERVED_BYTES", free - (400 << 20))
    monkeypatch.setattr(body, "_DRAIN_SECONDS", 0.05)
    received = await node.send(
        f"PUT {SNAPSHOT} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {800 << 20}\r\n\r\n".encode()
    )
    assert received.startswith(b"HTTP/1.1 503")
    assert f"too few for the snapshot's {800 << 20}".encode() in received


def test_what_a_killed_node_left_is_removed(tmp_path: Path) -> None:
    (tmp_path / "transfer-abc").mkdir()
    (tmp_path / "transfer-abc" / "saved.tgz").write_bytes(b"x")
    (tmp_path / "wal").mkdir()
    remove_leftovers(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["wal"]
