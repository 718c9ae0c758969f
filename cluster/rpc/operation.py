"""What one node can ask of another: an operation has a name, a request and an answer, and a form on the wire.

Requests and answers are msgspec structs, written as msgpack lists: the fields in their order, nothing else. Whoever
reads checks every type and bound, takes defaults for fields that are missing at the end, and passes over fields at the
end that it does not know. So a later release may add fields, and nodes of two releases understand each other while
they are exchanged one by one.

VERSION counts the forms:

1. A message of a single field is that field alone, one without fields is nil; further fields are an error.
2. Every message is a list, as above.
3. As 2. The node applies what access control puts into the log.

A connection begins with OLDEST. Each answer says in a header which version its node speaks, and from then on the
connection uses the newest that both know. It is not remembered for longer: the node may be replaced by one of an older
release. A version is dropped once the release before this one speaks a newer one.
"""

from collections.abc import Callable
from enum import Enum
from typing import Any, Final, Generic, TypeVar

import msgspec
from msgspec import msgpack, structs

from cluster.api.access import Right

VERSION: Final = 3
OLDEST: Final = 1
VERSION_HEADER: Final = "Quorumca-Rpc"

_ENCODER: Final = msgpack.Encoder()


class Message(msgspec.Struct, array_like=True, frozen=True):
    """Base of every request and answer."""


class NotUnderstood(ValueError):
    """Bytes that are not what the operation takes or gives; the text names the field."""


Q = TypeVar("Q", bound=Message)
A = TypeVar("A", bound=Message)
M = TypeVar("M", bound=Message)
T = TypeVar("T")


def decoded(decoder: "msgpack.Decoder[T]", data: bytes | msgspec.Raw) -> T:
    """Raises: NotUnderstood, whatever the bytes are."""
    try:
        return decoder.decode(data)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:  # ValueError: text that is not UTF-8
        raise NotUnderstood(str(error)) from None


class _Form(Generic[M]):
    """One kind of message in both versions."""

    def __init__(self, kind: type[M]) -> None:
        self._kind = kind
        self._decoder = msgpack.Decoder(kind)
        fields = structs.fields(kind)
        self._is_bare = len(fields) < 2
        self._only_field = fields[0].name if len(fields) == 1 else None
        self._bare_decoder: msgpack.Decoder[Any] = msgpack.Decoder(fields[0].type if fields else None)

    def pack(self, message: M, version: int) -> bytes:
        if version == 1 and self._is_bare:
            return _ENCODER.encode(getattr(message, self._only_field) if self._only_field else None)
        return _ENCODER.encode(message)

    def unpack(self, data: bytes | msgspec.Raw, version: int) -> M:
        """Raises: NotUnderstood."""
        if version == 1 and self._is_bare:
            value = decoded(self._bare_decoder, data)
            return self._kind(value) if self._only_field else self._kind()
        return decoded(self._decoder, data)


class Judged(Enum):
    """Where no one right is enough to say who may ask."""

    BY_ITSELF = "the handler is told who asks, and judges"
    OPEN = "whoever asks need not be known yet"
    BETWEEN_SERVERS = "servers ask it of each other, for no client: the handshake has proved them"


def _as_it_is(request: Q, _peer: str) -> Q:
    return request


class Operation(Generic[Q, A]):
    """Compared by identity: each is made once, in messages.py."""

    def __init__(
        self,
        name: str,
        request: type[Q],
        answer: type[A],
        *,
        needs: Right | Judged,
        is_repeatable: bool = False,
        is_batched: bool = False,
        needs_leader: bool = True,
        seconds: float | None = None,
        as_told_by: Callable[[Q, str], Q] | None = None,
    ) -> None:
        """`needs`: what whoever asked must have, as the node that does it knows it. `is_repeatable`: the leader
        recognises a repetition, so a lost answer is no reason to stop. `is_batched`: what waits goes together.
        `seconds`: how long it may take, where that is longer than a leader is waited for. `as_told_by`: what the server
        that serves it makes of a request, by the name of the one that it came from; "" beside servers of the release
        before.
        """
        self.name = name
        self.needs = needs
        self.is_repeatable = is_repeatable
        self.is_batched = is_batched
        self.needs_leader = needs_leader
        self.seconds = seconds
        self.as_told_by: Callable[[Q, str], Q] = as_told_by or _as_it_is
        self.request = _Form(request)
        self.answer = _Form(answer)

    def __repr__(self) -> str:
        return f"Operation({self.name!r})"
