"""Errors into HTTP: the only place that knows which error gets which status. Bodies are text, as in Consul.

A text is shown when whoever raised the error wrote it for the client; anything unexpected shows nothing and is logged.
"""

import math
from collections.abc import Callable
from typing import Final

from aiohttp import web

from cluster.base.background import describe
from cluster.base.errors import (
    BadRequest,
    ClusterError,
    InternalError,
    NoLeader,
    Outdated,
    Overloaded,
    PermissionDenied,
    RateLimitReached,
    TokenUnknown,
)
from cluster.base.log import Log
from cluster.http.render import text_response
from providers.errors import CSRRejected, NotInitialized, ProviderError, ProviderUnavailable, RateLimited

_MAX_TEXT: Final = 4096
_RETRY_SECONDS: Final = 1

StatusOf = Callable[[ClusterError | ProviderError], int]


class NotAllowed(ClusterError):
    """The path has other methods than this one."""

    code = "method_not_allowed"
    http_status = 405

    def __init__(self, method: str, allow: str) -> None:
        super().__init__(f"method {method} not allowed")
        self.allow = allow


class NoToken(ClusterError):
    """What is asked for is about the token that is sent, and there is none."""

    code = "no_token"
    http_status = 401


class NotFoundPath(ClusterError):
    code = "unknown_path"
    http_status = 404


class Misdirected(ClusterError):
    """The request is for another host: a name that points here by mistake, or by malice."""

    code = "misdirected"
    http_status = 421


class CrossSite(ClusterError):
    """A browser sent it for a page that is not this listener's own."""

    code = "cross_site"
    http_status = 403


class TooSlow(ClusterError):
    """The client did not send its request in time."""

    code = "too_slow"
    http_status = 408


class BodyTooLarge(ClusterError):
    code = "body_too_large"
    http_status = 413


class URLTooLong(ClusterError):
    code = "url_too_long"
    http_status = 414


class HeadersTooLarge(ClusterError):
    code = "headers_too_large"
    http_status = 431


class BodiesFull(Overloaded):
    """No more of request bodies can be held on this node."""


class TooManyWaiting(Overloaded):
    """No more blocking queries can wait on this node."""


class ShuttingDown(Overloaded):
    """The node stops, and does not let a blocking query run to its end."""


#: Refused by this layer, before or beside the endpoint's own work.
_AT_THE_DOOR: Final = (
    BadRequest,
    BodiesFull,
    BodyTooLarge,
    CrossSite,
    HeadersTooLarge,
    Misdirected,
    NotAllowed,
    Outdated,
    ShuttingDown,
    TooManyWaiting,
    TooSlow,
    URLTooLong,
)


def standard_status(error: ClusterError | ProviderError) -> int:
    match error:
        case ClusterError():
            return error.http_status
        case CSRRejected():
            return 400
        case RateLimited():
            return 429
        case ProviderUnavailable() | NotInitialized():
            return 503
        case ProviderError():
            return 500


def read_status(error: ClusterError | ProviderError) -> int:
    """500 without a leader, as in Consul: its Go client repeats a read for no other status. Not where that would not
    help: the node is cut off.
    """
    if isinstance(error, Outdated):
        return error.http_status
    return 500 if isinstance(error, NoLeader) else standard_status(error)


def leaf_status(error: ClusterError | ProviderError) -> int:
    """Consul's statuses of the leaf endpoint: 403 without the right to it, 429 for the rate limit, 500 for everything
    else that goes wrong.
    """
    match error:
        case RateLimitReached() | RateLimited():
            return 429
        case ClusterError() if isinstance(error, _AT_THE_DOOR):
            return error.http_status
        case PermissionDenied() | TokenUnknown():
            return 403
        case _:
            return 500


def error_response(error: Exception, route: str, log: Log, status_of: StatusOf = standard_status) -> web.Response:
    """The answer to a request that failed with `error`."""
    if not isinstance(error, ClusterError | ProviderError):
        log("http.failed", route=route, reason=describe(error))
        return text_response("internal error", 500)
    status = status_of(error)
    headers = {}
    if status in (429, 503) or isinstance(error, ProviderUnavailable):
        headers["Retry-After"] = str(_retry_after(error))
    if isinstance(error, NotAllowed):
        headers["Allow"] = error.allow
    response = text_response(str(error)[:_MAX_TEXT], status, headers)
    if isinstance(error, TooSlow | BodiesFull | BodyTooLarge | HeadersTooLarge | URLTooLong):
        response.force_close()
    return response


def no_such_datacenter() -> InternalError:
    return InternalError("No path to datacenter")


def _retry_after(error: Exception) -> int:
    if isinstance(error, RateLimitReached | RateLimited | ProviderUnavailable):
        return max(_RETRY_SECONDS, math.ceil(error.retry_after_seconds))
    return _RETRY_SECONDS
