"""Who a token belongs to, on any node: implements `cluster.api.access.Access`."""

from collections.abc import Callable

from cluster.access.agent_tokens import AgentTokens
from cluster.access.directory import Directory
from cluster.api.access import Caller
from cluster.api.reads import ReadLevel
from cluster.base.errors import Outdated, TokenUnknown
from cluster.base.log import Log
from cluster.node.reads import NodeReads


class NodeAccess:
    def __init__(
        self,
        directory: Directory,
        tokens: AgentTokens,
        reads: NodeReads,
        outdated_seconds: Callable[[], float],
        stale_seconds: float,
        log: Log,
    ) -> None:
        """`outdated_seconds`: for how long this node may know nothing of what the others have committed; after
        `stale_seconds` of that it says of nobody any more what they may do.
        """
        self._directory = directory
        self._tokens = tokens
        self._reads = reads
        self._outdated_seconds = outdated_seconds
        self._stale_seconds = stale_seconds
        self._log = log

    def put_agent_token(self, kind: str, secret_id: str, caller: Caller) -> None:
        found = self._tokens.put(kind, secret_id, caller.accessor_on_record)
        self._log("agent.token_set", kind=str(found), accessor=caller.accessor_on_record, is_set=bool(secret_id))

    @property
    def has_recovery_token(self) -> bool:
        return self._tokens.has_recovery(self._directory.rules_of, is_open=self._directory.is_open)

    def _recovery_caller(self, secret_id: str) -> Caller | None:
        found = self._tokens.recovery_caller(secret_id)
        return found if found is not None and self.has_recovery_token else None

    @property
    def allows_by_default(self) -> bool:
        return self._directory.allows_by_default

    def caller_here(self, secret_id: str) -> Caller:
        if (found := self._recovery_caller(secret_id)) is not None:
            return found
        self._require_current()
        return self._directory.caller(secret_id)

    async def caller(self, secret_id: str) -> Caller:
        try:
            return self.caller_here(secret_id)
        except TokenUnknown:
            # This node may lag, and whoever has made the token have been told that it is there.
            await self._reads.read(ReadLevel.LINEARIZABLE)
            return self._directory.caller(secret_id)

    def judged_again(self, caller: Caller) -> Caller:
        if (found := self._recovery_caller(caller.secret_id)) is not None:
            return found
        self._require_current()
        return self._directory.judged(caller.secret_id, caller)

    def _require_current(self) -> None:
        """An open cluster has no tokens that could have been taken away. That somebody has bootstrapped it since is all
        that a node may miss there. Raises: Outdated.
        """
        seconds = self._outdated_seconds()
        if seconds > self._stale_seconds and not self._directory.is_open:
            raise Outdated(
                f"this node has not heard from a leader for {seconds:.0f} s, and cannot know whether the token still"
                " counts"
            )
