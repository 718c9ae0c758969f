"""Who a token belongs to, on any node: implements `cluster.api.access.Access`."""

from cluster.access.agent_tokens import AgentTokens
from cluster.access.directory import Directory
from cluster.api.access import Caller
from cluster.api.reads import ReadLevel
from cluster.base.errors import TokenUnknown
from cluster.node.reads import NodeReads


class NodeAccess:
    def __init__(self, directory: Directory, tokens: AgentTokens, reads: NodeReads) -> None:
        self._directory = directory
        self._tokens = tokens
        self._reads = reads

    def put_agent_token(self, kind: str, secret_id: str) -> None:
        self._tokens.put(kind, secret_id)

    @property
    def allows_by_default(self) -> bool:
        return self._directory.allows_by_default

    def caller_here(self, secret_id: str) -> Caller:
        if (found := self._tokens.recovery_caller(secret_id)) is not None:
            return found
        return self._directory.caller(secret_id)

    async def caller(self, secret_id: str) -> Caller:
        try:
            return self.caller_here(secret_id)
        except TokenUnknown:
            # This node may lag, and whoever has made the token have been told that it is there.
            await self._reads.read(ReadLevel.LINEARIZABLE)
            return self._directory.caller(secret_id)

    def judged_again(self, caller: Caller) -> Caller:
        if (found := self._tokens.recovery_caller(caller.secret_id)) is not None:
            return found
        return self._directory.judged(caller.secret_id, caller)
