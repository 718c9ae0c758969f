"""The Raft cluster, from any node."""

from cluster.api.access import Caller
from cluster.api.reads import ReadLevel
from cluster.api.servers import ClusterInfo
from cluster.node.membership import Membership
from cluster.raft.replica import Replica
from cluster.rpc.forward import Forwarder
from cluster.rpc.messages import (
    ADD_PEER,
    CLUSTER,
    REMOVE_PEER,
    TRANSFER,
    AddPeerRequest,
    Nothing,
    RemovePeerRequest,
    TransferRequest,
)


class NodeServers:
    """Implements `cluster.api.servers.Servers`."""

    def __init__(self, replica: Replica, forwarder: Forwarder, membership: Membership) -> None:
        self._replica = replica
        self._forwarder = forwarder
        self._membership = membership

    def leader_address(self) -> str:
        leader = self._replica.members.get(self._replica.leadership.leader_id or "")
        return leader.raft_address if leader else ""

    def peer_addresses(self) -> list[str]:
        return [member.raft_address for _, member in sorted(self._replica.members.items())]

    async def cluster(self, level: ReadLevel) -> ClusterInfo:
        if level is ReadLevel.STALE:
            return await self._membership.info()
        return (await self._forwarder.call(CLUSTER, Nothing())).value()

    async def transfer_leader(self, caller: Caller, name: str | None) -> None:
        await self._forwarder.call(TRANSFER, TransferRequest(name), caller=caller)

    async def add_peer(self, caller: Caller, name: str, raft_address: str, rpc_address: str) -> None:
        request = AddPeerRequest(name, raft_address, rpc_address)
        await self._forwarder.call(ADD_PEER, request, caller=caller)

    async def remove_peer(self, caller: Caller, name: str | None, raft_address: str | None) -> None:
        request = RemovePeerRequest(name, raft_address)
        await self._forwarder.call(REMOVE_PEER, request, caller=caller)
