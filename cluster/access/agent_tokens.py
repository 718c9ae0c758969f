"""Tokens of this node itself, given by an operator (`PUT /v1/agent/token/TYPE`) or in files of its configuration.

In memory only, and never in the cluster's state. A server does its own work without one, so all kinds but one are kept
for Consul's clients, and used for nothing. `agent_recovery` is for when the cluster cannot say whose token one
is: it is good on this node alone, for what concerns the node, and no longer than whoever has given it may do that.
"""

import hmac
from collections.abc import Callable, Mapping
from enum import StrEnum
from typing import Final

from cluster.access.authorizer import Authorizer
from cluster.access.rules import Rule
from cluster.api.access import AGENT_WRITE, Caller, Level, Resource
from cluster.base.errors import NotFound
from cluster.base.words import without_ids

_ACCESSOR: Final = "agent recovery token"


class TokenKind(StrEnum):
    DEFAULT = "default"
    AGENT = "agent"
    RECOVERY = "agent_recovery"
    REPLICATION = "replication"
    REGISTRATION = "config_file_service_registration"
    DNS = "dns"


#: Consul's names of before 1.4 and 1.11.
_OLD_NAMES: Final[Mapping[str, TokenKind]] = {
    "acl_token": TokenKind.DEFAULT,
    "acl_agent_token": TokenKind.AGENT,
    "acl_agent_master_token": TokenKind.RECOVERY,
    "agent_master": TokenKind.RECOVERY,
    "acl_replication_token": TokenKind.REPLICATION,
}


#: What the token with an AccessorID allows now; None where there is none any more.
RulesOf = Callable[[str], Authorizer | None]


class AgentTokens:
    def __init__(self, node_name: str) -> None:
        self._node_name = node_name
        self._tokens: dict[TokenKind, str] = {}
        self._setter = ""  # AccessorID of who has given the recovery token; "" on a cluster that is open to everybody
        self._recovery_rules = Authorizer(
            (
                Rule(Resource.AGENT, Level.WRITE, node_name),
                Rule(Resource.NODE, Level.READ, is_prefix=True),
            ),
            allows_by_default=False,
        )

    def __repr__(self) -> str:
        return f"AgentTokens({', '.join(sorted(self._tokens))})"  # without the tokens

    def put(self, kind: str, secret_id: str, setter: str = "") -> TokenKind:
        """ "" takes it away. `setter`: the AccessorID of who gives it. Raises: NotFound."""
        try:
            found = _OLD_NAMES.get(kind) or TokenKind(kind)
        except ValueError:
            raise NotFound(f'Token "{without_ids(kind):.80}" is unknown') from None
        if secret_id:
            self._tokens[found] = secret_id
        else:
            self._tokens.pop(found, None)
        if found is TokenKind.RECOVERY and setter != _ACCESSOR:  # with which nobody makes it last longer
            self._setter = setter
        return found

    def has_recovery(self, rules_of: RulesOf, *, is_open: bool) -> bool:
        """Whether there is one that counts. `is_open`: nobody is asked for a token."""
        if TokenKind.RECOVERY not in self._tokens:
            return False
        if not self._setter:
            return is_open
        rules = rules_of(self._setter)
        return rules is not None and rules.allows(AGENT_WRITE.resource, AGENT_WRITE.level, self._node_name)

    def recovery_caller(self, secret_id: str) -> Caller | None:
        """Whoever has the recovery token of this node, if it counts."""
        own = self._tokens.get(TokenKind.RECOVERY, "")
        if not own or not hmac.compare_digest(own.encode(), secret_id.encode("utf-8", "surrogatepass")):
            return None
        return Caller(secret_id, _ACCESSOR, self._recovery_rules)
