"""What a node does for itself and for others, by operation; and who may have it done.

One gate for every operation, before its handler is called: the right that the operation needs is judged by what this
node knows of the token that came with the request, whoever has brought it. So another server can pass a token on, and
cannot say what it is good for.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import Any, Final, cast

from cluster.api.access import Caller, Judge, Right
from cluster.base.errors import InternalError
from cluster.rpc.operation import A, Judged, Operation, Q

#: Whose SecretID it is, on this node, as of now; and what was said of it before for the same request, if it was.
#: Raises: TokenUnknown, NotReady.
Gate = Callable[[str, Caller | None], Caller]


@dataclass(frozen=True, slots=True)
class Served:
    """Made by `served`, `served_to` and `served_from`, which let only a handler that fits the operation through."""

    operation: Operation[Any, Any]
    handler: Callable[[Any, Judge, str], Awaitable[Any]]


def served(operation: Operation[Q, A], handler: Callable[[Q], Awaitable[A]]) -> Served:
    """By a handler that need not know who asks."""
    if operation.needs is Judged.BY_ITSELF:
        raise TypeError(f"{operation!r} is judged by its handler, which has to be told who asks")

    async def handle(request: Q, _judge: Judge, _asked_from: str) -> A:
        return await handler(request)

    return Served(operation, handle)


def served_from(operation: Operation[Q, A], handler: Callable[[Q, str], Awaitable[A]]) -> Served:
    """By a handler that is told from where it was asked: of an operation for whoever is not known yet."""
    if operation.needs is not Judged.OPEN:
        raise TypeError(f"{operation!r} is not for whoever is not known: its handler has to be told who asks")

    async def handle(request: Q, _judge: Judge, asked_from: str) -> A:
        return await handler(request, asked_from)

    return Served(operation, handle)


def served_to(operation: Operation[Q, A], handler: Callable[[Q, Judge], Awaitable[A]]) -> Served:
    """By a handler that judges by itself who asks, whenever it matters: after each wait. What it judges with refuses
    whoever has not the right that the operation needs.
    """

    async def handle(request: Q, judge: Judge, _asked_from: str) -> A:
        return await handler(request, judge)

    return Served(operation, handle)


#: What the release before says, too: its text is all that tells it from other errors.
NOT_KNOWN: Final = "is not known to this node"


class Operations:
    """The table of one node."""

    def __init__(self, gate: Gate, *table: Served) -> None:
        self._gate = gate
        self._served = {entry.operation.name: entry for entry in table}

    def named(self, name: str) -> Served:
        """Raises: InternalError for one that this version does not know."""
        found = self._served.get(name)
        if found is None:
            raise InternalError(f"operation {name!r:.50} {NOT_KNOWN}: is it of an older version?")
        return found

    async def run(self, operation: Operation[Q, A], request: Q, secret_id: str = "", asked_from: str = "") -> A:
        """On this node, for whoever has this SecretID; `asked_from` as it is recorded.

        Raises: as the operation; PermissionDenied, NotReady.
        """
        return cast(A, await self.serve(self.named(operation.name), request, secret_id, asked_from))

    async def serve(self, served: Served, request: Any, secret_id: str, asked_from: str) -> Any:
        """As `run`."""
        needs = served.operation.needs

        caller: Caller | None = None

        def judge() -> Caller:  # not a `partial`, which shows what it was given
            nonlocal caller
            caller = self._gate(secret_id, caller)
            if caller.asked_from != asked_from:
                caller = replace(caller, asked_from=asked_from)
            if isinstance(needs, Right):
                caller.require(needs)
            return caller

        if isinstance(needs, Right):
            judge()
        return await served.handler(request, judge, asked_from)
