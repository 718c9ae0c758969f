"""What clients write of access control, without anybody who does it."""

from collections.abc import Callable, Mapping

from cluster.api.access import Caller
from cluster.api.acl import WrittenKey

SECRET_ID = "5ec7e7d0-0000-4000-8000-00000000beef"


class FakeAcl:
    """Implements `cluster.api.acl.AclWrites`. `called` is told of all, and raises where a failure is wanted.
    `written` is what new objects get for a key: one that is in the state that readers are shown.
    """

    def __init__(self, called: Callable[..., None], written: str) -> None:
        self._called = called
        self.written = written

    async def put(self, caller: Caller, table: str, key: str, body: Mapping[str, object]) -> WrittenKey:
        self._called("put", caller, table, key, body)
        return self._written(key)

    async def delete(self, caller: Caller, table: str, key: str) -> None:
        self._called("delete", caller, table, key)

    async def clone(self, caller: Caller, accessor_id: str, description: str) -> WrittenKey:
        self._called("clone", caller, accessor_id, description)
        return self._written("")

    async def bootstrap(self, secret_id: str, asked_from: str) -> WrittenKey:
        self._called("bootstrap", secret_id, asked_from)
        return self._written("")

    async def login(self, method: str, bearer_token: str, meta: Mapping[str, str], asked_from: str) -> WrittenKey:
        self._called("login", method, bearer_token, meta, asked_from)
        return self._written("")

    async def logout(self, caller: Caller) -> None:
        self._called("logout", caller)

    def _written(self, key: str) -> WrittenKey:
        return WrittenKey(key or self.written, SECRET_ID)
