"""What a kind of harm works with."""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

from tests.chaos.stage import Stage
from tests.chaos.workload import Workload
from tests.kit.real_cluster import Node

#: Longer than an election takes, in which nobody may be elected, or somebody must be.
HOLD_SECONDS: Final = 2.5
#: A request that was under way when a majority was lost is answered within this time.
_SETTLE_SECONDS: Final = 0.3


@dataclass(frozen=True, slots=True)
class Scene:
    """What a fault works with. `notes` go into the report of the round."""

    stage: Stage
    workload: Workload
    rng: random.Random
    notes: dict[str, object]

    async def nobody_signs(self) -> None:
        """Without a majority nothing may be acknowledged, however long it lasts."""
        await asyncio.sleep(_SETTLE_SECONDS)
        since = time.monotonic()
        await asyncio.sleep(HOLD_SECONDS)
        count = self.workload.signed_since(since)
        assert count == 0, f"{count} certificates were acknowledged without a majority"

    async def follower(self) -> Node:
        return self.rng.choice(self.stage.others(await self.stage.leader()))


Fault = Callable[[Scene], Awaitable[None]]
