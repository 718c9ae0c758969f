"""Go programs of the tests: built where Go is present, and run so that nothing of them is left."""

import asyncio
import os
import shutil
import signal
from contextlib import suppress
from pathlib import Path
from typing import Final

import pytest

#: Pins Consul's client and everything else; see its go.sum.
MODULE: Final = Path(__file__).with_name("goclient")
needs_go: Final = pytest.mark.skipif(shutil.which("go") is None, reason="the go command is not installed")
#: The first run downloads and compiles.
_BUILD_SECONDS: Final = 240.0


async def download() -> None:
    """Everything that go.sum names. Skips the test where that cannot be had."""
    code, output = await run(_BUILD_SECONDS, "go", "mod", "download")
    if code != 0:
        pytest.skip(f"the Go modules cannot be had here: {output.strip():.300}")


async def build_tests(program: Path, package: str, *flags: str) -> None:
    code, output = await run(_BUILD_SECONDS, "go", "test", "-c", *flags, "-o", str(program), package)
    assert code == 0, output


async def go(*arguments: str) -> str:
    code, output = await run(_BUILD_SECONDS, "go", *arguments)
    assert code == 0, output
    return output.strip()


async def run(seconds: float, *command: str, directory: Path = MODULE, **environment: str) -> tuple[int, str]:
    """The exit code and all output; whatever it started ends with it."""
    process = await asyncio.create_subprocess_exec(
        *command,
        cwd=directory,
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
