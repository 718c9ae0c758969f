"""One change of the CA at a time. Whoever wants one queues, in order of arrival."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Final

from cluster.api.access import Judge
from cluster.base.errors import ChangeUnderWay

#: How long an operator's change waits for its turn. Most others are done in much less, key generation is what takes
#: long; and who asked must be answered while it listens.
_PATIENCE_SECONDS: Final = 5.0
#: The same of a write that changes the configuration or the root: it may stand behind whole rotations.
_WRITER_SECONDS: Final = 10.0
#: Operators' changes that wait. More of them would not get their turn in time anyway.
_MAX_WAITING: Final = 64
#: In the log, who has a change done that nobody has asked for.
LEADER: Final = "leader"
BUSY: Final = "the CA is being changed already ({}): try again later"


class Changes:
    """`turn` is one change. Writers of the configuration stand in a queue of their own as well, in which the first may
    wait for the end of a rotation: that takes turns itself, and others than writers have nothing to wait for.
    """

    def __init__(self) -> None:
        self._turn = asyncio.Lock()  # fair: whoever came first is first
        self._writers = asyncio.Lock()
        self._waiting = 0
        self._name = ""

    @staticmethod
    def deadline() -> float:
        """When a write that arrives now must have had its turn, by the loop's clock."""
        return asyncio.get_running_loop().time() + _WRITER_SECONDS

    @contextlib.asynccontextmanager
    async def turn(
        self, name: str, *, is_duty: bool, until: float | None = None, judge: Judge | None = None
    ) -> AsyncIterator[str]:
        """Yields who has it done, for the log. `name`: Consul's name for the CA's state during this turn, e.g.
        RECONFIGURING. A duty waits for as long as it takes, an operator's change until its deadline; and the operator,
        whom `judge` knows, may have lost the right to it meanwhile.

        Raises: ChangeUnderWay (definitely not done); PermissionDenied.
        """
        if is_duty:
            await self._turn.acquire()
        else:
            patience = asyncio.get_running_loop().time() + _PATIENCE_SECONDS
            await self._wait_for(self._turn, patience if until is None else until)
        try:
            by = LEADER if judge is None else judge().by
            self._name = name
            yield by
        finally:
            self._turn.release()

    @contextlib.asynccontextmanager
    async def writing(self, until: float) -> AsyncIterator[None]:
        """The first of the writers of the configuration, who may take turns now. Raises: ChangeUnderWay."""
        await self._wait_for(self._writers, until)
        try:
            yield
        finally:
            self._writers.release()

    async def _wait_for(self, lock: asyncio.Lock, until: float) -> None:
        if self._waiting >= _MAX_WAITING:
            raise ChangeUnderWay(BUSY.format(f"{self._waiting} other changes wait for their turn"))
        self._waiting += 1
        try:
            async with asyncio.timeout_at(until):
                await lock.acquire()
        except TimeoutError:
            raise ChangeUnderWay(BUSY.format(self._name)) from None
        finally:
            self._waiting -= 1
