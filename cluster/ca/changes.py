"""One change of the CA at a time."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Final

from cluster.base.errors import ChangeUnderWay

#: Most duties are done in much less; key generation is what takes long.
_DUTY_SECONDS: Final = 5.0


class Changes:
    """A duty waits for its turn; an operator's change waits for a duty, but for no other operator."""

    def __init__(self) -> None:
        self._turn = asyncio.Lock()
        self._name = ""
        self._is_duty = False

    @contextlib.asynccontextmanager
    async def turn(self, name: str, *, is_duty: bool) -> AsyncIterator[None]:
        """`name`: Consul's name for the CA's state during this turn, e.g. RECONFIGURING.

        Raises: ChangeUnderWay, in Consul's words, when another operator's change is under way, or a duty takes long.
        """
        try:
            async with asyncio.timeout(None if is_duty else self._patience_seconds):
                await self._turn.acquire()
        except TimeoutError:
            raise ChangeUnderWay(f'CA is already in state "{self._name}"') from None
        self._name, self._is_duty = name, is_duty
        try:
            yield
        finally:
            self._turn.release()

    @property
    def _patience_seconds(self) -> float:
        return _DUTY_SECONDS if self._is_duty or not self._turn.locked() else 0.0
