"""Reading the ledger without holding up the event loop: one thread, one connection."""

import asyncio
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from fsm.ledger import LedgerReader

T = TypeVar("T")


class LedgerReads:
    """Calls wait for each other; each sees what was applied when it began."""

    def __init__(self, path: str, flush: Callable[[], Awaitable[None]]) -> None:
        """`flush` has the writer commit what it holds back."""
        self._path = path
        self._flush = flush
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="ledger")
        self._reader: LedgerReader | None = None

    async def call(self, read: Callable[[LedgerReader], T]) -> T:
        await self._flush()
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._read, read)

    def _read(self, read: Callable[[LedgerReader], T]) -> T:
        if self._reader is None:
            self._reader = LedgerReader(self._path)
        return read(self._reader)

    def close(self) -> None:
        self._thread.submit(self._close)
        self._thread.shutdown(wait=True)

    def _close(self) -> None:
        if self._reader is not None:
            self._reader.close()
