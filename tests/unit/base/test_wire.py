"""Errors and answers keep their meaning between processes and nodes."""

import msgpack
import pytest

from cluster.base import errors as cluster_errors
from cluster.base.errors import (
    AnswerLost,
    BadRequest,
    ClusterError,
    InternalError,
    NotUnderstood,
    RateLimitReached,
    Refused,
)
from cluster.base.wire import pack_error, unpack_error
from providers import errors as provider_errors
from providers.errors import ProviderError, ProviderUnavailable, RateLimited, SigningKeyGone

KINDS = [
    kind
    for module in (cluster_errors, provider_errors)
    for kind in vars(module).values()
    if isinstance(kind, type) and issubclass(kind, ClusterError | ProviderError) and kind is not NotUnderstood
]


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_error_arrives_as_what_it_was(kind: type[ClusterError | ProviderError]) -> None:
    packed = msgpack.unpackb(msgpack.packb(pack_error(kind("why"), "there")))
    arrived = unpack_error(packed)
    assert type(arrived) is kind
    assert str(arrived) == "why"


def test_body_that_is_not_understood_is_a_bad_request_elsewhere() -> None:
    arrived = unpack_error(pack_error(NotUnderstood("Policy decoding failed", "unknown field"), "there"))
    assert type(arrived) is BadRequest
    assert str(arrived) == "Policy decoding failed: unknown field"


@pytest.mark.parametrize("kind", [RateLimited, RateLimitReached, ProviderUnavailable, SigningKeyGone])
def test_pause_arrives_too(kind: type[RateLimited | RateLimitReached | ProviderUnavailable]) -> None:
    arrived = unpack_error(pack_error(kind("wait", 2.5), ""))
    assert isinstance(arrived, kind)
    assert arrived.retry_after_seconds == 2.5


def test_text_of_an_unexpected_error_stays_at_home() -> None:
    arrived = unpack_error(pack_error(ValueError("a key"), "in a worker"))
    assert type(arrived) is InternalError
    assert str(arrived) == "ValueError in a worker"


def test_kind_of_error_that_a_provider_has_for_itself_arrives_as_what_it_is_a_kind_of() -> None:
    class NotNow(provider_errors.ProviderUnavailable): ...

    class Slower(RateLimited): ...

    assert type(unpack_error(pack_error(NotNow("why"), ""))) is provider_errors.ProviderUnavailable
    slower = unpack_error(pack_error(Slower("why", 3.0), ""))
    assert type(slower) is RateLimited
    assert slower.retry_after_seconds == 3.0


@pytest.mark.parametrize("name", ["FutureError", "Exception", "object"])
def test_error_of_another_version_is_an_internal_one(name: str) -> None:
    arrived = unpack_error([name, "why", 0.0])
    assert type(arrived) is InternalError
    assert str(arrived) == "why"


def test_lost_answer_is_also_an_unknown_outcome() -> None:
    assert issubclass(AnswerLost, cluster_errors.CommitUnknown)
    assert AnswerLost.http_status == 504


def test_text_that_no_encoding_can_carry_is_sent_without_what_it_cannot() -> None:
    """It may quote JSON, which can hold half of a surrogate pair."""
    packed = pack_error(Refused("it is \ud800 here"), "on the leader")
    assert msgpack.unpackb(msgpack.packb(packed)) == ["Refused", "it is ? here", 0.0]


@pytest.mark.parametrize("kind", [InternalError, ProviderUnavailable, RateLimitReached], ids=lambda kind: kind.__name__)
def test_text_of_any_length_arrives_short_and_obeys_no_terminal(kind: type[ClusterError | ProviderError]) -> None:
    packed = pack_error(kind("\x1b[31m" + "x" * 700_000), "")
    assert len(packed[1]) < 4100
    assert packed[1].startswith("\\x1b[31mxxx")
    lines = "2 error(s) decoding:\n\n* one\n* two"
    assert pack_error(kind(lines), "")[1] == lines
