"""Access control, from any node: implements `cluster.api.acl.AclWrites`."""

from collections.abc import Mapping
from typing import Final

from cluster.access.methods.prove import hold_refusal
from cluster.api.access import Caller
from cluster.api.acl import WrittenKey
from cluster.base.clock import Clock
from cluster.base.errors import PermissionDenied
from cluster.base.places import KeyedPlaces
from cluster.node.json_text import json_text
from cluster.node.reads import NodeReads
from cluster.rpc.forward import Forwarder
from cluster.rpc.messages import (
    ACL_BOOTSTRAP,
    ACL_CLONE,
    ACL_DELETE,
    ACL_LOGIN,
    ACL_LOGOUT,
    ACL_PUT,
    AclBootstrapRequest,
    AclCloneRequest,
    AclDeleteRequest,
    AclKeyAnswer,
    AclLoginRequest,
    AclPutRequest,
    Nothing,
)

#: At once, asked of this node: half of its connections to the leader (rpc/client.py) stay for who has a right.
LOGINS_AT_ONCE: Final = 32
LOGINS_OF_A_METHOD: Final = 8
_WAIT_SECONDS: Final = 2.0


class NodeAcl:
    def __init__(self, reads: NodeReads, forwarder: Forwarder, clock: Clock) -> None:
        self._reads = reads
        self._forwarder = forwarder
        self._clock = clock
        self._logins = KeyedPlaces(
            "logins of one method", of_a_key=LOGINS_OF_A_METHOD, in_all=LOGINS_AT_ONCE, wait_seconds=_WAIT_SECONDS
        )

    async def put(self, caller: Caller, table: str, key: str, body: Mapping[str, object]) -> WrittenKey:
        request = AclPutRequest(table, key, json_text("the object", body))
        return await self._seen(await self._forwarder.call(ACL_PUT, request, caller=caller))

    async def delete(self, caller: Caller, table: str, key: str) -> None:
        await self._forwarder.call(ACL_DELETE, AclDeleteRequest(table, key), caller=caller)
        await self._reads.catch_up()

    async def clone(self, caller: Caller, accessor_id: str, description: str) -> WrittenKey:
        request = AclCloneRequest(accessor_id, description)
        return await self._seen(await self._forwarder.call(ACL_CLONE, request, caller=caller))

    async def bootstrap(self, secret_id: str, asked_from: str) -> WrittenKey:
        request = AclBootstrapRequest(secret_id)
        return await self._seen(await self._forwarder.call(ACL_BOOTSTRAP, request, asked_from=asked_from))

    async def login(self, method: str, bearer_token: str, meta: Mapping[str, str], asked_from: str) -> WrittenKey:
        """Anybody may ask: what is held up here, or by whoever vouches for a login, takes places of logins only."""
        request, began = AclLoginRequest(method, bearer_token, dict(meta)), self._clock.monotonic()
        try:
            async with self._logins.place(method):
                answer = await self._forwarder.call(ACL_LOGIN, request, asked_from=asked_from)
        except PermissionDenied:
            await hold_refusal(began, self._clock)  # with no place, and no connection to the leader
            raise
        return await self._seen(answer)

    async def logout(self, caller: Caller) -> None:
        await self._forwarder.call(ACL_LOGOUT, Nothing(), caller=caller)
        await self._reads.catch_up()

    async def _seen(self, answer: AclKeyAnswer) -> WrittenKey:
        await self._reads.catch_up()
        return WrittenKey(answer.key, answer.secret_id)
