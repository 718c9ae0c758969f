"""One worker process, as its parent sees it: started, asked over one socket, and ended together with what it knows."""

import asyncio
import contextlib
import socket
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any, Final

import msgpack

from cluster.base.errors import NotLeader
from cluster.base.wire import unpack_error
from cluster.signing.worker import FRAME_HEADER, HELLO
from providers.errors import ProviderUnavailable

_STOP_SECONDS: Final = 2.0
#: Leaf signing is milliseconds; a provider's backend may be slow, and has time-outs of its own below this.
_CALL_SECONDS: Final = 60.0
#: For calls that are under way when the process is to end: most take milliseconds.
_LAST_CALLS_SECONDS: Final = 1.0
ENDED: Final = "the signing process ended"
NOT_LEADING: Final = "this node does not lead any more"

Notes = Callable[[Sequence[str]], None]
#: What a worker reads the key of the cover from (cluster/seal/cover.py); nobody reads it here.
Grant = Callable[[], socket.socket]


class Worker:
    """One process and the connection to it. Made by `start`."""

    def __init__(
        self,
        process: asyncio.subprocess.Process,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        refused: Notes,
    ) -> None:
        self.process = process
        self._reader = reader
        self._writer = writer
        self._refused = refused
        self._started_at = time.monotonic()
        self.lacking: set[str] = set()  # what should be configured in it and is not
        self.awaited: set[str] = set()  # what it is being given
        self.without: set[str] = set()  # what it does not have and shall not be given
        self.is_retired = False
        self._pending: dict[int, asyncio.Future[Any]] = {}
        self._last_id = HELLO
        self.reading = asyncio.get_running_loop().create_task(self._read())
        self._ending: asyncio.Task[None] | None = None

    @classmethod
    async def start(cls, refused: Notes, grant: Grant, credentials_dir: str = "") -> "Worker":
        """`refused` is told of protections that the system refused to it. Raises: OSError; what `grant` raises.

        `credentials_dir`: see `ProviderSettings`.
        """
        ours, theirs = socket.socketpair()
        try:
            with theirs, grant() as cover_key:
                # -P: nothing is imported from the directory the node happens to be started in.
                process = await asyncio.create_subprocess_exec(
                    sys.executable,
                    "-P",
                    "-m",
                    "cluster.signing.worker",
                    str(cover_key.fileno()),
                    credentials_dir,
                    pass_fds=(cover_key.fileno(),),
                    stdin=theirs.fileno(),
                    stdout=asyncio.subprocess.DEVNULL,
                )
        except BaseException:
            ours.close()
            raise
        reader, writer = await asyncio.open_connection(sock=ours, limit=1 << 24)
        return cls(process, reader, writer, refused)

    @property
    def load(self) -> int:
        return len(self._pending)

    @property
    def is_gone(self) -> bool:
        """Whether it is no use to ask."""
        return self.is_retired or self.reading.done()

    @property
    def age_seconds(self) -> float:
        return time.monotonic() - self._started_at

    async def call(self, operation: str, *arguments: Any, is_vital: bool = True) -> Any:
        """One that is vital and hangs ends the process, for another may do better; else what others do in it goes on.

        Raises: ProviderError as the operation did; ProviderUnavailable when the process is gone or hangs; NotLeader
        when it ends, or has ended, with the leadership.
        """
        if self.is_gone:
            raise self._gone()
        self._last_id += 1
        identifier = self._last_id
        body = msgpack.packb([identifier, operation, arguments])
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._pending[identifier] = future
        self._writer.write(FRAME_HEADER.pack(len(body)) + body)
        try:
            async with asyncio.timeout(_CALL_SECONDS):
                return await future
        except TimeoutError:
            if is_vital:
                self._kill()
            raise ProviderUnavailable("the signing process does not answer") from None
        finally:
            self._pending.pop(identifier, None)

    def retire(self) -> None:
        """Take no more calls, and end: what is under way has a moment. Nothing that was in it is in memory after."""
        if not self.is_retired:
            self.is_retired = True
            self._ending = asyncio.get_running_loop().create_task(self._end())

    async def stop(self) -> None:
        self._writer.close()
        try:
            async with asyncio.timeout(_STOP_SECONDS):
                await self.process.wait()
        except TimeoutError:
            self._kill()
            await self.process.wait()
        await self.reading
        if self._ending is not None:
            await self._ending

    async def _end(self) -> None:
        if self._pending:
            await asyncio.wait(list(self._pending.values()), timeout=_LAST_CALLS_SECONDS)
        self._kill()
        await self.process.wait()
        self._writer.close()

    def _kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            self.process.kill()

    async def _read(self) -> None:
        try:
            while True:
                (length,) = FRAME_HEADER.unpack(await self._reader.readexactly(FRAME_HEADER.size))
                identifier, error, result = msgpack.unpackb(await self._reader.readexactly(length))
                if identifier == HELLO:
                    self._refused(result)
                    continue
                future = self._pending.get(identifier)
                if future is None or future.done():
                    continue
                if error is None:
                    future.set_result(result)
                else:
                    future.set_exception(unpack_error(error))
        except (asyncio.IncompleteReadError, ConnectionError):
            pass  # it has ended
        except Exception:
            # It writes what no worker does: nothing of it can be believed any more.
            self._kill()
        finally:
            for future in self._pending.values():
                if not future.done():
                    future.set_exception(self._gone())

    def _gone(self) -> Exception:
        return NotLeader(NOT_LEADING) if self.is_retired else ProviderUnavailable(ENDED)
