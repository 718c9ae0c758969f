"""Disk alarm, certificate reload, scrubbing."""

import asyncio
import os
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from cluster.base.telemetry import Metrics
from cluster.node.upkeep import CertificateFiles, DiskSpace, Scrub, look_after
from tests.kit.clock import FakeClock
from tests.kit.log import EventLog
from tests.kit.wait import until

_BLOCK = 4096


def free(monkeypatch: pytest.MonkeyPatch, free_bytes: int) -> None:
    found = SimpleNamespace(f_bavail=free_bytes // _BLOCK, f_frsize=_BLOCK)
    monkeypatch.setattr(os, "statvfs", lambda _path: found)


def test_disk_alarm_is_raised_once_and_ends_with_some_room(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    log, metrics = EventLog(), Metrics()
    space = DiskSpace(tmp_path, 100 * _BLOCK, log, metrics)
    for blocks, events in ((101, []), (99, ["disk.low"]), (98, []), (105, []), (111, ["disk.recovered"]), (100, [])):
        free(monkeypatch, blocks * _BLOCK)
        log.events.clear()
        space.look()
        assert log.names() == events, blocks
        assert metrics.registry.get_sample_value("quorumca_disk_free_bytes") == blocks * _BLOCK
    free(monkeypatch, 1)
    space.look()
    assert metrics.registry.get_sample_value("quorumca_disk_low") == 1


def write_cert(path: Path, begin: datetime, end: datetime) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "node-1")])
    cert = x509.CertificateBuilder(name, name, key.public_key(), 1, begin, end).sign(key, hashes.SHA256())
    path.write_bytes(cert.public_bytes(serialization.Encoding.PEM))


class Watched:
    """CertificateFiles over a file that the test replaces."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.clock, self.log, self.metrics = FakeClock(), EventLog(), Metrics()
        self.reloads = 0
        self.refuse = False
        self.renew(days=10)
        self.files = CertificateFiles("node", (path,), path, self.reload, self.clock.now, self.log, self.metrics)

    def reload(self) -> None:
        if self.refuse:
            raise ValueError("key and certificate do not fit")
        self.reloads += 1

    def renew(self, *, days: int) -> None:
        begin = datetime.fromtimestamp(self.clock.now(), UTC)
        self.path.unlink(missing_ok=True)
        write_cert(self.path, begin, begin + timedelta(days=days))

    def expiry(self) -> float | None:
        return self.metrics.registry.get_sample_value("quorumca_node_cert_not_after_seconds", {"certificate": "node"})

    def look(self) -> list[str]:
        self.log.events.clear()
        self.files.look()
        return self.log.names()


@pytest.fixture
def watched(tmp_path: Path) -> Watched:
    return Watched(tmp_path / "cert.pem")


def test_replaced_certificate_is_taken_into_use_once(watched: Watched) -> None:
    assert watched.look() == []
    watched.renew(days=20)
    assert watched.look() == ["tls.reloaded"]
    assert watched.look() == []
    assert watched.reloads == 1
    assert watched.expiry() == watched.clock.now() + 20 * 86_400


def test_unusable_certificate_leaves_the_old_one_and_the_next_change_is_looked_at(watched: Watched) -> None:
    watched.refuse = True
    watched.renew(days=20)
    assert watched.look() == ["tls.reload_failed"]
    assert watched.expiry() == watched.clock.now() + 10 * 86_400
    watched.refuse = False
    watched.renew(days=30)
    assert watched.look() == ["tls.reloaded"]


def test_certificate_that_is_refused_is_looked_at_until_it_is_good_and_named_once(watched: Watched) -> None:
    """It may have been put in place before it was valid."""
    watched.refuse = True
    watched.renew(days=20)
    assert watched.look() == ["tls.reload_failed"]
    assert watched.look() == []
    watched.refuse = False
    assert watched.look() == ["tls.reloaded"]
    assert watched.look() == []
    assert watched.expiry() == watched.clock.now() + 20 * 86_400


def test_a_file_that_is_gone_for_a_moment_is_no_reason_to_stop(watched: Watched) -> None:
    watched.path.unlink()
    watched.refuse = True
    assert watched.look() == ["tls.reload_failed"]


def test_expiry_is_warned_of_and_repeated_every_hour(watched: Watched) -> None:
    watched.clock.advance(8.1 * 86_400)
    assert watched.look() == ["tls.expires_soon"]
    assert watched.look() == []
    watched.clock.advance(3600)
    assert watched.look() == ["tls.expires_soon"]
    watched.clock.advance(2 * 86_400)
    assert watched.look() == ["tls.expired"]


@pytest.mark.parametrize(
    ("renews", "life_days", "left_days", "expected"),
    [
        (False, 365, 15, 0.0),
        (False, 365, 13, 1.0),
        (False, 3, 2.9, 1.0),
        (True, 3, 2.9, 0.0),
        (True, 3, 0.8, 0.0),
        (True, 3, 0.7, 1.0),
        (True, 3, -0.1, 1.0),
        (True, 365, 13, 1.0),
    ],
)
def test_it_is_counted_when_somebody_has_to_see_to_a_certificate(
    tmp_path: Path, renews: bool, life_days: int, left_days: float, expected: float
) -> None:
    watched = Watched(tmp_path / "cert.pem")
    watched.renew(days=life_days)
    files = CertificateFiles(
        "node",
        (watched.path,),
        watched.path,
        watched.reload,
        watched.clock.now,
        watched.log,
        watched.metrics,
        renews=renews,
    )
    watched.clock.advance((life_days - left_days) * 86_400)
    files.look()
    name, labels = "quorumca_node_cert_expires_soon", {"certificate": "node"}
    assert watched.metrics.registry.get_sample_value(name, labels) == expected


class _Files:
    """Stands for Replica and LedgerReads."""

    def __init__(self, journal: list[str], ledger: str, excess: str) -> None:
        self.journal = journal
        self.ledger = ledger
        self.excess = excess

    async def ledger_excess(self) -> str:
        return self.excess

    async def scrub(self) -> list[str]:
        return self.journal

    async def call(self, read: Callable[[Any], str]) -> str:
        return read(SimpleNamespace(damage=lambda: self.ledger))


@pytest.mark.parametrize(
    ("journal", "ledger", "excess", "events"),
    [
        ([], "", "", []),
        (["a", "b"], "", "", ["journal.damaged"] * 2),
        ([], "row missing", "", ["ledger.damaged"]),
        ([], "", "ahead", ["ledger.damaged"]),
    ],
)
async def test_scrub_reports_what_is_damaged(journal: list[str], ledger: str, excess: str, events: list[str]) -> None:
    log, metrics = EventLog(), Metrics()
    files: Any = _Files(journal, ledger, excess)
    await Scrub(files, files, log, metrics).look()
    assert log.names() == events
    assert metrics.registry.get_sample_value("quorumca_scrubs_total") == 1
    assert metrics.registry.get_sample_value("quorumca_scrub_damage_total", {"file": "journal"}) == len(journal)
    assert metrics.registry.get_sample_value("quorumca_scrub_damage_total", {"file": "ledger"}) == bool(
        ledger or excess
    )


async def test_one_look_that_fails_takes_none_of_the_others_along(tmp_path: Path) -> None:
    """A certificate that is gone, a disk that cannot be asked: nothing of it ends the node."""
    log, metrics, looks = EventLog(), Metrics(), 0

    class Failing:
        def look(self) -> None:
            nonlocal looks
            looks += 1
            raise RuntimeError("no more descriptors")

    failing: Any = Failing()
    hurry = asyncio.Event()
    hurry.set()
    task = asyncio.ensure_future(look_after(failing, [failing, failing], hurry, log, metrics))
    await until(lambda: looks >= 6 or task.done())
    assert not task.done()
    task.cancel()
    assert {fields["work"] for _, fields in log.events} == {"disk space", "certificates"}
