"""How loud events are, and what metrics tell apart."""

import json

import pytest
import structlog

from cluster.base.telemetry import EventLog, Metrics, configure_logging
from cluster.signing.pipeline import MAX_BATCH


@pytest.mark.parametrize(
    "event",
    [
        "provider.cleanup_failed",
        "root.expired",
        "root.expires_soon",
        "rotation.given_up",
        "rotation.old_root_expired",
        "tls.expires_soon",
    ],
)
def test_what_somebody_must_look_into_is_more_than_information(
    event: str, capsysbinary: pytest.CaptureFixture[bytes]
) -> None:
    configure_logging("warning", "json")
    try:
        EventLog()(event, reason="r")
        EventLog()("rotation.begun")
    finally:
        structlog.reset_defaults()
    [line] = capsysbinary.readouterr().out.splitlines()
    assert json.loads(line)["event"] == event


@pytest.mark.parametrize("form", ["json", "pretty"])
def test_line_of_the_log_is_bounded(form: str, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    configure_logging("warning", form)
    try:
        EventLog()("duty.failed", reason="\x1b[31m" + "x" * 700_000, attempt=7)
    finally:
        structlog.reset_defaults()
    out = capfdbinary.readouterr().out
    assert b"(700005 characters)" in out
    assert len(out) < 5000


def bounds() -> dict[str, list[float]]:
    """Of the buckets of each histogram, without the last one, which takes everything."""
    metrics = Metrics()
    metrics.http_seconds.labels("route").observe(0)
    found: dict[str, list[float]] = {}
    for metric in metrics.registry.collect():
        if metric.type == "histogram":
            limits = [float(sample.labels["le"]) for sample in metric.samples if sample.name.endswith("_bucket")]
            found[metric.name.removeprefix("quorumca_")] = limits[:-1]
    return found


def test_sizes_of_batches_are_told_apart_up_to_the_largest() -> None:
    assert bounds()["sign_batch_size"] == [1, 2, 4, 8, 16, MAX_BATCH]


def test_only_times_have_buckets_of_fractions() -> None:
    """A count in buckets of seconds is always in the last few of them."""
    fractions = {name for name, limits in bounds().items() if any(limit != int(limit) for limit in limits)}
    assert fractions
    assert all(name.endswith("_seconds") for name in fractions)
