"""How errors cross between processes: from the worker processes and between nodes, as msgpack values."""

from collections.abc import Sequence
from typing import Any, Final

from cluster.base import errors as cluster_errors
from cluster.base.errors import ClusterError, RateLimitReached
from providers import errors as provider_errors
from providers.errors import ProviderError, ProviderUnavailable, RateLimited
from providers.texts import bounded

#: Made of more than a text, which is all that goes out: it is the kind that it is a kind of to whoever reads it.
_NOT_SENT: Final = frozenset({cluster_errors.NotUnderstood})
_KINDS: Final[dict[str, type[Exception]]] = {
    name: kind
    for module in (cluster_errors, provider_errors)
    for name, kind in vars(module).items()
    if isinstance(kind, type) and issubclass(kind, ClusterError | ProviderError) and kind not in _NOT_SENT
}


def pack_error(error: BaseException, where: str) -> list[Any]:
    """Type, text, seconds to wait. Of an unexpected error only the type goes out: its text may hold anything.

    Texts are bounded here, whoever has written them: they go on into logs, answers and commands.
    """
    match error:
        case RateLimited() | RateLimitReached() | ProviderUnavailable():
            return [_kind(error), _text(error), error.retry_after_seconds]
        case ClusterError() | ProviderError():
            return [_kind(error), _text(error), 0.0]
        case _:
            return ["InternalError", f"{type(error).__name__} {where}", 0.0]


def _text(error: BaseException) -> str:
    """It may quote what no encoding can carry: half of a surrogate pair, which JSON can hold."""
    return bounded(str(error).encode("utf-8", "replace").decode())


def _kind(error: BaseException) -> str:
    """A provider's own kind of error goes out as the one that it is a kind of."""
    return next((kind.__name__ for kind in type(error).__mro__ if _KINDS.get(kind.__name__) is kind), "InternalError")


def unpack_error(packed: Sequence[Any]) -> ClusterError | ProviderError:
    """Any error that this version does not know becomes an InternalError with its text."""
    kind, text, retry_after = packed
    found = _KINDS.get(kind, cluster_errors.InternalError)
    takes_pause = issubclass(found, RateLimited | RateLimitReached | ProviderUnavailable)
    error = found(text, retry_after) if takes_pause else found(text)
    assert isinstance(error, ClusterError | ProviderError)
    return error
