"""The seal on every node: opened as soon as there is one, and nothing left on the disk that needs another key."""

import asyncio
import contextlib
from collections.abc import Sequence
from typing import Final

from cluster.api.access import Caller
from cluster.api.seals import NodeSeal
from cluster.base.config import NodeConfig
from cluster.base.errors import ClusterError
from cluster.base.log import Log
from cluster.base.signals import wait_any
from cluster.ca.uptake import Peers
from cluster.node.reseal import seal_id
from cluster.raft.membership import Member
from cluster.raft.replica import Replica
from cluster.rpc.forward import Forwarder
from cluster.rpc.messages import ROTATE_SEAL, SEAL_STATUS, Nothing, RotateSealRequest
from cluster.seal.keeper import KeeperCalls
from cluster.seal.node_file import NodeFile
from cluster.seal.node_sealer import NodeSealer
from cluster.seal.sources import KeyAt, SealError, move_next_key
from fsm.ca import SealKey
from fsm.state import Area

#: A node that has just begun may see a seal of before a change, and the change a moment later.
_CATCH_UP_SECONDS: Final = 5.0
_PURGE_AGAIN_SECONDS: Final = 0.5
_ASK_SECONDS: Final = 2.0


class SealWatch:
    """`run` for as long as the node lives."""

    def __init__(
        self,
        replica: Replica,
        sealer: NodeSealer,
        node_file: NodeFile,
        keeper: KeeperCalls,
        config: NodeConfig,
        log: Log,
    ) -> None:
        self._replica = replica
        self._sealer = sealer
        self._node_file = node_file
        self._keeper = keeper
        self._config = config
        self._log = log
        self._settled: SealKey | None = None
        self._to_do = ""

    def status(self) -> NodeSeal:
        facts = self._sealer.node_facts() or {}
        state = self._replica.state
        return NodeSeal(
            node=self._config.node_name,
            source=facts.get("source", ""),
            key_id=facts.get("kek_id", ""),
            seal_id=seal_id(state.seal),
            is_settled=state.seal is not None and state.seal == self._settled,
            to_do=self._to_do,
        )

    async def run(self) -> None:
        """Open the cluster's seal as soon as there is one, and another one after `seal rotate` or a restore.

        Raises: SealError, for which the node must stop.
        """
        known: SealKey | None = None
        while True:
            seal = await self._other_than(known)
            try:
                await asyncio.to_thread(self._sealer.unlock, seal)
            except SealError:
                if not await self._is_followed(seal):
                    raise
                continue
            await self._settle(seal, is_changed=known is not None)
            known = seal

    async def _other_than(self, known: SealKey | None) -> SealKey:
        """The cluster's, once there is one other than this."""
        while (seal := self._replica.state.seal) is None or seal == known:
            await wait_any((self._replica.changed[Area.CA],), lambda: self._replica.state.seal == known)
        return seal

    async def _is_followed(self, seal: SealKey) -> bool:
        """Whether another seal comes at once, because the node is catching up with a change of key."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_CATCH_UP_SECONDS):
                await self._other_than(seal)
                return True
        return False

    async def _settle(self, seal: SealKey, *, is_changed: bool) -> None:
        """Each step may be the last before a crash: the next start finds what is left to do.

        The log of before is gone before `node.json` names the new key, and that is written before the old key goes, as
        is the key of this node's MACs, wrapped anew.
        """
        before = self._node_file.read()
        facts = self._sealer.node_facts()
        was = (before or {}).get("seal")
        if is_changed or (was is not None and was != facts):
            await self._drop_history()
            self._log("seal.history_dropped", key_id=seal.kek_id)
        await asyncio.to_thread(self._keeper.follow_disk_key)
        after = {"node_name": self._config.node_name, "datacenter": self._config.datacenter, "seal": facts}
        if before != after:
            await asyncio.to_thread(self._node_file.write, after)
        self._to_do = await self._move_key(seal)
        self._settled = seal

    async def _drop_history(self) -> None:
        """Log and snapshot of before, which the key of before would open."""
        while True:
            if await self._replica.purge():
                return
            await asyncio.sleep(_PURGE_AGAIN_SECONDS)  # another compaction is under way, or the disk is full

    async def _move_key(self, seal: SealKey) -> str:
        """What is left to an operator."""
        place = await asyncio.to_thread(self._sealer.key_at)
        if place is KeyAt.FIRST:
            return ""
        to_do = ""
        if place is KeyAt.NEXT:
            try:
                to_do = await asyncio.to_thread(move_next_key, self._config, seal.source)
            except OSError as error:
                to_do = f"the next key cannot be put in the place of the one before: {error}"
            if not to_do:  # somebody may have put another file there since it was looked at
                place = await asyncio.to_thread(self._sealer.key_at)
        if not to_do and place is not KeyAt.FIRST:
            problem = await asyncio.to_thread(self._sealer.lacks, seal.source, seal.kek_id, seal.salt)
            to_do = (
                "this node would not start again, because the key in force is not on its disk any more, or cannot be"
                f" read: {problem or seal.kek_id}. Put it back; if there is no copy of it left, change to another key"
                " while the nodes run"
            )
        self._log("seal.key_moved" if not to_do else "seal.key_waits", reason=to_do)
        return to_do


class NodeSeals:
    """Implements `cluster.api.seals.Seals`."""

    def __init__(self, replica: Replica, forwarder: Forwarder, peers: Peers, watch: SealWatch, node_name: str) -> None:
        self._replica = replica
        self._forwarder = forwarder
        self._peers = peers
        self._watch = watch
        self._node_name = node_name

    async def seal_status(self) -> Sequence[NodeSeal]:
        async def of(member: Member) -> NodeSeal:
            if member.id == self._node_name:
                return self._watch.status()
            try:
                return (await self._peers.ask(member, SEAL_STATUS, Nothing(), _ASK_SECONDS)).value()
            except ClusterError as error:
                return NodeSeal(member.id, "", "", "", is_settled=False, to_do=f"not known: {error}")

        return await asyncio.gather(*(of(member) for _, member in sorted(self._replica.members.items())))

    async def rotate_seal(self, caller: Caller, *, keeps_key: bool) -> None:
        await self._replica.read_barrier(timeout=_CATCH_UP_SECONDS)
        base = seal_id(self._replica.state.seal)
        request = RotateSealRequest(base.encode(), keeps_key)
        await self._forwarder.call(ROTATE_SEAL, request, caller=caller)
        await self._replica.read_barrier(timeout=_CATCH_UP_SECONDS)
