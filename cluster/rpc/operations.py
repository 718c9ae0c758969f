"""What a node does for itself and for others, by operation."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, cast

from cluster.base.errors import InternalError
from cluster.rpc.operation import A, Operation, Q


@dataclass(frozen=True, slots=True)
class Served:
    """Made by `served`, which lets only a handler that fits the operation through."""

    operation: Operation[Any, Any]
    handler: Callable[[Any], Awaitable[Any]]


def served(operation: Operation[Q, A], handler: Callable[[Q], Awaitable[A]]) -> Served:
    return Served(operation, handler)


class Operations:
    """The table of one node."""

    def __init__(self, *table: Served) -> None:
        self._served = {entry.operation.name: entry for entry in table}

    def named(self, name: str) -> Served:
        """Raises: InternalError for one that this version does not know."""
        found = self._served.get(name)
        if found is None:
            raise InternalError(f"operation {name!r:.50} is not known to this node: is it of an older version?")
        return found

    async def run(self, operation: Operation[Q, A], request: Q) -> A:
        """On this node. Raises: as the operation."""
        return cast(A, await self.named(operation.name).handler(request))
