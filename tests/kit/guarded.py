"""Access control in a cluster without consensus: tokens with rules, made and taken away by what comes in the log."""

from typing import Final

from cluster.access.first import first_acl
from cluster.access.secret_ids import hash_of, new_key
from fsm.acl import GLOBAL_MANAGEMENT, AclCommand, BootstrapAcl, DeleteTokens, Policy, SetPolicy, SetToken, Token
from fsm.commands import Applied
from tests.kit.acl_samples import uuid
from tests.kit.fake_cluster import FakeCluster, Node

ROOT: Final = "00000000-0000-4000-8000-0000000000ff"


class Guard:
    """Nothing is allowed by default on the nodes of this cluster, one of which leads."""

    def __init__(self, cluster: FakeCluster, *nodes: Node) -> None:
        self._cluster = cluster
        self._now = int(nodes[0].clock.now())
        self._made = 0
        assert cluster.state.seal is not None
        for node in nodes:
            node.sealer.unlock(cluster.state.seal)
        key, self._bare = new_key(nodes[0].sealer)
        self._commit(first_acl(key, self._bare, self._now))
        self._commit(BootstrapAcl(self._token(ROOT, (GLOBAL_MANAGEMENT,)), 0))
        for node in nodes:
            node.directory.allows_by_default = False

    def give(self, secret_id: str, *rules: str, expires_at: int = 0) -> str:
        """A token with a policy for each of the rules; its AccessorID."""
        token = self._token(secret_id, tuple(self.policy(text) for text in rules), expires_at)
        self._commit(SetToken(token))
        return token.accessor_id

    def policy(self, rules: str, policy_id: str = "") -> str:
        """A new one, or other rules of this one."""
        old = next((policy for policy in self._cluster.state.acl.policies if policy.policy_id == policy_id), None)
        policy_id = policy_id or self._id()
        index = old.modify_index if old is not None else 0
        self._commit(SetPolicy(Policy(policy_id, f"p-{policy_id}", "", rules), index))
        return policy_id

    def policies_of(self, accessor_id: str) -> tuple[str, ...]:
        [token] = [token for token in self._cluster.state.acl.tokens if token.accessor_id == accessor_id]
        return token.policies

    def revoke(self, accessor_id: str) -> None:
        self._commit(DeleteTokens((accessor_id,)))

    def _token(self, secret_id: str, policies: tuple[str, ...], expires_at: int = 0) -> Token:
        return Token(
            self._id(),
            hash_of(secret_id, self._bare),
            "",
            policies=policies,
            created_at=self._now,
            expires_at=expires_at,
        )

    def _id(self) -> str:
        self._made += 1
        return uuid(5000 + self._made)

    def _commit(self, command: AclCommand) -> None:
        result = self._cluster.commit(command)
        assert isinstance(result, Applied), result
