"""How loud events are."""

import json

import pytest
import structlog

from cluster.base.telemetry import EventLog, configure_logging


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
