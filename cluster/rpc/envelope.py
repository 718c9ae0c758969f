"""A message between nodes: several requests for one operation, and an outcome for each."""

from typing import Annotated, Any, Final

from msgspec import Meta, Raw, msgpack

from cluster.base.wire import pack_error, unpack_error
from cluster.rpc.operation import A, Message, NotUnderstood, Operation, Q, decoded

MAX_RPC_BYTES: Final = 4 << 20
#: Requests in one message.
MAX_REQUESTS: Final = 1024
_MAX_ERROR_TEXT: Final = 64 << 10


class Envelope(Message, frozen=True):
    milliseconds: Annotated[int, Meta(ge=0, le=(1 << 53))]  # how long the one who asks will wait
    requests: Annotated[list[Raw], Meta(max_length=MAX_REQUESTS)]


class ErrorMessage(Message, frozen=True):
    """As `cluster.base.wire` packs errors."""

    kind: str
    text: str
    retry_after_seconds: float


class Outcome(Message, frozen=True):
    """One of the two is nil."""

    error: ErrorMessage | None
    result: Raw


_NIL: Final = Raw(b"\xc0")
_ENCODER: Final = msgpack.Encoder()
_ENVELOPES: Final = msgpack.Decoder(Envelope)
_OUTCOMES: Final = msgpack.Decoder(list[Outcome])


def pack_requests(operation: Operation[Q, Any], requests: list[Q], seconds: float, version: int) -> bytes:
    packed = [Raw(operation.request.pack(request, version)) for request in requests]
    return _ENCODER.encode(Envelope(max(0, int(1000 * seconds)), packed))


def unpack_envelope(body: bytes) -> Envelope:
    """Raises: NotUnderstood."""
    return decoded(_ENVELOPES, body)


def pack_outcome(operation: Operation[Any, A], outcome: A | BaseException, version: int) -> Outcome:
    if isinstance(outcome, BaseException):
        return refusal(outcome)
    return Outcome(None, Raw(operation.answer.pack(outcome, version)))


def refusal(error: BaseException) -> Outcome:
    kind, text, pause = pack_error(error, "on the leader")
    return Outcome(ErrorMessage(kind, text[:_MAX_ERROR_TEXT], pause), _NIL)


def pack_outcomes(outcomes: list[Outcome]) -> bytes:
    return _ENCODER.encode(outcomes)


def unpack_outcomes(operation: Operation[Any, A], body: bytes, count: int, version: int) -> list[A | Exception]:
    """One for each request. Raises: NotUnderstood."""
    outcomes = decoded(_OUTCOMES, body)
    if len(outcomes) != count:
        raise NotUnderstood(f"{len(outcomes)} outcomes for {count} requests")
    return [
        operation.answer.unpack(outcome.result, version)
        if outcome.error is None
        else unpack_error([outcome.error.kind, outcome.error.text, outcome.error.retry_after_seconds])
        for outcome in outcomes
    ]
