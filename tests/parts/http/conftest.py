"""One running API over a fake node, and two ways to talk to it: a client, and raw bytes."""

import asyncio
import random
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import pytest

from cluster.base.seats import Caps
from cluster.http.app import HttpServer, create_app, start_http
from tests.kit.clock import FakeClock
from tests.kit.fake_service import FakeService, node_config
from tests.kit.log import EventLog
from tests.kit.ports import free_ports

DEADLINE_SECONDS = 10.0


def free_port() -> int:
    """None of those that the system gives to outgoing connections, which could take it a moment later."""
    return free_ports(1)[0]


@dataclass
class Reply:
    """A whole answer, its body as text."""

    status: int
    headers: Any
    text: str

    def json(self) -> Any:
        import json

        return json.loads(self.text)


@dataclass
class Running:
    service: FakeService
    server: HttpServer
    log: EventLog
    client: aiohttp.ClientSession
    port: int
    raw_writers: list[asyncio.StreamWriter] = field(default_factory=list)

    async def ask(self, method: str, path: str, **options: Any) -> Reply:
        from yarl import URL

        url = URL(f"http://127.0.0.1:{self.port}{path}", encoded=True)
        async with asyncio.timeout(DEADLINE_SECONDS), self.client.request(method, url, **options) as response:
            return Reply(response.status, response.headers, (await response.read()).decode())

    async def get(self, path: str, **options: Any) -> Reply:
        return await self.ask("GET", path, **options)

    async def put(self, path: str, body: object = None, **options: Any) -> Reply:
        return await self.ask("PUT", path, json=body, **options)

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        self.raw_writers.append(writer)
        return reader, writer

    async def send(self, data: bytes) -> bytes:
        """Everything that comes back until the server closes."""
        reader, writer = await self.connect()
        writer.write(data)
        async with asyncio.timeout(DEADLINE_SECONDS):
            return await read_to_end(reader)


async def read_to_end(reader: asyncio.StreamReader) -> bytes:
    """What arrived until the connection ended, also if it ended with a reset."""
    received = b""
    try:
        while chunk := await reader.read(65536):
            received += chunk
    except ConnectionError:
        pass
    return received


Start = Callable[..., Any]


@pytest.fixture
async def start(tmp_path: Path) -> AsyncIterator[Start]:
    """Starts an API; whatever was started is stopped, also when the test fails."""
    running: list[Running] = []

    async def start_one(
        *,
        max_waiting: int | None = None,
        stop_seconds: float = 2.0,
        head_seconds: float = 5.0,
        answer_seconds: float = 5.0,
        port: int | None = None,
        **config: Any,
    ) -> Running:
        port = port or free_port()
        service = FakeService(node_config(port, **{"data_dir": tmp_path, **config}))
        section = service.config.http
        if not section.address.endswith(f":{port}"):
            section = msgspec.structs.replace(section, address=f"127.0.0.1:{port}")
        log = EventLog()
        app = create_app(service.service, log, clock=FakeClock(), rng=random.Random(1))
        server = await start_http(
            app, section, stop_seconds=stop_seconds, head_seconds=head_seconds, answer_seconds=answer_seconds
        )
        if max_waiting is not None:
            server._door.seats.waiting_caps = Caps(max_waiting, max_waiting)
        one = Running(service, server, log, aiohttp.ClientSession(auto_decompress=False), port)
        running.append(one)
        return one

    yield start_one
    for one in running:
        await one.client.close()
        for writer in one.raw_writers:
            writer.close()
        await one.server.stop()


@pytest.fixture
async def api(start: Start) -> Running:
    started: Running = await start()
    return started
