"""Consul's Go client works against every node. The tests themselves are in Go, in goclient/."""

import asyncio
import os
import shutil
import signal
from contextlib import suppress
from pathlib import Path

import pytest

from tests.kit.real_cluster import LocalCluster

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(shutil.which("go") is None, reason="the go command is not installed"),
]

_MODULE = Path(__file__).with_name("goclient")
#: The first run downloads and compiles.
_BUILD_SECONDS = 180.0
_RUN_SECONDS = 90.0


async def test_go_client_on_every_node(tmp_path: Path, cluster: LocalCluster) -> None:
    code, output = await _go(_BUILD_SECONDS, "mod", "download")
    if code != 0:
        pytest.skip(f"the Go modules cannot be had here: {output.strip():.300}")
    program = str(tmp_path / "client.test")
    code, output = await _go(_BUILD_SECONDS, "test", "-c", "-o", program)
    assert code == 0, output
    nodes = ",".join(node.local.http for node in cluster.nodes)
    code, output = await _run(_RUN_SECONDS, program, "-test.v", "-test.timeout=60s", QUORUMCA_NODES=nodes)
    print(output)
    assert code == 0, output
    # What was skipped has shown nothing.
    assert "--- SKIP" not in output
    assert output.count("--- PASS: TestBlockingQueriesWakeOnEveryNode") == 1


async def _go(seconds: float, *arguments: str) -> tuple[int, str]:
    return await _run(seconds, "go", *arguments)


async def _run(seconds: float, *command: str, **environment: str) -> tuple[int, str]:
    """The exit code and all output; whatever it started ends with it."""
    process = await asyncio.create_subprocess_exec(
        *command,
        cwd=_MODULE,
        env={**os.environ, **environment},
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        start_new_session=True,
    )
    try:
        async with asyncio.timeout(seconds):
            output, _ = await process.communicate()
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    assert process.returncode is not None
    return process.returncode, output.decode(errors="replace")
