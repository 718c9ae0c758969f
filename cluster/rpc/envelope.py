"""A message between nodes: several requests for one operation, and an outcome for each."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, Final, Generic

from msgspec import Meta, Raw, msgpack

from cluster.base.errors import AnswerLost
from cluster.base.wire import pack_error, unpack_error
from cluster.rpc.operation import A, Message, NotUnderstood, Operation, Q, decoded

MAX_RPC_BYTES: Final = 4 << 20
#: Requests in one message.
MAX_REQUESTS: Final = 1024
_MAX_ERROR_TEXT: Final = 64 << 10
_MAX_PAUSE_SECONDS: Final = 86_400.0


class Envelope(Message, frozen=True):
    milliseconds: Annotated[int, Meta(ge=0, le=(1 << 53))]  # how long the one who asks will wait
    requests: Annotated[list[Raw], Meta(max_length=MAX_REQUESTS)]


class ErrorMessage(Message, frozen=True):
    """As `cluster.base.wire` packs errors."""

    kind: str
    text: str
    retry_after_seconds: Annotated[float, Meta(ge=0, le=_MAX_PAUSE_SECONDS)]


class Outcome(Message, frozen=True):
    """One of the two is nil."""

    error: ErrorMessage | None
    result: Raw


@dataclass(frozen=True, slots=True)
class Asked(Generic[Q]):
    """A request, for whom, and from where those have asked."""

    request: Q
    secret_id: str = field(default="", repr=False)
    asked_from: str = ""


_NIL: Final = Raw(b"\xc0")
_ENCODER: Final = msgpack.Encoder()
_ENVELOPES: Final = msgpack.Decoder(Envelope)
_OUTCOMES: Final = msgpack.Decoder(Annotated[list[Outcome], Meta(max_length=MAX_REQUESTS)])


def pack_requests(operation: Operation[Q, Any], asks: Sequence[Asked[Q]], seconds: float, version: int) -> bytes:
    packed = [Raw(operation.request.pack(ask.request, version)) for ask in asks]
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
    return Outcome(ErrorMessage(kind, text[:_MAX_ERROR_TEXT], min(pause, _MAX_PAUSE_SECONDS)), _NIL)


def pack_outcomes(outcomes: list[Outcome]) -> bytes:
    return _ENCODER.encode(outcomes)


def unpack_outcomes(operation: Operation[Any, A], body: bytes, count: int, version: int) -> list[A | Exception]:
    """One for each request. Raises: NotUnderstood."""
    outcomes = decoded(_OUTCOMES, body)
    if len(outcomes) != count:
        raise NotUnderstood(f"{len(outcomes)} outcomes for {count} requests")
    return [_outcome(operation, outcome, version) for outcome in outcomes]


def _outcome(operation: Operation[Any, A], outcome: Outcome, version: int) -> A | Exception:
    if outcome.error is not None:
        error = outcome.error
        return unpack_error([error.kind, error.text[:_MAX_ERROR_TEXT], error.retry_after_seconds])
    try:
        return operation.answer.unpack(outcome.result, version)
    except NotUnderstood as error:
        # It was done, and would be answered so again: no reason to ask once more, nor to lose the answers beside it.
        return AnswerLost(f"the answer to operation {operation.name!r} is not understood: {error}")
