"""Errors of the acting layer. `code` is stable and machine-readable, `http_status` is what the API answers."""

from typing import ClassVar


class ClusterError(Exception):
    """Base class; the text is written for whoever made the request."""

    code: ClassVar[str] = "internal"
    http_status: ClassVar[int] = 500


class BadRequest(ClusterError):
    """The request itself is malformed: the client must change it."""

    code = "bad_request"
    http_status = 400


class NotUnderstood(BadRequest):
    """A body that is not of the form that is asked for. `detail` is the text without what it was read as."""

    def __init__(self, read_as: str, detail: str) -> None:
        super().__init__(f"{read_as}: {detail}")
        self.detail = detail


class NotFound(ClusterError):
    code = "not_found"
    http_status = 404


class PermissionDenied(ClusterError):
    """Who asks may not do that; nothing was done."""

    code = "permission_denied"
    http_status = 403


class TokenUnknown(PermissionDenied):
    """There is no such token, or not any more."""

    code = "token_unknown"


class StaleIndex(ClusterError):
    """A check-and-set lost against a newer write; nothing was changed."""

    code = "stale_index"
    http_status = 409


class Conflict(ClusterError):
    """Not possible beside what there is already; nothing was changed."""

    code = "conflict"
    http_status = 409


class Refused(ClusterError):
    """Well-formed, understood, and not possible in the present state; nothing was changed."""

    code = "refused"
    http_status = 422


class RateLimitReached(ClusterError):
    code = "rate_limited"
    http_status = 429

    def __init__(self, text: str, retry_after_seconds: float = 1.0) -> None:
        super().__init__(text)
        self.retry_after_seconds = retry_after_seconds


class InternalError(ClusterError):
    """What Consul answers with status 500 and a text; the text is safe to show."""

    code = "internal"
    http_status = 500


class LostRace(InternalError):
    """Definitely not done: the CA has changed since it was looked at."""


class NotLeader(ClusterError):
    """Definitely not done: this node does not lead. Safe to send again, to the leader."""

    code = "not_leader"
    http_status = 503


class NoLeader(ClusterError):
    """Definitely not done: no leader is known. Safe to send again later."""

    code = "no_leader"
    http_status = 503


class Outdated(NoLeader):
    """Definitely not done: this node has been cut off for too long to know what who asks may do."""


class Overloaded(ClusterError):
    """Definitely not done: a queue is full. Safe to send again later."""

    code = "overloaded"
    http_status = 503


class ChangeUnderWay(Overloaded):
    """Definitely not done: the CA is being changed already, and others wait. Safe to send again later."""


class NotReady(ClusterError):
    """Definitely not done: the CA, or this node, is not ready yet."""

    code = "not_ready"
    http_status = 503


class CommitUnknown(ClusterError):
    """The write may or may not have taken effect: read the state, then decide; never blindly send again."""

    code = "commit_unknown"
    http_status = 504


class AnswerLost(CommitUnknown):
    """It took effect, but its answer was lost with a leader and cannot be given again."""


class ConfigError(ClusterError):
    """The node's own configuration cannot be used; one line for each mistake."""

    code = "config"
