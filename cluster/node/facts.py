"""What this node says of itself."""

import hashlib
from collections.abc import Mapping

from cluster.api.facts import Digest
from cluster.ca.authority import Authority
from cluster.ca.health import HealthBoard
from cluster.raft.replica import Replica
from fsm.codec import dump_state


class NodeFacts:
    """Implements `cluster.api.facts.Facts`."""

    def __init__(self, replica: Replica, authority: Authority, health: HealthBoard) -> None:
        self._replica = replica
        self._authority = authority
        self._health = health

    async def digest(self) -> Digest:
        applied_index, state, ledger = await self._replica.digest()
        return Digest(applied_index, hashlib.sha256(dump_state(state)).hexdigest(), ledger.count, ledger.digest)

    def stats(self) -> Mapping[str, Mapping[str, str]]:
        leadership = self._replica.leadership
        state = self._replica.state
        return {
            "ca": {
                "initialized": str(state.active_root is not None).lower(),
                "provider": state.config.provider if state.config else "",
                "ready": str(self._authority.is_ready).lower(),
                "trouble": self._health.now.trouble,
                "warnings": "\n".join(self._health.now.warnings),
            },
            "raft": {
                "applied_index": str(self._replica.applied_index),
                "leader": leadership.leader_id or "",
                "num_peers": str(max(0, len(self._replica.members) - 1)),
                "state": "Leader" if leadership.is_ready else "Follower",
                "term": str(leadership.term),
            },
            "quorumca": {"leader": str(leadership.is_ready).lower(), "server": "true", "state_index": str(state.index)},
        }
