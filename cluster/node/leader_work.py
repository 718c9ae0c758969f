"""What only the leader can do, as operations for every node of the cluster."""

import json
from typing import Any, Final

from cluster.api.ca import ConfigUpdate, RotateRequest, Steering
from cluster.backup.restore import SnapshotWork
from cluster.base.errors import NotLeader, NotReady
from cluster.ca.attempts import Attempt
from cluster.ca.operators import OperatorRotation
from cluster.ca.parts import Parts
from cluster.ca.reconfigure import Reconfigurer
from cluster.ca.uptake import Watchers
from cluster.node.servers import Membership
from cluster.rpc.forward import Operations
from cluster.rpc.messages import pack_cert, pack_cluster, pack_plan, pack_uptake
from providers.errors import NotInitialized

#: A leader that was elected a moment ago takes its provider into use first.
_SETTLE_SECONDS: Final = 5.0


class LeaderWork:
    """What only the leader can do, as operations that take and give msgpack values."""

    def __init__(
        self,
        parts: Parts,
        reconfigurer: Reconfigurer,
        rotation: OperatorRotation,
        watchers: Watchers,
        snapshots: SnapshotWork,
        membership: Membership,
    ) -> None:
        self._replica = parts.replica
        self._authority = parts.authority
        self._snapshots = snapshots
        self._reconfigurer = reconfigurer
        self._rotation = rotation
        self._watchers = watchers
        self._membership = membership

    def operations(self) -> Operations:
        return Operations(
            {
                "sign": self._sign,
                "configure": self._configure,
                "plan_rotation": self._plan_rotation,
                "rotate": self._rotate,
                "steer_rotation": self._steer_rotation,
                "rotation_uptake": self._rotation_uptake,
                "distrust_root": self._distrust_root,
                "restore_rows": self._snapshots.rows,
                "restore_ca": self._snapshots.ca,
                "cluster": self._cluster,
                "transfer": self._transfer,
                "add_peer": self._add_peer,
                "remove_peer": self._remove_peer,
            },
            anywhere={"watchers": self._count_watchers},
        )

    async def _sign(self, argument: Any) -> Any:
        csr_pem, serial, requested_by = argument
        if not self._replica.leadership.is_ready:
            raise NotLeader("this node does not lead")
        if not self._authority.is_ready and self._replica.state.active_root is not None:
            await self._authority.settled(_SETTLE_SECONDS)
        try:
            if self._authority.is_behind(state := self._replica.state) and state.active_root is not None:
                # The CA has changed a moment ago: whoever has seen that must not get a leaf of before.
                await self._authority.adopt(state)
            return pack_cert(await self._authority.sign(csr_pem, serial, requested_by))
        except (NotReady, NotInitialized):
            if self._replica.leadership.is_ready:
                raise
            # Leadership has ended, and with it what was signed with: the next leader has it.
            raise NotLeader("this node does not lead") from None

    async def _configure(self, argument: Any) -> None:
        provider, config, state, force, modify_index, staged, wait, request_id, ca_index, is_repeat = argument
        rotation_id = await self._reconfigurer.apply(
            ConfigUpdate(provider, json.loads(config), state, force, modify_index, staged, wait),
            Attempt(request_id, ca_index, is_repeat),
        )
        if rotation_id:
            await self._reconfigurer.wait_for_rotation(rotation_id)
        if self._replica.state.active_root is None:
            await self._reconfigurer.wait_for_root()

    async def _plan_rotation(self, argument: Any) -> Any:
        return pack_plan(await self._rotation.plan(RotateRequest(*argument)))

    async def _rotate(self, argument: Any) -> None:
        *wanted, request_id, ca_index, is_repeat = argument
        rotation_id = await self._rotation.rotate(RotateRequest(*wanted), Attempt(request_id, ca_index, is_repeat))
        if rotation_id:
            await self._reconfigurer.wait_for_rotation(rotation_id)

    async def _steer_rotation(self, argument: Any) -> None:
        await self._rotation.steer(Steering(argument))

    async def _rotation_uptake(self, _argument: Any) -> Any:
        uptake = await self._rotation.uptake()
        return None if uptake is None else pack_uptake(uptake)

    async def _distrust_root(self, argument: Any) -> None:
        await self._rotation.distrust(argument)

    async def _count_watchers(self, argument: Any) -> Any:
        """On any node, not only the leader: what it sees of its own clients."""
        return list(self._watchers.count(argument))

    async def _cluster(self, _argument: Any) -> Any:
        return pack_cluster(await self._membership.info())

    async def _transfer(self, name: Any) -> None:
        await self._membership.transfer(name)

    async def _add_peer(self, argument: Any) -> None:
        await self._membership.add(*argument)

    async def _remove_peer(self, argument: Any) -> None:
        await self._membership.remove(*argument)
