"""How servers come to their certificates, from any node: implements `cluster.api.joining.Joining`."""

from pathlib import Path
from typing import Final

from cluster.api.access import Caller
from cluster.api.joining import AgentCAInfo, Founder, JoinAsk, Joined, JoinTokenWanted, NewJoinToken
from cluster.api.reads import ReadLevel
from cluster.base.config import NodeConfig
from cluster.base.errors import InternalError
from cluster.base.words import plain
from cluster.node.node_certs import shown
from cluster.node.reads import NodeReads
from cluster.raft.replica import Replica
from cluster.rpc.forward import Forwarder
from cluster.rpc.messages import (
    JOIN,
    JOIN_TOKEN,
    SET_AGENT_CA,
    AgentCARequest,
    JoinRequest,
    JoinTokenRequest,
)

_MAX_CA_BYTES: Final = 256 << 10


class NodeJoining:
    def __init__(self, config: NodeConfig, replica: Replica, reads: NodeReads, forwarder: Forwarder) -> None:
        self._config = config
        self._replica = replica
        self._reads = reads
        self._forwarder = forwarder

    async def agent_ca(self) -> AgentCAInfo | None:
        agent_ca = (await self._reads.read(ReadLevel.LINEARIZABLE)).state.nodes.agent_ca
        return None if agent_ca is None else shown(agent_ca)

    async def set_agent_ca(self, caller: Caller, cert_pem: str, key_pem: str, cert_ttl_seconds: int) -> None:
        request = AgentCARequest(cert_pem, key_pem, cert_ttl_seconds)
        await self._forwarder.call(SET_AGENT_CA, request, caller=caller)
        await self._reads.catch_up()

    async def new_join_token(self, caller: Caller, wanted: JoinTokenWanted) -> NewJoinToken:
        request = JoinTokenRequest(
            wanted.name,
            wanted.raft_address,
            wanted.rpc_address,
            wanted.ttl_seconds,
            wanted.is_rejoin,
            wanted.is_forced,
        )
        answer = await self._forwarder.call(JOIN_TOKEN, request, caller=caller)
        return NewJoinToken(answer.secret, answer.expires_at, answer.fingerprint)

    def ca_pem(self) -> str:
        path = Path(self._config.tls.ca_file)
        try:
            with path.open("rb") as file:
                return file.read(_MAX_CA_BYTES).decode("ascii", "replace")
        except OSError as error:
            raise InternalError(f"tls.ca_file of this node cannot be read: {plain(error)}") from error

    async def join(self, ask: JoinAsk) -> Joined:
        ca_pem = self.ca_pem()  # before the token is used up
        request = JoinRequest(
            ask.name,
            ask.raft_address,
            ask.rpc_address,
            ask.csr_pem,
            ask.server_key,
            ask.proof,
            self._config.node_name,
        )
        answer = await self._forwarder.call(JOIN, request)
        founders = [Founder(server.name, server.raft, server.rpc) for server in self._config.servers]
        members = [
            Founder(name, member.raft_address, member.rpc_address)
            for name, member in sorted(self._replica.members.items())
        ]
        default_policy = "allow" if self._config.allows_by_default else "deny"
        return Joined(answer.cert_pem, ca_pem, founders, members, default_policy)
