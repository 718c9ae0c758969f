"""Access control, from any node: implements `cluster.api.acl.AclWrites`."""

import json
from collections.abc import Mapping

from cluster.api.access import Caller
from cluster.api.acl import WrittenKey
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


class NodeAcl:
    def __init__(self, reads: NodeReads, forwarder: Forwarder) -> None:
        self._reads = reads
        self._forwarder = forwarder

    async def put(self, caller: Caller, table: str, key: str, body: Mapping[str, object]) -> WrittenKey:
        request = AclPutRequest(table, key, json.dumps(body, ensure_ascii=False))
        return await self._seen(await self._forwarder.call(ACL_PUT, request, secret_id=caller.secret_id))

    async def delete(self, caller: Caller, table: str, key: str) -> None:
        await self._forwarder.call(ACL_DELETE, AclDeleteRequest(table, key), secret_id=caller.secret_id)
        await self._reads.catch_up()

    async def clone(self, caller: Caller, accessor_id: str, description: str) -> WrittenKey:
        request = AclCloneRequest(accessor_id, description)
        return await self._seen(await self._forwarder.call(ACL_CLONE, request, secret_id=caller.secret_id))

    async def bootstrap(self, secret_id: str) -> WrittenKey:
        return await self._seen(await self._forwarder.call(ACL_BOOTSTRAP, AclBootstrapRequest(secret_id)))

    async def login(self, method: str, bearer_token: str, meta: Mapping[str, str]) -> WrittenKey:
        request = AclLoginRequest(method, bearer_token, dict(meta))
        return await self._seen(await self._forwarder.call(ACL_LOGIN, request))

    async def logout(self, caller: Caller) -> None:
        await self._forwarder.call(ACL_LOGOUT, Nothing(), secret_id=caller.secret_id)
        await self._reads.catch_up()

    async def _seen(self, answer: AclKeyAnswer) -> WrittenKey:
        await self._reads.catch_up()
        return WrittenKey(answer.key, answer.secret_id)
