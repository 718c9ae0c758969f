"""What an operator should do something about although the CA works: from the provider, into the log and the metrics.

On the leader. Each text is logged when it comes and when it goes, not each time it is looked at.
"""

import asyncio
from typing import Final

from cluster.base.errors import ClusterError
from cluster.base.log import SAME, Reports
from cluster.ca.parts import Parts
from fsm.state import State
from providers.errors import ProviderError
from providers.texts import one_line

_LOOK_SECONDS: Final = 10.0
#: A worker that signs answers when it is done with that: then at the next look.
_ANSWER_SECONDS: Final = 2.0
_MAX_WARNING: Final = 600
_MAX_WARNINGS: Final = 16


class ProviderWatch:
    """`look` as often as one likes."""

    def __init__(self, parts: Parts) -> None:
        self._authority = parts.authority
        self._pool = parts.pool
        self._clock = parts.clock
        self._log = parts.log
        self._metrics = parts.metrics
        self._looked_at: float | None = None
        self._said: tuple[str, ...] = ()
        self._from_provider: tuple[str, ...] = ()
        self._reports = Reports()

    async def look(self, state: State, more: tuple[str, ...]) -> tuple[str, ...]:
        """All that there is to warn of. `more` is what others have found."""
        now = self._clock.monotonic()
        if state.config is not None and self._authority.is_ready:
            if self._looked_at is None or now >= self._looked_at + _LOOK_SECONDS:
                self._looked_at = now
                await self._ask(state.config.provider_id)
            self._say((*more, *self._from_provider))
        return self._said

    async def _ask(self, key: str) -> None:
        """What was said before stands until there is an answer. Why there is none is said once."""
        try:
            async with asyncio.timeout(_ANSWER_SECONDS):
                found = await self._pool.warnings(key)
        except TimeoutError:
            pass
        except (ProviderError, ClusterError) as error:
            if (reason := self._reports.reason("warnings", error)) != SAME:
                self._log("ca.warnings_unknown", reason=reason)
        else:
            self._reports.forget("warnings")
            self._from_provider = tuple(one_line(text, _MAX_WARNING) for text in found[:_MAX_WARNINGS])

    def forget(self) -> None:
        """At the end of leadership: the next leader says it again."""
        self._looked_at, self._said, self._from_provider = None, (), ()
        self._reports = Reports()
        self._metrics.ca_warnings.set(0)

    def _say(self, texts: tuple[str, ...]) -> None:
        for text in texts:
            if text not in self._said:
                self._log("ca.warning", reason=text)
        for text in self._said:
            if text not in texts:
                self._log("ca.warning_over", reason=text)
        self._said = texts
        self._metrics.ca_warnings.set(len(texts))
