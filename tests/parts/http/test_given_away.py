"""Connections whose place is taken away at any moment of their making: nothing goes on, on either event loop."""

import asyncio
import gc
import random
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import uvloop

from cluster.base.seats import Caps
from cluster.http.app import create_app, start_http
from cluster.http.connection import Connection
from tests.kit.clock import FakeClock
from tests.kit.fake_service import FakeService, node_config
from tests.kit.log import EventLog
from tests.kit.ports import free_ports
from tests.kit.wait import until

Loop = Callable[[], asyncio.AbstractEventLoop]

HEAD_SECONDS = 0.3


@pytest.mark.parametrize("loop", [asyncio.new_event_loop, uvloop.new_event_loop])
def test_nothing_goes_on_for_a_connection_that_lost_its_place_while_it_was_made(tmp_path: Path, loop: Loop) -> None:
    async def run() -> None:
        failed: list[dict[str, Any]] = []
        asyncio.get_running_loop().set_exception_handler(lambda _loop, context: failed.append(context))
        port = free_ports(1)[0]
        service = FakeService(node_config(port, data_dir=tmp_path))
        log = EventLog()
        app = create_app(service.service, log, clock=FakeClock(), rng=random.Random(1))
        server = await start_http(app, service.config.http, Caps(3, 3), head_seconds=HEAD_SECONDS)
        try:
            # Not while the loop turns: they come all at once, and each batch takes the places of the one before.
            for _ in range(30):
                socks = [socket.create_connection(("127.0.0.1", port), timeout=10.0) for _ in range(40)]
                for number, sock in enumerate(socks):
                    if number % 2:
                        sock.close()
                    await asyncio.sleep(0)
                for sock in socks:
                    sock.close()
            await until(lambda: server.open_connections == 0)
            await asyncio.sleep(2 * HEAD_SECONDS)
            assert failed == []
            assert 408 not in [fields["status"] for name, fields in log.events if name == "http.request"]
            runner_server = server._runner.server
            assert runner_server is not None
            await until(lambda: not runner_server.connections)
        finally:
            await server.stop()

    with asyncio.Runner(loop_factory=loop) as runner:
        runner.run(run())
    gc.collect()
    assert [each for each in gc.get_objects() if isinstance(each, Connection)] == []
