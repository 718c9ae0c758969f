"""Access control as clients write it: policies, roles, tokens, auth methods and binding rules, and what comes of them.

Reading needs nothing of this: all of it is in the state (`fsm.acl`).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from cluster.api.access import Caller


@dataclass(frozen=True, slots=True)
class WrittenKey:
    """What was written: its ID or name; of a new token, its SecretID, too, which is nowhere to be had again."""

    key: str
    secret_id: str = field(default="", repr=False)


class AclWrites(Protocol):
    """Each returns once this node shows what was written.

    Raises, all: PermissionDenied, NotReady, NoLeader, BadRequest, NotFound, Refused, ChangeUnderWay, CommitUnknown.
    """

    async def put(self, caller: Caller, table: str, key: str, body: Mapping[str, object]) -> WrittenKey:
        """`table` is one of `fsm.acl.ACL_TABLES`; without a key a new object is made."""
        ...

    async def delete(self, caller: Caller, table: str, key: str) -> None: ...
    async def clone(self, caller: Caller, accessor_id: str, description: str) -> WrittenKey: ...
    async def bootstrap(self, secret_id: str, asked_from: str) -> WrittenKey:
        """The first token for management; `secret_id` may be chosen. `asked_from`: the client's address."""
        ...

    async def login(self, method: str, bearer_token: str, meta: Mapping[str, str], asked_from: str) -> WrittenKey: ...
    async def logout(self, caller: Caller) -> None: ...
