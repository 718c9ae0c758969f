"""What operators do to the CA, from any node."""

import asyncio
import secrets
from collections.abc import Awaitable, Callable
from typing import Final

from msgspec import structs

from cluster.api.access import Caller
from cluster.api.ca import ConfigUpdate, RotateRequest, RotationPlan, Steering, Uptake
from cluster.api.reads import ReadLevel
from cluster.base.errors import ChangeUnderWay, LostRace
from cluster.node.json_text import json_text
from cluster.node.reads import NodeReads
from cluster.rpc.forward import Forwarder
from cluster.rpc.messages import (
    CONFIGURE,
    DISTRUST_ROOT,
    PLAN_ROTATION,
    ROTATE,
    ROTATION_UPTAKE,
    STEER_ROTATION,
    ConfigureRequest,
    DistrustRequest,
    Nothing,
    PlanRequest,
    RotationRequest,
    SteerRequest,
)

_REQUEST_ID_BYTES: Final = 16
#: For how long a write that was overtaken on its way to the leader is made anew.
_PATIENCE_SECONDS: Final = 10.0


class NodeCA:
    """Implements `cluster.api.ca.CA`."""

    def __init__(self, reads: NodeReads, forwarder: Forwarder) -> None:
        self._reads = reads
        self._forwarder = forwarder

    async def configure(self, caller: Caller, update: ConfigUpdate) -> None:
        await _in_turn(lambda: self._configure(caller, update))
        await self._reads.catch_up()

    async def _configure(self, caller: Caller, update: ConfigUpdate) -> None:
        state = (await self._reads.read(ReadLevel.LINEARIZABLE)).state
        request = ConfigureRequest(
            provider=update.provider,
            config=json_text("Config", update.config),
            state=None if update.state is None else dict(update.state),
            force_without_cross_signing=update.force_without_cross_signing,
            modify_index=update.modify_index,
            is_staged=update.is_staged,
            wait_seconds=update.wait_seconds,
            request_id=secrets.token_bytes(_REQUEST_ID_BYTES),
            ca_index=state.ca_index,
            is_repeat=False,
        )
        again = structs.replace(request, is_repeat=True)
        await self._forwarder.call(CONFIGURE, request, again, caller=caller)

    async def plan_rotation(self, caller: Caller, request: RotateRequest) -> RotationPlan:
        wanted = PlanRequest.of(request)
        return (await self._forwarder.call(PLAN_ROTATION, wanted, caller=caller)).value()

    async def rotate(self, caller: Caller, request: RotateRequest) -> None:
        await _in_turn(lambda: self._rotate(caller, request))
        await self._reads.catch_up()

    async def _rotate(self, caller: Caller, request: RotateRequest) -> None:
        state = (await self._reads.read(ReadLevel.LINEARIZABLE)).state
        wanted = RotationRequest(
            key_type=request.key_type,
            key_bits=request.key_bits,
            is_forced=request.is_forced,
            is_staged=request.is_staged,
            wait_seconds=request.wait_seconds,
            request_id=secrets.token_bytes(_REQUEST_ID_BYTES),
            ca_index=state.ca_index,
            is_repeat=False,
        )
        again = structs.replace(wanted, is_repeat=True)
        await self._forwarder.call(ROTATE, wanted, again, caller=caller)

    async def steer_rotation(self, caller: Caller, steering: Steering) -> None:
        await self._forwarder.call(STEER_ROTATION, SteerRequest(steering), caller=caller)
        await self._reads.catch_up()

    async def rotation_uptake(self, caller: Caller) -> Uptake | None:
        return (await self._forwarder.call(ROTATION_UPTAKE, Nothing(), caller=caller)).value()

    async def distrust_root(self, caller: Caller, root_id: str) -> None:
        await self._forwarder.call(DISTRUST_ROOT, DistrustRequest(root_id), caller=caller)
        await self._reads.catch_up()


async def _in_turn(write: Callable[[], Awaitable[None]]) -> None:
    """A write that another one overtook between here and the leader has had no effect: it looks again, and goes to the
    end of the leader's queue. Raises: as the write; ChangeUnderWay where others are faster all the time.
    """
    clock = asyncio.get_running_loop().time
    until = clock() + _PATIENCE_SECONDS
    while True:
        try:
            return await write()
        except LostRace as error:
            if clock() >= until:
                raise ChangeUnderWay(f"{error}: others write to the CA all the time, try again later") from error
