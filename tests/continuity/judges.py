"""Verifiers beside Python's `ssl`: the `openssl` command, `cryptography`, and Go."""

import asyncio
import itertools
import json
import os
import shutil
import signal
import time
from collections import Counter
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.x509.verification import PolicyBuilder, Store, VerificationError

from tests.continuity.listing import Root
from tests.kit import pki

OPENSSL, CRYPTOGRAPHY, GO = "openssl verify -x509_strict", "cryptography", "go"
_MODULE: Final = Path(__file__).with_name("goverify")
_BUILD_SECONDS: Final = 240.0
_ANSWER_SECONDS: Final = 60.0
#: Chains of a dozen certificates and three keys, as JSON.
_LINE_BYTES: Final = 1 << 20


class ChainJudges:
    """`openssl` and `cryptography`, each with one root alone as trust, strictly and as they are set by default."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._numbers = itertools.count()
        self.verified: Counter[str] = Counter()
        self.longest_path = 0  # certificates, from leaf to root

    async def judge(self, chain_pem: str, root: Root, offset: int = 0) -> list[str]:
        """What is wrong with the chain now, by a clock that is so many seconds ahead."""
        return await asyncio.to_thread(self._judge, chain_pem, root, int(time.time()) + offset)

    def _judge(self, chain_pem: str, root: Root, now: int) -> list[str]:
        troubles = []
        directory = self._directory / str(next(self._numbers))
        directory.mkdir()
        try:
            pki.openssl_verify(directory, chain_pem, [root.pem], now=now)
        except AssertionError as error:
            troubles.append(f"{OPENSSL}: {error}")
        shutil.rmtree(directory)
        leaf, *others = x509.load_pem_x509_certificates(chain_pem.encode())
        builder = PolicyBuilder().store(Store([pki.load(root.pem)])).time(datetime.fromtimestamp(now, UTC))
        try:
            path = builder.build_client_verifier().verify(leaf, others).chain
            self.longest_path = max(self.longest_path, len(path))
        except VerificationError as error:
            troubles.append(f"{CRYPTOGRAPHY}: {error}")
        self.verified.update((OPENSSL, CRYPTOGRAPHY))
        return troubles


class GoEnd:
    """A program in Go that shakes hands with itself, by both ends' chains, keys and roots."""

    def __init__(self, process: asyncio.subprocess.Process, version: str) -> None:
        self._process = process
        self.version = version

    async def shake_hands(self, server: dict[str, object], client: dict[str, object]) -> str:
        """What was wrong, or ""."""
        writer, reader = self._process.stdin, self._process.stdout
        assert writer is not None
        assert reader is not None
        async with asyncio.timeout(_ANSWER_SECONDS):
            writer.write(json.dumps({"server": server, "client": client}).encode() + b"\n")
            await writer.drain()
            line = await reader.readline()
        assert line, "the Go program has ended"
        return str(json.loads(line)["error"])

    async def close(self) -> None:
        with suppress(ProcessLookupError):
            self._process.kill()
        await self._process.wait()


async def start_go(directory: Path) -> GoEnd | str:
    """Builds and starts it; where that is not possible, the reason."""
    if shutil.which("go") is None:
        return "the go command is not installed"
    program = directory / "goverify"
    code, output = await _run("go", "build", "-o", str(program), ".")
    if code != 0:
        return f"the Go program cannot be built here: {output.strip():.300}"
    _, version = await _run("go", "version")
    process = await asyncio.create_subprocess_exec(
        str(program), stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, limit=_LINE_BYTES
    )
    return GoEnd(process, version.strip())


async def _run(*command: str) -> tuple[int, str]:
    process = await asyncio.create_subprocess_exec(
        *command,
        cwd=_MODULE,
        # Nothing but the standard library is used: nothing may be downloaded.
        env={**os.environ, "GOPROXY": "off", "GOFLAGS": "-mod=mod", "GOTOOLCHAIN": "local"},
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        start_new_session=True,
    )
    try:
        async with asyncio.timeout(_BUILD_SECONDS):
            output, _ = await process.communicate()
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    assert process.returncode is not None
    return process.returncode, output.decode(errors="replace")
